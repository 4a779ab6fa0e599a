"""`utnet bulk`. Heavy imports are inside the command."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from utnet.cli.options import Name
from utnet.cli.predict_command import Flag, read_camera_option
from utnet.errors import InputError
from utnet.predict.methods.resolve import Method, resolve_method

if TYPE_CHECKING:
    from utnet.apps.bulk.job import Summary

Words = Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...", help_behavior_hint="")]
Place = Annotated[str, tyro.conf.arg(metavar="PLACE")]


def bulk_predict(
    source: Words,
    out: Place,
    column: Name = None,
    weights: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None,
    method: Method = "auto",
    K: Annotated[str | None, tyro.conf.arg(metavar="FX,FY,CX,CY|FILE", help_behavior_hint="")] = None,
    raw: Flag = False,
    overlay: Flag = False,
    npz: Flag = False,
    unit: int = 64,
    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS", help_behavior_hint="")] = None,
    workers: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None,
) -> None:
    """Predicts hands in many pictures, videos and tars, local or in object storage, into parquet tables.

    Started again with the same arguments, it does what is left. Exit code: 0 success, 1 some inputs could not be read
    completely (problems.parquet), 2 bad arguments or failing storage.

    Args:
        source: folders, globs, lists (.txt, .csv, .parquet), tars of pictures, videos and recordings; paths or URLs.
        out: folder or URL of the results.
        column: of lists that holds the paths (default: file, else the first).
        weights: as of `utnet predict`; a path must be the same on every node.
        method: as of `utnet predict`.
        K: intrinsics of all pictures, as of `utnet predict`.
        raw: do not smooth videos.
        overlay: also write pictures with the hands drawn, in tars.
        npz: also write arrays, in tars.
        unit: pictures of a unit; a tar, video or recording is one.
        ray: a Ray cluster: HOST:PORT, ray://HOST:PORT, auto (one that runs here) or local (started for this call).
        workers: processes of this machine without --ray (default: its cores).
    """
    from utnet.apps.bulk.engine import cores, run_here, run_on_ray
    from utnet.apps.bulk.job import run_job
    from utnet.apps.bulk.sources import find_items
    from utnet.apps.bulk.units import Options
    from utnet.predict.formats import require

    require("pyarrow", "utnet bulk")
    if unit < 1 or (workers is not None and workers < 1):
        raise InputError(f"--unit is {unit} and --workers is {workers}; expected at least 1")
    options = Options(
        weights=None if weights is None else str(weights),
        method=resolve_method(method, weights, None),
        camera=None if K is None else read_camera_option(K),
        raw=raw,
        overlay=overlay,
        npz=npz,
    )
    if ray is not None and workers is not None:
        raise InputError("--workers is of this machine's processes; a cluster uses all of its cores: leave it out")
    engine = partial(run_here, workers=workers or cores()) if ray is None else partial(run_on_ray, address=ray)
    summary = run_job(find_items(source, column=column), out, options, engine, pictures=unit)
    print(_line(summary, out))
    if summary.problems:
        sys.exit(1)


def _line(summary: Summary, out: str) -> str:
    """The result for the terminal."""
    earlier = f" ({summary.earlier} were finished before)" if summary.earlier else ""
    problems = f", {summary.problems} problems (problems.parquet)" if summary.problems else ""
    return (
        f"{summary.units} units{earlier}: {summary.pictures} pictures, {summary.frames} frames, {summary.hands} hands"
        f"{problems}: {out}"
    )
