"""Joints that another program predicted, scored on the samples of a saved run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from utnet.errors import InputError
from utnet.evaluation.protocol import Protocol
from utnet.evaluation.rows import METRICS, Row, sample_auc
from utnet.evaluation.saved_scores import SavedRun
from utnet.io.npz import read_npz_all
from utnet.metrics import joint_errors_mm

_JOINTS = ("joints_cam_m", "pred_keypoints_3d")
_MOST = 1e9
"""Bound of their numbers, in any unit; the squares of much larger ones overflow."""


def load_predictions(path: str | Path, run: SavedRun) -> SavedRun:
    """Scores predictions on the samples of the first row of `run`, as a run of one row.

    Only scores after Procrustes alignment are made: a run keeps true joints in the turned cameras of the crops,
    mirrored to right hands, and no other score is the same there for a program without these.

    Args:
        path: .npz with `keys` (N,) of the samples, in any order, and `joints_cam_m` or `pred_keypoints_3d` (N, 21, 3)
            in OpenPose's order and any unit; left hands as they are, or as right ones.
        run: written by `utnet eval --out`.

    Raises:
        InputError: the file or the run lacks an array, or a sample has no prediction.
    """
    if run.gt_m is None:
        raise InputError(f"{run.folder}: has no true joints (an older run); run `utnet eval` again")
    row = run.rows[0]
    try:
        arrays = read_npz_all(Path(path))
        joints = next((np.asarray(arrays[name], float) for name in _JOINTS if name in arrays), None)
        places = {str(key): i for i, key in enumerate(arrays["keys"])}
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: expected .npz with keys and {' or '.join(_JOINTS)} (N, 21, 3)") from error
    if joints is None or joints.shape != (len(places), 21, 3):
        raise InputError(
            f"{path}: expected {' or '.join(_JOINTS)} of shape ({len(places)}, 21, 3), one row of each key"
        )
    missing = [str(key) for key in row.keys if str(key) not in places]
    if missing:
        raise InputError(f"{path}: {len(missing)} of {len(row)} samples have no prediction, the first: {missing[0]}")
    ours = joints[[places[str(key)] for key in row.keys]]
    if not (np.abs(ours) < _MOST).all():  # False for NaN
        raise InputError(f"{path}: joints are not finite, or beyond {_MOST:g}; give a best guess for every sample")
    errors = np.asarray(joint_errors_mm(ours, run.gt_m.astype(float), align="procrustes"))
    return replace(run, folder=Path(path), rows=[_row(row, errors)])


def _row(row: Row, errors_mm: np.ndarray) -> Row:
    """The scores after Procrustes alignment; all others are not known."""
    nothing = np.full_like(errors_mm, np.nan)
    metrics = {name: nothing[:, 0] for name in METRICS}
    metrics |= {"pa_mpjpe_mm": errors_mm.mean(1), "pa_auc": sample_auc(errors_mm)}
    return replace(
        row,
        protocol=Protocol(depth=False, boxes="another program's"),
        expected_mm=nothing,
        joints_mm={name: errors_mm if name == "pa" else nothing for name in row.joints_mm},
        metrics=metrics,
    )
