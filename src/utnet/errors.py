"""The exceptions that are shown as one line, and values in messages."""

import reprlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class InputError(ValueError):
    """Invalid input, such as a file, a key or a number. The message names it and the remedy.

    The command line prints only the message, without a traceback, and exits with code 2.
    """


class WorkerError(RuntimeError):
    """A worker process that was killed, or that has given nothing for too long. The message is one line."""


@contextmanager
def worker_errors() -> Iterator[None]:
    """Turns what torch raises for a lost worker into a `WorkerError`. It may do so at any place of the main thread:
    its handler of SIGCHLD raises where it is called."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "DataLoader timed out" in text:
            raise WorkerError(
                "a process that reads samples hangs: it gave nothing within train.worker_timeout_s; look at the disk "
                "or network that the data are on, or raise that limit"
            ) from error
        if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
            raise WorkerError(
                "a process that reads samples was killed, most often because memory ran out; use fewer workers "
                "(train.num_workers, --workers) or a smaller train.batch_size"
            ) from error
        raise


def shown(value: object) -> str:
    """`repr` for messages, never longer than a line, whatever a file holds."""
    try:
        text = _REPR.repr(value)
    except Exception:  # an int of more digits than Python prints
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


_MAX_SHOWN = 120
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 3, 8, 8, 8
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 80


def install_line(extra: str) -> str:
    """Returns the command that installs an extra of the package (`pyproject.toml`), for messages.

    pip takes the installed package, also an editable one, and adds only what is missing.
    """
    return f"{sys.executable} -m pip install 'utnet[{extra}]'"
