"""examples/web: the page finds hands and gives what examples/run_onnx.py gives. `make test-web` builds and runs it."""

import functools
import importlib.util
import os
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.browser import CHROMIUM, Browser
from support.label_clips import SEEN

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = [
    pytest.mark.skipif(not os.environ.get("UTNET_TEST_WEB"), reason="make test-web builds the page"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium"),
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    handler = functools.partial(_Quiet, directory=str(EXAMPLES / "web"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


def test_the_page_finds_the_hand_and_agrees_with_the_script(address, tmp_path):
    rgb = cv2.copyMakeBorder(SEEN.rgb, 80, 80, 140, 140, cv2.BORDER_REPLICATE)
    cv2.imwrite(str(tmp_path / "hand.png"), rgb[..., ::-1])
    cv2.imwrite(str(tmp_path / "left.png"), rgb[:, ::-1, ::-1])
    spec = importlib.util.spec_from_file_location("run_onnx", EXAMPLES / "run_onnx.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    network = script.OnnxHand(str(EXAMPLES / "web" / "models" / "hand.onnx"))
    with Browser(tmp_path / "browser", size=(900, 900)) as browser:
        browser.goto(address)
        browser.wait("document.querySelector('#state')?.textContent === 'Ready.'", seconds=300)
        for name, side in (("hand.png", "right"), ("left.png", "left")):
            browser.js("window.hands = null")
            browser.upload("#file", tmp_path / name)
            hands = browser.wait("window.hands", seconds=300)
            assert [hand["side"] for hand in hands] == [side]
            points = np.array(hands[0]["landmarks"])
            box = [*points.min(0), *points.max(0)]
            joints, vertices, faces = network(cv2.imread(str(tmp_path / name))[..., ::-1], box, side)
            assert hands[0]["faces"] == faces.tolist()
            for ours, theirs in ((hands[0]["joints"], joints), (hands[0]["vertices"], vertices)):
                relative = (np.array(ours) - hands[0]["joints"][0]) - (theirs - joints[0])
                assert np.linalg.norm(relative, axis=1).mean() < 0.003  # other sampling of the crop
            distance = hands[0]["joints"][0][2]
            assert distance == pytest.approx(joints[0, 2], rel=0.05)
        (tmp_path / "page.png").write_bytes(browser.screenshot(whole=True))
        assert browser.complaints == []
        assert all(request.startswith(address) for request in browser.requests)


def test_texts_that_are_no_pictures_are_named(address, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with Browser(tmp_path / "browser") as browser:
        browser.goto(address)
        browser.wait("document.querySelector('#state')?.textContent === 'Ready.'", seconds=300)
        browser.upload("#file", tmp_path / "text.png")
        browser.wait("document.querySelector('#state')?.textContent.includes('not a picture')")
        assert browser.complaints == []
