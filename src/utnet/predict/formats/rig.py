"""The animated GLB: one skinned mesh per track, for Blender, Unity, Unreal, three.js.

Each track is an armature of 21 nodes ("right_0_wrist" to "right_0_little_tip": MANO's 16 joints and the tips, which are
not skinned) and a mesh of the open hand with the track's shape. Axes are glTF's (y up, z towards the viewer), metres,
the camera at the origin. The rest pose is the open hand's; channels contain the rotation of each joint to its parent
and the position of the wrist at the video's times. While a hand is not detected, its pose is held; the `extras` of its
wrist list these times.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utnet.conventions import MANO21_NAMES, MANO_PARENTS
from utnet.errors import InputError
from utnet.hand.arrays import HandArrays, load_open_hand
from utnet.io.atomic import atomic_write
from utnet.predict.drawing import SIDE_COLORS
from utnet.predict.formats.gltf import OPENCV_TO_GLTF, VERTEX_BUFFER, Glb
from utnet.predict.track import HandTrack
from utnet.rotations import matrix_to_quaternion

_TO_GLTF = OPENCV_TO_GLTF[:3, :3]
_PARENTS = (*MANO_PARENTS, 15, 3, 6, 12, 9)
"""Names of the 16 joints and the tips, thumb first (MANO's little finger comes before the ring finger)."""


def write_rig(path: str | Path, tracks: Sequence[HandTrack], *, file: str = "") -> None:
    """Writes the tracks of a video to one GLB with one animation.

    Args:
        path: the file.
        tracks: of one video.
        file: the video, for `extras`.

    Raises:
        InputError: no track, or one of MANO, whose arrays may not be distributed in a rig.
    """
    if not tracks:
        raise InputError(f"{path}: no hand was tracked, so there is nothing to animate")
    if any(track.hand_model != "open" for track in tracks):
        raise InputError(f"{path}: a rig would contain MANO's arrays, which its licence forbids; leave out --mano")
    about = {"unit": "m", "frame": "camera, glTF axes: y up, z towards the viewer", "source": file}
    glb = Glb({**about, "hand_model": "open hand of UTNet, Apache-2.0"})
    right = load_open_hand()
    arrays = {"right": right, "left": right.mirrored()}
    materials = {side: glb.material(f"{side}_hand", SIDE_COLORS[side]) for side in {t.side for t in tracks}}
    channels, samplers = list[dict](), list[dict]()
    for track in tracks:
        nodes = _skinned(glb, track, arrays[track.side], materials[track.side])
        _animate(glb, track, nodes, channels, samplers)
    glb.add("animations", name="hands", channels=channels, samplers=samplers)
    atomic_write(Path(path), glb.to_bytes())


def _skinned(glb: Glb, track: HandTrack, arrays: HandArrays, material: int) -> list[int]:
    """Adds a track's mesh and armature; returns the nodes of its 21 joints."""
    name = f"{track.side}_{track.track}"
    vertices = arrays.v_template + arrays.shapedirs @ track.betas
    rest = np.concatenate([arrays.J_template + arrays.J_shapedirs @ track.betas, vertices[arrays.tip_vertices]])
    nodes = []
    for joint, parent in enumerate(_PARENTS):
        place = rest[joint] - rest[parent] if parent >= 0 else _TO_GLTF @ track.wrist_cam_m[0]
        seen = {"seen_s": [float(track.times_s[0]), float(track.times_s[-1])], "not_seen_s": track.gaps_s()}
        extras = {"side": track.side, "track": track.track, **seen} if parent < 0 else None
        nodes.append(glb.add("nodes", name=f"{name}_{MANO21_NAMES[joint]}", translation=place.tolist(), extras=extras))
    for joint, node in enumerate(nodes):
        children = [nodes[child] for child, parent in enumerate(_PARENTS) if parent == joint]
        if children:
            glb.set("nodes", node, children=children)
    to_rest = np.tile(np.eye(4, dtype=np.float32), (len(rest), 1, 1))
    to_rest[:, :3, 3] = -rest
    skin = glb.add("skins", name=name, joints=nodes, skeleton=nodes[0], inverseBindMatrices=glb.array(to_rest))
    bound = {}
    for i, (joints, weights) in enumerate(influences(arrays.weights)):
        bound[f"JOINTS_{i}"] = glb.array(joints.astype(np.uint8), target=VERTEX_BUFFER)
        bound[f"WEIGHTS_{i}"] = glb.array(weights.astype(np.float32), target=VERTEX_BUFFER)
    mesh = glb.mesh(f"{name}_mesh", vertices, arrays.faces, material, bound)
    glb.show(glb.add("nodes", name=f"{name}_mesh", mesh=mesh, skin=skin))
    glb.show(nodes[0])
    return nodes


def _animate(glb: Glb, track: HandTrack, nodes: Sequence[int], channels: list[dict], samplers: list[dict]) -> None:
    """Adds the channels of a track."""
    rows, times_s = held(track)
    rotations = track.rotations[rows].astype(float)
    rotations[:, 0] = _TO_GLTF @ rotations[:, 0]
    time = glb.array(times_s.astype(np.float32), bounds=True)

    def channel(node: int, path: str, values: np.ndarray) -> None:
        samplers.append({"input": time, "output": glb.array(values.astype(np.float32)), "interpolation": "LINEAR"})
        channels.append({"sampler": len(samplers) - 1, "target": {"node": node, "path": path}})

    channel(nodes[0], "translation", track.wrist_cam_m[rows] @ _TO_GLTF)
    for joint in range(rotations.shape[1]):
        channel(nodes[joint], "rotation", steady_quaternions(rotations[:, joint]))


def held(track: HandTrack) -> tuple[np.ndarray, np.ndarray]:
    """Rows and times of the keys: those of the track, and the last pose again before the end of each gap."""
    step_s = float(np.median(np.diff(track.times_s))) if len(track.times_s) > 1 else 0.0
    rows, times = [0], [float(track.times_s[0])]
    for row in range(1, len(track.times_s)):
        if track.frames[row] - track.frames[row - 1] > 1:
            until = track.times_s[row] - min(step_s, (track.times_s[row] - times[-1]) / 2)
            rows.append(row - 1)
            times.append(float(until))
        rows.append(row)
        times.append(float(track.times_s[row]))
    return np.array(rows), np.array(times)


def steady_quaternions(R: np.ndarray) -> np.ndarray:
    """(T, 3, 3) -> (T, 4) unit quaternions x, y, z, w, each in the half space of the one before."""
    q = matrix_to_quaternion(R)
    flips = np.where((q[1:] * q[:-1]).sum(1) < 0, -1.0, 1.0)
    return q * np.concatenate([[1.0], np.cumprod(flips)])[:, None]


def influences(weights: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(V, 16) skinning weights as sets of (V, 4) joints and (V, 4) weights, largest first, as many as are needed.

    Viewers that use only the first set (three.js, normalised) move the open hand's vertices by at most 0.2 mm.
    """
    joints = np.argsort(-weights, axis=1, kind="stable")
    ordered = np.take_along_axis(weights, joints, 1).astype(np.float64)
    ordered /= ordered.sum(1, keepdims=True)
    joints = np.where(ordered > 0, joints, 0)
    num = int((weights > 0).sum(1).max())
    return [(joints[:, k : k + 4], ordered[:, k : k + 4]) for k in range(0, num, 4)]
