"""Videos and cameras, one frame at a time; H.264 that plays in browsers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import Colorspace, VideoReformatter

from utnet.errors import InputError
from utnet.io.atomic import atomic_file, check_stand_in
from utnet.io.hdr import HLG, PQ, hdr_to_srgb
from utnet.io.kinds import VIDEO_SUFFIXES
from utnet.io.limits import check_megapixels
from utnet.io.shown import as_shown, display_matrix, fitted_into, square_pixels

MAX_MEGAPIXELS = 40
"""Of a frame; 8K has 33. Less than for pictures, since a decoder keeps several frames in memory."""

_BELIEVED_FPS = (0.5, 250.0)
"""Highest plausible rate; files without a constant rate state arbitrary ones, for example 1000."""
_TIME_BASE = Fraction(1, 90_000)
_H264 = {"preset": "ultrafast", "crf": "22", "x264-params": "cabac=1"}
"""Half of the CPU time of "superfast", within 2 dB, for files 0.9 to 1.5 times as large (docs/results.md)."""
_ONE_THREAD_PX = 2_500_000
"""Size of a frame up to which it is decoded and encoded by one thread: two have a fifth more to do, and keep more
frames."""
_LEAST_STEP_S = 0.001
_BT709 = 1
"""FFmpeg's number of BT.709 colours; without it players assume different colours."""


@dataclass(frozen=True)
class Frame:
    """A frame of a video.

    Attributes:
        index: 0, 1, 2, ...
        time_s: since the first frame, strictly increasing.
        rgb: (H, W, 3) uint8, upright, with square pixels; all have the size of the first.
    """

    index: int
    time_s: float
    rgb: np.ndarray


class VideoReader:
    """Frames of a video file, or of a camera by its number, as an iterator and context manager.

    Attributes:
        name: the file, or "camera 0".
        fps: mean frames per second stated by the file or camera; 30 if missing or implausible.
        num_frames: approximate number, stated by the file or estimated from its length; None if unknown, and for
            cameras.
        incomplete: after the last frame: why frames are missing, or None.
        notes: remarks, such as tracks that are not read; complete after the last frame.
    """

    def __init__(self, source: str | Path | int, start_s: float = 0.0):
        """Opens a file or camera.

        Args:
            source: a file, or the number of a camera.
            start_s: frames of a file before this time are skipped. The others keep their times; `index` counts from
                the first one returned.

        Raises:
            InputError: no such file or camera, or nothing can be decoded.
        """
        self.incomplete: str | None = None
        self._source: _File | _Camera
        self._start_s = start_s
        if isinstance(source, int):
            self.name, self._source = f"camera {source}", _Camera(source)
        else:
            self.name, self._source = str(source), _File(Path(source))
        self.fps, self.num_frames = self._source.fps, self._source.num_frames
        self.notes: list[str] = list(self._source.notes)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_) -> None:
        self._source.close()

    def __iter__(self) -> Iterator[Frame]:
        """Raises InputError if no frame can be decoded."""
        count, start, last_s, shape, resized = 0, None, -_LEAST_STEP_S, (0, 0), False
        for time_s, rgb in self._source.frames(self._start_s):
            if start is None:
                start, shape = time_s, rgb.shape[:2]
                if self._start_s > 0:
                    continue
            if rgb.shape[:2] != shape:
                note = f"the frame size changes at frame {count}; later frames are scaled to the first size"
                self.notes += [] if resized else [note]
                resized = True
                rgb = fitted_into(rgb, shape)
            last_s = max(time_s - start, last_s + _LEAST_STEP_S)  # damaged files repeat times, or go back
            yield Frame(count, last_s, rgb)
            count += 1
        if start is None:
            raise InputError(f"{self.name}: no frame can be decoded; the video is damaged or of an unknown kind")
        if count == 0:
            raise InputError(
                f"{self.name}: no frame after {self._start_s:g} seconds; the video is cut short or damaged"
            )
        self.incomplete = self._source.incomplete(count, last_s, self._start_s)


