"""Background threads: items are read ahead, results are written while the next are computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_DEPTH = 2
"""Number of waiting items. Two keep both threads busy; a frame of 8K takes 100 MB."""
_T = TypeVar("_T")


@contextmanager
def read_ahead(items: Iterable[_T], *, depth: int = _DEPTH) -> Iterator[Iterator[_T]]:
    """Context with an iterator over the same items, of which the next `depth` are read ahead in a thread.

    Errors are raised where their item is taken. The thread ends with the block.
    """
    source, end = iter(items), object()
    with ThreadPoolExecutor(1, "utnet-ahead") as pool:

        def taken() -> Iterator[_T]:
            waiting: deque[Future[Any]] = deque(pool.submit(next, source, end) for _ in range(depth))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, source, end))
                yield item

        yield taken()


@contextmanager
def write_behind(function: Callable[..., Any], *, depth: int = _DEPTH) -> Iterator[Callable[..., None]]:
    """Context with a function that runs `function` with the same arguments in a thread, in order.

    At most `depth` calls wait. An error is raised by a later call, or at the end of the block.
    """
    with ThreadPoolExecutor(1, "utnet-behind") as pool:
        waiting: deque[Future[Any]] = deque()

        def call(*args: Any) -> None:
            if len(waiting) >= depth:
                waiting.popleft().result()
            waiting.append(pool.submit(function, *args))

        yield call
        while waiting:
            waiting.popleft().result()
