"""Errors of joints and of vertices in millimetres, equal to HO3D's published evaluation.

All metrics are based on `joint_errors_mm`, one number per sample and point. Samples are independent, so parts of a data
set can be scored separately and concatenated.
"""

from __future__ import annotations

import numpy as np

from utnet.conventions import JOINT_NAMES, MM_PER_M
from utnet.geometry import align_similarity
from utnet.types import Array, check_shape

ALIGNMENTS = ("none", "root", "scale_translation", "procrustes")

_WRIST, _MIDDLE_MCP = JOINT_NAMES.index("wrist"), JOINT_NAMES.index("middle_mcp")


def joint_errors_mm(
    pred_m: Array,
    gt_m: Array,
    *,
    align: str = "none",
    root_id: int = _WRIST,
    scale_joint: int = _MIDDLE_MCP,
    allow_reflection: bool = True,
) -> np.ndarray:
    """Euclidean distance of every joint (or vertex) after an alignment.

    Args:
        pred_m: (B, N, 3) metres.
        gt_m: (B, N, 3) metres.
        align: "none" (absolute), "root" (both relative to `root_id`), "scale_translation" (`align_scale_translation`)
            or "procrustes" (the best similarity, `geometry.align_similarity`).
        root_id: the origin for "root".
        scale_joint: end of the bone, starting at joint 0, whose length "scale_translation" matches: the middle knuckle,
            9 here, 4 in HO3D's joint order.
        allow_reflection: "procrustes" may mirror, as in the official code; False allows rotations only.

    Returns:
        (B, N) float64, millimetres.

    Raises:
        ValueError: wrong shapes, no samples, or a NaN or inf coordinate.
    """
    pred, gt = checked("pred_m", pred_m), checked("gt_m", gt_m)
    if pred.shape != gt.shape:
        raise ValueError(
            f"pred_m has shape {tuple(pred.shape)} and gt_m {tuple(gt.shape)}, expected one shape (B, N, 3)"
        )
    if align == "root":
        pred, gt = root_relative(pred, root_id), root_relative(gt, root_id)
    elif align == "scale_translation":
        pred = align_scale_translation(pred, gt, joints=(_WRIST, scale_joint))
    elif align == "procrustes":
        pred = align_similarity(pred, gt, allow_reflection=allow_reflection)
    elif align != "none":
        raise ValueError(f"align is {align!r}, expected one of {', '.join(map(repr, ALIGNMENTS))}")
    return np.linalg.norm(pred - gt, axis=-1) * MM_PER_M


def mpjpe_mm(pred_m: Array, gt_m: Array, *, root_id: int | None = _WRIST) -> np.ndarray:
    """Mean per-joint position error of each sample, (B,) mm, relative to joint `root_id`, or absolute for None."""
    if root_id is None:
        return joint_errors_mm(pred_m, gt_m).mean(1)
    return joint_errors_mm(pred_m, gt_m, align="root", root_id=root_id).mean(1)


def pa_mpjpe_mm(pred_m: Array, gt_m: Array, *, allow_reflection: bool = True) -> np.ndarray:
    """Mean per-joint position error of each sample after Procrustes alignment, (B,) mm."""
    return joint_errors_mm(pred_m, gt_m, align="procrustes", allow_reflection=allow_reflection).mean(1)


def root_relative(points_m: Array, root_id: int = _WRIST) -> Array:
    """(B, N, 3) points relative to point `root_id` of the same sample."""
    return points_m - points_m[:, root_id : root_id + 1]


def align_scale_translation(
    pred_m: np.ndarray, gt_m: np.ndarray, *, joints: tuple[int, int] = (_WRIST, _MIDDLE_MCP)
) -> np.ndarray:
    """Scales `pred_m` so that one bone has its true length, and translates it so that the bone's first joint matches.

    Args:
        pred_m: (B, N, 3).
        gt_m: (B, N, 3).
        joints: the bone: wrist and middle knuckle, 0 and 9 here (0 and 4 in HO3D's own joint order).

    A predicted bone of length 0 counts as one metre long, as in HO3D's evaluation.
    """
    first, second = joints
    bone_pred = np.linalg.norm(pred_m[:, second] - pred_m[:, first], axis=-1)
    bone_gt = np.linalg.norm(gt_m[:, second] - gt_m[:, first], axis=-1)
    scale = bone_gt / np.where(bone_pred > 0, bone_pred, 1.0)
    return root_relative(pred_m, first) * scale[:, None, None] + gt_m[:, first, None]


def pck_curve(errors_mm: Array, *, max_mm: float = 50.0, num: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """Fraction of all joints whose error is at most each of `num` thresholds from 0 to `max_mm`.

    Returns:
        thresholds (num,) in mm and fractions (num,).
    """
    errors = np.sort(checked("errors_mm", errors_mm, (None, None)), axis=None)
    thresholds = np.linspace(0.0, max_mm, num)
    return thresholds, np.searchsorted(errors, thresholds, side="right") / len(errors)


def auc(errors_mm: Array, *, max_mm: float = 50.0, num: int = 100) -> float:
    """Area under `pck_curve` by the trapezoidal rule, over `max_mm`: 1 is perfect."""
    thresholds, fractions = pck_curve(errors_mm, max_mm=max_mm, num=num)
    return area(fractions, thresholds) / max_mm


def summary(errors_mm: Array) -> dict[str, float]:
    """Official scores of (B, N) errors: `mean_mm`, `median_mm` (mean over joints of each joint's median), `auc`."""
    errors = checked("errors_mm", errors_mm, (None, None))
    median = np.median(errors, axis=0)
    return {"mean_mm": float(errors.mean()), "median_mm": float(median.mean()), "auc": auc(errors)}


def checked(name: str, values: Array, shape: tuple[int | None, ...] = (None, None, 3), *, first: int = 0) -> np.ndarray:
    """Converts an array or a tensor to a float64 array and checks it.

    Raises:
        ValueError: it has another shape, is empty, or is NaN or inf (the message gives the index of the sample, counted
            from `first`).
    """
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values, np.float64)
    check_shape(name, array, shape)
    if array.size == 0:
        raise ValueError(f"{name} is empty, shape {array.shape}: nothing to score")
    bad = ~np.isfinite(array).reshape(len(array), -1).all(1)
    if bad.any():
        raise ValueError(f"{name} is NaN or inf in sample {first + int(bad.argmax())}")
    return array


def area(fractions: np.ndarray, thresholds: np.ndarray) -> float:
    """Area under a curve by the trapezoidal rule (`np.trapezoid` is new in numpy 2)."""
    return float(((fractions[1:] + fractions[:-1]) / 2 * np.diff(thresholds)).sum())
