"""Builds `utnet/assets/fit/landmarks.npz`: where the detector puts its landmarks on the open hand, and how surely.

    python tools/build_landmark_model.py FOLDER

FOLDER holds the chunks of `tools/build_residuals.py collect`: drawn right hands and what the detector found of them.
Hands of which the mean distance is over a fifth of the box or the side is wrong do not count.

For each of three views (the palm, the side, the back of the hand towards the camera) it measures, by joint: the offset
from the model's joint to the landmark in that joint's frame (least squares with Cauchy weights, on hands scaled to the
mean size), the robust standard deviation of what is left in the picture, and that of the directions of the bones of the
relative 3D landmarks. Errors of a finger's landmarks repeat along the finger, so the deviation is that of an error
beyond the share that repeats its parent's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from utnet.conventions import MANO21_TO_OPENPOSE, MANO_PARENTS, PARENTS
from utnet.fit.landmark_model import PATH, VIEWS, LandmarkModel, parents_in_finger
from utnet.fit.landmarks import look_at
from utnet.geometry import project

_NEAR_PERCENT = 20.0
_ROBUST_M = 0.005
_LARGEST_M = 0.015
_PALM = list(PARENTS[1:])
_SHRINK = 300.0
"""Hands' worth of weight of the offset over all views in that of one view."""


def load(folder: Path) -> dict[str, np.ndarray]:
    chunks = [dict(np.load(path)) for path in sorted(folder.glob("*.npz"))]
    if not chunks:
        raise SystemExit(f"{folder}: no npz chunks of measured hands")
    hands = {name: np.concatenate([chunk[name] for chunk in chunks]).astype(float) for name in chunks[0]}
    good = np.isfinite(hands["landmarks_px"]).all((1, 2))
    good &= (hands["right"] >= 0.5) & (hands["percent"] < _NEAR_PERCENT)
    return {name: values[good] for name, values in hands.items()}


def rotations(hands: dict[str, np.ndarray]) -> np.ndarray:
    """(N, 21, 3, 3) of the joint that moves each landmark, to the camera."""
    R = [hands["global_orient"].reshape(-1, 3, 3)]
    for joint in range(1, 16):
        R.append(R[MANO_PARENTS[joint]] @ hands["hand_pose"][:, joint - 1])
    return np.stack([*R, R[15], R[3], R[6], R[12], R[9]], 1)[:, list(MANO21_TO_OPENPOSE)]


def offsets(error_m: np.ndarray, R: np.ndarray) -> np.ndarray:
    """(21, 3) such that R's first two rows times them are the (N, 21, 2) errors, by Cauchy's loss."""
    out = np.zeros((21, 3))
    for joint in range(21):
        A, b, weight = R[:, joint, :2].reshape(-1, 3), error_m[:, joint].ravel(), np.ones(2 * len(R))
        for _ in range(15):
            out[joint] = np.linalg.lstsq(A * weight[:, None], b * weight, rcond=None)[0]
            squared = ((b - A @ out[joint]).reshape(-1, 2) ** 2).sum(1)
            weight = np.repeat(1 / np.sqrt(1 + squared / _ROBUST_M**2), 2)
    return out


def deviation(errors: np.ndarray) -> np.ndarray:
    """Robust standard deviation of each coordinate of (N, J, C) errors, from the median of the absolute values."""
    return np.median(np.abs(errors), axis=(0, 2)) / 0.6745


def directions(joints_m: np.ndarray) -> np.ndarray:
    bones = joints_m[:, 1:] - joints_m[:, _PALM]
    return bones / np.linalg.norm(bones, axis=-1, keepdims=True)


def measure(hands: dict[str, np.ndarray]) -> LandmarkModel:
    joints, K, R = hands["joints_cam_m"], hands["K_px"], rotations(hands)
    scale = np.linalg.norm(joints[:, 9] - joints[:, 0], axis=1)
    scale = scale / scale.mean()
    pixels = np.stack([project(one, k) for one, k in zip(joints, K, strict=True)])
    metres = joints[..., 2:] / K[:, None, None, 0, 0] / scale[:, None, None]
    error = (hands["landmarks_px"] - pixels) * metres
    pairs = zip(hands["landmarks_px"], hands["landmarks_m"], K, strict=True)
    look = np.stack([look_at(*pair).look for pair in pairs])
    facing = np.einsum("nab,nb->na", look, R[:, 0, :, 1])[:, 2]
    nearest = np.abs(facing[:, None] - VIEWS).argmin(1)
    overall, parents = offsets(error, R), parents_in_finger()
    by_view = np.empty((len(VIEWS), 21, 3))
    left = np.empty_like(error)
    for view in range(len(VIEWS)):
        own = nearest == view
        share = own.sum() / (own.sum() + _SHRINK)
        by_view[view] = share * offsets(error[own], R[own]) + (1 - share) * overall
        left[own] = error[own] - np.einsum("njac,jc->nja", R[own][:, :, :2], by_view[view])
    # Beyond 15 mm a landmark is elsewhere altogether: that is for the fit's Cauchy loss.
    some = np.clip(left, -_LARGEST_M, _LARGEST_M)
    repeated = np.array([(some[:, j] * some[:, p]).sum() / (some[:, p] ** 2).sum() for j, p in enumerate(parents)])
    repeated[parents == np.arange(21)] = 0.0
    own_error = left - repeated[:, None] * left[:, parents]
    landmarks = joints + np.einsum("njac,njc->nja", R, by_view[nearest]) * scale[:, None, None]
    turned = directions(hands["landmarks_m"]) - directions(np.einsum("nab,njb->nja", look, landmarks))
    each = [nearest == view for view in range(len(VIEWS))]
    return LandmarkModel(
        by_view,
        np.stack([deviation(left[own]) for own in each]),
        np.stack([deviation(own_error[own]) for own in each]),
        repeated,
        np.stack([np.stack([deviation(turned[own][..., a : a + n]) for a, n in ((0, 2), (2, 1))], 1) for own in each]),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    hands = load(parser.parse_args().folder)
    model = measure(hands)
    model.save()
    print(f"{len(hands['percent'])} hands: {PATH}")
    np.set_printoptions(precision=1, suppress=True, linewidth=160)
    print("millimetres by joint: offsets by view (palm, side, back), deviations by view, beyond the parent's, share")
    for joint in range(21):
        rows = (model.offsets_m[:, joint], model.deviation_m[:, joint], model.own_deviation_m[:, joint])
        print(f"{joint:2d}", *(1000 * row.ravel() for row in rows), round(float(model.repeated[joint]), 2))


if __name__ == "__main__":
    main()
