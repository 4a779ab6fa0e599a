"""Units of work, whose names depend only on the source, and tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from utnet.apps.bulk.sources import Item


@dataclass(frozen=True)
class Unit:
    """Inputs that a worker processes together.

    Attributes:
        name: prefix of its result files, such as part-000012.
        urls: of the inputs, sorted: some pictures, a tar, a video or a recording.
        samples: start and end indices in a data set; without urls.
        span_s: of a chunk of a video: start and end in seconds; the last one's end is infinite.
        chunks: of a video: units whose results are joined in this one (`chunks.join_chunks`).
    """

    name: str
    urls: tuple[str, ...] = ()
    samples: tuple[int, int] = (0, 0)
    span_s: tuple[float, float] | None = None
    chunks: tuple[Unit, ...] = ()


class Task(Protocol):
    """Processing of units; sent to workers as a pickle.

    Attributes:
        command: predict, label or shard.
    """

    command: str

    def identity(self) -> dict[str, Any]:
        """Returns the settings that the results depend on, besides the source."""

    def do(self, unit: Unit, folder: Path) -> Any:
        """Processes a unit; returns its `work.Result`, with files in the temporary folder."""


def units_of(items: Sequence[Item], pictures: int) -> list[Unit]:
    """Returns the units of items: `pictures` pictures in each, other items one by one."""
    return [Unit(f"part-{number:06d}", urls) for number, urls in enumerate(_groups(sorted(items), pictures))]


def _groups(items: Sequence[Item], pictures: int) -> Iterator[tuple[str, ...]]:
    yield from ((item.url,) for item in items if item.kind != "picture")
    rest = (item.url for item in items if item.kind == "picture")
    while group := tuple(islice(rest, pictures)):
        yield group


def items_sha256(items: Sequence[Item]) -> str:
    """Returns a hash of the kinds and URLs of items."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.kind} {item.url}\n".encode())
    return digest.hexdigest()
