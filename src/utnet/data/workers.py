"""Worker processes of the loader: start, initialisation and end."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.util import Finalize, get_temp_dir
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader

from utnet.config import TrainConfig
from utnet.errors import LOST_WORKER, STUCK_WORKER, WorkerError, WorkerTimeoutError, worker_errors

_POLL_S = 2.0
_END = object()
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h

if sys.platform == "linux":
    from multiprocessing.context import ForkContext, ForkProcess

    _STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

    class _Worker(ForkProcess):
        """A process that ignores requests to stop and is ended by its parent with SIGKILL.

        It is forked with these signals blocked and inherits the mask: one that arrives before `init_worker` has run
        stays pending and is discarded there, where it would kill a worker that has no handler yet.
        """

        def start(self) -> None:
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

        def terminate(self) -> None:
            self.kill()

    class _Reader(Connection):
        """The reading end of a queue's pipe.

        A message longer than the pipe holds is read in parts, and where its sender was killed in between, reading would
        wait for the rest forever, whatever timeout the queue is given.
        """

        context: _WorkerContext

        def _recv(self, size: int, read: Any = None) -> Any:
            return super()._recv(size, self._read_in_time)  # type: ignore[misc]

        def _read_in_time(self, handle: int, size: int) -> bytes:
            while not wait([handle], _POLL_S):
                if self.context.has_lost_one(within_s=0):
                    raise WorkerError(LOST_WORKER)
            return os.read(handle, size)

    class _WorkerContext(ForkContext):
        """Starts the workers of one loader.

        Attributes:
            workers: all that were started.
        """

        def __init__(self) -> None:
            super().__init__()
            self.workers: list[_Worker] = []

        def Process(self, *args: Any, **kwargs: Any) -> _Worker:  # type: ignore[override]
            self.workers = [*(worker for worker in self.workers if worker.is_alive()), _Worker(*args, **kwargs)]
            return self.workers[-1]

        def has_lost_one(self, within_s: float = 1.0) -> bool:
            """Whether a worker was killed, or is found to be soon: its files are closed before it has ended."""
            end = time.monotonic() + within_s
            while not any(worker.exitcode for worker in self.workers):
                if time.monotonic() >= end:
                    return False
                time.sleep(0.05)
            return True

        def kill_workers(self) -> None:
            for worker in self.workers:
                worker.kill()

        def Queue(self, maxsize: int = 0) -> Any:
            queue: Any = super().Queue(maxsize)
            queue._reader.__class__ = _Reader
            queue._reader.context = self
            return queue

    @cache
    def _end_workers_at_exit(pid: int) -> None:
        """Once a process: at its exit multiprocessing would send SIGTERM to the workers, and wait for them forever."""
        Finalize(None, end_workers, exitpriority=0)

    def end_workers() -> None:
        """Kills all workers, also hanging ones, for which torch would wait."""
        workers = [child for child in multiprocessing.active_children() if isinstance(child, _Worker)]
        if workers and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would take their end for a fault
        for worker in workers:
            worker.kill()
else:

    def end_workers() -> None:
        """Nothing: torch ends them."""


def worker_context(num_workers: int) -> BaseContext | None:
    """How a DataLoader starts its workers (`multiprocessing_context`).

    On Linux they are forked and share the source with its indices; a pickled source would be a copy in each of them,
    mapped arrays and all. Elsewhere forking is not safe, and the platform's way (None) is taken.
    """
    if not num_workers or sys.platform != "linux":
        return None
    _end_workers_at_exit(os.getpid())
    get_temp_dir()  # workers inherit it; one of their own would stay when they are killed
    return _WorkerContext()


def _remove_temp_dir(path: str, parent: int) -> None:
    """Where the parent was killed: the last worker to end removes the directory of sockets."""
    if os.getppid() != parent:
        with suppress(OSError):
            os.rmdir(path)


def iterate(loader: DataLoader, timeout_s: float = TrainConfig.worker_timeout_s) -> Iterator[Any]:
    """Yields what a loader gives; its workers end with this generator.

    The process's handler of SIGCHLD is left as it is: the first loader with workers would set torch's, which raises
    wherever the main thread happens to be, and which later loaders do not set again. Instead torch looks for killed
    workers every `_POLL_S` in which nothing comes.

    Args:
        loader: its `timeout` is set here.
        timeout_s: seconds without anything after which a worker is taken for stuck.

    Raises:
        WorkerError: a worker was killed, or hangs.
    """
    context = loader.multiprocessing_context
    loader.timeout = min(_POLL_S, timeout_s) if loader.num_workers else 0
    handled = threading.current_thread() is threading.main_thread() and sys.platform == "linux"
    handler = signal.getsignal(signal.SIGCHLD) if handled else None
    batches = iter(loader)
    if handled and signal.getsignal(signal.SIGCHLD) is not handler:
        signal.signal(signal.SIGCHLD, handler)
    try:
        while (batch := _next(batches, timeout_s, context)) is not _END:
            yield batch
    except WorkerError:
        if context is not None:
            context.kill_workers()  # torch would wait for those that hang
        raise
    finally:
        del batches  # ends the workers now: left to the garbage collector, they are waited for, 5 s each


def _next(batches: Iterator[Any], timeout_s: float, context: Any) -> Any:
    """The next batch, or `_END`."""
    end = time.monotonic() + timeout_s
    with _killing(context, timeout_s + 2 * _POLL_S):
        while True:
            try:
                with worker_errors():
                    return next(batches, _END)
            except Exception as error:
                if "DataLoader worker" in str(error):  # raised in a worker, by the source
                    raise
                of_workers = isinstance(error, WorkerError | ConnectionError | EOFError)
                if not of_workers and not (context is not None and context.has_lost_one()):
                    raise
                if time.monotonic() >= end:
                    raise WorkerTimeoutError(STUCK_WORKER) from error
                if not isinstance(error, WorkerTimeoutError):  # killed, maybe while it handed over a batch
                    raise WorkerError(LOST_WORKER) from error


@contextmanager
def _killing(context: Any, after_s: float) -> Iterator[None]:
    """Kills the workers if the block takes too long: reading from a stopped one has no time limit, but then fails."""
    timer = threading.Timer(after_s, context.kill_workers) if context is not None else None
    if timer is not None:
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def init_worker(_: int = 0) -> None:
    """Initialises a worker: one thread, and freed memory is kept for the next picture."""
    if sys.platform == "linux":
        if isinstance(multiprocessing.current_process(), _Worker):
            # A request to stop reaches all processes of the group. The main process handles it, and ends its workers
            # when it no longer needs them.
            for number in _STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            Finalize(None, _remove_temp_dir, (get_temp_dir(), os.getppid()), exitpriority=-100)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOP_SIGNALS)  # blocked by `_Worker.start`
        # By default glibc returns the memory of a freed picture to the kernel; page faults of the next picture then
        # cost half as much as decoding it.
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, 2**25)
            mallopt(_M_TRIM_THRESHOLD, 2**28)
            mallopt(_M_TOP_PAD, 2**24)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
