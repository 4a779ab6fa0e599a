"""Meshes of predicted hands as GLB, OBJ and PLY.

Vertices are in metres in the picture's camera frame (OpenCV axes). The nodes of a GLB rotate them into glTF's axes
(y up, z towards the viewer), so that viewers show them upright.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import trimesh
from trimesh.visual.material import PBRMaterial

from utnet.errors import InputError
from utnet.io.atomic import atomic_write
from utnet.predict.drawing import SIDE_COLORS
from utnet.predict.hand import Hand

MESH_SUFFIXES = (".glb", ".obj", ".ply")
_OPENCV_TO_GLTF = np.diag([1.0, -1.0, -1.0, 1.0])


def mesh_paths(start: Path, hands: Sequence[Hand], mesh: str) -> list[Path]:
    """`START_0_right.glb`, `START_1_left.glb`, ..."""
    return [start.with_name(f"{start.name}_{i}_{hand.side}.{mesh}") for i, hand in enumerate(hands)]


def write_meshes(start: Path, hands: Sequence[Hand], mesh: str) -> list[Path]:
    """Writes `mesh_paths` and returns them."""
    paths = mesh_paths(start, hands, mesh)
    for path, hand in zip(paths, hands, strict=True):
        write_mesh(path, hand)
    return paths


def write_mesh(path: str | Path, hand: Hand) -> None:
    """Writes the mesh of one hand, by the path's ending; a GLB holds one node, such as "right_hand".

    Raises:
        InputError: another ending than `MESH_SUFFIXES`.
    """
    path = _checked(path)
    mesh = hand.mesh()
    if path.suffix == ".glb":
        scene = trimesh.Scene()
        scene.add_geometry(mesh, node_name=f"{hand.side}_hand", transform=_OPENCV_TO_GLTF)
        atomic_write(path, bytes(scene.export(file_type="glb")))
    else:
        _write(path, mesh)


def write_scene(path: str | Path, hands: Sequence[Hand]) -> None:
    """Writes the meshes of all hands of a picture into one file, by the path's ending.

    Raises:
        InputError: no hand, or another ending than `MESH_SUFFIXES`.
    """
    path = _checked(path)
    if not hands:
        raise InputError(f"{path}: there is no hand to write; check len(hands) first")
    if path.suffix == ".glb":
        atomic_write(path, scene_glb(hands))
    else:
        offsets = np.cumsum([0, *(len(hand.vertices_cam_m) for hand in hands)])
        faces = np.concatenate([hand.faces + offset for hand, offset in zip(hands, offsets[:-1], strict=True)])
        _write(path, trimesh.Trimesh(np.concatenate([hand.vertices_cam_m for hand in hands]), faces, process=False))


def scene_glb(hands: Sequence[Hand]) -> bytes:
    """Returns a GLB with a node for each hand ("0_right", "1_left", ...), coloured by side, with normals."""
    scene = trimesh.Scene()
    for i, hand in enumerate(hands):
        mesh = hand.mesh()
        linear = [channel**2.2 for channel in SIDE_COLORS[hand.side]]
        material = PBRMaterial(baseColorFactor=[*linear, 1.0], metallicFactor=0.0, roughnessFactor=0.7)
        mesh.visual = trimesh.visual.TextureVisuals(material=material)
        scene.add_geometry(mesh, node_name=f"{i}_{hand.side}", transform=_OPENCV_TO_GLTF)
    return bytes(scene.export(file_type="glb", include_normals=True))


def _checked(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in MESH_SUFFIXES:
        raise InputError(f"{path}: meshes are written as .glb, .obj or .ply")
    return path


def _write(path: Path, mesh: trimesh.Trimesh) -> None:
    data = mesh.export(file_type=path.suffix[1:])
    atomic_write(path, data if isinstance(data, str) else bytes(data))
