"""An endless mixture of sources drawn by weight, as in the training of HaMeR and WiLoR."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import numpy as np

from utnet.data.source import BadSample, Source, StreamSource, epoch_order, is_stream, read_sample
from utnet.errors import InputError
from utnet.types import Sample

_Call: TypeAlias = Callable[[], Sample | BadSample]
"""Reads one sample."""

_BUFFER_BYTES = 256 * 2**20
"""What the shuffle buffers of all parts together hold, in each worker."""


class Mixture:
    """An endless `StreamSource`: each draw selects a part by its weight, and that part's next sample.

    The parts run through their own epochs at their own speed, each shuffled and dealt to the loader's parts, so that no
    sample of a part comes twice before all of it came. Keys start with the part's place and name: `0-dexycb/...`.

    Attributes:
        shares: weights over their sum.
        tips: the parts' tips where they agree, else "".
        buffer_bytes: what the shuffle buffer of a part that is read in passing may hold.
    """

    name = "mixture"

    def __init__(self, parts: Sequence[tuple[Source | StreamSource, float]], *, buffer_bytes: int = _BUFFER_BYTES):
        """Parts with their weights, and what their shuffle buffers together may hold in each worker."""
        if not parts:
            raise InputError("a mixture needs at least one part")
        weights = np.array([weight for _, weight in parts], np.float64)
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise InputError(f"the weights of a mixture are {weights.tolist()}; expected numbers above 0")
        self.parts = [source for source, _ in parts]
        self.shares = weights / weights.sum()
        self.buffer_bytes = buffer_bytes // max(1, sum(map(is_stream, self.parts)))
        tips = {source.tips for source in self.parts}
        self.tips = tips.pop() if len(tips) == 1 else ""
        self.counts = {f"{i}-{s.name}": int(getattr(s, "__len__", lambda: 0)()) for i, s in enumerate(self.parts)}

    def stream(
        self, *, seed: int, epoch: int, part: int, num_parts: int, skip: int = 0
    ) -> Iterator[Sample | BadSample]:
        """Samples without end; `epoch` gives other draws (a part's own epochs start at 0 in each)."""
        for _, item in self.passes(seed=seed, epoch=epoch, part=part, num_parts=num_parts, skip=skip):
            yield item

    def passes(
        self, *, seed: int, epoch: int, part: int, num_parts: int, skip: int = 0
    ) -> Iterator[tuple[int, Sample | BadSample]]:
        """`stream`, before each sample the number of the pass: the mixture's `epoch` and the part's in one."""
        rng = np.random.default_rng((seed, epoch, part))
        seeds = [int(np.random.SeedSequence((seed, epoch, i)).generate_state(1)[0]) for i in range(len(self.parts))]
        streams = [
            _endless(source, f"{i}-{source.name}", seeds[i], part, num_parts, self.buffer_bytes)
            for i, source in enumerate(self.parts)
        ]
        while True:
            for i in rng.choice(len(streams), 1024, p=self.shares).tolist():
                number, read = next(streams[i])
                if skip:
                    skip -= 1
                    continue
                yield (epoch << 32) + number, read()


def _endless(
    source: Source | StreamSource, name: str, seed: int, part: int, num_parts: int, buffer_bytes: int
) -> Iterator[tuple[int, _Call]]:
    """This loader part's share of a source, pass after pass: the pass's number, and a call that reads a sample, whose
    key starts with `name`."""
    # Fewer samples than loader parts: each part goes through all of them.
    epoch, alone = 0, not is_stream(source) and len(source) < num_parts  # type: ignore[arg-type]
    bad: list[BadSample] = []

    def read(call: _Call) -> Sample | BadSample:
        item = call()
        if isinstance(item, BadSample):
            bad.append(item)
        return replace(item, key=f"{name}/{item.key}")

    while True:
        num = 0
        bad.clear()
        share = (0, 1) if alone else (part, num_parts)
        number = epoch * num_parts + part if alone else epoch  # alone, every loader part makes passes of its own
        for call in _one_pass(source, seed + (part if alone else 0), epoch, *share, buffer_bytes):
            num += 1
            yield number, partial(read, call)
        if num == 0 and not alone:
            alone = True  # a stream with fewer samples than loader parts
            continue
        if len(bad) == num:
            message = bad[-1].message if bad else "it is empty"
            raise InputError(f"{name} of the mixture gives no sample ({message}); take it out, or mend it")
        epoch += 1


def _one_pass(
    source: Source | StreamSource, seed: int, epoch: int, part: int, num_parts: int, buffer_bytes: int
) -> Iterator[_Call]:
    if is_stream(source):
        share = {"seed": seed, "epoch": epoch, "part": part, "num_parts": num_parts}
        if hasattr(source, "calls"):
            yield from source.calls(**share, buffer_bytes=buffer_bytes)
        else:
            yield from (partial(_given, item) for item in source.stream(**share))
        return
    order = epoch_order(len(source), seed=seed, epoch=epoch)  # type: ignore[arg-type]
    yield from (partial(read_sample, source, int(index)) for index in order[part::num_parts])  # type: ignore[arg-type]


def _given(item: Sample | BadSample) -> Sample | BadSample:
    return item
