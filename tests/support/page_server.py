"""The page's server in a thread of the test, with limits of the test's own, and a visitor that speaks HTTP to it."""

import contextlib
import http.client
import json
import os
import socket
import threading
import time
from pathlib import Path

from support.waiting import PATIENCE_S
from utnet.apps.serve.app import build_app
from utnet.apps.serve.server import build_server, hosts_of
from utnet.apps.serve.service import PREDICTIONS, VIEW, Result
from utnet.apps.serve.store import Store
from utnet.apps.serve.worker import Worker
from utnet.errors import InputError


class Echo:
    """In place of `HandService`: the answer is the upload itself, so that tests of the server need no network.

    Attributes:
        gate: a picture is worked on as long as it is cleared.
    """

    methods, default = ("auto", "fit"), "fit"

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()

    def predict(self, query, folder, progress):
        progress("Finding hands")
        assert self.gate.wait(PATIENCE_S)
        data = query.picture.read_bytes()
        if data.startswith(b"bad"):
            raise InputError(f"{query.picture.name}: not a picture")
        if data.startswith(b"bug"):
            raise ZeroDivisionError
        (folder / VIEW).write_bytes(data)
        (folder / PREDICTIONS).write_text(query.picture.name)
        return Result(query, folder, (4, 3), None, "default", note=f"{len(data)} bytes")

    def takes_landmarks(self, result):
        return True

    def move_joints(self, result, index, points):
        raise InputError(f"there is no hand {index}")

    def overlay(self, result):
        return result.query.picture.read_bytes()


class Visitor:
    """Requests with a cookie of its own."""

    def __init__(self, port, *, seconds=PATIENCE_S):
        self.port, self.cookie, self.seconds = port, None, seconds

    def ask(self, method, path, body=None, **headers):
        """Status, headers and body of a request; (0, {}, b"") where the server closes the connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=self.seconds)
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if isinstance(body, dict):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        if self.cookie:
            headers["Cookie"] = self.cookie
        try:
            connection.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
            if body is not None and "Content-Length" not in headers and "Transfer-Encoding" not in headers:
                headers["Content-Length"] = str(len(body))
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it is sent
                connection.send(body or b"")
            answer = connection.getresponse()
            if cookie := answer.getheader("set-cookie"):
                self.cookie = cookie.partition(";")[0]
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        except (http.client.HTTPException, ConnectionError):
            return 0, {}, b""
        finally:
            connection.close()

    def status(self, method, path, body=None, **headers):
        return self.ask(method, path, body, **headers)[0]

    def upload(self, data, name="photo.jpg"):
        """The id of an upload."""
        status, _, body = self.ask("POST", "/api/files", data, X_File_Name=name)
        assert status == 201, (status, body)
        return json.loads(body)["id"]

    def start(self, file, **options):
        status, _, body = self.ask("POST", "/api/pictures", {"file": file, **options})
        assert status == 202, (status, body)
        return json.loads(body)["id"]

    def state(self, key, *, after=("waiting", "working")):
        """Polls until the state is not in `after` and returns it; by default, until the picture is done."""
        end = time.monotonic() + PATIENCE_S
        while True:
            status, _, body = self.ask("GET", f"/api/pictures/{key}")
            assert status == 200, (status, body)
            state = json.loads(body)
            if state["state"] not in after:
                return state
            assert time.monotonic() < end, state
            time.sleep(0.02)


@contextlib.contextmanager
def page_server(service, *, store=None, hosts=("127.0.0.1",), worker=None, pause_s=10.0, **limits):
    """Serves for the block; gives the port and the store."""
    with store or Store() as kept, socket.create_server(("127.0.0.1", 0)) as listening:
        app = build_app(service, kept, worker or Worker(), pause_s=pause_s)
        server = build_server(app, hosts_of("127.0.0.1") if hosts else None, **limits)
        server.install_signal_handlers = lambda: None
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            yield listening.getsockname()[1], kept
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def half_open(port, data):
    """A connection that has sent a part of a request."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
    connection.sendall(data)
    return connection


def is_closed(connection):
    """Whether the server closes it before anything more is sent."""
    with contextlib.suppress(ConnectionError):
        while connection.recv(1 << 16):
            pass
    connection.close()
    return True


def files_in(folder: Path) -> dict[Path, int]:
    """Size of each file below a folder; those that are removed meanwhile are left out."""
    sizes = {}
    for parent, _, names in os.walk(folder):
        for path in (Path(parent, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                sizes[path] = path.stat().st_size
    return sizes
