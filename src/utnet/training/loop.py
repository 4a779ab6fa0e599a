"""The training loop: `train(config, workdir)`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import torch
from tqdm import tqdm

from utnet.checkpoint import pick_device, recover_interrupted_save, run_info
from utnet.config import Config, to_tree
from utnet.data.crop_datasets import CropMaker
from utnet.data.inspection.check import refuse_wrong_labels
from utnet.data.loader import Loader, make_loader
from utnet.data.prompts_and_masks import PromptsAndMasks
from utnet.data.source import Source
from utnet.data.sources import (
    check_apart,
    describe,
    fingerprint,
    moved_data,
    open_compared,
    open_training,
    open_validation,
)
from utnet.data.workers import end_workers
from utnet.distributed import (
    Engine,
    LossFunction,
    ProcessInfo,
    is_restart,
    job_id,
    process_device,
    process_group,
)
from utnet.errors import InputError, WorkerError, worker_errors
from utnet.evaluation.validation import INPUTS, evaluate, scorable_inputs
from utnet.heap import keep_blocks
from utnet.io.atomic import output_folder, write_json
from utnet.losses import UTNetLoss
from utnet.signals import InterruptHandler, Terminated, TrainingInterrupted
from utnet.training.calibration import calibrate_best
from utnet.training.ema import EMA
from utnet.training.forgetting import before_and_after
from utnet.training.log import RunLog, prediction_pictures, progress_values, resume_message, skipped_lines
from utnet.training.optimizer import learning_rate, make_optimizer, progress_of
from utnet.training.state import Progress, Run, make_model, read_progress, read_run_metadata
from utnet.training.step import NonFiniteError, train_step
from utnet.types import Batch

_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


def train(
    config: Config,
    workdir: str | Path,
    *,
    resume: bool = False,
    loss_function: LossFunction | None = None,
    progress: bool = True,
) -> dict:
    """Trains a network, in this process or in all processes started by torchrun.

    SIGTERM and Ctrl-C end it after the current step, with a checkpoint; after a crash it can be resumed from the last
    checkpoint. On the same machine a resumed run has bit-equal weights to an uninterrupted one.

    Args:
        config: the complete run.
        workdir: a new folder for config.yaml, run.json, metrics.csv, TensorBoard events, last/ and best/.
        resume: resume the run in `workdir`; processes restarted by torchrun resume automatically.
        loss_function: (Prediction, Batch) -> terms with "total_loss"; default `UTNetLoss` of the config.
        progress: print the data sets and skipped samples, and show a progress bar.

    Returns:
        {"step", "seconds", "metrics", "best"}: the last and the best validation scores (see `evaluate`). With
        `config.replay` also "before_after" (`training.forgetting`).

    Raises:
        InputError: the folder contains a run already (or none to resume), or the data cannot be read.
        FloatingPointError: a loss or a gradient is not finite; the samples' keys are in bad_batch.json, and last/ is
            unchanged.
        WorkerError: a worker process was killed or hangs; `workdir` can be resumed.
        TrainingInterrupted: a signal was received; `workdir` can be resumed.
    """
    workdir = Path(workdir)
    with (
        process_group() as world,
        output_folder(workdir) if world.is_main else nullcontext(),
        worker_errors(),
        InterruptHandler() as stop,
    ):
        restarted = is_restart(world, read_run_metadata(workdir).get("job", ""))
        exists = recover_interrupted_save(workdir / "last").exists()  # not before its first checkpoint
        resume = resume or (exists and restarted)
        if exists and not resume:
            raise InputError(
                f"{workdir}: contains a run already; use --resume {workdir}, give another folder or remove it"
            )
        context, run_metadata = _set_up(config, workdir, world, stop, resume, loss_function)
        if world.is_main:
            config.save(workdir / "config.yaml")
            write_json(workdir / "run.json", run_metadata)
        verbose = progress and world.is_main
        if verbose:
            print(f"training on {describe(context.loader.source)}, validating on {describe(context.validation)}")
            if resume:
                print(resume_message(context.run.progress, config.train))
        try:
            _loop(context, progress=verbose)
            if config.model.uncertainty and world.is_main:
                calibrate_best(workdir / "best", context.validation, context.engine.device)
        except WorkerError:
            end_workers()
            raise
        except Terminated as error:  # the step or validation did not end in time
            end_workers()
            message = f"stopped in the middle of a step or validation; resume by utnet train --resume {workdir}"
            raise TrainingInterrupted(message, SIGTERM) from error
        done = context.run.progress
        result = {"step": done.step, "seconds": done.seconds, "metrics": done.scores, "best": done.best}
        if config.replay is not None and world.is_main:
            result["before_after"] = before_and_after(
                config.train.init_from, workdir / "best", partial(open_compared, config), config.train
            )
        bad = {key: message for loader in done.loaders for key, message in loader["bad"].items()}
        if world.is_main:
            write_json(workdir / "run.json", {**run_metadata, **result, "bad_samples": bad})
        if verbose:
            for line in skipped_lines(bad):
                print(line)
        return result


@dataclass(frozen=True)
class TrainContext:
    """Everything that the loop needs."""

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
) -> tuple[TrainContext, dict]:
    """Prepares the run and its metadata for run.json, and validates all input before anything is written."""
    done = read_progress(workdir / "last") if resume else Progress()
    done.share = progress_of(done.step, done.seconds, config.train)  # of the config's length, which may have changed
    device = process_device(pick_device(config.device), world)
    if config.train.num_threads:
        torch.set_num_threads(config.train.num_threads)
    if device.type == "cpu":
        # Of the process, also afterwards; otherwise thousands of pages of activations are paged in again at every step.
        keep_blocks(32, spare_mb=1024)
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
    model, init = make_model(config.model, config.train, last=workdir / "last" if resume else None)
    model = model.to(device).train()
    engine = Engine(model, loss_function or UTNetLoss.from_config(config.loss), config.train, config.loss, world)
    optimizer = make_optimizer(model, config.train)
    run = Run(model, optimizer, EMA(model, config.train.ema) if config.train.ema else None, done)
    before = done.loader_of(world) if resume else {"position": None, "bad": {}}
    loader = training_loader(
        source,
        config,
        position=before["position"],
        hand_model=model.hand.name,
        rank=world.rank,
        world_size=world.size,
        pin_memory=device.type == "cuda",
    )
    loader.bad.update(before["bad"])
    if world.rank:  # equal networks, different random numbers from here on
        torch.manual_seed(config.seed + 1_000_003 * world.rank)
    if resume:
        run.restore(workdir / "last")
        run.restore_random(workdir / "last", world)
    data = {"data": fingerprint(source), "val": fingerprint(validation)}
    metadata = {**run_info(), "config": to_tree(config), **data}
    metadata |= {"processes": world.size, "parallel": engine.kind, "job": job_id()}
    metadata["resumed_at"] = done.step if resume else None
    if resume:  # its initial weights
        metadata |= {key: value for key, value in read_run_metadata(workdir).items() if key == "init"}
    elif init:
        metadata["init"] = init.splitlines()
        if world.is_main:
            print(init)
    return TrainContext(config, workdir, world, stop, engine, run, loader, validation, inputs), metadata


def training_loader(source: Source, config: Config, **options: Any) -> Loader:
    """The loader of a run's training data: jittered, augmented, with prompts and masks.

    Args:
        source: as of `open_training`.
        config: of the run.
        **options: further arguments of `make_loader`.
    """
    extras = PromptsAndMasks.of(config.model, config.prompts, config.augment.mirror_p)
    crops = CropMaker(
        config.model.size_px, config.crop, config.augment, config.seed, config.model.p_drop, extras=extras
    )
    return make_loader(source, crops, config.train, endless=True, root_id=config.loss.root_id, **options)


def _loop(context: TrainContext, *, progress: bool) -> None:
    """Trains, saves and validates until the run ends or a signal is received."""
    config, done, workdir = context.config, context.run.progress, context.workdir
    start, saved, signal_number = time.monotonic() - done.seconds, done.step, 0
    batches = iter(context.loader)
    # In percent of the run, which ends by time or by steps.
    bar = tqdm(
        total=100.0,
        desc="train",
        bar_format=_BAR,
        disable=None if progress else True,
        initial=100 * min(1.0, done.share),
    )
    with bar, closing(RunLog(workdir, after=done.step, scored=done.scored, active=context.world.is_main)) as log:
        while True:
            ended = done.share >= 1
            unscored = done.step > done.scored and (ended or done.step % config.train.eval_every == 0)
            if done.step > saved and (signal_number or unscored or done.step % config.train.save_every == 0):
                context.run.save(workdir / "last", config, context.loader, context.world)
                saved = done.step
            if signal_number:
                message = f"stopped after step {done.step}; resume by utnet train --resume {workdir}"
                raise TrainingInterrupted(message, signal_number)
            if unscored:
                _validate(context, log)
                context.run.save(workdir / "last", config, context.loader, context.world)
            if ended:
                return

            for group in context.run.optimizer.param_groups:
                group["lr"] = group["lr_scale"] * learning_rate(done.share, done.step, config.train)
            began = time.monotonic()
            taken = _take(context, batches)
            try:
                step = train_step(context.engine, taken, context.run.optimizer)
            except NonFiniteError as error:
                report = workdir / "bad_batch.json"
                if context.world.is_main:
                    write_json(report, error.report)
                raise FloatingPointError(f"{error}; the samples' keys are in {report}") from error
            done.add(step.terms, step.num_samples, time.monotonic() - began)
            done.seconds, signal_number = _agree(context, time.monotonic() - start)
            done.share = progress_of(done.step, done.seconds, config.train)
            if context.run.mean is not None:
                context.run.mean.update(done.step)
            bar.update(min(100.0, 100 * done.share) - bar.n)
            if done.step % config.train.log_every == 0 or done.share >= 1:
                means, speed = done.take_means()
                lr = context.run.optimizer.param_groups[0]["lr"]
                log.write("train", done.step, done.seconds, {"lr": lr, "samples_per_s": speed, **means})
                per_sample = 1 / step.num_samples if config.loss.reduction == "sum" else 1.0
                losses = {name: value * per_sample for name, value in means.items()}
                bar.set_postfix(progress_values(done.step, losses, speed))


def _agree(context: TrainContext, seconds: float) -> tuple[float, int]:
    """The main process's time and a signal received by any process (0: none), equal in all processes."""
    received = context.stop.signal_number
    own = [seconds if context.world.is_main else 0.0, float(received == SIGTERM), float(received == SIGINT)]
    seconds, terminated, interrupted = context.world.sum(own)
    return seconds, SIGTERM if terminated else SIGINT if interrupted else 0


