"""The training loop, to be read from top to bottom: `train(config, workdir)`."""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utnet.checkpoint import pick_device, run_info, save_checkpoint
from utnet.config import Config, to_tree
from utnet.data.loader import make_loader
from utnet.errors import InputError
from utnet.evaluate import INPUTS, evaluate, scorable_inputs
from utnet.losses import UTNetLoss
from utnet.model import UTNet
from utnet.sources import fingerprint, open_data, open_validation
from utnet.starting_weights import load_backbone
from utnet.storage import write_json
from utnet.types import Batch, Prediction

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"

LossFunction = Callable[[Prediction, Batch], dict[str, Tensor]]


def train(
    config: Config, workdir: str | Path, *, loss_function: LossFunction | None = None, progress: bool = True
) -> dict:
    """Trains a network.

    Args:
        config: the whole run.
        workdir: a new folder; it gets config.yaml, run.json, metrics.csv, TensorBoard events, last/ and best/.
        loss_function: (Prediction, Batch) -> terms with "total_loss"; default `UTNetLoss` of the config.
        progress: show a bar.

    Returns:
        {"step", "seconds", "metrics", "best"}: the last and the best validation scores (see `evaluate`).

    Raises:
        InputError: the folder holds a run already, or the data cannot be read.
        FloatingPointError: a loss that is not finite; the batch's keys are in bad_batch.json.
    """
    workdir = Path(workdir)
    if (workdir / "last").exists():  # a run that ended before its first checkpoint is no loss
        raise InputError(f"{workdir}: holds a run already; give another folder or remove it")
    device = pick_device(config.device)
    if config.train.num_threads:
        torch.set_num_threads(config.train.num_threads)
    torch.manual_seed(config.seed)
    validation = open_validation(config)  # opened first: bad input must show before anything is written
    inputs = scorable_inputs(validation)
    source = open_data(config.data, config, train=True)
    loader = make_loader(source, config, train=True)
    model, init = UTNet(config.model), None
    if config.train.init_from:
        init = load_backbone(model, config.train.init_from, kind=config.train.init_kind)
        print(init)
    model = model.to(device).train()
    loss_function = loss_function or UTNetLoss.from_config(config.loss)
    optimiser = make_optimiser(model, config)

    workdir.mkdir(parents=True, exist_ok=True)
    config.save(workdir / "config.yaml")
    about = {**run_info(), "config": to_tree(config), "data": fingerprint(source), "val": fingerprint(validation)}
    if init is not None:
        about["init"] = str(init).splitlines()
    write_json(workdir / "run.json", about)
    start, lowest, scores, best, seen = time.monotonic(), math.inf, {}, {}, 0
    stream, step, share, recent = iter(loader), 0, 0.0, []
    # Per cent of the run, because it may end by time as well as by steps.
    bar = tqdm(total=100.0, desc="train", bar_format=_BAR, disable=not progress)
    with bar, closing(_Log(workdir)) as log:  # an error, too, then starts on a line of its own
        while share < 1:  # looked at once a step, so that the step that ends the run is known to be the last
            lr = learning_rate(share, step, config)
            for group in optimiser.param_groups:
                group["lr"] = lr
            batch = next(stream).to(device)
            terms = train_step(model, batch, optimiser, loss_function, config, workdir)
            recent.append(terms)
            step, seen = step + 1, seen + len(batch)
            share = progress_of(step, time.monotonic() - start, config)
            bar.update(min(100.0, 100 * share) - bar.n)
            last = share >= 1
            if step % config.train.log_every == 0 or last:
                seconds = time.monotonic() - start
                means = {name: sum(terms[name] for terms in recent) / len(recent) for name in terms}
                recent.clear()
                log.write(
                    "train", {"step": step, "seconds": seconds, "lr": lr, "samples_per_s": seen / seconds, **means}
                )
                loss = means["total_loss"] / (len(batch) if config.loss.reduction == "sum" else 1)
                bar.set_postfix({"step": step, "loss": f"{loss:.4f}", "samples/s": f"{seen / seconds:.0f}"})
            if step % config.train.eval_every == 0 or last:
                scores = evaluate(model, validation, config, inputs=inputs)
                log.write("val", {"step": step, "seconds": time.monotonic() - start, **_flat(scores)})
                save_checkpoint(workdir / "last", model, config, step=step, metrics=scores)
                if selection_score(scores) < lowest:
                    lowest, best = selection_score(scores), scores
                    save_checkpoint(workdir / "best", model, config, step=step, metrics=scores)
    result = {"step": step, "seconds": time.monotonic() - start, "metrics": scores, "best": best}
    write_json(workdir / "run.json", {**about, **result, "bad_samples": loader.bad})
    return result


