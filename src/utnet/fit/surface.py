"""Depth readings under the mesh as point-to-plane residuals for the solver."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from utnet.geometry import unproject
from utnet.hand.arrays import HandArrays
from utnet.placement import depth_around
from utnet.render.raster import interpolate, rasterize, vertex_normals

_MAX_POINTS = 200
_SIGMA_M = 0.001
"""Standard deviation of readings: the best of 1 to 4 mm for joints of drawn hands, with sensor noise of 1 and 6 mm, and
for the half of a real hand's readings that is left out (docs/results.md)."""
_INDEPENDENT = 50
"""Upper bound of the effective number of readings: errors of neighbours are correlated."""
_GATE_M = 0.015
"""Readings farther than this from the mesh are not of the hand."""
_FACING = 0.3
"""Smallest cosine between the ray and the skin's normal: readings at grazing angles are not used."""
_EDGE_M = 0.02
"""Difference of neighbouring readings at a depth edge, where sensors interpolate between the two sides."""


@dataclass(frozen=True)
class Surface:
    """N points of the skin and their depth readings.

    Attributes:
        joint: (N,) the articulated joint that moves each most.
        offset: (N, 3) from that joint, in its rest frame.
        dirs: (N, 3, 10) blendshapes of the offset.
        readings: (N, 7) measured point (3), the skin's unit normal (3), both in the view, inverse deviation (1/m).
    """

    joint: np.ndarray
    offset: np.ndarray
    dirs: np.ndarray
    readings: np.ndarray

    def joined(self, other: Surface) -> Surface:
        """The points of both."""
        names = ("joint", "offset", "dirs", "readings")
        return Surface(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in names))


def no_surface() -> Surface:
    """A surface without readings."""
    return Surface(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros((0, 3, 10)), np.zeros((0, 7)))


def read_surface(
    vertices_cam_m: np.ndarray,
    hand: HandArrays,
    depth_m: np.ndarray,
    K_px: np.ndarray,
    *,
    look: np.ndarray,
    posed: tuple[np.ndarray, np.ndarray],
    betas: np.ndarray,
) -> Surface:
    """Selects the depth readings of the hand at its present pose.

    Args:
        vertices_cam_m: (V, 3) its mesh.
        hand: the model's arrays.
        depth_m: (H, W), 0 where there is no reading.
        K_px: (3, 3).
        look: (3, 3) rotation, camera to view.
        posed: the joints' positions (16, 3) and rotations (16, 3, 3) in the view.
        betas: (10,).
    """
    depth, K, _ = depth_around(vertices_cam_m, depth_m, K_px)
    height, width = depth.shape
    drawn = rasterize(vertices_cam_m, hand.faces, K, (width, height))
    if not drawn.mask.any():
        return no_surface()
    depth = np.ascontiguousarray(depth, np.float32)
    good = drawn.mask & (np.abs(depth - drawn.depth_m) < _GATE_M)
    good &= ~_at_edges(depth)
    normals = interpolate(drawn, hand.faces, vertex_normals(vertices_cam_m, hand.faces))
    y, x = np.nonzero(good)
    rays = unproject(np.stack([x, y], 1).astype(float), np.ones(len(x)), K)
    normal = normals[y, x] / np.maximum(np.linalg.norm(normals[y, x], axis=1, keepdims=True), 1e-9)
    facing = -(normal * rays).sum(1) / np.linalg.norm(rays, axis=1)
    kept = np.flatnonzero(facing > _FACING)
    if len(kept) == 0:
        return no_surface()
    kept = kept[np.linspace(0, len(kept) - 1, min(len(kept), _MAX_POINTS)).astype(int)]
    x, y, rays, normal = x[kept], y[kept], rays[kept], normal[kept]
    corners, share = hand.faces[drawn.face[y, x]], drawn.weights[y, x]
    skin = rays * drawn.depth_m[y, x, None] @ look.T
    joint, offset, dirs = attach(hand, corners, share, skin, posed, betas)
    deviation = _SIGMA_M * np.sqrt(max(1.0, len(kept) / _INDEPENDENT))
    readings = np.concatenate(
        [rays * depth[y, x, None] @ look.T, normal @ look.T, np.full((len(kept), 1), 1 / deviation)], 1
    )
    return Surface(joint, offset, dirs, readings)


def _at_edges(depth_m: np.ndarray) -> np.ndarray:
    """(H, W) bool: readings in the 3x3 neighbourhood differ by more than `_EDGE_M`; holes do not count."""
    window = np.ones((3, 3), np.uint8)
    nearest = cv2.erode(np.where(depth_m > 0, depth_m, np.inf).astype(np.float32), window)
    return cv2.dilate(depth_m, window) - nearest > _EDGE_M


def attach(hand: HandArrays, corners, share, skin, posed, betas):
    """`Surface.joint`, `offset` and `dirs` of N points of the skin.

    Args:
        hand: the model's arrays.
        corners: (N, 3) vertices of the face of each point.
        share: (N, 3) barycentric weights of these.
        skin: (N, 3) the points in the view, metres.
        posed: the joints' positions (16, 3) and rotations (16, 3, 3) in the view.
        betas: (10,).
    """
    joint = np.einsum("nc,ncj->nj", share, hand.weights[corners]).argmax(1)
    dirs = np.einsum("nc,ncab->nab", share, hand.shapedirs[corners]) - hand.J_shapedirs[joint]
    places, R = posed
    # The point starts at its blended position and then moves rigidly with its joint.
    offset = np.einsum("nba,nb->na", R[joint], skin - places[joint]) - dirs @ betas
    return joint, offset, dirs
