"""Time limit for request heads: uvicorn limits only the time between requests."""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def connection_class(head_s: float) -> type[H11Protocol]:
    """uvicorn's HTTP protocol with a time limit for the head of each request."""

    class Connection(H11Protocol):
        _head: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._watch()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._watch()

        def connection_lost(self, exc: Exception | None) -> None:
            self._unwatch()
            super().connection_lost(exc)

        def _watch(self) -> None:
            """Runs the timer while a head is incomplete."""
            if self.conn.their_state is not h11.IDLE:
                self._unwatch()
            elif self._head is None:
                self._head = self.loop.call_later(head_s, self._close)

        def _unwatch(self) -> None:
            if self._head is not None:
                self._head.cancel()
                self._head = None

        def _close(self) -> None:
            if not self.transport.is_closing() and self.conn.their_state is h11.IDLE:
                self.transport.close()

    return Connection
