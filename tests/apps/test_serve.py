"""`utnet serve`: what may reach it, what it keeps, what it answers, and the page in a real browser."""

import asyncio
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

from support.browser import CHROMIUM, Browser
from utnet.apps.serve.access_control import MAX_UPLOAD_BYTES, AccessControl
from utnet.apps.serve.example import example_picture
from utnet.apps.serve.folder import OwnFolder
from utnet.apps.serve.scene import draw_boxes
from utnet.apps.serve.server import is_local
from utnet.apps.serve.service import HandService, Question
from utnet.checkpoint import save_checkpoint
from utnet.cli import serve_command as commands
from utnet.cli.main import main
from utnet.config import Config, ModelConfig
from utnet.model import UTNet
from utnet.predict.meshes import scene_glb
from utnet.render.drawing import save_picture

pytestmark = pytest.mark.usefixtures("nothing_ships")  # test_release.py: what holds where something does

# ------------------------------------------------------------------------------------------------------------- folder


def test_the_folder_holds_its_own_files_only_and_goes(tmp_path):
    outside = tmp_path / "outside.txt"
    outside.write_text("secret")
    with OwnFolder() as folder:
        inside = folder.new() / "a.txt"
        inside.write_text("a")
        (folder.path / "link").symlink_to(outside)
        assert folder.holds(str(inside))
        for path in (outside, folder.path, inside.parent, folder.path / "link", folder.path / "none", "a\0b", ""):
            assert not folder.holds(str(path)), path
        assert not folder.holds(f"{folder.path}/../{tmp_path.name}/outside.txt")
        assert not folder.holds(f"{folder.path}-other/a.txt")
    assert not folder.path.exists()


def test_old_files_go_first():
    with OwnFolder() as folder:
        files = [folder.new() / "x" for _ in range(5)]
        for age, file in enumerate(files):
            file.write_bytes(bytes(100))
            os.utime(file, (time.time() - 100 * age,) * 2)
        folder.tidy()
        assert all(file.exists() for file in files)
        folder.tidy(max_bytes=300)
        assert [file.exists() for file in files] == [True, True, True, False, False]
        folder.tidy(max_age_s=150)
        assert [file.exists() for file in files] == [True, True, False, False, False]


# --------------------------------------------------------------------------------------------------------------- gate


def ask(gate, path, method="GET", host="127.0.0.1:8642", body=b"{}", **headers):
    """The status of a request; 200 is said by the server behind the gate."""
    said, parts = [], [body[:5], body[5:]]

    async def send(message):
        said.append(message)

    async def receive():
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in {"host": host, **headers}.items()]
    scope = {"type": "http", "method": method, "path": path, "headers": named}
    asyncio.run(gate(scope, receive, send))
    return said[0]["status"]


async def behind(scope, receive, send):
    if scope["method"] == "POST" and scope["path"].endswith("join"):
        assert json.loads((await receive())["body"]) is not None  # the gate read it, and gives it on
    await send({"type": "http.response.start", "status": 200, "headers": []})


def test_the_gate_lets_through_what_the_page_needs_and_nothing_else(tmp_path):
    with OwnFolder() as folder:
        gate = AccessControl(behind, folder, frozenset({"127.0.0.1", "localhost"}))
        inside = folder.new() / "hands.glb"
        inside.write_bytes(b"x")
        for path in ("/", "/config", "/assets/index.js", "/theme.css", "/gradio_api/queue/data"):
            assert ask(gate, path) == 200
        assert ask(gate, f"/gradio_api/file={inside}") == 200
        for path in (
            "/gradio_api/file=/etc/passwd",
            f"/gradio_api/file={folder.path}/../../etc/passwd",
            "/gradio_api/file=http://example.com/x",
            "/gradio_api/file/etc/passwd",
            "/gradio_api/proxy=http://example.com/",
            "/gradio_api/info",
            "/gradio_api/runs",
            "/monitoring",
            "/docs",
        ):
            assert ask(gate, path) == 404, path
        assert ask(gate, "/gradio_api/upload", "POST", content_length=str(MAX_UPLOAD_BYTES)) == 200
        assert ask(gate, "/gradio_api/upload", "POST", content_length=str(MAX_UPLOAD_BYTES + 1)) == 413
        assert ask(gate, "/gradio_api/upload", "POST") == 411
        assert ask(gate, "/gradio_api/upload", "POST", content_length="9", transfer_encoding="chunked") == 411
        assert ask(gate, "/gradio_api/queue/join", "POST", content_length="200") == 200
        assert ask(gate, "/gradio_api/queue/join", "POST", content_length="1000000") == 413
        for path, status in ((str(inside), 200), ("/etc/passwd", 403), ("http://example.com/a.png", 403), (7, 403)):
            body = json.dumps({"data": [{"value": [{"path": path}]}, None]}).encode()
            assert ask(gate, "/gradio_api/queue/join", "POST", body=body, content_length="200") == status, path
        assert ask(gate, "/gradio_api/queue/join", "POST", body=b"no JSON", content_length="200") == 403
        assert ask(gate, "/gradio_api/vibe-edit", "POST", content_length="2") == 404
        assert ask(gate, "/", "DELETE") == 404
        assert ask(gate, "/", host="localhost:8642") == ask(gate, "/", host="localhost") == 200
        assert ask(gate, "/", host="evil.example:8642") == 403  # a name that was made to lead here
        assert ask(AccessControl(behind, folder, None), "/", host="my-machine:8642") == 200


