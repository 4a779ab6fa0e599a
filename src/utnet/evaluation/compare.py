"""Comparison of two scored runs on the same samples: paired differences with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from utnet.data.sources import counted
from utnet.errors import InputError
from utnet.evaluation.rows import METRICS, Row
from utnet.evaluation.saved_scores import SavedRun
from utnet.evaluation.summary import MIN_TO_JUDGE, clusters_of, format_interval, interval_ends, reported


def compare_runs(a: SavedRun, b: SavedRun, *, pairs: list[tuple[int, int]] | None = None, seed: int = 0) -> dict:
    """Computes differences B - A for each protocol.

    Args:
        a: one run.
        b: another run on the same samples.
        pairs: indices of the rows of `a` and `b` to compare; default: rows of the same protocol.
        seed: seed of the bootstrap.

    Returns:
        Plain JSON: `a`, `b` (folders), `rows`: labels and for each metric `a`, `b`, `difference` (b - a), `low`,
        `high` (None if all samples are of one recording), `excludes_zero` and `better` ("a", "b", or None if the
        interval contains 0 or is over fewer than `MIN_TO_JUDGE` recordings or samples).

    Raises:
        InputError: the data or samples differ, or there is no common protocol.
    """
    if pairs is None:
        pairs = [(i, j) for i, x in enumerate(a.rows) for j, y in enumerate(b.rows) if x.protocol == y.protocol]
        if not pairs:
            raise InputError(
                f"{a.folder} and {b.folder} have no protocol in common; name a row of each to compare: --rows 0 0"
            )
    for i, j in pairs:
        if not (0 <= i < len(a.rows) and 0 <= j < len(b.rows)):
            raise InputError(f"rows {i} and {j}: the runs have {len(a.rows)} and {len(b.rows)} rows, counted from 0")
    rows = []
    for i, j in pairs:
        _check_same(a, b, a.rows[i], b.rows[j])
        rows.append(_compare(a.rows[i], b.rows[j], seed))
    return {"a": str(a.folder), "b": str(b.folder), "rows": rows}


def _check_same(a: SavedRun, b: SavedRun, x: Row, y: Row) -> None:
    """Raises InputError unless both rows are of the same samples."""
    for what in ("name", "num", "keys_sha256"):
        if a.about["data"].get(what) != b.about["data"].get(what):
            raise InputError(
                f"{a.folder} and {b.folder} are scores on different data ({what}: {a.about['data'].get(what)} and "
                f"{b.about['data'].get(what)}); score both on the same split"
            )
    if len(x) != len(y) or not (x.keys == y.keys).all():
        raise InputError(
            f"{a.folder} has {len(x)} samples and {b.folder} {len(y)}, and they are not the same ones (missing: "
            f"{len(x.missing)} and {len(y.missing)}); only pairs are compared"
        )


def _compare(x: Row, y: Row, seed: int) -> dict[str, Any]:
    cluster, over = clusters_of(x.sequences)
    num_clusters = int(cluster.max()) + 1
    names = [name for name in reported(x) if name in reported(y)]
    before, after = (np.stack([row.metrics[name] for name in names], 1) for row in (x, y))
    ends = interval_ends(after - before, cluster, seed=seed)
    metrics = {}
    for i, (name, (low, high)) in enumerate(zip(names, ends, strict=True)):
        difference = float((after[:, i] - before[:, i]).mean())
        excludes = low is not None and high is not None and (low > 0 or high < 0)
        b_is_better = (difference > 0) == METRICS[name].higher_is_better
        metrics[name] = {
            "a": float(before[:, i].mean()),
            "b": float(after[:, i].mean()),
            "difference": difference,
            "low": low,
            "high": high,
            "excludes_zero": excludes,
            "better": ("b" if b_is_better else "a") if excludes and num_clusters >= MIN_TO_JUDGE else None,
        }
    return {
        "label_a": x.label,
        "label_b": y.label,
        "num": len(x),
        "interval": {"over": over, "num": num_clusters, "seed": seed},
        "metrics": metrics,
    }


def compare_lines(result: dict[str, Any]) -> Iterator[str]:
    """Yields lines of text with the comparison."""
    yield f"A: {result['a']}"
    yield f"B: {result['b']}"
    for row in result["rows"]:
        yield ""
        same = row["label_a"] == row["label_b"]
        yield row["label_a"] if same else f"A: {row['label_a']}; B: {row['label_b']}"
        interval = row["interval"]
        yield f"{counted(row['num'], 'hand')}; {format_interval(interval)}"
        if interval["num"] < MIN_TO_JUDGE:
            yield f"no verdict: at least {MIN_TO_JUDGE} {interval['over']} are required (here: {interval['num']})"
        yield f"{'':44s}{'A':>9s}{'B':>9s}{'B - A':>10s}   interval"
        for name, m in row["metrics"].items():
            shown = METRICS[name]
            d = shown.decimals
            verdict = "no difference shown" if m["better"] is None else f"{m['better'].upper()} is better"
            if interval["num"] < MIN_TO_JUDGE:
                verdict = ""
            ends = "" if m["low"] is None else f"[{m['low']:+.{d}f}, {m['high']:+.{d}f}]"
            numbers = f"{m['a']:9.{d}f}{m['b']:9.{d}f}{m['difference']:+10.{d}f}"
            yield f"  {shown.title:42s}{numbers}   {ends:20s} {verdict}".rstrip()
