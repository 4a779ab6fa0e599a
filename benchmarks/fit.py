"""How fast and how well a hand is fitted: `python benchmarks/fit.py [--num 200]`.

Random anatomical hands of random people (betas of variance one) before a camera of random distance, with landmarks as
MediaPipe's are: 3 mm off in the picture, relative 3D landmarks of another scale and 8 mm off. Accuracy in mm: joints
relative to the wrist, the same up to one scale (size is not seen without depth), and the wrist's distance. Time is CPU
time of this process, one thread, median of the repeats. Prints tables and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import time

import cv2
import numpy as np

from utnet.fit import HandFitter
from utnet.fit.landmarks import look_at
from utnet.geometry import intrinsics, project
from utnet.synth.appearance import Appearance
from utnet.synth.poses import PALM_M, angles_to_pose, sample_angles, sample_betas, sample_orientation
from utnet.synth.scene import SceneRenderer
from utnet.types import HandParams

_K, _SIZE_WH = intrinsics(600.0, 600.0, 319.5, 239.5), (640, 480)
_PIXEL_M, _RELATIVE_M, _SCALES = 0.003, 0.008, (0.85, 1.15)
_BATCHES = (1, 2, 8)
_REPEATS = 20


def make_hands(num: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Landmarks (exact and noisy), true joints in the camera, betas and depth images of `num` hands."""
    renderer = SceneRenderer("right", forearm=True)
    rows: dict[str, list] = {name: [] for name in ("joints", "betas", "pixels", "relative", "depth")}
    for _ in range(num):
        R = sample_orientation(rng)
        centre = np.array([rng.uniform(-0.1, 0.1), rng.uniform(-0.05, 0.05), rng.uniform(0.4, 0.8)])
        pose, betas = angles_to_pose(sample_angles(rng)), sample_betas(rng)
        posed = renderer.decode(HandParams(R[None], pose, betas, centre - R @ PALM_M))
        depth = renderer.render(posed, _K, _SIZE_WH, Appearance.sample(rng), rng=rng).depth_m
        joints = posed.joints_m.astype(float)
        pixels = project(joints, _K)
        look = look_at(pixels, joints, _K).look
        pixels = pixels + rng.normal(0, _PIXEL_M, pixels.shape) * _K[0, 0] / joints[:, 2:]
        relative = (joints - joints[9]) @ look.T * rng.uniform(*_SCALES) + rng.normal(0, _RELATIVE_M, joints.shape)
        for name, value in (("joints", joints), ("betas", betas), ("pixels", pixels), ("relative", relative)):
            rows[name].append(value)
        rows["depth"].append(depth.astype(np.float32))
    return {name: np.array(values) for name, values in rows.items()}


def decode(fitter: HandFitter, params: HandParams) -> np.ndarray:
    """(B, 21, 3) in the camera."""
    return fitter.hand.decode(params).joints_m + params.transl_m[:, None]


def accuracy(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Medians over hands, mm."""
    a, b = found - found[:, :1], truth - truth[:, :1]
    scale = (a * b).sum((1, 2)) / (a * a).sum((1, 2))
    in_picture = np.linalg.norm(project(found, _K) - project(truth, _K), axis=-1)
    rows = {
        "relative": np.linalg.norm(a - b, axis=-1).mean(1),
        "up_to_scale": np.linalg.norm(scale[:, None, None] * a - b, axis=-1).mean(1),
        "distance": np.abs(found[:, 0, 2] - truth[:, 0, 2]),
        "picture": (in_picture * truth[..., 2] / _K[0, 0]).mean(1),
    }
    return {name: round(1000 * float(np.median(row)), 2) for name, row in rows.items()}


def milliseconds(fitter: HandFitter, hands: dict, num: int, **options) -> float:
    """CPU time of one hand in batches of `num`."""
    taken = []
    for repeat in range(_REPEATS):
        some = slice(repeat * num % len(hands["joints"]), None)
        arguments = [hands[name][some][:num] for name in ("pixels", "relative")]
        given = {key: value[some][:num] for key, value in options.items()}
        start = time.process_time()
        fitter(*arguments, np.tile(_K, (len(arguments[0]), 1, 1)), **given)
        taken.append((time.process_time() - start) / len(arguments[0]))
    return round(1000 * float(np.median(taken)), 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    hands = make_hands(args.num, np.random.default_rng(args.seed))
    fitter = HandFitter(landmarks="joints")
    cameras = np.tile(_K, (args.num, 1, 1))
    ways = {"landmarks": {}, "shape known": {"betas": hands["betas"]}, "with depth": {"depth_m": hands["depth"]}}
    scores, times = {}, {}
    print(
        f"{args.num} hands{'':10s}{'relative':>10s}{'up to scale':>13s}{'distance':>10s}{'in picture':>12s}  median, mm"
    )
    for name, options in ways.items():
        score = accuracy(
            decode(fitter, fitter(hands["pixels"], hands["relative"], cameras, **options)), hands["joints"]
        )
        scores[name.replace(" ", "_")] = score
        print(f"{name:19s}" + "".join(f"{v:{w}.1f}" for v, w in zip(score.values(), (10, 13, 10, 10), strict=True)))
    print(f"\nms a hand (CPU){'':4s}" + "".join(f"{f'batch {num}':>10s}" for num in _BATCHES))
    for name, options in ways.items():
        row = [milliseconds(fitter, hands, num, **options) for num in _BATCHES]
        times[name.replace(" ", "_")] = dict(zip(map(str, _BATCHES), row, strict=True))
        print(f"{name:19s}" + "".join(f"{v:10.2f}" for v in row))
    print(json.dumps({"benchmark": "fit", "num": args.num, "mm": scores, "ms": times}))


if __name__ == "__main__":
    main()
