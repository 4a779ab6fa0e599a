"""Distributed training of one network: process group, gradients, sharded tensors.

Start with `torchrun --nproc-per-node=N -m utnet train CONFIG`. N processes with batches of B give the result of one
process with a batch of N B, up to float rounding (`tests/training/test_parallel.py`). DDP and FSDP2 average gradients,
which is correct for means over the batch. Sums over the batch (`UTNetLoss.summed_terms`) are scaled by N first. Means
over labelled samples are taken over those of the entire step, which the processes count together (`UTNetLoss.count`).
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

from utnet.config import LossConfig, TrainConfig
from utnet.errors import InputError
from utnet.model import UTNet
from utnet.signals import TrainingInterrupted
from utnet.types import Batch

LossFunction = Callable[..., dict[str, Tensor]]
"""(Prediction, Batch) -> terms with "total_loss". Optional attributes, as in `UTNetLoss`: `summed_terms` and `weights`
name the terms that are sums over the batch (default: all are means); with `count`, the function is called with the
keyword `counts` (counts of the average batch) if a step has several batches."""

_FSDP_FROM = 300_000_000
"""Number of parameters from which "auto" chooses FSDP."""


# --------------------------------------------------------------------------------------------------------- processes


@dataclass(frozen=True)
class ProcessInfo:
    """Rank of this process in the group. All processes must call its methods; with one process they do nothing.

    Attributes:
        rank: of this process; rank 0 is the main process, which writes the files.
        size: number of processes.
        local_rank: rank on this machine, the index of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Sums the numbers over the processes, in float64."""
        if self.size == 1:
            return values
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def wait(self) -> None:
        """Waits for all processes."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Runs the block in the main process first (for example to build an index), then in the others."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()


