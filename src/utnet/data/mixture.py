"""Several sources drawn by weight, without end, as HaMeR and WiLoR train."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from utnet.data.source import BadSample, Source, StreamSource, is_stream
from utnet.errors import InputError
from utnet.types import Sample

_SHUFFLED = 2**24
"""Longer sources are endless ones, whose items are random already: they are read in their own order."""


class Mixture:
    """A `StreamSource` that never ends: every draw takes a part by its weight, and that part's next sample.

    The parts run through their own epochs at their own speed, each shuffled and dealt to the loader's parts, so that no
    sample of a part comes twice before all of it came. Keys start with the part's place and name: `0-dexycb/...`.

    Attributes:
        shares: weights over their sum.
        tips: the parts' tips where they agree, else "".
    """

    name = "mixture"

    def __init__(self, parts: Sequence[tuple[Source | StreamSource, float]]):
        if not parts:
            raise InputError("a mixture needs at least one part")
        weights = np.array([weight for _, weight in parts], np.float64)
        if not (np.isfinite(weights).all() and (weights > 0).all()):
            raise InputError(f"the weights of a mixture are {weights.tolist()}; expected numbers above 0")
        self.parts = [source for source, _ in parts]
        self.shares = weights / weights.sum()
        tips = {source.tips for source in self.parts}
        self.tips = tips.pop() if len(tips) == 1 else ""
        self.counts = {f"{i}-{s.name}": int(getattr(s, "__len__", lambda: 0)()) for i, s in enumerate(self.parts)}

    def stream(
        self, *, seed: int, epoch: int, part: int, num_parts: int, skip: int = 0
    ) -> Iterator[Sample | BadSample]:
        """Samples without end; `epoch` gives other draws (a part's own epochs start at 0 in each)."""
        rng = np.random.default_rng((seed, epoch, part))
        seeds = [int(np.random.SeedSequence((seed, epoch, i)).generate_state(1)[0]) for i in range(len(self.parts))]
        streams = [
            _endless(source, f"{i}-{source.name}", seeds[i], part, num_parts) for i, source in enumerate(self.parts)
        ]
        while True:
            for i in rng.choice(len(streams), 1024, p=self.shares).tolist():
                read = next(streams[i])
                if skip:
                    skip -= 1
                    continue
                yield read()


def _endless(
    source: Source | StreamSource, name: str, seed: int, part: int, num_parts: int
) -> Iterator[Callable[[], Sample | BadSample]]:
    """This loader part's share of a source, epoch after epoch: calls that read a sample, with keys that start with
    `name`."""
    epoch, alone = 0, False
    bad: list[BadSample] = []

    def read(call: Callable[[], Sample | BadSample]) -> Sample | BadSample:
        item = call()
        if isinstance(item, BadSample):
            bad.append(item)
        return replace(item, key=f"{name}/{item.key}")

    while True:
        num = 0
        bad.clear()
        share = (0, 1) if alone else (part, num_parts)
        for call in _one_pass(source, seed + (part if alone else 0), epoch, *share):
            num += 1
            yield partial(read, call)
        if num == 0 and not alone:
            alone = True  # fewer samples than loader parts: each goes through all of them
            continue
        if len(bad) == num:
            message = bad[-1].message if bad else "it is empty"
            raise InputError(f"{name} of the mixture gives no sample ({message}); take it out, or mend it")
        epoch += 1


def _one_pass(
    source: Source | StreamSource, seed: int, epoch: int, part: int, num_parts: int
) -> Iterator[Callable[[], Sample | BadSample]]:
    if is_stream(source):
        share = {"seed": seed, "epoch": epoch, "part": part, "num_parts": num_parts}
        if hasattr(source, "calls"):
            yield from source.calls(**share)
        else:
            yield from (partial(_given, item) for item in source.stream(**share))
        return
    num = len(source)  # type: ignore[arg-type]
    order = np.random.default_rng((seed, epoch)).permutation(num) if num <= _SHUFFLED else range(num)
    yield from (partial(_read, source, int(index)) for index in order[part::num_parts])  # type: ignore[arg-type]


def _read(source: Source, index: int) -> Sample | BadSample:
    try:
        return source[index]
    except InputError as error:
        return BadSample(source.key(index), str(error))


def _given(item: Sample | BadSample) -> Sample | BadSample:
    return item
