"""Access control of the page's server: routes of gradio that this page does not need return 404.

A mounted gradio page also accepts requests for any file of this machine, and fetches URLs in place of files:
`AccessControl` refuses both.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from utnet.apps.serve.folder import OwnFolder

MAX_UPLOAD_BYTES = 64 * 10**6
"""Per request. 108-megapixel photographs have about 40 MB."""
_MAX_MESSAGE_BYTES = 10**5

_READS = ("/config", "/favicon.ico", "/manifest.json", "/theme.css", "/gradio_api/startup-events")
_READS_BELOW = ("/assets/", "/static/", "/gradio_api/heartbeat/")
_READS_OF_QUEUE = ("/gradio_api/queue/data", "/gradio_api/upload_progress")
_FILE = "/gradio_api/file="
_UPLOAD = "/gradio_api/upload"
_MESSAGES = ("/gradio_api/queue/join", "/gradio_api/cancel", "/gradio_api/reset")

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AccessControl:
    """ASGI middleware that passes only the page's own requests, by path, size and file.

    Args:
        app: the server behind it.
        folder: the only one whose files are served; tidied before each upload.
        hosts: accepted Host headers (a defence against DNS rebinding); None accepts any.
    """

    def __init__(self, app: Callable, folder: OwnFolder, hosts: frozenset[str] | None):
        self._app, self._folder, self._hosts = app, folder, hosts

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] not in ("http", "lifespan"):
            return
        if scope["type"] == "http":
            if refusal := self._refusal(scope):
                return await _refuse(send, *refusal)
            if scope["path"] in _MESSAGES:
                body = await _body(receive)
                if not self._names_own_files(body):
                    return await _refuse(send, 403, "files are uploaded first")
                receive = _first(body, receive)
        await self._app(scope, receive, send)

    def _refusal(self, scope: _Scope) -> tuple[int, str] | None:
        """Returns status and reason, or None for an accepted request."""
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        if self._hosts is not None and _host(headers.get("host", "")) not in self._hosts:
            return 403, "this page is asked for by its own address"
        if method in ("GET", "HEAD"):
            return None if self._may_read(path) else (404, "not found")
        if method == "POST" and path == _UPLOAD:
            self._folder.tidy()
            return _too_large(headers, MAX_UPLOAD_BYTES)
        if method == "POST" and path in _MESSAGES:
            return _too_large(headers, _MAX_MESSAGE_BYTES)
        return 404, "not found"

    def _names_own_files(self, body: bytes) -> bool:
        """Whether all files of a message in JSON are this folder's."""
        try:
            return all(isinstance(path, str) and self._folder.holds(path) for path in _paths(json.loads(body)))
        except (ValueError, RecursionError):
            return False

    def _may_read(self, path: str) -> bool:
        if path.startswith(_FILE):
            return self._folder.holds(path.removeprefix(_FILE))
        return path == "/" or path in _READS + _READS_OF_QUEUE or path.startswith(_READS_BELOW)


def _paths(tree: Any) -> Iterator[Any]:
    """What a message calls a path, at any depth; that is how gradio names files."""
    if isinstance(tree, dict):
        if tree.get("path") is not None:
            yield tree["path"]
        tree = list(tree.values())
    if isinstance(tree, list):
        for item in tree:
            yield from _paths(item)


async def _body(receive: _Receive) -> bytes:
    """A request's body, which its length in the header bounds."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def _first(body: bytes, receive: _Receive) -> _Receive:
    """A `receive` that gives a body which was read already, then what else comes."""
    waiting: list[MutableMapping[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return again


def _host(header: str) -> str:
    """The name without its port; IPv6 keeps its brackets."""
    return header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header


def _too_large(headers: dict[str, str], most: int) -> tuple[int, str] | None:
    """A refusal of a body of unknown or too great length, which the server behind would read."""
    length = headers.get("content-length", "")
    if not length.isdigit() or "transfer-encoding" in headers:
        return 411, "say how long it is"
    return (413, f"too large: the most are {most / 1e6:g} MB") if int(length) > most else None


async def _refuse(send: _Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
