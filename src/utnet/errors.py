"""The exception for invalid input."""

import sys


class InputError(ValueError):
    """Invalid input, such as a file, a key or a number. The message names it and the remedy.

    The command line prints only the message, without a traceback, and exits with code 2.
    """


def install_line(extra: str) -> str:
    """Returns the command that installs an extra of the package (`pyproject.toml`), for messages.

    pip takes the installed package, also an editable one, and adds only what is missing.
    """
    return f"{sys.executable} -m pip install 'utnet[{extra}]'"
