"""Live tracking: one loop for cameras, recordings and videos, and messages for other programs."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import numpy as np

from utnet.detect import Detection, LandmarkTracker
from utnet.errors import InputError
from utnet.io.overlap import read_ahead
from utnet.io.recordings import Options, is_recording, open_recording
from utnet.io.videos import VideoReader
from utnet.predict.hand import Hand
from utnet.predict.hands import Hands
from utnet.predict.predictor import Predictor
from utnet.predict.sides import TrackSides
from utnet.predict.smooth import HandSmoother

REMEMBERED_S = 0.5
"""After a longer loss a hand gets a new track."""
_LARGEST_DATAGRAM = 60_000


class LiveFrame(Protocol):
    """Protocol of frames, such as `io.videos.Frame` and `io.recordings.RGBDFrame`.

    Attributes:
        index: 0, 1, 2, ...
        time_s: strictly increasing.
        rgb: (H, W, 3) uint8.
    """

    @property
    def index(self) -> int: ...
    @property
    def time_s(self) -> float: ...
    @property
    def rgb(self) -> np.ndarray: ...


@dataclass(frozen=True)
class TrackedFrame:
    """A frame with its hands.

    Attributes:
        frame: the input.
        hands: ordered by `track`.
        latency_s: from taking the frame to the result.
    """

    frame: LiveFrame
    hands: tuple[Hand, ...]
    latency_s: float

    def message(self) -> dict[str, Any]:
        """Returns the message for other programs: metres, camera frame (OpenCV axes), wrist frame (MANO's axes)."""
        return {
            "frame": self.frame.index,
            "time_s": round(self.frame.time_s, 6),
            "latency_ms": round(1000 * self.latency_s, 1),
            "hands": [_hand_message(hand) for hand in self.hands],
        }


class HandTracker:
    """Follows hands through frames: detection, reconstruction, tracking, causal smoothing.

        tracker = HandTracker()
        for tracked in tracker(frames):
            tracked.hands  # each with its `track`, T_cam_wrist, joints_wrist_m, ...

    A track has one side, by the evidence of its frames so far. If later frames change it, smoothing restarts.

    Args:
        predictor: None: with the bundled network.
        fps: approximate frames per second.
        smooth: apply the causal `HandSmoother`.

    Attributes:
        side_changes: tracks whose side changed: number, new side, and time in seconds.

    Raises:
        InputError: smoothing with a network without hand model.
    """

    def __init__(self, predictor: Predictor | None = None, *, fps: float = 30.0, smooth: bool = True):
        self.predictor = Predictor() if predictor is None else predictor
        self.side_changes: list[tuple[int, str, float]] = []
        self._track_sides, self._sides = TrackSides(), dict[int | None, str]()
        self._track = LandmarkTracker(self.predictor.detector, patience=max(1, round(REMEMBERED_S * fps)))
        self._smooth: HandSmoother | None = None
        if smooth:
            if self.predictor.hand is None:
                raise InputError("smoothing needs the network's hand model, which this exported file lacks; add --raw")
            self._smooth = HandSmoother(fps, hand=self.predictor.hand)

    def update(
        self, rgb: np.ndarray, time_s: float, *, depth_m: np.ndarray | None = None, K_px: np.ndarray | None = None
    ) -> tuple[Hand, ...]:
        """Returns the hands of the next frame, ordered by track.

        Args:
            rgb: (H, W, 3) uint8.
            time_s: later than the previous one.
            depth_m: (H, W) metres at the pixels of `rgb`, 0 where there is no reading; None: no depth.
            K_px: (3, 3) intrinsics; None: the default.
        """
        return self._reconstructed(self._track(rgb), rgb, time_s, depth_m, K_px)

    def _reconstructed(
        self,
        detections: Sequence[Detection],
        rgb: np.ndarray,
        time_s: float,
        depth_m: np.ndarray | None,
        K_px: np.ndarray | None,
    ) -> tuple[Hand, ...]:
        hands, _ = hands_of_frame(self.predictor, rgb, detections, depth_m, K_px, self._track_sides)
        for hand in hands:
            if self._sides.setdefault(hand.track, hand.side) != hand.side and hand.track is not None:
                self.side_changes.append((hand.track, hand.side, time_s))
                self._sides[hand.track] = hand.side
        return tuple(hands) if self._smooth is None else tuple(self._smooth(hands, time_s))

    def __call__(
        self, frames: Iterable[LiveFrame], K_px: np.ndarray | None = None
    ) -> Generator[TrackedFrame, None, None]:
        """Yields each frame with its hands, as `update` finds them. A thread takes and follows the next frame while the
        hands of one are reconstructed.

        Args:
            frames: of one camera, in order.
            K_px: (3, 3) intrinsics of frames without their own.
        """
        with read_ahead(self._followed(frames), depth=1) as followed:
            try:
                for frame, detections, start in followed:
                    own, depth_m = getattr(frame, "K_px", None), getattr(frame, "depth_m", None)
                    K = K_px if own is None else own
                    hands = self._reconstructed(detections, frame.rgb, frame.time_s, depth_m, K)
                    yield TrackedFrame(frame, hands, time.monotonic() - start)
            finally:
                if isinstance(frames, NewestFrames):  # the thread may wait for a frame that never comes
                    frames.close()

    def _followed(self, frames: Iterable[LiveFrame]) -> Iterator[tuple[LiveFrame, list[Detection], float]]:
        """Frames with their detections, and when they came."""
        for frame in frames:
            start = time.monotonic()
            yield frame, self._track(frame.rgb), start


def hands_of_frame(
    predictor: Predictor,
    rgb: np.ndarray,
    detections: Sequence[Detection],
    depth_m: np.ndarray | None,
    K_px: np.ndarray | None,
    track_sides: TrackSides | None,
) -> tuple[Hands, str]:
    """Reconstructs a frame's detections (`Predictor.from_detections`), without its depth where that is implausible.

    Returns:
        The hands; the reason if depth was not used, else "".
    """
    try:
        return predictor.from_detections(rgb, detections, depth_m, K_px, track_sides=track_sides), ""
    except InputError as error:
        if depth_m is None:
            raise
        return predictor.from_detections(rgb, detections, None, K_px, track_sides=track_sides), str(error)


def side_notes(changes: Sequence[tuple[int, str, float]]) -> list[str]:
    """One line for each track of `HandTracker.side_changes`."""
    lines = {}
    for track, side, time_s in changes:
        lines[track] = f"track {track} is a {side} hand from {time_s:.2f} s on, by the evidence until then"
    return list(lines.values())


def open_live(source: str, options: Options) -> tuple[Iterable[LiveFrame], float, bool]:
    """Opens a source of `utnet live`.

    Args:
        source: the number of a camera, "realsense", a video or a recording.
        options: for recordings and the RealSense.

    Returns:
        Frames, frames per second, and whether they are live (late ones may then be dropped).

    Raises:
        InputError: no such file or camera.
    """
    if source == "realsense":
        from utnet.io.recordings.realsense import RealSenseFrames

        device = RealSenseFrames(options)
        return device, device.fps, True
    if source.isdecimal() and not Path(source).exists():
        camera = VideoReader(int(source))
        return camera, camera.fps, True
    path = Path(source)
    if is_recording(path) if path.exists() else False:
        recording = open_recording(path, options)
        return recording, recording.fps, False
    video = VideoReader(path)
    return video, video.fps, False


class NewestFrames(Iterator[LiveFrame]):
    """Newest frames of a live source: a thread reads, and frames that are not taken in time are dropped.

    Attributes:
        dropped: number of dropped frames.
    """

    def __init__(self, frames: Iterable[LiveFrame]):
        self.dropped = 0
        self._frame: LiveFrame | None = None
        self._error: BaseException | None = None
        self._done, self._ready = False, threading.Condition()
        threading.Thread(target=self._read, args=(iter(frames),), daemon=True).start()

    def __next__(self) -> LiveFrame:
        with self._ready:
            self._ready.wait_for(lambda: self._frame is not None or self._done)
            if self._frame is None:
                if self._error is not None:
                    raise self._error
                raise StopIteration
            frame, self._frame = self._frame, None
            return frame

    def close(self) -> None:
        """Gives no more frames, also to a thread that waits for one."""
        with self._ready:
            self._frame, self._done = None, True
            self._ready.notify_all()

    def _read(self, frames: Iterator[LiveFrame]) -> None:
        try:
            for frame in frames:
                with self._ready:
                    if self._done:
                        return
                    self.dropped += self._frame is not None
                    self._frame = frame
                    self._ready.notify()
        except BaseException as error:  # raised in the thread that requests frames
            self._error = error
        with self._ready:
            self._done = True
            self._ready.notify()


class Sender:
    """Sends messages as lines of JSON to a file, or as UDP datagrams of JSON; a context manager.

    Args:
        file: an open text file, or None.
        address: (host, port) for UDP, or None.
    """

    def __init__(self, file: IO[str] | None = None, address: tuple[str, int] | None = None):
        self._file, self._address = file, address
        self._socket = None if address is None else socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def send(self, message: dict[str, Any]) -> None:
        """Sends one frame's message. Hands that do not fit into a datagram are omitted, the last ones first."""
        line = json.dumps(message, allow_nan=False)
        if self._file is not None:
            self._file.write(line + "\n")
            self._file.flush()
        if self._socket is not None and self._address is not None:
            hands = list(message["hands"])
            while len(line) > _LARGEST_DATAGRAM and hands:
                hands.pop()
                line = json.dumps({**message, "hands": hands}, allow_nan=False)
            self._socket.sendto(line.encode(), self._address)


def _hand_message(hand: Hand) -> dict[str, Any]:
    error = hand.joint_error_mm
    return {
        "track": hand.track,
        "side": hand.side,
        "valid": hand.valid,
        "score": round(hand.score, 4),
        "distance_source": hand.distance_source,
        "T_cam_wrist": np.round(hand.T_cam_wrist, 6).tolist(),
        "joints_wrist_m": np.round(hand.joints_wrist_m, 6).tolist(),
        "joint_error_mm": None if error is None else np.round(error, 2).tolist(),
    }
