"""Folders of colour and depth pictures: TUM RGB-D, by number, by time stamp, in two folders or one; Stray Scanner."""

from __future__ import annotations

import bisect
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utnet.errors import InputError
from utnet.io.depth import DEPTH_SUFFIXES, read_stored_depth
from utnet.io.files import read_image
from utnet.io.pictures import PICTURE_SUFFIXES, read_picture
from utnet.io.recordings.cameras import Camera, read_camera
from utnet.io.recordings.frames import Frames, Options, RawFrame
from utnet.io.videos import VideoReader
from utnet.rotations import quaternion_to_matrix

_COLOR_FOLDERS = ("rgb", "color", "colour", "colors", "image", "images", "rgbs", "image_2")
_DEPTH_FOLDERS = ("depth", "depths", "depth_aligned", "aligned_depth", "depth_images", "depthmaps")
_DEPTH_WORD = re.compile(r"depth", re.IGNORECASE)
_NUMBER = re.compile(r"(\d+)(?!.*\d)")
_TIME = re.compile(r"\d{9,}[._]\d+|\d{16,19}")
"""Seconds since 1970 with a fraction, or nanoseconds or microseconds since then."""
_CAMERA_FILES = (
    "camera_info.yaml", "camera_info.yml", "camera_info.json", "camera.yaml", "camera.json", "intrinsics.json",
    "intrinsics.yaml", "cameras.txt", "camera_intrinsic.json", "intrinsic.json",
)  # fmt: skip
_CONFIDENCE = "confidence"


@dataclass(frozen=True)
class _Pair:
    time_s: float
    color: Path
    depth: Path | None
    confidence: Path | None = None


class FolderFrames(Frames):
    """Pictures of a folder, each with the depth image of its number or nearest in time.

    Layouts: `associations.txt` (time, colour, time, depth a line) or `rgb.txt` and `depth.txt` of TUM RGB-D
    (its associate.py; tolerance 0.02 s); folders such as rgb/ and depth/; or both in one
    folder, where the names of depth images contain "depth".
    A camera file beside them (camera_info.yaml, intrinsics.json, cameras.txt, ...) gives K.

    Args:
        path: the folder.
        options: settings of the user.
    """

    def __init__(self, path: Path, options: Options):
        super().__init__(str(path), options)
        self._pairs, self._unpaired = _pairs(path, options)
        times = [pair.time_s for pair in self._pairs]
        steps = np.diff(times)
        self.num_frames, self.fps = len(times), options.fps
        if len(steps[steps > 0]):
            self.fps = float(np.clip(1 / np.median(steps[steps > 0]), 0.1, 1000))
        beside = next((path / name for name in _CAMERA_FILES if (path / name).is_file()), None)
        self._camera = read_camera(beside) if beside and options.camera is None else None
        self._is_tum = (path / "rgb.txt").is_file() or (path / "associations.txt").is_file()

    def read(self) -> Iterator[RawFrame]:
        for pair in self._pairs:
            try:
                rgb = read_picture(pair.color).rgb
            except InputError as error:
                self.skip(pair.color.name, str(error).removeprefix(f"{pair.color}: "))
                continue
            depth_m, confidence = None, None
            if pair.depth is not None:
                try:
                    depth_m = self.options.metres(read_stored_depth(pair.depth))
                    if pair.confidence is not None:
                        confidence = read_confidence(pair.confidence)
                except InputError as error:
                    depth_m = None
                    self.skip(pair.depth.name, str(error).removeprefix(f"{pair.depth}: "))
            yield RawFrame(pair.time_s, rgb, self._camera, depth_m, confidence=confidence, source=str(pair.color))
        if self._unpaired:
            names = ", ".join(path.name for path in self._unpaired[:3])
            more = ", ..." if len(self._unpaired) > 3 else ""
            self.notes.append(
                f"{len(self._unpaired)} pictures have no depth image of their number, or none within "
                f"{self.options.tolerance_s:g} s: {names}{more}"
            )
        if self._is_tum and self.options.depth_scale is None:
            self.notes.append("depth is read as millimetres; recordings of TUM themselves need --depth-scale 0.0002")


def read_confidence(path: Path) -> np.ndarray:
    """(H, W) uint8 levels of a PNG or .npy."""
    if path.suffix.lower() == ".npy":
        return read_stored_depth(path).astype(np.uint8)
    image = read_image(path, flags=cv2.IMREAD_UNCHANGED)
    if image.ndim != 2:
        raise InputError(f"{path}: not an image of confidence levels; copy it again")
    return image