def process_info() -> ProcessInfo:
    """The current process group; a single process outside `process_group`."""
    if not dist.is_initialized():
        return ProcessInfo()
    return ProcessInfo(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def process_group() -> Iterator[ProcessInfo]:
    """Initialises the process group from torchrun's environment variables, and destroys it at the end."""
    if dist.is_initialized() or "TORCHELASTIC_RUN_ID" not in os.environ:
        yield process_info()
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if torch.cuda.is_available() and int(os.environ["LOCAL_WORLD_SIZE"]) <= torch.cuda.device_count():
        torch.cuda.set_device(local_rank)
        dist.init_process_group("cpu:gloo,cuda:nccl")
    else:
        dist.init_process_group("gloo")
    clean = False
    try:
        yield process_info()
        clean = True
    except TrainingInterrupted:
        clean = True
        raise
    finally:
        if clean:  # a process that fails must not wait for the others; torchrun ends them
            dist.destroy_process_group()


def job_id() -> str:
    """Job id given to torchrun (--rdzv-id), "" without one or without torchrun."""
    name = os.environ.get("TORCHELASTIC_RUN_ID", "")
    return "" if name == "none" else name


def is_restart(world: ProcessInfo, previous_job_id: str) -> bool:
    """Whether torchrun restarted these processes after a process or machine failed.

    Args:
        world: the processes; all get the same result.
        previous_job_id: `job_id` of the existing run.
    """
    counted = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0
    # Each machine's agent counts its own restarts: a replacement machine starts at 0, and with elastic machines all do.
    return any(world.gather(counted or (previous_job_id != "" and previous_job_id == job_id())))


# --------------------------------------------------------------------------------------------------------- gradients


class LossModule(nn.Module):
    """Network and loss in one module, for DDP: batch -> (objective, detached loss terms).

    The gradient of the objective, summed over the batches of a step and averaged over the processes, is that of one
    batch with all their samples: sums are multiplied by the number of processes, means divided by the number of
    batches.
    """

    def __init__(
        self, model: UTNet, loss_function: LossFunction, train: TrainConfig, loss: LossConfig, world: ProcessInfo
    ):
        super().__init__()
        self.model, self._loss_function = model, loss_function
        self._bf16, self._wants_vertices = train.precision == "bf16", loss.use_vertex_loss
        self._num_processes, self._num_batches = world.size, train.accumulate

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
    """Names of the loss terms that are sums over the batch."""
    return getattr(loss_function, "summed_terms", frozenset())


class Engine:
    """Computes the gradients of a step, in one process or in several.

    Create it before the optimizer: FSDP replaces parameters by shards.

    Attributes:
        model: the network.
        world: the processes.
        kind: "alone", "ddp" or "fsdp".
        max_norm: largest norm of the gradient of a step, 0 without clipping.
    """

    def __init__(
        self,
        model: UTNet,
        loss_function: LossFunction,
        train: TrainConfig,
        loss: LossConfig,
        world: ProcessInfo | None = None,
    ):
        self.model, self.world = model, world or ProcessInfo()
        self.loss_function = loss_function
        self._num_batches = train.accumulate
        # Summed losses, and with them ordinary norms, grow with the number of samples.
        num = train.batch_size * train.accumulate * self.world.size
        self.max_norm = train.clip_grad * (num if loss.reduction == "sum" else 1)
        self.kind = "alone" if self.world.size == 1 else _kind(model, train)
        self._objective: nn.Module = LossModule(model, loss_function, train, loss, self.world)
        if train.compile:
            model.compile()
        if self.kind == "fsdp":
            _shard(model)
        if self.kind == "ddp":
            # Not every parameter has a gradient: a loss term of weight 0 leaves its head without one.
            self._objective = nn.parallel.DistributedDataParallel(
                self._objective, find_unused_parameters=True, gradient_as_bucket_view=True
            )
            # Buffers never change, so they are not broadcast. (torch is renaming the argument, not this attribute.)
            self._objective.broadcast_buffers = False

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def backward(self, batches: Sequence[Batch]) -> list[tuple[float, dict[str, float]]]:
        """Accumulates the gradients of `train.accumulate` batches; returns (objective, loss terms) of each."""
        results, of_step = [], self._of_step(batches)
        for number, batch in enumerate(batches, 1):
            with self._exchange(number == self._num_batches):
                objective, terms = self._objective(batch.to(self.device), of_step)
                objective.backward()
            # One transfer (and GPU synchronisation) for all numbers.
            first, *others = torch.stack([objective.detach().double(), *(t.double() for t in terms.values())]).tolist()
            results.append((first, dict(zip(terms, others, strict=True))))
        return results

    def gradient_norm(self) -> Tensor:
        """Norm of the full gradient after `backward`, a scalar that is equal in all processes."""
        norm = nn.utils.get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        return norm.full_tensor() if is_sharded(norm) else norm  # type: ignore[attr-defined]

    def _of_step(self, batches: Sequence[Batch]) -> dict[str, Any]:
        """Arguments of the loss function that depend on the other batches of a step, if any."""
        count = getattr(self.loss_function, "count", None)
        num = self._num_batches * self.world.size
        if count is None or num == 1:
            return {}
        counts = [count(batch) for batch in batches]
        sums = self.world.sum([float(sum(of[name] for of in counts)) for name in counts[0]])
        return {"counts": {name: max(1.0, total) / num for name, total in zip(counts[0], sums, strict=True)}}

    def _exchange(self, now: bool):
        """Context that synchronises gradients only for the last batch of a step."""
        if self.kind == "fsdp":
            self.model.set_requires_gradient_sync(now)  # type: ignore[operator]
        if self.kind == "ddp" and not now:
            return self._objective.no_sync()  # type: ignore[operator]
        return nullcontext()


def _kind(model: UTNet, train: TrainConfig) -> str:
    if train.parallel != "auto":
        return train.parallel
    return "fsdp" if sum(p.numel() for p in model.parameters()) > _FSDP_FROM else "ddp"


def _shard(model: UTNet) -> None:
    """FSDP2: shards the parameters of each block, and the remaining ones, over the processes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    # FSDP2 warns about outputs that are views; this matters only if they are modified in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    mesh = init_device_mesh(next(model.parameters()).device.type, (dist.get_world_size(),))
    for block in model.encoder.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


# ---------------------------------------------------------------------------------------------------- sharded tensors


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is sharded over the processes (FSDP)."""
    return hasattr(tensor, "full_tensor")


def reshard(model: nn.Module) -> None:
    """Reshards an FSDP network after a forward pass without backward, which leaves parameters gathered."""
    if hasattr(model, "reshard"):
        model.reshard()  # type: ignore[operator]


def full_tensor(tensor: Tensor) -> Tensor:
    """Gathers a sharded tensor on the CPU. All processes must call it."""
    tensor = tensor.detach()
    return (tensor.full_tensor() if is_sharded(tensor) else tensor).cpu()  # type: ignore[attr-defined]


def copy_sharded_(target: Tensor, value: Tensor) -> None:
    """Copies a full tensor into `target`, which may be sharded."""
    if is_sharded(target):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(target.device), target.device_mesh, target.placements)  # type: ignore[attr-defined]
    with torch.no_grad():
        target.copy_(value)


def process_device(device: torch.device, world: ProcessInfo) -> torch.device:
    """Returns the GPU of this process for "cuda", and other devices unchanged.

    Raises:
        InputError: there are more processes than GPUs.
    """
    if device.type != "cuda" or device.index is not None or world.size == 1:
        return device
    num, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > num:
        raise InputError(f"{here} processes and {num} GPUs here: start at most one process a GPU, or set device: cpu")
    return torch.device("cuda", world.local_rank)
