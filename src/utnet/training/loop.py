"""The training loop, to be read from top to bottom: `train(config, workdir)`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from signal import SIGINT, SIGTERM

import torch
from tqdm import tqdm

from utnet.checkpoint import load_checkpoint, pick_device, recover_interrupted_save, run_info, save_checkpoint
from utnet.config import Config, to_tree
from utnet.data.extras import Extras
from utnet.data.inspection.check import refuse_wrong_labels
from utnet.data.loader import Loader, make_loader
from utnet.data.source import Source
from utnet.data.sources import check_apart, describe, fingerprint, moved_data, open_training, open_validation
from utnet.distributed import (
    Engine,
    LossFunction,
    ProcessInfo,
    is_restart,
    job_id,
    process_device,
    process_group,
    summed_terms,
)
from utnet.errors import InputError
from utnet.evaluation.validation import INPUTS, evaluate, scorable_inputs
from utnet.io.atomic import write_json
from utnet.losses import UTNetLoss
from utnet.model import UTNet
from utnet.signals import InterruptHandler, TrainingInterrupted
from utnet.training.calibration import calibrate
from utnet.training.ema import EMA
from utnet.training.forgetting import before_and_after
from utnet.training.log import RunLog, prediction_pictures, skipped_lines
from utnet.training.pretrained import backbone_parameters
from utnet.training.state import Progress, Run, begun_as, make_model, read_progress
from utnet.types import Batch

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
_SHOWN = ("loss_2d", "loss_3d_joint")
"""Terms of the loss beside the progress bar."""


def train(
    config: Config,
    workdir: str | Path,
    *,
    resume: bool = False,
    loss_function: LossFunction | None = None,
    progress: bool = True,
) -> dict:
    """Trains a network, in this process alone or in all those that torchrun started.

    SIGTERM and Ctrl-C end it after the step that it is at, with a checkpoint; after anything worse it goes on from the
    last checkpoint. On the same machine a resumed run gives the same weights, to the bit, as an undisturbed one.

    Args:
        config: the whole run.
        workdir: a new folder; it gets config.yaml, run.json, metrics.csv, TensorBoard events, last/ and best/.
        resume: go on with the run in `workdir`; processes that torchrun started anew do so by themselves.
        loss_function: (Prediction, Batch) -> terms with "total_loss"; default `UTNetLoss` of the config.
        progress: say what it trains on and what was skipped, and show a bar.

    Returns:
        {"step", "seconds", "metrics", "best"}: the last and the best validation scores (see `evaluate`). With
        `config.replay` also "before_after" (`training.forgetting`).

    Raises:
        InputError: the folder holds a run already (or none to resume), or the data cannot be read.
        FloatingPointError: a loss or a gradient that is not finite; the samples' keys are in bad_batch.json, and last/
            is what it was.
        Stopped: a signal asked for it; `workdir` can be resumed.
    """
    workdir = Path(workdir)
    with process_group() as world, InterruptHandler() as stop:
        restarted = is_restart(world, begun_as(workdir).get("job", ""))
        exists = recover_interrupted_save(workdir / "last").exists()  # not before its first checkpoint
        resume = resume or (exists and restarted)
        if exists and not resume:
            raise InputError(
                f"{workdir}: holds a run already; go on with it by --resume {workdir}, give another folder or remove it"
            )
        job, about = _set_up(config, workdir, world, stop, resume, loss_function)
        if world.is_main:
            workdir.mkdir(parents=True, exist_ok=True)
            config.save(workdir / "config.yaml")
            write_json(workdir / "run.json", about)
        told = progress and world.is_main
        if told:
            print(f"training on {describe(job.loader.source)}, validating on {describe(job.validation)}")
            if resume:
                print(_going_on(job.run.progress, config))
        _loop(job, progress=told)
        if config.model.uncertainty and world.is_main:
            _calibrate_best(job)
        done = job.run.progress
        result = {"step": done.step, "seconds": done.seconds, "metrics": done.scores, "best": done.best}
        if config.replay is not None and world.is_main:
            result["before_after"] = before_and_after(config, workdir / "best")
        bad = {key: message for loader in done.loaders for key, message in loader["bad"].items()}
        if world.is_main:
            write_json(workdir / "run.json", {**about, **result, "bad_samples": bad})
        if told:
            for line in skipped_lines(bad):
                print(line)
        return result


def _going_on(done: Progress, config: Config) -> str:
    """Where a resumed run stands."""
    used = f"step {done.step} of {config.train.steps}, {done.seconds / 60:.1f} minutes"
    used += f" of {config.train.minutes:g}" if config.train.minutes else ""
    if done.share < 1:
        return f"going on at {used}"
    return f"nothing is left to do at {used}; make it longer by --set train.steps=N or train.minutes=N"


@dataclass(frozen=True)
class _Job:
    """What the loop works with."""

    config: Config
    workdir: Path
    world: ProcessInfo
    stop: InterruptHandler
    engine: Engine
    run: Run
    loader: Loader
    validation: Source
    inputs: tuple[str, ...]


def _set_up(
    config: Config,
    workdir: Path,
    world: ProcessInfo,
    stop: InterruptHandler,
    resume: bool,
    loss_function: LossFunction | None,
) -> tuple[_Job, dict]:
    """Everything before the first step, and what run.json says of it. Nothing is written: bad input shows first."""
    done = read_progress(workdir / "last") if resume else Progress()
    done.share = progress_of(done.step, done.seconds, config)  # of a run that may have become a longer one
    device = process_device(pick_device(config.device), world)
    if config.train.num_threads:
        torch.set_num_threads(config.train.num_threads)
    torch.manual_seed(config.seed)
    with world.main_process_first():
        try:
            source, validation = open_training(config), open_validation(config)
        except InputError as error:
            moved = moved_data(config) if resume else []
            if not moved:
                raise
            remedy = f"if the data have moved, set {' '.join(moved)} to where they are, by --set or in its config.yaml"
            raise InputError(f"{error}; {remedy}") from error
        check_apart(source, validation)
        if config.data.check:
            refuse_wrong_labels(source)
        inputs = scorable_inputs(validation)
    model, init = make_model(config, last=workdir / "last" if resume else None)
    model = model.to(device).train()
    engine = Engine(model, loss_function or UTNetLoss.from_config(config.loss), config, world)
    optimiser = make_optimiser(model, config)
    run = Run(model, optimiser, EMA(model, config.train.ema) if config.train.ema else None, done)
    before = done.loader_of(world) if resume else {"position": None, "bad": {}}
    loader = make_loader(
        source,
        config,
        train=True,
        position=before["position"],
        hand_model=model.hand.name,
        rank=world.rank,
        world_size=world.size,
        pin_memory=device.type == "cuda",
        extras=Extras.of(config),
    )
    loader.bad.update(before["bad"])
    if world.rank:  # the processes hold equal networks; what is drawn from here on is each one's own
        torch.manual_seed(config.seed + 1_000_003 * world.rank)
    if resume:
        run.restore(workdir / "last")
        run.restore_random(workdir / "last", world)
    about = {**run_info(), "config": to_tree(config), "data": fingerprint(source), "val": fingerprint(validation)}
    about |= {"processes": world.size, "parallel": engine.kind, "job": job_id()}
    about["resumed_at"] = done.step if resume else None
    if resume:  # what it once started from
        about |= {key: value for key, value in begun_as(workdir).items() if key == "init"}
    elif init:
        about["init"] = init.splitlines()
        if world.is_main:
            print(init)
    return _Job(config, workdir, world, stop, engine, run, loader, validation, inputs), about


def _loop(job: _Job, *, progress: bool) -> None:
    """Step, checkpoint, validate, until the run ends or is asked to."""
    config, done, workdir = job.config, job.run.progress, job.workdir
    start, saved, asked = time.monotonic() - done.seconds, done.step, 0
    batches = iter(job.loader)
    # Per cent of the run, because it may end by time as well as by steps.
    bar = tqdm(
        total=100.0,
        desc="train",
        bar_format=_BAR,
        disable=None if progress else True,
        initial=100 * min(1.0, done.share),
    )
    with bar, closing(RunLog(workdir, after=done.step, scored=done.scored, active=job.world.is_main)) as log:
        while True:
            ended = done.share >= 1
            unscored = done.step > done.scored and (ended or done.step % config.train.eval_every == 0)
            if done.step > saved and (asked or unscored or done.step % config.train.save_every == 0):
                job.run.save(workdir / "last", config, job.loader, job.world)
                saved = done.step
            if asked:
                raise TrainingInterrupted(
                    f"stopped after step {done.step}; go on by utnet train --resume {workdir}", asked
                )
            if unscored:
                _validate(job, log)
                job.run.save(workdir / "last", config, job.loader, job.world)
            if ended:
                return

            for group in job.run.optimiser.param_groups:
                group["lr"] = group["share"] * learning_rate(done.share, done.step, config)
            began = time.monotonic()
            taken = list(islice(batches, config.train.accumulate))
            step = train_step(job.engine, taken, job.run.optimiser, config, workdir, start=start, stop=job.stop)
            done.add(step.terms, step.num_samples, time.monotonic() - began)
            done.seconds, asked = step.seconds, step.asked
            done.share = progress_of(done.step, done.seconds, config)
            if job.run.mean is not None:
                job.run.mean.update(done.step)
            bar.update(min(100.0, 100 * done.share) - bar.n)
            if done.step % config.train.log_every == 0 or done.share >= 1:
                means, speed = done.take_means()
                lr = job.run.optimiser.param_groups[0]["lr"]
                log.write("train", done.step, done.seconds, {"lr": lr, "samples_per_s": speed, **means})
                bar.set_postfix(_shown(done.step, means, step.num_samples, speed, config))


def _calibrate_best(job: _Job) -> None:
    """Fits what best/ states of its errors to the validation samples."""
    folder = job.workdir / "best"
    model, config = load_checkpoint(folder, device=str(job.engine.device))
    calibrate(model, job.validation, config)
    info = begun_as(folder)
    save_checkpoint(folder, model, config, step=info["step"], metrics=info["metrics"], calibrated=True)


def _validate(job: _Job, log: RunLog) -> None:
    """Scores the network (the mean of its weights, with `train.ema`), draws it, and keeps it in best/ if it is."""
    done, config = job.run.progress, job.config
    with job.run.mean.applied() if job.run.mean is not None else nullcontext():
        done.scores = evaluate(job.engine.model, job.validation, config, inputs=job.inputs)
        log.write("val", done.step, done.seconds, _flat(done.scores))
        if config.train.pictures:
            sheet = prediction_pictures(job.engine.model, job.validation, config, inputs=job.inputs)
            log.picture("val/predictions", done.step, sheet)
        done.scored = done.step
        if done.lowest is None or selection_score(done.scores) < done.lowest:
            done.lowest, done.best = selection_score(done.scores), done.scores
            job.run.save_best(job.workdir / "best", config, job.world)


@dataclass(frozen=True)
class Step:
    """What a step gave, of all processes together.

    Attributes:
        terms: every term of the loss over the step's samples.
        num_samples: how many those were.
        seconds: the first process's time.
        asked: a signal that asked one of them to stop, or 0.
    """

    terms: dict[str, float]
    num_samples: int
    seconds: float = 0.0
    asked: int = 0


def train_step(
    engine: Engine,
    batches: Sequence[Batch],
    optimiser: torch.optim.Optimizer,
    config: Config,
    workdir: Path,
    *,
    start: float = 0.0,
    stop: InterruptHandler | None = None,
) -> Step:
    """One update from `train.accumulate` batches a process. The processes agree on what they saw, in one message.

    Args:
        engine: the network and its loss.
        batches: as many as that, on any device.
        optimiser: of the engine's network.
        config: the run.
        workdir: for bad_batch.json.
        start: when training began, on the monotonic clock.
        stop: requests to stop, to tell the other processes of.

    Raises:
        FloatingPointError: in every process, where one's loss or the gradient is not finite; nothing is updated.
    """
    optimiser.zero_grad(set_to_none=True)
    results = engine.backward(batches)
    world, names = engine.world, list(results[0][1])
    sums = [sum(terms[name] for _, terms in results) for name in names]
    broken = [i for i, (objective, _) in enumerate(results) if not math.isfinite(objective)]
    total, num = sum(objective for objective, _ in results), sum(map(len, batches))
    asked = 0 if stop is None else stop.signal_number
    seconds = time.monotonic() - start if world.is_main else 0.0
    told = [len(broken), asked == SIGINT, asked == SIGTERM, seconds, num, total, *sums]
    num_broken, by_key, by_term, seconds, samples, total, *sums = world.sum([float(value) for value in told])
    norm = engine.gradient_norm()  # the same in every process
    if num_broken or not norm.isfinite():
        which = broken if num_broken else range(len(batches))
        _report_broken(engine, [(batches[i].keys, results[i][1]) for i in which], float(norm), workdir)
    if config.train.clip_grad > 0:
        # Summed losses grow with the samples of a step, and so does the norm that is still ordinary.
        size = config.train.batch_size * config.train.accumulate * world.size
        scale = size if config.loss.reduction == "sum" else 1
        torch.nn.utils.clip_grads_with_norm_(engine.model.parameters(), config.train.clip_grad * scale, norm)
    optimiser.step()
    parts, added = len(results) * world.size, summed_terms(engine.loss_function)
    means = {name: value if name in added else value / parts for name, value in zip(names, sums, strict=True)}
    means["total_loss"] = total / world.size
    return Step(means, int(samples), seconds, SIGTERM if by_term else SIGINT if by_key else 0)


def _report_broken(
    engine: Engine, broken: list[tuple[tuple[str, ...], dict[str, float]]], norm: float, workdir: Path
) -> None:
    """Writes bad_batch.json and raises.

    Args:
        engine: all processes call it.
        broken: keys and terms of this process's batches without a finite loss; of all, where the losses are finite.
        norm: of the gradient.
        workdir: for the file.
    """
    everyone = [found for process in engine.world.gather(broken) for found in process]
    keys, terms = [key for found, _ in everyone for key in found], everyone[0][1]
    if engine.world.is_main:
        write_json(workdir / "bad_batch.json", {"keys": keys, "terms": terms, "gradient_norm": norm})
    total = terms["total_loss"]
    what = f"the gradient's norm is {norm}, of a loss of {total:g}" if math.isfinite(total) else f"the loss is {total}"
    raise FloatingPointError(f"{what}; the samples' keys are in {workdir / 'bad_batch.json'}")


def make_optimiser(model: UTNet, config: Config) -> torch.optim.AdamW:
    """AdamW; biases, norms and embeddings of one axis are not decayed. "share" of a group: of the learning rate."""
    backbone, groups = backbone_parameters(model), []
    for share, of_backbone in ((1.0, False), (config.train.backbone_lr, True)):
        own = [p for name, p in model.named_parameters() if (name in backbone) == of_backbone and p.requires_grad]
        for decay, matrices in ((config.train.weight_decay, True), (0.0, False)):
            chosen = [p for p in own if (p.ndim > 1) == matrices]
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "share": share})
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
    """{"rgb": {"num": 9, "mpjpe_mm": 1}} -> {"rgb/mpjpe_mm": 1}; only what was scored, not the reference."""
    rows = {name: scores[name] for name in INPUTS if name in scores}
    return {f"{name}/{key}": value for name, row in rows.items() for key, value in row.items() if key != "num"}


def _shown(step: int, means: dict[str, float], num: int, speed: float, config: Config) -> dict[str, str]:
    """What stands beside the progress bar: losses of a sample, and samples a second."""
    scale = num if config.loss.reduction == "sum" else 1
    shown = {"step": str(step), "loss": f"{means['total_loss'] / scale:.4f}"}
    shown |= {name.removeprefix("loss_"): f"{means[name] / scale:.3f}" for name in _SHOWN if name in means}
    return {**shown, "samples/s": f"{speed:.0f}"}
