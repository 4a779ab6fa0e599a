"""Serves the page on a port of this machine until Ctrl-C or SIGTERM."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utnet.apps.serve.guard import REQUEST_S, Guard
from utnet.errors import InputError
from utnet.signals import InterruptHandler

if TYPE_CHECKING:
    import uvicorn

MAX_CONNECTIONS = 256
HEAD_S = 10.0
_GOODBYE_S = 1
"""Time limit at the end for running responses, and again for the picture in progress."""


def run_server(host: str, port: int, weights: Path | None, *, open_browser: bool = False) -> None:
    """Serves the page until Ctrl-C or SIGTERM, and deletes the uploads.

    Raises:
        InputError: the port is in use, or the weights cannot be read.
    """
    from utnet.apps.serve.app import build_app
    from utnet.apps.serve.service import HandService
    from utnet.apps.serve.store import Store
    from utnet.apps.serve.worker import Worker

    with listen(host, port) as listening, Store() as store, InterruptHandler() as stop:
        service, worker = HandService(weights), Worker()
        worker.submit("", lambda progress: service.warm_up())
        server = build_server(build_app(service, store, worker), hosts_of(host))
        if stop.signal_number:
            return
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        print(f"{address}  (Ctrl-C ends it)", flush=True)
        if open_browser:
            webbrowser.open(address)
        try:
            server.run(sockets=[listening])
        finally:
            ended = worker.stop(_GOODBYE_S)
    if not ended:  # a thread cannot be stopped, and Python would wait for it
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def is_local(host: str) -> bool:
    """Returns whether an address is reachable from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def listen(host: str, port: int) -> socket.socket:
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


def hosts_of(host: str) -> frozenset[str] | None:
    """Returns the accepted Host headers for this address; None: any."""
    return frozenset({"127.0.0.1", "[::1]", "localhost", host.lower()}) if is_local(host) else None


def build_server(
    app: Any,
    hosts: frozenset[str] | None,
    *,
    head_s: float = HEAD_S,
    request_s: float = REQUEST_S,
    max_connections: int = MAX_CONNECTIONS,
) -> uvicorn.Server:
    """Returns the server of an ASGI application, behind `Guard`.

    Args:
        app: the application.
        hosts: as `Guard` takes them.
        head_s: time for the head of a request; connections that send none are closed after it.
        request_s: time limit of a request.
        max_connections: further ones get status 503.
    """
    import uvicorn

    from utnet.apps.serve.connection import connection_class

    config = uvicorn.Config(
        Guard(app, hosts, request_s=request_s),
        http=connection_class(head_s),
        ws="none",
        log_level="error",
        limit_concurrency=max_connections,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_GOODBYE_S,
    )
    return uvicorn.Server(config)
