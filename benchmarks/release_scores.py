"""What a network that is to ship is worth, and for whom: `python benchmarks/release_scores.py --work DIR WEIGHTS...`.

WEIGHTS are checkpoints, or names of networks that ship. They are scored on held-out synthetic hands in full appearance,
the whole sphere of views, of a seed that nothing else uses, drawn once into DIR: errors of joints relative to the wrist
(MPJPE), after the best similarity (PA-MPJPE) and of vertices relative to the wrist (PVE), for RGB and RGB-D, with 95 %
bootstrap intervals over hands, beside the best constant hand. The same for parts of the set:

- tone: classes of the skin's individual typology angle (Chardon et al. 1991; Del Bino and Bernerd 2013) of the albedo
  that the hand's melanin and blood give without light;
- view: the angle between the palm's normal and the line to the camera, below 60 degrees, above 120 or between;
- hidden: the share of the hand's pixels behind something else (what is held, a thing in front, a second hand, cloth,
  its own arm), from the scene's exact depth beside that of the hand alone. Crops hold the whole hand, so the picture's
  border hides nothing.

A network trained with prompts is scored a second time with a detector's landmarks, simulated with its measured errors.

Prints a table and one JSON line for each network; tools/release_weights.py makes the model card of that line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import hashlib
import json
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from utnet.checkpoint import WEIGHTS, find_checkpoint, load_checkpoint, name_checkpoint
from utnet.config import Config, SynthConfig, override
from utnet.data.prompts import DETECTOR_CONFIDENCE, prompts_of_landmarks
from utnet.data.shards.shards_reader import Shards
from utnet.data.shards.write_shards import write_shards
from utnet.detect.residuals import DetectorResiduals
from utnet.evaluation.crops import stack_params
from utnet.evaluation.protocol import Protocol
from utnet.evaluation.rows import Row
from utnet.evaluation.scoring import score_source
from utnet.evaluation.summary import interval_ends
from utnet.evaluation.validation import INPUTS, constant_hand
from utnet.geometry import project
from utnet.hand import HandModel
from utnet.io.atomic import atomic_file
from utnet.model import UTNet
from utnet.render.raster import rasterize
from utnet.synth import SyntheticHands
from utnet.synth.full import _STREAMS
from utnet.synth.skin import sample_skin, skin_albedo
from utnet.synth.source import _LOOK
from utnet.types import Batch, Prediction, Sample

SEED = 3_000_017
"""Far from the seeds of training, of validation and of the other benchmarks' held-out hands."""
METRICS = ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm")
PARTS: dict[str, dict[str, tuple[float, float]]] = {
    "tone": {
        "very light": (55.0, 180.0),
        "light": (41.0, 55.0),
        "intermediate": (28.0, 41.0),
        "tan": (10.0, 28.0),
        "brown": (-30.0, 10.0),
        "dark": (-180.0, -30.0),
    },
    "view": {"palm": (0.0, 60.0), "side": (60.0, 120.0), "back": (120.0, 181.0)},
    "hidden": {
        "under 5 %": (0.0, 5.0),
        "5 to 20 %": (5.0, 20.0),
        "20 to 40 %": (20.0, 40.0),
        "over 40 %": (40.0, 101.0),
    },
}
"""Half-open ranges: typology angle and view in degrees, hidden share in percent."""

_SIZE_PX, _MASK_PX = 320, 128
_SAME_M = 0.003  # depth is in whole millimetres
_EXACT = ("depth_noise", "depth_steps", "depth_edges", "depth_holes", "depth_patches", "depth_missing")
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])  # of linear sRGB
_WHITE = np.array([0.9505, 1.0, 1.089])  # D65


def full_appearance() -> SynthConfig:
    return override(Config(), ["synth.appearance=full"]).synth


def typology_deg(albedo: np.ndarray) -> float:
    """Individual typology angle, atan2(L* - 50, b*) of CIELAB, of a linear albedo (3,)."""
    xyz = _XYZ @ albedo / _WHITE
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    return float(np.degrees(np.arctan2(116 * f[1] - 16 - 50, 200 * (f[1] - f[2]))))