# ------------------------------------------------------------------------------------------------------------ answers


@pytest.fixture(scope="module")
def answers():
    with OwnFolder() as folder:
        yield HandService(folder)


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """The example, as a user's file."""
    path = tmp_path_factory.mktemp("photos") / "my photo.png"
    save_picture(path, example_picture())
    return path


def check_files(glb, predictions):
    """GLB and JSON of the same hands; returns the JSON's picture."""
    (image,) = json.loads(predictions.read_text())["images"]
    scene = trimesh.load(io.BytesIO(glb.read_bytes()), file_type="glb")
    names = [f"{i}_{hand['side']}" for i, hand in enumerate(image["hands"])]
    assert set(scene.graph.nodes_geometry) == set(names)
    for name, hand in zip(names, image["hands"], strict=True):
        turn, geometry = scene.graph[name]
        vertices = trimesh.transform_points(scene.geometry[geometry].vertices, turn) * [1, -1, -1]
        joints = np.array(hand["joints_cam_m"])
        assert (np.abs(vertices.mean(0) - joints.mean(0)) < 0.03).all()  # metres, in their places
        assert np.linalg.norm(np.ptp(vertices, axis=0)) > 0.1
    return image


def test_an_answer_has_every_hand_in_the_picture_s_camera(answers, photo):
    answer = answers(Question(photo))
    assert not answer.refused
    assert sorted(hand.side for hand in answer.hands) == ["left", "right"]
    assert answer.note.startswith("2 hands in ")
    image = check_files(answer.scene, answer.predictions)
    assert (image["file"], image["K_from"], image["K_px"][0][0]) == ("my photo.png", "default", 960)
    assert cv2.imread(str(answer.overlay)).shape == example_picture().shape


def test_depth_and_camera_are_used(answers, photo, tmp_path):
    depth = tmp_path / "depth.png"
    cv2.imwrite(str(depth), np.full(example_picture().shape[:2], 3200, np.uint16))
    answer = answers(Question(photo, depth, 0.0002, (800.0, 800.0, 479.5, 299.5), "fit"))
    assert {hand.distance_source for hand in answer.hands} == {"sensor"}
    assert "as you gave it" in answer.note
    assert answer.hands[0].K_px[0, 0] == 800
    for hand in answer.hands:
        assert abs(hand.joints_cam_m[:, 2].mean() - 0.64) < 0.04


def test_no_hand_is_an_answer(answers, tmp_path):
    save_picture(tmp_path / "grey.png", np.full((100, 120, 3), 128, np.uint8))
    answer = answers(Question(tmp_path / "grey.png"))
    assert not answer.refused
    assert answer.note.startswith("No hand was found")
    assert (list(answer.hands), answer.scene) == ([], None)
    assert json.loads(answer.predictions.read_text())["images"][0]["hands"] == []


def test_without_a_picture_the_page_waits(answers):
    answer = answers(Question(None))
    assert (answer.note, answer.refused, answer.overlay) == ("Drop a picture to begin.", False, None)


def test_weights_give_a_choice_of_methods(answers, photo, tmp_path):
    assert (answers.methods, answers.default) == (("fit",), "fit")
    save_checkpoint(tmp_path / "best", UTNet(ModelConfig(preset="ti")), Config(model=ModelConfig(preset="ti")))
    with OwnFolder() as folder:
        both = HandService(folder, tmp_path / "best")
        assert (both.methods, both.default) == (("auto", "both", "network", "fit"), "network")
        made_by = {method: {h.method for h in both(Question(photo, method=method)).hands} for method in both.methods}
    assert made_by == {"auto": {"network"}, "both": {"both"}, "network": {"network"}, "fit": {"fit"}}


