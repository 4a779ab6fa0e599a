"""An RGB-D recording: read frame by frame, smoothed over all frames, then drawn and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utnet.detect import Detection, LandmarkTracker
from utnet.errors import InputError
from utnet.heap import end_loading
from utnet.io.overlap import read_ahead
from utnet.io.recordings import Frames, RGBDFrame, open_recording
from utnet.io.videos import VideoWriter
from utnet.predict.drawing import draw_hands
from utnet.predict.files import PredictionsFile, image_record, image_size
from utnet.predict.formats import FrameWriter
from utnet.predict.hand import Hand
from utnet.predict.hand_warnings import guessed_camera
from utnet.predict.inputs import Input
from utnet.predict.live import REMEMBERED_S, hands_of_frame
from utnet.predict.predictor import Predictor
from utnet.predict.request import Request
from utnet.predict.sides import TrackSides
from utnet.predict.smoothed_tracks import SeenFrame, SmoothedTracks, decoded_again, without_mesh
from utnet.predict.video import VideoResult
from utnet.predict.video_files import VideoFiles
from utnet.render.drawing import color_depth
from utnet.signals import InterruptHandler


def predict_recording(
    predictor: Predictor,
    item: Input,
    request: Request,
    file: PredictionsFile,
    writers: Sequence[FrameWriter],
    stop: InterruptHandler,
) -> VideoResult:
    """Adds a recording's frames to predictions.json and to the `writers`, and writes its overlay, meshes and arrays.

    The recording is read twice: hands are found and tracked, then, smoothed over all frames, drawn and written. After a
    request to stop, or with a damaged or missing end, the frames before it are written.

    Raises:
        InputError: no frame can be read, or depth is in another unit; nothing is written.
        OSError: something cannot be written; predictions.json has the frames before it.
    """
    assert isinstance(item.source, Path)
    frames = open_recording(item.source, request.recording_options)
    if predictor.hand is None and not request.raw:
        raise InputError("smoothing needs the network's hand model, which this exported file lacks; add --raw")
    seen = FirstReading(predictor, frames.fps, partial(camera_of, request=request))
    bar = tqdm(total=frames.num_frames, desc=item.name, unit="frame", disable=None)
    seen.read(_until(iter(frames), request.seconds, stop, bar))
    seen.check_unit()
    notes, incomplete = [*frames.notes, *seen.notes()], frames.incomplete
    if stop.signal_number:
        of_all = f" of {frames.num_frames}" if frames.num_frames else ""
        incomplete = f"stopped after {len(seen.frames)}{of_all} frames"
    seen.give_each_track_one_side(frames)
    smoothed = SmoothedTracks(seen.frames, predictor.hand) if predictor.hand is not None and not request.raw else None

    def hands_of(i: int) -> Sequence[Hand]:
        if smoothed is not None:
            return smoothed.hands(i)
        return [decoded_again(hand, predictor.hand) for hand in seen.frames[i].hands]

    num_hands = _write(frames, seen, hands_of, item, request, file, writers)
    return VideoResult(len(seen.frames), num_hands, incomplete, bool(stop.signal_number), tuple(notes))


class FirstReading:
    """The hands of a recording, frame by frame, tracked.

    Args:
        predictor: reconstructs the hands.
        fps: approximate frames per second.
        camera_of: returns a frame's (3, 3) intrinsics and their source.

    Attributes:
        frames: all frames; without meshes if they are smoothed.
        K_px: of the first frame.
        K_from: its source.
        size_px: of the pictures.
    """

    def __init__(self, predictor: Predictor, fps: float, camera_of: Callable[[RGBDFrame], tuple[np.ndarray, str]]):
        self._predictor, self._camera_of = predictor, camera_of
        self._track = LandmarkTracker(predictor.detector, patience=max(1, round(REMEMBERED_S * fps)))
        self._sides = TrackSides()
        self._detections: list[list[Detection]] = []
        self.frames: list[SeenFrame] = []
        self.K_px, self.K_from, self.size_px = np.eye(3), "default", (0, 0)
        self._unlikely: list[tuple[int, str]] = []
        self._measured = 0

    def read(self, frames: Iterable[RGBDFrame]) -> None:
        """Finds the hands of all frames. A thread reads and follows the next frame meanwhile."""
        with read_ahead(((frame, self._track(frame.rgb)) for frame in frames), depth=1) as followed:
            for frame, detections in followed:
                if not self.frames:
                    self.K_px, self.K_from = self._camera_of(frame)
                    self.size_px = image_size(frame.rgb)
                hands, problem = self._hands(frame, detections, self._sides)
                if problem:
                    self._unlikely.append((frame.index, problem))
                self._measured += any(hand.distance_source == "sensor" for hand in hands)
                if not self.frames:
                    end_loading()  # all is loaded
                self.frames.append(SeenFrame(frame.index, frame.time_s, hands, frame.T_world_cam))
                self._detections.append(detections)

    def give_each_track_one_side(self, recording: Iterable[RGBDFrame]) -> None:
        """Reconstructs hands of frames before the evidence of later ones turned the side of their track again.

        Args:
            recording: the frames that were read, once more; those up to the last such hand are read.
        """
        decided = [[self._sides.decided(detection) for detection in each] for each in self._detections]
        wrong = {
            i
            for i, (frame, each) in enumerate(zip(self.frames, decided, strict=True))
            if any(hand.side != detection.side for hand, detection in zip(frame.hands, each, strict=True))
        }
        for i, picture in enumerate(recording if wrong else ()):
            if i in wrong:
                self.frames[i] = replace(self.frames[i], hands=self._hands(picture, decided[i])[0])
                wrong.remove(i)
            if not wrong:
                break
        for i, (frame, each) in enumerate(zip(self.frames, decided, strict=True)):
            pairs = zip(frame.hands, each, strict=True)
            sided = tuple(replace(hand, side_probability=one.side_probability) for hand, one in pairs)
            self.frames[i] = replace(frame, hands=sided)
        self._detections.clear()

    def _hands(
        self, frame: RGBDFrame, detections: Sequence[Detection], sides: TrackSides | None = None
    ) -> tuple[tuple[Hand, ...], str]:
        """The hands of a frame, and the reason if its depth was not used."""
        K_px = self._camera_of(frame)[0]
        hands, problem = hands_of_frame(self._predictor, frame.rgb, detections, frame.depth_m, K_px, sides)
        return tuple(hands) if self._predictor.hand is None else tuple(map(without_mesh, hands)), problem

    def check_unit(self) -> None:
        """Raises InputError if depth is implausible in all frames."""
        if self._unlikely and not self._measured:
            raise InputError(self._unlikely[0][1])

    def notes(self) -> list[str]:
        """Depth that was not used, or used with a guessed camera."""
        lines = []
        if self._unlikely:
            number, why = self._unlikely[0]
            lines.append(f"depth of {len(self._unlikely)} frames is not used, the first is frame {number}: {why}")
        if self._measured and self.K_from == "default":
            lines.append(guessed_camera(self.K_px))
        return lines


def camera_of(frame: RGBDFrame, request: Request) -> tuple[np.ndarray, str]:
    """Intrinsics (3, 3) of a frame, and their source: "given", "recording" or "default"."""
    if frame.K_px is None:
        return request.camera(frame.rgb)
    return frame.K_px, "recording" if request.given_camera is None else "given"


def _write(
    recording: Frames,
    seen: FirstReading,
    hands_of: Callable[[int], Sequence[Hand]],
    item: Input,
    request: Request,
    file: PredictionsFile,
    writers: Sequence[FrameWriter],
) -> int:
    """Writes everything; returns the number of hands."""
    overlay = f"{item.name}_overlay.mp4" if request.overlay else None
    files = VideoFiles(item, request, writers, name=recording.name, size_px=seen.size_px, K_px=seen.K_px)
    head = image_record(recording.name, seen.size_px, seen.K_px, seen.K_from, {"overlay": overlay})
    head |= {"fps": round(recording.fps, 4), "smoothed": not request.raw}
    num_hands = 0
    with_pictures = request.overlay or "custom" in request.also
    pictures: Iterator[RGBDFrame] | None = iter(recording) if with_pictures else None
    with ExitStack() as stack:
        add = stack.enter_context(file.video(head, files.names))
        writer = None
        if overlay:
            writer = stack.enter_context(VideoWriter(request.out / overlay, recording.fps))
        for i, frame in enumerate(seen.frames):
            hands = hands_of(i)
            picture = None if pictures is None else next(pictures)
            read_rgb = None if picture is None else partial(getattr, picture, "rgb")
            records = files.add(hands, frame.index, frame.time_s, read_rgb)
            pose = None if frame.T_world_cam is None else np.round(frame.T_world_cam, 6).tolist()
            add({"index": frame.index, "time_s": round(frame.time_s, 6), "T_world_cam": pose, "hands": records})
            if writer is not None and picture is not None:
                writer.write(_drawn(picture, hands, request, seen.size_px), frame.time_s)
            num_hands += len(hands)
        files.finish()
    return num_hands


def _drawn(frame: RGBDFrame, hands: Sequence[Hand], request: Request, size_px: tuple[int, int]) -> np.ndarray:
    if frame.recorded_rgb is None:
        drawn = draw_hands(frame.rgb, hands, request.style)
    else:
        drawn = draw_hands(frame.recorded_rgb, hands, request.style, lens=frame.camera)
    if not request.show_depth:
        return drawn
    depth_m = np.zeros(size_px[::-1], np.float32) if frame.depth_m is None else frame.depth_m
    middle = [float(hand.joints_cam_m[:, 2].mean()) for hand in hands] or [float(np.median(depth_m))]
    return np.concatenate([drawn, draw_hands(color_depth(depth_m, float(np.mean(middle))), hands, request.style)], 1)


def _until(
    frames: Iterator[RGBDFrame], seconds: float | None, stop: InterruptHandler, bar: tqdm
) -> Iterator[RGBDFrame]:
    """Yields frames up to a time, or to a request to stop."""
    with bar:
        for frame in frames:
            if seconds is not None and frame.time_s >= seconds:
                return
            yield frame
            bar.update()
            if stop.signal_number:
                return
