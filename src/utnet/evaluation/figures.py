"""Figures of a scored run as PNG: PCK curves, error histograms, bars per joint and finger.

Colours are Okabe and Ito's (distinguishable for colour-blind readers); lines also differ in dashes.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from utnet.conventions import JOINT_NAMES
from utnet.evaluation.rows import Row
from utnet.evaluation.summary import fingers
from utnet.metrics import pck_curve

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), "-.", (0, (3, 1, 1, 1, 1, 1)))
_KINDS = (("root", "relative to the wrist"), ("pa", "after the best similarity (PA)"))


def pck_figure(rows: list[Row]) -> bytes:
    """PCK curves from 0 to 50 mm, relative to the wrist and after alignment."""
    figure, axes = _axes(2, 4.8)
    for panel, (kind, text) in zip(axes, _KINDS, strict=True):
        for i, row in enumerate(rows):
            thresholds, fractions = pck_curve(row.joints_mm[kind])
            panel.plot(thresholds, 100 * fractions, color=_color(i), linestyle=_dash(i), label=_name(row), linewidth=2)
        panel.set(title=f"joints {text}", xlabel="threshold [mm]", ylabel="joints within it [%]")
        panel.set(xlim=(0, 50), ylim=(0, 100))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(rows), frameon=False)
    return _png(figure)


def histogram_figure(rows: list[Row]) -> bytes:
    """Histograms of the samples' mean errors, with medians; the last bin contains all larger errors."""
    figure, axes = _axes(2, 4.0)
    for panel, kind, text in zip(axes, ("mpjpe_mm", "pa_mpjpe_mm"), ("MPJPE", "PA-MPJPE"), strict=True):
        values = [row.metrics[kind] for row in rows]
        top = max(1.0, float(np.percentile(np.concatenate(values), 99)))
        bins = np.linspace(0, top, 1 + int(np.clip(1.5 * np.sqrt(len(rows[0])), 8, 40)))
        for i, (row, errors) in enumerate(zip(rows, values, strict=True)):
            shares = np.full(len(errors), 100 / len(errors))
            panel.hist(
                np.minimum(errors, top),
                bins,
                weights=shares,
                histtype="step",
                color=_color(i),
                linestyle=_dash(i),
                linewidth=1.8,
                label=f"{_name(row)}, median {np.median(errors):.1f} mm",
            )
        panel.set(title=f"{text} of a hand", xlabel="error [mm], last bin: this or more", ylabel="hands [%]")
        panel.set(xlim=(0, top), ylim=(0, panel.get_ylim()[1] * (1.0 + 0.1 * len(rows))))  # the legend goes above
        panel.legend(frameon=False)
    return _png(figure)


def joint_figure(rows: list[Row]) -> bytes:
    """Mean error of each joint, relative to the wrist."""
    names = [name.replace("_", " ") for name in JOINT_NAMES]
    return _bars(rows, names, [np.s_[:, i : i + 1] for i in range(len(names))], ("root",), width=12)


def finger_figure(rows: list[Row]) -> bytes:
    """Mean error of each finger, relative to the wrist and after alignment."""
    groups = dict(fingers())
    return _bars(rows, list(groups), list(groups.values()), ("root", "pa"), width=12)


def _bars(rows: list[Row], names: list[str], columns: list[Any], kinds: tuple[str, ...], *, width: float) -> bytes:
    figure, axes = _axes(len(kinds), 4.2, width)
    for panel, kind in zip(axes, kinds, strict=True):
        share = 0.8 / len(rows)
        for i, row in enumerate(rows):
            means = [row.joints_mm[kind][which].mean() for which in columns]
            places = np.arange(len(names)) + (i - (len(rows) - 1) / 2) * share
            hatch = ("", "///", "...", "xx")[i % 4]
            panel.bar(places, means, share, color=_color(i), label=_name(row), hatch=hatch, edgecolor="white")
        panel.set_xticks(np.arange(len(names)), names, rotation=60 if len(names) > 8 else 0, fontsize=9)
        if len(names) > 8:
            for tick in panel.get_xticklabels():
                tick.set(ha="right", rotation_mode="anchor")
        panel.set(title=f"mean error {dict(_KINDS)[kind]}", ylabel="error [mm]", xlim=(-0.6, len(names) - 0.4))
        panel.set_ylim(0, panel.get_ylim()[1] * (1.0 + 0.09 * len(rows)))  # space for the legend
        panel.legend(frameon=False, ncols=1, loc="upper left")
    return _png(figure)


def _axes(num: int, height: float, width: float = 12.0) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(figure.subplots(1, num)))
    for panel in axes:
        panel.grid(alpha=0.25)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Any) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()


def _color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def _dash(i: int) -> Any:
    return _DASHES[i % len(_DASHES)]


def _name(row: Row) -> str:
    return row.protocol.short
