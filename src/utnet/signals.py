"""Interrupts: SIGTERM (from a scheduler or torchrun) and Ctrl-C are recorded, so that loops can stop cleanly."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class TrainingInterrupted(Exception):
    """Raised when training was interrupted by a signal, after its checkpoint is written.

    Attributes:
        signal: the signal received.
        exit_code: the shell's exit code for it: 130 for Ctrl-C, 143 for SIGTERM.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.signal = signal.Signals(number)
        self.exit_code = 128 + number


class InterruptHandler:
    """Context in which SIGTERM and SIGINT set `signal_number` instead of ending the process; a second Ctrl-C ends it.

    Outside the main thread signals cannot be handled, so it does nothing there.

    Attributes:
        signal_number: the signal received, 0 if none.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> InterruptHandler:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if number == self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
