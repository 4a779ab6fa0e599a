"""A job: distributes unfinished units to workers; writes manifest, problems and summary."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from tqdm import tqdm

import utnet
from utnet.apps.bulk import storage
from utnet.apps.bulk.chunks import CHUNKS, cut_videos, join_chunks
from utnet.apps.bulk.engine import Work
from utnet.apps.bulk.sources import Item
from utnet.apps.bulk.units import Task, Unit, items_sha256, units_of
from utnet.apps.bulk.work import RECORDS, do_unit
from utnet.errors import BAD_TREE, InputError

FORMAT = "utnet-bulk-1"
MANIFEST, SUMMARY, PROBLEMS = "manifest.json", "summary.json", "problems.parquet"
_READERS = 16
"""Number of threads that read records of finished units."""

Engine = Callable[[Work, Sequence[Unit]], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Summary:
    """Result of a job; summary.json has the same without `earlier`.

    Attributes:
        units: number of units of the job.
        counts: sums over the units, such as pictures, frames and hands.
        problems: inputs that failed or are incomplete; problems.parquet names them.
        earlier: number of units finished by earlier calls.
    """

    units: int
    counts: dict[str, int]
    problems: int
    earlier: int


def run_on_items(
    items: Sequence[Item], place: str, task: Task, engine: Engine, *, pictures: int = 64, chunk_s: float = 0.0
) -> Summary:
    """Starts or continues a job on pictures, tars, videos and recordings.

    Args:
        items: of `find_items`.
        place: folder or URL of the results.
        task: processes a unit.
        engine: distributes units to workers.
        pictures: number per unit.
        chunk_s: length of the chunks into which longer videos are cut; 0: not cut.

    Raises:
        InputError: as of `run_job`, or the place contains an item.
    """
    place = storage.absolute(place)
    inside = next((item.url for item in items if item.url.startswith(f"{place}/")), None)
    if inside is not None:
        raise InputError(f"--out {place}: contains the input {inside}; give a folder without inputs")
    source = {"sha256": items_sha256(items), "inputs": len(items), "pictures_a_unit": pictures, "chunk_s": chunk_s}
    units = units_of(items, pictures)
    return run_job(cut_videos(units, chunk_s) if chunk_s else units, source, place, task, engine)


def run_job(
    units: Sequence[Unit],
    source: dict[str, Any],
    place: str,
    task: Task,
    engine: Engine,
    finish: Callable[[str, Sequence[dict[str, Any]]], None] | None = None,
) -> Summary:
    """Starts or continues a job; the result does not depend on the distribution to calls and workers.

    Args:
        units: of the job.
        source: identity of the source.
        place: folder or URL of the results.
        task: processes a unit.
        engine: distributes units to workers: `engine.run_here` or `engine.run_on_ray`.
        finish: called with the place and the records of all units, to write common files.

    Raises:
        InputError: the place contains other files, or storage fails.
        WorkerError: a worker cannot continue, for example with a full disk.
    """
    place = storage.absolute(place)
    about = {"command": task.command, "utnet": utnet.__version__, "source": source, "options": task.identity()}
    _claim(place, {"format": FORMAT, "job": about, "units": len(units)})
    done = {name.removesuffix(".json") for name in storage.names_in(f"{place}/{RECORDS}")}
    left = [unit for unit in units if any(part.name not in done for part in (unit, *unit.chunks))]
    seen = 0
    joined = [unit for unit in left if unit.chunks]
    rest = [unit for unit in left if not unit.chunks]
    with tqdm(total=len(units), initial=len(units) - len(left), unit="unit", disable=None) as bar:
        for do, some in ((task.do, rest), (partial(join_chunks, place), joined)):
            for record in engine(partial(do_unit, do, place), some) if some else ():
                if record.get("lost"):
                    path = f"{place}/{RECORDS}/{record['unit']}.json"
                    storage.write(path, json.dumps(record, indent=1).encode() + b"\n")
                seen += sum(record["counts"].get(name, 0) for name in ("pictures", "frames", "samples"))
                bar.set_postfix_str(f"{seen / max(bar.format_dict['elapsed'], 1e-3):.1f} pictures/s", refresh=False)
                bar.update()
    records = _records(place, units)
    if not any(record.get("lost") for record in records):  # else they would be joined again
        storage.remove(f"{place}/{CHUNKS}")
    if finish is not None:
        finish(place, records)
    return _finish(place, records, earlier=len(units) - len(left))


def _records(place: str, units: Sequence[Unit]) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(_READERS) as pool:
        paths = (f"{place}/{RECORDS}/{unit.name}.json" for unit in units)
        return [json.loads(data) for data in pool.map(storage.read, paths)]


def _claim(place: str, manifest: dict[str, Any]) -> None:
    """Writes the manifest, or checks that the one in the place is the same."""
    path = f"{place}/{MANIFEST}"
    try:
        found = json.loads(storage.read(path))["job"]
    except FileNotFoundError:
        if others := storage.names_in(place):
            raise InputError(
                f"--out {place}: contains {others[0]}, which is not of a bulk job; give a new place"
            ) from None
        storage.write(path, json.dumps(manifest, indent=1).encode() + b"\n")
        return
    except storage.StorageError:
        raise
    except BAD_TREE as error:
        raise InputError(f"{path}: damaged, or not of utnet bulk; give a new place") from error
    job = json.loads(json.dumps(manifest["job"]))
    differ = [key for key in job if not isinstance(found, dict) or found.get(key) != job[key]]
    if differ:
        raise InputError(
            f"--out {place}: contains the results of another job ({', '.join(differ)} differ); give a new place"
        )


def _finish(place: str, records: Sequence[dict[str, Any]], *, earlier: int) -> Summary:
    """Writes problems.parquet and summary.json."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{**problem, "unit": record["unit"]} for record in records for problem in record["problems"]]
    data = io.BytesIO()
    schema = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("file", "why", "unit")])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), data, compression="zstd")
    storage.write(f"{place}/{PROBLEMS}", data.getvalue())
    names = dict.fromkeys(name for record in records for name in record["counts"])
    counts = {name: sum(record["counts"].get(name, 0) for record in records) for name in names}
    summary = {"units": len(records), "counts": counts, "problems": len(rows)}
    storage.write(f"{place}/{SUMMARY}", json.dumps(summary, indent=1).encode() + b"\n")
    return Summary(len(records), counts, len(rows), earlier)