def test_bad_uploads_are_told_in_a_line_without_folders(answers, photo, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.full((20, 30), 500, np.uint16))
    header = b"IHDR" + (20000).to_bytes(4) * 2 + b"\x08\x02\0\0\0"
    chunk = (13).to_bytes(4) + header + zlib.crc32(header).to_bytes(4)
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + bytes(4) + b"IDAT" + bytes(4))
    for question, message in (
        (Question(tmp_path / "bad.png"), "bad.png: not a picture"),
        (Question(tmp_path / "empty.png"), "empty.png: the file is empty"),
        (Question(tmp_path / "huge.png"), "megapixels"),
        (Question(photo, tmp_path / "bad.png"), "bad.png: not a picture"),
        (Question(photo, small), "depth is 30x20"),
        (Question(photo, small, None), "depth steps are None m"),
        (Question(photo, camera=(800.0, None, 1.0, 1.0)), "the camera has empty fields"),
        (Question(photo, camera=(-1.0, 1.0, 1.0, 1.0)), "not a camera matrix"),
    ):
        answer = answers(question)
        assert answer.refused
        assert message in answer.note
        assert str(tmp_path) not in answer.note
        assert (answer.overlay, answer.scene, answer.predictions, list(answer.hands)) == (None, None, None, [])


def test_boxes_are_drawn_where_they_are(answers, photo):
    image, hands = example_picture(), answers(Question(photo)).hands
    drawn = draw_boxes(image, hands)
    for hand in hands:
        x0, y0, x1, y1 = np.rint(hand.box_px).astype(int)
        changed = (drawn != image).any(2)
        assert changed[y1, x0:x1].mean() > 0.95
        assert changed[y0:y1, x1].mean() > 0.95
    assert (draw_boxes(image, []) == image).all()
    assert len(scene_glb(hands)) < 500_000


# ------------------------------------------------------------------------------------------------------------ command


def fails(capsys, *words):
    with pytest.raises(SystemExit) as exit_:
        main(["serve", *words])
    assert exit_.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_what_cannot_be_served_is_told(capsys, monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"127.0.0.1:{port} (Address already in use); give another --port" in fails(capsys, "--port", port)
    assert "--port is 0" in fails(capsys, "--port", "0")
    assert "no such file" in fails(capsys, "--port", str(free_port()), "--weights", str(tmp_path / "none"))
    monkeypatch.setattr(commands.importlib.util, "find_spec", lambda name: None)
    assert "-m pip install 'utnet[serve]'" in fails(capsys)


def test_other_machines_are_let_in_with_a_warning_only(capsys, monkeypatch):
    served = []
    monkeypatch.setattr("utnet.apps.serve.server.run_server", lambda host, *_, **__: served.append(host))
    for host in ("127.0.0.1", "localhost", "::1"):
        main(["serve", "--host", host])
        assert is_local(host)
        assert not capsys.readouterr().err
    for host in ("0.0.0.0", "192.168.1.5", "my-machine"):
        main(["serve", "--host", host])
        assert "no password" in capsys.readouterr().err
    assert len(served) == 6


# ------------------------------------------------------------------------------------------------------------- server

_WATCHED = """
import sys
def note(event, arguments):
    if event == "socket.connect":
        print("CONNECT", arguments[1], file=sys.stderr, flush=True)
    if event == "socket.getaddrinfo" and arguments[0] not in ("127.0.0.1", None):
        print("CONNECT", arguments[0], file=sys.stderr, flush=True)
sys.addaudithook(note)
from utnet.checkpoint import save_checkpoint
from utnet.cli.main import main
from utnet.config import Config, ModelConfig
from utnet.model import UTNet
main()
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running page: its address, its temporary folder and the file that tells its connections to elsewhere."""
    place = tmp_path_factory.mktemp("serve")
    address = f"http://127.0.0.1:{(port := free_port())}/"
    errors = place / "errors.txt"
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", _WATCHED, "serve", "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "TMPDIR": str(place)},
            text=True,
        )
    try:
        assert address in process.stdout.readline(), errors.read_text()
        (folder,) = place.glob("utnet-serve-*")
        yield address, folder, errors
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not folder.exists()
        assert not errors.read_text(), errors.read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def fetch(address, data=None, **headers):
    """Status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, data, headers), timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def upload(address, name, content):
    body = (
        f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n--x--\r\n"
    )
    return fetch(f"{address}gradio_api/upload", body, **{"Content-Type": "multipart/form-data; boundary=x"})


def test_files_never_leave_another_folder_and_none_is_written_there(server):
    address, folder, _ = server
    assert fetch(address)[0] == 200
    for path in ("/etc/passwd", "../../../../etc/passwd", f"{folder}/../errors.txt", "%2e%2e/%2e%2e/etc/passwd"):
        status, body = fetch(f"{address}gradio_api/file={path}")
        assert (status, b"root:" in body) == (404, False), path
    for name in ("../../../evil.png", "/tmp/evil.png", "..\\..\\evil.png"):
        status, body = upload(address, name, b"x")
        assert status == 200
        (path,) = json.loads(body)
        assert Path(path).resolve().is_relative_to(folder)
        assert fetch(f"{address}gradio_api/file={path}") == (200, b"x")
    assert not list(folder.parent.glob("evil*"))


def test_a_question_about_other_files_is_refused(server, tmp_path):
    """Asked without the page: a path of the server's, and an address that the server would have to fetch."""
    address, folder, _ = server
    config = json.loads(fetch(f"{address}config")[1])
    (find,) = [d for d in config["dependencies"] if len(d["inputs"]) > 2]
    secret = tmp_path / "secret.png"
    save_picture(secret, np.zeros((9, 9, 3), np.uint8))
    own = json.loads(upload(address, "own.png", secret.read_bytes())[1])[0]
    for path, status in ((own, 200), (str(secret), 403), ("http://example.com/a.png", 403), (f"{folder}/../x", 403)):
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        for data in ([file, None, 0.001], [None, None, file]):
            rest = [None, None, None, None, "fit"]
            body = json.dumps({"data": data + rest, "fn_index": find["id"], "session_hash": "s"}).encode()
            headers = {"Content-Type": "application/json"}
            assert fetch(f"{address}gradio_api/queue/join", body, **headers)[0] == status, path
            if status == 200:
                events = fetch(f"{address}gradio_api/queue/data?session_hash=s")[1].decode()
                assert "No hand was found" in events
                break


