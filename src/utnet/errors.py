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


class WorkerTimeoutError(WorkerError):
    """A worker process that has given nothing for too long."""


LOST_WORKER = (
    "a process that reads samples was killed, most often because memory ran out; use fewer workers "
    "(train.num_workers, --workers) or a smaller train.batch_size"
)

STUCK_WORKER = (
    "a process that reads samples hangs: nothing within the time limit; look at the disk or network that the data are "
    "on, or raise train.worker_timeout_s"
)


@contextmanager
def worker_errors() -> Iterator[None]:
    """Turns what torch raises for a lost worker into a `WorkerError`."""
    try:
        yield
    except RuntimeError as error:
        text = str(error)
        if "DataLoader timed out" in text:
            raise WorkerTimeoutError(STUCK_WORKER) from error
        if "DataLoader worker" in text and ("killed by signal" in text or "exited unexpectedly" in text):
            raise WorkerError(LOST_WORKER) from error
        raise


BAD_TREE = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What plain code raises on JSON that is none, or a tree of another shape than it expects."""


def first_line(error: BaseException) -> str:
    """Kind and first line of an exception that a library raised, for the message of an InputError."""
    text = next(iter(str(error).splitlines()), "")
    if isinstance(error, InputError):
        return text[:_MAX_DETAIL]
    return f"{type(error).__name__}: {text}"[:_MAX_DETAIL] if text else type(error).__name__


def as_input_error(error: Exception, where: str) -> InputError:
    """An InputError as it is; of what a library raised on a file, one that names the file and what happened."""
    if isinstance(error, InputError):
        return error
    return InputError(f"{where}: cannot be read ({first_line(error)}); get the file again")


def shown(value: object) -> str:
    """`repr` for messages, never longer than a line, whatever a file holds."""
    try:
        text = _REPR.repr(value)
    except Exception:  # an int of more digits than Python prints
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


_MAX_SHOWN, _MAX_DETAIL = 120, 200
_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxlist, _REPR.maxtuple, _REPR.maxdict = 3, 8, 8, 8
_REPR.maxstring = _REPR.maxlong = _REPR.maxother = 80


def install_line(extra: str) -> str:
    """Returns the command that installs an extra of the package (`pyproject.toml`), for messages.

    pip takes the installed package, also an editable one, and adds only what is missing.
    """
    return f"{sys.executable} -m pip install 'utnet[{extra}]'"
