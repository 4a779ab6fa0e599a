"""The training loop, to be read from top to bottom: `train(config, workdir)`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from signal import SIGTERM

import torch
from tqdm import tqdm

from utnet.checkpoint import pick_device, recover_interrupted_save, run_info
from utnet.config import Config, to_tree
from utnet.data.extras import Extras
from utnet.data.inspection.check import refuse_wrong_labels
from utnet.data.loader import Loader, make_loader
from utnet.data.source import Source
from utnet.data.sources import check_apart, describe, fingerprint, moved_data, open_training, open_validation
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
from utnet.io.atomic import output_folder, write_json
from utnet.losses import UTNetLoss
from utnet.signals import InterruptHandler, Terminated, TrainingInterrupted
from utnet.training.calibration import calibrate_best
from utnet.training.ema import EMA
from utnet.training.forgetting import before_and_after
from utnet.training.log import RunLog, prediction_pictures, progress_values, resumed_line, skipped_lines
from utnet.training.optimizer import learning_rate, make_optimiser, progress_of
from utnet.training.state import Progress, Run, begun_as, make_model, read_progress
from utnet.training.step import train_step
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
        WorkerError: a process that reads samples was killed, or hangs; `workdir` can be resumed.
        TrainingInterrupted: a signal asked for it; `workdir` can be resumed.
    """
    workdir = Path(workdir)
    with (
        process_group() as world,
        output_folder(workdir) if world.is_main else nullcontext(),
        worker_errors(),
        InterruptHandler() as stop,
    ):
        restarted = is_restart(world, begun_as(workdir).get("job", ""))
        exists = recover_interrupted_save(workdir / "last").exists()  # not before its first checkpoint
        resume = resume or (exists and restarted)
        if exists and not resume:
            raise InputError(
                f"{workdir}: holds a run already; go on with it by --resume {workdir}, give another folder or remove it"
            )
        job, about = _set_up(config, workdir, world, stop, resume, loss_function)
        if world.is_main:
            config.save(workdir / "config.yaml")
            write_json(workdir / "run.json", about)
        told = progress and world.is_main
        if told:
            print(f"training on {describe(job.loader.source)}, validating on {describe(job.validation)}")
            if resume:
                print(resumed_line(job.run.progress, config))
        try:
            _loop(job, progress=told)
            if config.model.uncertainty and world.is_main:
                calibrate_best(workdir / "best", job.validation, job.engine.device)
        except WorkerError:
            end_workers()
            raise
        except Terminated as error:  # what was under way did not end in time
            end_workers()
            message = f"stopped in the middle of a step or validation; go on by utnet train --resume {workdir}"
            raise TrainingInterrupted(message, SIGTERM) from error
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
            taken = _take(job, batches)
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
                bar.set_postfix(progress_values(done.step, means, step.num_samples, speed, config))


def _take(job: _Job, batches: Iterator[Batch]) -> list[Batch]:
    """The batches of a step. Where none come, the run is saved as it was before them."""
    position = job.loader.position
    try:
        return list(islice(batches, job.config.train.accumulate))
    except (WorkerError, Terminated):
        end_workers()  # first: torch raises again for a lost one when any other process ends
        if job.world.size == 1 and job.run.progress.step:  # several processes cannot agree on a checkpoint any more
            job.loader.position = position
            job.run.save(job.workdir / "last", job.config, job.loader, job.world)
        raise


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


def selection_score(scores: dict) -> float:
    """(MPJPE + PA-MPJPE) / 2 in mm, the mean over the inputs that were scored: lower is better."""
    inputs = [scores[name] for name in INPUTS if name in scores]
    return sum(s["mpjpe_mm"] + s["pa_mpjpe_mm"] for s in inputs) / (2 * len(inputs))


def _flat(scores: dict) -> dict[str, float]:
    """{"rgb": {"num": 9, "mpjpe_mm": 1}} -> {"rgb/mpjpe_mm": 1}; only what was scored, not the reference."""
    rows = {name: scores[name] for name in INPUTS if name in scores}
    return {f"{name}/{key}": value for name, row in rows.items() for key, value in row.items() if key != "num"}
