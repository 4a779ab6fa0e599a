"""Translation of a hand in the camera of the full picture, in metres."""

from __future__ import annotations

import cv2
import numpy as np

from utnet.geometry import box_of, intrinsics, project, unproject
from utnet.render.raster import rasterize

_GATE_M = 0.025
"""Readings farther than this from the mesh are ignored."""
_MIN_PIXELS = 20
_BIN_M, _SPREAD_M = 0.002, 0.008
_SIZE_SPREAD = 0.25
"""Standard deviation of the logarithm of a distance estimated from the size of the hand; covers children's hands."""
_MARGIN = 0.2
_PART_PX = 240


def default_intrinsics(width: int, height: int) -> np.ndarray:
    """Default intrinsics for an unknown camera: f = the longer side (field of view 53 degrees), centred."""
    return intrinsics(max(width, height), max(width, height), (width - 1) / 2, (height - 1) / 2)


def solve_translation(
    joints_m: np.ndarray, joints_px: np.ndarray, K_px: np.ndarray, *, z_m: float | None = None
) -> np.ndarray:
    """Translation under which the joints project nearest to the given pixels (linear least squares).

    With (u, v) = K^-1 pixel, each joint gives t_x - u t_z = u Z - X and t_y - v t_z = v Z - Y. For a long focal
    length this is WiLoR's full-image translation; near the camera it uses the true perspective.

    Args:
        joints_m: (N, 3) hand frame.
        joints_px: (N, 2) image points.
        K_px: (3, 3).
        z_m: known t_z; only x and y are solved then.

    Returns:
        (3,) metres.
    """
    u, v = unproject(joints_px, np.ones(len(joints_px)), K_px)[:, :2].T
    X, Y, Z = joints_m.T
    if z_m is not None:
        return np.array([(u * (Z + z_m) - X).mean(), (v * (Z + z_m) - Y).mean(), z_m])
    one, zero = np.ones_like(u), np.zeros_like(u)
    A = np.concatenate([np.stack([one, zero, -u], 1), np.stack([zero, one, -v], 1)])
    b = np.concatenate([u * Z - X, v * Z - Y])
    return np.linalg.lstsq(A, b, rcond=None)[0]


def measure_distance(
    vertices_m: np.ndarray,
    faces: np.ndarray,
    joints_m: np.ndarray,
    transl_m: np.ndarray,
    depth_m: np.ndarray,
    K_px: np.ndarray,
    *,
    rounds: int = 4,
) -> np.ndarray:
    """Translation with its distance measured from the depth image instead of estimated from the size of the hand.

    The mesh is rendered at the current estimate. Readings on the hand differ from it by one common distance, readings
    on occluders, background and flying pixels by various distances. The offset is therefore the densest cluster of
    differences, weighted by a prior on the size of the hand. The mesh is then moved along z by the median difference
    near it; x and y follow so that the joints keep their pixels.

    Args:
        vertices_m: (V, 3) hand frame.
        faces: (F, 3).
        joints_m: (21, 3) hand frame.
        transl_m: (3,) initial estimate, camera frame.
        depth_m: (H, W), 0 where there is no reading.
        K_px: (3, 3) of the depth image.
        rounds: iterations.

    Returns:
        (3,) metres; the initial estimate if fewer than 20 pixels have a reading near the mesh.
    """
    joints_px = project(joints_m + transl_m, K_px)
    depth_m, K_part, _ = depth_around(vertices_m + transl_m, depth_m, K_px)
    for number in range(rounds):
        difference = _under(vertices_m + transl_m, faces, depth_m, K_part)
        if difference.size < _MIN_PIXELS:
            break
        centre = _densest(difference, transl_m[2]) if number == 0 else 0.0
        near = np.abs(difference - centre) < _GATE_M
        if near.sum() < _MIN_PIXELS:
            break
        z = transl_m[2] + float(np.median(difference[near]))
        transl_m = solve_translation(joints_m, joints_px, K_px, z_m=z)
    return transl_m


def depth_around(
    vertices_cam_m: np.ndarray, depth_m: np.ndarray, K_px: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Crops a depth image around a mesh and subsamples it to at most about 240 pixels a side.

    Returns:
        depth (h, w), its K (3, 3), and x, y, n such that pixel (0, 0) of the part is (x, y) of the image.
    """
    height, width = depth_m.shape
    x0, y0, x1, y1 = box_of(project(vertices_cam_m, K_px))
    margin = _MARGIN * max(x1 - x0, y1 - y0)
    left, right = (int(np.clip(x, 0, width)) for x in (x0 - margin, x1 + margin + 1))
    top, bottom = (int(np.clip(y, 0, height)) for y in (y0 - margin, y1 + margin + 1))
    every = max(1, round(max(right - left, bottom - top) / _PART_PX))
    smaller = np.array([[1 / every, 0, -left / every], [0, 1 / every, -top / every], [0, 0, 1]])
    return depth_m[top:bottom:every, left:right:every], smaller @ K_px, (left, top, every)


def _under(vertices_cam_m: np.ndarray, faces: np.ndarray, depth_m: np.ndarray, K_px: np.ndarray) -> np.ndarray:
    """(N,) depth readings minus the rendered depth of the mesh, where both exist."""
    height, width = depth_m.shape
    drawn = rasterize(vertices_cam_m, faces, K_px, (width, height))
    seen = drawn.mask & (depth_m > 0)
    return depth_m[seen] - drawn.depth_m[seen]


def _densest(difference: np.ndarray, z_m: float) -> float:
    """Mode of the differences (smoothed over millimetres), weighted by the prior on the size of the hand."""
    low, high = difference.min() - _BIN_M, difference.max() + 2 * _BIN_M
    edges = np.arange(max(low, -z_m), min(high, 4 * z_m) + _BIN_M, _BIN_M)
    if len(edges) < 2:  # no reading at a plausible distance
        return 0.0
    counts, edges = np.histogram(difference, edges)
    centres = (edges[:-1] + edges[1:]) / 2
    near = cv2.GaussianBlur(counts.astype(float)[None], (0, 0), _SPREAD_M / _BIN_M, borderType=cv2.BORDER_CONSTANT)[0]
    size = np.log(np.maximum(z_m + centres, 1e-3) / z_m) / _SIZE_SPREAD
    return float(centres[np.argmax(near * np.exp(-0.5 * size**2))])
