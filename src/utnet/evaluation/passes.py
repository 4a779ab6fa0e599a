"""The evaluation pass: a network runs over all crops of a source, and a function measures its predictions.

Scores (`scoring`) and validation during training (`validation`) differ only in what they measure. Under torchrun
batches are distributed over the processes and results are gathered once, at the end. Batches are the same for any
number of processes, so results are bit-equal; networks may be sharded (FSDP).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from utnet.config import TrainConfig
from utnet.data.collate import collate
from utnet.data.source import BadSample
from utnet.distributed import ProcessInfo, is_sharded, process_info, reshard
from utnet.errors import InputError
from utnet.evaluation.crops import Crop, CropBatch, CropDataset, crop_batches, with_depth
from utnet.model import UTNet
from utnet.types import Prediction

Key = TypeVar("Key", bound=Hashable)
Measure = Callable[[CropBatch, Prediction, bool], Mapping[Key, dict[str, np.ndarray]]]
"""(crops, prediction on the CPU, whether depth was used) -> by key, (B, ...) arrays by name."""


@dataclass
class Measured:
    """Result of a pass for one key.

    Attributes:
        arrays: (N, ...) by name, in the order of the source; empty if no sample was measured.
        missing: the samples that were not measured, by index.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    missing: dict[int, BadSample] = field(default_factory=dict)


def measure_source(
    model: UTNet,
    crops: CropDataset,
    loading: TrainConfig,
    measure: Measure[Key],
    *,
    uses_depth: Mapping[Key, bool],
    with_vertices: bool,
    world: ProcessInfo | None = None,
    progress: bool = False,
) -> dict[Key, Measured]:
    """Runs the network once per batch and input (RGB, RGB-D) and collects what `measure` returns.

    Args:
        model: the network; its training mode is restored.
        crops: of the source.
        loading: `batch_size`, `num_workers` and `worker_timeout_s`.
        measure: called in each process with its batches.
        uses_depth: by key, whether it is measured with depth. Crops without a depth image are then missing.
        with_vertices: predict meshes, too.
        world: the processes (default: the current process group). All of them get the result.
        progress: show a progress bar.

    Raises:
        InputError: the processes together did not read every sample.
    """
    world = world or process_info()
    own: dict[Key, _Parts] = {key: _Parts() for key in uses_depth}
    inputs = list(dict.fromkeys(uses_depth.values()))
    num_batches, num_forward = -(-len(crops) // (loading.batch_size * world.size)), 0
    shown = None if progress and world.is_main else True
    was_training = model.training
    model.eval()
    try:
        with tqdm(total=num_batches, desc="score", disable=shown, leave=False) as bar:
            for batch in crop_batches(crops, loading, rank=world.rank, world_size=world.size):
                for use_depth in inputs:
                    part = with_depth(batch) if use_depth else batch
                    for key in (key for key, used in uses_depth.items() if used == use_depth):
                        own[key].missing.update(part.missing)
                    if part.batch is None:
                        continue
                    out = forward(model, part, use_depth=use_depth, with_vertices=with_vertices)
                    num_forward += 1
                    index = np.array([crop.index for crop in part.crops])
                    for key, arrays in measure(part, out, use_depth).items():
                        own[key].append({"index": index, **arrays})
                bar.update()
        if any(map(is_sharded, model.parameters())):
            _spare_passes(model, crops, num_batches * len(inputs) - num_forward, with_vertices=with_vertices)
    finally:
        model.train(was_training)
        reshard(model)
    everyone = world.gather(own)
    return {key: _in_order([parts[key] for parts in everyone], len(crops)) for key in uses_depth}


def forward(model: UTNet, part: CropBatch, *, use_depth: bool, with_vertices: bool = True) -> Prediction:
    """Runs the network on a batch; returns the prediction on the CPU."""
    assert part.batch is not None
    batch = part.batch.to(next(model.parameters()).device)
    with torch.no_grad():  # not inference_mode, whose tensors a network that is trained further must not keep
        out = model.forward_batch(batch, use_depth=use_depth, with_vertices=with_vertices)
    return out.map(lambda tensor: tensor.detach().cpu())


@dataclass
class _Parts:
    """Results of one process: lists of per-batch arrays by name."""

    arrays: dict[str, list[np.ndarray]] = field(default_factory=lambda: defaultdict(list))
    missing: dict[int, BadSample] = field(default_factory=dict)

    def append(self, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self.arrays[name].append(array)


def _in_order(parts: list[_Parts], num: int) -> Measured:
    """Merges the results of all processes, in the order of the source."""
    merged, missing = _Parts(), {index: bad for part in parts for index, bad in part.missing.items()}
    for part in parts:
        for name, batches in part.arrays.items():
            merged.arrays[name] += batches
    arrays = {name: np.concatenate(each) for name, each in merged.arrays.items()}
    index = arrays.pop("index", np.empty(0, int))
    if sorted([*index.tolist(), *missing]) != list(range(num)):
        raise InputError(f"{len(index)} of {num} samples were read; a mean over a part is not reported")
    order = np.argsort(index, kind="stable")
    return Measured({name: array[order] for name, array in arrays.items()}, dict(sorted(missing.items())))


def _spare_passes(model: UTNet, crops: CropDataset, num: int, *, with_vertices: bool) -> None:
    """Runs a sharded network `num` more times, since all processes must run it equally often."""
    items = (crops[index] for index in range(len(crops) if num else 0))
    crop = next((item for item in items if isinstance(item, Crop)), None)
    if crop is None:  # then no process has run it
        return
    spare = CropBatch(collate([crop.sample]), [crop], {})
    for _ in range(num):
        forward(model, spare, use_depth=False, with_vertices=with_vertices)
