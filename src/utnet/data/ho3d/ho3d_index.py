"""The frames of an HO3D or H2O3D list: annotated hands, and the recordings held out for validation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utnet.conventions import SIDES
from utnet.data.cache import cached_arrays
from utnet.data.source import hold_out
from utnet.errors import InputError, shown
from utnet.io import layouts
from utnet.io.files import read_bytes
from utnet.io.safe_pickle import load_pickle

SPLITS = ("train", "train_fit", "val", "evaluation")
"""train_fit and val divide train by recording."""

_VERSION = 2
_HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class FrameIndex:
    """The N lines of train.txt or evaluation.txt, memory-mapped.

    Attributes:
        frames: (N,) bytes, "SEQUENCE/ID".
        sequences: (S,) bytes, in the order in which the list names them.
        sequence_of: (N,) which of them a frame belongs to.
        hands: (N, 2) bool, the right and the left hand are annotated (in evaluation: have a box).
        without_meta: (N,) bool, training frames that the list has and whose sequence's meta folder lacks their file, as
            in HO3D v3 (such as ABF12/0678 to 0728, https://github.com/zc-alexfan/hold/issues/32): not annotated.
        two_hands: it is H2O3D.
    """

    frames: np.ndarray
    sequences: np.ndarray
    sequence_of: np.ndarray
    hands: np.ndarray
    without_meta: np.ndarray
    two_hands: bool


def official_list(split: str) -> str:
    """The list, and the folder, that a split's frames are in."""
    return "evaluation" if split == "evaluation" else "train"


def read_meta(path: Path, *keys: str) -> dict:
    """The annotations `keys` (if present) of a meta pickle, read without executing code."""
    meta = load_pickle(path, keys=keys)
    if not isinstance(meta, dict):
        raise InputError(f"{path}: holds a {type(meta).__name__}, expected HO3D's dictionary of annotations")
    return meta


def read_index(root: Path, name: str, *, refresh: bool = False) -> FrameIndex:
    """The index of a list, made once from all of its metas and cached.

    It is made anew when the list or a sequence's meta folder has changed; a meta that is overwritten in place is not
    noticed, and if it has lost its annotation it fails by name when it is read.

    Args:
        root: the folder that holds the lists.
        name: "train" or "evaluation".
        refresh: make it anew.

    Raises:
        InputError: the list is missing, empty or not one of frames. Metas that cannot be read stay in as annotated, to
            fail by name when they are read.
    """
    path = root / layouts.ho3d_list(name)
    try:
        about = path.stat()
    except OSError as error:
        raise InputError(
            f"{path}: no such file; give the folder that holds {layouts.ho3d_list(name)} and the folder {name}"
        ) from error
    stamp = [_VERSION, about.st_size, about.st_mtime_ns, _folder_times(root / name)]
    arrays = cached_arrays(f"ho3d-{name}", root, stamp, lambda: _build(root, path, name), refresh=refresh)
    rows = {key: arrays[key] for key in ("frames", "sequences", "sequence_of", "hands", "without_meta")}
    return FrameIndex(**rows, two_hands=bool(arrays["two_hands"][0]))


def _folder_times(folder: Path) -> dict[str, int]:
    """When each sequence's meta folder last gained or lost a file."""
    names = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    metas = {name: folder / name / "meta" for name in names}
    return {name: meta.stat().st_mtime_ns for name, meta in metas.items() if meta.is_dir()}


def _build(root: Path, path: Path, name: str) -> dict[str, np.ndarray]:
    frames = _read_list(path)
    keys = {two_hands: _wanted(name, two_hands) for two_hands in (False, True)}
    needed = {key for sides in keys.values() for side in sides for key in side}
    marker = layouts.ho3d_keys("right", two_hands=True)["joints"]
    hands = {two_hands: np.zeros((len(frames), 2), bool) for two_hands in (False, True)}
    two_hands: bool | None = None
    without_meta = np.zeros(len(frames), bool)
    for line, frame in enumerate(tqdm(frames, desc=f"index of {path.name}", unit="frame", delay=1.0, leave=False)):
        path = root / layouts.ho3d_file(name, frame, "meta", ".pkl")
        if name == "train" and not path.is_file() and path.parent.is_dir():
            without_meta[line] = True
            continue
        try:
            meta = read_meta(path, marker, *needed)
        except InputError:
            meta = {}  # it lacks every key, so it counts as annotated
        else:
            two_hands = marker in meta if two_hands is None else two_hands
        for layout in (False, True):  # the first readable meta decides which of the two it is
            hands[layout][line, : 1 + layout] = [_is_annotated(meta, side) for side in keys[layout]]
    sequences: dict[str, int] = {}
    sequence_of = [sequences.setdefault(frame.split("/")[0], len(sequences)) for frame in frames]
    return {
        "frames": np.array([frame.encode() for frame in frames]),
        "sequences": np.array([sequence.encode() for sequence in sequences]),
        "sequence_of": np.array(sequence_of, np.int32),
        "hands": hands[bool(two_hands)],
        "without_meta": without_meta,
        "two_hands": np.array([bool(two_hands)]),
    }


def _wanted(name: str, two_hands: bool) -> list[tuple[str, ...]]:
    """Required annotations of each hand: in evaluation the box, which the crop needs."""
    sides = [layouts.ho3d_keys(side, two_hands=two_hands) for side in SIDES[: 1 + two_hands]]
    if name == "evaluation":
        return [(keys["box"],) for keys in sides]
    return [(layouts.HO3D_NOT_ANNOTATED, keys["joints"], keys["pose"], keys["joints_ok"]) for keys in sides]


def _is_annotated(meta: dict, wanted: tuple[str, ...]) -> bool:
    if any(meta.get(key, 0) is None for key in wanted):
        return False
    validity = meta.get(wanted[-1]) if len(wanted) > 1 else None
    return validity is None or bool(np.any(validity))


def _read_list(path: Path) -> list[str]:
    data = read_bytes(path, "give the folder that holds train.txt and evaluation.txt")
    lines = data.decode("utf-8", "replace").split()
    for number, line in enumerate(lines, 1):
        if line.count("/") != 1 or ".." in line or line[0] == "/" or line[-1] == "/":
            raise InputError(f"{path}: entry {number} is {shown(line)}, expected SEQUENCE/ID")
    if not lines:
        raise InputError(f"{path}: lists no frames; choose the other split, or get the file again")
    return lines


# --------------------------------------------------------------------------------------------------------------- splits


def lines_of_split(index: FrameIndex, split: str, where: Path) -> np.ndarray:
    """(N,) bool: which lines of its list belong to `split`, one of `SPLITS`."""
    if split == official_list(split):
        return np.ones(len(index.frames), bool)
    counts = np.bincount(index.sequence_of, minlength=len(index.sequences))
    sizes = {name.decode(): int(n) for name, n in zip(index.sequences, counts, strict=True)}
    if len(sizes) < 2:
        raise InputError(
            f"{where}: all frames are of the sequence {next(iter(sizes))}, and validation is held out by recording; "
            "train on the split train and validate on evaluation or on another data set"
        )
    taken = held_out(sizes)
    is_val = np.array([name in taken for name in sizes])[index.sequence_of]
    return is_val if split == "val" else ~is_val


def held_out(sizes: dict[str, int]) -> set[str]:
    """The sequences that validation takes: whole recordings with 5 % of the frames (`hold_out`).

    Args:
        sizes: frames of each of at least two sequences.
    """
    groups: dict[str, list[str]] = {}
    for name in sizes:
        groups.setdefault(layouts.ho3d_recording(name), []).append(name)
    if len(groups) == 1:
        groups = {name: [name] for name in sizes}
    frames = {group: sum(sizes[name] for name in names) for group, names in groups.items()}
    return {name for group in hold_out(frames, _HELD_OUT_SHARE) for name in groups[group]}
