"""The three ways of `utnet predict` side by side: `python benchmarks/methods.py --work DIR [WEIGHTS]`.

Held-out synthetic hands (those of release_scores.py, drawn once into DIR) in which the detector finds the hand: its
landmarks lie within a fifth of the box from the true joints, on the right side. On photographs, where nobody knows the
truth in 3D, real_pictures.py says how far each way is from the landmarks. The detector has not learnt from drawn hands
and the network has, so the fit is a little better on photographs than here.

For `fit`, `network` and `both`, for the landmark lifter alone and for the fit without it, from RGB and from RGB-D (the
lifter takes no depth), over all hands and by view (the angle between the palm's normal and the line to the camera: palm
below 60 degrees, back above 120, side between): joints relative to the wrist (MPJPE) and after the best similarity
(PA-MPJPE, and its parts along x, y and z), the sum of the 20 bones (mean of ours over mean of the truth, and the
correlation of the two), the wrist's place in the camera (median, and the median of ours minus the true distance),
joints in the picture in percent of the true box, and the median processor time a hand after detection. Prints a table
and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from release_scores import PARTS, held_out, view_deg
from tqdm import tqdm

from utnet.checkpoint import DEFAULT_NETWORK
from utnet.conventions import PARENTS
from utnet.detect import Detection
from utnet.evaluation.validation import INPUTS
from utnet.fit import HandFitter
from utnet.fit.hypotheses import lift_hands
from utnet.fit.lifter import LandmarkLifter
from utnet.geometry import normalized_distance_percent, project
from utnet.metrics import mpjpe_mm, pa_mpjpe_mm
from utnet.predict import Predictor
from utnet.predict.methods.network import NetworkMethod
from utnet.types import Sample

METHODS = ("fit", "network", "both")
Joints = Callable[[Sample, Detection, np.ndarray | None], np.ndarray]
"""A drawn hand, its detection and depth or None -> (21, 3) joints in the camera."""
_NEAR_PERCENT = 20.0


def found(predictor: Predictor, sample: Sample) -> Detection | None:
    """The detection that is the drawn hand, if one is."""
    px = project(sample.joints_cam_m, sample.K_px)
    near = [
        (float(normalized_distance_percent(px, detection.joints_px).mean()), i, detection)
        for i, detection in enumerate(predictor.detector(sample.rgb))
        if detection.side == sample.side
    ]
    apart, _, detection = min(near, default=(np.inf, 0, None))
    return detection if apart < _NEAR_PERCENT else None


def by_predictor(predictor: Predictor) -> Joints:
    def joints(sample: Sample, detection: Detection, depth_m: np.ndarray | None) -> np.ndarray:
        (hand,) = predictor.from_detections(sample.rgb, [detection], depth_m, sample.K_px)
        return hand.joints_cam_m

    return joints


def by_landmarks(fitter: HandFitter, lifter: LandmarkLifter | None) -> Joints:
    """The likeliest hypothesis of the lifter, or without it the fit to the landmarks alone; right hands."""

    def joints(sample: Sample, detection: Detection, depth_m: np.ndarray | None) -> np.ndarray:
        seen = detection.joints_px[None], detection.joints_m[None], np.asarray(sample.K_px)[None]
        if lifter is None:
            params = fitter(*seen, depth_m=[depth_m])
        else:
            params = lift_hands(lifter, fitter.model, *seen).params[0]
        return fitter.model.decode(params.map(lambda array: array[0]))[0] + params.transl_m[0]

    return joints


def errors(joints_cam_m: np.ndarray, sample: Sample) -> dict[str, float]:
    """Of one hand: millimetres, percent of the box, and the two sums of bones."""
    truth = sample.joints_cam_m
    pair = (joints_cam_m[None], truth[None])
    axes = 1e3 * np.abs(aligned(joints_cam_m, truth) - truth).mean(0)
    return {
        "mpjpe_mm": float(mpjpe_mm(*pair).mean()),
        "pa_mpjpe_mm": float(pa_mpjpe_mm(*pair).mean()),
        **{f"{axis}_mm": float(value) for axis, value in zip("xyz", axes, strict=True)},
        "bones_mm": bone_sum_mm(joints_cam_m),
        "true_bones_mm": bone_sum_mm(truth),
        "wrist_mm": float(1e3 * np.linalg.norm(joints_cam_m[0] - truth[0])),
        "farther_mm": float(1e3 * (np.linalg.norm(joints_cam_m[0]) - np.linalg.norm(truth[0]))),
        "percent": float(
            normalized_distance_percent(project(truth, sample.K_px), project(joints_cam_m, sample.K_px)).mean()
        ),
    }


def aligned(joints_m: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(21, 3) joints moved onto others by the best similarity (Umeyama 1991)."""
    a, b = joints_m - joints_m.mean(0), truth - truth.mean(0)
    U, w, Vh = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, 1.0, np.sign(np.linalg.det(U @ Vh))])
    return (w * sign).sum() / (a**2).sum() * a @ ((U * sign) @ Vh).T + truth.mean(0)


