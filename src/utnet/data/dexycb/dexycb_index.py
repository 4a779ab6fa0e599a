"""Index of DexYCB: frames with a hand, and the sequences' `meta.yml`. Read once and cached.

One cache entry per subject, from which every setup and split is composed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utnet.conventions import SIDES
from utnet.data.cache import cached_arrays
from utnet.errors import InputError, shown
from utnet.io import layouts
from utnet.io.files import read_yaml
from utnet.io.npz import read_members

_VERSION = 1
"""Version of the cached arrays; older caches are rebuilt."""

_META_KEYS = ("num_frames", "mano_sides", "mano_calib")
_THREADS = 8
"""Reading is bound by latency: twice as fast as one thread on a cold disk."""

HAND, NO_HAND, UNREADABLE, LEFT_OUT = 0, 1, 2, 3
"""Of a frame: its label file has a hand, has none, or cannot be read (an error when it is used), or it
is of a subject that is left out."""

_MAX_FRAMES = 100_000
"""Of a sequence; the official ones have about 70."""

_DAMAGED = -1
"""`num_frames` of a sequence with an invalid `meta.yml`, an error only in splits that contain the sequence."""


@dataclass(frozen=True)
class SplitIndex:
    """The frames of one split in the official numbering.

    Attributes:
        sequences: "subject/sequence" of each of its S sequences, in order.
        is_left: (S,) bool, the hand of the sequence.
        is_open: (S,) bool, labelled with the open hand (trees that UTNet writes).
        calibrations: of each sequence, the names of its `mano_*` and `extrinsics_*` folders.
        numbering: official index <-> sequence, camera, frame.
        flags: (N,) uint8, `HAND`, `NO_HAND`, `UNREADABLE` or `LEFT_OUT` of each frame.
        is_numbered: the numbering is the official one: no subject's folder is missing.
    """

    sequences: list[str]
    is_left: np.ndarray
    is_open: np.ndarray
    calibrations: list[tuple[str, str]]
    numbering: layouts.DexYcbNumbering
    flags: np.ndarray
    is_numbered: bool


def open_index(
    root: Path, setup: str, split: str, *, subjects: Sequence[int] = (), refresh: bool = False
) -> SplitIndex:
    """The index of a split; subjects that are not in the cache are read first, with a progress bar.

    Args:
        root: DexYCB's folder.
        setup: "s0" to "s3".
        split: "train", "val" or "test".
        subjects: 1 to 10, those to take; empty: all. Frames of the others count in the numbering if their folders are
            there; of these only `meta.yml` is read.
        refresh: read the subjects anew. A cached subject is read again by itself when files have come or gone or a
            `meta.yml` has changed (times of change of folders and of `meta.yml`), not when a label file was changed in
            place.

    Raises:
        InputError: no such split, a subject's folder missing or not whole, or a `meta.yml` of the split unusable.
    """
    in_split, cameras, chosen = layouts.dexycb_split(setup, split)
    if unknown := sorted(set(subjects) - {i + 1 for i in in_split}):
        has = ", ".join(str(i + 1) for i in in_split)
        raise InputError(f"{root}: {setup} {split} of DexYCB has no subject {unknown[0]}; it has {has} (data.subjects)")
    names, parts, flags, is_numbered = [], [], [], True
    for number in in_split:
        subject, wanted = layouts.DEXYCB_SUBJECTS[number], not subjects or number + 1 in subjects
        folder = root / subject
        if not wanted and not folder.is_dir():
            is_numbered = False
            continue
        sequences = _sequences(folder, f"{setup} {split}")
        arrays = _subject(folder, sequences, refresh=refresh) if wanted else _left_out(folder, sequences)
        for i in chosen:
            if arrays["num_frames"][i] == _DAMAGED:
                _read_meta(folder / sequences[i])  # raises the error
        names += [f"{subject}/{sequences[i]}" for i in chosen]
        parts.append({key: arrays[key][chosen] for key in ("num_frames", "is_left", "is_open", "mano", "extrinsics")})
        flags += list(_flags_of(arrays, chosen, cameras))
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    return SplitIndex(
        sequences=names,
        is_left=whole["is_left"],
        is_open=whole["is_open"],
        calibrations=list(zip(whole["mano"].tolist(), whole["extrinsics"].tolist(), strict=True)),
        numbering=layouts.DexYcbNumbering(whole["num_frames"], len(cameras)),
        flags=np.concatenate(flags),
        is_numbered=is_numbered,
    )


def _flags_of(arrays: dict[str, np.ndarray], chosen: list[int], cameras: list[int]) -> Iterator[np.ndarray]:
    """Flags of the chosen sequences and cameras, in the order of the numbering."""
    num_frames = np.maximum(arrays["num_frames"], 0)
    num_cameras = len(layouts.DEXYCB_SERIALS)
    starts = np.concatenate([[0], np.cumsum(num_frames * num_cameras)])
    for i in chosen:
        yield arrays["flags"][starts[i] : starts[i + 1]].reshape(num_cameras, num_frames[i])[cameras].ravel()


def _sequences(folder: Path, split: str) -> list[str]:
    """Names of a subject's sequences, sorted."""
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise InputError(
            f"{folder}: no such folder; {split} of DexYCB needs it, extract the subject's archive"
        ) from error
    if len(names) != layouts.DEXYCB_NUM_SEQUENCES:
        raise InputError(
            f"{folder}: {len(names)} sequences, expected {layouts.DEXYCB_NUM_SEQUENCES}; splits count them, "
            "so extract the subject's whole archive"
        )
    return names


