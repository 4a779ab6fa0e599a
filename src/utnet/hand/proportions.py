"""Detection of the joint order and of the side of a hand from its joints.

Joint order: in a wrong order the lengths of the bones do not match those of a hand. Side: fingers bend towards the
palm, so the side of the palm's plane that they bend to separates right from left hands.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np

from utnet.conventions import FINGERS, MANO21_TO_OPENPOSE, NUM_JOINTS, PARENTS
from utnet.hand.arrays import load_open_hand

_PAIRS = tuple((PARENTS[joint], joint) for joint in range(1, NUM_JOINTS)) + ((5, 9), (9, 13), (13, 17), (5, 17))
"""Bones and distances across the palm (nearly rigid)."""

_LEAST_PAIRS = 12
"""Minimum number of labelled `_PAIRS` (of 24)."""

_WRONG_ORDER, _WRONG_ORDER_SEEN, _BETTER = 0.3, 0.4, 0.6
"""Thresholds on the deviation from a hand's lengths (standard deviation of log lengths) of joints in space and of few
image points, and the fraction of it that another order must stay below. Single hands in space have up to 0.2; six hands
in pictures have 0.26 together, twenty 0.1. The most similar wrong order, fingers from tip to palm, has 0.4."""

_MANY_SEEN, _LEAST_SEEN = 6, 3
"""From six hands on, image points are as reliable as joints in space; fewer than three are not used."""

_LEAST_BEND = 0.6
"""Minimum sum of sines over four fingers (9 degrees each): straighter fingers may be bent backwards."""


@dataclass(frozen=True)
class JointOrder:
    """An order in which a file may list 21 joints.

    Attributes:
        name: description.
        to_openpose: `joints_openpose = joints[list(to_openpose)]`.
    """

    name: str
    to_openpose: tuple[int, ...]


OPENPOSE = JointOrder("OpenPose", tuple(range(NUM_JOINTS)))


@lru_cache(maxsize=1)
def joint_orders() -> tuple[JointOrder, ...]:
    """All candidate orders: OpenPose's, then MANO's, then all that list finger by finger."""
    known = {OPENPOSE.to_openpose: OPENPOSE}
    for order in (JointOrder("MANO/HO3D", MANO21_TO_OPENPOSE), *_by_finger()):
        known.setdefault(order.to_openpose, order)
    return tuple(known.values())


def _by_finger() -> Iterator[JointOrder]:
    thumb_first = tuple(range(5))
    for fingers in sorted(permutations(range(5)), key=lambda order: (order != thumb_first, order[::-1] != thumb_first)):
        for wrist_first in (True, False):
            for tip_first in (False, True):
                to_openpose = [0 if wrist_first else NUM_JOINTS - 1]
                for finger in range(5):
                    start = 4 * fingers.index(finger) + wrist_first
                    to_openpose += sorted(range(start, start + 4), reverse=tip_first)
                name = ", ".join(FINGERS[finger] for finger in fingers)
                name += f", each from {'tip to palm' if tip_first else 'palm to tip'}, wrist "
                yield JointOrder(name + ("first" if wrist_first else "last"), tuple(to_openpose))


def order_error(joints: np.ndarray) -> np.ndarray:
    """Deviation of the lengths of each hand from those of a hand in OpenPose's order, for joints in space.

    Args:
        joints: as in `find_joint_order`.

    Returns:
        (N,) standard deviation of log lengths; NaN where too few joints are labelled.
    """
    lengths = _log_lengths(joints)[:, _columns(OPENPOSE)] - _hand_log_lengths()
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # hands without labels
        error = np.nanstd(lengths, axis=1)
    return np.where(np.isfinite(lengths).sum(1) >= _LEAST_PAIRS, error, np.nan)


def is_wrong_order(error: np.ndarray) -> np.ndarray:
    """Whether an `order_error` is larger than that of any hand."""
    return error > _WRONG_ORDER


def find_joint_order(joints: np.ndarray) -> JointOrder | None:
    """Finds the joint order from the distances between the joints.

    Args:
        joints: (N, 21, 2 or 3) joints or image points of hands in one order, any unit, NaN where not labelled. Image
            points are foreshortened, so several different hands are needed.

    Returns:
        OpenPose's order (also if too few joints are labelled), another one that fits much better, or None if the
        lengths match no order of `joint_orders`.
    """
    median, num = _median_log_lengths(joints)
    seen = num if joints.shape[-1] == 2 else _MANY_SEEN
    if seen < _LEAST_SEEN:
        return OPENPOSE
    errors = np.array([_error(median[_columns(order)]) for order in joint_orders()])
    if not errors[0] > (_WRONG_ORDER if seen >= _MANY_SEEN else _WRONG_ORDER_SEEN):
        return OPENPOSE
    best = int(np.nanargmin(errors))
    if errors[best] < _BETTER * errors[0]:
        return joint_orders()[best]
    return None if seen >= _MANY_SEEN else OPENPOSE


def fits_better(joints: np.ndarray, order: JointOrder) -> bool:
    """Whether `order` fits the joints much better than OpenPose's order (for few hands of a set with that order)."""
    median, _ = _median_log_lengths(joints)
    return _error(median[_columns(order)]) < _BETTER * _error(median[_columns(OPENPOSE)])


