"""One call of `utnet predict`: inputs to an output folder."""

from __future__ import annotations

import errno
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

from tqdm import tqdm

from utnet.errors import InputError, as_input_error
from utnet.heap import end_loading
from utnet.io.atomic import output_folder
from utnet.predict.files import PREDICTIONS, PredictionsFile
from utnet.predict.formats import FORMATS, FormatName, FrameWriter, PredictedFrame
from utnet.predict.hand import Hand
from utnet.predict.hand_warnings import hand_warnings
from utnet.predict.hands import Hands
from utnet.predict.inputs import Input, check_out
from utnet.predict.overwrite import previous_files, remove_stale
from utnet.predict.picture import predict_picture
from utnet.predict.predictor import Predictor
from utnet.predict.request import Request
from utnet.signals import InterruptHandler

_NO_MORE_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Write errors that end the call, since they would recur for every further input."""


@dataclass
class Summary:
    """The result of a call.

    Attributes:
        num_pictures: pictures processed.
        num_videos: videos processed, fully or up to a damaged part.
        num_frames: frames of these videos.
        num_hands: in all pictures and frames.
        problems: file and reason of inputs that failed or are incomplete.
        num_left: inputs that were not started.
        stopped_by: number of the signal that ended the call before all was done, 0 if none did.
        hands: hands of the last picture.
        without_hand: processed pictures without a hand.
        warnings: of `hand_warnings`, with the picture's name where there are several inputs.
    """

    num_pictures: int = 0
    num_videos: int = 0
    num_frames: int = 0
    num_hands: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    num_left: int = 0
    stopped_by: int = 0
    hands: Sequence[Hand] = ()
    without_hand: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def run(
    predictor: Predictor, inputs: Sequence[Input], request: Request, writers: Sequence[FrameWriter] = ()
) -> Summary:
    """Predicts every input and writes predictions.json and the other output files.

    Inputs that fail are reported on stderr and in the JSON, and the others are processed. SIGTERM, Ctrl-C and a full
    disk end the call after the current pictures or frame; finished results are written. An earlier call's files are
    removed once the new predictions.json is written.

    Args:
        predictor: the predictor.
        inputs: of `find_inputs`.
        request: the options.
        writers: open writers of the caller, which also receive every frame.

    Raises:
        InputError: the only input failed, or the folder contains an input or an earlier call's predictions.
    """
    check_out(request.out, inputs)
    made_by = {"method": predictor.method, "weights": predictor.weights, "hand_model": predictor.hand_model}
    also: dict[str, str] = {name: FORMATS[name].file for name in request.also}
    with output_folder(request.out):
        earlier = previous_files(request.out, allowed=request.overwrite)
        try:
            with (
                InterruptHandler() as stop,
                PredictionsFile(request.out / PREDICTIONS, made_by, also) as file,
                ExitStack() as stack,
            ):
                summary = Summary()
                own = [stack.enter_context(_written(name, request, file, summary)) for name in request.also]
                call = _Call(predictor, request, file, [*own, *writers], stop, summary, is_only=len(inputs) == 1)
                call.do(inputs)
        finally:
            remove_stale(earlier)
    return summary


@contextmanager
def _written(name: FormatName, request: Request, file: PredictionsFile, summary: Summary) -> Iterator[FrameWriter]:
    """Opens a format's writer. If its file cannot be completed (a full disk), only this file is reported as failed."""
    is_done = False
    try:
        with FORMATS[name].open(request.out) as writer:
            yield writer
            is_done = True
    except OSError as error:
        if not is_done:
            raise
        _note(file, summary, FORMATS[name].file, f"cannot be written to {request.out} ({error.strerror or error})")


def _note(file: PredictionsFile, summary: Summary, label: str, why: str) -> None:
    """Reports a problem: in the JSON, the summary and on stderr."""
    file.problem(label, why)
    summary.problems.append((label, why))
    tqdm.write(f"utnet: {label}: {why}", file=sys.stderr)


