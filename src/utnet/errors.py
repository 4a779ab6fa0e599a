"""The one exception that means "your input is at fault, and here is the remedy"."""

import sys


class InputError(ValueError):
    """Bad input from outside: a file, a key, a number. The message names it and says what to do.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """


def install_line(extra: str) -> str:
    """Returns the command that installs an extra of the package (`pyproject.toml`), for messages.

    pip takes the installed package, also an editable one, and adds only what is missing.
    """
    return f"{sys.executable} -m pip install 'utnet[{extra}]'"