def is_folder_recording(path: Path) -> bool:
    """Whether a folder contains matching colour and depth pictures."""
    if (path / "rgb.txt").is_file() or (path / "associations.txt").is_file():
        return True
    if _named(path, _COLOR_FOLDERS) and _named(path, _DEPTH_FOLDERS):
        return True
    files = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    depth = [file for file in files if is_depth_name(file)]
    return len(depth) > 1 and len(_color_files(files)) > 1


def is_depth_name(file: Path) -> bool:
    """Whether a file is a depth image by its name, in a folder with both kinds."""
    return bool(_DEPTH_WORD.search(file.name)) and file.suffix.lower() in DEPTH_SUFFIXES


def time_of(file: Path) -> float | None:
    """Seconds in a file's name, or None."""
    timed = _TIME.search(file.stem if "_" not in file.suffix else file.name)
    if timed is None:
        return None
    text = timed.group(0).replace("_", ".")
    return float(text) if "." in text else int(text) / (1e9 if len(text) == 19 else 1e6)


def number_of(file: Path) -> int | None:
    """The last number in a file's name, or None."""
    found = _NUMBER.search(file.stem.removesuffix(".color").removesuffix(".depth"))
    return int(found.group(1)) if found else None


def _named(path: Path, names: Sequence[str]) -> Path | None:
    return next((path / name for name in names if (path / name).is_dir()), None)


def _color_files(files: Sequence[Path]) -> list[Path]:
    return sorted(f for f in files if f.suffix.lower() in PICTURE_SUFFIXES and not is_depth_name(f))


def _pairs(path: Path, options: Options) -> tuple[list[_Pair], list[Path]]:
    """Pairs in the order of time, and the colour pictures without depth."""
    if options.depth is None:
        listed = path / "associations.txt"
        if listed.is_file():
            return _associated(path, listed), []
        if (path / "rgb.txt").is_file():
            colors, depths = (_listed(path, path / name) for name in ("rgb.txt", "depth.txt"))
            return _nearest(colors, depths, options.tolerance_s)
    color_folder = _named(path, _COLOR_FOLDERS) or path
    depth_folder = Path(options.depth) if options.depth else _named(path, _DEPTH_FOLDERS) or path
    if not depth_folder.is_dir():
        raise InputError(f"{depth_folder}: not a folder of depth images")
    colors_only = _color_files([f for f in color_folder.iterdir() if f.is_file() and not f.name.startswith(".")])
    inside = sorted(f for f in depth_folder.iterdir() if f.suffix.lower() in DEPTH_SUFFIXES)
    depth_files = [f for f in inside if depth_folder != color_folder or is_depth_name(f)]
    if not colors_only:
        raise InputError(f"{path}: no colour picture in {color_folder.name}/")
    times = [(time_of(f), f) for f in colors_only], [(time_of(f), f) for f in depth_files]
    if all(t is not None for stream in times for t, _ in stream) and depth_files:
        colors, depths = ([(t or 0.0, f) for t, f in stream] for stream in times)
        return _nearest(sorted(colors), sorted(depths), options.tolerance_s)
    return _numbered(path, colors_only, depth_files, options.fps)


def _numbered(path: Path, colors: list[Path], depths: list[Path], fps: float) -> tuple[list[_Pair], list[Path]]:
    by_number: dict[int | None, Path] = {}
    for file in depths:
        number = number_of(file)
        if number is not None and by_number.setdefault(number, file) != file:
            raise InputError(
                f"{path}: {by_number[number].name} and {file.name} have the same number; rename one of them"
            )
    numbers = [number_of(file) for file in colors]
    if None in numbers or len(set(numbers)) < len(numbers):
        numbers = list(range(len(colors)))
        by_number = dict(enumerate(depths)) if len(depths) == len(colors) else {}
    confidences = {number_of(f): f for f in (path / _CONFIDENCE).glob("*.*")} if (path / _CONFIDENCE).is_dir() else {}
    first = min(number for number in numbers if number is not None)
    pairs = [
        _Pair(((number or 0) - first) / fps, file, by_number.get(number), confidences.get(number))
        for number, file in sorted(zip(numbers, colors, strict=True), key=lambda pair: pair[0] or 0)
    ]
    return pairs, [pair.color for pair in pairs if pair.depth is None and depths]


