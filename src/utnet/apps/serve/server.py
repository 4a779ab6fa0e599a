"""The page on a port of this machine, until it is told to end."""

from __future__ import annotations

import ipaddress
import os
import socket
import webbrowser
from functools import cache
from pathlib import Path

from utnet.apps.serve.folder import OwnFolder
from utnet.errors import InputError
from utnet.signals import StopRequests

_MAX_WAITING = 16
"""Pictures that wait for their turn; those who send further ones are asked to come back."""
_GOODBYE_S = 1
"""Pages that are open hold connections for ever; so long they are given to close them."""


def run_server(host: str, port: int, weights: Path | None, *, open_browser: bool = False) -> None:
    """Serves the page until Ctrl-C or SIGTERM; what was uploaded is gone then.

    Raises:
        InputError: the port is taken, or weights cannot be read.
    """
    import uvicorn

    with _listen(host, port) as listening, OwnFolder() as folder, StopRequests() as stop:
        app = _app(folder, weights, _hosts(host))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=_GOODBYE_S, server_header=False)
        )
        if stop.asked:
            return
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        server.run(sockets=[listening])


def is_local(host: str) -> bool:
    """Whether only this machine can reach what listens on that address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; connections wait in it until the page is ready."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen()
        return listening
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port} ({error.strerror}); give another --port or --host") from error


def _hosts(host: str) -> frozenset[str] | None:
    """Names that a page on this address is asked for by; None: any."""
    return frozenset({"127.0.0.1", "[::1]", "localhost", host}) if is_local(host) else None


def _app(folder: OwnFolder, weights: Path | None, hosts: frozenset[str] | None):
    """The page behind its gate, as an ASGI application."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder.path)  # gradio has no argument for it
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import fastapi
    import gradio

    from utnet.apps.serve.answers import Answers
    from utnet.apps.serve.example import example_picture
    from utnet.apps.serve.gate import MAX_UPLOAD_BYTES, Gate
    from utnet.apps.serve.page import STYLE, THEME, build_page
    from utnet.render.drawing import save_picture

    draw = cache(example_picture)

    def example() -> Path:
        path = folder.new() / "example.jpg"
        save_picture(path, draw())
        return path

    page = build_page(Answers(folder, weights), example)
    page.queue(max_size=_MAX_WAITING, api_open=False)
    app = gradio.mount_gradio_app(
        fastapi.FastAPI(openapi_url=None),
        page,
        "/",
        footer_links=[],
        run_history=False,
        max_file_size=MAX_UPLOAD_BYTES,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        show_error=False,
        theme=THEME,
        css=STYLE,
    )
    return Gate(app, folder, hosts)
