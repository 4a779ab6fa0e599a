"""Builds `utnet/assets/fit/pose_prior.npz`, the Gaussian of joint angles of the fit (mean (45,), covariance (45, 45)).

    python tools/build_pose_prior.py HANDY_FOLDER

Seven tenths of it are gestures and random poses of `utnet.synth.gestures`, three tenths the hand poses of stewdio's
handy.js (MIT License, Copyright 2020-2021 Stewart Smith; Handy-poses-right.js and -left.js, joint places measured by an
Oculus Quest), each fitted by `HandFitter`. Every angle is then spread a little more, since real hands bend more freely
than both: last joints follow the middle ones within about 10 degrees.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from utnet.fit import HandFitter
from utnet.fit.angles import pose_to_angles
from utnet.fit.landmarks import look_at
from utnet.fit.priors import PATH
from utnet.geometry import intrinsics, project
from utnet.hand.anatomy import JOINT_LIMITS_RAD
from utnet.synth.gestures import sample_pose
from utnet.synth.poses import AXES, sample_orientation

_NUM_DRAWN, _MEASURED_SHARE, _VIEWS = 4000, 0.3, 4
_JOINTS = [*range(5), *(first + i for first in (5, 10, 15, 20) for i in (1, 2, 3, 4))]
"""OpenPose's 21 of WebXR's 25 joints: without the fingers' metacarpal bones."""
_K = intrinsics(600.0, 600.0, 319.5, 239.5)


def _spread_deg() -> np.ndarray:
    """(15, 3) standard deviation that is added to flexion, abduction and twist."""
    spread = np.tile([10.0, 5.0, 3.0], (15, 1))
    spread[[1, 2, 4, 5, 7, 8, 10, 11], 1:] = 6.0  # hinges, which their limits hold
    spread[[2, 5, 8, 11], 0] = 8.0  # last joints
    spread[12:] = 8.0  # the thumb
    spread[13:, 1:] = 4.0
    return spread


def measured_hands(folder: Path) -> Iterator[np.ndarray]:
    """(21, 3) joints in metres of right (or mirrored) hands, x right, y down, z forward."""
    for side in ("right", "left"):
        for line in (folder / f"Handy-poses-{side}.js").read_text().splitlines():
            text = line.strip().rstrip(",")
            if text.startswith("{"):
                places = np.array(json.loads(text)["jointPositions"], float)
                if len(places) == 25:
                    yield places[_JOINTS] / 1000 * [1.0 if side == "right" else -1.0, -1.0, -1.0]


def angles_of(fitter: HandFitter, joints_m: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(45,) of the best of some fits to exact landmarks."""
    best = (np.inf, np.zeros(45))
    for _ in range(_VIEWS):
        seen = (joints_m - joints_m.mean(0)) @ sample_orientation(rng).T + [0.0, 0.0, 0.6]
        px = project(seen, _K)
        relative = seen @ look_at(px, seen, _K).look.T
        fit = fitter.fit(px[None], relative[None], _K[None])
        angles = pose_to_angles(fit.params.hand_pose[0], AXES).ravel()
        best = min(best, (float(fit.cost[0]), angles), key=lambda pair: pair[0])
    return best[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of Handy-poses-right.js and Handy-poses-left.js")
    folder, rng = parser.parse_args().folder, np.random.default_rng(123)
    fitter = HandFitter(landmarks="joints")
    measured = np.stack([angles_of(fitter, joints, rng) for joints in measured_hands(folder)])
    measured = np.clip(measured, *(JOINT_LIMITS_RAD[..., end].ravel() for end in (0, 1)))
    drawn = np.stack([sample_pose(rng, gestures=1.0, contact=False).ravel() for _ in range(_NUM_DRAWN)])
    share = [(1 - _MEASURED_SHARE) / len(drawn), _MEASURED_SHARE / len(measured)]
    weight, poses = np.repeat(share, [len(drawn), len(measured)]), np.concatenate([drawn, measured])
    mean = weight @ poses
    covariance = (poses - mean).T @ ((poses - mean) * weight[:, None]) + np.diag(np.deg2rad(_spread_deg()).ravel() ** 2)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    with PATH.open("wb") as file:
        np.savez(file, mean=mean.astype(np.float32), covariance=covariance.astype(np.float32))
    flexion = np.corrcoef(poses[:, ::3].T)
    print(f"{len(measured)} measured hands, {len(drawn)} drawn: {PATH}")
    print("correlation of last and middle joint:", np.round([flexion[k + 1, k + 2] for k in (0, 3, 6, 9)], 2))


if __name__ == "__main__":
    main()