def _nearest(
    colors: list[tuple[float, Path]], depths: list[tuple[float, Path]], tolerance_s: float
) -> tuple[list[_Pair], list[Path]]:
    at = [time for time, _ in depths]
    pairs, unpaired = [], []
    for time, file in colors:
        right = bisect.bisect_left(at, time)
        near = min(depths[max(right - 1, 0) : right + 1], key=lambda depth: abs(depth[0] - time), default=None)
        if near is None or abs(near[0] - time) > tolerance_s:
            unpaired.append(file)
            near = None
        pairs.append(_Pair(time, file, None if near is None else near[1]))
    return pairs, unpaired


def _listed(folder: Path, path: Path) -> list[tuple[float, Path]]:
    return sorted((float(words[0]), folder / words[1]) for words in _lines(path, 2))


def _associated(folder: Path, path: Path) -> list[_Pair]:
    pairs = []
    for first, a, _, b in _lines(path, 4):
        color, depth = (b, a) if _DEPTH_WORD.search(a) and not _DEPTH_WORD.search(b) else (a, b)
        pairs.append(_Pair(float(first), folder / color, folder / depth))
    return sorted(pairs, key=lambda pair: pair.time_s)


def _lines(path: Path, num: int) -> list[list[str]]:
    try:
        rows = [line.split() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
        for row in rows:
            float(row[0])
            if len(row) < num:
                raise ValueError(f"{len(row)} words in a line, expected {num}")
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise InputError(f"{path}: not TUM's list of pictures ({error}); a line is `time file ...`") from error
    if not rows:
        raise InputError(f"{path}: lists no picture")
    return [row[:num] for row in rows]


class StrayFrames(Frames):
    """A folder of the app Stray Scanner (layout: StrayVisualizer's stray_visualize.py and README).

    rgb.mp4, depth/000000.png or .npy (uint16 millimetres, 256 x 192 of the colour camera's view), confidence/000000.png
    (0, 1, 2), camera_matrix.csv (3 x 3, of the video), odometry.csv (timestamp, frame, x, y, z, qx, qy, qz, qw).
    """

    def __init__(self, path: Path, options: Options):
        super().__init__(str(path), options)
        self._path = path
        K = read_camera(path / "camera_matrix.csv").K_px
        with VideoReader(path / "rgb.mp4") as reader:
            self.fps, self.num_frames = reader.fps, reader.num_frames
        self._camera = Camera(K)
        self._times, self._poses = _odometry(path / "odometry.csv")

    def read(self) -> Iterator[RawFrame]:
        depths = {number_of(f): f for f in (self._path / "depth").glob("*.*") if f.suffix in DEPTH_SUFFIXES}
        confidences = {number_of(f): f for f in (self._path / _CONFIDENCE).glob("*.*")}
        with VideoReader(self._path / "rgb.mp4") as reader:
            for frame in reader:
                i, depth_m, confidence = frame.index, None, None
                try:
                    if i in depths:
                        depth_m = self.options.metres(read_stored_depth(depths[i]))
                        confidence = read_confidence(confidences[i]) if i in confidences else None
                except InputError as error:
                    depth_m = None
                    self.skip(depths[i].name, str(error))
                time_s = self._times[i] if i < len(self._times) else (self._times or [0.0])[-1] + frame.time_s
                pose = self._poses[i] if i < len(self._poses) else None
                yield RawFrame(
                    time_s, frame.rgb, self._camera, depth_m, confidence=confidence, T_world_cam=pose,
                    source=f"frame {i}",
                )  # fmt: skip
            self.incomplete, self.notes = reader.incomplete, list(reader.notes)


def _odometry(path: Path) -> tuple[list[float], list[np.ndarray]]:
    """Times and poses (OpenCV axes: the app converts ARKit's) of odometry.csv; empty where there is none."""
    if not path.is_file():
        return [], []
    times, poses = [], []
    try:
        with open(path, newline="") as file:
            for row in csv.DictReader(file, skipinitialspace=True):
                values = {name.strip(): float(value) for name, value in row.items() if name and value}
                pose = np.eye(4)
                pose[:3, :3] = quaternion_to_matrix(np.array([values[name] for name in ("qx", "qy", "qz", "qw")]))
                pose[:3, 3] = [values[name] for name in "xyz"]
                times.append(values["timestamp"])
                poses.append(pose)
    except (KeyError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not Stray Scanner's odometry ({error}); export the recording again") from error
    return times, poses


def is_stray(path: Path) -> bool:
    """Whether a folder is one of Stray Scanner."""
    return (path / "rgb.mp4").is_file() and (path / "camera_matrix.csv").is_file()
