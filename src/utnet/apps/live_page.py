"""A local page with live tracking: the newest picture with its hands, as motion JPEG."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import AsyncIterator

import cv2
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route

from utnet.apps.serve.server import build_server, hosts_of, listen
from utnet.predict.drawing import draw_hands
from utnet.predict.live import TrackedFrame

_BOUNDARY = "frame"
_POLL_S = 0.005
_LONGEST_S = 365 * 86400.0
"""Time limit of requests, for streams without end; other requests of this page are short."""
_LARGEST_PX, _QUALITY = 1280, 80
_CSP = "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>utnet live</title>
<link rel="icon" href="data:,">
<style>html, body { margin: 0; height: 100%; background: #14181f }
img { width: 100%; height: 100%; object-fit: contain; display: block }</style>
<img src="/stream" alt="the newest picture with its hands"></html>
"""


class LivePage:
    """Serves the newest tracked frame on a port of this machine; a context manager.

    Frames are drawn in a separate thread, only while a browser shows the page. Frames that arrive during drawing are
    skipped, so tracking does not wait.

    Args:
        host: address to listen on.
        port: to listen on; 0: a free one.

    Attributes:
        address: of the page.

    Raises:
        InputError: the port is in use.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 8644):
        self._socket = listen(host, port)
        port = self._socket.getsockname()[1]
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        routes = [Route("/", self._page), Route("/stream", self._stream)]
        self._server = build_server(Starlette(routes=routes), hosts_of(host), request_s=_LONGEST_S)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._threads = [
            threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True),
            threading.Thread(target=self._draw, daemon=True),
        ]
        self._ready = threading.Condition()
        self._newest: tuple[TrackedFrame, float] | None = None
        self._viewers, self._ended = 0, False
        self._jpeg, self._number = b"", 0

    def __enter__(self) -> LivePage:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._ready:
            self._ended = True
            self._ready.notify_all()
        self._server.should_exit = True
        for thread in self._threads:
            thread.join(5)
        self._socket.close()

    def show(self, tracked: TrackedFrame) -> None:
        """Replaces the frame to show; returns immediately."""
        with self._ready:
            self._newest = (tracked, time.monotonic() - tracked.latency_s)
            self._ready.notify_all()

    def _draw(self) -> None:
        shown: deque[float] = deque(maxlen=30)
        while True:
            with self._ready:
                self._ready.wait_for(lambda: self._ended or (self._newest is not None and self._viewers > 0))
                if self._ended or self._newest is None:
                    return
                (tracked, arrival), self._newest = self._newest, None
            rgb = draw_hands(tracked.frame.rgb, tracked.hands)
            scale = min(1.0, _LARGEST_PX / max(rgb.shape))
            if scale < 1:
                rgb = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            now = time.monotonic()
            shown.append(now)
            rate = (len(shown) - 1) / (shown[-1] - shown[0]) if len(shown) > 1 else 0.0
            _write_line(rgb, f"{1000 * (now - arrival):.0f} ms   {rate:.0f} frames/s")
            _, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
            self._jpeg, self._number = jpeg.tobytes(), self._number + 1

    async def _page(self, request: Request) -> Response:
        return HTMLResponse(_PAGE, headers={"content-security-policy": _CSP})

    async def _stream(self, request: Request) -> Response:
        return StreamingResponse(self._parts(), media_type=f"multipart/x-mixed-replace; boundary={_BOUNDARY}")

    async def _parts(self) -> AsyncIterator[bytes]:
        with self._looked_at():
            sent = 0
            while not self._ended:
                if self._number == sent:
                    await asyncio.sleep(_POLL_S)
                    continue
                jpeg, sent = self._jpeg, self._number
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                yield head.encode() + jpeg + b"\r\n"

    @contextlib.contextmanager
    def _looked_at(self):
        with self._ready:
            self._viewers += 1
            self._ready.notify_all()
        try:
            yield
        finally:
            with self._ready:
                self._viewers -= 1


def _write_line(rgb: np.ndarray, text: str) -> None:
    """Writes a line on a dark strip at the lower left, in place."""
    scale = max(0.4, rgb.shape[0] / 1200)
    (width, height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    y = rgb.shape[0] - below - 6
    rgb[y - height - 6 :, : width + 16] //= 4
    cv2.putText(rgb, text, (8, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
