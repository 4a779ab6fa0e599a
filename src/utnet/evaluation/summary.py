"""Summary of a row of scores: means with bootstrap intervals, and means of groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from utnet.conventions import FINGERS, JOINT_NAMES, SIDES
from utnet.evaluation.crops import VISIBILITY
from utnet.evaluation.rows import METRICS, Row

NUM_DRAWS = 1000
_LEVEL = 95.0
_FEW = 10  # percentile intervals over fewer clusters are too narrow
MIN_TO_JUDGE = 6
"""Minimum number of clusters for a verdict: five fall on one side by chance once in 16 times, more than 5 %."""
_AT_ONCE = 50  # draws per block of memory
_WRIST = 0


def clusters_of(sequences: np.ndarray) -> tuple[np.ndarray, str]:
    """Clusters for the bootstrap: (N,) cluster of each sample, and their kind ("samples" or "sequences").

    Frames of a recording are correlated, so recordings are resampled as a whole. Without recordings single samples are
    resampled; intervals are then too narrow if they are neighbouring frames.
    """
    names, cluster = np.unique(sequences, return_inverse=True)
    if "" in names:
        return np.arange(len(sequences)), "samples"
    return cluster, "samples" if len(names) == len(sequences) else "sequences"


def bootstrap(values: np.ndarray, cluster: np.ndarray, *, seed: int = 0, draws: int = NUM_DRAWS) -> np.ndarray:
    """Means of resampled data (cluster bootstrap: whole clusters are drawn with replacement).

    Args:
        values: (N, M).
        cluster: (N,) cluster indices, consecutive from 0.
        seed: random seed.
        draws: number of draws D.

    Returns:
        (D, M); the plain means if there is one cluster.
    """
    rng, num = np.random.default_rng(seed), int(cluster.max()) + 1
    sums, sizes = np.zeros((num, values.shape[1])), np.bincount(cluster, minlength=num)
    np.add.at(sums, cluster, values)
    means = []
    for start in range(0, draws, _AT_ONCE):
        times = rng.multinomial(num, np.full(num, 1 / num), min(_AT_ONCE, draws - start)).astype(np.float64)
        means.append((times @ sums) / (times @ sizes)[:, None])
    return np.concatenate(means)


def format_interval(interval: dict[str, Any]) -> str:
    """Describes the intervals, with a warning for few clusters."""
    num, over = interval["num"], interval["over"]
    if num == 1:
        return f"no intervals: only one {over.removesuffix('s')}"
    return f"95 % bootstrap intervals over {num} {over}{' (few: rough intervals)' if num < _FEW else ''}"


def interval_ends(
    values: np.ndarray, cluster: np.ndarray, *, seed: int = 0
) -> list[tuple[float, float]] | list[tuple[None, None]]:
    """Ends of the 95 % percentile intervals of the M means of (N, M) values; None if there is only one cluster."""
    if not cluster.any():
        return [(None, None)] * values.shape[1]
    tail = (100.0 - _LEVEL) / 2
    low, high = np.percentile(bootstrap(values, cluster, seed=seed), [tail, 100.0 - tail], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def reported(row: Row) -> list[str]:
    """Metrics that all samples of the row have, in the order of `METRICS`."""
    return [name for name in METRICS if np.isfinite(row.metrics[name]).all()]


def summarise(row: Row, *, seed: int = 0) -> dict[str, Any]:
    """Summarises a row as plain JSON.

    Returns:
        `label`, `protocol`, `num`, `num_expected`, `missing`, `metrics` (name -> mean, low, high; the latter two null
        if all samples are of one recording), `interval` (what was resampled), `median_joint_mm`, `joints`,
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
    """Yields name and columns of the wrist and of the four joints of each finger."""
    yield "wrist", np.s_[:, _WRIST : _WRIST + 1]
    for i, name in enumerate(FINGERS):
        yield name, np.s_[:, 1 + 4 * i : 5 + 4 * i]


def _errors(row: Row, which: Any) -> dict[str, float]:
    """Number and mean errors of selected joints."""
    root, aligned = row.joints_mm["root"][which], row.joints_mm["pa"][which]
    return {"num": int(root.size), "mpjpe_mm": float(root.mean()), "pa_mpjpe_mm": float(aligned.mean())}


def _group(row: Row, which: np.ndarray) -> dict[str, float]:
    """Number and means of selected samples."""
    means = {name: float(row.metrics[name][which].mean()) for name in ("mpjpe_mm", "pa_mpjpe_mm", "auc")}
    return {"num": int(which.sum()), **means}


def _sequence_names(row: Row) -> list[str]:
    """Names of recordings, if any has several samples."""
    names, num = np.unique(row.sequences, return_counts=True)
    return [str(name) for name in names if name] if (num > 1).any() else []


def _not_reported(row: Row, names: list[str]) -> dict[str, str]:
    """Reasons for missing metrics, by name."""
    out = {}
    for name in METRICS:
        if name not in names:
            num = int(np.isfinite(row.metrics[name]).sum())
            what = "a known camera" if name == "absolute_mpjpe_mm" else "a mesh of the network's hand and a camera"
            out[name] = f"{num} of {len(row)} samples have {what}"
    return out
