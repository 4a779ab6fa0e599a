"""What makes a small network learn fastest: `python benchmarks/convergence.py --work DIR [--variants a,b] ...`.

Every variant trains from nothing on synthetic hands in full appearance, over the whole sphere of views, until this
process has spent the same CPU time on drawing, reading and training (one thread, no workers, so that other programs on
the machine change nothing but the wait). Then all are scored on the same held-out hands of another seed, cut from the
same pictures. `base`, the untuned ti, is config/config.yaml with `synth.appearance=full` and nothing else; a variant is
`base` with the changes that `VARIANTS` names, a budget of minutes in place of steps.

Results are appended to DIR/results.jsonl one by one, and what stands there is not run again: a run that was cut off
goes on. Prints a table of all rows of the budget, and each new row as a JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import mean

import torch
from real_pictures import distances, make_references
from short_training import HELD_OUT_SEED

from utnet.checkpoint import save_checkpoint
from utnet.config import Config, CropConfig, override
from utnet.data.crop_datasets import CropMaker
from utnet.data.loader import make_loader
from utnet.data.shards.shards_reader import Shards
from utnet.data.shards.write_shards import write_shards
from utnet.data.source import Source
from utnet.data.sources import open_data
from utnet.distributed import Engine
from utnet.evaluation.validation import INPUTS, evaluate
from utnet.geometry import crop_to_px, unproject
from utnet.losses import UTNetLoss
from utnet.metrics import pa_mpjpe_mm
from utnet.model import UTNet
from utnet.synth import SyntheticHands
from utnet.training.ema import EMA
from utnet.training.loop import training_loader
from utnet.training.optimizer import learning_rate, make_optimizer, progress_of
from utnet.training.state import make_model
from utnet.training.step import train_step

_STACK = (
    "data.name=shards",
    "model.size_px=96",
    "crop.expand=1.5",
    "train.batch_size=16",
    "train.warmup_steps=50",
    "train.precision=bf16",
    "loss.w_aux=3.0",
)
_POSE = (*_STACK, "loss.w_hand_pose=0.03", "loss.w_global_orient=0.015")
_LITE = (*_POSE, "model.stem=lite0", "train.init_from=LITE0")
_BEST = (
    *_LITE,
    "train.backbone_lr=0.0",
    "train.batch_size=32",
    "loss.w_hand_pose=0.1",
    "loss.w_global_orient=0.05",
)
_VIT_S = (
    "model.preset=b",
    "model.dim=384",
    "model.num_blocks=12",
    "model.num_heads=6",
    "model.patch_px=14",
    "model.layer_scale=true",
    "model.size_px=98",
    "train.init_from=VIT_S",
)
VARIANTS: dict[str, tuple[str, ...]] = {
    "base": (),
    "size_96": ("model.size_px=96",),
    "size_160": ("model.size_px=160",),
    "expand_1.5": ("crop.expand=1.5",),
    "bf16": ("train.precision=bf16",),
    "shards": ("data.name=shards",),
    "batch_16": ("train.batch_size=16",),
    "batch_64": ("train.batch_size=64",),
    "lr_x3": ("train.lr=3e-3",),
    "lr_third": ("train.lr=3.3e-4",),
    "warmup_50": ("train.warmup_steps=50",),
    "ema": ("train.ema=0.99",),
    "maps_x3": ("loss.w_joint_heat=0.045", "loss.w_joint_map=0.27"),
    "maps_0": ("loss.w_joint_heat=0.0", "loss.w_joint_map=0.0"),
    "pose_x3": ("loss.w_hand_pose=0.03", "loss.w_global_orient=0.015"),
    "pose_0": ("loss.w_hand_pose=0.0", "loss.w_global_orient=0.0"),
    "joints_x3": ("loss.w_3d_joint=0.15", "loss.w_2d=0.03"),
    "aux_3": ("loss.w_aux=3.0",),
    "depth_1": ("model.num_blocks=1",),
    "depth_4": ("model.num_blocks=4",),
    "dim_96": ("model.dim=96",),
    "dim_192": ("model.dim=192",),
    "no_refiner": ("model.refiner=none", "loss.use_aux_loss=false", "loss.w_aux=0.0"),
    "p_drop_0.5": ("model.p_drop=0.5",),
    "plain": ("synth.appearance=plain",),
    "stack": _STACK,
    "stack+fresh": _STACK[1:],
    "stack+lr_x3": (*_STACK, "train.lr=3e-3"),
    "stack+batch_32": (*_STACK, "train.batch_size=32"),
    "stack+maps_x3": (*_STACK, "loss.w_joint_heat=0.045", "loss.w_joint_map=0.27"),
    "stack+maps_0": (*_STACK, "loss.w_joint_heat=0.0", "loss.w_joint_map=0.0"),
    "stack+pose_x3": _POSE,
    "stack+pose_x10": (*_STACK, "loss.w_hand_pose=0.1", "loss.w_global_orient=0.05"),
    "stack+ema": (*_STACK, "train.ema=0.99"),
    "stack+size_128": (*_STACK, "model.size_px=128"),
    "lite0_tuned": (*_LITE, "train.backbone_lr=0.3"),
    "lite0": (*_LITE, "train.backbone_lr=0.0"),
    "lite0+batch_32": (*_LITE, "train.backbone_lr=0.0", "train.batch_size=32"),
    "lite0+batch_32+size_128": (*_LITE, "train.backbone_lr=0.0", "train.batch_size=32", "model.size_px=128"),
    "best": _BEST,
    "vit_s": (*_POSE, *_VIT_S, "train.backbone_lr=0.0"),
}
"""Changes of `base`. `shards`: read from 10,000 hands that were drawn beforehand, which is not counted (102 s of CPU
time, once); `fresh`: drawn on the fly; `lite0`: on ImageNet's features, which are left as they are (`tuned`: at a third
of the rate); `vit_s`: on those of a ViT-S/14. The files of the last two are given by --lite0 and --vit-s."""

_BASE = Path(__file__).parents[1] / "config" / "config.yaml"
_STORED_PX, _NUM_STORED = 224, 10_000


_OTHER = (
    *(
        f"synth.factors.{name}=1.8"
        for name in ("light", "gloss", "exposure", "white_balance", "noise", "jpeg", "rescale")
    ),
    *(f"synth.factors.{name}=1.8" for name in ("held", "occluder", "second_hand", "distractors", "lens_blur")),
)
"""Another appearance than training's: harder light, more things in the way and worse cameras, before photographs where
--backgrounds names a folder of them."""


def configured(variant: str, seed: int, cpu_minutes: float, work: Path, starts: dict[str, str] | None = None) -> Config:
    """The run of a variant; `starts`: a name in `train.init_from` -> the file."""
    budget = ("train.steps=1000000000", f"train.minutes={cpu_minutes}", "train.num_workers=0", "train.num_threads=1")
    changes = VARIANTS[variant]
    for name, path in (starts or {}).items():
        changes = tuple(
            f"train.init_from={path}" if change == f"train.init_from={name}" else change for change in changes
        )
    shards = (f"data.root={work / 'shards'}",) if "data.name=shards" in changes else ()
    return override(Config.load(_BASE), ["synth.appearance=full", f"seed={seed}", *changes, *shards, *budget])


def held_out(work: Path, num: int, name: str = "held_out", changes: tuple[str, ...] = ()) -> Source:
    """Full hands of another seed, drawn once at 224 px in the square of expand 2.0."""
    folder = work / f"{name}_{num}"
    if not folder.exists():
        synth = override(Config(), ["synth.appearance=full", *changes]).synth
        hands = SyntheticHands(seed=HELD_OUT_SEED, size_px=_STORED_PX, num=num, synth=synth, jitter=False)
        write_shards(hands, folder, progress=False)
    return Shards(folder)


def make_shards(work: Path) -> None:
    """Training hands drawn once, in squares wide enough for the loader's jitters."""
    folder = work / "shards"
    if folder.exists():
        return
    started, synth = time.process_time(), override(Config(), ["synth.appearance=full"]).synth
    wide = CropConfig(expand=3.42)  # 131 px of it are a crop at expand 2.0
    write_shards(
        SyntheticHands(seed=0, size_px=_STORED_PX, num=_NUM_STORED, synth=synth, crop=wide, jitter=False),
        folder,
        progress=False,
    )
    print(f"{_NUM_STORED} hands drawn and stored in {time.process_time() - started:.0f} s of CPU time", flush=True)