def _median_log_lengths(joints: np.ndarray) -> tuple[np.ndarray, int]:
    """(210,) medians of `_log_lengths` over hands, and the number of hands."""
    lengths = _log_lengths(joints)
    lengths = lengths[np.isfinite(lengths).any(1)]
    if not len(lengths):
        return np.full(lengths.shape[1], np.nan), 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # unlabelled distances
        return np.nanmedian(lengths, axis=0), len(lengths)


@lru_cache(maxsize=1024)
def _columns(order: JointOrder) -> np.ndarray:
    """Columns of `_PAIRS` in `_log_lengths` for hands listed in that order."""
    table = np.zeros((NUM_JOINTS, NUM_JOINTS), int)
    rows, columns = np.triu_indices(NUM_JOINTS, 1)
    table[rows, columns] = table[columns, rows] = np.arange(len(rows))
    return np.array([table[order.to_openpose[a], order.to_openpose[b]] for a, b in _PAIRS])


def _log_lengths(joints: np.ndarray) -> np.ndarray:
    """(N, 210) log distances between all joints, minus the median of each hand."""
    rows, columns = np.triu_indices(NUM_JOINTS, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        lengths = np.log(np.linalg.norm(joints[:, rows] - joints[:, columns], axis=2))
    lengths[~np.isfinite(lengths)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # hands without labels stay NaN
        return lengths - np.nanmedian(lengths, axis=1, keepdims=True)


def _error(log_lengths: np.ndarray) -> float:
    """Standard deviation of log lengths relative to the open hand's, independent of hand size."""
    off = log_lengths - _hand_log_lengths()
    off = off[np.isfinite(off)]
    return float(off.std()) if len(off) >= _LEAST_PAIRS else np.nan


@lru_cache(maxsize=1)
def _hand_log_lengths() -> np.ndarray:
    hand = load_open_hand()
    mano21 = np.concatenate([hand.J_template, hand.v_template[hand.tip_vertices]])
    joints = mano21[list(MANO21_TO_OPENPOSE)]
    return np.log(np.linalg.norm([joints[a] - joints[b] for a, b in _PAIRS], axis=1))


def bends_as_right(joints: np.ndarray) -> np.ndarray:
    """Side of each hand by the bend of its fingers.

    Args:
        joints: (N, 21, 3) OpenPose-21, any unit and origin, x right, y down, z forward.

    Returns:
        (N,) positive for right hands, negative for left hands, NaN where fingers are too straight or not labelled.
    """
    wrist, index, little = joints[:, 0], joints[:, 5], joints[:, 17]
    with np.errstate(all="ignore"):
        palm = _unit(np.cross(little - wrist, index - wrist))
        bend = np.zeros(len(joints))
        for knuckle in (5, 9, 13, 17):
            first = _unit(joints[:, knuckle + 1] - joints[:, knuckle])
            last = _unit(joints[:, knuckle + 3] - joints[:, knuckle + 1])
            bend += (np.cross(first, last) * np.cross(palm, first)).sum(1)  # axis of flexion, axis across the finger
        return np.where(np.abs(bend) > _LEAST_BEND, bend, np.nan)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
