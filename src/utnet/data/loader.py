"""Sources -> batches: crops of right hands, the same for a seed whatever the number of workers and processes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from utnet.config import TrainConfig
from utnet.data.collate import collate
from utnet.data.crop_datasets import CropMaker, EpochOrder, MapCrops, StreamCrops, StreamFault, StreamItem
from utnet.data.source import BadSample, Source, StreamSource, is_stream
from utnet.data.workers import init_worker, iterate, worker_context
from utnet.errors import InputError
from utnet.types import Batch, Sample

_PREFETCH = 2
"""Batches prefetched per worker."""


class Loader:
    """Batches of a source. Training: without end. Evaluation: every sample once, map-style sources in order.

    Attributes:
        source: where the samples come from.
        bad: message of every sample that could not be read so far, by key (training skips them).
        position: its position in plain numbers, from which `make_loader` resumes.
    """

    def __init__(
        self,
        source: Source | StreamSource,
        loader: DataLoader,
        *,
        train: bool,
        max_bad: int,
        timeout_s: float,
        position: dict,
    ):
        self.source, self._loader, self._train, self._max_bad = source, loader, train, max_bad
        self._timeout_s = timeout_s
        self.bad: dict[str, str] = {}
        self.position = position

    def __len__(self) -> int:
        """Batches of one pass (of this process); TypeError for a stream, whose length is not known."""
        if is_stream(self.source):
            raise TypeError(f"{self.source.name} is read in passing: its length is not known before its end")
        return -(-len(self._loader.sampler) // self._loader.batch_size)  # type: ignore[arg-type, operator]

    def __iter__(self) -> Iterator[Batch]:
        """Yields batches.

        Raises:
            InputError: evaluation: a sample that cannot be read. Training: more than `max_bad` of them, or all.
            WorkerError: a worker was killed, or hangs.
        """
        num_empty = 0
        for batch, bad, num, place in iterate(self._loader, self._timeout_s):
            self._move(num, place)
            num_empty = num_empty + len(bad) if batch is None else 0
            for sample in bad:
                self._count(sample, num_empty)
            if batch is not None:
                yield batch
        if self._train:
            last = f"; the last: {next(reversed(self.bad.values()))}" if self.bad else ""
            raise InputError(f"{self.source.name}: no sample can be read{last}")

    def _move(self, num: int, place: tuple[int, int, int] | None) -> None:
        """`num` more samples are taken, good and bad; a stream's worker is at `place`."""
        position = {**self.position, "drawn": self.position["drawn"] + num}
        if place is not None:
            position["turn"] = (place[0] + 1) % len(position["places"])
            position["places"] = {**position["places"], str(place[0]): place[1:]}
        self.position = position

    def _count(self, sample: BadSample, num_empty: int) -> None:
        """Notes a bad sample. `num_empty`: samples since the last good one."""
        if isinstance(sample, StreamFault):
            raise InputError(sample.message)
        if not self._train:
            raise InputError(f"{sample.message} (evaluation counts every sample of the split)")
        self.bad[sample.key] = sample.message
        source, of, nothing_good = self.source, "", False
        if not is_stream(source):  # a stream that gives nothing ends by itself
            num = len(source)  # type: ignore[arg-type]
            of, nothing_good = f" of {num}", len(self.bad) >= num or num_empty > 2 * num
        if len(self.bad) > self._max_bad or nothing_good:
            raise InputError(
                f"{len(self.bad)}{of} samples cannot be read (train.max_bad_samples is "
                f"{self._max_bad}); the last: {sample.message}"
            )


class _Collate:
    """Separates good samples from bad ones; a class, as workers may have to pickle it."""

    def __init__(self, hand_model: str, root_id: int):
        self._hand_model, self._root_id = hand_model, root_id

    def __call__(self, items: list[Any]) -> tuple[Batch | None, list[BadSample], int, tuple[int, int, int] | None]:
        """The good ones, the bad ones, how many they are, and where the stream that they come from is."""
        place = items[-1].place if isinstance(items[-1], StreamItem) else None
        items = [item.item if isinstance(item, StreamItem) else item for item in items]
        good = [item for item in items if isinstance(item, Sample)]
        bad = [item for item in items if isinstance(item, BadSample)]
        batch = collate(good, hand_model=self._hand_model, root_id=self._root_id) if good else None
        return batch, bad, len(items), place


def make_loader(
    source: Source | StreamSource,
    crops: CropMaker,
    loading: TrainConfig,
    *,
    endless: bool,
    root_id: int = 0,
    position: dict | None = None,
    hand_model: str = "open",
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> Loader:
    """Creates the loader of a source.

    Args:
        source: whole images, or crops of right hands where a sample's `is_crop` is True; map-style, or a stream.
        crops: makes the crops; its seed also shuffles an endless source.
        loading: `batch_size`, `num_workers`, `worker_timeout_s` and `max_bad_samples`.
        endless: for training: shuffled, without end, unreadable samples are skipped. Otherwise every sample once.
        root_id: the root of the 3D loss (see `collate`).
        position: `Loader.position` of this process where training stopped, exact to the sample, including bad ones.
            A stream is skipped up to there, with the same number of workers; with another number it starts another
            pass. {"drawn": N} alone is after N samples of each process, of a source that is no stream.
        hand_model: the model that is learnt (see `collate`).
        rank: this process among `world_size`.
        world_size: number of processes that share the samples.
        pin_memory: allocate batches in page-locked memory, for faster copies to a GPU.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # workers that spin slow a small machine by up to 100 times
    num_workers, seed = loading.num_workers, crops.seed or 0
    position = _begun(position, max(1, num_workers))
    dataset: Dataset
    if is_stream(source):
        sampler, at = None, (position["turn"], position["places"])
        dataset = StreamCrops(source, crops, *at, seed=seed, endless=endless, rank=rank, world_size=world_size)
    else:
        num, start = len(source), position["drawn"] * world_size  # type: ignore[arg-type]
        sampler = EpochOrder(num, endless=endless, seed=seed, start=start, rank=rank, world_size=world_size)
        dataset = MapCrops(source, crops)  # type: ignore[arg-type]
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=loading.batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_Collate(hand_model, root_id),
        worker_init_fn=init_worker,
        multiprocessing_context=worker_context(num_workers),
        generator=torch.Generator(),  # reading must not change the caller's random state
        prefetch_factor=_PREFETCH if num_workers else None,
        pin_memory=pin_memory,
    )
    max_bad, timeout_s = loading.max_bad_samples, loading.worker_timeout_s
    return Loader(source, loader, train=endless, max_bad=max_bad, timeout_s=timeout_s, position=position)


def _begun(position: dict | None, workers: int) -> dict:
    """The position for a number of workers; if that has changed, a stream starts another pass."""
    position = {"drawn": 0, "turn": 0, "places": {}, **(position or {})}
    places = position["places"]
    if len(places) != workers:
        epoch = 1 + max((epoch for epoch, _ in places.values()), default=-1)
        position |= {"turn": 0, "places": {str(worker): (epoch, 0) for worker in range(workers)}}
    return position
