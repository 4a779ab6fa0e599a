"""One pass over every sample of a source, in worker processes; what cannot be read is kept by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm import tqdm

from utnet.data.source import is_stream
from utnet.types import Sample

_CHUNK = 16
"""Samples measured together: enough to share the cost of a call, few enough for a smooth progress bar."""

Measure = Callable[[list[Sample]], dict[str, np.ndarray]]
"""Samples -> arrays with one row a sample."""


@dataclass(frozen=True)
class Failure:
    """A sample that could not be read: its message names the file; `missing` where there is no such file."""

    key: str
    message: str
    missing: bool


@dataclass
class Walked:
    """What a pass found.

    Attributes:
        arrays: the measurements, one row a readable sample.
        keys: their keys.
        sequences: the number of each one's recording in `sequence_names`.
        failures: what could not be read.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    sequences: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    sequence_names: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class _Part:
    arrays: dict[str, np.ndarray] | None
    keys: list[str]
    sequences: list[str]
    failures: list[Failure]


def walk(source: Any, measure: Measure, *, workers: int = 0, progress: bool = False) -> Walked:
    """Reads every sample once and measures it.

    Args:
        source: a `Source`, or a `StreamSource` whose passes end.
        measure: must be picklable.
        workers: processes; 0 reads in this one.
        progress: show a bar.
    """
    stream = is_stream(source)
    dataset: Any = _Stream(source, measure) if stream else _Chunks(source, measure)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=workers, collate_fn=_as_it_is, worker_init_fn=_init_worker
    )
    walked, parts = Walked(), []
    names: dict[str, int] = {}
    sequences: list[int] = []
    num = None if stream else len(source)
    with tqdm(total=num, desc=f"reading {source.name}", unit="sample", disable=None if progress else True) as bar:
        for part in loader:
            if part.arrays is not None:
                parts.append(part.arrays)
            walked.keys += part.keys
            walked.failures += part.failures
            sequences += [names.setdefault(name, len(names)) for name in part.sequences]
            bar.update(len(part.keys) + len(part.failures))
    walked.arrays = {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
    walked.sequences, walked.sequence_names = np.array(sequences, np.int64), list(names)
    return walked


def _part(samples: list[Sample], failures: list[Failure], measure: Measure) -> _Part:
    arrays = measure(samples) if samples else None
    return _Part(arrays, [s.key for s in samples], [s.sequence for s in samples], failures)


class _Chunks(Dataset):
    """Neighbouring samples of a map-style source, measured."""

    def __init__(self, source: Any, measure: Measure):
        self._source, self._measure = source, measure

    def __len__(self) -> int:
        return -(-len(self._source) // _CHUNK)

    def __getitem__(self, chunk: int) -> _Part:
        if chunk >= len(self):
            raise IndexError(chunk)
        samples, failures = [], []
        for index in range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(self._source))):
            try:
                samples.append(self._source[index])
            except ValueError as error:  # InputError, and labels that make no Sample
                missing = isinstance(error.__cause__, FileNotFoundError)
                failures.append(Failure(self._source.key(index), str(error), missing))
        return _part(samples, failures, self._measure)


class _Stream(IterableDataset):
    """One pass of a stream; each worker takes its part."""

    def __init__(self, source: Any, measure: Measure):
        self._source, self._measure = source, measure

    def __iter__(self) -> Iterator[_Part]:
        info = torch.utils.data.get_worker_info()
        part, num_parts = (0, 1) if info is None else (info.id, info.num_workers)
        samples: list[Sample] = []
        failures: list[Failure] = []
        for item in self._source.stream(seed=0, epoch=0, part=part, num_parts=num_parts):
            if isinstance(item, Sample):
                samples.append(item)
            else:
                failures.append(Failure(item.key, item.message, "no such file" in item.message))
            if len(samples) + len(failures) == _CHUNK:
                yield _part(samples, failures, self._measure)
                samples, failures = [], []
        if samples or failures:
            yield _part(samples, failures, self._measure)


def _as_it_is(item: Any) -> Any:
    return item


def _init_worker(_: int) -> None:
    """One thread a worker: the workers are the threads."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
