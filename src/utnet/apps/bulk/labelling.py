"""`utnet bulk label`: processing of the inputs of a unit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any

from utnet.apps.bulk.predicting import predictor
from utnet.apps.bulk.sources import Item
from utnet.apps.bulk.units import Unit
from utnet.apps.bulk.work import Result, Source, local_inputs, packed
from utnet.apps.label.agreement import Limits
from utnet.apps.label.candidates import WINDOW
from utnet.apps.label.dataset import Summary, kept_hands
from utnet.apps.label.sequences import by_pattern
from utnet.data.shards.shard_format import encode_sample
from utnet.errors import InputError


@dataclass(frozen=True)
class Label:
    """`utnet label` on the inputs: tars of kept hands, which `data.name: tars` reads, by split.

    A sequence belongs to the split val if the hash of its name is below `val_share`, so all units agree.

    Attributes:
        root: names of sequences are relative to this folder or URL.
        sequence_by: regular expression on the path of a picture (`utnet label --sequence-by`); None: by its folder.
        val_share: fraction of the sequences.
        every: label every n-th frame of videos.
        limits: of the agreement scores.
    """

    root: str
    sequence_by: str | None = None
    val_share: float = 0.1
    every: int = 5
    limits: Limits = Limits()  # noqa: RUF009 (frozen)

    command = "label"

    def __post_init__(self):
        if not 0 <= self.val_share < 0.5 or self.every < 1:
            given = f"--val-share is {self.val_share}, --every is {self.every}"
            raise InputError(f"{given}; expected 0 to below 0.5, and at least 1")
        if self.sequence_by is not None:
            by_pattern(self.sequence_by)

    def identity(self) -> dict[str, Any]:
        """Returns the settings that the results depend on, besides the source."""
        return asdict(self)

    def do(self, unit: Unit, folder: Path) -> Result:
        """Processes a unit."""
        result, summary = Result(), Summary()
        members: dict[str, list[tuple[str, bytes]]] = {}
        for item, source in local_inputs(unit, folder, result):
            try:
                sequence = self._sequence(item.kind, source)
            except InputError as error:
                result.note(source, str(error))
                continue
            split = "val" if _fraction(sequence) < self.val_share else "train"
            for found in kept_hands(item, item.name, predictor(None, "fit"), self.limits, self.every, summary):
                number = summary.kept[split] = summary.kept.get(split, 0) + 1
                sample = replace(found.sample, key=f"{unit.name}/{found.name}", sequence=sequence)
                encoded = encode_sample(
                    sample, tips="", jpeg_quality=WINDOW.jpeg_quality, depth_unit_m=WINDOW.depth_unit_m
                )
                stem = f"{unit.name}-{number - 1:06d}"
                members.setdefault(split, []).extend((f"{stem}.{ending}", data) for ending, data in encoded.items())
            for problem in summary.problems:
                result.note(source, problem["why"], item.source)
            summary.problems = []
        result.counts = {"pictures": summary.pictures, "frames": summary.frames, "hands": summary.found}
        result.counts |= {f"kept_{split}": summary.kept.get(split, 0) for split in ("train", "val")}
        result.counts |= {f"dropped_{reason}": num for reason, num in summary.dropped.items()}
        for split, files in members.items():
            result.files[f"labels/{split}/{unit.name}.tar"] = packed(folder / f"{split}.tar", files)
        return result

    def _sequence(self, kind: str, source: Source) -> str:
        if kind == "picture" and self.sequence_by is not None:
            return by_pattern(self.sequence_by)(Path(source.file))
        place = source.file if kind != "picture" else source.source.rpartition("/")[0]
        if source.member is not None:
            place = f"{source.source}/{PurePosixPath(source.member).parent}".removesuffix("/.")
        return place.removeprefix(f"{self.root}/")


def common_folder(items: Sequence[Item]) -> str:
    """Returns the common parent folder or URL of all items."""
    parents = [item.url.split("/")[:-2] for item in items]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(min(parents), max(parents), strict=False))
    return "/".join(first for first, _ in same)


def _fraction(name: str) -> float:
    """A number from 0 to 1 by the hash of a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
