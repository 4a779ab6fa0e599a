"""What prompts do to a network: `python benchmarks/prompts.py RUN/best [--appearance plain]`.

Drawn hands, by default in full appearance, that no training saw, cut round their true boxes. RGB and RGB-D, each with

    none       no landmarks
    detector   21 landmarks with the detector's measured errors (utnet.detect.residuals)
    flat       the same without relative 3D, as another program's
    wrong      the same, 30 % of them moved by half a box
    clicks     the three joints that are farthest off in the picture without landmarks, put where they belong

MPJPE and PA-MPJPE in mm, joints in the picture in percent of the box; for "clicks" also of the worst quarter of the
hands (in the picture, without landmarks). With `model.uncertainty` the share of joints within the stated 50 % and 90 %
intervals, and the correlation of the stated and the true mean error. Prints a table and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from utnet.checkpoint import load_checkpoint
from utnet.config import Config, PromptConfig, SynthConfig
from utnet.data.collate import collate
from utnet.data.prompts import PromptNoise
from utnet.detect.residuals import DetectorResiduals
from utnet.metrics import mpjpe_mm, pa_mpjpe_mm
from utnet.model import UTNet
from utnet.synth import SyntheticHands
from utnet.types import Batch, Prediction
from utnet.uncertainty import interval_mm

_BATCH = 32
_PLAIN = PromptConfig(drop_p=0, clicks_p=0, wrong_p=0, flat_p=0, drop_joint_p=0)


def batches(config: Config, seed: int, num: int, appearance: str) -> list[Batch]:
    """Held-out hands; `landmarks` are the detector's."""
    synth = SynthConfig(appearance=appearance)
    source = SyntheticHands(seed=seed, size_px=config.model.size_px, synth=synth, crop=config.crop, jitter=False)
    noise = PromptNoise(_PLAIN, DetectorResiduals.load().observe)
    result = []
    for first in range(0, num, _BATCH):
        samples = [source[i] for i in range(first, min(first + _BATCH, num))]
        prompts = [noise(sample, np.random.default_rng((seed, first + i))) for i, sample in enumerate(samples)]
        result.append(collate([replace(s, landmarks=p) for s, p in zip(samples, prompts, strict=True)]))
    return result


def boxes_of(batch: Batch) -> torch.Tensor:
    """(B, 1) longer side of the box of the true joints, crop widths."""
    points = batch.joints_2d[..., :2]
    return (points.amax(1) - points.amin(1)).amax(1, keepdim=True)


def moved(batch: Batch, rng: np.random.Generator) -> torch.Tensor:
    """30 % of each hand's landmarks moved by half a box in any direction."""
    landmarks = batch.landmarks.clone()
    angle = torch.from_numpy(rng.uniform(0, 2 * np.pi, landmarks.shape[:2])).float()
    by = 0.5 * boxes_of(batch)[..., None] * torch.stack([angle.cos(), angle.sin()], -1)
    wrong = torch.from_numpy(rng.random(landmarks.shape[:2]) < 0.3)
    landmarks[..., :2] += torch.where(wrong[..., None], by, 0.0)
    return landmarks


def clicked(batch: Batch, out: Prediction) -> torch.Tensor:
    """The true places of the three joints that are farthest off in the picture, and nothing else."""
    off = (out.joints_crop - batch.joints_2d[..., :2]).norm(dim=-1)
    chosen = off.topk(3, dim=1).indices[..., None]
    landmarks = torch.zeros_like(batch.landmarks)
    truth = torch.cat([batch.joints_2d[..., :2], torch.full_like(landmarks[..., :3], torch.nan)], -1)
    truth = torch.cat([truth, torch.ones_like(landmarks[..., :1])], -1)
    return landmarks.scatter(1, chosen.expand(-1, -1, 6), truth.gather(1, chosen.expand(-1, -1, 6)))