def train_step(
    model: UTNet,
    batch: Batch,
    optimiser: torch.optim.Optimizer,
    loss_function: LossFunction,
    config: Config,
    workdir: Path,
) -> dict[str, float]:
    """One update; returns every loss term as a number."""
    device = batch.rgb.device.type
    wants_vertices = config.loss.use_vertex_loss
    if wants_vertices:
        with torch.no_grad():
            batch = replace(batch, vertices_m=model.hand.decode(batch.params).vertices_m)
    with torch.autocast(device, torch.bfloat16, enabled=config.train.precision == "bf16"):
        prediction = model.forward_batch(batch, with_vertices=wants_vertices)
    terms = loss_function(prediction, batch)
    total = terms["total_loss"]
    if not torch.isfinite(total):
        write_json(
            workdir / "bad_batch.json",
            {"keys": list(batch.keys), "terms": {k: float(v.detach()) for k, v in terms.items()}},
        )
        raise FloatingPointError(
            f"the loss is {float(total.detach())}; the samples' keys are in {workdir / 'bad_batch.json'}"
        )
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    if config.train.clip_grad > 0:
        # Summed losses grow with the batch, and so does the norm that is still ordinary.
        scale = len(batch) if config.loss.reduction == "sum" else 1
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.train.clip_grad * scale)
    optimiser.step()
    return {name: float(value.detach()) for name, value in terms.items()}


def make_optimiser(model: UTNet, config: Config) -> torch.optim.AdamW:
    """AdamW; biases, norms and embeddings of one axis are not decayed."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.train.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.train.lr, betas=(0.9, 0.99), fused=True)


def progress_of(step: int, seconds: float, config: Config) -> float:
    """Share of the run that is done, by steps or by time, whichever is farther."""
    by_time = seconds / (60 * config.train.minutes) if config.train.minutes else 0.0
    return max(step / config.train.steps, by_time)


def learning_rate(share: float, step: int, config: Config) -> float:
    """Linear warm-up by steps, then a half cosine over the share of the run that is done."""
    train = config.train
    warm = min(1.0, (step + 1) / max(1, train.warmup_steps))
    return train.min_lr + (train.lr - train.min_lr) * warm * 0.5 * (1 + math.cos(math.pi * share))


def selection_score(scores: dict) -> float:
    """(MPJPE + PA-MPJPE) / 2 in mm, the mean over the inputs that were scored: lower is better."""
    inputs = [scores[name] for name in INPUTS if name in scores]
    return sum(s["mpjpe_mm"] + s["pa_mpjpe_mm"] for s in inputs) / (2 * len(inputs))


def _flat(scores: dict) -> dict[str, float]:
    """{"rgb": {"mpjpe_mm": 1}} -> {"rgb/mpjpe_mm": 1}; only what was scored, not the reference."""
    return {f"{name}/{key}": value for name in INPUTS if name in scores for key, value in scores[name].items()}


class _Log:
    """TensorBoard events, and metrics.csv with a row (step, split, name, value) a number."""

    def __init__(self, workdir: Path):
        self._file = (workdir / "metrics.csv").open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file)
        self._rows.writerow(["step", "seconds", "split", "name", "value"])
        self._board = SummaryWriter(workdir)

    def write(self, split: str, row: dict) -> None:
        step, seconds = row["step"], row["seconds"]
        for name, value in row.items():
            if name not in ("step", "seconds"):
                self._rows.writerow([step, f"{seconds:.2f}", split, name, f"{value:.6g}"])
                self._board.add_scalar(f"{split}/{name}", value, step)
        self._file.flush()

    def close(self) -> None:
        self._file.close()
        self._board.close()
