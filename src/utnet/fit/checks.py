"""The contract of a fit's inputs: shapes, finite numbers, metres and pixels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utnet.conventions import NUM_BETAS, NUM_JOINTS
from utnet.fit.outline import HandMask
from utnet.types import HandParams, check_shape

_FOCAL_PX = (1.0, 1e7)
_MOST_PX, _MOST_M = 1e6, 1e3
"""Bounds of landmarks and principal points: larger numbers are not pixels and metres."""
_MOST_CELLS = 1024
"""Bound of a mask's sides; it is drawn at four times its size."""


def check_inputs(
    joints_px: np.ndarray, joints_m: np.ndarray, K_px: np.ndarray, depth_m: Sequence[np.ndarray | None] | None
) -> None:
    """ValueError unless they are B >= 1 hands as `HandFitter.fit` takes them."""
    num = len(joints_px)
    check_shape("joints_px", joints_px, (num, NUM_JOINTS, 2))
    check_shape("joints_m", joints_m, (num, NUM_JOINTS, 3))
    check_shape("K_px", K_px, (num, 3, 3))
    if not num:
        raise ValueError("no hands: joints_px has shape (0, 21, 2); expected at least one")
    limits = (("joints_px", joints_px, _MOST_PX, "pixels"), ("joints_m", joints_m, _MOST_M, "metres"))
    for name, array, most, unit in limits:
        if np.isinf(np.asarray(array, float)).any():
            raise ValueError(f"{name} holds inf; expected finite numbers, NaN for landmarks that are not seen")
        if (np.abs(np.asarray(array, float)) > most).any():  # False for NaN
            raise ValueError(f"{name} holds numbers beyond {most:g}; expected {unit}")
    if not all(_is_camera(K) for K in np.asarray(K_px, float)):
        raise ValueError(
            "K_px: expected finite [[fx, s, cx], [0, fy, cy], [0, 0, 1]] in pixels with focal lengths of 1 to 1e7, "
            "and skew and principal point below 1e6"
        )
    if depth_m is not None:
        if len(depth_m) != num:
            raise ValueError(f"{len(depth_m)} depth images for {num} hands; give one (or None) for each")
        for depth in depth_m:
            _check_depth(depth)


def _is_camera(K: np.ndarray) -> bool:
    """Whether (3, 3) numbers are the intrinsics of a camera in pixels."""
    focal, others = K[[0, 1], [0, 1]], K[[0, 0, 1], [1, 2, 2]]
    return bool(
        np.isfinite(K).all()
        and ((focal >= _FOCAL_PX[0]) & (focal <= _FOCAL_PX[1])).all()
        and (np.abs(others) <= _MOST_PX).all()
        and abs(K[1, 0]) < K[1, 1]  # a little, of a turned crop
        and (K[2] == [0, 0, 1]).all()
    )


def _check_depth(depth: np.ndarray | None) -> None:
    if depth is None:
        return
    check_shape("depth_m", depth, (None, None))
    if np.asarray(depth).dtype.kind != "f":
        raise ValueError(f"depth_m has dtype {np.asarray(depth).dtype}; expected metres in floats (millimetres / 1000)")


def finite_depth(depth_m: np.ndarray) -> np.ndarray:
    """Depth in which NaN and inf are 0, no reading."""
    depth = np.asarray(depth_m)
    finite = np.isfinite(depth)
    return depth if finite.all() else np.where(finite, depth, 0.0)


def check_betas(betas: np.ndarray | None, num: int) -> np.ndarray | None:
    """(num, 10) of (10,) or (num, 10) betas; ValueError where they are not finite."""
    if betas is None:
        return None
    betas = np.asarray(betas, float)
    if betas.shape not in ((NUM_BETAS,), (num, NUM_BETAS)) or not np.isfinite(betas).all():
        raise ValueError(f"betas: expected ({NUM_BETAS},) or ({num}, {NUM_BETAS}) finite numbers, got {betas.shape}")
    return np.broadcast_to(betas, (num, NUM_BETAS))


def check_deviation_scale(scale: np.ndarray | None, num: int) -> np.ndarray:
    """(num, 21) of `HandFitter.fit`; None: ones.

    Raises:
        ValueError: another shape, or numbers that are not above 0.
    """
    if scale is None:
        return np.ones((num, NUM_JOINTS))
    check_shape("deviation_scale", scale, (num, NUM_JOINTS))
    scale = np.asarray(scale, float)
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise ValueError("deviation_scale: expected finite numbers above 0")
    return scale


def check_masks(masks: Sequence[HandMask | None] | None, num: int) -> list[HandMask | None]:
    """`num` masks of `HandFitter.fit`; None for hands without one, and for empty ones.

    Raises:
        ValueError: another number, type or shape, or numbers that are not finite.
    """
    if masks is None:
        return [None] * num
    if not isinstance(masks, list | tuple) or len(masks) != num:
        raise ValueError(f"masks: expected a list of {num}, one (or None) for each hand")
    for mask in masks:
        if mask is not None:
            _check_mask(mask)
    return [mask if mask is not None and (mask.logit > 0).any() else None for mask in masks]


def _check_mask(mask: HandMask) -> None:
    if not isinstance(mask, HandMask):
        raise ValueError(f"masks: expected HandMask or None, got {type(mask).__name__}")
    logit, K, known = mask.logit, np.asarray(mask.K_px), np.asarray(mask.known)
    if not (isinstance(logit, np.ndarray) and logit.ndim == 2 and logit.dtype.kind == "f" and np.isfinite(logit).all()):
        raise ValueError("masks: expected logits (h, w) of floats that are finite")
    if max(logit.shape) > _MOST_CELLS:
        raise ValueError(f"masks: {logit.shape} cells; expected at most {_MOST_CELLS} in each direction")
    if K.shape != (3, 3) or K.dtype.kind not in "fi" or not _is_camera(K):
        raise ValueError("masks: K_px is not a camera of the mask's cells")
    if known.shape != (4,) or np.isnan(known).any():
        raise ValueError("masks: known is not x0, y0, x1, y1")


def check_params(name: str, params: HandParams, num: int) -> None:
    """ValueError unless these are `num` hands with finite numbers."""
    shapes = {
        "global_orient": (num, 1, 3, 3),
        "hand_pose": (num, 15, 3, 3),
        "betas": (num, NUM_BETAS),
        "transl_m": (num, 3),
    }
    for key, shape in shapes.items():
        array = np.asarray(getattr(params, key))
        check_shape(f"{name}.{key}", array, shape)
        if not np.isfinite(array).all():
            raise ValueError(f"{name}.{key} contains NaN or inf")
