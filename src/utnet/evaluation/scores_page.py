"""`report.html` of a scored run: scores with intervals, curves, histograms, bars, recordings, drawn cases."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utnet.evaluation.figures import finger_figure, histogram_figure, joint_figure, pck_figure
from utnet.evaluation.protocol import INPUTS, Protocol
from utnet.evaluation.published import comparison_table
from utnet.evaluation.rows import METRICS, Row
from utnet.evaluation.summary import format_interval
from utnet.render.html import picture, write_page

_STYLE = """
td small { color: #4b5a6b; white-space: nowrap; } th { vertical-align: bottom; }
td, th { padding: .35rem .7rem; } td:first-child { white-space: nowrap; }
"""
_JOINTS = ("mpjpe_mm", "pa_mpjpe_mm", "st_mpjpe_mm", "absolute_mpjpe_mm", "auc", "pa_auc")
_SHOWN_SEQUENCES = 40
_CASES = "White, dashed: ground truth. Orange, solid: prediction. Left hands are shown mirrored."


def write_scores_page(
    path: str | Path,
    *,
    title: str,
    facts: list[str],
    rows: list[Row],
    summaries: list[dict[str, Any]],
    constant: dict[str, float],
    sheets: Mapping[str, np.ndarray],
    links: Iterable[str],
    dataset: str = "",
) -> None:
    """Writes the page atomically.

    Args:
        path: the file.
        title: its heading.
        facts: lines below it.
        rows: the scores.
        summaries: `summary.summarise` of each row.
        constant: `validation.constant_hand` of the ground truth.
        sheets: pictures by heading.
        links: files beside the page.
        dataset: whose published scores are shown (`published.dataset_of`); "": none.
    """
    interval = summaries[0]["interval"]
    body = [f"<p class='note'>{html.escape(fact)}</p>" for fact in facts]
    body += ["<h2>Scores</h2>", _scores(summaries, constant), f"<p class='note'>{_notes(interval)}</p>"]
    body += [_mesh_scores(summaries), _not_reported(summaries[0])]
    if dataset:
        body += ["<h2>Published scores</h2>", _published(summaries, dataset)]
    body += ["<h2>PCK</h2>", picture(pck_figure(rows), "share of joints within 0 to 50 mm")]
    body += ["<h2>Errors of hands</h2>", picture(histogram_figure(rows), "histograms of MPJPE and PA-MPJPE")]
    body += ["<h2>Fingers and joints</h2>", picture(finger_figure(rows), "mean error of each finger in mm")]
    body += [picture(joint_figure(rows), "mean error of each joint in mm")]
    body += ["<h2>Sides and visibility</h2>", _groups(summaries, "sides", "hands", "labelled side")]
    body += [_groups(summaries, "visibility", "joints", "the joint is")]
    body += [
        "<p class='note'>Visible: the depth at the joint agrees with its z within 30 mm. Hidden: something is nearer. "
        "Outside: beyond the picture's edge. Unknown: no depth, or no reading there.</p>"
    ]
    if summaries[0]["sequences"]:
        body += ["<h2>Recordings</h2>", _sequences(summaries)]
    for name, sheet in sheets.items():
        data = cv2.imencode(".png", np.ascontiguousarray(sheet[..., ::-1]))[1].tobytes()
        body += [f"<h2>{html.escape(name)}</h2>", f"<p class='note'>{_CASES}</p>"]
        body.append(picture(data, name))
    items = "".join(f'<li><a href="{html.escape(file)}">{html.escape(file)}</a></li>' for file in links)
    body += ["<h2>Files</h2>", f"<ul>{items}</ul>"]
    write_page(path, title, body, style=_STYLE)


def _scores(summaries: list[dict[str, Any]], constant: dict[str, float]) -> str:
    names = [name for name in _JOINTS if name in summaries[0]["metrics"]]
    lines = [["best constant hand", "", *(_number(constant[n], n) if n in constant else "" for n in names)]]
    lines += [[_input(s), html.escape(s["label"]), *(_cell(s, name) for name in names)] for s in summaries]
    return _table(["input", "protocol", *(METRICS[name].title for name in names)], lines, reference=1)


def _published(summaries: list[dict[str, Any]], dataset: str) -> str:
    heads, rows = comparison_table(summaries, dataset)
    note = "Numbers compare only where split, boxes, joints and alignment are the same."
    lines = []
    for row in rows:
        link, _, date = row[-1].partition(" ")
        source = (
            f'<a href="{html.escape(link)}">{html.escape(link.split("/")[2])}</a> {html.escape(date)}' if link else ""
        )
        lines.append([*map(html.escape, row[:-1]), source])
    return _table(heads, lines) + f"<p class='note'>{note}</p>"


def _mesh_scores(summaries: list[dict[str, Any]]) -> str:
    names = [n for n in METRICS if n not in _JOINTS and n in summaries[0]["metrics"]]
    if not names:
        return ""
    lines = [[_input(s), html.escape(s["label"]), *(_cell(s, name) for name in names)] for s in summaries]
    return "<h2>Mesh</h2>" + _table(["input", "protocol", *(METRICS[name].title for name in names)], lines)


def _notes(interval: dict[str, Any]) -> str:
    return (
        f"Small: {format_interval(interval)}. MPJPE: mean joint error "
        "relative to the wrist, PA after Procrustes alignment, absolute in the camera. AUC: area under the PCK curve, "
        "0 to 50 mm. The best constant hand is fitted to the ground truth: no prediction that ignores the picture is "
        "better. Flips: none, since a flipped right hand is a left hand, which the network is not trained on."
    )


def _not_reported(summary: dict[str, Any]) -> str:
    reasons = {reason: name for name, reason in summary["not_reported"].items()}
    return "".join(
        f"<p class='note'>Not reported: {html.escape(METRICS[n].title)} and its like; {html.escape(r)}.</p>"
        for r, n in reasons.items()
    )


def _groups(summaries: list[dict[str, Any]], section: str, counted: str, title: str) -> str:
    lines = []
    for summary in summaries:
        for name, group in summary[section].items():
            numbers = [f"{group['mpjpe_mm']:.1f}", f"{group['pa_mpjpe_mm']:.1f}"]
            lines.append([_name(summary), name, str(group["num"]), *numbers])
    return _table(["input", title, counted, "MPJPE [mm]", "PA-MPJPE [mm]"], lines)


def _sequences(summaries: list[dict[str, Any]]) -> str:
    """Table of recordings, worst first."""
    first = summaries[0]["sequences"]
    order = sorted(first, key=lambda name: -first[name]["mpjpe_mm"])
    metrics = {"mpjpe_mm": "MPJPE [mm]"} if len(summaries) > 2 else {"mpjpe_mm": "MPJPE [mm]", "pa_mpjpe_mm": "PA [mm]"}
    heads = [f"{_name(s)}, {text}" for s in summaries for text in metrics.values()]
    lines = []
    for name in order[:_SHOWN_SEQUENCES]:
        groups = [summary["sequences"].get(name) for summary in summaries]
        cells = [f"{g[key]:.1f}" if g else "" for g in groups for key in metrics]
        lines.append([html.escape(name), str(first[name]["num"]), *cells])
    more = len(order) - _SHOWN_SEQUENCES
    note = f"<p class='note'>and {more} more in scores.json</p>" if more > 0 else ""
    return _table(["recording (worst first)", "hands", *heads], lines) + note


def _table(heads: list[str], lines: list[list[str]], *, reference: int = 0) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in heads)
    body = ""
    for i, line in enumerate(lines):
        kind = ' class="reference"' if i < reference else ""
        body += f"<tr{kind}>" + "".join(f"<td>{cell}</td>" for cell in line) + "</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(summary: dict[str, Any], name: str) -> str:
    metric = summary["metrics"][name]
    if metric["low"] is None:
        return _number(metric["mean"], name)
    low, high = _number(metric["low"], name), _number(metric["high"], name)
    return f"{_number(metric['mean'], name)}<br><small>{low} to {high}</small>"


def _number(value: float, name: str) -> str:
    return f"{value:.3f}" if METRICS[name].decimals == 3 else f"{value:.1f}"


def _input(summary: dict[str, Any]) -> str:
    return INPUTS[Protocol(**summary["protocol"]).input]


def _name(summary: dict[str, Any]) -> str:
    return html.escape(Protocol(**summary["protocol"]).short)
