"""`Frames`: the interface of all recordings, and the processing that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from utnet.errors import InputError
from utnet.io.recordings.alignment import register_depth, resample_depth
from utnet.io.recordings.cameras import Camera
from utnet.io.recordings.poses import CameraPoses

_LEAST_STEP_S = 0.001
_GAP_FRAMES, _GAP_S = 3.5, 0.2
_READ_AHEAD = 60
"""Largest number of pictures of one stream that wait for the other."""
TOLERANCE_S = 0.02
"""Largest time between the colour and depth of a pair (TUM's associate.py)."""

Item = TypeVar("Item")


@dataclass(frozen=True)
class Options:
    """Settings of the user for a recording.

    Attributes:
        depth: folder or video with the depth of a colour video or folder.
        depth_scale: metres per unit of every depth image; None: integers are millimetres (or what the recording
            states), floats metres.
        camera: of the colour pictures, in place of the recording's.
        fps: frames per second of pictures without times.
        tolerance_s: largest time between colour and depth.
        poses: of the camera, in place of the recording's.
        least_confidence: readings below are discarded; None: below 1 where the levels are 0, 1, 2 (ARKit's).
    """

    depth: str | None = None
    depth_scale: float | None = None
    camera: Camera | None = None
    fps: float = 30.0
    tolerance_s: float = TOLERANCE_S
    poses: CameraPoses | None = None
    least_confidence: int | None = None

    def metres(self, depth: np.ndarray, unit_m: float = 0.001) -> np.ndarray:
        """Returns a stored depth image as float32 metres, 0 where there is no reading.

        Args:
            depth: (H, W) of integers or floats, as stored.
            unit_m: metres per unit of integers, if the user gave none.
        """
        scale = self.depth_scale if self.depth_scale is not None else unit_m if depth.dtype.kind in "iu" else 1.0
        return np.nan_to_num(depth.astype(np.float32) * np.float32(scale), nan=0.0, posinf=0.0, neginf=0.0)


@dataclass(frozen=True)
class RawFrame:
    """A frame as stored in a recording.

    Attributes:
        time_s: by the recording's clock.
        rgb: (H, W, 3) uint8.
        color: its camera; None: unknown.
        depth_m: (h, w) float32 metres of any size; None: this picture has no depth.
        depth: the depth camera; None: depth has the view of the colour picture.
        T_color_depth: (4, 4) from the depth camera to the colour camera, metres.
        confidence: (h, w) of the depth image, higher is surer; None: none is recorded.
        T_world_cam: (4, 4) pose of the camera in the recording's world (OpenCV axes); None: unknown.
        source: file or message of the frame.
    """

    time_s: float
    rgb: np.ndarray
    color: Camera | None = None
    depth_m: np.ndarray | None = None
    depth: Camera | None = None
    T_color_depth: np.ndarray | None = None
    confidence: np.ndarray | None = None
    T_world_cam: np.ndarray | None = None
    source: str = ""


@dataclass(frozen=True)
class RGBDFrame:
    """A frame of a recording.

    Attributes:
        index: 0, 1, 2, ...
        time_s: since the first frame, strictly increasing.
        rgb: (H, W, 3) uint8, without lens distortion.
        K_px: (3, 3) intrinsics; None: unknown.
        depth_m: (H, W) float32 metres at the pixels of `rgb`, 0 where there is no reading; None: no depth.
        confidence: (h, w) of the recorded depth image, or None.
        T_world_cam: (4, 4) pose of the camera in the recording's world (OpenCV axes), or None.
        source: file or message of the frame.
        camera: the camera with its distortion, for points in the recorded picture; None: unknown.
        recorded_rgb: (H, W, 3) uint8, the recorded picture with lens distortion; None: the same as `rgb`.
    """

    index: int
    time_s: float
    rgb: np.ndarray
    K_px: np.ndarray | None = None
    depth_m: np.ndarray | None = None
    confidence: np.ndarray | None = None
    T_world_cam: np.ndarray | None = None
    source: str = ""
    camera: Camera | None = None
    recorded_rgb: np.ndarray | None = None


class Frames(ABC):
    """Frames of a recording, read one at a time in constant memory. It can be iterated repeatedly.

    Args:
        name: of the recording, for messages.
        options: settings of the user.

    Attributes:
        name: of the recording.
        fps: approximate mean frames per second.
        num_frames: approximate number; None: unknown.
        incomplete: after the last frame: why frames are missing, or None.
        notes: after the last frame: remarks, such as frames without depth.
    """

    fps: float = 30.0
    num_frames: int | None = None

    def __init__(self, name: str, options: Options):
        self.name, self.options = name, options
        self.incomplete: str | None = None
        self.notes: list[str] = []
        self._skipped: list[str] = []

    @abstractmethod
    def read(self) -> Iterator[RawFrame]:
        """Yields the stored frames. Damaged ones are skipped by `skip`; a missing end sets `incomplete`."""

    def skip(self, source: str, why: str) -> None:
        """Records an unreadable frame or depth image."""
        self._skipped.append(f"{source}: {why}")

    def __iter__(self) -> Iterator[RGBDFrame]:
        """Raises InputError if no frame can be read."""
        self.incomplete, self.notes, self._skipped = None, [], []
        clock, tally = _Clock(), _Tally()
        index, shape = 0, None
        for raw in self.read():
            shape = raw.rgb.shape if shape is None else shape
            if raw.rgb.shape != shape:
                self.skip(raw.source, f"{raw.rgb.shape[1]}x{raw.rgb.shape[0]} pixels, unlike the first")
                continue
            frame = self._aligned(raw, index, clock(raw.time_s))
            tally.add(frame)
            yield frame
            index += 1
        if index == 0:
            first = self._skipped[0] if self._skipped else "no frame in it"
            raise InputError(f"{self.name}: no frame can be read ({first})")
        if self._skipped:
            more = f", and {len(self._skipped) - 1} more" if len(self._skipped) > 1 else ""
            self.notes.append(f"left out: {self._skipped[0]}{more}")
        self.notes += [*clock.notes(), *tally.notes()]

    def _aligned(self, raw: RawFrame, index: int, time_s: float) -> RGBDFrame:
        height, width = raw.rgb.shape[:2]
        camera = self.options.camera or raw.color
        if camera is not None:
            camera = camera.scaled((width, height))
        depth_m = None
        if raw.depth_m is not None:
            try:
                depth_m = self._depth_at_color(raw, camera, (width, height))
            except InputError as error:
                raise InputError(f"{self.name}: {error}") from error
        rgb, K, pose = raw.rgb, None, raw.T_world_cam
        if self.options.poses is not None:
            pose = self.options.poses.at(raw.time_s, self.options.tolerance_s)
        if camera is not None:
            rgb, K = camera.rectified(rgb), camera.K_px
        if depth_m is not None and not (depth_m > 0).any():
            depth_m = None
        recorded = raw.rgb if camera is not None and camera.is_distorted else None
        return RGBDFrame(index, time_s, rgb, K, depth_m, raw.confidence, pose, raw.source, camera, recorded)

    def _depth_at_color(self, raw: RawFrame, camera: Camera | None, size: tuple[int, int]) -> np.ndarray:
        """Depth at the pixels of the rectified colour picture."""
        assert raw.depth_m is not None
        depth_m = self._confident(raw)
        if raw.depth is None:  # the view of the colour camera, and its lens
            depth_m = resample_depth(depth_m, size)
            return depth_m if camera is None else camera.rectified(depth_m, nearest=True)
        if camera is None:
            raise InputError("the colour camera's calibration is not in it; give --K")
        T = np.eye(4) if raw.T_color_depth is None else raw.T_color_depth
        lens = raw.depth.scaled((depth_m.shape[1], depth_m.shape[0]))
        same_view = np.allclose(T, np.eye(4), atol=1e-6) and np.allclose(
            lens.scaled(size).K_px, camera.K_px, rtol=1e-4, atol=0.1
        )
        depth_m = lens.rectified(depth_m, nearest=True)
        if same_view:
            return resample_depth(depth_m, size)
        return register_depth(depth_m, lens.K_px, T, camera.K_px, size)

    def _confident(self, raw: RawFrame) -> np.ndarray:
        """Depth without readings of low confidence."""
        assert raw.depth_m is not None
        if raw.confidence is None:
            return raw.depth_m
        if raw.confidence.shape != raw.depth_m.shape:
            raise InputError(f"{raw.source}: confidence is {raw.confidence.shape}, its depth {raw.depth_m.shape}")
        least = self.options.least_confidence
        if least is None:
            least = 1 if raw.confidence.max() <= 2 else 128
        return np.where(raw.confidence >= least, raw.depth_m, np.float32(0))


class _Clock:
    """Strictly increasing times since the first frame, even if the recording's clock is not."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._time, self._step = 0.0, 1 / 30
        self._backwards, self._gaps, self._longest, self._count = 0, 0, 0.0, 0

    def __call__(self, stated_s: float) -> float:
        if self._last is not None:
            step = stated_s - self._last
            if step < _LEAST_STEP_S / 10:  # the clock was set back or stopped: the usual step is assumed
                self._backwards += 1
                step = self._step
            elif step > max(_GAP_S, _GAP_FRAMES * self._step):
                self._gaps += 1
                self._longest = max(self._longest, step)
            else:
                self._step += 0.1 * (step - self._step)
            self._time += max(step, _LEAST_STEP_S)
        self._last = stated_s
        self._count += 1
        return self._time

    def notes(self) -> list[str]:
        lines = []
        if self._backwards:
            times = "once" if self._backwards == 1 else f"{self._backwards} times"
            lines.append(f"the clock is set back or stopped {times}; time continues from there")
        if self._gaps:
            gaps = "a gap" if self._gaps == 1 else f"{self._gaps} gaps, the longest"
            lines.append(f"{gaps} of {self._longest:.2f} s between frames")
        return lines


class _Tally:
    """Counts frames without depth."""

    def __init__(self) -> None:
        self._frames = self._without = 0
        self._first: int | None = None

    def add(self, frame: RGBDFrame) -> None:
        self._frames += 1
        if frame.depth_m is None:
            self._without += 1
            self._first = frame.index if self._first is None else self._first

    def notes(self) -> list[str]:
        if not self._without:
            return []
        if self._without == self._frames:
            return ["no depth in it; distances follow from the size of the hand"]
        return [f"{self._without} of {self._frames} frames have no depth, the first is frame {self._first}"]


@dataclass(frozen=True)
class Event(Generic[Item]):
    """A picture of one of two streams.

    Attributes:
        is_depth: it belongs to the depth stream.
        time_s: time of the picture.
        item: the picture, decoded or encoded.
    """

    is_depth: bool
    time_s: float
    item: Item


def pair_streams(
    events: Iterable[Event[Item]], tolerance_s: float, unpaired: Callable[[], None] = lambda: None
) -> Iterator[tuple[float, Item, Item | None]]:
    """Pairs every colour picture with the depth image nearest in time, in one pass and bounded memory.

    Args:
        events: both streams, each in the order of its times, as they are interleaved in a file.
        tolerance_s: largest time between the two of a pair.
        unpaired: called for each colour picture without depth.

    Yields:
        Time and item of each colour picture, and its depth item or None.
    """
    colors: deque[Event[Item]] = deque()
    depths: deque[Event[Item]] = deque(maxlen=_READ_AHEAD)

    def take() -> tuple[float, Item, Item | None]:
        color = colors.popleft()
        nearest = min(depths, key=lambda depth: abs(depth.time_s - color.time_s), default=None)
        while len(depths) > 1 and depths[1].time_s <= color.time_s:
            depths.popleft()
        if nearest is None or abs(nearest.time_s - color.time_s) > tolerance_s:
            unpaired()
            return color.time_s, color.item, None
        return color.time_s, color.item, nearest.item

    for event in events:
        (depths if event.is_depth else colors).append(event)
        while colors and (
            len(colors) > _READ_AHEAD or (depths and depths[-1].time_s >= colors[0].time_s + tolerance_s)
        ):
            yield take()
    while colors:
        yield take()