def bone_sum_mm(joints_m: np.ndarray) -> float:
    """Length of the 20 bones of a hand."""
    return float(1e3 * np.linalg.norm(joints_m[1:] - joints_m[list(PARENTS[1:])], axis=1).sum())


def summary(rows: list[dict[str, float]], ms: list[float]) -> dict[str, float]:
    """Means over hands (medians of distances and times), and how the bones' sums agree."""
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    ours, true = table.pop("bones_mm"), table.pop("true_bones_mm")
    out = {name: float((np.median if name in _MEDIANS else np.mean)(values)) for name, values in table.items()}
    varied = len(rows) > 1 and ours.std() > 1e-6 * ours.mean()  # the same shape for all has no correlation
    correlation = float(np.corrcoef(ours, true)[0, 1]) if varied else float("nan")
    out |= {"bones": float(ours.mean() / true.mean()), "bones_r": correlation, "ms": float(np.median(ms))}
    return {name: round(value, 3) for name, value in out.items()}


_MEDIANS = ("wrist_mm", "farther_mm")
_COLUMNS = {
    "mpjpe_mm": "MPJPE", "pa_mpjpe_mm": "PA", "x_mm": "|x|", "y_mm": "|y|", "z_mm": "|z| mm", "bones": "bones",
    "bones_r": "r", "wrist_mm": "wrist", "farther_mm": "farther", "percent": "picture %", "ms": "ms",
}  # fmt: skip


def line(name: str, row: dict[str, float]) -> str:
    digits = {"bones": 3, "bones_r": 2, "wrist_mm": 0, "farther_mm": 0}
    return f"{name:24s}" + "".join(f"{row[key]:10.{digits.get(key, 1)}f}" for key in _COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="?", default=DEFAULT_NETWORK, help="a checkpoint, or a network that ships")
    parser.add_argument("--work", type=Path, required=True, help="folder of the held-out hands")
    parser.add_argument("--num", type=int, default=1024)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source, _ = held_out(args.work, args.num)
    predictors = {name: Predictor(None if name == "fit" else args.weights, method=name) for name in METHODS}
    ways = {name: by_predictor(predictor) for name, predictor in predictors.items()}
    without = NetworkMethod(args.weights, prompts=False)
    if without.config.model.prompts:
        ways["network no prompts"] = by_predictor(Predictor(args.weights, method="network", prompts=False))
        ways["both no prompts"] = by_predictor(Predictor(args.weights, method="both", prompts=False))
    ways["lifter"] = by_landmarks(HandFitter(), LandmarkLifter())
    ways["fit without lifter"] = by_landmarks(HandFitter(), None)
    rows, spent, views = defaultdict(list), defaultdict(list), []
    for i in tqdm(range(len(source)), unit="hand", disable=None):
        sample = source[i]
        detection = found(predictors["fit"], sample)
        if detection is None:
            continue
        views.append(view_deg(sample))
        for name, way in ways.items():
            for kind in INPUTS if name != "lifter" else ("rgb",):
                depth = sample.depth_m if kind == "rgbd" else None
                start = time.process_time()
                joints_cam_m = way(sample, detection, depth)
                spent[f"{name} {kind}"].append(1e3 * (time.process_time() - start))
                rows[f"{name} {kind}"].append(errors(joints_cam_m, sample))
    num = len(views)
    if not num:
        parser.exit(1, f"the detector finds none of {len(source)} hands\n")
    print(f"{f'{num} of {len(source)} hands':24s}" + "".join(f"{title:>10s}" for title in _COLUMNS.values()))
    result = {}
    for name, values in rows.items():
        result[name] = summary(values, spent[name])
        print(line(name, result[name]))
    for part, (low, high) in PARTS["view"].items():
        some = [k for k, view in enumerate(views) if low <= view < high]
        if some:
            print(f"{part}: {len(some)} hands")
        for name, values in rows.items() if some else ():
            key = f"{name} {part}"
            result[key] = summary([values[k] for k in some], [spent[name][k] for k in some])
            print(line(name, result[key]))
    about = {"weights": str(args.weights), "num": len(source), "found": num}
    print(json.dumps({"benchmark": "methods", **about, "rows": result}))


if __name__ == "__main__":
    main()
