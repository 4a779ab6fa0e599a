"""Any map-style source -> a folder of tar shards: windows of the pictures around each hand, with all labels.

A window is aligned to pixels and large enough for every jittered crop of the default `CropConfig` (expand 2.0, scale
0.15, shift 0.06, rotation 30 degrees). Its side over the box's longer side is
2 * 1.15 * (cos 30 + sin 30 + 2 * 0.06) = 3.418, rounded up to `EXPAND`. For another `crop.expand` E, or a `crop.aspect`
below 1 (WiLoR's 0.75 makes the crops of wide boxes larger), use 1.71 E / aspect; missing parts are black in the crop.
Windows are clipped to the picture.

Windows larger than `SIZE_PX` are downscaled. The unjittered crop at expand 2.0 is 2.0 / 3.42 of the window, 224 pixels,
enlarged by 1.14 for a crop of 256 (440 keeps all 256 and takes a tenth longer to read). Smaller windows keep their
resolution, and the loader's crops equal those of the source up to JPEG's loss.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import tarfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
from tqdm import tqdm

from utnet.data.shards.shard_format import MEMBERS, encode_sample
from utnet.data.source import BadSample, bad_sample
from utnet.errors import InputError, WorkerError
from utnet.io.atomic import atomic_dir, write_json
from utnet.signals import follow_parent
from utnet.types import Sample

EXPAND = 3.42
"""Side of the stored window over the longer side of the box."""

SIZE_PX = 384
"""Longest side of a stored picture; a crop is 2.0 / 3.42 of it, 224 px."""

SHARDS_FORMAT = "utnet-shards-1"
DESCRIPTION = "shards.json"
INDEX, KEYS, SEQUENCES = "index.npy", "keys.npy", "sequences.npy"

_BLOCK = 512  # of a tar
_CHUNK = 8  # samples that a process encodes at once
_CHUNK_TIMEOUT_S, _POLL_S = 600.0, 2.0
_LISTED = 100  # skipped samples that the description names


@dataclass(frozen=True)
class ShardOptions:
    """How samples are cut and stored.

    Attributes:
        size_px: longest side of a stored picture; larger windows are shrunk.
        expand: side of the window over the longer side of the box.
        jpeg_quality: of the pictures.
        depth_unit_m: unit to which stored depth is rounded.
    """

    size_px: int = SIZE_PX
    expand: float = EXPAND
    jpeg_quality: int = 95
    depth_unit_m: float = 0.001

    def __post_init__(self):
        for name, low, high in (("size_px", 32, 8192), ("expand", 1.0, 20.0), ("jpeg_quality", 1, 100)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} is {getattr(self, name)}; expected {low} to {high}")
        if not 1e-5 <= self.depth_unit_m <= 0.01:
            raise InputError(f"depth_unit_m is {self.depth_unit_m}; expected 0.00001 to 0.01 (metres)")


def write_shards(
    source: Any,
    out: str | Path,
    *,
    options: ShardOptions | None = None,
    shard_mb: float = 256.0,
    workers: int = 1,
    max_bad: int = 50,
    progress: bool = True,
) -> dict:
    """Writes a shard set; the same source and options give the same bytes, whatever the number of workers.

    Args:
        source: map-style (`utnet.data.source.Source`).
        out: the folder to create; it appears when complete.
        options: how samples are stored.
        shard_mb: size in MiB at which a shard is closed.
        workers: number of processes that read and encode.
        max_bad: largest number of unreadable samples; they are left out and listed in the description.
        progress: show a progress bar.

    Returns:
        The contents of `shards.json`.

    Raises:
        InputError: `out` is not empty, nothing can be read, or more than `max_bad` samples cannot.
    """
    options = options or ShardOptions()
    if not hasattr(source, "__len__"):
        raise InputError(f"{source.name} is a stream; shards need a map-style source")
    if not (shard_mb > 0 and workers >= 1):
        raise InputError(f"shard_mb is {shard_mb} and workers is {workers}; expected more than 0 and at least 1")
    with atomic_dir(out) as folder:
        writer = _Writer(folder, shard_mb * 2**20)
        bad: list[BadSample] = []
        with tqdm(
            total=len(source), desc=f"{source.name} to shards", unit="hand", disable=None if progress else True
        ) as bar:
            for item in _encoded(source, options, workers):
                if isinstance(item, BadSample):
                    bad.append(item)
                    if len(bad) > max_bad:
                        raise InputError(f"more than {max_bad} samples cannot be read; the last: {item.message}")
                else:
                    writer.add(*item)
                bar.update()
        if not writer.rows:
            raise InputError(f"{source.name}: no sample can be read; the last: {bad[-1].message if bad else 'none'}")
        writer.end()
        about = describe(source, options, bad)
        return write_tables(folder, writer.rows, writer.keys, writer.sequences, writer.shards, about)


def write_part(source: Any, folder: Path, options: ShardOptions, first: int, end: int) -> tuple[dict, list[BadSample]]:
    """Writes the samples from `first` to before `end` into one tar, for a set that is written in parts.

    Args:
        source: map-style.
        folder: an empty one.
        options: how samples are stored.
        first: index of a sample.
        end: index.

    Returns:
        The part's `shards` (the tar, or none), and `rows`, `keys` and `sequences` of its samples; and the samples that
        cannot be read.
    """
    writer, bad = _Writer(folder, np.inf, first), list[BadSample]()
    for index in range(first, end):
        item = _encoded_sample(source, options, index)
        if isinstance(item, BadSample):
            bad.append(item)
        else:
            writer.add(*item)
    writer.end()
    part = {"shards": writer.shards, "rows": writer.rows, "keys": writer.keys, "sequences": writer.sequences}
    return part, bad


# -------------------------------------------------------------------------------------------------------------- cutting


def cut(sample: Sample, options: ShardOptions) -> Sample:
    """The stored window of a sample; rgb, depth, mask, K, box and image points are transformed consistently.

    Raises:
        InputError: the window lies outside the picture.
    """
    height, width = sample.rgb.shape[:2]
    x0, y0, x1, y1 = (float(v) for v in sample.box_px)
    half = max(x1 - x0, y1 - y0) * options.expand / 2
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    left, top = np.maximum(np.floor(centre - half), 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(centre + half) + 1, [width, height]).astype(int).tolist()
    if not (half > 0 and right - left >= 2 and bottom - top >= 2):
        raise InputError(f"{sample.key}: the box {np.round(sample.box_px, 1).tolist()} lies outside the picture")
    shrink = min(options.size_px / max(right - left, bottom - top), 1.0)
    size_wh = (max(round((right - left) * shrink), 1), max(round((bottom - top) * shrink), 1))

    def picture(image: np.ndarray | None, how: int) -> np.ndarray | None:
        window = None if image is None else image[top:bottom, left:right]
        return window if window is None or shrink == 1.0 else cv2.resize(window, size_wh, interpolation=how)

    # Pixel centres: x' + 1/2 = (x - left + 1/2) * scale.
    scale = np.array([size_wh[0] / (right - left), size_wh[1] / (bottom - top)])
    offset = (0.5 - np.array([left, top])) * scale - 0.5
    A = np.array([[scale[0], 0.0, offset[0]], [0.0, scale[1], offset[1]], [0.0, 0.0, 1.0]])
    mask = None if sample.hand_mask is None else sample.hand_mask.view(np.uint8)
    mask = picture(mask, cv2.INTER_NEAREST_EXACT)
    rgb = picture(sample.rgb, cv2.INTER_AREA)
    assert rgb is not None
    return replace(
        sample,
        rgb=rgb,
        depth_m=picture(sample.depth_m, cv2.INTER_NEAREST_EXACT),
        hand_mask=None if mask is None else mask > 0,
        K_px=None if sample.K_px is None else A @ sample.K_px,
        box_px=sample.box_px * np.tile(scale, 2) + np.tile(offset, 2),
        joints_px=None if sample.joints_px is None else sample.joints_px * scale + offset,
    )


_Encoded: TypeAlias = tuple[str, str, dict[str, bytes]]
"""Key, sequence and members of a sample."""
_SHARED: list[Any] = []
"""Source and options of an encoding process."""


def _encode(index: int) -> _Encoded | BadSample:
    source, options = _SHARED
    return _encoded_sample(source, options, index)


def _encoded_sample(source: Any, options: ShardOptions, index: int) -> _Encoded | BadSample:
    try:
        sample = cut(source[index], options)
        members = encode_sample(
            sample, tips=source.tips, jpeg_quality=options.jpeg_quality, depth_unit_m=options.depth_unit_m
        )
    except Exception as error:  # an error of one sample must not affect the others
        return bad_sample(source.key(index), error)
    return sample.key, sample.sequence, members


def _encoded(source: Any, options: ShardOptions, workers: int) -> Iterator[_Encoded | BadSample]:
    """Every sample encoded, in order."""
    if workers == 1:
        _SHARED[:] = [source, options]
        try:
            yield from map(_encode, range(len(source)))
        finally:
            _SHARED.clear()
        return
    # Not forked: a fork of a process with threads can deadlock on a lock that one of them holds.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, _start, (source, options))
    waiting: deque[Future] = deque()
    try:
        for first in range(0, len(source), _CHUNK):
            waiting.append(pool.submit(_encode_chunk, range(first, min(first + _CHUNK, len(source)))))
            if len(waiting) > 4 * workers:
                yield from _result(pool, waiting.popleft())
        while waiting:
            yield from _result(pool, waiting.popleft())
    except BrokenProcessPool as error:
        raise WorkerError("a process that encodes samples was killed; give fewer --workers") from error
    except TimeoutError as error:
        raise WorkerError(f"a process that encodes samples returned nothing for {_CHUNK_TIMEOUT_S} s") from error
    finally:
        for process in list((pool._processes or {}).values()):  # also one that hangs
            process.kill()
        pool._result_queue._writer.close()  # type: ignore[attr-defined]  # its reader may be within a message
        pool.shutdown(cancel_futures=True)


def _result(pool: ProcessPoolExecutor, chunk: Future) -> list[_Encoded | BadSample]:
    """A chunk, encoded. The pool does not notice a process that was killed while it sent one, so they are looked at."""
    end = time.monotonic() + _CHUNK_TIMEOUT_S
    while True:
        try:
            return chunk.result(_POLL_S)
        except TimeoutError:
            if any(process.exitcode for process in list((pool._processes or {}).values())):
                raise BrokenProcessPool from None
            if time.monotonic() >= end:
                raise


def _encode_chunk(indices: range) -> list[_Encoded | BadSample]:
    return [_encode(index) for index in indices]


def _start(source: Any, options: ShardOptions) -> None:
    """Initialises a worker process: one OpenCV thread; signals are handled by the parent."""
    follow_parent()
    _SHARED[:] = [source, options]
    cv2.setNumThreads(0)


# -------------------------------------------------------------------------------------------------------------- writing


@dataclass
class _Writer:
    """Writes shards one after another and collects the index: shard, then offset and size of every member; samples are
    numbered from `first`."""

    folder: Path
    max_bytes: float
    first: int = 0
    rows: list[list[int]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    shards: list[dict] = field(default_factory=list)
    _file: Any = None
    _hash: Any = None

    def add(self, key: str, sequence: str, members: dict[str, bytes]) -> None:
        if self._file is None:
            name = f"shard-{len(self.shards):06d}.tar"
            self._file, self._hash = (self.folder / name).open("wb"), hashlib.sha256()
            self.shards.append({"file": name, "num": 0})
        row, number = [len(self.shards) - 1], self.first + len(self.rows)
        for ending in MEMBERS:
            data = members.get(ending)
            row += [0, 0] if data is None else [self._member(f"{number:08d}.{ending}", data), len(data)]
        self.rows.append(row)
        self.keys.append(key)
        self.sequences.append(sequence)
        self.shards[-1]["num"] += 1
        if self._file.tell() >= self.max_bytes:
            self.end()

    def _member(self, name: str, data: bytes) -> int:
        """Writes one tar member, determined by name and data only; returns the offset of the data."""
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o644
        self._put(info.tobuf(tarfile.USTAR_FORMAT))
        start = self._file.tell()
        self._put(data)
        self._put(bytes(-len(data) % _BLOCK))
        return start

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self._hash.update(data)

    def end(self) -> None:
        """Closes the current shard."""
        if self._file is None:
            return
        self._put(bytes(2 * _BLOCK))
        self._put(bytes(-self._file.tell() % tarfile.RECORDSIZE))
        self.shards[-1] |= {"bytes": self._file.tell(), "sha256": self._hash.hexdigest()}
        self._file.close()
        self._file = None


def write_tables(
    folder: Path, rows: list[list[int]], keys: list[str], sequences: list[str], shards: list[dict], about: dict
) -> dict:
    """Writes index and description of a set.

    Args:
        folder: for the files.
        rows: shard, then offset and size of every member, of each sample.
        keys: of the samples.
        sequences: of the samples.
        shards: file, number of samples, bytes and hash of each.
        about: `describe`.

    Returns:
        The contents of `shards.json`.
    """
    arrays = {
        INDEX: np.array(rows, np.int64),
        KEYS: np.array([key.encode() for key in keys], np.bytes_),
        SEQUENCES: np.array([sequence.encode() for sequence in sequences], np.bytes_),
    }
    tables = {}
    for name, array in arrays.items():
        np.save(folder / name, array, allow_pickle=False)
        tables[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    about = about | {"num": len(rows), "shards": shards, "tables_sha256": tables}
    write_json(folder / DESCRIPTION, about)
    return about


def describe(source: Any, options: ShardOptions, bad: list[BadSample]) -> dict:
    """Returns the description of a set, without local paths; `bad`: samples that are left out."""
    root = str(getattr(source, "root", "") or "\0")
    skipped = [{"key": item.key, "message": item.message.replace(root, "")} for item in bad[:_LISTED]]
    return {
        "format": SHARDS_FORMAT,
        "source": source.name,
        "split": str(getattr(source, "split", "")),
        "setup": str(getattr(source, "setup", "")),
        "tips": source.tips,
        "counts": {name: int(num) for name, num in getattr(source, "counts", {}).items()},
        "options": {name: getattr(options, name) for name in ("size_px", "expand", "jpeg_quality", "depth_unit_m")},
        "members": list(MEMBERS),
        "num_skipped": len(bad),
        "skipped": skipped,
    }
