"""Scores as text for the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from utnet.data.sources import counted
from utnet.evaluation.protocol import INPUTS, Protocol
from utnet.evaluation.rows import METRICS
from utnet.evaluation.summary import format_interval

_SHOWN = ("mpjpe_mm", "pa_mpjpe_mm", "absolute_mpjpe_mm", "auc", "pve_mm", "pa_pve_mm", "pa_f5", "pa_f15")
_TITLES = {"absolute_mpjpe_mm": "absolute [mm]"}


def score_lines(summaries: list[dict[str, Any]], constant: dict[str, float]) -> Iterator[str]:
    """Yields lines with the protocol of each row and its numbers with 95 % intervals.

    Args:
        summaries: `summary.summarise` of each row.
        constant: `validation.constant_hand` of the ground truth.
    """
    first = summaries[0]
    yield f"{counted(first['num'], 'hand')}; [{format_interval(first['interval'])}]"
    titles = ("MPJPE [mm]", "PA-MPJPE [mm]", "AUC")
    values = (f"{constant['mpjpe_mm']:.1f}", f"{constant['pa_mpjpe_mm']:.1f}", f"{constant['auc']:.3f}")
    yield _line("best constant hand", zip(titles, values, strict=True))
    for summary in summaries:
        yield f"{INPUTS[Protocol(**summary['protocol']).input]} ({summary['label']})"
        cells = [
            (_TITLES.get(name, METRICS[name].title), _cell(summary["metrics"][name], METRICS[name].decimals))
            for name in _SHOWN
            if name in summary["metrics"]
        ]
        for start in range(0, len(cells), 4):
            yield _line("", cells[start : start + 4])


def _line(name: str, cells: Any) -> str:
    return f"{name:20s}" + "   ".join(f"{title} {value}" for title, value in cells)


def _cell(metric: dict[str, Any], decimals: int) -> str:
    d = 1 if decimals == 2 else decimals
    mean = f"{metric['mean']:.{d}f}"
    return mean if metric["low"] is None else f"{mean} [{metric['low']:.{d}f}, {metric['high']:.{d}f}]"
