"""Figures and tables of `loss_study.py`: from the results of its runs, nothing is computed anew."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from utnet.io.atomic import atomic_write

NAMES = {
    "former_m": "(a) before, metres",
    "former_mm": "(a) before, millimetres",
    "former_relative": "(a) relative to the wrist, metres",
    "former_l1": "(a) with L1, metres",
    "aligned": "(b) aligned, sum",
    "aligned_mm": "(b) aligned, millimetres",
    "aligned_mean": "(b) aligned, batch_mean",
    "aligned_no_conf": "(b) with all confidences 1",
    "wilor": "(c) WiLoR, written out",
}
STYLES = {  # Okabe and Ito's colours, told apart without colour by dash and marker
    "former_m": ("#D55E00", "--", "o"),
    "former_mm": ("#E69F00", "-.", "s"),
    "aligned": ("#0072B2", "-", "^"),
    "aligned_mm": ("#56B4E9", ":", "v"),
    "aligned_mean": ("#009E73", "--", "D"),
    "aligned_no_conf": ("#CC79A7", "-.", "P"),
    "wilor": ("#000000", ":", "x"),
}
LABELS = {
    "clean": "clean",
    "translated": "3D labels moved\nas a whole",
    "occluded": "2 fingers wrong,\nconfidence 0",
    "wrist": "wrist wrong,\nconfidence 0",
}


def pick(results: list[dict], **wanted) -> list[dict]:
    """The runs whose settings are `wanted`, a seed each. The usual labels and optimiser unless said otherwise."""
    wanted = {"labels": "clean", "optimiser": "adamw", "longer": 1, **wanted}
    return [r for r in results if all(r["run"][key] == value for key, value in wanted.items())]


def last(results: list[dict], key: str) -> list[float]:
    """The final scores, NaN for runs that diverged."""
    values = [None if r["diverged"] else r["scores"][-1][key] for r in results]
    return [float("nan") if value is None else value for value in values]


def curves(results: list[dict], key: str) -> np.ndarray:
    """(seeds, steps) of runs that are equally long."""
    return np.array([r["curve"][key] for r in results])


def spread(values: Iterable[float], digits: int = 1) -> str:
    """ "mean (least to most)", or how many of the runs diverged."""
    array = np.array(list(values), float)
    lost = int(np.isnan(array).sum())
    if lost:
        return f"{lost} of {len(array)} diverged"
    if len(array) == 1:
        return f"{array[0]:.{digits}f}"
    return f"{array.mean():.{digits}f} ({array.min():.{digits}f} to {array.max():.{digits}f})"


def write_report(everything: dict, settings: dict, tables: Path, figures: Path) -> None:
    """Writes `tables` (Markdown) and the PNG files in `figures`."""
    runs, values, size = everything["runs"], everything["values"], settings["batch_size"]
    usual = [r for r in runs if r["run"]["batch_size"] == size]
    parts = [
        f"Settings: {json.dumps(settings)}; {len(runs)} runs, {sum(r['seconds'] for r in runs) / 60:.0f} minutes.",
        values_table(usual),
        equal_table(usual, values),
        batch_value_table(values),
        shift_table(values),
        score_table(usual, everything["constant"]),
        batch_score_table(runs),
        gradient_table(usual),
    ]
    atomic_write(tables, "\n\n".join(parts) + "\n")
    figures.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "values": values_figure(usual, size),
        "equal": equal_figure(usual, size),
        "scores": scores_figure(usual, everything["constant"]),
        "labels": labels_figure(usual, everything["constant"]),
        "batch": batch_figure(runs, values),
    }.items():
        FigureCanvasAgg(figure).print_png(figures / f"loss_study_{name}.png")


# -------------------------------------------------------------------------------------------------------------- tables


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def values_table(runs: list[dict]) -> str:
    quantities = {
        "loss_2d": ("2D term", 1),
        "loss_3d_joint": ("3D term", 1),
        "mean_2d": ("mean error per coordinate, 2D (crop widths)", 1),
        "mean_absolute_m": ("mean error per coordinate, 3D absolute (mm)", 1000),
        "mean_relative_m": ("mean error per coordinate, 3D relative to the wrist (mm)", 1000),
    }
    rows = []
    for loss in ("former_m", "former_mm", "aligned"):
        for key, (text, scale) in quantities.items():
            c = curves(pick(runs, loss=loss), key) * scale
            falls = int((c[:, -1] < c[:, 0]).sum())
            rows.append([NAMES[loss], text, f"{c[:, 0].mean():.4g}", f"{c[:, -1].mean():.4g}", f"{falls} of {len(c)}"])
    return _table(
        ["loss", "of the training batch, mean of the seeds", "first step", "last step", "seeds in which it fell"], rows
    )


def relative_difference(runs: list[dict], **other) -> np.ndarray:
    """(seeds, steps) |x - b| / b of the total loss, x the runs that are `other` than (b)'s; default: (c)'s."""
    b = curves(pick(runs, loss="aligned"), "total_loss")
    x = curves(pick(runs, **{"loss": "wilor", **other}), "total_loss")
    return np.abs(x - b) / np.abs(b)


def equal_table(runs: list[dict], values: dict) -> str:
    difference = relative_difference(runs)
    num_steps = difference.shape[1]
    spans = [n for n in (1, 10, 100) if n < num_steps] + [num_steps]
    rows = [[f"total loss, largest of the first {n} steps", f"{difference[:, :n].max():.1e}"] for n in spans]
    rows.append(["the five terms of WiLoR's loss, untrained", f"{max(v['terms'] for v in values['equal']):.1e}"])
    rows.append(["their gradient (norm), untrained", f"{max(v['gradient'] for v in values['equal']):.1e}"])
    moved = relative_difference(runs, loss="aligned", labels="translated").max()
    rows.append([f"(b) on moved 3D labels against (b), largest of all {num_steps} steps", f"{moved:.1e}"])
    for key in ("mpjpe_mm", "pa_mpjpe_mm"):
        b, c = (np.array(last(pick(runs, loss=name), key)) for name in ("aligned", "wilor"))
        rows.append([f"final {key}, largest of the seeds, absolute", f"{np.abs(b - c).max():.1e}"])
    return _table(["(b) against (c), relative difference", ""], rows)


def batch_value_table(values: dict) -> str:
    rows = []
    sizes = sorted({row["batch_size"] for row in values["by_batch"]})
    for loss in ("former_m", "aligned", "aligned_mean"):
        for key in ("loss_2d", "loss_3d_joint"):
            means = [_mean(values["by_batch"], key, loss=loss, batch_size=size) for size in sizes]
            rows.append([NAMES[loss], key, *(f"{mean:.4g}" for mean in means)])
    return _table(["loss", "untrained", *(f"B = {size}" for size in sizes)], rows)


def shift_table(values: dict) -> str:
    rows = []
    reaches = sorted({row["reach_m"] for row in values["by_shift"]})
    for loss in ("former_m", "aligned"):
        means = [_mean(values["by_shift"], "loss_3d_joint", loss=loss, reach_m=reach) for reach in reaches]
        rows.append([NAMES[loss], f"{means[0]:.6g}", *(f"{mean / means[0] - 1:+.1e}" for mean in means[1:])])
    head = ["3D term, untrained", "labels as they are", *(f"moved by up to {reach:g} m" for reach in reaches[1:])]
    return _table(head, rows)


def _mean(rows: list[dict], key: str, **wanted) -> float:
    return float(np.mean([row[key] for row in rows if all(row[k] == v for k, v in wanted.items())]))


def score_table(runs: list[dict], constant: dict) -> str:
    keys = ("mpjpe_mm", "pa_mpjpe_mm", "absolute_mm", "image_px")
    rows = [["best constant hand", "", f"{constant['mpjpe_mm']:.1f}", f"{constant['pa_mpjpe_mm']:.1f}", "", ""]]
    for labels, text in LABELS.items():
        for loss in NAMES:
            if found := pick(runs, loss=loss, labels=labels):
                cells = [spread(last(found, key), 1 if key.endswith("mm") else 2) for key in keys]
                rows.append([text.replace("\n", " "), NAMES[loss], *cells])
    for loss in ("former_m", "aligned"):
        (long,) = [r for r in runs if r["run"]["loss"] == loss and r["run"]["longer"] > 1]
        cells = [spread(last([long], key), 1 if key.endswith("mm") else 2) for key in keys]
        rows.append([f"clean, {long['run']['longer']} times longer, one seed", NAMES[loss], *cells])
    return _table(["training labels", "loss", "MPJPE [mm]", "PA-MPJPE [mm]", "absolute [mm]", "image [px]"], rows)


def batch_score_table(runs: list[dict]) -> str:
    rows = []
    for optimiser in ("adamw", "sgd"):
        for loss in ("aligned", "aligned_mean"):
            for size in _sizes(runs):
                found = pick(runs, loss=loss, optimiser=optimiser, batch_size=size)
                cells = [spread(last(found, key)) for key in ("mpjpe_mm", "pa_mpjpe_mm", "image_px")]
                rows.append([optimiser, NAMES[loss], str(size), *cells])
    return _table(["optimiser", "loss", "batch", "MPJPE [mm]", "PA-MPJPE [mm]", "image [px]"], rows)


def gradient_table(runs: list[dict]) -> str:
    rows = []
    for loss in ("former_m", "former_mm", "aligned", "aligned_mm"):
        c = curves(pick(runs, loss=loss), "grad_rms")
        rows.append([NAMES[loss], f"{c[:, 0].mean():.1e}", f"{c[:, -1].mean():.1e}"])
    return _table(["root mean square of the gradient's entries", "first step", "last step"], rows)


def _sizes(runs: list[dict]) -> list[int]:
    return sorted({r["run"]["batch_size"] for r in runs})


# ------------------------------------------------------------------------------------------------------------- figures


def _panels(num: int, rows: int = 1):
    figure = Figure(figsize=(4.3 * num / rows, 3.4 * rows), dpi=90, layout="constrained")
    axes = np.ravel(figure.subplots(rows, num // rows))
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _smooth(rows: np.ndarray, width: int = 9) -> np.ndarray:
    """Running median over the steps, shorter at the ends."""
    half = width // 2
    steps = range(rows.shape[1])
    return np.stack([np.median(rows[:, max(0, i - half) : i + half + 1], axis=1) for i in steps], 1)


def _band(ax, x, rows: np.ndarray, loss: str) -> None:
    """Mean of the seeds as a line, their extremes as a band."""
    color, dash, _ = STYLES[loss]
    ax.plot(x, rows.mean(0), color=color, linestyle=dash, linewidth=1.8, label=NAMES[loss])
    ax.fill_between(x, rows.min(0), rows.max(0), color=color, alpha=0.15, linewidth=0)


def values_figure(runs: list[dict], size: int) -> Figure:
    figure, axes = _panels(3)
    for loss in ("former_m", "former_mm", "aligned"):
        found = pick(runs, loss=loss)
        samples = size * np.arange(1, curves(found, "loss_2d").shape[1] + 1)
        for ax, key in zip(axes, ("loss_2d", "loss_3d_joint", "mean_relative_m"), strict=True):
            _band(ax, samples, _smooth(curves(found, key)) * (1000 if key == "mean_relative_m" else 1), loss)
    titles = ("2D term as the loss gives it", "3D term as the loss gives it", "the same error in one currency")
    units = ("value (crop widths)", "value (a: m² or mm², b: m)", "mean |x - x'| relative to the wrist (mm)")
    for ax, title, unit in zip(axes, titles, units, strict=True):
        ax.set(title=title, xlabel="samples seen", ylabel=unit)
    for ax in axes[:2]:
        ax.set_yscale("log")
    axes[0].legend(loc="center right", fontsize=8)
    return figure


def equal_figure(runs: list[dict], size: int) -> Figure:
    figure, (left, right) = _panels(2)
    for loss in ("aligned", "wilor"):
        rows = _smooth(curves(pick(runs, loss=loss), "total_loss"))
        _band(left, size * np.arange(1, rows.shape[1] + 1), rows, loss)
    left.set(title="total loss", xlabel="samples seen", ylabel="value", ylim=(0, None))
    left.legend(fontsize=8)
    difference = np.maximum(relative_difference(runs), 1e-9)
    for seed, row in enumerate(difference):
        right.plot(size * np.arange(1, len(row) + 1), row, ".", markersize=3, label=f"seed {seed}", color=_SEEDS[seed])
    right.set(title="|c - b| / b (0 drawn at 1e-9)", xlabel="samples seen", ylabel="relative difference", yscale="log")
    right.set_ylim(5e-10, max(1e-4, 3 * difference.max()))
    right.legend(fontsize=8, markerscale=3, loc="upper left")
    return figure


_SEEDS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000")


def scores_figure(runs: list[dict], constant: dict) -> Figure:
    figure, axes = _panels(4, rows=2)
    keys = ("mpjpe_mm", "pa_mpjpe_mm", "absolute_mm", "image_px")
    titles = ("MPJPE (mm)", "PA-MPJPE (mm)", "absolute error (mm)", "error in the image (px of 32)")
    for ax, key, title in zip(axes, keys, titles, strict=True):
        for loss in ("former_m", "former_mm", "aligned", "aligned_mm"):
            found = [r for r in pick(runs, loss=loss) if not r["diverged"]]
            if found:
                x = [s["samples"] for s in found[0]["scores"]]
                rows = np.array([[np.nan if s[key] is None else s[key] for s in r["scores"]] for r in found])
                _band(ax, x, rows, loss)
        if key in constant:
            ax.axhline(constant[key], color="0.4", linewidth=1, label="best constant hand")
        ax.set(title=title, xlabel="samples seen")
    axes[0].legend(fontsize=8)
    return figure


_MM_TICKS = (30, 40, 50, 60, 80, 100, 150)


def labels_figure(runs: list[dict], constant: dict) -> Figure:
    figure, axes = _panels(2)
    losses = ("former_m", "former_mm", "aligned", "aligned_no_conf")
    for ax, key, title in zip(axes, ("mpjpe_mm", "pa_mpjpe_mm"), ("MPJPE (mm)", "PA-MPJPE (mm)"), strict=True):
        for place, labels in enumerate(LABELS):
            for number, loss in enumerate(losses):
                found = pick(runs, loss=loss, labels=labels)
                color, _, marker = STYLES[loss]
                x = place + 0.18 * (number - 1.5)
                values = last(found, key)
                ax.plot([x] * len(values), values, marker, color=color, markersize=6, alpha=0.85,
                        label=NAMES[loss] if labels == "occluded" else None)  # fmt: skip
        ax.axhline(constant[key], color="0.4", linewidth=1, label="best constant hand")
        ax.set_xticks(range(len(LABELS)), LABELS.values(), fontsize=8)
        ax.set(title=f"final {title}, a mark a seed")
    axes[0].set_yscale("log")  # (a) in millimetres is far away
    axes[0].set_yticks(_MM_TICKS, map(str, _MM_TICKS))
    axes[0].minorticks_off()
    axes[0].legend(fontsize=8)
    return figure


def batch_figure(runs: list[dict], values: dict) -> Figure:
    figure, (first, *others) = _panels(4, rows=2)
    sizes = sorted({row["batch_size"] for row in values["by_batch"]})
    for loss in ("former_m", "aligned", "aligned_mean"):
        color, dash, marker = STYLES[loss]
        y = [_mean(values["by_batch"], "loss_3d_joint", loss=loss, batch_size=size) for size in sizes]
        first.plot(sizes, y, marker, color=color, linestyle=dash, label=NAMES[loss])
    first.set(title="3D term, untrained", ylabel="value (a: m², b: m)", xscale="log", yscale="log")
    first.set_xticks(sizes, map(str, sizes), minor=False)
    first.legend(fontsize=8, loc="center right", bbox_to_anchor=(1.0, 0.23))
    panels = (("adamw", "mpjpe_mm"), ("sgd", "mpjpe_mm"), ("sgd", "pa_mpjpe_mm"))
    for ax, (optimiser, key) in zip(others, panels, strict=True):
        for offset, loss in ((0.96, "aligned"), (1.04, "aligned_mean")):
            color, dash, marker = STYLES[loss]
            found = [pick(runs, loss=loss, optimiser=optimiser, batch_size=size) for size in _sizes(runs)]
            rows = np.array([last(seeds, key) for seeds in found])
            x = offset * np.array(_sizes(runs))
            ax.plot(x, rows.mean(1), color=color, linestyle=dash, linewidth=1.5)
            for row in rows.T:
                ax.plot(x, row, marker, color=color, markersize=6)
        score, name = {"mpjpe_mm": "MPJPE", "pa_mpjpe_mm": "PA-MPJPE"}[key], {"adamw": "AdamW", "sgd": "SGD"}[optimiser]
        ax.set(title=f"{name}, fixed learning rate", ylabel=f"final {score} (mm)", xscale="log")
        ax.set_xticks(_sizes(runs), map(str, _sizes(runs)), minor=False)
    for ax in (first, *others):
        ax.set_xlabel("batch size")
        ax.minorticks_off()
    return figure