class _Call:
    """State of a running call.

    Args:
        predictor: the predictor.
        request: the options.
        file: the open predictions.json.
        writers: of the formats that are written beside it.
        stop: requests to stop.
        summary: the result, updated during the call.
        is_only: whether there is one input, whose failure is raised.
    """

    def __init__(
        self,
        predictor: Predictor,
        request: Request,
        file: PredictionsFile,
        writers: Sequence[FrameWriter],
        stop: InterruptHandler,
        summary: Summary,
        *,
        is_only: bool,
    ):
        self._predictor, self._request, self._file, self._stop = predictor, request, file, stop
        self._writers, self._is_only = writers, is_only
        self._left: dict[Input, None] = {}
        self._no_room = ""
        self.summary = summary

    def do(self, inputs: Sequence[Input]) -> None:
        """Processes pictures, then videos. Each is recorded in the JSON: with hands, as a problem, or as not
        started."""
        self._left = dict.fromkeys(inputs)
        try:
            self._pictures([item for item in inputs if item.kind == "picture"])
            self._videos([item for item in inputs if item.kind != "picture"])
        finally:
            for item in self._left:
                self._file.problem(item.label, self._no_room or "stopped before it was done")
            self.summary.num_left = len(self._left)
            if self._left:
                self.summary.stopped_by = self._stop.signal_number

    def _pictures(self, items: Sequence[Input]) -> None:
        """Processes pictures in parallel and adds them in order."""
        summary = self.summary
        with tqdm(total=len(items), unit="picture", disable=None if len(items) > 1 else True) as bar:
            for item, result in self._in_order(items):
                try:
                    record, hands = result.result()
                except Exception as error:  # a failing input does not end the others
                    self._problem(item, error)
                else:
                    self._file.add_image(record)
                    frame = PredictedFrame(
                        str(item.source),
                        hands,
                        hands.size_px,
                        hands.K_px,
                        read_rgb=partial(getattr, hands, "image_rgb"),
                    )
                    self._write_also(item, frame)
                    summary.hands = hands
                    summary.num_pictures += 1
                    summary.num_hands += len(hands)
                    summary.warnings += self._warnings(item, hands, camera_guessed=record["K_from"] == "default")
                    summary.without_hand += [] if hands else [item.label]
                    if summary.num_pictures == 1:
                        end_loading()  # all is loaded
                del self._left[item]
                bar.update()

    def _warnings(self, item: Input, hands: Hands, *, camera_guessed: bool) -> list[str]:
        lines = hand_warnings(hands, boxed=bool(self._request.boxes), camera_guessed=camera_guessed)
        return lines if self._is_only else [f"{item.label}: {line}" for line in lines]

    def _videos(self, items: Sequence[Input]) -> None:
        """Processes videos one after the other."""
        if not items:
            return
        from utnet.predict.recording import predict_recording  # not needed for pictures: a third more modules
        from utnet.predict.video import predict_video

        summary = self.summary
        for item in items:
            if self._ends:
                return
            try:
                predict = predict_recording if item.kind == "recording" else predict_video
                done = predict(self._predictor, item, self._request, self._file, self._writers, self._stop)
            except Exception as error:
                self._problem(item, error)
            else:
                summary.num_videos += 1
                summary.num_frames += done.num_frames
                summary.num_hands += done.num_hands
                for note in done.notes:
                    tqdm.write(f"utnet: {item.label}: {note}", file=sys.stderr)
                if done.incomplete:
                    self._note(item, done.incomplete)
                if done.stopped:
                    summary.stopped_by = self._stop.signal_number
            del self._left[item]

    def _write_also(self, item: Input, frame: PredictedFrame) -> None:
        """Passes a picture's hands to the writers; a failure is reported for the picture."""
        try:
            for writer in self._writers:
                writer.add(frame)
        except (InputError, OSError) as error:
            self._problem(item, error)

    @property
    def _ends(self) -> bool:
        """Whether no further input is to be started."""
        return bool(self._stop.signal_number or self._no_room)

    def _in_order(self, items: Sequence[Input]) -> Iterator[tuple[Input, Future[tuple[dict, Hands]]]]:
        """Yields each item with its future result, in order."""
        jobs = self._request.jobs
        with ThreadPoolExecutor(jobs) as pool:
            waiting: deque[tuple[Input, Future]] = deque()
            for item in items:
                if self._ends:
                    break
                waiting.append((item, pool.submit(predict_picture, self._predictor, item, self._request)))
                if len(waiting) > jobs:
                    yield waiting.popleft()
            yield from waiting

    def _problem(self, item: Input, error: Exception) -> None:
        why = str(as_input_error(error, item.label))
        if isinstance(error, OSError):
            why = f"cannot be written to {self._request.out} ({error.strerror or error})"
            if error.errno in _NO_MORE_ROOM:
                self._no_room = f"not started: {error.strerror}"
        if self._is_only and self._file.is_empty:
            raise InputError(why if why.startswith(item.label) else f"{item.label}: {why}") from error
        self._note(item, why)

    def _note(self, item: Input, why: str) -> None:
        _note(self._file, self.summary, item.label, why.removeprefix(f"{item.label}: "))
