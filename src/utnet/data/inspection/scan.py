"""One pass over every sample of a source, in worker processes; unreadable samples are listed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from tqdm import tqdm

from utnet.data.source import BadSample, bad_sample, is_stream, read_sample
from utnet.data.workers import init_worker, iterate, worker_context
from utnet.types import Sample

_CHUNK = 16
"""Samples measured together: enough to share the cost of a call, few enough for a smooth progress bar."""

Measure = Callable[[list[Sample]], dict[str, np.ndarray]]
"""Samples -> arrays with one row a sample."""


@dataclass
class ScanResult:
    """Result of a pass.

    Attributes:
        arrays: the measurements, one row a readable sample.
        keys: their keys.
        sequences: the number of each one's recording in `sequence_names`.
        failures: the samples that could not be read.
    """

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    sequences: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    sequence_names: list[str] = field(default_factory=list)
    failures: list[BadSample] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class _Part:
    arrays: dict[str, np.ndarray] | None
    keys: list[str]
    sequences: list[str]
    failures: list[BadSample]


def scan(source: Any, measure: Measure, *, workers: int = 0, progress: bool = False) -> ScanResult:
    """Reads every sample once and measures it.

    Args:
        source: a `Source`, or a `StreamSource` whose passes end.
        measure: must be picklable.
        workers: processes; 0 reads in this one.
        progress: show a bar.

    Raises:
        WorkerError: a worker was killed, or hangs.
    """
    stream = is_stream(source)
    dataset: Any = _Stream(source, measure) if stream else _Chunks(source, measure)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=init_worker,
        multiprocessing_context=worker_context(workers),
    )
    scanned, parts = ScanResult(), []
    names: dict[str, int] = {}
    sequences: list[int] = []
    num = None if stream else len(source)
    with tqdm(total=num, desc=f"reading {source.name}", unit="sample", disable=None if progress else True) as bar:
        for part in iterate(loader):
            if part.arrays is not None:
                parts.append(part.arrays)
            scanned.keys += part.keys
            scanned.failures += part.failures
            sequences += [names.setdefault(name, len(names)) for name in part.sequences]
            bar.update(len(part.keys) + len(part.failures))
    scanned.arrays = {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
    scanned.sequences, scanned.sequence_names = np.array(sequences, np.int64), list(names)
    return scanned


def _part(items: list[Sample | BadSample], measure: Measure) -> _Part:
    """Measures the samples together; where that fails, one by one, to name the sample that caused it."""
    samples = [item for item in items if isinstance(item, Sample)]
    failures = [item for item in items if isinstance(item, BadSample)]
    try:
        arrays = measure(samples) if samples else None
    except Exception as error:
        if len(items) == 1:
            return _Part(None, [], [], [bad_sample(samples[0].key, error)])
        parts = [_part([item], measure) for item in items]
        measured = [part.arrays for part in parts if part.arrays is not None]
        arrays = {name: np.concatenate([part[name] for part in measured]) for name in measured[0]} if measured else None
        samples = [item for item, part in zip(items, parts, strict=True) if isinstance(item, Sample) and part.keys]
        failures = [failure for part in parts for failure in part.failures]
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
        indices = range(chunk * _CHUNK, min((chunk + 1) * _CHUNK, len(self._source)))
        return _part([read_sample(self._source, index) for index in indices], self._measure)


class _Stream(IterableDataset):
    """One pass of a stream; each worker reads its part."""

    def __init__(self, source: Any, measure: Measure):
        self._source, self._measure = source, measure

    def __iter__(self) -> Iterator[_Part]:
        info = torch.utils.data.get_worker_info()
        part, num_parts = (0, 1) if info is None else (info.id, info.num_workers)
        items: list[Sample | BadSample] = []
        try:
            for item in self._source.stream(seed=0, epoch=0, part=part, num_parts=num_parts):
                items.append(item)
                if len(items) == _CHUNK:
                    yield _part(items, self._measure)
                    items = []
        except Exception as error:  # it would reach the main process wrapped in a traceback
            items.append(bad_sample(self._source.name, error))
        if items:
            yield _part(items, self._measure)


def _as_it_is(item: Any) -> Any:
    return item