def fit(config: Config, work: Path) -> tuple[UTNet, EMA | None, dict]:
    """Trains for `config.train.minutes` of this process's CPU time; how far it came.

    What a process does once (painting textures, compiling) comes before the clock starts, with one step's forward and
    backward pass.
    """
    torch.manual_seed(config.seed)
    loader = iter(training_loader(open_data(config.data, config, train=True), config))
    model, _ = make_model(config.model, config.train)
    engine = Engine(model.train(), UTNetLoss.from_config(config.loss), config.train, config.loss)
    optimizer = make_optimizer(model, config.train)
    ema = EMA(model, config.train.ema) if config.train.ema else None
    engine.backward([next(loader)])
    start, step, share, reading = time.process_time(), 0, 0.0, 0.0
    while share < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["lr_scale"] * learning_rate(share, step, config.train)
        began = time.process_time()
        batch = next(loader)
        reading += time.process_time() - began
        train_step(engine, [batch], optimizer)
        step += 1
        if ema is not None:
            ema.update(step)
        share = progress_of(step, time.process_time() - start, config.train)
    seconds = time.process_time() - start
    rate = step * config.train.batch_size / seconds
    return model, ema, {"steps": step, "samples_per_cpu_s": round(rate, 1), "reading": round(reading / seconds, 2)}


