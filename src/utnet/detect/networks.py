"""The detector's three networks on ONNX Runtime: one thread a session, several calls side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from utnet.errors import InputError
from utnet.onnx_session import open_session
from utnet.threads import usable_threads

if TYPE_CHECKING:
    import onnxruntime

ASSETS = Path(__file__).parents[1] / "assets" / "detector"
_MOST_THREADS = 4
"""These networks take milliseconds; more threads do not make them faster."""


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class SideBySide:
    """Runs independent calls in threads; the networks and OpenCV release the GIL.

    Calls may come from several threads at once, but must not be nested.

    Args:
        threads: None: `usable_threads()`, at most 4. With one, calls run in the calling thread.
    """

    def __init__(self, threads: int | None = None):
        threads = threads or min(usable_threads(), _MOST_THREADS)
        self._pool = ThreadPoolExecutor(threads, "utnet-detect") if threads > 1 else None

    def map(self, function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
        """The results in the items' order."""
        items = list(items)
        if self._pool is None or len(items) < 2:
            return [function(item) for item in items]
        return list(self._pool.map(function, items))

    def start(self, function: Callable[[_Item], _Result], item: _Item) -> Callable[[], _Result]:
        """Begins a call, and returns what waits for its result."""
        if self._pool is None:
            return lambda: function(item)
        future: Future[_Result] = self._pool.submit(function, item)
        return future.result


def open_network(name: str) -> onnxruntime.InferenceSession:
    """A shipped network, ready to run; sessions may be used by several Python threads at once.

    Args:
        name: file in `assets/detector` without its ending.

    Raises:
        InputError: the file is missing.
    """
    path = ASSETS / f"{name}.onnx"
    if not path.is_file():
        raise InputError(f"{path}: is missing; install utnet again, or make it with tools/build_detector.py")
    return open_session(path, keep_memory=False)  # it would keep 35 MB, and is no faster


def run(session: onnxruntime.InferenceSession, picture: np.ndarray) -> list[np.ndarray]:
    """One picture (S, S, 3) in the network's input range -> its outputs without their batch axis."""
    feed = {session.get_inputs()[0].name: picture[None].astype(np.float32, copy=False)}
    return [np.asarray(output)[0] for output in session.run(None, feed)]
