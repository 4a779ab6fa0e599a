"""Draws synthetic hands, finds them again by `Predictor`, and shows both: python examples/predict_synthetic.py

Without --indices it shows the first five, wrong ones among them; --indices 43 44 63 68 15 are found well.
"""

from __future__ import annotations

import argparse

import numpy as np

from utnet import Predictor
from utnet.config import SynthConfig
from utnet.render.drawing import contact_sheet, overlay_mesh, save_picture
from utnet.synth import SyntheticHands

SIZE_PX = 320


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--indices", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--out", default="predicted.jpg")
    args = parser.parse_args()

    source = SyntheticHands(seed=args.seed, size_px=SIZE_PX, num=max(args.indices) + 1, synth=SynthConfig("full"))
    predictor = Predictor()
    samples = [source[i] for i in args.indices]
    drawn = []
    for i, sample in zip(args.indices, samples, strict=True):
        hands = predictor(sample.rgb, K_px=sample.K_px)
        print(f"hand {i}: " + (", ".join(_error(hand, sample) for hand in hands) or "not found"))
        picture = sample.rgb
        for hand in hands:
            picture = overlay_mesh(picture, hand.vertices_cam_m, hand.faces, hand.K_px)
        drawn.append(picture)
    save_picture(args.out, contact_sheet([sample.rgb for sample in samples] + drawn, columns=len(samples)))
    print(args.out)


def _error(hand, sample) -> str:
    """How far the joints are from the truth, relative to the wrist."""
    truth = sample.joints_cam_m - sample.joints_cam_m[0]
    off_mm = 1000 * np.linalg.norm(hand.joints_cam_m - hand.joints_cam_m[0] - truth, axis=1).mean()
    return f"{hand.side}, {off_mm:.0f} mm off"


if __name__ == "__main__":
    main()
