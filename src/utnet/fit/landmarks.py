"""Landmarks prepared for the fit: in the view along the ray to the hand, weighted, with an initial pose.

A landmark network is given a crop, so its relative 3D points are in the frame of a camera turned towards the hand. The
fit works in that frame (the "view": the camera rotated, without roll, until its axis meets the middle of the
landmarks), which makes it independent of K and of where in the picture the hand is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from utnet.conventions import NUM_JOINTS, PARENTS
from utnet.fit.landmark_model import LandmarkModel, parents_in_finger
from utnet.geometry import unproject
from utnet.placement import solve_translation
from utnet.rotations import rotation_to_z

_USUAL_APART = 0.6
"""Usual bound of the angle between a network's and the landmarks' bone directions of a finger (35 degrees)."""
_PLACED_BONE = 4.0
"""Where a person moved a landmark in the picture, the detector's 3D landmark is less sure by this factor."""
_PARENT = parents_in_finger()
_PALM = (0, 1, 5, 9, 13, 17)
"""Landmarks that move little against each other: wrist, base of the thumb, knuckles."""
_NEAREST_M = 0.05
_FINGERS = (5, 9, 17, 13)
"""Knuckles in MANO's order of the fingers: index, middle, little, ring."""


class TooFewLandmarks(ValueError):
    """Landmarks from which a hand cannot be placed."""


@dataclass(frozen=True)
class View:
    """Landmarks of one hand in the camera turned towards it.

    Attributes:
        look: (3, 3) rotation, camera to view.
        points: (21, 2) x / z and y / z, 0 where not visible.
        seen: (21,) bool.
        joints_m: (21, 3) relative 3D landmarks, 0 where missing.
        joints_ok: (21,) bool, visible joints with a 3D landmark.
        scale: (21,) deviations in units of the detector's.
    """

    look: np.ndarray
    points: np.ndarray
    seen: np.ndarray
    joints_m: np.ndarray
    joints_ok: np.ndarray
    scale: np.ndarray

    @cached_property
    def bones(self) -> np.ndarray:
        """(20, 3) `bone_directions` of the relative 3D landmarks."""
        return bone_directions(self.joints_m, self.joints_ok)


def look_at(
    joints_px: np.ndarray,
    joints_m: np.ndarray,
    K_px: np.ndarray,
    *,
    spread: float = 1.0,
    scale: np.ndarray | None = None,
) -> View:
    """The view of (21, 2) pixels and (21, 3) relative landmarks; NaN: missing.

    `spread`: scale of the landmarks about their middle (`LandmarkModel`), which is divided out, except of those that a
    person placed. `scale`: as in `View`; None: 1.

    Raises:
        TooFewLandmarks: fewer than three landmarks of the palm in 2D and in 3D, or all of them coincide.
    """
    seen = np.isfinite(joints_px).all(1)
    joints_ok = seen & np.isfinite(joints_m).all(1)
    palm = joints_ok & np.isin(np.arange(NUM_JOINTS), _PALM)
    if palm.sum() < 3 or not (np.ptp(joints_px[palm], axis=0).any() and np.ptp(joints_m[palm], axis=0).any()):
        raise TooFewLandmarks(
            "a fit needs three landmarks of the palm (wrist, thumb's base, knuckles) apart in 2D and 3D"
        )
    rays = unproject(np.where(seen[:, None], joints_px, 0.0), np.ones(NUM_JOINTS), K_px)
    middle = rays[seen].mean(0)
    look = rotation_to_z(middle / np.linalg.norm(middle))
    turned = rays @ look.T
    points = turned[:, :2] / turned[:, 2:]
    centre = points[seen].mean(0)
    scale = np.ones(NUM_JOINTS) if scale is None else scale
    wide = np.where(scale < 1, 1.0, spread)[:, None]
    points = np.where(seen[:, None], centre + (points - centre) / wide, 0.0)
    return View(look, points, seen, np.where(joints_ok[:, None], joints_m, 0.0), joints_ok, scale)


