"""Requests to stop: SIGTERM (of a cluster's scheduler, of torchrun) and Ctrl-C, noted for the loop to end by."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Stopped(Exception):
    """A run that was asked to stop and has written its checkpoint.

    Attributes:
        signal: the request.
        exit_code: what a shell expects of a process that ends by it: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.signal = signal.Signals(number)
        self.exit_code = 128 + number


class StopRequests:
    """Within `with`, SIGTERM and SIGINT set `asked` instead of ending the process; a second Ctrl-C ends it at once.

    Outside the main thread signals cannot be handled, and nothing is changed.

    Attributes:
        asked: the signal's number, 0 while there is none.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequests:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == self.asked == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = number
