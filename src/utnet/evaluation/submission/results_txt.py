"""DexYCB's result file for hand pose: one line per sample, `image_id` and 63 numbers (21 joints, mm, OpenCV camera).

Follows `hpe_eval.py` of dex-ycb-toolkit. `image_id` is the official sample index of the split (see
`layouts.DexYcbNumbering`); samples without a labelled hand are not scored; left hands are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path

import numpy as np

from utnet.conventions import MM_PER_M, NUM_JOINTS
from utnet.errors import InputError
from utnet.evaluation.submission.hands import HandCheck
from utnet.io.atomic import atomic_file
from utnet.metrics import dexycb_scores_mm
from utnet.types import Array

_DECIMALS = 4  # 0.1 um
_NUM_FIELDS = 1 + 3 * NUM_JOINTS


def write_dexycb_results(path: str | Path, image_ids: Iterable[int], joints_cam_m: Iterable[Array]) -> None:
    """Writes the result file for DexYCB's toolkit, atomically.

    Args:
        path: the file; its folder must exist.
        image_ids: N unique official sample indices of the split.
        joints_cam_m: (N, 21, 3) OpenPose-21, OpenCV camera, metres; left hands not mirrored. An array, a
            tensor, or an iterable of hands.

    Raises:
        InputError: a duplicate or negative id, different numbers of ids and hands, NaN, hands behind the camera, or
            values that are not metres.
    """
    check = _check(path)
    seen: set[int] = set()
    text = "%d" + f",%.{_DECIMALS}f" * (_NUM_FIELDS - 1) + "\n"
    with atomic_file(path) as temporary, open(temporary, "w", encoding="ascii") as file:
        for image_id, hand in zip_longest(image_ids, joints_cam_m):
            if image_id is None or hand is None:
                raise InputError(f"{path}: image ids and joints are of different numbers; give an id for every hand")
            _see_id(path, int(image_id), seen)
            joints_mm = check.see(hand, int(image_id), convert=_to_mm)
            file.write(text % (int(image_id), *joints_mm.ravel().tolist()))
        check.finish(None)


def check_dexycb_results(path: str | Path, image_ids: Iterable[int] | None = None) -> dict[int, np.ndarray]:
    """Reads a result file as the toolkit does.

    Args:
        path: the file.
        image_ids: samples with a labelled hand, all required; further ones are allowed (ignored by the toolkit).

    Returns:
        (21, 3) float64 millimetres by image id.

    Raises:
        InputError: a line that is not 64 numbers, a duplicate id (the toolkit would use the last), missing ids, NaN,
            hands behind the camera, or values that are not millimetres.
    """
    check = _check(path)
    results: dict[int, np.ndarray] = {}
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                fields = line.split(",")
                if len(fields) != _NUM_FIELDS:
                    raise InputError(f"{path}: line {number} has {len(fields)} fields, expected {_NUM_FIELDS}")
                try:
                    image_id, joints_mm = int(fields[0]), np.array(fields[1:], np.float64).reshape(NUM_JOINTS, 3)
                except ValueError as error:
                    raise InputError(f"{path}: line {number} is not an id and numbers ({error})") from error
                _see_id(path, image_id, results)
                results[image_id] = check.see(joints_mm, image_id)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from error
    check.finish(None)
    if image_ids is not None:
        _check_complete(path, results, image_ids)
    return results


def dexycb_scores(results: Mapping[int, Array], truth: Mapping[int, Array]) -> dict[str, dict[str, float]]:
    """Scores of the toolkit: means over all samples of `truth`.

    Args:
        results: (21, 3) millimetres by image id; those missing in `truth` are ignored, as in the toolkit.
        truth: (21, 3) millimetres by image id, only samples with a labelled hand. The toolkit multiplies the labels by
            1000 in float32.

    Returns:
        Keys `absolute`, `root-relative` and `procrustes`, each with `mpjpe` (mm) and `auc` (100 thresholds from 0 to 50
        mm).

    Raises:
        InputError: ids are missing, or `truth` is empty.
        ValueError: wrong shapes, NaN or inf.
    """
    if not truth:
        raise InputError("no sample of the split has a labelled hand: nothing to score")
    _check_complete("results", results, truth)
    pred, gt = (np.stack([np.asarray(hands[i], np.float64) for i in truth]) for hands in (results, truth))
    return dexycb_scores_mm(pred, gt)


def _check(path: str | Path) -> HandCheck:
    return HandCheck(path, "joints", num_points=NUM_JOINTS, per_metre=MM_PER_M, away=1)


def _to_mm(joints_m: np.ndarray) -> np.ndarray:
    return joints_m * MM_PER_M


def _see_id(path: str | Path, image_id: int, seen: set[int] | dict[int, np.ndarray]) -> None:
    if image_id < 0 or image_id in seen:
        raise InputError(f"{path}: image id {image_id} is {'negative' if image_id < 0 else 'there twice'}")
    if isinstance(seen, set):
        seen.add(image_id)


def _check_complete(where: object, results: Mapping[int, Array], wanted: Iterable[int]) -> None:
    missing = [i for i in wanted if i not in results]
    if missing:
        raise InputError(f"{where}: {len(missing)} image ids are missing, the first is {missing[0]}; predict the split")