@torch.inference_mode()
def map_errors(model: UTNet, source: Source, config: Config) -> dict[str, list[float]]:
    """What the network sees of the joints, apart from how well it turns that into a hand's parameters: of the joints as
    the maps have them the mean 2D error in percent of the crop at expand 2.0, and PA-MPJPE in mm at the wrist's true
    distance."""
    errors: dict[str, list[list[float]]] = {name: [] for name in INPUTS}
    for batch in make_loader(source, CropMaker(config.model.size_px, config.crop), config.train, endless=False):
        truth = batch.joints_3d[..., :3].double()
        for name in INPUTS:
            joints = model.forward_batch(batch, use_depth=name == "rgbd", with_vertices=False).joint_map.double()
            apart = (joints[..., :2] - batch.joints_2d[..., :2]).norm(dim=-1).mean(1) * 100 * config.crop.expand / 2.0
            px = crop_to_px(joints[..., :2], config.model.size_px)
            z = joints[..., 2] + truth[:, :1, 2]
            points = unproject(px.numpy(), z.numpy(), batch.K_px.double().numpy())
            errors[name] += zip(apart.tolist(), pa_mpjpe_mm(points, truth.numpy()).tolist(), strict=True)
    return {name: [round(mean(column), 1) for column in zip(*rows, strict=True)] for name, rows in errors.items()}


def measure(variant: str, seed: int, cpu_minutes: float, sources: dict[str, Source], work: Path, starts: dict) -> dict:
    """Trains and scores one variant: a row of the results."""
    config, source = configured(variant, seed, cpu_minutes, work, starts), sources["held_out"]
    if config.data.name == "shards":
        make_shards(work)
    model, ema, about = fit(config, work)
    model.eval()
    with ema.applied() if ema is not None else nullcontext():
        scores = evaluate(model, source, config.crop, config.train)
        other = evaluate(model, sources["other"], config.crop, config.train)
        real = distances(model, config, work) if (work / "scored").exists() else None
        maps = map_errors(model, source, config) if model.joint_maps is not None else None
        save_checkpoint(work / "networks" / f"{variant}-{seed}-{cpu_minutes:g}", model, config)
    shown = {
        name: [round(scores[name][key], 1) for key in ("mpjpe_mm", "pa_mpjpe_mm")] for name in ("constant", *INPUTS)
    }
    row = {"benchmark": "convergence", "variant": variant, "changes": VARIANTS[variant], "seed": seed}
    row |= {"cpu_minutes": cpu_minutes, "num": len(source), **about, **shown, "maps": maps, "real_percent": real}
    return {**row, "other": {name: [round(other[name][k], 1) for k in ("mpjpe_mm", "pa_mpjpe_mm")] for name in INPUTS}}


