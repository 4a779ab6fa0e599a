"""A row of scores -> means with bootstrap intervals, and means of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from utnet.conventions import FINGERS, JOINT_NAMES, SIDES
from utnet.evaluation.crops import VISIBILITY
from utnet.evaluation.rows import METRICS, Row

NUM_DRAWS = 1000
_LEVEL = 95.0
_FEW = 10  # clusters; percentile intervals of fewer are too narrow
MIN_TO_JUDGE = 6
"""Clusters that a verdict needs: if there is no difference, five fall on one side once in sixteen times, not in 20."""
_AT_ONCE = 50  # draws held in memory together
_WRIST = 0


def clusters_of(sequences: np.ndarray) -> tuple[np.ndarray, str]:
    """(N,) number of the cluster that each sample is drawn with, and what the clusters are.

    Frames of a recording are alike: whole recordings are drawn, and one alone says nothing of others. Where samples
    have no recording, single samples are drawn, which is too sure of itself if they are neighbouring frames.
    """
    names, cluster = np.unique(sequences, return_inverse=True)
    if "" in names:
        return np.arange(len(sequences)), "samples"
    return cluster, "samples" if len(names) == len(sequences) else "sequences"


def bootstrap(values: np.ndarray, cluster: np.ndarray, *, seed: int = 0, draws: int = NUM_DRAWS) -> np.ndarray:
    """Means of resampled data (cluster bootstrap: clusters are drawn with replacement, with all that is in them).

    Args:
        values: (N, M).
        cluster: (N,) numbers from 0, each one there.
        seed: the same seed gives the same draws.
        draws: D.

    Returns:
        (D, M); equal to the plain means where there is one cluster.
    """
    rng, num = np.random.default_rng(seed), int(cluster.max()) + 1
    sums, sizes = np.zeros((num, values.shape[1])), np.bincount(cluster, minlength=num)
    np.add.at(sums, cluster, values)
    means = []
    for start in range(0, draws, _AT_ONCE):
        times = rng.multinomial(num, np.full(num, 1 / num), min(_AT_ONCE, draws - start)).astype(np.float64)
        means.append((times @ sums) / (times @ sizes)[:, None])
    return np.concatenate(means)


def said(interval: dict[str, Any]) -> str:
    """Which intervals there are and what they are over, with a warning where that is little."""
    num, over = interval["num"], interval["over"]
    if num == 1:
        return f"no intervals: one {over.removesuffix('s')} says nothing of others"
    return f"95 % bootstrap intervals over {num} {over}{' (few: rough intervals)' if num < _FEW else ''}"


def interval_ends(
    values: np.ndarray, cluster: np.ndarray, *, seed: int = 0
) -> list[tuple[float, float]] | list[tuple[None, None]]:
    """Ends of the 95 % percentile intervals of (N, M) values' M means; None where there is one cluster, and so none."""
    if not cluster.any():
        return [(None, None)] * values.shape[1]
    beside = (100.0 - _LEVEL) / 2
    low, high = np.percentile(bootstrap(values, cluster, seed=seed), [beside, 100.0 - beside], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def reported(row: Row) -> list[str]:
    """The metrics that every sample of the row has, in the order of `METRICS`: a mean over a part is not one."""
    return [name for name in METRICS if np.isfinite(row.metrics[name]).all()]


def summarise(row: Row, *, seed: int = 0) -> dict[str, Any]:
    """Everything that is printed of a row, plain JSON.

    Returns:
        `label`, `protocol`, `num`, `num_expected`, `missing`, `metrics` (name -> mean, low, high; the latter two null
        where all samples are of one recording), `interval` (what was resampled), `median_joint_mm`, `joints`,
        `fingers`, `sides`, `visibility`, `sequences` and `not_reported`.
    """
    cluster, over = clusters_of(row.sequences)
    names = reported(row)
    values = np.stack([row.metrics[name] for name in names], 1)
    ends = interval_ends(values, cluster, seed=seed)
    means = values.mean(0)
    return {
        "label": row.label,
        "protocol": row.protocol.to_tree(),
        "num": len(row),
        "num_expected": row.num_expected,
        "missing": row.missing,
        "metrics": {
            name: {"mean": float(mean), "low": low, "high": high}
            for name, mean, (low, high) in zip(names, means, ends, strict=True)
        },
        "interval": {"level": _LEVEL, "over": over, "num": int(cluster.max()) + 1, "seed": seed, "draws": NUM_DRAWS},
        "median_joint_mm": float(np.median(row.joints_mm["root"], axis=0).mean()),
        "joints": {name: _errors(row, np.s_[:, i]) for i, name in enumerate(JOINT_NAMES)},
        "fingers": {name: _errors(row, columns) for name, columns in fingers()},
        "sides": {side: _group(row, row.sides == side) for side in SIDES if (row.sides == side).any()},
        "visibility": {
            name: _errors(row, row.visibility == i) for i, name in enumerate(VISIBILITY) if (row.visibility == i).any()
        },
        "sequences": {name: _group(row, row.sequences == name) for name in _sequence_names(row)},
        "not_reported": _not_reported(row, names),
    }


def fingers() -> Iterator[tuple[str, Any]]:
    """Name and columns of the wrist and of each finger's four joints."""
    yield "wrist", np.s_[:, _WRIST : _WRIST + 1]
    for i, name in enumerate(FINGERS):
        yield name, np.s_[:, 1 + 4 * i : 5 + 4 * i]


def _errors(row: Row, which: Any) -> dict[str, float]:
    """Number and mean errors of some joints."""
    root, aligned = row.joints_mm["root"][which], row.joints_mm["pa"][which]
    return {"num": int(root.size), "mpjpe_mm": float(root.mean()), "pa_mpjpe_mm": float(aligned.mean())}


def _group(row: Row, which: np.ndarray) -> dict[str, float]:
    """Number of samples and their means."""
    means = {name: float(row.metrics[name][which].mean()) for name in ("mpjpe_mm", "pa_mpjpe_mm", "auc")}
    return {"num": int(which.sum()), **means}


def _sequence_names(row: Row) -> list[str]:
    """Recordings with several samples; a table of single pictures says nothing."""
    names, num = np.unique(row.sequences, return_counts=True)
    return [str(name) for name in names if name] if (num > 1).any() else []


def _not_reported(row: Row, names: list[str]) -> dict[str, str]:
    """Why metrics are not there, by name."""
    out = {}
    for name in METRICS:
        if name not in names:
            num = int(np.isfinite(row.metrics[name]).sum())
            what = "a known camera" if name == "absolute_mpjpe_mm" else "a mesh of the network's hand and a camera"
            out[name] = f"{num} of {len(row)} samples have {what}"
    return out
