"""Several processes that train one network: who they are, how their gradients become one, how parts become whole.

`torchrun --nproc-per-node=N -m utnet train CONFIG` starts them. What N processes do with batches of B is what one does
with a batch of N B, to the rounding of floats (`tests/training/test_parallel.py`): DDP and FSDP2 average gradients,
which is right for means over the batch; sums over the batch (`UTNetLoss.summed_terms`) are scaled by N first, and means
over samples that not every batch has as many of (the labelled ones) are taken over those of the whole step, which the
processes count together beforehand (`UTNetLoss.count`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from utnet.config import Config
from utnet.errors import InputError
from utnet.model import UTNet
from utnet.signals import Stopped
from utnet.types import Batch

LossFunction = Callable[..., dict[str, Tensor]]
"""(Prediction, Batch) -> terms with "total_loss". Attributes `summed_terms` and `weights`, as `UTNetLoss` has them, say
which terms are sums over the batch; without them all are taken for means. One with `count`, as `UTNetLoss` has it, is
called with the keyword `counts` where a step has several batches: what `count` says of the average one."""

_FSDP_FROM = 300_000_000
"""Parameters from which "auto" spreads the network over the processes."""


# ------------------------------------------------------------------------------------------------------- the processes


@dataclass(frozen=True)
class World:
    """This process among `size`. Every method is called by all of them; with one process they do nothing.

    Attributes:
        rank: 0 writes the files.
        size: processes.
        local_rank: this process among those of its machine, which is its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """The numbers added up over the processes, float64."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every process's value, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """The first process goes ahead (it builds an index, say) and the others follow."""
        if not self.is_first:
            self.wait()
        yield
        if self.is_first:
            self.wait()


def this_world() -> World:
    """The processes that are joined now: one, outside `joined`."""
    if not dist.is_initialized():
        return World()
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined() -> Iterator[World]:
    """Joins the processes that torchrun started (its variables are in the environment), and parts them at the end."""
    if dist.is_initialized() or "TORCHELASTIC_RUN_ID" not in os.environ:
        yield this_world()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available() and int(os.environ["LOCAL_WORLD_SIZE"]) <= torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    together = False
    try:
        yield this_world()
        together = True
    except Stopped:
        together = True
        raise
    finally:
        if together:  # one that fails alone must not wait for the others: torchrun ends them
            dist.destroy_process_group()


def job_id() -> str:
    """torchrun's name of this job: what --rdzv-id gave it; "" without one, and without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return "" if name == "none" else name


def is_restart(world: World, begun_by: str) -> bool:
    """Whether torchrun started these processes anew after one of them, or a machine, died.

    Args:
        world: the processes, which all get one answer.
        begun_by: `job_id` of the run that is there already.
    """
    counted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    # Each machine's agent counts its own restarts: one that came in another's place has seen none, and where machines
    # come and go none of them has.
    return any(world.gather(counted or (begun_by != "" and begun_by == job_id())))


# ------------------------------------------------------------------------------------------------------- the gradients


