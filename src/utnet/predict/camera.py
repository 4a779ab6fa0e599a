"""Out of the crop: where the hand is in the full picture's camera, in metres."""

from __future__ import annotations

import numpy as np

from utnet.geometry import intrinsics, project, unproject
from utnet.raster import rasterize

_FIRST_GATE_M, _GATE_M = 0.10, 0.04
"""Readings farther than this from the mesh do not count, in the first and in later rounds of `measure_distance`."""
_HAND_QUANTILE = 0.35
_MIN_PIXELS = 20


def default_intrinsics(width: int, height: int) -> np.ndarray:
    """The stated default where the camera is not known: f = the longer side (a view of 53 degrees), centred."""
    return intrinsics(max(width, height), max(width, height), (width - 1) / 2, (height - 1) / 2)


def solve_translation(
    joints_m: np.ndarray, joints_px: np.ndarray, K_px: np.ndarray, *, z_m: float | None = None
) -> np.ndarray:
    """The translation under which the joints project nearest to given pixels (linear least squares).

    With (u, v) = K^-1 pixel, every joint gives two equations t_x - u t_z = u Z - X and t_y - v t_z = v Z - Y.
    For a long focal length this is WiLoR's full-image translation; near the camera it honours the true perspective.

    Args:
        joints_m: (N, 3) hand frame.
        joints_px: (N, 2) where they are seen.
        K_px: (3, 3).
        z_m: t_z where it is known; then only x and y are solved.

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
    """The translation with its distance measured by the depth image instead of guessed from the hand's size.

    The mesh is drawn where it is thought to be and moved along z by the median difference to the readings under it;
    x and y follow so that the joints stay on their pixels.

    Args:
        vertices_m: (V, 3) hand frame.
        faces: (F, 3).
        joints_m: (21, 3) hand frame.
        transl_m: (3,) first guess, camera frame.
        depth_m: (H, W), 0 where there is no reading.
        K_px: (3, 3) of the depth image.

    Returns:
        (3,) metres; the first guess where fewer than 20 pixels have a reading near the mesh.
    """
    height, width = depth_m.shape
    joints_px = project(joints_m + transl_m, K_px)
    for number in range(rounds):
        drawn = rasterize(vertices_m + transl_m, faces, K_px, (width, height))
        seen = drawn.mask & (depth_m > 0)
        difference = depth_m[seen] - drawn.depth_m[seen]
        if difference.size < _MIN_PIXELS:
            break
        # At first the whole mesh may be off by more than any gate, because the hand's size was guessed.
        # A low quantile rather than the median: where the mesh hangs over the edge, it hangs over the background.
        centre, gate = (np.quantile(difference, _HAND_QUANTILE), _FIRST_GATE_M) if number == 0 else (0.0, _GATE_M)
        near = np.abs(difference - centre) < gate
        if near.sum() < _MIN_PIXELS:
            break
        z = transl_m[2] + float(np.median(difference[near]))
        transl_m = solve_translation(joints_m, joints_px, K_px, z_m=z)
    return transl_m
