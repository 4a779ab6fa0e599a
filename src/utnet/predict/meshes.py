"""Meshes of predicted hands as GLB, OBJ and PLY.

Vertices are in metres in the picture's camera frame (OpenCV axes). The nodes of a GLB rotate them into glTF's axes
(y up, z towards the viewer), so that viewers show them upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from utnet.errors import InputError
from utnet.io.atomic import atomic_write
from utnet.predict.drawing import SIDE_COLORS
from utnet.predict.formats.gltf import OPENCV_TO_GLTF, Glb
from utnet.predict.hand import Hand

MESH_SUFFIXES = (".glb", ".obj", ".ply")
SCENES = ("scene", "animated")
"""Values of `--mesh` that put all hands of a picture into one GLB."""


def mesh_paths(start: Path, hands: Sequence[Hand], mesh: str) -> list[Path]:
    """`START_0_right.glb`, `START_1_left.glb`, ...; of `SCENES` `START_hands.glb` for each hand."""
    if mesh in SCENES:
        return [start.with_name(f"{start.name}_hands.glb")] * len(hands)
    return [start.with_name(f"{start.name}_{i}_{hand.side}.{mesh}") for i, hand in enumerate(hands)]


def write_meshes(start: Path, hands: Sequence[Hand], mesh: str) -> list[Path]:
    """Writes `mesh_paths` and returns them."""
    paths = mesh_paths(start, hands, mesh)
    if mesh in SCENES and paths:
        write_scene(paths[0], hands)
        return paths
    for path, hand in zip(paths, hands, strict=True):
        write_mesh(path, hand)
    return paths


def write_mesh(path: str | Path, hand: Hand) -> None:
    """Writes the mesh of one hand, by its suffix; a GLB holds one node, such as "right_hand".

    Raises:
        InputError: another suffix than `MESH_SUFFIXES`.
    """
    path = _checked(path)
    if path.suffix == ".glb":
        atomic_write(path, scene_glb([hand], [f"{hand.side}_hand"]))
    else:
        _write(path, hand.vertices_cam_m, hand.faces)


def write_scene(path: str | Path, hands: Sequence[Hand]) -> None:
    """Writes the meshes of all hands of a picture into one file, by its suffix.

    Raises:
        InputError: no hand, or another suffix than `MESH_SUFFIXES`.
    """
    path = _checked(path)
    if not hands:
        raise InputError(f"{path}: there is no hand to write; check len(hands) first")
    if path.suffix == ".glb":
        atomic_write(path, scene_glb(hands))
    else:
        offsets = np.cumsum([0, *(len(hand.vertices_cam_m) for hand in hands)])
        faces = np.concatenate([hand.faces + offset for hand, offset in zip(hands, offsets[:-1], strict=True)])
        _write(path, np.concatenate([hand.vertices_cam_m for hand in hands]), faces)


def scene_glb(hands: Sequence[Hand], names: Sequence[str] | None = None) -> bytes:
    """Returns a GLB with normals and a node for each hand, coloured by side.

    Args:
        hands: of one picture.
        names: of nodes and meshes (default: "0_right", "1_left", ...).
    """
    glb = Glb({"unit": "m", "frame": "camera, OpenCV axes in the meshes, turned into glTF's by the nodes"})
    materials: dict[str, int] = {}
    for i, hand in enumerate(hands):
        if hand.side not in materials:
            materials[hand.side] = glb.material(f"{hand.side}_hand", SIDE_COLORS[hand.side])
        name = names[i] if names else f"{i}_{hand.side}"
        mesh = glb.mesh(name, hand.vertices_cam_m, hand.faces, materials[hand.side])
        extras = {"side": hand.side, "score": round(hand.score, 4), "valid": hand.valid}
        glb.show(glb.add("nodes", name=name, mesh=mesh, matrix=OPENCV_TO_GLTF.ravel().tolist(), extras=extras))
    return glb.to_bytes()


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in MESH_SUFFIXES:
        raise InputError(f"{path}: meshes are written as .glb, .obj or .ply")
    return path


def _write(path: Path, vertices_m: np.ndarray, faces: np.ndarray) -> None:
    import trimesh

    data = trimesh.Trimesh(vertices_m, faces, process=False).export(file_type=path.suffix[1:])
    atomic_write(path, data if isinstance(data, str) else bytes(data))
