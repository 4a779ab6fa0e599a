"""The one exception that means "your input is at fault, and here is the remedy"."""


class InputError(ValueError):
    """Bad input from outside: a file, a key, a number. The message names it and says what to do.

    The command line prints the message alone, without a traceback, and exits with code 2.
    """
