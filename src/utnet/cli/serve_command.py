"""`utnet serve`. Imports only what the parser needs."""

from __future__ import annotations

import importlib.util
import sys

from utnet.cli.options import File, Flag
from utnet.errors import InputError, install_line


def serve(
    host: str = "127.0.0.1",
    port: int = 8642,
    weights: File = None,
    open_browser: Flag = False,
) -> None:
    """A local web page: drop a picture, see its hands in 3D, download GLB and JSON (needs the extra "serve").

    Args:
        host: address to listen on; other than 127.0.0.1 other machines have access, without a password.
        port: port to listen on.
        weights: a checkpoint folder such as runs/demo/run/best, a file of `utnet export`, or the name of a bundled
            network such as ti (default: that one, fitted to landmarks; without one, landmarks alone).
        open_browser: open the page in your browser.
    """
    if not 0 < port < 65536:
        raise InputError(f"--port is {port}; expected 1 to 65535")
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("starlette") is None:
        raise InputError(f"the page needs starlette and uvicorn; {install_line('serve')}")
    from utnet.apps.serve.server import is_local, run_server

    if not is_local(host):
        print(
            f"utnet: warning: on {host} everyone who can reach this machine can use the page without a password",
            file=sys.stderr,
        )
    run_server(host, port, weights, open_browser=open_browser)
