"""A job: what is left of it is given to workers; manifest, problems and summary are written."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

from utnet.apps.bulk import storage
from utnet.apps.bulk.engine import Work
from utnet.apps.bulk.sources import Item
from utnet.apps.bulk.units import FORMAT, Options, Unit, describe, units_of
from utnet.apps.bulk.work import RECORDS, do_unit
from utnet.errors import BAD_TREE, InputError

MANIFEST, SUMMARY, PROBLEMS = "manifest.json", "summary.json", "problems.parquet"
_READERS = 16
"""Threads that read the records of finished units."""

Engine = Callable[[Work, Sequence[Unit]], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Summary:
    """Result of a job; summary.json holds the same but `earlier`.

    Attributes:
        units: all of the job.
        pictures: number of pictures processed.
        frames: of videos and recordings.
        hands: in all of them.
        problems: inputs that failed or are incomplete; problems.parquet names them.
        earlier: units that an earlier call had finished.
    """

    units: int
    pictures: int
    frames: int
    hands: int
    problems: int
    earlier: int


def run_job(items: Sequence[Item], place: str, options: Options, engine: Engine, *, pictures: int = 64) -> Summary:
    """Does what is left of a job; the result is the same whichever calls and workers have done it.

    Args:
        items: of `find_items`.
        place: folder or URL of the results.
        options: what is done.
        engine: gives units to workers: `engine.run_here` or `engine.run_on_ray`.
        pictures: of a unit.

    Raises:
        InputError: the place holds something else, is inside the source, or storage fails.
        WorkerError: workers were lost again and again.
    """
    place = storage.absolute(place)
    inside = next((item.url for item in items if item.url.startswith(f"{place}/")), None)
    if inside is not None:
        raise InputError(f"--out {place}: contains the input {inside}; give a place without inputs")
    units = units_of(items, pictures)
    _claim(place, {"format": FORMAT, "job": describe(items, units, options) | {"pictures_a_unit": pictures}})
    done = {name.removesuffix(".json") for name in storage.names_in(f"{place}/{RECORDS}")}
    left = [unit for unit in units if unit.name not in done]
    seen = 0
    with tqdm(total=len(units), initial=len(units) - len(left), unit="unit", disable=None) as bar:
        for record in engine(partial(do_unit, options, place), left):
            seen += record["pictures"] + record["frames"]
            bar.set_postfix_str(f"{seen / max(bar.format_dict['elapsed'], 1e-3):.1f} pictures/s")
            bar.update()
    return _finish(place, units, earlier=len(units) - len(left))


def _claim(place: str, manifest: dict[str, Any]) -> None:
    """Writes the manifest, or checks that the one in the place is the same."""
    path = f"{place}/{MANIFEST}"
    try:
        found = json.loads(storage.read(path))["job"]
    except FileNotFoundError:
        if others := storage.names_in(place):
            raise InputError(f"--out {place}: holds {others[0]}, and is no bulk job's; give a new place") from None
        storage.write(path, json.dumps(manifest, indent=1).encode() + b"\n")
        return
    except BAD_TREE as error:
        raise InputError(f"{path}: damaged, or not of utnet bulk; give a new place") from error
    job = json.loads(json.dumps(manifest["job"]))
    differ = [key for key in job if not isinstance(found, dict) or found.get(key) != job[key]]
    if differ:
        raise InputError(f"--out {place}: holds another job's results ({', '.join(differ)} differ); give a new place")


def _finish(place: str, units: Sequence[Unit], *, earlier: int) -> Summary:
    """Reads the records of all units and writes problems.parquet and summary.json."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ThreadPoolExecutor(_READERS) as pool:
        paths = (f"{place}/{RECORDS}/{unit.name}.json" for unit in units)
        records = [json.loads(data) for data in pool.map(storage.read, paths)]
    rows = [{**problem, "unit": record["unit"]} for record in records for problem in record["problems"]]
    data = io.BytesIO()
    schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("file", "why", "unit")])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), data, compression="zstd")
    storage.write(f"{place}/{PROBLEMS}", data.getvalue())
    counts = {name: sum(record[name] for record in records) for name in ("pictures", "frames", "hands")}
    counts = {"units": len(units), **counts, "problems": len(rows)}
    storage.write(f"{place}/{SUMMARY}", json.dumps(counts, indent=1).encode() + b"\n")
    return Summary(**counts, earlier=earlier)
