"""Sources -> batches: crops of right hands, the same for a seed whatever the number of workers and processes.

The augmentation of a sample depends only on (seed, epoch, index), or in a stream on (seed, pass, key).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Sampler, get_worker_info

from utnet.config import AugmentConfig, Config, CropConfig
from utnet.data.augment import augment as augment_sample
from utnet.data.collate import collate, label_fault
from utnet.data.prompts_and_masks import PromptsAndMasks
from utnet.data.source import BadSample, Source, StreamSource, bad_sample, epoch_order, is_stream, read_sample
from utnet.data.transforms import right_crop
from utnet.data.workers import init_worker, iterate, worker_context
from utnet.errors import InputError, as_input_error
from utnet.types import Batch, Sample

_PREFETCH = 2
"""Batches prefetched per worker."""


class _Crops:
    """Crops of samples, whole or BadSample.

    Args:
        size_px: side of the crops.
        config: how crops are cut.
        augment: how their pixels are changed, or None.
        seed: of the jitters; None gives the fixed crops of evaluation.
        p_drop: probability that a sample loses its depth; not in evaluation.
        extras: prompts and masks.
    """

    def __init__(
        self,
        size_px: int,
        config: CropConfig,
        augment: AugmentConfig | None,
        seed: int | None,
        p_drop: float = 0.0,
        extras: PromptsAndMasks | None = None,
    ):
        self._size_px, self._config, self._augment, self._seed = size_px, config, augment, seed
        self._p_drop, self._extras = p_drop, extras or PromptsAndMasks()

    def __call__(self, sample: Sample, epoch: int, number: int) -> Sample | BadSample:
        """`number`: index of the sample, or a hash of its key."""
        fault = label_fault(sample)
        if fault:
            return BadSample(sample.key, fault)
        rng = None if self._seed is None else np.random.default_rng((self._seed, epoch, number))
        out = right_crop(sample, self._size_px, self._config, rng)
        out = self._extras(out, np.random.default_rng((self._seed or 0, epoch, number, 2)))
        if self._augment is not None and rng is not None and (self._augment.crops or not sample.is_crop):
            out = augment_sample(out, self._augment, rng)
        return replace(out, depth_m=None) if self._drops(epoch, number) else out  # last: the rest is drawn as with it

    def _drops(self, epoch: int, number: int) -> bool:
        """Whether a sample loses its depth: a draw of its own, which leaves the others as they are."""
        if self._seed is None or self._p_drop == 0:
            return False
        return np.random.default_rng((self._seed, epoch, number, 1)).random() < self._p_drop


class CropDataset(Dataset):
    """Crops of a map-style source, indexed by (epoch, index)."""

    def __init__(self, source: Source, crops: _Crops):
        self._source, self._crops = source, crops

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, item: tuple[int, int]) -> Sample | BadSample:
        epoch, index = item
        sample = read_sample(self._source, index)
        if isinstance(sample, BadSample):
            return sample
        try:
            return self._crops(sample, epoch, index)
        except Exception as error:
            return bad_sample(sample.key, error)


class _Fatal(BadSample):
    """A stream that failed."""


@dataclass(frozen=True)
class _Placed:
    """An item of a stream and its position: worker, pass, and number of items so far in this pass."""

    item: Sample | BadSample
    place: tuple[int, int, int]


class CropStream(IterableDataset):
    """Crops of a stream: this worker's part of one pass, or of endless passes.

    Args:
        source: the stream.
        crops: what is made of its samples.
        turn: the worker whose batch comes first.
        places: (pass, samples of it that were yielded already) by worker, from which it is resumed.
        seed: of the order.
        endless: pass after pass; otherwise one.
        rank: this process among `world_size`.
        world_size: processes.
    """

    def __init__(
        self,
        source: StreamSource,
        crops: _Crops,
        turn: int,
        places: dict[str, tuple[int, int]],
        *,
        seed: int,
        endless: bool,
        rank: int = 0,
        world_size: int = 1,
    ):
        self._source, self._crops, self._seed, self._endless = source, crops, seed, endless
        self._turn, self._places, self._rank, self._world_size = turn, places, rank, world_size

    def __iter__(self) -> Iterator[_Placed]:
        info = get_worker_info()
        worker, workers = ((info.id + self._turn) % info.num_workers, info.num_workers) if info else (0, 1)
        part, num_parts = self._rank * workers + worker, self._world_size * workers
        epoch, num = self._places[str(worker)]
        while True:
            num_good = num
            going_on = {"skip": num} if num else {}
            try:
                share = {"seed": self._seed, "epoch": epoch, "part": part, "num_parts": num_parts, **going_on}
                for number, item in _passes(self._source, **share):
                    if isinstance(item, Sample):
                        try:
                            item = self._crops(item, number, zlib.crc32(item.key.encode()))
                        except Exception as error:
                            item = bad_sample(item.key, error)
                    num_good += isinstance(item, Sample)
                    num += 1
                    yield _Placed(item, (worker, epoch, num))
            except Exception as error:  # it would reach the main process wrapped in a traceback
                message = str(as_input_error(error, self._source.name))
                yield _Placed(_Fatal(self._source.name, message), (worker, epoch, num))
                return
            epoch, num = epoch + 1, 0
            if not self._endless or num_good == 0:  # nothing of this part can be read: another pass would not end
                return


def _passes(source: StreamSource, *, epoch: int, **share: int) -> Iterator[tuple[int, Sample | BadSample]]:
    """What a stream gives, each with the number of its pass."""
    if hasattr(source, "passes"):
        return source.passes(epoch=epoch, **share)
    return ((epoch, item) for item in source.stream(epoch=epoch, **share))


class _Order(Sampler):
    """(epoch, index) pairs of one process: once in order, or endlessly, each epoch shuffled by (seed, epoch).

    The processes take turns in one order that continues from epoch to epoch, so that together they see every sample
    once an epoch, and a step's batches together hold what one process with a batch `world_size` times as large would
    see.
    """

    def __init__(self, num: int, *, endless: bool, seed: int = 0, start: int = 0, rank: int = 0, world_size: int = 1):
        self._num, self._endless, self._seed = num, endless, seed
        self._start, self._world_size = start + rank, world_size

    def __len__(self) -> int:
        num = self._num if self._endless else max(0, self._num - self._start)
        return -(-num // self._world_size)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        if not self._endless:
            yield from ((0, index) for index in range(self._start, self._num, self._world_size))
            return
        epoch, place = divmod(self._start, self._num)
        while True:
            order = epoch_order(self._num, seed=self._seed, epoch=epoch)
            while place < self._num:
                yield epoch, int(order[place])
                place += self._world_size
            skipped, place = divmod(place, self._num)
            epoch += skipped


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
        if isinstance(sample, _Fatal):
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
        place = items[-1].place if isinstance(items[-1], _Placed) else None
        items = [item.item if isinstance(item, _Placed) else item for item in items]
        good = [item for item in items if isinstance(item, Sample)]
        bad = [item for item in items if isinstance(item, BadSample)]
        batch = collate(good, hand_model=self._hand_model, root_id=self._root_id) if good else None
        return batch, bad, len(items), place


def make_loader(
    source: Source | StreamSource,
    config: Config,
    *,
    train: bool,
    position: dict | None = None,
    augment: bool | None = None,
    hand_model: str = "open",
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
    extras: PromptsAndMasks | None = None,
) -> Loader:
    """The loader of a run.

    Args:
        source: whole images, or crops of right hands where a sample's `is_crop` is True; map-style, or a stream.
        config: `seed`, `crop`, `augment`, `model.{size_px, p_drop}`, `loss.root_id` and
            `train.{batch_size, num_workers, worker_timeout_s, max_bad_samples}`.
        train: endless, shuffled, jittered, augmented, some without their depth; otherwise every sample once, in its
            fixed crop.
        position: `Loader.position` of this process where training stopped, exact to the sample, including bad ones.
            A stream is skipped up to there, with the same number of workers; with another number it starts another
            pass. {"drawn": N} alone is after N samples of each process, of a source that is no stream.
        augment: change pixels; by default in training.
        hand_model: the model that is learnt (see `collate`).
        rank: this process among `world_size`.
        world_size: processes that share the samples.
        pin_memory: put batches where a GPU fetches them from fastest.
        extras: prompts and masks of the samples.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # workers that spin slow a small machine by up to 100 times
    changes = config.augment if (train if augment is None else augment) else None
    crops = _Crops(
        config.model.size_px, config.crop, changes, config.seed if train else None, config.model.p_drop, extras
    )
    num_workers, seed, limit = config.train.num_workers, config.seed, config.train.worker_timeout_s
    position = _begun(position, max(1, num_workers))
    dataset: Dataset
    if is_stream(source):
        sampler, at = None, (position["turn"], position["places"])
        dataset = CropStream(source, crops, *at, seed=seed, endless=train, rank=rank, world_size=world_size)
    else:
        num, start = len(source), position["drawn"] * world_size  # type: ignore[arg-type]
        sampler = _Order(num, endless=train, seed=seed, start=start, rank=rank, world_size=world_size)
        dataset = CropDataset(source, crops)  # type: ignore[arg-type]
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=config.train.batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=_Collate(hand_model, config.loss.root_id),
        worker_init_fn=init_worker,
        multiprocessing_context=worker_context(num_workers),
        generator=torch.Generator(),  # reading must not move the random state of whoever trains
        prefetch_factor=_PREFETCH if num_workers else None,
        pin_memory=pin_memory,
    )
    max_bad = config.train.max_bad_samples
    return Loader(source, loader, train=train, max_bad=max_bad, timeout_s=limit, position=position)


def _begun(position: dict | None, workers: int) -> dict:
    """The position for a number of workers; if that has changed, a stream starts another pass."""
    position = {"drawn": 0, "turn": 0, "places": {}, **(position or {})}
    places = position["places"]
    if len(places) != workers:
        epoch = 1 + max((epoch for epoch, _ in places.values()), default=-1)
        position |= {"turn": 0, "places": {str(worker): (epoch, 0) for worker in range(workers)}}
    return position