def _subject(folder: Path, sequences: list[str], *, refresh: bool) -> dict[str, np.ndarray]:
    """The arrays of a subject, all sequences and cameras, from the cache where they are there and up to date."""
    stamp = {"version": _VERSION, "times": _times_of_change(folder, sequences)}
    return cached_arrays(
        f"dexycb-{folder.name}", folder.parent, stamp, lambda: _build(folder, sequences), refresh=refresh
    )


def _times_of_change(folder: Path, sequences: list[str]) -> str:
    """A hash of the sequences' names and the times of change of their folders, their cameras' and `meta.yml`."""
    digest = hashlib.sha256()
    for sequence in sequences:
        inside = f"{folder}/{sequence}"
        paths = (inside, f"{inside}/meta.yml", *(f"{inside}/{serial}" for serial in layouts.DEXYCB_SERIALS))
        digest.update(f"{sequence} {[_time_of_change(path) for path in paths]}".encode())
    return digest.hexdigest()


def _time_of_change(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0


def _build(folder: Path, sequences: list[str]) -> dict[str, np.ndarray]:
    """Reads a subject: every `meta.yml` and every label file."""
    arrays = _read_metas(folder, sequences)
    cameras = [
        (f"{folder}/{sequence}/{serial}", max(0, int(num)))
        for sequence, num in zip(sequences, arrays["num_frames"], strict=True)
        for serial in layouts.DEXYCB_SERIALS
    ]
    return {**arrays, "flags": _read_flags(cameras, f"DexYCB index, {folder.name}")}


def _left_out(folder: Path, sequences: list[str]) -> dict[str, np.ndarray]:
    """Arrays of a subject whose frames only count in the numbering."""
    arrays = _read_metas(folder, sequences)
    num = int(np.maximum(arrays["num_frames"], 0).sum()) * len(layouts.DEXYCB_SERIALS)
    return {**arrays, "flags": np.full(num, LEFT_OUT, np.uint8)}


def _read_metas(folder: Path, sequences: list[str]) -> dict[str, np.ndarray]:
    """What the `meta.yml` of each sequence of a subject contains."""
    metas = []
    for sequence in sequences:
        try:
            metas.append(_read_meta(folder / sequence))
        except InputError:
            metas.append({"num_frames": _DAMAGED, "side": SIDES[0], "mano": "", "extrinsics": "", "is_open": False})
    return {
        "num_frames": np.array([meta["num_frames"] for meta in metas], np.int64),
        "is_left": np.array([meta["side"] == "left" for meta in metas]),
        "is_open": np.array([meta["is_open"] for meta in metas]),
        "mano": np.array([meta["mano"] for meta in metas], np.str_),
        "extrinsics": np.array([meta["extrinsics"] for meta in metas], np.str_),
    }


def _read_flags(cameras: list[tuple[str, int]], title: str) -> np.ndarray:
    """Flags of the frames of all camera folders (path, number of frames), one after the other."""
    total = sum(num for _, num in cameras)
    flags = [np.zeros(0, np.uint8)]
    with (
        tqdm(total=total, desc=title, unit="frame", unit_scale=True, leave=False, disable=None) as bar,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        for part in pool.map(lambda camera: _read_camera(*camera), cameras):
            flags.append(part)
            bar.update(len(part))
    return np.concatenate(flags)


def _read_camera(folder: str, num_frames: int) -> np.ndarray:
    """(num_frames,) flags of one camera folder."""
    flags = np.full(num_frames, HAND, np.uint8)
    for frame in range(num_frames):
        try:
            (joints,) = read_members(f"{folder}/{layouts.dexycb_labels(frame)}", "joint_3d")
        except InputError:
            flags[frame] = UNREADABLE
        else:
            if (joints == layouts.DEXYCB_NO_HAND).all():
                flags[frame] = NO_HAND
    return flags


def _read_meta(sequence: Path) -> dict:
    """The used fields of a sequence's `meta.yml`: num_frames, side, mano, extrinsics, is_open."""
    path = sequence / "meta.yml"
    meta = read_yaml(path, *_META_KEYS)
    sides, num, calib = meta["mano_sides"], meta["num_frames"], meta["mano_calib"]
    if not isinstance(sides, list) or len(sides) != 1 or sides[0] not in SIDES:
        raise InputError(f"{path}: mano_sides is {shown(sides)}, expected [right] or [left]")
    if not isinstance(num, int) or not 0 <= num <= _MAX_FRAMES:
        raise InputError(f"{path}: num_frames is {shown(num)}, expected a count")
    if not isinstance(calib, list) or not calib or not isinstance(calib[0], str):
        raise InputError(f"{path}: mano_calib is {shown(calib)}, expected a list of one name")
    extrinsics = meta.get("extrinsics", "")
    if not isinstance(extrinsics, str):
        raise InputError(f"{path}: extrinsics is {shown(extrinsics)}, expected a name")
    return {
        "num_frames": num,
        "side": sides[0],
        "mano": calib[0],
        "extrinsics": extrinsics,
        "is_open": meta.get(layouts.HAND_MODEL_KEY) == layouts.OPEN_HAND,
    }
