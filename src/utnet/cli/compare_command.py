"""`utnet compare`. Heavy imports are inside the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from utnet.cli.options import File, check_writable, optional
from utnet.errors import InputError

if TYPE_CHECKING:
    from utnet.evaluation.saved_scores import SavedRun


def compare(
    run_a: Annotated[Path, tyro.conf.arg(metavar="RUN_A"), tyro.conf.Positional],
    run_b: Annotated[Path | None, optional("[RUN_B]"), tyro.conf.Positional] = None,
    published: bool = False,
    rows: Annotated[tuple[int, int] | None, optional("A B")] = None,
    predictions: File = None,
    json: File = None,
) -> None:
    """Compares two evaluations, or one with published scores: paired differences on the same samples, with intervals.

    Args:
        run_a: a folder written by `utnet eval CKPT --out FOLDER`.
        run_b: another one, on the same samples.
        published: instead of run_b: the scores of papers on this data set, with their protocols and sources.
        rows: index of a row of each, from 0 (default: all protocols that both have).
        predictions: instead of RUN_B another program's joints of the same samples, .npz: keys (of per_sample.csv) and
            joints_cam_m or pred_keypoints_3d (N, 21, 3); compared after Procrustes alignment.
        json: also write the numbers to this file.
    """
    from utnet.evaluation.compare import compare_lines, compare_runs
    from utnet.evaluation.given_predictions import load_predictions
    from utnet.evaluation.saved_scores import load_run
    from utnet.io.atomic import write_json

    check_writable(json)
    if (run_b is not None) + published + (predictions is not None) != 1:
        raise InputError(f"{run_a}: compare it with another run, --predictions FILE, or published scores (--published)")
    if published:
        _compare_published(load_run(run_a), json)
        return
    a, pairs = load_run(run_a), None if rows is None else [rows]
    if predictions is not None:
        b, pairs = load_predictions(predictions, a), pairs or [(0, 0)]
    else:
        assert run_b is not None
        b = load_run(run_b)
    result = compare_runs(a, b, pairs=pairs)
    for line in compare_lines(result):
        print(line)
    if json:
        write_json(json, result)


def _compare_published(run: SavedRun, path: Path | None) -> None:
    from utnet.evaluation.published import comparison_lines, dataset_of, published_rows
    from utnet.io.atomic import write_json

    data = run.about["data"]
    dataset = dataset_of(data)
    if not published_rows(dataset):
        raise InputError(
            f"{run.folder}: no published scores of {data['name']} {data.get('split', '')} ({data.get('num')} hands) "
            "are included; available are FreiHAND's and HO3D's complete evaluation splits and DexYCB's s0 test"
        )
    for line in comparison_lines(run.about["rows"], dataset):
        print(line)
    if path:
        write_json(path, {"dataset": dataset, "run": run.about["rows"], "published": published_rows(dataset)})
