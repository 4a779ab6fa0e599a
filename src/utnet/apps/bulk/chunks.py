"""Long videos in chunks, which are predicted separately with some overlap and then joined."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from utnet.apps.bulk import storage
from utnet.apps.bulk.units import Unit
from utnet.apps.bulk.work import RECORDS, Result
from utnet.detect.assignment import assign
from utnet.io.videos import VIDEO_SUFFIXES
from utnet.predict.formats import FrameWriter, PredictedFrame

CHUNKS = "chunks"
"""Folder of the tables of chunks during the job."""
OVERLAP_S = 2.0
"""Overlap before a chunk's own frames. The tracker remembers a lost hand for a quarter of it
(`predict.live.REMEMBERED_S`), and the weight of older frames in smoothing is below 1e-3 (its slowest cutoff is 0.7
Hz)."""
_FARTHEST = 0.5
"""Largest median distance of one hand's joints in the frames of both chunks, in sizes of the hand."""
_LEAST_BYTES_S = 100
"""Bytes a second below which a video is shorter than its file states."""
_READERS = 16
"""Number of threads that open videos."""


def cut_videos(units: Sequence[Unit], chunk_s: float) -> list[Unit]:
    """Replaces units of videos longer than 1.5 chunks by their chunks and a unit that joins them.

    Args:
        units: of the job.
        chunk_s: seconds; the last chunk of a video has 0.5 to 1.5 times as many.
    """
    with ThreadPoolExecutor(_READERS) as pool:
        lengths = pool.map(_length_s, units)
        return [part for unit, length_s in zip(units, lengths, strict=True) for part in _cut(unit, length_s, chunk_s)]


def _cut(unit: Unit, length_s: float, chunk_s: float) -> list[Unit]:
    num = max(1, int(length_s / chunk_s + 0.5))
    if num == 1:
        return [unit]
    spans = [(i * chunk_s, (i + 1) * chunk_s if i < num - 1 else inf) for i in range(num)]
    chunks = [replace(unit, name=f"{unit.name}-{i:04d}", span_s=span) for i, span in enumerate(spans)]
    return [*chunks, replace(unit, chunks=tuple(chunks))]


def _length_s(unit: Unit) -> float:
    """Length of a video in seconds by its file; 0 for other inputs, or if unknown or implausible."""
    if len(unit.urls) != 1 or Path(unit.urls[0]).suffix.lower() not in VIDEO_SUFFIXES:
        return 0.0
    fs, path = storage.open_fs(unit.urls[0])

    def read() -> float:
        try:
            with fs.open(path) as file, av.open(file, metadata_errors="replace") as container:
                length_s = (container.duration or 0) / av.time_base
                return length_s if length_s * _LEAST_BYTES_S <= fs.size(path) else 0.0
        except FFmpegError:
            return 0.0

    try:
        return storage.retried(unit.urls[0], read)
    except FileNotFoundError:
        return 0.0


class OwnFrames:
    """Passes frames to a writer, and counts them before and after a time.

    Attributes:
        num_before: frames before the time.
        num_frames: frames from the time on.
        num_hands: hands in these.

    Args:
        writer: receives all frames.
        start_s: the time.
    """

    def __init__(self, writer: FrameWriter, start_s: float):
        self._writer, self._start_s = writer, start_s
        self.num_before = self.num_frames = self.num_hands = 0

    def add(self, frame: PredictedFrame) -> None:
        """Passes a frame on."""
        self._writer.add(frame)
        if frame.time_s < self._start_s:
            self.num_before += 1
        else:
            self.num_frames, self.num_hands = self.num_frames + 1, self.num_hands + len(frame.hands)


def join_chunks(place: str, unit: Unit, folder: Path) -> Result:
    """Joins the tables of a video's chunks: tracks that agree in the frames of both chunks get one number.

    Args:
        place: folder or URL of the results, with the tables and records of the chunks.
        unit: with `chunks`.
        folder: output folder of the joined table.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    result, target = Result(), folder / "hands.parquet"
    numbers: dict[int, int] = {}  # of the video by those of the chunk
    before: pa.Table | None = None
    num_frames = num_tracks = 0
    writer: Any = None
    for chunk in unit.chunks:
        record = json.loads(storage.read(f"{place}/{RECORDS}/{chunk.name}.json"))
        if record.get("lost"):
            before = None
            continue
        table = pq.read_table(pa.BufferReader(storage.read(f"{place}/{CHUNKS}/{chunk.name}.parquet")))
        start_s = 0.0 if chunk.span_s is None else chunk.span_s[0]
        is_own = np.asarray(table["time_s"]) >= start_s
        shared = table.filter(~is_own)
        if before is not None:
            before = before.filter(np.asarray(before["time_s"]) >= start_s - OVERLAP_S)
        numbers = {} if before is None else _same_tracks(before, shared)
        own = table.filter(is_own)
        for track in sorted(set(own["track"].to_pylist()) - set(numbers)):
            num_tracks += 1
            numbers[track] = num_tracks
        own = _with(own, "track", [numbers[track] for track in own["track"].to_pylist()])
        own = _with(own, "frame", np.asarray(own["frame"]) - record["frames_before"] + num_frames)
        own = _with(own, "unit", [unit.name] * len(own))
        num_frames += record["counts"]["frames"]
        if writer is None:
            writer = pq.ParquetWriter(target, own.schema, compression="zstd")
        writer.write_table(own)
        before = own
    if writer is not None:
        writer.close()
        result.files[f"hands/{unit.name}.parquet"] = target
    return result


def _with(table: Any, name: str, values: Any) -> Any:
    """Returns the table with new values in a column."""
    import pyarrow as pa

    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


def _same_tracks(before: Any, after: Any) -> dict[int, int]:
    """Maps tracks of `after` to those of `before` that are the same hand in common frames."""
    ours, theirs = _hands(before), _hands(after)
    cost = np.array([[_distance(a, b) for b in theirs.values()] for a in ours.values()])
    cost = cost.reshape(len(ours), len(theirs))
    pairs = assign(np.minimum(cost, 2 * _FARTHEST))
    return {list(theirs)[j]: list(ours)[i] for i, j in pairs if cost[i, j] <= _FARTHEST}


def _hands(table: Any) -> dict[int, dict[float, np.ndarray]]:
    """(21, 2) joints in pixels, by track and time."""
    found: dict[int, dict[float, np.ndarray]] = {}
    rows = zip(*(table[name].to_pylist() for name in ("track", "time_s", "joints_px")), strict=True)
    for track, time_s, joints in rows:
        found.setdefault(track, {})[time_s] = np.reshape(joints, (21, 2))
    return found


def _distance(a: dict[float, np.ndarray], b: dict[float, np.ndarray]) -> float:
    """Median distance of the joints in common frames, in sizes of the hand; infinite without any."""
    both = sorted(set(a) & set(b))
    sizes = [max(1.0, np.prod(np.ptp(a[time_s], 0)) ** 0.5) for time_s in both]
    apart = [np.linalg.norm(a[time_s] - b[time_s], axis=-1).mean() for time_s in both]
    return float(np.median(np.divide(apart, sizes))) if both else inf
