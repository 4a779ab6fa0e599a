"""Published scores of other methods, from `assets/published_scores.json`, beside those of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

from utnet.data.sources import fingerprint
from utnet.evaluation.rows import METRICS
from utnet.evaluation.submission import FREIHAND_NUM, HO3D_NUM
from utnet.evaluation.submit import is_complete

SHOWN = ("mpjpe_mm", "pa_mpjpe_mm", "pa_pve_mm", "pa_f5", "pa_f15")


def published_rows(dataset: str) -> list[dict[str, Any]]:
    """Returns the rows of a data set: "freihand", "ho3d_v2", "ho3d_v3" or "dexycb".

    A row has `method`, `protocol` (inputs, split and alignment, as far as the source states them), `source` (a link),
    `read` (date) and those scores of `SHOWN` that the source gives.
    """
    tree = json.loads((files("utnet") / "assets" / "published_scores.json").read_text(encoding="utf-8"))
    return [row for row in tree["rows"] if row["dataset"] == dataset]


def describe_split(source: Any) -> dict[str, Any]:
    """Returns the fingerprint of a source, its split, DexYCB's setup, and whether the official split is complete."""
    names = {name: getattr(source, name, "") for name in ("split", "setup")}
    return {**fingerprint(source), **names, "complete": is_complete(source)}


def dataset_of(data: dict[str, Any]) -> str:
    """The data set of a scored run by its `describe_split`; "" for one without published scores.

    Those are other splits, and parts of a split (`limit`, `subjects`), whose scores compare with no published ones.
    FreiHAND's and HO3D's evaluation splits, and HO3D's version, are known by their numbers of pictures.
    """
    name, num = data["name"], data.get("num")
    if name == "freihand":
        return name if num == FREIHAND_NUM and data.get("split") == "evaluation" else ""
    if name == "dexycb":
        return name if (data.get("setup"), data.get("split")) == ("s0", "test") and data.get("complete") else ""
    version = next((version for version, its in HO3D_NUM.items() if its == num), "")
    return f"ho3d_{version}" if name == "ho3d" and version else ""


def comparison_table(summaries: list[dict[str, Any]], dataset: str) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of a table: the run's own scores first, then the published ones by PA-MPJPE.

    Args:
        summaries: `summary.summarise` of each row of the run.
        dataset: as for `published_rows`.
    """
    heads = ["method", *(METRICS[name].title for name in SHOWN), "protocol", "source"]
    rows = []
    for summary in summaries:
        values = {name: metric["mean"] for name, metric in summary["metrics"].items()}
        rows.append(["this run", *_cells(values), summary["label"], ""])
    for row in sorted(published_rows(dataset), key=lambda row: row["pa_mpjpe_mm"]):
        rows.append([row["method"], *_cells(row), row["protocol"], f"{row['source']} (read {row['read']})"])
    return heads, rows


def comparison_lines(summaries: list[dict[str, Any]], dataset: str) -> Iterator[str]:
    """Yields the table as text for the terminal; sources are below it, numbered."""
    heads, rows = comparison_table(summaries, dataset)
    sources = list(dict.fromkeys(row[-1] for row in rows if row[-1]))
    lines = [[*heads[:-2], "[source] protocol"]]
    lines += [[*row[:-2], (f"[{sources.index(row[-1]) + 1}] " if row[-1] else "") + row[-2]] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(heads) - 1)]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)),
        ]
        yield "  ".join([*cells, line[-1]])
    yield from (f"[{number}] {source}" for number, source in enumerate(sources, 1))
    yield "Numbers compare only where split, boxes, joints and alignment are the same."


def _cells(values: dict[str, Any]) -> list[str]:
    """The scores of `SHOWN`; "" where one is not given."""
    return [f"{values[name]:.{3 if name.startswith('pa_f') else 1}f}" if name in values else "" for name in SHOWN]