def melanin_and_blood(synth: SynthConfig, seed: int, index: int) -> tuple[float, float]:
    """Of the hand `SyntheticHands(seed, synth)[index]`, from the stream that it draws its skin from."""
    rng = np.random.default_rng((seed, index, _LOOK, _STREAMS.index("skin")))
    return sample_skin(rng, synth.factors.skin_tone)


def view_deg(sample: Sample) -> float:
    """Angle between the palm's normal and the line from the hand to the camera."""
    assert sample.params is not None
    palm, middle = -sample.params.global_orient[0][:, 1], sample.joints_cam_m.mean(0)
    return float(np.degrees(np.arccos(np.clip(palm @ -middle / np.linalg.norm(middle), -1, 1))))


def hidden_percent(sample: Sample, hand: HandModel) -> float:
    """Share of the hand's pixels before which something else is; the sample's depth is exact."""
    assert sample.params is not None
    assert sample.K_px is not None
    assert sample.depth_m is not None
    mesh = hand.decode(stack_params([sample.params])).vertices_m[0].numpy() + sample.params.transl_m
    alone = rasterize(mesh, hand.faces.numpy(), sample.K_px, sample.rgb.shape[1::-1])
    nearer = sample.depth_m < alone.depth_m - _SAME_M
    return float(100 * nearer[alone.mask].mean())


def factors_of(synth: SynthConfig, seed: int, num: int) -> dict[str, np.ndarray]:
    """(N,) numbers of each hand by the names of `PARTS`.

    Factors have streams of their own, so the same hands among the same things are drawn again small, with exact depth.
    """
    exact = replace(synth, depth_noise_m=0.0, factors=replace(synth.factors, **dict.fromkeys(_EXACT, 0.0)))
    hands = SyntheticHands(seed=seed, size_px=_MASK_PX, num=num, synth=exact, jitter=False)
    hand, rows = HandModel.open(), []
    for index in range(num):
        sample = hands[index]
        tone = typology_deg(skin_albedo(*melanin_and_blood(synth, seed, index)))
        rows.append((tone, view_deg(sample), hidden_percent(sample, hand)))
    return dict(zip(PARTS, np.array(rows).T, strict=True))


def held_out(work: Path, num: int) -> tuple[Shards, dict[str, np.ndarray]]:
    """The hands and their factors, drawn where DIR does not hold them yet."""
    folder, table = work / f"release_{SEED}_{num}", work / f"release_{SEED}_{num}.npz"
    synth = full_appearance()
    if not folder.exists():
        hands = SyntheticHands(seed=SEED, size_px=_SIZE_PX, num=num, synth=synth, jitter=False)
        write_shards(hands, folder, progress=False)
    if not table.exists():
        drawn = factors_of(synth, SEED, num)
        with atomic_file(table) as temporary, temporary.open("wb") as file:
            np.savez(file, **drawn)  # type: ignore[arg-type]
    with np.load(table) as loaded:
        return Shards(folder), {name: loaded[name] for name in PARTS}


def means(row: Row, which: np.ndarray) -> dict[str, list[float]]:
    """Mean and ends of its 95 % interval of each metric over some hands; every hand is drawn by itself."""
    values = np.stack([row.metrics[name][which] for name in METRICS], 1)
    ends = interval_ends(values, np.arange(len(values)))
    rows = zip(METRICS, values.mean(0), ends, strict=True)
    return {
        name: [round(float(x), 2) for x in (mean, *(mean if end is None else end for end in pair))]
        for name, mean, pair in rows
    }


