"""A hand corrected by three clicks: `python benchmarks/clicks.py [--num 256]`.

Drawn hands in full appearance that no training saw, each in its true box and on its true side. The three joints that
are farthest off in the picture are put where they belong, as a person would (normal errors of half a percent of the
box), by `landmarks_px` of `Predictor`, which is what a dragged joint on the page of `utnet serve` gives. For the
methods `network` and `both`, over all hands and over the worst quarter of each (by its error without clicks): joints
in the picture in percent of the box and PA-MPJPE in mm, before and after, and the distance of the clicked joints
afterwards. Prints a table and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json

import numpy as np

from utnet.config import SynthConfig
from utnet.conventions import NUM_JOINTS
from utnet.geometry import normalized_distance_percent, project
from utnet.metrics import pa_mpjpe_mm
from utnet.predict import Predictor
from utnet.synth import SyntheticHands
from utnet.types import Sample

_MARGIN = 0.08
"""Of the box around the joints, as a share of its longer side."""
_CLICK_ERROR = 0.005
_COLUMNS = ("percent", "percent_after", "pa_mm", "pa_mm_after", "clicked_percent_after")


def corrected(predictor: Predictor, sample: Sample, rng: np.random.Generator) -> list[float]:
    """`_COLUMNS` of one hand."""
    truth_px = project(sample.joints_cam_m, sample.K_px)
    low, high = truth_px.min(0), truth_px.max(0)
    size = float((high - low).max())
    box = np.concatenate([low - _MARGIN * size, high + _MARGIN * size])

    def reconstruct(landmarks_px: list | None) -> tuple[np.ndarray, float]:
        (hand,) = predictor(sample.rgb, None, sample.K_px, boxes=[box], sides=[sample.side], landmarks_px=landmarks_px)
        off = normalized_distance_percent(truth_px, project(hand.joints_cam_m, sample.K_px))
        return off, float(pa_mpjpe_mm(hand.joints_cam_m[None], sample.joints_cam_m[None])[0])

    off, pa = reconstruct(None)
    clicked = np.argsort(off)[-3:]
    landmarks = np.full((NUM_JOINTS, 2), np.nan)
    landmarks[clicked] = truth_px[clicked] + rng.normal(0.0, _CLICK_ERROR * size, (3, 2))
    after, pa_after = reconstruct([landmarks])
    return [float(off.mean()), float(after.mean()), pa, pa_after, float(after[clicked].mean())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=256)
    parser.add_argument("--seed", type=int, default=4_100_003)
    args = parser.parse_args()
    synth = SynthConfig(appearance="full")
    hands = SyntheticHands(seed=args.seed, size_px=512, num=args.num, synth=synth, jitter=False)
    result: dict = {"num": args.num, "seed": args.seed}
    print(f"{'':24}" + "".join(f"{name:>24}" for name in _COLUMNS))
    for method in ("network", "both"):
        predictor, rng = Predictor(method=method), np.random.default_rng(args.seed)
        table = np.array([corrected(predictor, sample, rng) for sample in hands])
        worst = table[:, 0] >= np.quantile(table[:, 0], 0.75)
        for name, rows in (("all", table), ("worst quarter", table[worst])):
            result[f"{method} {name}"] = dict(zip(_COLUMNS, rows.mean(0).round(2).tolist(), strict=True))
            print(f"{method + ', ' + name:24}" + "".join(f"{value:24.2f}" for value in rows.mean(0)), flush=True)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
