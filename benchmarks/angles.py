"""Errors of the joints' angles in degrees on drawn hands: `python benchmarks/angles.py [--num 200] [--write]`.

For `fit`, `network` and `both`, from RGB and from RGB-D, on hands that the detector finds: the difference of each
clinical angle (`utnet.predict.formats.angles`) from the drawn hand's. Prints medians and root mean squares by joint,
and one JSON line. With --write the root mean squares become the standard errors of `utnet predict --angles`
(src/utnet/assets/angles.json).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
from methods import METHODS, found
from release_scores import full_appearance
from tqdm import tqdm

import utnet
from utnet.io.atomic import write_json
from utnet.predict import Predictor
from utnet.predict.confidence import kind_of
from utnet.predict.formats.angles import ANGLES, clinical_angles
from utnet.synth import SyntheticHands

SEED, _SIZE_PX = 4_100_003, 256
_ASSET = Path(utnet.__file__).parent / "assets" / "angles.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="make the package's standard errors of it")
    args = parser.parse_args()
    source = SyntheticHands(seed=SEED, size_px=_SIZE_PX, num=args.num, synth=full_appearance(), jitter=False)
    predictors = {method: Predictor(method=method) for method in METHODS}
    errors = defaultdict(list)
    for i in tqdm(range(args.num), unit="hand", disable=None):
        sample = source[i]
        detection = found(predictors["fit"], sample)
        if detection is None:
            continue
        truth = clinical_angles(sample.params.hand_pose, sample.side)
        for method, predictor in predictors.items():
            for depth_m in (None, sample.depth_m):
                (hand,) = predictor.from_detections(sample.rgb, [detection], depth_m, sample.K_px)
                kind = kind_of(method, with_depth=depth_m is not None)
                errors[kind].append(clinical_angles(hand.params.hand_pose, hand.side) - truth)
    kinds = {}
    for kind, rows in errors.items():
        values = np.stack(rows)
        rms, median = np.sqrt((values**2).mean(0)), np.median(np.abs(values), 0)
        kinds[kind] = {
            "rms_deg": np.round(rms, 2).tolist(),
            "median_deg": np.round(median, 2).tolist(),
        }
    num = len(next(iter(errors.values())))
    print(f"{num} of {args.num} hands; median of the absolute error / root mean square, degrees")
    print(f"{'':24s}" + "".join(f"{kind:>16s}" for kind in kinds))
    for k, (name, _, _) in enumerate(ANGLES):
        cells = (f"{row['median_deg'][k]:.1f} / {row['rms_deg'][k]:.1f}" for row in kinds.values())
        print(f"{name:24s}" + "".join(f"{cell:>16s}" for cell in cells))
    result = {"made_by": "benchmarks/angles.py", "seed": SEED, "num": num, "angles": [name for name, _, _ in ANGLES]}
    result["kinds"] = kinds
    print(json.dumps({"benchmark": "angles", **result}))
    if args.write:
        write_json(_ASSET, result)


if __name__ == "__main__":
    main()
