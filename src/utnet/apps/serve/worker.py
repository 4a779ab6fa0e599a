"""Job queue of the page: one job at a time, in a separate thread, to bound memory."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from utnet.errors import InputError

MAX_WAITING = 16


class QueueFull(Exception):
    """The queue is full."""


class Job:
    """A call that waits, runs or is done.

    Attributes:
        owner: session of the visitor; empty for the server's own work.
        step: the current step, for the user; empty while waiting.
        is_abandoned: whether the server stopped waiting for it and removes its files.
        future: its result; cancelled if replaced by a later job of the visitor.
    """

    def __init__(self, owner: str, call: Callable[[Callable[[str], None]], Any]):
        self.owner, self._call = owner, call
        self.step = ""
        self.is_abandoned = False
        self.future: Future = Future()

    def run(self) -> None:
        """Runs the call unless it was cancelled; errors are stored in the future."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._call(self._set_step))
        except Exception as error:  # an error of one picture must not affect the next
            if not (isinstance(error, InputError) or self.is_abandoned):
                traceback.print_exc()
            self.future.set_exception(error)

    def _set_step(self, step: str) -> None:
        self.step = step


class Worker:
    """Runs jobs in order. A new job of a visitor replaces the waiting one.

    Args:
        max_waiting: largest number of waiting jobs.
    """

    def __init__(self, *, max_waiting: int = MAX_WAITING):
        self._max_waiting = max_waiting
        self._jobs: deque[Job] = deque()
        self._change = threading.Condition()
        self._current: Job | None = None
        threading.Thread(target=self._loop, daemon=True, name="utnet-serve-worker").start()

    def submit(self, owner: str, call: Callable[[Callable[[str], None]], Any]) -> Job:
        """Appends a call, whose argument is a function to report its current step.

        Raises:
            QueueFull: too many waiting jobs.
        """
        with self._change:
            for earlier in [job for job in self._jobs if job.owner == owner]:
                self._jobs.remove(earlier)
                earlier.future.cancel()
            if len(self._jobs) >= self._max_waiting:
                raise QueueFull
            job = Job(owner, call)
            self._jobs.append(job)
            self._change.notify_all()
            return job

    def num_before(self, job: Job) -> int:
        """Number of visitors' jobs that run or wait before this one."""
        with self._change:
            if job not in self._jobs:
                return 0
            before = [self._current, *list(self._jobs)[: self._jobs.index(job)]]
            return sum(other is not None and other.owner != "" for other in before)

    def stop(self, seconds: float) -> bool:
        """Cancels waiting jobs; returns whether the running job ended within the time."""
        with self._change:
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            try:
                return self._change.wait_for(lambda: self._current is None, seconds)
            finally:
                if self._current is not None:
                    self._current.is_abandoned = True

    def _loop(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: bool(self._jobs))
                self._current = self._jobs.popleft()
            self._current.run()
            with self._change:
                self._current = None
                self._change.notify_all()
