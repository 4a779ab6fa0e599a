"""One update of the network, and what it does where a loss or a gradient is not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT, SIGTERM

import torch

from utnet.config import Config
from utnet.distributed import Engine, summed_terms
from utnet.io.atomic import write_json
from utnet.signals import InterruptHandler
from utnet.types import Batch


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
