"""`utnet bulk`. Heavy imports are inside the command."""

from __future__ import annotations

import sys
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from utnet.apps.label.agreement import Limits
from utnet.cli.data_commands import Choice, open_to_shard
from utnet.cli.options import Flag, Name, Number, optional
from utnet.cli.predict_command import read_camera_option
from utnet.errors import InputError
from utnet.predict.methods.resolve import Method, resolve_method

if TYPE_CHECKING:
    from utnet.apps.bulk.job import Engine, Summary

_LIMITS = Limits()
Words = Annotated[tuple[str, ...], tyro.conf.Positional, optional("SOURCE...")]
Address = Annotated[str | None, optional("ADDRESS")]
Place = Annotated[str, tyro.conf.arg(metavar="PLACE")]


def bulk_predict(
    source: Words,
    out: Place,
    column: Name = None,
    weights: Annotated[Path | None, optional("PATH")] = None,
    method: Method = "auto",
    K: Annotated[str | None, optional("FX,FY,CX,CY|FILE")] = None,
    raw: Flag = False,
    overlay: Flag = False,
    npz: Flag = False,
    unit: int = 64,
    chunk: float = 120.0,
    ray: Address = None,
    workers: Number = None,
) -> None:
    """Predicts hands in many pictures, videos and tars, local or in object storage, into parquet tables.

    If started again with the same arguments, it continues. Exit code: 0 success, 1 some inputs could not be read
    completely (problems.parquet), 2 bad arguments or failing storage.

    Args:
        source: folders, globs, lists (.txt, .csv, .parquet), tars of pictures, videos and recordings; paths or URLs.
        out: folder or URL of the results.
        column: the column of lists with the paths (default: file, else the first).
        weights: as of `utnet predict`; a path must be valid on every node.
        method: as of `utnet predict`.
        K: intrinsics of all pictures, as of `utnet predict`.
        raw: do not smooth videos.
        overlay: also write pictures with the hands drawn, in tars.
        npz: also write arrays, in tars.
        unit: pictures per unit; a tar, video or recording is one unit.
        chunk: longer videos are cut into units of this many seconds, and their tracks joined; 0: not cut, as with
            --overlay and --npz.
        ray: a Ray cluster: HOST:PORT, auto (one running on this machine) or local (started for this call).
        workers: processes on this machine, without --ray (default: its cores).
    """
    from utnet.apps.bulk.chunks import OVERLAP_S
    from utnet.apps.bulk.job import run_on_items
    from utnet.apps.bulk.predicting import Predict
    from utnet.apps.bulk.sources import find_items

    engine = _engine(ray, workers, unit)
    if not (chunk == 0 or 2 * OVERLAP_S <= chunk < inf):
        raise InputError(f"--chunk is {chunk:g}; expected at least {2 * OVERLAP_S:g} seconds, or 0 for whole videos")
    task = Predict(
        weights=None if weights is None else str(weights),
        method=resolve_method(method, weights, None),
        camera=None if K is None else read_camera_option(K),
        raw=raw,
        overlay=overlay,
        npz=npz,
    )
    items, chunk_s = find_items(source, column=column), 0.0 if overlay or npz else chunk
    _report(run_on_items(items, out, task, engine, pictures=unit, chunk_s=chunk_s), out)


def bulk_label(
    source: Words,
    out: Place,
    column: Name = None,
    sequence_by: Annotated[str | None, optional("REGEX")] = None,
    val_share: float = 0.1,
    every: int = 5,
    limits: Limits = _LIMITS,
    unit: int = 64,
    ray: Address = None,
    workers: Number = None,
) -> None:
    """Labels hands in many pictures, videos and tars, as utnet label, into tars to train on (data.name=tars).

    If started again with the same arguments, it continues. Exit code: as of utnet bulk predict.

    Args:
        source: folders, globs, lists (.txt, .csv, .parquet), tars of pictures, and videos; paths or URLs.
        out: folder or URL of the results: labels/train/*.tar and labels/val/*.tar.
        column: the column of lists with the paths (default: file, else the first).
        sequence_by: as of utnet label: pictures with the same groups are of one person or recording (default: those of
            one folder).
        val_share: fraction of the sequences held out for validation, chosen by the hashes of their names.
        every: label every n-th frame of videos.
        limits: of the agreement scores.
        unit: pictures per unit; a tar or video is one unit.
        ray: as of utnet bulk predict.
        workers: as of utnet bulk predict.
    """
    from utnet.apps.bulk.job import run_on_items
    from utnet.apps.bulk.labelling import Label, common_folder
    from utnet.apps.bulk.sources import find_items

    engine, items = _engine(ray, workers, unit), find_items(source, column=column)
    task = Label(common_folder(items), sequence_by, val_share, every, limits)
    _report(run_on_items(items, out, task, engine, pictures=unit), out)


def bulk_shard(
    data: Choice,
    out: Place,
    size_px: int = 384,
    vertices: bool = False,
    masks: bool = False,
    unit: int = 1024,
    ray: Address = None,
    workers: Number = None,
) -> None:
    """Packs a split into tar shards, as utnet data shard, in units.

    If started again with the same arguments, it continues. Exit code: as of utnet bulk predict.

    Args:
        data: the data set, in a folder that exists on every node.
        out: folder or URL of the results.
        size_px: longest side of a stored picture.
        vertices: include labelled meshes.
        masks: include labelled masks.
        unit: samples per unit; a unit is a shard.
        ray: as of utnet bulk predict.
        workers: as of utnet bulk predict.
    """
    from utnet.apps.bulk.sharding import Shard, shard_in_bulk
    from utnet.data.shards.write_shards import ShardOptions

    engine = _engine(ray, workers, unit)
    if data.root is not None and ":/" in str(data.root):
        raise InputError(f"--root {data.root}: a data set is read from a folder; copy or mount it on every node")
    opens = open_to_shard(data, vertices=vertices, masks=masks)
    task = Shard(opens, repr((data, vertices, masks)), ShardOptions(size_px=size_px))
    _report(shard_in_bulk(task, out, engine, samples=unit), out)


def _engine(ray: str | None, workers: int | None, unit: int) -> Engine:
    """Checks the common options."""
    from utnet.apps.bulk.engine import cores, run_here, run_on_ray
    from utnet.predict.formats import require

    require("pyarrow", "utnet bulk")
    if unit < 1 or (workers is not None and workers < 1):
        raise InputError(f"--unit is {unit} and --workers is {workers}; expected at least 1")
    if ray is None:
        return partial(run_here, workers=workers or cores())
    if workers is not None:
        raise InputError("--workers applies to this machine only; a cluster uses all of its cores: leave it out")
    return partial(run_on_ray, address=ray)


def _report(summary: Summary, out: str) -> None:
    """Prints the result; exits with 1 if there were problems."""
    from utnet.data.sources import counted

    earlier = f" ({summary.earlier} were finished before)" if summary.earlier else ""
    counts = ", ".join(f"{num} {name.replace('_', ' ')}" for name, num in summary.counts.items() if num)
    print(f"{counted(summary.units, 'unit')}{earlier}: {counts or 'nothing'}: {out}")
    if summary.problems:
        print(f"{counted(summary.problems, 'problem')}: problems.parquet names the inputs")
        sys.exit(1)