def _take(context: TrainContext, batches: Iterator[Batch]) -> list[Batch]:
    """Reads the batches of a step. On an error the run is saved in its state before them."""
    position = context.loader.position
    try:
        return list(islice(batches, context.config.train.accumulate))
    except (WorkerError, Terminated):
        end_workers()  # first, as torch raises again for a lost worker when another process ends
        if context.world.size == 1 and context.run.progress.step:  # several processes cannot agree on a checkpoint
            context.loader.position = position
            context.run.save(context.workdir / "last", context.config, context.loader, context.world)
        raise


def _validate(context: TrainContext, log: RunLog) -> None:
    """Evaluates the (EMA) network, logs pictures, and saves it to best/ when it improves."""
    done, config = context.run.progress, context.config
    with context.run.mean.applied() if context.run.mean is not None else nullcontext():
        model, inputs = context.engine.model, context.inputs
        done.scores = evaluate(model, context.validation, config.crop, config.train, inputs=inputs)
        log.write("val", done.step, done.seconds, _flat(done.scores))
        if config.train.pictures:
            num = config.train.pictures
            sheet = prediction_pictures(model, context.validation, config.crop, num=num, inputs=inputs)
            log.picture("val/predictions", done.step, sheet)
        done.scored = done.step
        if done.lowest is None or selection_score(done.scores) < done.lowest:
            done.lowest, done.best = selection_score(done.scores), done.scores
            context.run.save_best(context.workdir / "best", config, context.world)


def selection_score(scores: dict) -> float:
    """(MPJPE + PA-MPJPE) / 2 in mm, the mean over the evaluated inputs; lower is better."""
    inputs = [scores[name] for name in INPUTS if name in scores]
    return sum(s["mpjpe_mm"] + s["pa_mpjpe_mm"] for s in inputs) / (2 * len(inputs))


def _flat(scores: dict) -> dict[str, float]:
    """{"rgb": {"num": 9, "mpjpe_mm": 1}} -> {"rgb/mpjpe_mm": 1}, without the reference."""
    rows = {name: scores[name] for name in INPUTS if name in scores}
    return {f"{name}/{key}": value for name, row in rows.items() for key, value in row.items() if key != "num"}
