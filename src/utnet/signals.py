"""Requests to stop: SIGTERM (of a cluster's scheduler, of torchrun) and Ctrl-C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

GRACE_S, HARD_S = 12.0, 17.0
"""Seconds after a SIGTERM until what is still under way is interrupted, and until the process is ended as it is."""


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


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception: whatever cleans up after Ctrl-C cleans up after it, too."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Within `with`, SIGTERM raises `Terminated` instead of ending the process at once. In the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
        raise Terminated

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def delay_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM that arrive within `with` are handled after it. Around calls of native code that calls back
    into Python: an exception raised in such a callback is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {number: signal.getsignal(number) for number in (int(signal.SIGINT), int(signal.SIGTERM))}
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)


def follow_parent() -> None:
    """In a worker process: leaves signals to the parent, and exits when the parent has been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    import multiprocessing  # with sockets and more, which a prediction does not need

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class InterruptHandler:
    """Within `with`, SIGTERM and SIGINT set `signal_number` instead of ending the process; a second Ctrl-C does end it.

    A process that has not left the block `GRACE_S` after a SIGTERM gets `Terminated` raised where it is (in a wait for
    a worker that hangs, in a long validation), and is ended at `HARD_S` if that does not help either.
    Outside the main thread signals cannot be handled, and nothing is changed.

    Attributes:
        signal_number: the signal received, 0 if none.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before: dict[int, object] = {}
        self._timers: list[threading.Timer] = []
        self._overdue = False

    def __enter__(self) -> InterruptHandler:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_) -> None:
        for timer in self._timers:
            timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._overdue:
            raise Terminated
        if number == self.signal_number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number
        if number == signal.SIGTERM and not self._timers:
            self._timers = [threading.Timer(GRACE_S, self._interrupt), threading.Timer(HARD_S, _end)]
            for timer in self._timers:
                timer.daemon = True
                timer.start()

    def _interrupt(self) -> None:
        """The same signal once more, which this time raises; a wait of the main thread ends by it."""
        self._overdue = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def _end() -> None:
    os._exit(128 + signal.SIGTERM)
