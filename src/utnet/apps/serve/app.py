"""Routes of the page: static files, uploads, pictures with their hands, and corrections.

| route | purpose |
|---|---|
| GET / and /static/NAME | the page |
| GET /api/settings | methods and limits |
| POST /api/files | one file as the body, its name in X-File-Name → id |
| POST /api/pictures | {file, depth, depth_scale, camera, method} → id; starts the prediction |
| GET /api/pictures/ID | state of the work, then the hands |
| POST /api/pictures/ID/edits | {hand, points} or {box} → the hands |
| GET /api/pictures/ID/NAME | view.jpg, overlay.jpg, hands.glb, hands.json |

Files and pictures are visible only to the visitor whose cookie was sent with the upload.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from utnet.apps.serve.guard import MAX_UPLOAD_BYTES, UPLOAD_PATH
from utnet.apps.serve.messages import file_name, read_edit, read_query, state_of
from utnet.apps.serve.service import PREDICTIONS, SCENE, VIEW, HandService, Result
from utnet.apps.serve.store import Entry, Store, StoreFull
from utnet.apps.serve.worker import Job, QueueFull, Worker
from utnet.conventions import JOINT_NAMES
from utnet.errors import InputError

_ASSETS = Path(__file__).parents[2] / "assets"
_STATIC = {
    "example.jpg": _ASSETS / "page" / "example.jpg",
    "page.css": _ASSETS / "page" / "page.css",
    "page.js": _ASSETS / "page" / "page.js",
    "stage.js": _ASSETS / "page" / "stage.js",
    "viewer.js": _ASSETS / "viewer" / "viewer.js",
    "three.min.js": _ASSETS / "viewer" / "three.min.js",
}
_KINDS = {VIEW: "image/jpeg", SCENE: "model/gltf-binary", PREDICTIONS: "application/json"}
_COOKIE = "utnet_visitor"
_VISITOR = re.compile(r"[A-Za-z0-9_-]{43}")
_MAX_UPLOADS = 8
"""Number of simultaneous uploads."""
_RESULT_BYTES = 8 * 10**6
"""Bytes reserved for a result until its files are written."""
_TIDY_S = 300.0
_BUSY = {"retry-after": "2"}


def build_app(service: HandService, store: Store, worker: Worker, *, pause_s: float = 10.0) -> Starlette:
    """The page's server, to be put behind `guard.Guard`.

    Args:
        service: for predictions.
        store: for files of the visitors.
        worker: runs the predictions.
        pause_s: longest pause within an upload, and longest wait for a place to upload.
    """
    page = _Page(service, store, worker, pause_s)
    routes = [
        Route("/", page.index),
        Route("/static/{name}", page.static),
        Route("/favicon.ico", page.icon),
        Route("/api/settings", page.settings),
        Route(UPLOAD_PATH, page.upload, methods=["POST"]),
        Route("/api/pictures", page.start, methods=["POST"]),
        Route("/api/pictures/{key}", page.state),
        Route("/api/pictures/{key}/edits", page.edit, methods=["POST"]),
        Route("/api/pictures/{key}/{name}", page.file),
    ]
    handlers: dict[Any, Callable] = {
        StoreFull: lambda *_: _text(503, "no room left; try again later", _BUSY),
        QueueFull: lambda *_: _text(503, "many pictures are waiting; try again in a moment", _BUSY),
        InputError: lambda _, error: _text(400, str(error)),
    }
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=page.lifespan)


class _Page:
    """Request handlers. Visitors are identified by a random cookie, set by the first upload."""

    def __init__(self, service: HandService, store: Store, worker: Worker, pause_s: float):
        self._service, self._store, self._worker, self._pause_s = service, store, worker, pause_s
        self._uploads = asyncio.Semaphore(_MAX_UPLOADS)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async def tidy() -> None:
            while True:
                await asyncio.sleep(_TIDY_S)
                self._store.tidy()

        task = asyncio.create_task(tidy())
        yield
        task.cancel()

    async def index(self, request: Request) -> Response:
        return FileResponse(_ASSETS / "page" / "index.html")

    async def static(self, request: Request) -> Response:
        path = _STATIC.get(request.path_params["name"])
        if path is None:
            raise HTTPException(404)
        return FileResponse(path, headers={"cache-control": "no-cache"})

    async def icon(self, request: Request) -> Response:
        return Response(status_code=204)

    async def settings(self, request: Request) -> Response:
        return JSONResponse(
            {
                "methods": list(self._service.methods),
                "default": self._service.default,
                "max_bytes": MAX_UPLOAD_BYTES,
                "joint_names": list(JOINT_NAMES),
            }
        )

    async def upload(self, request: Request) -> Response:
        name, size = file_name(request.headers.get("x-file-name", "")), int(request.headers["content-length"])
        visitor = _visitor(request) or secrets.token_urlsafe(32)
        async with _place(self._uploads, self._pause_s):
            with self._store.new(visitor, "file", size) as entry:
                entry.content = entry.folder / name
                await _receive(request, entry.content, self._pause_s)
        response = JSONResponse({"id": entry.key, "name": name}, status_code=201)
        response.set_cookie(_COOKIE, visitor, httponly=True, samesite="strict")
        return response

    async def start(self, request: Request) -> Response:
        visitor = _visitor(request) or ""
        message = await _json(request)
        files = {
            name: self._find(visitor, message.get(name), "file")
            for name in ("file", "depth")
            if message.get(name) is not None or name == "file"
        }
        query = read_query(message, {name: entry.content for name, entry in files.items()}, self._service.methods)
        with self._store.new(visitor, "picture", _RESULT_BYTES) as entry:

            def predict(progress: Callable[[str], None]) -> Result:
                return self._service.predict(query, entry.folder, progress)

            held = [entry, *files.values()]
            job = self._submit(visitor, predict, held)
            entry.content = (job, list(files.values()))
        return JSONResponse({"id": entry.key}, status_code=202)

    async def state(self, request: Request) -> Response:
        job: Job = self._picture(request).content[0]
        return JSONResponse(state_of(job, self._worker.num_before(job), self._service))

    async def edit(self, request: Request) -> Response:
        entry = self._picture(request)
        result = _result(entry)
        change = read_edit(await _json(request))

        def apply(progress: Callable[[str], None]) -> Result:
            change(self._service, result)
            return result

        await self._wait(entry, apply)
        return await self.state(request)

    async def file(self, request: Request) -> Response:
        entry, name = self._picture(request), request.path_params["name"]
        result = _result(entry)
        if name == "overlay.jpg":
            data = await self._wait(entry, lambda progress: self._service.overlay(result))
            kind, ending = ("image/jpeg", "jpg") if data[:2] == b"\xff\xd8" else ("image/png", "png")
            return Response(data, media_type=kind, headers=_attachment(f"overlay.{ending}"))
        if name not in _KINDS or not (result.folder / name).is_file():
            raise HTTPException(404)
        headers = None if name == VIEW else _attachment(name)
        return Response((result.folder / name).read_bytes(), media_type=_KINDS[name], headers=headers)

    def _find(self, visitor: str, key: Any, kind: str) -> Entry:
        entry = self._store.find(key, visitor, kind) if isinstance(key, str) else None
        if entry is None or entry.content is None:
            raise HTTPException(404, "not here, or no longer; drop the picture again")
        return entry

    def _picture(self, request: Request) -> Entry:
        return self._find(_visitor(request) or "", request.path_params["key"], "picture")

    async def _wait(self, entry: Entry, call: Callable[[Callable[[str], None]], Any]) -> Any:
        """Returns the result of a queued call, while the picture and its uploads are kept."""
        files = entry.content[1]
        if any(self._store.find(file.key, file.owner, "file") is None for file in files):
            raise HTTPException(404, "the picture has expired; drop it again")
        job = self._submit(entry.owner, call, [entry, *files])
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            if job.future.cancelled():
                raise HTTPException(409, "a later request has replaced this one") from None
            raise

    def _submit(self, visitor: str, call: Callable[[Callable[[str], None]], Any], held: list[Entry]) -> Job:
        """Queues a call; its entries are kept until it ends."""
        for entry in held:
            self._store.hold(entry)

        def release(_: Any = None) -> None:
            for entry in held:
                self._store.release(entry)

        try:
            job = self._worker.submit(visitor, call)
        except QueueFull:
            release()
            raise
        job.future.add_done_callback(release)
        return job


@asynccontextmanager
async def _place(uploads: asyncio.Semaphore, pause_s: float) -> AsyncIterator[None]:
    """Context with one of the upload slots; status 503 if none is free within `pause_s`."""
    try:
        async with asyncio.timeout(pause_s):
            await uploads.acquire()
    except TimeoutError:
        raise HTTPException(503, "many files are arriving; try again in a moment", _BUSY) from None
    try:
        yield
    finally:
        uploads.release()


async def _receive(request: Request, path: Path, pause_s: float) -> None:
    """Writes a request's body to a file."""
    chunks = request.stream().__aiter__()
    with path.open("xb") as file:
        while True:
            try:
                async with asyncio.timeout(pause_s):
                    file.write(await anext(chunks))
            except StopAsyncIteration:
                return
            except ClientDisconnect:
                raise HTTPException(400, "the upload was interrupted") from None
            except TimeoutError:
                raise HTTPException(408, "the upload stalled", {"connection": "close"}) from None


async def _json(request: Request) -> dict:
    """Returns a request's body, a JSON object."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "JSON is expected")
    try:
        message = await request.json()
    except (ValueError, RecursionError):
        raise HTTPException(400, "not JSON") from None
    except ClientDisconnect:
        raise HTTPException(400, "the request was interrupted") from None
    if not isinstance(message, dict):
        raise HTTPException(400, "an object is expected")
    return message


def _result(entry: Entry) -> Result:
    job: Job = entry.content[0]
    if not job.future.done() or job.future.cancelled() or job.future.exception() is not None:
        raise HTTPException(404, "there is no result")
    return job.future.result()


def _attachment(name: str) -> dict[str, str]:
    return {"content-disposition": f'attachment; filename="{name}"'}


def _visitor(request: Request) -> str | None:
    """Returns the visitor's session, or None without a valid one."""
    value = request.cookies.get(_COOKIE, "")
    return value if _VISITOR.fullmatch(value) else None


def _text(status: int, reason: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(reason, status, headers)