def first_pose(
    view: View, rest_m: np.ndarray, limits: np.ndarray, rest_angles: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Initial pose: the palm aligned with the 3D landmarks, fingers bent as these are, the distance from the model's
    size.

    Args:
        view: the landmarks.
        rest_m: (21, 3) the landmarks on the model at rest.
        limits: (3, 15, 3) of `utnet.fit.priors`.
        rest_angles: (15, 3) for fingers without landmarks and for the thumb.

    Returns:
        wrist (3,), root rotation (3, 3) and angles (15, 3).
    """
    palm = [joint for joint in _PALM if view.joints_ok[joint]]
    R, scale = _rotation_between(rest_m[palm], view.joints_m[palm])
    ok = view.joints_ok
    sized = view.joints_m / scale
    hand_middle = rest_m[palm].mean(0) @ R.T
    wrist = sized[palm].mean(0) - hand_middle + put_at(sized, view.points, ok)
    return wrist, R, _bends(view.joints_m @ R, ok, limits, rest_angles)


def put_at(joints_m: np.ndarray, points: np.ndarray, ok: np.ndarray) -> np.ndarray:
    """(3,) translation that makes metric joints (21, 3) as large in the picture as their landmarks; in front of the
    camera."""
    z = _distance(joints_m[ok], points[ok])
    return solve_translation(joints_m[ok], points[ok], np.eye(3), z_m=z)


def bone_directions(joints_m: np.ndarray, joints_ok: np.ndarray) -> np.ndarray:
    """(20, 3) unit directions to each of (21, 3) joints from its parent; 0 where one of the two is missing."""
    parents = np.array(PARENTS[1:])
    bones = joints_m[1:] - joints_m[parents]
    length = np.linalg.norm(bones, axis=1)
    ok = joints_ok[1:] & joints_ok[parents] & (length > 0)
    return np.where(ok[:, None], bones / np.where(ok, length, 1.0)[:, None], 0.0)


def weighted_directions(directions: np.ndarray, deviation_rad: np.ndarray) -> np.ndarray:
    """(20, 5) `bone_directions` with one over the standard deviations (20, 2) of their x and y and of their z."""
    return np.column_stack([directions, np.where(directions.any(axis=1, keepdims=True), 1 / deviation_rad, 0.0)])


def combined_directions(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(20, 5) weighted mean of two sets of directions; the weight falls with their disagreement."""
    p, q = one[:, [3, 3, 4]] ** 2, other[:, [3, 3, 4]] ** 2
    mean = (p * one[:, :3] + q * other[:, :3]) / np.maximum(p + q, 1e-12)
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    weight = np.sqrt((p + q)[:, 1:]) * length
    return np.column_stack([mean / np.maximum(length, 1e-12), weight])


def weighted_bones(view: View, seen: LandmarkModel, expected: np.ndarray | None) -> np.ndarray:
    """(20, 5) `bones` of `solve_hand`: directions of the 3D landmarks, averaged with an expected hand's (20, 5)."""
    scale = np.where(view.scale < 1, _PLACED_BONE, view.scale)
    wider = np.maximum(scale[1:], scale[list(PARENTS[1:])])[:, None]
    bones = weighted_directions(view.bones, seen.bone_rad * wider)
    return bones if expected is None else combined_directions(bones, expected)


def weighted_points(view: View, seen: LandmarkModel, z_m: float) -> np.ndarray:
    """(21, 4) `seen` of `solve_hand`: landmarks in the picture, their weights, the repeated share of the previous
    one."""
    usual = view.scale == 1  # of others, errors have nothing to do with those of their neighbours
    follows = view.seen & view.seen[_PARENT] & (seen.repeated != 0) & usual & usual[_PARENT]
    deviation = np.where(follows, seen.own_deviation_m, seen.deviation_m) * view.scale
    return np.column_stack([view.points, view.seen * z_m / deviation, np.where(follows, seen.repeated, 0.0)])


def disbelief(directions: np.ndarray, view: View) -> np.ndarray:
    """(20,) factors on the deviations of an expected hand's bones (their directions (20, 3)): above one in fingers
    whose bones contradict those of the 3D landmarks, for example where a network stretches a closed finger."""
    apart = np.where(view.bones.any(1), np.linalg.norm(directions - view.bones, axis=1), 0.0).reshape(5, 4).mean(1)
    return np.repeat(np.maximum(1.0, apart / _USUAL_APART) ** 2, 4)


def _distance(joints_m: np.ndarray, points: np.ndarray) -> float:
    """Distance of (N, 3) metric landmarks from their size in the picture; always positive."""
    wide, seen_wide = (np.linalg.norm(a - a.mean(0)) for a in (joints_m[:, :2], points))
    return float(max(wide / seen_wide, _NEAREST_M - joints_m[:, 2].min()))


def _bends(joints_m: np.ndarray, ok: np.ndarray, limits: np.ndarray, rest_angles: np.ndarray) -> np.ndarray:
    """Flexion of the four fingers from the landmarks in the hand's frame. A closed finger turns by 260 degrees from
    knuckle to tip, which a fit started from a straight finger would reach as 100 degrees the other way."""
    angles = rest_angles.copy()
    for finger, knuckle in enumerate(_FINGERS):
        if not ok[knuckle : knuckle + 4].all():
            continue
        bones = np.diff(joints_m[knuckle : knuckle + 4], axis=0)
        bones /= np.linalg.norm(bones, axis=1, keepdims=True) + 1e-12
        first = np.arctan2(-bones[0, 1], -bones[0, 0])  # at rest along -x, bent towards the palm, -y
        cosines = np.clip((bones[:-1] * bones[1:]).sum(1), -1, 1)
        # From -90 to 270 degrees: no knuckle bends back by more.
        angles[3 * finger, 0] = (first + np.pi / 2) % (2 * np.pi) - np.pi / 2
        angles[3 * finger + 1 : 3 * finger + 3, 0] = np.arccos(cosines)
    return np.clip(angles, limits[0], limits[1])


def _rotation_between(source: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """(3, 3) rotation and scale that align centred (N, 3) points with others by least squares (Umeyama 1991)."""
    s, t = source - source.mean(0), target - target.mean(0)
    U, w, Vh = np.linalg.svd(t.T @ s)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vh))])
    return (U * sign) @ Vh, float((w * sign).sum() / (s**2).sum())
