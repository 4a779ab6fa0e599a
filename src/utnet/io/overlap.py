"""Work of one after another in a thread of its own: items read ahead, results written behind."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

_DEPTH = 2
"""Items that wait. Two keep both sides busy, and frames of 8K are 100 MB each."""
_T = TypeVar("_T")


@contextmanager
def read_ahead(items: Iterable[_T], *, depth: int = _DEPTH) -> Iterator[Iterator[_T]]:
    """For the block: the same items, of which the next `depth` are made in a thread meanwhile.

    Errors are raised where their item is taken. The thread has ended when the block is left.
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
    """For the block: a function that calls `function` with the same arguments in a thread, in order.

    At most `depth` calls wait. Errors are raised by a later call, or at the end of a block that raises none itself.
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