class Objective(nn.Module):
    """Batch -> (what is minimised, every term of the loss without gradient): what DDP wraps.

    What is minimised is such that its gradient, added up over the batches of a step and averaged over the processes, is
    that of one batch which holds all their samples: sums are multiplied by the number of processes, means divided by
    the number of batches.
    """

    def __init__(self, model: UTNet, loss_function: LossFunction, config: Config, world: World):
        super().__init__()
        self.model, self._loss_function = model, loss_function
        self._bf16, self._wants_vertices = config.train.precision == "bf16", config.loss.use_vertex_loss
        self._num_processes, self._num_batches = world.size, config.train.accumulate

    def forward(self, batch: Batch, of_step: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """`of_step`: further arguments of the loss function."""
        if self._wants_vertices:
            with torch.no_grad():
                batch = replace(batch, vertices_m=self.model.hand.decode(batch.params).vertices_m)
        with torch.autocast(batch.rgb.device.type, torch.bfloat16, enabled=self._bf16):
            prediction = self.model.forward_batch(batch, with_vertices=self._wants_vertices)
        terms = self._loss_function(prediction, batch, **of_step)
        return self._scaled(terms), {name: value.detach() for name, value in terms.items()}

    def _scaled(self, terms: dict[str, Tensor]) -> Tensor:
        total = terms["total_loss"]
        if self._num_processes == self._num_batches == 1:
            return total
        mean = 1 / self._num_batches
        weights = getattr(self._loss_function, "weights", {})
        sums = [weights[name] * terms[name] for name in summed_terms(self._loss_function) if weights[name] > 0]
        return mean * total + (self._num_processes - mean) * sum(sums, torch.zeros_like(total))


def summed_terms(loss_function: LossFunction) -> frozenset[str]:
    """The terms that are sums over the batch."""
    return getattr(loss_function, "summed_terms", frozenset())


class Engine:
    """Gradients of one network from the batches of a step, in one process or in several.

    Make it before the optimiser: FSDP puts parts of parameters in their places.

    Attributes:
        model: the network.
        world: the processes.
        kind: "alone", "ddp" or "fsdp".
    """

    def __init__(self, model: UTNet, loss_function: LossFunction, config: Config, world: World | None = None):
        self.model, self.world = model, world or World()
        self.loss_function = loss_function
        self._num_batches = config.train.accumulate
        self.kind = "alone" if self.world.size == 1 else _kind(model, config)
        self._objective: nn.Module = Objective(model, loss_function, config, self.world)
        if config.train.compile:
            model.compile()
        if self.kind == "fsdp":
            _shard(model)
        if self.kind == "ddp":
            # Which parameters get a gradient depends on the loss: a term of weight 0 leaves its head without one.
            self._objective = nn.parallel.DistributedDataParallel(self._objective, find_unused_parameters=True)
            # Buffers never change: they are not sent round at every step. (torch is renaming the argument, not this.)
            self._objective.broadcast_buffers = False

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def backward(self, batches: Sequence[Batch]) -> list[tuple[float, dict[str, float]]]:
        """Adds up the gradients of `train.accumulate` batches; (objective, terms) of each, as numbers."""
        results, of_step = [], self._of_step(batches)
        for number, batch in enumerate(batches, 1):
            with self._exchange(number == self._num_batches):
                objective, terms = self._objective(batch.to(self.device), of_step)
                objective.backward()
            # One transfer, and so one wait for a GPU, for all the numbers.
            first, *others = torch.stack([objective.detach().double(), *(t.double() for t in terms.values())]).tolist()
            results.append((first, dict(zip(terms, others, strict=True))))
        return results

    def gradient_norm(self) -> Tensor:
        """Of the whole gradient, after `backward`: a scalar that is the same in every process."""
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        return norm.full_tensor() if is_part(norm) else norm  # type: ignore[attr-defined]

    def _of_step(self, batches: Sequence[Batch]) -> dict[str, Any]:
        """What the loss function has to know of the other batches of a step, if there are any."""
        count = getattr(self.loss_function, "count", None)
        num = self._num_batches * self.world.size
        if count is None or num == 1:
            return {}
        counts = [count(batch) for batch in batches]
        sums = self.world.sum([float(sum(of[name] for of in counts)) for name in counts[0]])
        return {"counts": {name: max(1.0, total) / num for name, total in zip(counts[0], sums, strict=True)}}

    def _exchange(self, now: bool):
        """Gradients go between the processes with the last batch of a step only."""
        if self.kind == "fsdp":
            self.model.set_requires_gradient_sync(now)  # type: ignore[operator]
        if self.kind == "ddp" and not now:
            return self._objective.no_sync()  # type: ignore[operator]
        return nullcontext()


def _kind(model: UTNet, config: Config) -> str:
    if config.train.parallel != "auto":
        return config.train.parallel
    return "fsdp" if sum(p.numel() for p in model.parameters()) > _FSDP_FROM else "ddp"


def _shard(model: UTNet) -> None:
    """FSDP2: every process keeps a part of each block's parameters and of what is beside the blocks."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # It warns of outputs that are views, which matters where they are changed in place: nowhere here.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    for block in model.encoder.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


# ------------------------------------------------------------------------------------------------ parts made whole


def is_part(tensor: Tensor) -> bool:
    """Whether a tensor is spread over the processes (FSDP's)."""
    return hasattr(tensor, "full_tensor")


def in_parts_again(model: nn.Module) -> None:
    """After a forward pass without a backward one, which leaves some of a network in parts (FSDP's) whole."""
    if hasattr(model, "reshard"):
        model.reshard()  # type: ignore[operator]


def whole(tensor: Tensor) -> Tensor:
    """A tensor as one process would have it, on the CPU; all processes call it."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if is_part(tensor) else tensor).cpu()  # type: ignore[attr-defined]


def put(target: Tensor, value: Tensor) -> None:
    """Copies a whole tensor into `target`, of which this process may hold a part."""
    if is_part(target):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)  # type: ignore[attr-defined]
    with torch.no_grad():
        target.copy_(value)


def own_device(device: torch.device, world: World) -> torch.device:
    """Of "cuda", this process's own GPU.

    Raises:
        InputError: more processes than GPUs.
    """
    if device.type != "cuda" or device.index is not None or world.size == 1:
        return device
    num, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > num:
        raise InputError(f"{here} processes and {num} GPUs here: start at most one process a GPU, or set device: cpu")
    return torch.device("cuda", world.local_rank)
