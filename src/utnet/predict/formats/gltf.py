"""Building of GLBs: a glTF 2.0 tree and the buffer of its accessors.

Scenes, skins and animations are plain dictionaries with the names of the specification; glTF libraries add types to
them, but do not pack arrays either.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

import utnet

_COMPONENTS = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "float32": 5126}
_TYPES = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
VERTEX_BUFFER, INDEX_BUFFER = 34962, 34963
OPENCV_TO_GLTF = np.diag([1.0, -1.0, -1.0, 1.0])
"""glTF's axes: y up, z towards the viewer."""


class Glb:
    """A glTF asset of one scene that grows by `add`.

    Args:
        about: the asset's `extras`: units, frames and source.
    """

    def __init__(self, about: dict[str, Any]):
        asset = {"version": "2.0", "generator": f"UTNet {utnet.__version__}", "extras": about}
        self._tree: dict[str, Any] = {"asset": asset, "scene": 0, "scenes": [{"nodes": []}]}
        self._data = bytearray()

    def add(self, kind: str, **fields: Any) -> int:
        """Appends an object to a list such as "nodes"; returns its index. Fields that are None are omitted."""
        items = self._tree.setdefault(kind, [])
        items.append({name: value for name, value in fields.items() if value is not None})
        return len(items) - 1

    def set(self, kind: str, index: int, **fields: Any) -> None:
        """Adds fields to an object."""
        self._tree[kind][index] |= fields

    def show(self, node: int) -> None:
        """Makes a node a root of the scene."""
        self._tree["scenes"][0]["nodes"].append(node)

    def array(self, values: np.ndarray, *, target: int | None = None, bounds: bool = False) -> int:
        """Appends an array and returns its accessor.

        Args:
            values: (N,), (N, 3), (N, 4) or (N, 4, 4) uint8, uint16, uint32 or float32; matrices row by row, as in
                numpy.
            target: `VERTEX_BUFFER` or `INDEX_BUFFER` of a mesh.
            bounds: write the smallest and largest values (required for positions and times).
        """
        self._data += b"\0" * (-len(self._data) % 4)
        stored = np.ascontiguousarray(values.swapaxes(-1, -2) if values.ndim == 3 else values)  # column by column
        view = self.add("bufferViews", buffer=0, byteOffset=len(self._data), byteLength=stored.nbytes, target=target)
        self._data += stored.tobytes()
        return self.add(
            "accessors",
            bufferView=view,
            componentType=_COMPONENTS[values.dtype.name],
            count=len(values),
            type=_TYPES[values.shape[1:]],
            min=np.atleast_1d(values.min(0)).tolist() if bounds else None,
            max=np.atleast_1d(values.max(0)).tolist() if bounds else None,
        )

    def material(self, name: str, color: tuple[float, float, float]) -> int:
        """Appends a matt material of an sRGB colour; returns its index."""
        look = {"baseColorFactor": [*(c**2.2 for c in color), 1.0], "metallicFactor": 0.0, "roughnessFactor": 0.7}
        return self.add("materials", name=name, pbrMetallicRoughness=look)

    def mesh(
        self, name: str, vertices_m: np.ndarray, faces: np.ndarray, material: int, skin: dict[str, int] | None = None
    ) -> int:
        """Appends a mesh with normals; returns its index.

        Args:
            name: of the mesh.
            vertices_m: (V, 3).
            faces: (F, 3).
            material: its index.
            skin: accessors of JOINTS_0 and WEIGHTS_0.
        """
        attributes = {
            "POSITION": self.array(vertices_m.astype(np.float32), target=VERTEX_BUFFER, bounds=True),
            "NORMAL": self.array(vertex_normals(vertices_m, faces).astype(np.float32), target=VERTEX_BUFFER),
            **(skin or {}),
        }
        kind = np.uint16 if len(vertices_m) < 2**16 else np.uint32
        indices = self.array(faces.astype(kind).ravel(), target=INDEX_BUFFER)
        primitive = {"attributes": attributes, "indices": indices, "material": material}
        return self.add("meshes", name=name, primitives=[primitive])

    def to_bytes(self) -> bytes:
        """Returns the file: header, JSON, buffer."""
        data = bytes(self._data) + b"\0" * (-len(self._data) % 4)
        text = json.dumps({**self._tree, "buffers": [{"byteLength": len(data)}]}, allow_nan=False).encode()
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def vertex_normals(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, the mean of the faces' by area; (0, 0, 1) for a vertex without faces."""
    corners = vertices_m[faces].astype(float)
    of_faces = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    sums = np.stack([np.bincount(faces.ravel(), np.repeat(n, 3), len(vertices_m)) for n in of_faces.T], 1)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(lengths > 0, sums / np.where(lengths > 0, lengths, 1), [0.0, 0.0, 1.0])
