"""`utnet bulk shard`: packs a labelled data set into tars, one per unit, with an index."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from utnet.apps.bulk import storage
from utnet.apps.bulk.job import Engine, Summary, run_job
from utnet.apps.bulk.units import Unit
from utnet.apps.bulk.work import Result, Source
from utnet.data.shards.write_shards import ShardOptions, describe, write_part, write_tables
from utnet.data.source import BadSample
from utnet.data.sources import fingerprint
from utnet.errors import InputError

_OPENED: dict[str, Any] = {}
"""The source of this process, by its description."""


@dataclass(frozen=True)
class Shard:
    """`utnet data shard` on the samples of a unit.

    Attributes:
        open_source: opens the data set, on every worker.
        choice: its description.
        options: of the stored samples.
    """

    open_source: Callable[[], Any]
    choice: str
    options: ShardOptions

    command = "shard"

    def identity(self) -> dict[str, Any]:
        """Returns the settings that the results depend on, besides the source."""
        return {"choice": self.choice, **asdict(self.options)}

    def do(self, unit: Unit, folder: Path) -> Result:
        """Processes a unit."""
        if self.choice not in _OPENED:
            _OPENED.clear()
            _OPENED[self.choice] = self.open_source()
        result = Result()
        part, bad = write_part(_OPENED[self.choice], folder, self.options, *unit.samples)
        for shard in part["shards"]:
            name = f"{unit.name}.tar"
            result.files[name] = folder / shard["file"]
            shard["file"] = name
        for sample in bad:
            result.note(Source(sample.key, sample.key), sample.message)
        result.counts, result.index = {"samples": len(part["rows"])}, part
        return result


def shard_in_bulk(task: Shard, place: str, engine: Engine, *, samples: int = 1024) -> Summary:
    """Writes a shard set in units, to be read by `data.name: shards` from a folder or `tars` from a URL.

    Args:
        task: the data set and storage options.
        place: folder or URL of the results.
        engine: distributes units to workers.
        samples: number per unit.

    Raises:
        InputError: as of `run_job`, or no sample can be read.
    """
    source = task.open_source()
    starts = range(0, len(source), samples)
    spans = [(first, min(first + samples, len(source))) for first in starts]
    units = [Unit(f"part-{number:06d}", samples=span) for number, span in enumerate(spans)]

    def finish(place: str, all_records: Sequence[dict[str, Any]]) -> None:
        shards, rows = list[dict](), list[list[int]]()
        records = [record for record in all_records if not record.get("lost")]
        for record in records:
            rows += [[len(shards), *places] for _, *places in record["rows"]]
            shards += record["shards"]
        if not rows:
            raise InputError(f"{source.name}: no sample can be read; problems are in {place}/units")
        keys, sequences = ([item for record in records for item in record[name]] for name in ("keys", "sequences"))
        bad = [BadSample(problem["file"], problem["why"]) for record in all_records for problem in record["problems"]]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_tables(folder, rows, keys, sequences, shards, describe(source, task.options, bad))
            for file in sorted(folder.iterdir()):  # shards.json is written last and completes the set
                storage.write(f"{place}/{file.name}", file)

    about = {**fingerprint(source), "samples_a_unit": samples}
    return run_job(units, about, place, task, engine, finish)
