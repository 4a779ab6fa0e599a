"""Azure Kinect's .mkv files, and colour videos with a depth video or folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from utnet.errors import InputError
from utnet.io.depth import DEPTH_SUFFIXES, read_stored_depth
from utnet.io.recordings.cameras import Camera, pinhole
from utnet.io.recordings.folders import number_of, time_of
from utnet.io.recordings.frames import Event, Frames, Options, RawFrame, pair_streams
from utnet.io.videos import VideoReader

_DEPTH_CROPS = {(640, 576): (1, 192, 180), (320, 288): (2, 96, 90), (512, 512): (2, 0, 0), (1024, 1024): (1, 0, 0)}
"""Binning of the 1024 x 1024 sensor and first column and row of each depth mode (mode_specific_calibration.c)."""


class KinectFrames(Frames):
    """A recording of k4arecorder (layout: src/record/sdk/record.cpp of the Azure Kinect SDK).

    Tracks COLOR (MJPEG, NV12, YUY2 or BGRA), DEPTH (big-endian 16-bit millimetres, FourCC b16g) and IR; the calibration
    is the attached file calibration.json.
    """

    def __init__(self, path: Path, options: Options):
        super().__init__(str(path), options)
        self._path = path
        with _opened(path) as container:
            color, depth = _tracks(container)
            if color is None:
                raise InputError(f"{path}: no colour track; record with colour (k4arecorder -c 720p)")
            self.fps = float(color.average_rate or color.guessed_rate or 30)
            seconds = container.duration / av.time_base if container.duration else None
            self.num_frames = round(seconds * self.fps) if seconds else None
            calibration = _attachment(container)
            self._color: Camera | None = None
            self._depth_lens: Camera | None = None
            self._T: np.ndarray | None = None
            if calibration is None or depth is None:
                return
            try:
                sizes = (color.width, color.height), (depth.width, depth.height)
                self._color, self._depth_lens, self._T = read_kinect_calibration(calibration, *sizes)
            except (KeyError, ValueError, TypeError, IndexError, StopIteration) as error:
                raise InputError(f"{path}: its calibration is damaged ({error!r}); give --K") from error

    def read(self) -> Iterator[RawFrame]:
        with _opened(self._path) as container:
            for time_s, color, depth in pair_streams(self._events(container), self.options.tolerance_s):
                depth_m = None if depth is None else self.options.metres(depth.to_ndarray(format="gray16le"))
                rgb = color.to_ndarray(format="rgb24")
                yield RawFrame(
                    time_s, rgb, self._color, depth_m, self._depth_lens, self._T, source=f"{time_s:.3f} s"
                )  # fmt: skip
        if self._color is None:
            self.notes.append("contains no calibration; depth is assumed to have the view of the colour pictures")

    def _events(self, container: Any) -> Iterator[Event[Any]]:
        color, depth = _tracks(container)
        tracks = [track for track in (color, depth) if track is not None]
        try:
            for packet in container.demux(tracks):
                try:
                    for frame in packet.decode():
                        yield Event(packet.stream is depth, float(frame.time or 0.0), frame)
                except FFmpegError as error:
                    self.skip(f"packet at {float((packet.pts or 0) * packet.time_base):.3f} s", str(error.strerror))
        except FFmpegError as error:
            self.incomplete = f"cut short ({error.strerror})"


def is_kinect(path: Path) -> bool:
    """Whether a Matroska file contains a track DEPTH of 16 bits."""
    if path.suffix.lower() != ".mkv":
        return False
    try:
        with av.open(str(path)) as container:
            return _tracks(container)[1] is not None
    except (FFmpegError, OSError):
        return False


def read_kinect_calibration(
    data: bytes, color_px: tuple[int, int], depth_px: tuple[int, int]
) -> tuple[Camera, Camera, np.ndarray]:
    """Cameras of a recording's modes, and T_color_depth (4, 4), from calibration.json.

    ModelParameters are cx, cy, fx, fy in units of the sensor's sides, k1 to k6, two unused, p2, p1; Rt maps from the
    depth camera (calibration.c, mode_specific_calibration.c of the SDK).

    Args:
        data: the attached file.
        color_px: width and height of the colour mode.
        depth_px: width and height of the depth mode.
    """
    cameras = json.loads(data.rstrip(b"\0"))["CalibrationInformation"]["Cameras"]
    located = {camera["Location"].removeprefix("CALIBRATION_CameraLocation"): camera for camera in cameras}
    bins, left, top = _DEPTH_CROPS[depth_px]
    depth = _kinect_camera(located["D0"], (1024 / bins, 1024 / bins), (left, top), depth_px)
    width = color_px[0]
    crop = (0, (width * 3 / 4 - color_px[1]) / 2)  # 16:9 is cut out of 4:3
    color = _kinect_camera(located["PV0"], (width, width * 3 / 4), crop, color_px)
    return color, depth, _rt(located["PV0"]) @ np.linalg.inv(_rt(located["D0"]))


def _kinect_camera(
    entry: dict, sensor: tuple[float, float], crop: tuple[float, float], size: tuple[int, int]
) -> Camera:
    model = entry["Intrinsics"]["ModelType"].removeprefix("CALIBRATION_LensDistortionModel")
    cx, cy, fx, fy, k1, k2, k3, k4, k5, k6, _, _, p2, p1 = entry["Intrinsics"]["ModelParameters"][:14]
    K = pinhole(
        fx * sensor[0], fy * sensor[1], cx * sensor[0] - crop[0] - 0.5, cy * sensor[1] - crop[1] - 0.5
    )  # fmt: skip
    name = "brown_conrady" if model in ("BrownConrady", "Rational6KT") else model
    return Camera(K, size, name, (k1, k2, p1, p2, k3, k4, k5, k6))


def _rt(entry: dict) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = np.asarray(entry["Rt"]["Rotation"], float).reshape(3, 3)
    T[:3, 3] = entry["Rt"]["Translation"]
    return T


def _opened(path: Path) -> Any:
    try:
        return av.open(str(path))
    except (FFmpegError, OSError) as error:
        raise InputError(f"{path}: not a video, or cut short before its index ({error.strerror})") from error


def _tracks(container: Any) -> tuple[Any, Any]:
    """The colour and the depth track, or None."""
    color = depth = None
    for track in container.streams.video:
        title = track.metadata.get("title", "").casefold()
        grey = (track.codec_context.pix_fmt or "").startswith("gray16")
        if title == "depth" or (grey and title not in ("ir", "infrared") and depth is None):
            depth = track
        elif not grey and title not in ("ir", "infrared") and color is None:
            color = track
    return color, depth


def _attachment(container: Any) -> bytes | None:
    for stream in container.streams:
        if stream.type == "attachment" and stream.metadata.get("filename", "").endswith("calibration.json"):
            return bytes(stream.data)
    return None


class VideoFrames(Frames):
    """A colour video with depth in a video of 16-bit grey (FFV1 for instance) or in a folder of images.

    Depth of a folder belongs to the frame of its number, counted from the first file; of a video, to the frame nearest
    in time.
    """

    def __init__(self, path: Path, options: Options):
        super().__init__(str(path), options)
        self._path, self._depth = path, None if options.depth is None else Path(options.depth)
        if self._depth is not None and not self._depth.exists():
            raise InputError(f"{self._depth}: no such depth video or folder")
        with VideoReader(path) as reader:
            self.fps, self.num_frames = reader.fps, reader.num_frames
        self._files: dict[int, Path] = {}
        if self._depth is not None and self._depth.is_dir():
            files = sorted(file for file in self._depth.iterdir() if file.suffix.lower() in DEPTH_SUFFIXES)
            numbers = [number_of(file) for file in files]
            if any(time_of(file) is not None for file in files) or None in numbers:
                numbers = list(range(len(files)))
            if not files:
                raise InputError(f"{self._depth}: contains no depth image (16-bit PNG, TIFF, EXR, .npy or .npz)")
            first = 1 if min(n for n in numbers if n is not None) == 1 else 0
            self._files = {(n or 0) - first: file for n, file in zip(numbers, files, strict=True)}

    def read(self) -> Iterator[RawFrame]:
        with VideoReader(self._path) as reader:
            if self._files or self._depth is None:
                for frame in reader:
                    yield RawFrame(frame.time_s, frame.rgb, None, self._from_file(frame.index), source=f"{frame.index}")
            else:
                colors = (Event(False, frame.time_s, frame.rgb) for frame in reader)
                merged = _merged(colors, _depth_events(self._depth))
                tolerance = max(self.options.tolerance_s, 0.6 / self.fps)
                for time_s, rgb, depth in pair_streams(merged, tolerance):
                    depth_m = None if depth is None else self.options.metres(depth)
                    yield RawFrame(time_s, rgb, None, depth_m, source=f"{time_s:.3f} s")
            self.incomplete, self.notes = reader.incomplete, list(reader.notes)

    def _from_file(self, index: int) -> np.ndarray | None:
        if index not in self._files:
            return None
        try:
            return self.options.metres(read_stored_depth(self._files[index]))
        except InputError as error:
            self.skip(self._files[index].name, str(error))
            return None


def _depth_events(path: Path) -> Iterator[Event[np.ndarray]]:
    with _opened(path) as container:
        track = next(iter(container.streams.video), None)
        grey = track is not None and (track.codec_context.pix_fmt or "").startswith("gray")
        if track is None or not grey or track.codec_context.pix_fmt == "gray":
            raise InputError(f"{path}: not a depth video (16-bit grey, lossless: FFV1); give a folder of depth images")
        for frame in container.decode(track):
            yield Event(True, float(frame.time or 0.0), frame.to_ndarray(format="gray16le"))


def _merged(a: Iterator[Event[Any]], b: Iterator[Event[Any]]) -> Iterator[Event[Any]]:
    """Merges two streams in the order of time."""
    left, right = next(a, None), next(b, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left.time_s <= right.time_s):
            assert left is not None
            yield left
            left = next(a, None)
        else:
            yield right
            right = next(b, None)