class WithLandmarks(nn.Module):
    """A network that is given landmarks with the detector's measured errors, the same for RGB and RGB-D."""

    def __init__(self, model: UTNet):
        super().__init__()
        self.model, self.hand, self._observe = model, model.hand, DetectorResiduals.load().observe

    def forward_batch(self, batch: Batch, **given: bool) -> Prediction:
        size, landmarks = batch.rgb.shape[-1], []
        for key, joints, K in zip(batch.keys, batch.joints_3d[..., :3].double(), batch.K_px.double(), strict=True):
            rng = np.random.default_rng((SEED, zlib.crc32(key.encode())))
            rays, relative, presence = self._observe(rng, joints[None].numpy())
            confidence = DETECTOR_CONFIDENCE * float(presence[0])
            landmarks.append(prompts_of_landmarks(project(rays[0], K.numpy()), size, relative[0], confidence))
        return self.model.forward_batch(replace(batch, landmarks=torch.tensor(np.stack(landmarks)).float()), **given)


def scores(weights: str, source: Shards, factors: dict[str, np.ndarray]) -> dict:
    """Everything that is reported of a network."""
    model, config = load_checkpoint(weights)
    result = {
        "benchmark": "release_scores",
        "weights": name_checkpoint(weights),
        "sha256": hashlib.sha256((find_checkpoint(weights) / WEIGHTS).read_bytes()).hexdigest(),
        "seed": SEED,
        **_scores(model, config, source, factors),
    }
    if model.prompts is not None:
        result["prompted"] = _scores(WithLandmarks(model), config, source, factors)
    return result


def _scores(model: nn.Module, config: Config, source: Shards, factors: dict[str, np.ndarray]) -> dict:
    """Scores over all hands and over parts of them."""
    config = replace(config, train=replace(config.train, num_workers=0, batch_size=32))
    run = score_source(
        model, source, config.crop, config.train, protocols=[Protocol(depth=name == "rgbd") for name in INPUTS]
    )
    rows, truth = dict(zip(INPUTS, run.rows, strict=True)), torch.from_numpy(run.gt_m)

    def of(which: np.ndarray) -> dict:
        best = constant_hand(truth[torch.from_numpy(which)])
        constant = {name: [round(best[name], 2)] for name in METRICS[:2]}
        return {"num": int(which.sum()), "constant": constant, **{name: means(rows[name], which) for name in INPUTS}}

    parts = {
        part: {
            name: of(inside)
            for name, (low, high) in ranges.items()
            if (inside := _inside(factors[part], low, high)).any()
        }
        for part, ranges in PARTS.items()
    }
    return {"all": of(np.ones(len(source), bool)), "parts": parts}


def _inside(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return (values >= low) & (values < high)


def table(result: dict) -> str:
    """The scores with their intervals; a part's constant hand is the best for that part."""
    heads = "".join(f"{f'{text} {name}':>24s}" for text in ("RGB", "RGB-D") for name in ("MPJPE", "PA-MPJPE", "PVE"))
    lines = [f"{result['weights']}: mm, with 95 % intervals", f"{'':22s}{'hands':>6s}{'constant':>14s}{heads}"]
    for title, part in (("", result), ("with the detector's landmarks", result.get("prompted"))):
        if part is not None:
            lines += [title] * bool(title) + _lines(part)
    return "\n".join(lines)


def _lines(result: dict) -> list[str]:
    named = {"all": result["all"]}
    named |= {f"{part} {name}": row for part, rows in result["parts"].items() for name, row in rows.items()}
    lines = []
    for name, row in named.items():
        constant = " / ".join(f"{row['constant'][metric][0]:.1f}" for metric in METRICS[:2])
        cells = [row[key][metric] for key in INPUTS for metric in METRICS]
        text = "".join(f"{f'{mean:.1f} ({low:.1f} to {high:.1f})':>24s}" for mean, low, high in cells)
        lines.append(f"{name:22s}{row['num']:6d}{constant:>14s}{text}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="+", help="checkpoints, or names of networks that ship")
    parser.add_argument("--work", type=Path, required=True, help="folder for the held-out hands")
    parser.add_argument("--num", type=int, default=1024, help="held-out hands")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    source, factors = held_out(args.work, args.num)
    for weights in args.weights:
        result = scores(weights, source, factors)
        print(table(result))
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
