"""One update of the network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from utnet.distributed import Engine, summed_terms
from utnet.types import Batch


@dataclass(frozen=True)
class Step:
    """Result of a step, over all processes.

    Attributes:
        terms: loss terms over the samples of the step.
        num_samples: number of these samples.
    """

    terms: dict[str, float]
    num_samples: int


class NonFiniteError(FloatingPointError):
    """A loss or gradient is not finite; raised in all processes.

    Attributes:
        report: "keys" of the samples, "terms" of the loss, "gradient_norm".
    """

    def __init__(self, report: dict[str, Any]):
        total, norm = report["terms"]["total_loss"], report["gradient_norm"]
        finite = math.isfinite(total)
        super().__init__(f"the gradient's norm is {norm}, of a loss of {total:g}" if finite else f"the loss is {total}")
        self.report = report


def train_step(engine: Engine, batches: Sequence[Batch], optimizer: torch.optim.Optimizer) -> Step:
    """Updates the network by the gradient of the batches of all processes.

    Args:
        engine: the network and its loss.
        batches: this process's `train.accumulate` batches, on any device.
        optimizer: of the engine's network.

    Raises:
        NonFiniteError: a loss or the gradient is not finite; nothing is updated.
    """
    optimizer.zero_grad(set_to_none=True)
    results = engine.backward(batches)
    world, names = engine.world, list(results[0][1])
    sums = [sum(terms[name] for _, terms in results) for name in names]
    broken = [i for i, (objective, _) in enumerate(results) if not math.isfinite(objective)]
    total, num = sum(objective for objective, _ in results), sum(map(len, batches))
    num_broken, num_samples, total, *sums = world.sum([float(value) for value in (len(broken), num, total, *sums)])
    norm = engine.gradient_norm()
    if num_broken or not norm.isfinite():
        chosen = [(batches[i].keys, results[i][1]) for i in (broken if num_broken else range(len(batches)))]
        everyone = [found for process in world.gather(chosen) for found in process]
        keys = [key for found, _ in everyone for key in found]
        raise NonFiniteError({"keys": keys, "terms": everyone[0][1], "gradient_norm": float(norm)})
    if engine.max_norm > 0:
        torch.nn.utils.clip_grads_with_norm_(engine.model.parameters(), engine.max_norm, norm)
    optimizer.step()
    parts, added = len(results) * world.size, summed_terms(engine.loss_function)
    means = {name: value if name in added else value / parts for name, value in zip(names, sums, strict=True)}
    means["total_loss"] = total / world.size
    return Step(means, int(num_samples))
