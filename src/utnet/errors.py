"""The one exception that means "your input is at fault, and here is the remedy"."""

import sys


class InputError(ValueError):
    """Bad input from outside: a file, a key, a number. The message names it and says what to do.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


def install_line(extra: str) -> str:
    """How to get what an extra of the package brings (`pyproject.toml`), for messages."""
    return f"in the checkout: {sys.executable} -m pip install -e '.[{extra}]'"
