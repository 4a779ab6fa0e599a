"""Functions compiled by numba at their first call, so that importing a module that has some does not load numba."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

from utnet.signals import delay_signals

_LOCK = threading.Lock()


class _Kernel:
    """A function that, when it is called, replaces itself and the other kernels of its module by compiled ones."""

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]):
        self.function, self.options = function, options
        self._dispatcher: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self._dispatcher is None:
            self._dispatcher = self._compiled()
        return self._dispatcher(*args)

    def _compiled(self) -> Callable[..., Any]:
        """numba's dispatcher. Compiled code looks for the kernels that it calls among its module's names, so that all
        of them become dispatchers together."""
        names = self.function.__globals__
        with _LOCK:
            own = [key for key, value in names.items() if isinstance(value, _Kernel) and value._is_of(names)]
            njit = _load_numba()
            names.update({key: _uninterrupted(njit(**names[key].options)(names[key].function)) for key in own})
        return names[self.function.__name__]

    def _is_of(self, names: dict[str, Any]) -> bool:
        return self.function.__globals__ is names


def _uninterrupted(dispatcher: Any) -> Any:
    """numba's dispatcher with a `compile` during which signals wait."""
    dispatcher.compile = delay_signals()(dispatcher.compile)
    return dispatcher


def njit(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """`numba.njit` that loads numba when one of the module's kernels is first called; cached, without the GIL, and
    with numpy's division by zero. A kernel calls kernels of its own module only. To Python it returns a number or
    nothing: to return an array, compiled code calls Python, and a Ctrl-C that arrives there becomes a SystemError."""
    return lambda function: _Kernel(function, {"cache": True, "nogil": True, "error_model": "numpy", **options})


@cache
def _load_numba() -> Callable[..., Any]:
    """`numba.njit`; from now on, one line is printed when this process is the first to compile the package's code."""
    import numba
    from numba.core import event

    class Notice(event.Listener):
        printed = False

        def on_start(self, event: Any) -> None:
            if not self.printed and event.data["dispatcher"].py_func.__module__.startswith("utnet."):
                self.printed = True
                print("utnet: compiling for this machine, once (some seconds)", file=sys.stderr, flush=True)

        def on_end(self, event: Any) -> None:
            pass

    event.register("numba:compile", Notice())
    return numba.njit
