"""What the benchmarks of this folder share: a short training on synthetic hands, and held-out hands."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import Config, override
from utnet.data.crop_datasets import CropMaker
from utnet.data.loader import make_loader
from utnet.data.sources import open_data
from utnet.losses import UTNetLoss
from utnet.model import UTNet
from utnet.training.loop import train, training_loader
from utnet.training.optimizer import learning_rate, make_optimizer, progress_of
from utnet.types import Batch, Prediction

HELD_OUT_SEED = 2_000_003
"""Far from training's seed and from its validation's."""

_DEMO = Path(__file__).parents[1] / "config" / "demo.yaml"
_HEADS = ("loss.w_root_z=0.3", "model.uncertainty=true", "loss.w_uncertainty=0.002")
_ONE_CORE = ("train.num_workers=0", "train.num_threads=1", "train.eval_every=1000000", "val={name: synth, limit: 128}")


def arguments(description: str | None) -> argparse.Namespace:
    """What the scripts take from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--weights", help="a checkpoint of config/demo.yaml with both heads; default: train one")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training, on one core")
    parser.add_argument("--num", type=int, default=1024, help="held-out hands")
    parser.add_argument("--out", help="folder of the run; default: a temporary one")
    return parser.parse_args()


def trained(args: argparse.Namespace) -> tuple[UTNet, Config, dict]:
    """The network of `args.weights`, or preset ti trained as the demo is, with both heads; and how long it trained."""
    if args.weights:
        model, config = load_checkpoint(args.weights)
        return model, config, {}
    config = override(Config.load(_DEMO), [*_HEADS, *_ONE_CORE, f"train.minutes={args.minutes}"])
    with tempfile.TemporaryDirectory() as folder:
        workdir = Path(args.out or folder) / "run"
        result = train(config, workdir, progress=False)
        model, config = load_checkpoint(workdir / "last")
        about = {"steps": result["step"], "minutes": round(result["seconds"] / 60, 1)}
        about["calibration_steps"] = calibrate(model, config, minutes=args.minutes / 4)
        save_checkpoint(workdir / "calibrated", model, config)
    return model, config, about


def calibrate(model: UTNet, config: Config, *, minutes: float) -> int:
    """The scale head learns on with the pose at rest, on fresh hands in crops as they are evaluated; returns the steps.

    In a short training the pose gets better to its last step, and what the head states is still that of a while ago:
    too large by a twentieth.
    """
    model.requires_grad_(False)
    model.scale_head.requires_grad_(True)
    changes = [f"train.minutes={minutes}", "train.warmup_steps=10", f"seed={config.seed + 1}"]
    changes += [f"crop.{name}=0.0" for name in ("scale_jitter", "shift_jitter", "rotation_jitter_deg")]  # as it is used
    return fit(model, override(config, changes))


def fit(model: UTNet, config: Config) -> int:
    """Trains a network that is there already, for `config.train.minutes`; returns the steps. It ends in eval mode."""
    loader = training_loader(open_data(config.data, config, train=True), config)
    loss_function, optimizer = UTNetLoss.from_config(config.loss), make_optimizer(model.train(), config.train)
    start, step, share = time.monotonic(), 0, 0.0
    for batch in loader:
        for group in optimizer.param_groups:
            group["lr"] = group["lr_scale"] * learning_rate(share, step, config.train)
        optimizer.zero_grad(set_to_none=True)
        loss_function(model.forward_batch(batch, with_vertices=False), batch)["total_loss"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_grad * len(batch))
        optimizer.step()
        step += 1
        share = progress_of(step, time.monotonic() - start, config.train)
        if share >= 1:
            break
    model.eval()
    return step


def predictions(model: UTNet, source, config: Config, *, use_depth: bool) -> Iterator[tuple[Batch, Prediction]]:
    """Every batch of a held-out source and what the network says of it."""
    for batch in make_loader(source, CropMaker(config.model.size_px, config.crop), config.train, endless=False):
        with torch.inference_mode():
            yield batch, model.forward_batch(batch, use_depth=use_depth)


def root_relative_error_mm(prediction: Prediction, batch: Batch) -> Tensor:
    """(B, 21) lengths of the errors relative to the wrist."""
    joints, truth = prediction.joints_m, batch.joints_3d[..., :3]
    return ((joints - joints[:, :1]) - (truth - truth[:, :1])).norm(dim=-1) * 1000
