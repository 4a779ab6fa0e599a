"""The three ways of `utnet predict` side by side: `python benchmarks/methods.py --work DIR [WEIGHTS]`.

Held-out synthetic hands (those of release_scores.py, drawn once into DIR) in which the detector finds the hand: its
landmarks lie within a fifth of the box from the true joints, on the right side. On photographs, where nobody knows the
truth in 3D, real_pictures.py says how far each way is from the landmarks. The detector has not learnt from drawn hands
and the network has, so the fit is a little better on photographs than here.

For `fit`, `network` and `both`, from RGB and from RGB-D: joints relative to the wrist (MPJPE) and after the best
similarity (PA-MPJPE), the wrist's place in the camera (median), joints in the picture in percent of the true box,
and the median time a hand after detection. Prints a table and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from release_scores import held_out
from tqdm import tqdm

from utnet.checkpoint import DEFAULT_NETWORK
from utnet.detect import Detection
from utnet.evaluation.validation import INPUTS
from utnet.geometry import apart_percent, project
from utnet.metrics import mpjpe_mm, pa_mpjpe_mm
from utnet.predict import Predictor
from utnet.types import Sample

METHODS = ("fit", "network", "both")
_NEAR_PERCENT = 20.0


def found(predictor: Predictor, sample: Sample) -> Detection | None:
    """The detection that is the drawn hand, if one is."""
    px = project(sample.joints_cam_m, sample.K_px)
    near = [
        (float(apart_percent(px, detection.joints_px).mean()), i, detection)
        for i, detection in enumerate(predictor.detector(sample.rgb))
        if detection.side == sample.side
    ]
    apart, _, detection = min(near, default=(np.inf, 0, None))
    return detection if apart < _NEAR_PERCENT else None


def errors(joints_cam_m: np.ndarray, sample: Sample) -> tuple[float, float, float, float]:
    """MPJPE and PA-MPJPE in mm, how far off the wrist is in mm, and percent of the box."""
    truth = sample.joints_cam_m
    percent = apart_percent(project(truth, sample.K_px), project(joints_cam_m, sample.K_px)).mean()
    far = np.linalg.norm(joints_cam_m[0] - truth[0])
    pair = (joints_cam_m[None], truth[None])
    relative, aligned = (float(metric(*pair).mean()) for metric in (mpjpe_mm, pa_mpjpe_mm))
    return relative, aligned, float(1e3 * far), float(percent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="?", default=DEFAULT_NETWORK, help="a checkpoint, or a network that ships")
    parser.add_argument("--work", type=Path, required=True, help="folder of the held-out hands")
    parser.add_argument("--num", type=int, default=1024)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source, _ = held_out(args.work, args.num)
    ways = {name: Predictor(None if name == "fit" else args.weights, method=name) for name in METHODS}
    rows, spent = defaultdict(list), defaultdict(list)
    for i in tqdm(range(len(source)), unit="hand", disable=None):
        sample = source[i]
        detection = found(ways["fit"], sample)
        if detection is None:
            continue
        for name, way in ways.items():
            for kind in INPUTS:
                depth = sample.depth_m if kind == "rgbd" else None
                start = time.perf_counter()
                (hand,) = way.from_detections(sample.rgb, [detection], depth, sample.K_px)
                spent[f"{name} {kind}"].append(time.perf_counter() - start)
                rows[f"{name} {kind}"].append(errors(hand.joints_cam_m, sample))
    num = len(rows["fit rgb"])
    if not num:
        parser.exit(1, f"the detector finds none of {len(source)} hands\n")
    print(f"{num} of {len(source)} hands found  MPJPE [mm]   PA [mm]  wrist [mm]  picture [%]  time [ms]")
    result = {}
    for name, values in rows.items():
        mpjpe, pa, _, percent = np.mean(values, axis=0)
        wrist, ms = np.median(values, axis=0)[2], 1e3 * np.median(spent[name])
        print(f"{name:26s}{mpjpe:12.1f}{pa:10.1f}{wrist:12.0f}{percent:13.1f}{ms:11.1f}")
        scores = {"mpjpe_mm": mpjpe, "pa_mpjpe_mm": pa, "wrist_mm": wrist, "percent": percent, "ms": ms}
        result[name] = {key: round(float(value), 2) for key, value in scores.items()}
    about = {"weights": str(args.weights), "num": len(source), "found": num}
    print(json.dumps({"benchmark": "methods", **about, "rows": result}))


if __name__ == "__main__":
    main()
