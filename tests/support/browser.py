"""A headless Chromium for tests, driven over its DevTools protocol through two pipes: no driver, no package."""

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

from support.waiting import PATIENCE_S

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

_FLAGS = (
    "--headless=new",
    "--no-sandbox",  # containers run as root; the only pages opened are our own
    "--remote-debugging-pipe",
    "--use-angle=swiftshader",  # WebGL without a graphics card
    "--enable-unsafe-swiftshader",
    "--use-fake-device-for-media-stream",  # a camera that sees a test pattern
    "--use-fake-ui-for-media-stream",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


class Browser:
    """One page in a browser of its own; use it in `with`.

    Attributes:
        requests: addresses that the page asked for, in order, data: and blob: left out.
        complaints: what the page wrote to the console as an error, and what it threw.
    """

    def __init__(self, folder, *, size=(1280, 900), scale=1.0, mobile=False):
        self._folder = Path(folder)
        self.downloads = self._folder / "downloads"
        self.requests, self.complaints = [], []
        self._size, self._scale, self._mobile = size, scale, mobile
        self._answers, self._next, self._buffer = {}, 0, b""

    def __enter__(self):
        self.downloads.mkdir(parents=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        self._log = (self._folder / "chromium.log").open("w")

        def give_pipes():  # Chromium reads commands from 3 and writes answers to 4
            a, b = os.dup(theirs_in), os.dup(theirs_out)
            os.dup2(a, 3)
            os.dup2(b, 4)

        self._process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={self._folder / 'profile'}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            close_fds=False,
            preexec_fn=give_pipes,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._session = None
        try:
            self._open_page()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError, TimeoutError, RuntimeError):
            self._session = None
            self.call("Browser.close", seconds=5)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()
        os.close(self._in)
        os.close(self._out)
        self._log.close()

    def _open_page(self):
        where = str(self.downloads)
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=where)
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")
        # Without a graphics card WebGPU fails, with an error on the console, before a page can turn to WebGL.
        self.call("Page.addScriptToEvaluateOnNewDocument", source="delete Navigator.prototype.gpu")
        width, height = self._size
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=self._scale,
            mobile=self._mobile,
        )

    # -------------------------------------------------------------------------------------------------- what tests use

    def goto(self, address):
        self.call("Page.navigate", url=address)

    def js(self, expression):
        """The value of a JavaScript expression; promises are waited for."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def wait(self, expression, *, seconds=PATIENCE_S):
        """The first true value of an expression; an AssertionError with the page's text where there is none in time."""
        end = time.monotonic() + seconds
        while not (value := self.js(expression)):
            assert time.monotonic() < end, f"{expression} is not true after {seconds} s:\n{self.text()}"
            self.pump(0.1)
        return value

    def text(self):
        return self.js("document.body ? document.body.innerText : ''")

    def upload(self, selector, *files):
        """Puts files into an <input type=file>, as if they were chosen."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        assert node, f"{selector} is not on the page"
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def click(self, selector):
        """A real click in the middle of an element."""
        self.call("Page.bringToFront")
        x, y = self.js(
            f"(e => (e.scrollIntoView({{block: 'center', behavior: 'instant'}}), e = e.getBoundingClientRect(), "
            f"[e.x + e.width / 2, e.y + e.height / 2]))(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def drag(self, selector, dx, dy):
        """Presses in the middle of an element, moves by (dx, dy) pixels and lets go."""
        x, y = self.js(
            f"(e => (e.scrollIntoView({{block: 'center', behavior: 'instant'}}), e = e.getBoundingClientRect(), "
            f"[e.x + e.width / 2, e.y + e.height / 2]))(document.querySelector({json.dumps(selector)}))"
        )
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
        for k in range(1, 6):
            to = {"x": x + dx * k / 5, "y": y + dy * k / 5}
            self.call("Input.dispatchMouseEvent", type="mouseMoved", button="left", buttons=1, **to)
            self.pump(0.05)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + dx, y=y + dy, button="left", clickCount=1)

    def downloaded(self, name, *, seconds=PATIENCE_S):
        """The path of a download, once it is complete."""
        end = time.monotonic() + seconds
        while not (self.downloads / name).is_file():
            found = [path.name for path in self.downloads.iterdir()]
            assert time.monotonic() < end, f"{name} was not downloaded in {seconds} s, but {found}"
            self.pump(0.1)
        return self.downloads / name

    def screenshot(self, selector=None, *, whole=False):
        """PNG bytes of what is in view, of one element, or of the whole page."""
        options = {}
        if selector is not None:
            box = self.js(
                f"(e => (e.scrollIntoView({{block: 'center', behavior: 'instant'}}), e = e.getBoundingClientRect(), "
                f"[e.x + scrollX, e.y + scrollY, e.width, e.height]))(document.querySelector({json.dumps(selector)}))"
            )
            options["clip"] = {**dict(zip(("x", "y", "width", "height"), box, strict=True)), "scale": 1}
        data = self.call("Page.captureScreenshot", captureBeyondViewport=whole, **options)["data"]
        return base64.b64decode(data)

    def pump(self, seconds):
        """Lets events come in for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._read(left)

    # ------------------------------------------------------------------------------------------------------ protocol

    def call(self, method, *, seconds=PATIENCE_S, **parameters):
        """One command of the protocol and its answer."""
        self._next += 1
        number, message = self._next, {"id": self._next, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + seconds
        while number not in self._answers:
            if (left := end - time.monotonic()) <= 0:
                raise TimeoutError(f"{method}: no answer in {seconds} s")
            self._read(left)
        answer = self._answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self, seconds):
        if not select.select([self._in], [], [], seconds)[0]:
            return
        data = os.read(self._in, 1 << 16)
        if not data:
            raise OSError(f"Chromium ended: {(self._folder / 'chromium.log').read_text()[-500:]}")
        *messages, self._buffer = (self._buffer + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._note(message["method"], message["params"])

    def _note(self, method, event):
        if method == "Network.requestWillBeSent":
            address = event["request"]["url"]
            if not address.startswith(("data:", "blob:")):
                self.requests.append(address)
        elif method == "Network.webSocketCreated":
            self.requests.append(event["url"])
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "assert"):
            self.complaints.append(" ".join(str(a.get("value", a.get("description"))) for a in event["args"]))
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and event["entry"]["level"] == "error":
            self.complaints.append(f"{event['entry']['text']} {event['entry'].get('url', '')}")
