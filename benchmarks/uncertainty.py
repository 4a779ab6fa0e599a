"""Do stated intervals hold what they state? `python benchmarks/uncertainty.py [--minutes 10] [--weights RUN/last]`.

On held-out synthetic hands: the share of the joints' errors, relative to the wrist, that lies within the stated 50 %
and 90 % intervals, for RGB and RGB-D input, all joints together and level by level. Prints a table and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json

import torch
from short_training import HELD_OUT_SEED, arguments, predictions, root_relative_error_mm, trained
from torch import Tensor

from utnet.config import Config
from utnet.model import UTNet
from utnet.synth import SyntheticHands
from utnet.uncertainty import interval_mm

SHARES = (0.5, 0.9)
LEVELS = {
    "all joints": range(1, 21),
    "knuckles": (1, 5, 9, 13, 17),
    "middle joints": (2, 6, 10, 14, 18),
    "last joints": (3, 7, 11, 15, 19),
    "tips": (4, 8, 12, 16, 20),
}


def measure(model: UTNet, source: SyntheticHands, config: Config, *, use_depth: bool) -> dict[str, Tensor]:
    """(N, 21) errors, expected errors and intervals in mm, and the shape of the distribution."""
    parts: dict[str, list[Tensor]] = {"error": [], "scale": [], **{str(share): [] for share in SHARES}}
    for batch, out in predictions(model, source, config, use_depth=use_depth):
        parts["error"].append(root_relative_error_mm(out, batch))
        parts["scale"].append(out.joint_scale_mm)
        for share in SHARES:
            parts[str(share)].append(interval_mm(out, share))
    return {name: torch.cat(values) for name, values in parts.items()} | {"shape": out.error_shape[0]}


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    model, config, about = trained(args)
    options = {"seed": HELD_OUT_SEED, "size_px": config.model.size_px, "num": args.num}
    source = SyntheticHands(**options, synth=config.synth, crop=config.crop, jitter=False)
    result = {}
    print(f"{args.num} held-out hands; errors of joints relative to the wrist")
    print(f"{'input':7s}{'joints':15s}{'mean error':>11s}{'expected':>10s}{'within 50 %':>13s}{'within 90 %':>13s}")
    for name, use_depth in (("RGB", False), ("RGB-D", True)):
        found = measure(model, source, config, use_depth=use_depth)
        for title, joints in LEVELS.items():
            own = {key: value[:, list(joints)] for key, value in found.items() if key != "shape"}
            within = [100 * float((own["error"] <= own[str(share)]).float().mean()) for share in SHARES]
            means = float(own["error"].mean()), float(own["scale"].mean())
            print(f"{name:7s}{title:15s}{means[0]:11.1f}{means[1]:10.1f}{within[0]:13.1f}{within[1]:13.1f}")
            if title == "all joints":
                result[name] = {"error_mm": means[0], "within_50": within[0], "within_90": within[1]}
        error, scale = found["error"][:, 1:].mean(1), found["scale"][:, 1:].mean(1)
        order = scale.argsort()
        fifth = len(order) // 5
        surest, least = float(error[order[:fifth]].mean()), float(error[order[-fifth:]].mean())
        k, p = found["shape"].tolist()
        print(f"{name:7s}MPJPE of the fifth of the hands that it is surest of {surest:.1f}, least sure of {least:.1f}")
        print(f"{name:7s}shape of the distribution: k {k:.2f}, p {p:.2f}")
        result[name] |= {"surest_fifth_mm": surest, "least_sure_fifth_mm": least}
    rounded = {name: {key: round(value, 1) for key, value in row.items()} for name, row in result.items()}
    print(json.dumps({"benchmark": "uncertainty", "num": args.num, **about, **rounded}))


if __name__ == "__main__":
    main()
