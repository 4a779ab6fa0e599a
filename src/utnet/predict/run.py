"""One call of `utnet predict`: inputs in, a folder out."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from tqdm import tqdm

from utnet.errors import InputError
from utnet.predict.files import PREDICTIONS, PredictionsFile, remove_earlier
from utnet.predict.hand import Hand
from utnet.predict.inputs import Input
from utnet.predict.picture import predict_picture
from utnet.predict.predictor import Predictor
from utnet.predict.request import Request
from utnet.predict.video import predict_video
from utnet.stopping import StopRequests


@dataclass
class Summary:
    """What a call did.

    Attributes:
        num_pictures: that were done.
        num_videos: that were done, to their end or as far as they could be read.
        num_frames: of them.
        num_hands: in all pictures and frames.
        problems: file and reason of what could not be read, or not to its end.
        stopped_by: number of the signal that ended the call before all was done, 0 if none did.
        hands: of the last picture.
    """

    num_pictures: int = 0
    num_videos: int = 0
    num_frames: int = 0
    num_hands: int = 0
    problems: list[tuple[str, str]] = field(default_factory=list)
    stopped_by: int = 0
    hands: list[Hand] = field(default_factory=list)


def run(predictor: Predictor, inputs: Sequence[Input], request: Request) -> Summary:
    """Predicts every input and writes predictions.json and the files beside it.

    What cannot be read is named on stderr and in the JSON, and the rest is done. SIGTERM and Ctrl-C end the call after
    the pictures or the frame at hand; what is done is written.

    Raises:
        InputError: the only input cannot be read, or the folder holds an earlier call's predictions.
    """
    is_new = not request.out.exists()
    remove_earlier(request.out, allowed=request.overwrite)
    request.out.mkdir(parents=True, exist_ok=True)
    made_by = {"method": predictor.method, "weights": predictor.weights, "hand_model": predictor.hand_model}
    try:
        with StopRequests() as stop, PredictionsFile(request.out / PREDICTIONS, made_by) as file:
            call = _Call(predictor, request, file, stop, is_only=len(inputs) == 1)
            call.pictures([item for item in inputs if item.kind == "picture"])
            call.videos([item for item in inputs if item.kind != "picture"])
    except InputError:
        if is_new:
            with suppress(OSError):  # not empty: parts of a video are there
                request.out.rmdir()
        raise
    return call.summary


class _Call:
    """A call under way.

    Args:
        predictor: makes the hands.
        request: what is wanted.
        file: takes the records.
        stop: tells when to end.
        is_only: there is one input; if it cannot be read, the call fails.
    """

    def __init__(
        self, predictor: Predictor, request: Request, file: PredictionsFile, stop: StopRequests, *, is_only: bool
    ):
        self._predictor, self._request, self._file, self._stop = predictor, request, file, stop
        self._is_only = is_only
        self.summary = Summary()

    def pictures(self, items: Sequence[Input]) -> None:
        """Several at once, added in their order."""
        summary, num_done = self.summary, 0
        with tqdm(total=len(items), unit="picture", disable=None if len(items) > 1 else True) as bar:
            for item, result in self._in_order(items):
                num_done += 1
                bar.update()
                try:
                    record, summary.hands = result.result()
                except InputError as error:
                    self._problem(item, error)
                    continue
                self._file.add_image(record)
                summary.num_pictures += 1
                summary.num_hands += len(summary.hands)
        if num_done < len(items):
            summary.stopped_by = self._stop.asked

    def videos(self, items: Sequence[Input]) -> None:
        """One after the other."""
        summary = self.summary
        for item in items:
            if self._stop.asked:
                summary.stopped_by = self._stop.asked
                return
            try:
                done = predict_video(self._predictor, item, self._request, self._file, self._stop)
            except InputError as error:
                self._problem(item, error)
                continue
            summary.num_videos += 1
            summary.num_frames += done.num_frames
            summary.num_hands += done.num_hands
            if done.incomplete:
                self._note(item, done.incomplete)
            if item.kind == "video":  # a camera has no other end
                summary.stopped_by = self._stop.asked

    def _in_order(self, items: Sequence[Input]) -> Iterator[tuple[Input, Future[tuple[dict, list[Hand]]]]]:
        """Each item with its result to come, in their order; none is begun after a request to stop."""
        jobs = self._request.jobs
        with ThreadPoolExecutor(jobs) as pool:
            waiting: deque[tuple[Input, Future]] = deque()
            for item in items:
                if self._stop.asked:
                    break
                waiting.append((item, pool.submit(predict_picture, self._predictor, item, self._request)))
                if len(waiting) > jobs:
                    yield waiting.popleft()
            yield from waiting

    def _problem(self, item: Input, error: InputError) -> None:
        if self._is_only:
            raise error
        self._note(item, str(error))

    def _note(self, item: Input, why: str) -> None:
        why = why.removeprefix(f"{item.source}: ")
        self._file.problem(str(item.source), why)
        self.summary.problems.append((str(item.source), why))
        tqdm.write(f"utnet: {item.source}: {why}", file=sys.stderr)
