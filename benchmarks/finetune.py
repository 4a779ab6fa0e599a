"""Fine-tuning of the shipped network on 200 drawn hands of a new appearance: what is gained, and what is forgotten.

    python benchmarks/finetune.py --out build/finetune      (make test-finetune; about five CPU minutes)

The hands are drawn in full appearance and shown as an infrared camera would: grey, inverted, blurred, of low contrast
and noisy. 65 % are for training, 15 % for validation, 20 % (whole recordings, too) for the scores below. Exit code 1
unless the hands of the new appearance get better by a tenth and those of the old kind worse by less than that.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from utnet.checkpoint import load_checkpoint
from utnet.cli.main import main as utnet
from utnet.config import SynthConfig
from utnet.data import open_source
from utnet.evaluation.validation import evaluate
from utnet.synth import SyntheticHands

RECORDING = 10
"""Hands of a recording."""


def infrared(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 as another camera shows it."""
    grey = 255 - cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
    grey = 90 + 0.45 * (cv2.GaussianBlur(grey, (0, 0), 1.2) - 128) + rng.normal(0, 8, grey.shape)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, -1)


def write_hands(folder: Path, num: int, seed: int) -> None:
    """Writes `num` hands with camera and joints, in recordings, in the format of own data."""
    folder.mkdir(parents=True)
    hands = SyntheticHands(seed=seed, size_px=160, num=num, synth=SynthConfig(appearance="full"))
    rng, lines = np.random.default_rng(seed), []
    for i in range(num):
        sample = hands[i]
        cv2.imwrite(str(folder / f"{i:03d}.png"), infrared(sample.rgb, rng)[..., ::-1])
        line = {"image": f"{i:03d}.png", "side": "right", "K": sample.K_px.tolist()}
        share = i / num
        line |= {"joints_3d": sample.joints_cam_m.tolist(), "sequence": f"take{i // RECORDING}"}
        lines.append(json.dumps(line | {"split": "train" if share < 0.65 else "val" if share < 0.8 else "test"}) + "\n")
    (folder / "hands.jsonl").write_text("".join(lines), encoding="utf-8")


def scores(network: str, folder: Path, split: str) -> dict[str, float]:
    """RGB scores of a network on a split."""
    model, config = load_checkpoint(network)
    config = replace(config, train=replace(config.train, num_workers=0, batch_size=32))
    source = open_source("custom", folder, split=split)
    return evaluate(model, source, config.crop, config.train, inputs=("rgb",))["rgb"]


def run(out: Path, *, num: int, seed: int, changes: list[str]) -> list[dict]:
    """Draws, fine-tunes and scores; rows {"data", "before", "after"} of MPJPE and PA-MPJPE."""
    hands, start = out / "hands", time.process_time()
    write_hands(hands, num, seed)
    drawn = time.process_time()
    utnet(
        ["train", "finetune", "--out", str(out / "run"), "--set", f"data.root={hands}", "train.num_workers=0", *changes]
    )
    print(f"CPU time: drawing {drawn - start:.0f} s, fine-tuning with scores {time.process_time() - drawn:.0f} s")
    best = str(out / "run" / "best")
    rows = [
        {"data": f"new, {split}", "before": scores("ti", hands, split), "after": scores(best, hands, split)}
        for split in ("train", "test")
    ]
    replayed = json.loads((out / "run" / "run.json").read_text(encoding="utf-8"))["before_after"][1]
    return rows + [
        {"data": f"old, {kind}", "before": replayed["before"][kind], "after": replayed["after"][kind]}
        for kind in ("rgb", "rgbd")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--num", type=int, default=200)
    parser.add_argument("--seed", type=int, default=4_100_003)
    parser.add_argument("--set", nargs="*", default=[], help="changed keys of the config finetune")
    args = parser.parse_args()
    rows = run(args.out, num=args.num, seed=args.seed, changes=args.set)
    print("| hands | MPJPE before | after | PA before | after |\n|---|---:|---:|---:|---:|")
    for row in rows:
        cells = [row[when][name] for name in ("mpjpe_mm", "pa_mpjpe_mm") for when in ("before", "after")]
        print(f"| {row['data']} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    (_, test, *old) = [row["after"]["mpjpe_mm"] / row["before"]["mpjpe_mm"] for row in rows]
    sys.exit(0 if test < 0.9 and max(old) < 1.1 else 1)


if __name__ == "__main__":
    main()
