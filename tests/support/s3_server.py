"""An S3 server on this machine, whose requests can be made to fail."""

import threading
from collections import Counter
from contextlib import contextmanager

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response


class S3Server:
    """moto's server behind a gate.

    Attributes:
        address: http://127.0.0.1:PORT.
        failures: given method, path and how often it was requested before: whether the request fails with 503.
        failed: number of requests that failed.
    """

    def __init__(self):
        self._inner = DomainDispatcherApplication(create_backend_app)
        self._seen, self._lock = Counter(), threading.Lock()
        self.failures, self.failed, self.writes = None, 0, Counter()
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def __call__(self, environ, start_response):
        request = Request(environ)
        with self._lock:
            before = self._seen[request.method, request.path]
            self._seen[request.method, request.path] += 1
            fails = self.failures is not None and self.failures(request.method, request.path, before)
            self.failed += fails
        if fails:
            request.get_data()
            return Response("<Error><Code>SlowDown</Code></Error>", 503)(environ, start_response)
        if request.method == "PUT":
            self.writes[request.path] += 1
        return self._inner(environ, start_response)

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()

    @contextmanager
    def failing(self, failures):
        """In the block, requests fail as `failures` has it."""
        self._seen.clear()
        self.failures, self.failed = failures, 0
        try:
            yield
        finally:
            self.failures = None
