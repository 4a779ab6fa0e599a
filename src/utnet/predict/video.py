"""Predicts a video or camera frame by frame: tracker, predictor, smoother, writer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from typing import cast

from tqdm import tqdm

from utnet.heap import end_loading
from utnet.io.overlap import read_ahead, write_behind
from utnet.io.videos import Frame, VideoReader, VideoWriter
from utnet.predict.drawing import draw_hands
from utnet.predict.files import PredictionsFile, image_record, image_size
from utnet.predict.formats import FrameWriter
from utnet.predict.hand import Hand
from utnet.predict.inputs import Input
from utnet.predict.live import HandTracker, side_notes
from utnet.predict.predictor import Predictor
from utnet.predict.request import Request
from utnet.predict.video_files import VideoFiles
from utnet.signals import InterruptHandler


@dataclass(frozen=True)
class VideoResult:
    """Result of a video.

    Attributes:
        num_frames: frames processed.
        num_hands: in all of them.
        incomplete: why frames are missing, or None.
        stopped: whether they are missing because of a request to stop.
        notes: further remarks (`io.videos.VideoReader`).
    """

    num_frames: int
    num_hands: int
    incomplete: str | None
    stopped: bool
    notes: tuple[str, ...] = ()


def predict_video(
    predictor: Predictor,
    item: Input,
    request: Request,
    file: PredictionsFile,
    writers: Sequence[FrameWriter],
    stop: InterruptHandler,
) -> VideoResult:
    """Adds a video's frames to predictions.json and to the `writers`, and writes its overlay, meshes and arrays.

    After a request to stop, or with a damaged or missing end, the frames before it are written.

    Raises:
        InputError: no frame can be decoded; nothing is written.
        OSError: something cannot be written; predictions.json has the frames before it, and those (two at the most)
            that were predicted while an overlay's frame was written.
    """
    num_frames = num_hands = 0
    with VideoReader(item.source, request.start_s) as reader, ExitStack() as stack:
        # A camera's frames are read by the tracker, one ahead, so none is outdated.
        frames = iter(reader) if item.kind == "camera" else stack.enter_context(read_ahead(reader, depth=1))
        first = next(frames)
        K_px, K_from = request.camera(first.rgb)
        overlay = f"{item.name}_overlay.mp4" if request.overlay else None
        tracker = HandTracker(predictor, fps=reader.fps, smooth=not request.raw)
        size_px = image_size(first.rgb)
        files = VideoFiles(item, request, writers, name=reader.name, size_px=size_px, K_px=K_px)
        head = image_record(reader.name, size_px, K_px, K_from, {"overlay": overlay})
        head |= {"fps": round(reader.fps, 4), "smoothed": not request.raw}
        add = stack.enter_context(file.video(head, files.names))
        draw = None
        if overlay:
            writer = stack.enter_context(VideoWriter(request.out / overlay, reader.fps))
            draw = stack.enter_context(write_behind(_drawing(writer, request)))
        until = _until(first, frames, request.seconds, stop, _bar(reader, item))
        for tracked in stack.enter_context(closing(tracker(until, K_px))):
            if num_frames == 0:
                end_loading()  # all is loaded
            frame, hands = cast(Frame, tracked.frame), tracked.hands
            records = files.add(hands, frame.index, frame.time_s, partial(getattr, frame, "rgb"))
            add({"index": frame.index, "time_s": round(frame.time_s, 6), "hands": records})
            if draw is not None:
                draw(frame, hands)
            num_frames, num_hands = num_frames + 1, num_hands + len(hands)
        files.finish()
        stopped = bool(stop.signal_number) and item.kind == "video" and next(frames, None) is not None
        of_all = f" of {reader.num_frames}" if reader.num_frames else ""
        incomplete = f"stopped after {num_frames}{of_all} frames" if stopped else reader.incomplete
        notes = [*reader.notes, *side_notes(tracker.side_changes)]
        return VideoResult(num_frames, num_hands, incomplete, stopped, tuple(notes))


def _drawing(writer: VideoWriter, request: Request) -> Callable[[Frame, Sequence[Hand]], None]:
    return lambda frame, hands: writer.write(draw_hands(frame.rgb, hands, request.style), frame.time_s)


def _until(
    first: Frame, rest: Iterator[Frame], seconds: float | None, stop: InterruptHandler, bar: tqdm
) -> Iterator[Frame]:
    """Yields frames up to a time, or to a request to stop."""
    with bar:
        frame: Frame | None = first
        while frame is not None and (seconds is None or frame.time_s < seconds):
            yield frame
            bar.update()
            if stop.signal_number:
                return
            frame = next(rest, None)


def _bar(reader: VideoReader, item: Input) -> tqdm:
    return tqdm(total=reader.num_frames, desc=item.name, unit="frame", disable=None)