class _File:
    """A video file through PyAV, with the frames' timestamps and orientation."""

    def __init__(self, path: Path):
        self._path = path
        if not path.is_file():
            raise InputError(f"{path}: {'a folder, not a video' if path.is_dir() else 'no such file'}")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes); copy it again")
        try:
            # FFmpeg trusts file names, so a file with a misleading one is passed without it.
            known = path.suffix.lower() in VIDEO_SUFFIXES
            self._container: Any = av.open(str(path) if known else _Nameless(path), metadata_errors="replace")
        except FFmpegError as error:
            check_stand_in(path)
            raise InputError(f"{path}: not a video, or cut short before its index ({error.strerror})") from error
        tracks = list(self._container.streams.video)
        if tracks and all(track.codec_context is None for track in tracks):
            self._container.close()
            raise InputError(f"{path}: a video of a codec that FFmpeg cannot decode; convert it to H.264")
        films = [track for track in tracks if track.codec_context and not (_is_cover(track) or _is_depth(track))]
        if not films:
            self._container.close()
            what = "it contains only a cover picture or depth" if tracks else "no video track in it"
            raise InputError(f"{path}: not a video, or cut short before its index ({what})")
        self._stream = films[0]
        others = [track.metadata.get("title", "depth") for track in tracks if _is_depth(track)]
        self.notes = [f"track {', '.join(others)} is not read; hands come from colour alone"] if others else []
        if len(films) > 1:
            self.notes.append(f"{len(films)} video tracks; only the first one is read")
        small = self._stream.width * self._stream.height <= _ONE_THREAD_PX
        self._stream.thread_type = "NONE" if small else "AUTO"
        self._converter = VideoReformatter()  # one for all frames, since each would start threads
        self._check_size(self._stream.width, self._stream.height)
        rates = [float(rate) for rate in (self._stream.average_rate, self._stream.guessed_rate) if rate]
        self.fps = next((rate for rate in rates if _BELIEVED_FPS[0] <= rate <= _BELIEVED_FPS[1]), 30.0)
        self._seconds = self._stated_seconds()
        self.num_frames = self._stream.frames or (round(self._seconds * self.fps) if self._seconds else None)
        self._error: str | None = None

    def frames(self, start_s: float) -> Iterator[tuple[float, np.ndarray]]:
        """Yields time in seconds and picture of every frame up to the end or the first damage. With `start_s` above 0:
        of the first frame, and of those from that time on."""
        time_s = -1.0 / self.fps
        matrix, size = None, (0, 0)
        try:
            for frame in self._decoded(start_s):
                self._check_size(frame.width, frame.height)  # headers are untrusted
                time_s = frame.time if frame.time is not None else time_s + 1.0 / self.fps
                if frame.color_trc in (PQ, HLG):
                    wide = self._converter.reformat(frame, format="rgb48le")
                    rgb = hdr_to_srgb(wide.to_ndarray(), int(frame.color_trc))
                else:
                    rgb = self._converter.reformat(frame, format="rgb24").to_ndarray()
                rgb = square_pixels(rgb, self._stream.sample_aspect_ratio)
                # The matrix is the track's, read rarely: PyAV's side data and frame reference each other (garbage).
                if (frame.width, frame.height) != size:
                    matrix, size = display_matrix(frame), (frame.width, frame.height)
                yield time_s, as_shown(rgb, matrix)
        except FFmpegError as error:
            self._error = str(error.strerror)

    def _decoded(self, start_s: float) -> Iterator[Any]:
        """Decodes from the keyframe before `start_s` on, or from the beginning if the file has no suitable index."""
        frames = self._container.decode(self._stream)
        first = next(frames, None)
        if first is None:
            return
        yield first
        if start_s > 0:
            if first.time is None:
                raise InputError(f"{self._path}: has no times, so it can only be read from the beginning")
            wanted_s = first.time + start_s
            for to_s in (wanted_s, first.time):
                self._container.seek(round(to_s / self._stream.time_base), stream=self._stream)
                frames = self._container.decode(self._stream)
                frame = next(frames, None)
                if frame is not None and frame.time is not None and frame.time <= wanted_s:
                    break
            found = chain([] if frame is None else [frame], frames)
            frames = (frame for frame in found if frame.time is not None and frame.time >= wanted_s)
        yield from frames

    def incomplete(self, count: int, last_s: float, start_s: float) -> str | None:
        """Files round their length and count hidden frames: 1 % of them, or two, may be missing."""
        if self._error is not None:
            where = f"{last_s:.1f} seconds" if start_s else f"frame {count - 1}"
            return f"damaged after {where} ({self._error})"
        stated = 0 if start_s else self._stream.frames
        if stated:
            missing = count < stated - max(2, 0.01 * stated)
            return f"cut short: {count} of {stated} frames are there" if missing else None
        # Without a count the rate may be wrong, but the end time is right.
        if self._seconds and last_s + 2 * (last_s - start_s) / max(1, count - 1) < 0.99 * self._seconds - 0.1:
            return f"cut short: {last_s:.1f} of {self._seconds:.1f} seconds are there"
        return None

    def close(self) -> None:
        self._container.close()

    def _check_size(self, width: int, height: int) -> None:
        try:
            check_megapixels(self._path, width, height, most=MAX_MEGAPIXELS)
        except InputError:
            self.close()
            raise

    def _stated_seconds(self) -> float | None:
        if self._stream.duration and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / av.time_base if self._container.duration else None


