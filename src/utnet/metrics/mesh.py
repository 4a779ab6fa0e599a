"""Errors and F-scores of meshes, equal to HO3D's and FreiHAND's published evaluations.

The F-score needs, for each vertex, whether the other mesh has a vertex within a threshold. This is computed exactly by
a compiled sweep: both meshes are sorted along the longest axis, and the search goes outwards from the position of the
vertex until no nearer vertex can follow or the smallest threshold is met.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from utnet.compiled import njit
from utnet.conventions import MM_PER_M
from utnet.metrics.joints import checked, joint_errors_mm
from utnet.threads import usable_threads
from utnet.types import Array

F_THRESHOLDS_MM = (5.0, 15.0)

_MARGIN = 1e-9  # relative; squared distances prune, the decision uses the square root (as in the official code)


def pve_mm(pred_m: Array, gt_m: Array) -> np.ndarray:
    """Mean per-vertex error of each sample, (B,) mm, of (B, V, 3) metres without alignment.

    For the root-relative error subtract the wrist of each side first.
    """
    return joint_errors_mm(pred_m, gt_m).mean(1)


def pa_pve_mm(pred_m: Array, gt_m: Array, *, allow_reflection: bool = True) -> np.ndarray:
    """Mean per-vertex error of each sample after Procrustes alignment of the vertices, (B,) mm."""
    return joint_errors_mm(pred_m, gt_m, align="procrustes", allow_reflection=allow_reflection).mean(1)


def f_scores(pred_m: Array, gt_m: Array, *, thresholds_mm: tuple[float, ...] = F_THRESHOLDS_MM) -> np.ndarray:
    """F-score of each sample at each threshold (Knapitsch et al. 2017).

    2 P R / (P + R), where R is the fraction of predicted vertices nearer than (`<`) the threshold to a true vertex, P
    the fraction of true vertices nearer than it to a predicted one (named as in HO3D); 0 if both are 0.

    Args:
        pred_m: (B, V, 3) metres.
        gt_m: (B, W, 3) metres; W may differ from V.
        thresholds_mm: increasing.

    Returns:
        (B, T) float64, 0 to 1.

    Raises:
        ValueError: wrong shapes, no samples, a NaN or inf coordinate, or thresholds that do not increase.
    """
    pred, gt = checked("pred_m", pred_m), checked("gt_m", gt_m)
    if len(pred) != len(gt):
        raise ValueError(f"pred_m has {len(pred)} samples and gt_m {len(gt)}")
    if not thresholds_mm or list(thresholds_mm) != sorted(set(thresholds_mm)) or thresholds_mm[0] <= 0:
        raise ValueError(f"thresholds_mm is {thresholds_mm}, expected increasing positive numbers")
    thresholds_m = np.array([t / MM_PER_M for t in thresholds_mm])
    near = np.zeros((len(pred), 2, len(thresholds_m)), np.int64)
    sides = (np.ascontiguousarray(pred), np.ascontiguousarray(gt))

    def count(block: slice) -> None:
        _count_near(sides[0][block], sides[1][block], thresholds_m, near[block])

    num_threads = min(usable_threads(), len(pred))
    if num_threads == 1:
        count(slice(None))
    else:
        edges = np.linspace(0, len(pred), num_threads + 1).astype(int)
        with ThreadPoolExecutor(num_threads) as threads:  # the kernel releases the GIL
            list(threads.map(count, [slice(*edge) for edge in pairwise(edges)]))
    recall, precision = near[:, 0] / pred.shape[1], near[:, 1] / gt.shape[1]
    both = recall + precision
    return np.divide(2 * recall * precision, both, out=np.zeros_like(both), where=both > 0)


@njit()
def _count_near(pred: np.ndarray, gt: np.ndarray, thresholds: np.ndarray, near: np.ndarray) -> None:
    """Adds to `near` (B, 2, T) the number of points of each cloud nearer than each threshold to the other cloud."""
    for b in range(len(pred)):
        axis, longest = 0, -1.0
        for k in range(3):
            length = gt[b, :, k].max() - gt[b, :, k].min()
            if length > longest:
                axis, longest = k, length
        order_pred, order_gt = np.argsort(pred[b, :, axis]), np.argsort(gt[b, :, axis])
        sorted_pred, sorted_gt = pred[b][order_pred], gt[b][order_gt]
        _sweep(sorted_pred, order_pred, sorted_gt, gt[b], axis, thresholds, near[b, 0])
        _sweep(sorted_gt, order_gt, sorted_pred, pred[b], axis, thresholds, near[b, 1])


@njit()
def _sweep(
    points: np.ndarray,
    order: np.ndarray,
    others: np.ndarray,
    others_unsorted: np.ndarray,
    axis: int,
    thresholds: np.ndarray,
    near: np.ndarray,
) -> None:
    """Adds to `near` (T,) the number of `points` with one of `others` nearer than each threshold.

    Args:
        points: (V, 3), sorted along `axis`.
        order: (V,) indices of `points` before sorting.
        others: (W, 3), sorted along `axis`.
        others_unsorted: (W, 3); with equal topology the vertex of the same index is a good initial
            estimate of the nearest.
        axis: 0, 1 or 2.
        thresholds: (T,) increasing.
        near: (T,) counts.
    """
    enough = thresholds[0] ** 2 * (1 - _MARGIN)  # below the smallest threshold
    too_far = thresholds[-1] ** 2 * (1 + _MARGIN)
    num = len(others)
    middle = 0
    for i in range(len(points)):
        x, y, z, along = points[i, 0], points[i, 1], points[i, 2], points[i, axis]
        while middle < num and others[middle, axis] < along:
            middle += 1
        best = too_far
        if order[i] < num:
            best = min(best, _squared(others_unsorted, order[i], x, y, z))
        up, down = middle, middle - 1
        while best > enough:
            go_on = False
            if up < num and (others[up, axis] - along) ** 2 < best:
                best = min(best, _squared(others, up, x, y, z))
                up += 1
                go_on = True
            if down >= 0 and (others[down, axis] - along) ** 2 < best:
                best = min(best, _squared(others, down, x, y, z))
                down -= 1
                go_on = True
            if not go_on:
                break
        distance = np.sqrt(best)
        for t in range(len(thresholds)):
            near[t] += distance < thresholds[t]


@njit()
def _squared(points: np.ndarray, i: int, x: float, y: float, z: float) -> float:
    """Squared distance of point i to (x, y, z), summed in numpy's order."""
    return (points[i, 0] - x) ** 2 + (points[i, 1] - y) ** 2 + (points[i, 2] - z) ** 2
