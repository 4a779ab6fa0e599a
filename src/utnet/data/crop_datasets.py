"""Crops of right hands as datasets of torch's loader: of map-style sources and of streams.

The augmentation of a sample depends only on (seed, epoch, index), or in a stream on (seed, pass, key).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from utnet.config import AugmentConfig, CropConfig
from utnet.data.augment import augment as augment_sample
from utnet.data.collate import label_fault
from utnet.data.prompts_and_masks import PromptsAndMasks
from utnet.data.source import BadSample, Source, StreamSource, bad_sample, epoch_order, read_sample
from utnet.data.transforms import right_crop
from utnet.errors import as_input_error
from utnet.types import Sample


class CropMaker:
    """Makes crops of samples.

    Args:
        size_px: side of the crops.
        crop: how crops are cut.
        augment: how pixels are augmented, or None.
        seed: of the jitters; None gives the fixed crops of evaluation.
        p_drop: probability that a sample loses its depth; not in evaluation.
        extras: prompts and masks.
    """

    def __init__(
        self,
        size_px: int,
        crop: CropConfig,
        augment: AugmentConfig | None = None,
        seed: int | None = None,
        p_drop: float = 0.0,
        extras: PromptsAndMasks | None = None,
    ):
        self._size_px, self._crop, self._augment, self.seed = size_px, crop, augment, seed
        self._p_drop, self._extras = p_drop, extras or PromptsAndMasks()

    def __call__(self, sample: Sample, epoch: int, number: int) -> Sample | BadSample:
        """Returns the crop of a sample, or why it has none; `number`: its index, or a hash of its key."""
        fault = label_fault(sample)
        if fault:
            return BadSample(sample.key, fault)
        rng = None if self.seed is None else np.random.default_rng((self.seed, epoch, number))
        out = right_crop(sample, self._size_px, self._crop, rng)
        out = self._extras(out, np.random.default_rng((self.seed or 0, epoch, number, 2)))
        if self._augment is not None and rng is not None and (self._augment.crops or not sample.is_crop):
            out = augment_sample(out, self._augment, rng)
        return replace(out, depth_m=None) if self._drops(epoch, number) else out  # last: the rest is drawn as with it

    def _drops(self, epoch: int, number: int) -> bool:
        """Whether a sample loses its depth: a draw of its own, which leaves the others as they are."""
        if self.seed is None or self._p_drop == 0:
            return False
        return np.random.default_rng((self.seed, epoch, number, 1)).random() < self._p_drop


class MapCrops(Dataset):
    """Crops of a map-style source, indexed by (epoch, index)."""

    def __init__(self, source: Source, crops: CropMaker):
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


class StreamFault(BadSample):
    """A stream that failed."""


@dataclass(frozen=True)
class StreamItem:
    """An item of a stream and its position: worker, pass, and number of items so far in this pass."""

    item: Sample | BadSample
    place: tuple[int, int, int]


class StreamCrops(IterableDataset):
    """Crops of a stream: this worker's part of one pass, or of endless passes.

    Args:
        source: the stream.
        crops: makes its crops.
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
        crops: CropMaker,
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

    def __iter__(self) -> Iterator[StreamItem]:
        info = get_worker_info()
        worker, workers = ((info.id + self._turn) % info.num_workers, info.num_workers) if info else (0, 1)
        part, num_parts = self._rank * workers + worker, self._world_size * workers
        epoch, num = self._places[str(worker)]
        while True:
            num_good = num
            resumed = {"skip": num} if num else {}
            try:
                share = {"seed": self._seed, "epoch": epoch, "part": part, "num_parts": num_parts, **resumed}
                for number, item in _passes(self._source, **share):
                    if isinstance(item, Sample):
                        try:
                            item = self._crops(item, number, zlib.crc32(item.key.encode()))
                        except Exception as error:
                            item = bad_sample(item.key, error)
                    num_good += isinstance(item, Sample)
                    num += 1
                    yield StreamItem(item, (worker, epoch, num))
            except Exception as error:  # it would reach the main process wrapped in a traceback
                message = str(as_input_error(error, self._source.name))
                yield StreamItem(StreamFault(self._source.name, message), (worker, epoch, num))
                return
            epoch, num = epoch + 1, 0
            if not self._endless or num_good == 0:  # nothing of this part can be read: another pass would not end
                return


def _passes(source: StreamSource, *, epoch: int, **share: int) -> Iterator[tuple[int, Sample | BadSample]]:
    """Items of a stream, each with the number of its pass."""
    if hasattr(source, "passes"):
        return source.passes(epoch=epoch, **share)
    return ((epoch, item) for item in source.stream(epoch=epoch, **share))


class EpochOrder(Sampler):
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
