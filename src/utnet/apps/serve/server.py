"""Serves the page on a port of this machine until Ctrl-C or SIGTERM."""

from __future__ import annotations

import ipaddress
import os
import socket
import webbrowser
from functools import cache
from pathlib import Path

from utnet.apps.serve.folder import OwnFolder
from utnet.errors import InputError
from utnet.signals import InterruptHandler

_MAX_WAITING = 16
"""Length of the queue; further uploads are refused with a message."""
_GOODBYE_S = 1
"""Open pages never close their connections; the server closes them after this time."""


def run_server(host: str, port: int, weights: Path | None, *, open_browser: bool = False) -> None:
    """Serves the page until Ctrl-C or SIGTERM, and deletes the uploads.

    Raises:
        InputError: the port is in use, or the weights cannot be read.
    """
    import uvicorn

    with _listen(host, port) as listening, OwnFolder() as folder, InterruptHandler() as stop:
        app = _app(folder, weights, _hosts(host))
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=_GOODBYE_S, server_header=False)
        )
        if stop.signal_number:
            return
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        server.run(sockets=[listening])


def is_local(host: str) -> bool:
    """Returns whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket; connections wait until the page is ready."""
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
    """Returns the accepted Host headers for this address; None: any."""
    return frozenset({"127.0.0.1", "[::1]", "localhost", host}) if is_local(host) else None


def _app(folder: OwnFolder, weights: Path | None, hosts: frozenset[str] | None):
    """Returns the page behind `AccessControl` as an ASGI application."""
    os.environ["GRADIO_TEMP_DIR"] = str(folder.path)  # gradio has no argument for it
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import fastapi
    import gradio

    from utnet.apps.serve.access_control import MAX_UPLOAD_BYTES, AccessControl
    from utnet.apps.serve.example import example_picture
    from utnet.apps.serve.page import STYLE, THEME, build_page
    from utnet.apps.serve.service import HandService
    from utnet.render.drawing import save_picture

    draw = cache(example_picture)

    def example() -> Path:
        path = folder.new() / "example.jpg"
        save_picture(path, draw())
        return path

    page = build_page(HandService(folder, weights), example)
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
    return AccessControl(app, folder, hosts)