# ------------------------------------------------------------------------------------------------------------ browser

_NOTE = "(document.querySelector('#note')?.innerText ?? '')"

_BUTTON = "[...document.querySelectorAll('#picture button')].find(e => (e.innerText + e.ariaLabel).includes('{}'))"


def colored(png):
    """The share of a picture's pixels that are neither grey nor white: the hands' colours."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)
    return (np.ptp(pixels, axis=2) > 20).mean()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")
def test_the_page_in_a_browser(server, photo, tmp_path):
    """As a user: drop a picture, look, turn, download; then a file that is no picture, the camera, the example."""
    address, _, errors = server
    with Browser(tmp_path / "browser") as page:
        page.goto(address)
        page.wait("document.querySelector('#picture input[type=file]') !== null", seconds=60)
        page.wait(f"{_NOTE}.includes('Drop a picture to begin')")
        page.upload("#picture input[type=file]", photo)
        page.wait(f"{_NOTE}.startsWith('2 hands in')", seconds=60)
        page.wait("document.querySelector('#overlay img')?.naturalWidth === 960")
        rows = page.wait("[...document.querySelectorAll('#hands tbody tr')].map(row => row.innerText)")
        assert sorted(row.split()[1] for row in rows) == ["left", "right"]
        assert all("its size" in row for row in rows)

        page.wait("document.querySelector('#scene canvas') !== null")
        end = time.monotonic() + 30
        while colored(before := page.screenshot("#scene canvas")) < 0.03:
            assert time.monotonic() < end, "no hands in the 3D view"
            page.pump(0.3)
        page.pump(1)  # the camera comes to rest
        before = page.screenshot("#scene canvas")
        page.drag("#scene canvas", 120, 40)
        page.pump(1)
        after = page.screenshot("#scene canvas")
        assert colored(after) > 0.02
        assert before != after  # it turns

        page.click("#glb")
        page.click("#json")
        check_files(page.downloaded("hands.glb"), page.downloaded("hands.json"))

        bad = tmp_path / "bad.png"
        bad.write_text("no picture")
        page.click("#picture button[aria-label='Remove Image']")
        page.wait("document.querySelector('#picture input[type=file]') !== null")
        page.upload("#picture input[type=file]", bad)
        page.wait(f"{_NOTE}.startsWith('bad.png: not a picture')")
        assert page.js("document.querySelector('#overlay img')") is None
        assert page.complaints == []

        page.click("#picture button[aria-label='Remove Image']")
        page.wait(f"{_NOTE}.includes('Drop a picture to begin')")
        page.click("#picture button[aria-label='Capture from camera']")
        page.wait(
            f"{_BUTTON.format('Access Webcam')}?.click() === undefined && {_BUTTON.format('capture photo')} != null"
        )
        page.wait("document.querySelector('#picture video').videoWidth > 0")
        page.js(f"{_BUTTON.format('capture photo')}.click()")
        page.wait(f"{_NOTE}.startsWith('No hand was found')")

        page.click("#example")
        page.wait(f"{_NOTE}.startsWith('2 hands in')", seconds=90)

        assert page.requests
        assert [request for request in page.requests if not request.startswith(address)] == []
        interrupted = "AbortError: The play() request"  # gradio starts a camera's picture twice
        assert [text for text in page.complaints if not text.startswith(interrupted)] == []
    assert "CONNECT" not in errors.read_text()