def errors(batch: Batch, out: Prediction) -> np.ndarray:
    """(B, 3): MPJPE mm, PA-MPJPE mm, percent of the box."""
    truth = batch.joints_3d[..., :3].double()
    pair = out.joints_m.double(), truth
    percent = 100 * ((out.joints_crop - batch.joints_2d[..., :2]).norm(dim=-1) / boxes_of(batch)).mean(1)
    return np.stack([mpjpe_mm(*pair), pa_mpjpe_mm(*pair), percent.double().numpy()], 1)


def doubt(batch: Batch, out: Prediction) -> np.ndarray:
    """(B, 20, 4) stated mean, true error, within the 50 % interval, within the 90 % interval."""
    truth = batch.joints_3d[..., :3]
    off = 1e3 * ((out.joints_m - out.joints_m[:, :1]) - (truth - truth[:, :1])).norm(dim=-1)
    within = [(off <= interval_mm(out, share)).float() for share in (0.5, 0.9)]
    return torch.stack([out.joint_scale_mm, off, *within], -1)[:, 1:].numpy()


def run(model: UTNet, held_out: list[Batch], use_depth: bool, rng: np.random.Generator) -> dict[str, dict]:
    """Rows of one kind of input."""
    values: dict[str, list[np.ndarray]] = {}
    stated: dict[str, list[np.ndarray]] = {}
    for batch in held_out:

        def predict(landmarks: torch.Tensor | None, batch: Batch = batch) -> Prediction:
            with torch.inference_mode():
                return model.forward_batch(replace(batch, landmarks=landmarks), use_depth=use_depth)

        plain = predict(None)
        kinds = {"none": None}
        if model.prompts is not None:
            flat = batch.landmarks.clone()
            flat[..., 2:5] = torch.nan
            kinds |= {"detector": batch.landmarks, "flat": flat, "wrong": moved(batch, rng)}
            kinds["clicks"] = clicked(batch, plain)
        for name, landmarks in kinds.items():
            out = plain if landmarks is None else predict(landmarks)
            values.setdefault(name, []).append(errors(batch, out))
            if out.joint_scale_mm is not None:
                stated.setdefault(name, []).append(doubt(batch, out))
    rows = {}
    worst = None
    for name, parts in values.items():
        table = np.concatenate(parts)
        worst = table[:, 2] >= np.quantile(table[:, 2], 0.75) if worst is None else worst
        row = dict(zip(("mpjpe_mm", "pa_mpjpe_mm", "percent"), table.mean(0).tolist(), strict=True))
        row |= {"worst_mpjpe_mm": float(table[worst, 0].mean()), "worst_percent": float(table[worst, 2].mean())}
        if name in stated:
            mean, off, half, most = np.moveaxis(np.concatenate(stated[name]), -1, 0)
            row |= {"in_50": float(half.mean()), "in_90": float(most.mean())}
            row["correlation"] = float(np.corrcoef(mean.mean(1), off.mean(1))[0, 1])
        rows[name] = {key: round(value, 3) for key, value in row.items()}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seed", type=int, default=4_100_003)
    parser.add_argument("--num", type=int, default=512)
    parser.add_argument("--appearance", choices=("full", "plain"), default="full")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, config = load_checkpoint(args.weights)
    held_out = batches(config, args.seed, args.num, args.appearance)
    result = {}
    print(
        f"{args.num} hands       MPJPE   PA [mm]  picture [%]  worst quarter [mm] [%]   within 50 %, 90 %, correlation"
    )
    for kind in ("rgb", "rgbd"):
        for name, row in run(model, held_out, kind == "rgbd", np.random.default_rng(args.seed)).items():
            line = f"{kind} {name:12s}{row['mpjpe_mm']:11.1f}{row['pa_mpjpe_mm']:10.1f}{row['percent']:13.1f}"
            line += f"{row['worst_mpjpe_mm']:14.1f}{row['worst_percent']:10.1f}"
            doubts = [f"{row[key]:8.2f}" for key in ("in_50", "in_90", "correlation") if key in row]
            print(line + "      " + "".join(doubts))
            result[f"{kind} {name}"] = row
    print(
        json.dumps(
            {
                "benchmark": "prompts",
                "weights": str(args.weights),
                "num": args.num,
                "appearance": args.appearance,
                "rows": result,
            }
        )
    )


if __name__ == "__main__":
    main()
