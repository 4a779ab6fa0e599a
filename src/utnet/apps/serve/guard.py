"""Checks of all requests, and headers of all responses.

Any web page in the user's browser can send requests to this server, and other machines may have access.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

MAX_UPLOAD_BYTES = 64 * 10**6
"""Largest file in bytes; 108-megapixel photographs have about 40 MB."""
MAX_MESSAGE_BYTES = 20_000
"""Largest body of other requests."""
UPLOAD_PATH = "/api/files"
_DISCARD_S = 2.0
"""Bodies of refused requests are read for at most this time."""
REQUEST_S = 60.0
"""Time limit of a request, body and response."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class Guard:
    """ASGI middleware: addresses, origins, sizes and times of requests, and headers of responses.

    Args:
        app: the protected server.
        hosts: accepted names in Host headers, in lower case (a defence against DNS rebinding); None accepts any.
        request_s: time limit of a request.
    """

    def __init__(self, app: Callable, hosts: frozenset[str] | None, *, request_s: float = REQUEST_S):
        self._app, self._hosts, self._request_s = app, hosts, request_s

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] != "http":
            return None
        started = False

        async def send_with_headers(message: _Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                names = {name.lower() for name, _ in message["headers"]}
                more = {"cache-control": "no-store", **_HEADERS}
                message["headers"] = [
                    *message["headers"],
                    *((n.encode(), v.encode()) for n, v in more.items() if n.encode() not in names),
                ]
            await send(message)

        if refusal := self._refusal(scope):
            return await _refuse(send_with_headers, *refusal, receive)
        try:
            async with asyncio.timeout(self._request_s):
                await self._app(scope, receive, send_with_headers)
        except TimeoutError:
            if started:
                raise  # the server closes the connection
            await _refuse(send_with_headers, 408, "the request took too long")
        except asyncio.CancelledError:  # the server ends
            if not started:
                await _refuse(send_with_headers, 503, "the server ends")
        return None

    def _refusal(self, scope: _Scope) -> tuple[int, str] | None:
        """Status and reason, or None for an accepted request."""
        headers: dict[str, str] = {}
        for raw, value in scope["headers"]:
            name = raw.decode("latin-1").lower()
            if name in headers and name in ("host", "origin", "content-length"):
                return 400, f"more than one {name}"
            headers[name] = value.decode("latin-1")
        host = headers.get("host", "").lower()
        if self._hosts is not None and _name(host) not in self._hosts:
            return 403, "this page accepts requests to its own address only"
        if scope["method"] in ("GET", "HEAD"):
            return None
        if scope["method"] != "POST":
            return 405, "GET or POST"
        if "origin" in headers and urlsplit(headers["origin"].lower()).netloc != host:
            return 403, "another site's request"
        most = MAX_UPLOAD_BYTES if scope["path"] == UPLOAD_PATH else MAX_MESSAGE_BYTES
        return _wrong_length(headers, most)


def _name(host: str) -> str:
    """Returns a Host header without port; IPv6 with its brackets."""
    return host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host


def _wrong_length(headers: dict[str, str], most: int) -> tuple[int, str] | None:
    """Returns the refusal of a body of unknown or excessive length, or None."""
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdigit()) or "transfer-encoding" in headers:
        return 411, "a content-length is needed"
    if len(length) > 15 or int(length) > most:
        return 413, f"too large; at most {most / 1e6:g} MB"
    return None


async def _refuse(send: _Send, status: int, reason: str, receive: _Receive | None = None) -> None:
    """Sends a refusal; with `receive`, reads what still arrives of the body before the connection is closed, since
    closing it with unread data resets it, and the sender then loses the response."""
    body = reason.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if receive is not None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_S):
                while (await receive()).get("more_body"):
                    pass
    await send({"type": "http.response.body", "body": b""})
