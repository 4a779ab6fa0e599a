"""Saving and loading of scored runs: scores.json, scores.npz and per_sample.csv in a folder."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utnet.conventions import NUM_JOINTS
from utnet.errors import BAD_TREE, InputError, first_line
from utnet.evaluation.protocol import Protocol
from utnet.evaluation.rows import ALIGNMENTS, METRICS, Row
from utnet.io.atomic import atomic_file, atomic_write, write_json
from utnet.io.npz import read_npz_all

JSON, NPZ, CSV = "scores.json", "scores.npz", "per_sample.csv"
_TEXT = ("keys", "sequences", "sides")
_TRUTH = "gt_m"
_NUMBERS = ("visibility", "label_conf", "expected_mm")


@dataclass(frozen=True)
class SavedRun:
    """A loaded run: rows, and `about` from scores.json ("data": fingerprint of the samples).

    `gt_m` are the true joints (N, 21, 3) of the first row's samples (`scoring.ScoredRun`), None in older files.
    """

    folder: Path
    rows: list[Row]
    about: dict[str, Any]
    gt_m: np.ndarray | None = None


def save_run(
    folder: Path,
    rows: list[Row],
    summaries: list[dict[str, Any]],
    about: dict[str, Any],
    gt_m: np.ndarray | None = None,
) -> None:
    """Writes the three files, each atomically. Errors are stored as float32 (1e-5 mm).

    Args:
        folder: an existing folder.
        rows: the scores.
        summaries: `summary.summarise` of each row.
        about: description of the run: "checkpoint", "data" and other JSON entries.
        gt_m: (N, 21, 3) true joints of the first row's samples, against which predictions are compared.
    """
    arrays: dict[str, np.ndarray] = {} if gt_m is None else {_TRUTH: gt_m.astype(np.float32)}
    for i, row in enumerate(rows):
        arrays |= {f"{i}/{name}": getattr(row, name) for name in (*_TEXT, *_NUMBERS)}
        arrays |= {f"{i}/joints_{name}_mm": array.astype(np.float32) for name, array in row.joints_mm.items()}
        arrays |= {f"{i}/{name}": array for name, array in row.metrics.items()}
    with atomic_file(folder / NPZ) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    atomic_write(folder / CSV, _csv(rows))
    write_json(folder / JSON, {**about, "rows": summaries})


def load_run(folder: str | Path) -> SavedRun:
    """Loads a run written by `save_run`.

    Raises:
        InputError: files are missing, damaged or not those of a scored run.
    """
    folder = Path(folder)
    for name in (JSON, NPZ):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; give a folder that `utnet eval CKPT --out FOLDER` wrote")
    try:
        about = json.loads((folder / JSON).read_text(encoding="utf-8"))
        arrays = read_npz_all(folder / NPZ)
        rows = [_row(i, tree, arrays) for i, tree in enumerate(about["rows"])]
        about["data"]["keys_sha256"]
        truth = arrays.get(_TRUTH)
        if truth is not None:
            _check(_TRUTH, truth, (len(rows[0]), NUM_JOINTS, 3))
    except (OSError, *BAD_TREE) as error:
        raise InputError(
            f"{folder}: not a scored run, or damaged ({first_line(error)}); run `utnet eval` again"
        ) from error
    return SavedRun(folder, rows, about, truth)


def _row(i: int, tree: dict[str, Any], arrays: Any) -> Row:
    num = arrays[f"{i}/keys"].size
    for name in _TEXT:
        _check(name, arrays[f"{i}/{name}"], (num,), "U")
    for name in (*_NUMBERS, *(f"joints_{name}_mm" for name in ALIGNMENTS)):
        _check(name, arrays[f"{i}/{name}"], (num, NUM_JOINTS))
    for name in METRICS:
        _check(name, arrays[f"{i}/{name}"], (num,))
    if not (isinstance(tree["num_expected"], int) and isinstance(tree["missing"], dict)):
        raise ValueError("num_expected or missing of a row")
    return Row(
        protocol=Protocol(**tree["protocol"]),
        num_expected=tree["num_expected"],
        missing=tree["missing"],
        joints_mm={name: arrays[f"{i}/joints_{name}_mm"].astype(np.float64) for name in ALIGNMENTS},
        metrics={name: arrays[f"{i}/{name}"] for name in METRICS},
        **{name: arrays[f"{i}/{name}"] for name in (*_TEXT, *_NUMBERS)},
    )


def _check(name: str, array: np.ndarray, shape: tuple[int, ...], kinds: str = "iuf") -> None:
    if array.shape != shape or array.dtype.kind not in kinds:
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}, expected {shape}")


def _csv(rows: list[Row]) -> str:
    """One line per sample and row; missing numbers are empty."""
    text = io.StringIO()
    write = csv.writer(text, lineterminator="\n").writerow
    write(["protocol", "key", "sequence", "side", "expected_error_mm", *METRICS])
    for row in rows:
        with np.errstate(invalid="ignore"):
            expected = row.expected_mm.mean(1)
        columns = [expected, *(row.metrics[name] for name in METRICS)]
        for i, numbers in enumerate(zip(*columns, strict=True)):
            values = [f"{value:.6g}" if np.isfinite(value) else "" for value in numbers]
            write([row.label, row.keys[i], row.sequences[i], row.sides[i], *values])
    return text.getvalue()