def table(rows: list[dict]) -> str:
    """Means over seeds, in the order of `VARIANTS`."""
    heads = f"{'RGB':>15s}{'RGB-D':>15s}{'other, RGB':>15s}{'RGB-D':>15s}{'maps, RGB':>15s}{'RGB-D':>15s}"
    heads += f"{'real [%]':>10s}{'steps':>8s}{'samples/s':>11s}  seeds"
    lines = [f"{'MPJPE / PA [mm]':24s}{heads}  (other: of another appearance; maps: 2D error [%] / PA [mm])"]
    best = rows[0]["constant"]
    lines.append(f"{'best constant hand':24s}{best[0]:8.1f} /{best[1]:5.1f}{best[0]:8.1f} /{best[1]:5.1f}")
    for variant in VARIANTS:
        of = [row for row in rows if row["variant"] == variant]
        if not of:
            continue
        words = f"{variant:24s}"
        columns = [[row[name] for row in of] for name in INPUTS]
        columns += [[row[key][name] for row in of if row.get(key)] for key in ("other", "maps") for name in INPUTS]
        for pairs in columns:
            a, b = (mean(pair[k] for pair in pairs) for k in (0, 1)) if pairs else (0, 0)
            words += f"{a:8.1f} /{b:5.1f}" if pairs else " " * 15
        real = [row["real_percent"]["all"] for row in of if row.get("real_percent")]
        words += f"{mean(real):10.1f}" if real else " " * 10
        steps, rate = (mean(row[key] for row in of) for key in ("steps", "samples_per_cpu_s"))
        lines.append(f"{words}{steps:8.0f}{rate:11.1f}  {','.join(str(row['seed']) for row in of)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of held-out hands, shards and results")
    parser.add_argument("--variants", default="base", help="names with commas between, or all")
    parser.add_argument("--seeds", default="0", help="numbers with commas between")
    parser.add_argument("--cpu-minutes", type=float, default=6.0, help="of drawing and training, a variant")
    parser.add_argument(
        "--lite0", default="", help="file of EfficientNet-Lite0's weights, for the variants lite0 and best"
    )
    parser.add_argument("--vit-s", default="", help="file of a ViT-S/14 in DINOv2's layout, for vit_s")
    parser.add_argument("--backgrounds", default="", help="photographs behind the held-out hands of another appearance")
    parser.add_argument("--pictures", type=Path, help="real pictures, to measure the transfer (real_pictures.py)")
    parser.add_argument("--num", type=int, default=512, help="held-out hands")
    args = parser.parse_args()
    variants = list(VARIANTS) if args.variants == "all" else args.variants.split(",")
    unknown = set(variants) - VARIANTS.keys()
    if unknown:
        parser.error(f"unknown variants {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    results, starts = args.work / "results.jsonl", {"LITE0": args.lite0, "VIT_S": args.vit_s}
    other = (*_OTHER, f"synth.backgrounds={args.backgrounds}")
    sources = {"held_out": held_out(args.work, args.num), "other": held_out(args.work, args.num, "other", other)}
    if args.pictures is not None:
        make_references(args.pictures, args.work)
    lines = results.read_text().splitlines() if results.exists() else []
    same = {"cpu_minutes": args.cpu_minutes, "num": args.num}
    rows = [row for row in map(json.loads, lines) if same.items() <= row.items()]
    done = {(row["variant"], row["seed"]) for row in rows}
    for seed in map(int, args.seeds.split(",")):
        for variant in variants:
            if (variant, seed) in done:
                continue
            row = measure(variant, seed, args.cpu_minutes, sources, args.work, starts)
            with results.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