class _Nameless:
    """A readable file without a name."""

    def __init__(self, path: Path):
        file = open(path, "rb")  # noqa: SIM115 (PyAV closes it with the container)
        self.read, self.seek, self.tell, self.close = file.read, file.seek, file.tell, file.close


def _is_cover(track: Any) -> bool:
    """Whether a track is the cover picture of the file."""
    return bool(track.disposition & Disposition.attached_pic)


def _is_depth(track: Any) -> bool:
    """Whether a track contains depth or infrared."""
    title, context = track.metadata.get("title", "").casefold(), track.codec_context
    return title in ("depth", "ir") or "depth" in title or ((context and context.pix_fmt) or "").startswith("gray16")


class _Camera:
    """A camera by its number, read by OpenCV."""

    num_frames = None
    notes: tuple[str, ...] = ()

    def __init__(self, number: int):
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(0)  # our own message is one line
        self._capture = cv2.VideoCapture(number)
        cv2.utils.logging.setLogLevel(level)
        if not self._capture.isOpened():
            raise InputError(f"camera {number}: cannot be opened; is it plugged in, free, and permitted?")
        self.fps = self._capture.get(cv2.CAP_PROP_FPS) or 30.0

    def frames(self, start_s: float) -> Iterator[tuple[float, np.ndarray]]:
        """Yields frames with the times of their arrival."""
        while True:
            ok, bgr = self._capture.read()
            if not ok:
                return
            yield time.monotonic(), np.ascontiguousarray(bgr[..., ::-1])

    def incomplete(self, count: int, last_s: float, start_s: float) -> str | None:
        """Sets `incomplete`, since a camera has no regular end."""
        return f"gave no more frames after frame {count - 1}"

    def close(self) -> None:
        self._capture.release()


class VideoWriter:
    """Writes an H.264 MP4 (yuv420p, BT.709, its index first) that browsers play, as a context manager.

    The file appears at the end of the block; there is none on failure or without a frame. Frames keep their times. Odd
    sizes are padded by a row or column, because H.264 requires even ones.
    """

    def __init__(self, path: str | Path, fps: float):
        self.path, self._fps = Path(path), fps
        self._stack = ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._last = -1

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind, error, trace) -> None:
        try:
            if self._container is not None:
                try:
                    if kind is None:
                        self._container.mux(self._stream.encode(None))
                finally:
                    self._container.close()
        except BaseException:  # a full disk: the temporary file is removed
            self._stack.__exit__(*sys.exc_info())
            raise
        self._stack.__exit__(kind, error, trace)

    def write(self, rgb: np.ndarray, time_s: float) -> None:
        """Appends a frame.

        Args:
            rgb: (H, W, 3) uint8, all of one size.
            time_s: later than the last one's.
        """
        height, width = rgb.shape[:2]
        if self._container is None:
            self._open(width + width % 2, height + height % 2)
        if height % 2 or width % 2:
            rgb = cv2.copyMakeBorder(rgb, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        frame = self._converter.reformat(frame, format="yuv420p", dst_colorspace=Colorspace.ITU709)
        self._last = max(self._last + 1, round(time_s / _TIME_BASE))
        frame.pts, frame.time_base = self._last, _TIME_BASE
        self._container.mux(self._stream.encode(frame))

    def _open(self, width: int, height: int) -> None:
        options = {"movflags": "+faststart"}
        temporary = self._stack.enter_context(atomic_file(self.path))
        self._container = av.open(str(temporary), "w", format="mp4", options=options)
        rate = Fraction(self._fps).limit_denominator(1001)
        stream: Any = self._container.add_stream("libx264", rate=rate, options=_H264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _TIME_BASE
        stream.codec_context.thread_count = 1 if width * height <= _ONE_THREAD_PX else 0  # 0: as many as cores
        stream.codec_context.colorspace = stream.codec_context.color_primaries = _BT709
        stream.codec_context.color_trc = _BT709
        stream.codec_context.color_range = 1  # 16 to 235
        self._stream, self._converter = stream, VideoReformatter()
