"""Pictures read, and hands written: JSON, GLB/OBJ/PLY, overlays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import trimesh

from utnet.errors import InputError
from utnet.geometry import matrix_to_axis_angle
from utnet.predict.predictor import Hand
from utnet.storage import write_json, write_whole
from utnet.viz import draw_skeleton, overlay_mesh, save_picture

SCHEMA_VERSION = 1


def read_picture(path: str | Path) -> np.ndarray:
    """(H, W, 3) uint8 RGB; InputError names a file that is missing or no picture."""
    image = _decode(path, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(image[..., ::-1])


def read_depth(path: str | Path, scale: float = 0.001) -> np.ndarray:
    """(H, W) float32 metres from a 16-bit PNG (`scale` metres a step) or a .npy file in metres."""
    path = Path(path)
    if not scale > 0:
        raise InputError(f"--depth-scale is {scale}; expected metres a step, such as 0.001 for millimetres")
    if path.suffix == ".npy":
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            depth = np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise InputError(f"{path}: not a numpy array ({error})") from error
        if not isinstance(depth, np.ndarray) or depth.ndim != 2 or depth.dtype.kind not in "fiu":
            raise InputError(f"{path}: expected one array of (H, W) numbers in metres")
        return depth.astype(np.float32)
    depth = _decode(path, cv2.IMREAD_UNCHANGED)
    if depth.ndim != 2 or depth.dtype != np.uint16:
        raise InputError(f"{path}: {depth.dtype} of shape {depth.shape}; expected a 16-bit PNG with one channel")
    return depth * np.float32(scale)


def write_hands(
    folder: str | Path, stem: str, image_rgb: np.ndarray, hands: Sequence[Hand], *, mesh: str = "glb"
) -> dict[str, list[Path]]:
    """Writes `stem.json`, `stem_overlay.png` and a mesh for each hand into `folder`; returns their paths by kind."""
    folder, drawn = Path(folder), draw_hands(image_rgb, hands)  # drawn before anything is written
    folder.mkdir(parents=True, exist_ok=True)
    meshes = []
    for i, hand in enumerate(hands):
        path = folder / f"{stem}_{i}_{hand.side}.{mesh}"
        write_mesh(path, hand)
        meshes.append(path)
    overlay = folder / f"{stem}_overlay.png"
    save_picture(overlay, drawn)
    text = folder / f"{stem}.json"
    write_json(text, to_json(hands, image_rgb.shape[1], image_rgb.shape[0]))
    return {"json": [text], "overlay": [overlay], "mesh": meshes}


def to_json(hands: Sequence[Hand], width: int, height: int) -> dict:
    """The documented JSON of one picture (docs/predictions.md): metres, pixels, radians, OpenCV camera."""
    return {
        "schema": "utnet-hands",
        "version": SCHEMA_VERSION,
        "image": {"width": width, "height": height},
        "hands": [
            {
                "side": hand.side,
                "score": hand.score,
                "box_px": _numbers(hand.box_px, 2),
                "K_px": _numbers(hand.K_px, 4),
                "distance_from": hand.distance_from,
                "joints_cam_m": _numbers(hand.joints_cam_m, 6),
                "joints_px": _numbers(hand.joints_px, 3),
                "hand_model": "open",
                "global_orient_axis_angle": _numbers(matrix_to_axis_angle(hand.params.global_orient)[0], 6),
                "hand_pose_axis_angle": _numbers(matrix_to_axis_angle(hand.params.hand_pose), 6),
                "betas": _numbers(hand.params.betas, 6),
                "transl_m": _numbers(hand.params.transl_m, 6),
            }
            for hand in hands
        ],
    }


def write_mesh(path: str | Path, hand: Hand) -> None:
    """One mesh in metres, its vertices in the picture's camera frame (OpenCV axes).

    A GLB's scene turns it by a node into glTF's axes (y up, towards the viewer), so that viewers show it upright.
    """
    path = Path(path)
    mesh = trimesh.Trimesh(hand.vertices_cam_m, hand.faces, process=False)
    if path.suffix == ".glb":
        scene = trimesh.Scene()
        scene.add_geometry(mesh, node_name=f"{hand.side}_hand", transform=np.diag([1.0, -1.0, -1.0, 1.0]))
        data = scene.export(file_type="glb")
    elif path.suffix in (".obj", ".ply"):
        data = mesh.export(file_type=path.suffix[1:])
    else:
        raise InputError(f"{path}: meshes are written as .glb, .obj or .ply")
    write_whole(path, data if isinstance(data, str) else bytes(data))


def draw_hands(image_rgb: np.ndarray, hands: Sequence[Hand]) -> np.ndarray:
    """Every hand's mesh over the picture, far ones first, and its skeleton on top."""
    out = image_rgb
    for hand in sorted(hands, key=lambda h: -float(h.joints_cam_m[:, 2].mean())):
        out = overlay_mesh(out, hand.vertices_cam_m, hand.faces, hand.K_px)
    for hand in hands:
        out = draw_skeleton(out, hand.joints_px)
    return out


def _decode(path: str | Path, flags: int) -> np.ndarray:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: {'a folder, not a picture' if path.is_dir() else 'no such file'}")
    data = np.frombuffer(path.read_bytes(), np.uint8)
    image = cv2.imdecode(data, flags) if data.size else None
    if image is None:
        raise InputError(f"{path}: not a picture that OpenCV can read (JPEG, PNG, ...)")
    return image


def _numbers(array: np.ndarray, digits: int) -> list:
    return np.round(np.asarray(array, float), digits).tolist()
