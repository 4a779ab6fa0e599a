"""`utnet serve`: what it keeps, what it answers, and the page in a real browser."""

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

import utnet
from support.browser import CHROMIUM, Browser
from support.page_server import Visitor
from support.waiting import PATIENCE_S
from utnet.apps.serve.scene import draw_boxes, shrink
from utnet.apps.serve.server import is_local
from utnet.apps.serve.service import HandService, Query
from utnet.apps.serve.store import Store, StoreFull
from utnet.apps.serve.worker import QueueFull, Worker
from utnet.checkpoint import save_checkpoint
from utnet.cli import serve_command as commands
from utnet.cli.main import main
from utnet.config import Config, ModelConfig
from utnet.errors import InputError
from utnet.io.pictures import read_picture
from utnet.model import UTNet
from utnet.predict.meshes import scene_glb
from utnet.render.drawing import save_picture

EXAMPLE = Path(utnet.__file__).parent / "assets" / "page" / "example.jpg"
pytestmark = pytest.mark.usefixtures("nothing_ships")  # test_release.py: what holds where something does


def example():
    """(600, 960, 3) the picture of the page's example button: a right hand and a left one."""
    return read_picture(EXAMPLE).rgb


# -------------------------------------------------------------------------------------------------------------- store


def test_the_folder_goes_at_the_end():
    with Store() as store, store.new("me", "file", 5) as entry:
        (entry.folder / "a").write_bytes(b"12345")
        assert entry.folder.parent == store.path
    assert not store.path.exists()


def add(store, num_bytes, owner="me"):
    with store.new(owner, "file", num_bytes) as entry:
        (entry.folder / "x").write_bytes(bytes(num_bytes))
    return entry


def test_what_was_not_used_for_the_longest_time_goes_first():
    clock = iter(range(10**6))
    with Store(max_bytes=300, clock=lambda: next(clock)) as store:
        first, second, third = (add(store, 100) for _ in range(3))
        assert store.find(first.key, "me", "file") is first  # a use
        fourth = add(store, 100)
        assert [entry.folder.exists() for entry in (first, second, third, fourth)] == [True, False, True, True]
        assert store.num_bytes == 300
        store.hold(third)
        store.hold(fourth)
        fifth = add(store, 100)
        assert not first.folder.exists(), "what is in use stays"
        store.hold(fifth)
        with pytest.raises(StoreFull), store.new("me", "file", 1):
            pass
        store.release(third)
        add(store, 50)
        assert not third.folder.exists()
        assert store.num_bytes == 250


def test_entries_expire_and_are_bounded_in_number():
    now = [0.0]
    with Store(max_entries=3, max_age_s=10, clock=lambda: now[0]) as store:
        old = add(store, 1)
        now[0] = 6
        new = add(store, 1)
        now[0] = 12
        assert store.find(old.key, "me", "file") is None
        assert store.find(new.key, "me", "file") is new
        assert not old.folder.exists()
        for _ in range(5):
            add(store, 1)
        assert store.num_bytes == 3


def test_entries_are_their_owner_s_and_of_their_kind():
    with Store() as store:
        entry = add(store, 1)
        assert store.find(entry.key, "me", "file") is entry
        for key, owner, kind in ((entry.key, "you", "file"), (entry.key, "me", "picture"), ("x", "me", "file")):
            assert store.find(key, owner, kind) is None
        with pytest.raises(OSError, match="full"), store.new("me", "file", 10) as broken:
            raise OSError("the disk is full")
        assert not broken.folder.exists()
        assert store.num_bytes == 1


def test_the_worker_takes_one_job_after_the_other_and_one_of_each_visitor(capfd):
    worker, order = Worker(max_waiting=2), []

    def slow(progress):
        progress("slow")
        while len(order) < 1:
            time.sleep(0.005)

    first = worker.submit("a", slow)
    while not first.step:
        time.sleep(0.005)
    replaced = worker.submit("b", lambda progress: order.append("replaced"))
    other = worker.submit("c", lambda progress: 1 / 0)
    job = worker.submit("b", lambda progress: order.append("b") or 7)
    assert [worker.num_before(j) for j in (first, other, job)] == [0, 1, 2]
    with pytest.raises(QueueFull):
        worker.submit("d", lambda progress: None)
    assert replaced.future.cancelled()
    order.append("go")
    assert job.future.result(10) == 7
    assert order == ["go", "b"]
    assert isinstance(other.future.exception(), ZeroDivisionError)
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert worker.stop(5)


@pytest.mark.skipif(sys.platform == "win32", reason="the folder cannot be renamed there")
def test_a_job_that_outlives_the_page_writes_nothing(capfd, monkeypatch):
    removing, worker = threading.Event(), Worker()

    def late(progress):
        progress("late")
        assert removing.wait(PATIENCE_S)
        (entry.folder / "overlay.jpg").write_bytes(b"late")

    def remove(folder, *, ignore_errors, rmtree=shutil.rmtree):
        removing.set()
        job.future.exception(PATIENCE_S)
        rmtree(folder, ignore_errors=ignore_errors)

    with Store() as store, store.new("me", "picture", 10) as entry:
        place, name = store.path.parent, store.path.name
        job = worker.submit("me", late)
        while not job.step:
            time.sleep(0.005)
        assert not worker.stop(0.01)
        monkeypatch.setattr("utnet.apps.serve.store.shutil.rmtree", remove)
    assert isinstance(job.future.exception(PATIENCE_S), FileNotFoundError)
    assert not list(place.glob(f"{name}*"))
    assert capfd.readouterr().err == ""


# ------------------------------------------------------------------------------------------------------------ answers


@pytest.fixture(scope="module")
def service():
    return HandService()


def predict(service, query, folder):
    folder.mkdir(exist_ok=True)
    return service.predict(query, folder, lambda step: None)


@pytest.fixture(scope="module")
def result(service, photo, tmp_path_factory):
    """The example's hands; do not change them."""
    return predict(service, Query(photo), tmp_path_factory.mktemp("result"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """The example, as a user's file."""
    path = tmp_path_factory.mktemp("photos") / "my photo.png"
    save_picture(path, example())
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


def test_a_result_has_every_hand_in_the_picture_s_camera(result):
    assert sorted(hand.side for hand in result.hands) == ["left", "right"]
    assert result.note.startswith("2 hands in ")
    image = check_files(result.folder / "hands.glb", result.folder / "hands.json")
    assert (image["file"], image["K_from"], image["K_px"][0][0]) == ("my photo.png", "default", 960)
    assert cv2.imread(str(result.folder / "view.jpg")).shape == example().shape


def test_steps_are_told_as_they_come(service, photo, tmp_path):
    steps = []
    service.predict(Query(photo), tmp_path, steps.append)
    assert steps == ["Reading the picture", "Finding hands", "Drawing"]


def test_depth_and_camera_are_used(service, photo, tmp_path):
    depth = tmp_path / "depth.png"
    cv2.imwrite(str(depth), np.full(example().shape[:2], 3200, np.uint16))
    query = Query(photo, depth, 0.0002, (800.0, 800.0, 479.5, 299.5), "fit")
    result = predict(service, query, tmp_path / "out")
    assert {hand.distance_source for hand in result.hands} == {"sensor"}
    assert "as you gave it" in result.note
    assert result.hands[0].K_px[0, 0] == 800
    for hand in result.hands:
        assert abs(hand.joints_cam_m[:, 2].mean() - 0.64) < 0.04


def test_no_hand_is_a_result_and_a_hand_can_be_added_by_a_box(service, result, tmp_path):
    save_picture(tmp_path / "grey.png", np.full((100, 120, 3), 128, np.uint8))
    empty = predict(service, Query(tmp_path / "grey.png"), tmp_path / "out")
    assert empty.note.startswith("No hand was found")
    assert (empty.hands, (empty.folder / "hands.glb").exists()) == ([], False)
    assert json.loads((empty.folder / "hands.json").read_text())["images"][0]["hands"] == []
    service.add_hand(empty, (20, 20, 80, 90))
    assert (len(empty.hands), empty.version) == (1, 2)
    check_files(empty.folder / "hands.glb", empty.folder / "hands.json")
    for box in ((5, 5, 5, 50), (500, 500, 600, 600)):
        with pytest.raises(InputError, match="box"):
            service.add_hand(empty, box)


def test_a_moved_joint_takes_the_hand_along_and_can_be_put_back(service, photo, tmp_path):
    result = predict(service, Query(photo), tmp_path / "out")
    before = [hand.joints_px.copy() for hand in result.hands]
    place = before[0][8] + [40.0, 30.0]
    service.move_joints(result, 0, {8: tuple(place)})
    moved = result.hands[0].joints_px
    assert np.linalg.norm(moved[8] - place) < 4
    assert np.linalg.norm(moved[9:] - before[0][9:], axis=1).mean() < 10  # the other fingers stay
    assert (result.hands[1].joints_px == before[1]).all()
    assert (result.version, result.points) == (2, [{8: tuple(place)}, {}])
    image = check_files(result.folder / "hands.glb", result.folder / "hands.json")
    np.testing.assert_allclose(image["hands"][0]["joints_px"], moved, atol=1e-3)
    service.move_joints(result, 0, {})
    assert (result.hands[0].joints_px == before[0]).all()
    for index, points in ((2, {}), (-1, {}), (0, {21: (5.0, 5.0)}), (0, {8: (1e9, 0.0)})):
        with pytest.raises(InputError):
            service.move_joints(result, index, points)


def test_weights_give_a_choice_of_methods(service, photo, tmp_path):
    assert (service.methods, service.default) == (("fit",), "fit")
    save_checkpoint(tmp_path / "best", UTNet(ModelConfig(preset="ti")), Config(model=ModelConfig(preset="ti")))
    both = HandService(tmp_path / "best")
    assert (both.methods, both.default) == (("auto", "both", "network", "fit"), "network")
    results = {method: predict(both, Query(photo, method=method), tmp_path / method) for method in both.methods}
    made_by = {method: {hand.method for hand in result.hands} for method, result in results.items()}
    assert made_by == {"auto": {"network"}, "both": {"both"}, "network": {"network"}, "fit": {"fit"}}
    assert [both.takes_landmarks(result) for result in results.values()] == [False, True, False, True]


def test_bad_uploads_are_told_in_a_line_without_folders(service, photo, tmp_path):
    (tmp_path / "bad.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.full((20, 30), 500, np.uint16))
    header = b"IHDR" + (20000).to_bytes(4) * 2 + b"\x08\x02\0\0\0"
    chunk = (13).to_bytes(4) + header + zlib.crc32(header).to_bytes(4)
    (tmp_path / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + bytes(4) + b"IDAT" + bytes(4))
    out = tmp_path / "out"
    out.mkdir()
    for query, word in (
        (Query(tmp_path / "bad.png"), "bad.png"),
        (Query(tmp_path / "empty.png"), "empty"),
        (Query(tmp_path / "huge.png"), "megapixels"),
        (Query(photo, tmp_path / "bad.png"), "bad.png"),
        (Query(photo, small), "30x20"),
        (Query(photo, small, None), "depth"),
        (Query(photo, camera=(800.0, None, 1.0, 1.0)), "camera"),
        (Query(photo, camera=(-1.0, 1.0, 1.0, 1.0)), "camera"),
    ):
        with pytest.raises(InputError, match=word) as refused:
            predict(service, query, out)
        assert str(tmp_path) not in str(refused.value)
        assert not list(out.iterdir())


def test_boxes_are_drawn_where_they_are(result):
    image, hands = example(), result.hands
    drawn = draw_boxes(image, hands)
    for hand in hands:
        x0, y0, x1, y1 = np.rint(hand.box_px).astype(int)
        changed = (drawn != image).any(2)
        assert changed[y1, x0:x1].mean() > 0.95
        assert changed[y0:y1, x1].mean() > 0.95
    assert (draw_boxes(image, []) == image).all()
    assert len(scene_glb(hands)) < 500_000


def test_a_smaller_picture_shows_the_same_hands(result):
    image, hands = example(), result.hands
    same, kept = shrink(image, hands, 960)
    assert same is image
    assert kept == hands
    small, shrunk = shrink(image, hands, 480)
    assert small.shape == (300, 480, 3)
    for hand, other in zip(hands, shrunk, strict=True):
        np.testing.assert_allclose(other.joints_px, (hand.joints_px + 0.5) / 2 - 0.5)
        projected = other.joints_cam_m @ other.K_px.T
        np.testing.assert_allclose(projected[:, :2] / projected[:, 2:], other.joints_px, atol=1e-6)
    half = cv2.resize(draw_boxes(image, hands), (480, 300), interpolation=cv2.INTER_AREA)
    assert np.abs(draw_boxes(small, shrunk).astype(int) - half).mean() < 4


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
        assert "without a password" in capsys.readouterr().err
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
from utnet.cli.main import main
main()
"""


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def begin(place):
    """A running page: the process, its port and the file of its standard error."""
    errors, port = place / "errors.txt", free_port()
    with errors.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", _WATCHED, "serve", "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "TMPDIR": str(place)},
            text=True,
        )
    line = process.stdout.readline()
    assert f"http://127.0.0.1:{port}/" in line, errors.read_text()
    return process, port, errors


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running page: its address, its port, its temporary folder and the file that names its connections elsewhere."""
    place = tmp_path_factory.mktemp("serve")
    process, port, errors = begin(place)
    try:
        (folder,) = place.glob("utnet-serve-*")
        yield f"http://127.0.0.1:{port}/", port, folder, errors
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert not folder.exists()
        assert not errors.read_text(), errors.read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_an_upload_becomes_hands_and_files(server, photo):
    """Without the browser: what the page's script does."""
    visitor = Visitor(server[1])
    key = visitor.start(visitor.upload(photo.read_bytes(), "my%20photo.png"), method="fit")
    state = visitor.state(key)
    assert sorted(hand["side"] for hand in state["hands"]) == ["left", "right"]
    address = f"/api/pictures/{key}"
    _, headers, data = visitor.ask("GET", f"{address}/overlay.jpg")
    assert headers["content-type"] == "image/jpeg"
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == example().shape
    x, y = state["hands"][0]["joints_px"][8]
    status, _, body = visitor.ask("POST", f"{address}/edits", {"hand": 0, "points": {"8": [x + 9, y]}})
    assert (status, json.loads(body)["version"]) == (200, 2)
    status, _, body = visitor.ask("POST", f"{address}/edits", {"box": [100, 100, 300, 300]})
    assert (status, len(json.loads(body)["hands"])) == (200, 3)
    assert json.loads(visitor.ask("GET", f"{address}/hands.json")[2])["images"][0]["file"] == "my photo.png"
    assert len(list(server[2].rglob("*.png"))) == 1


def test_sigterm_ends_it_in_the_middle_of_everything(tmp_path):
    """With open connections, a half-sent upload and a picture that is worked on; nothing is left."""
    process, port, errors = begin(tmp_path)
    try:
        half = socket.create_connection(("127.0.0.1", port))
        half.sendall(b"POST /api/files HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9999\r\n\r\nabc")
        visitor = Visitor(port)
        large = np.random.default_rng(0).integers(0, 255, (3000, 4000, 3), np.uint8)
        visitor.start(visitor.upload(cv2.imencode(".jpg", large)[1].tobytes()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        half.close()
        assert not list(tmp_path.glob("utnet-serve-*"))
        assert "Traceback" not in errors.read_text()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


# ------------------------------------------------------------------------------------------------------------ browser

_NOTE = "document.querySelector('#status').innerText"
_WATCH_PROGRESS = """
new MutationObserver(changes => { window.hasShownProgress ||= changes.some(change => !change.target.hidden) })
    .observe(document.querySelector('#progress'), {attributes: true, attributeFilter: ['hidden']})
"""


def colored(png):
    """The share of a picture's pixels that are neither grey nor white: the hands' colours."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR).astype(int)
    return (np.ptp(pixels, axis=2) > 20).mean()


def canvas_with_hands(page, *, seconds=PATIENCE_S):
    """The 3D view, once hands can be seen in it."""
    end = time.monotonic() + seconds
    while colored(picture := page.screenshot("#scene canvas")) < 0.02:
        assert time.monotonic() < end, "no hands in the 3D view"
        page.pump(0.2)
    return picture


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")
def test_the_page_in_a_browser(server, photo, tmp_path):
    """As a user: choose a picture, look, turn, download, move a joint, put it back, draw a box; a file that is no
    picture, the camera, the example."""
    address, _, _, errors = server
    with Browser(tmp_path / "browser") as page:
        page.goto(address)
        page.wait("document.querySelector('#method')?.options.length > 0")
        assert page.js(_NOTE) == "Drop a picture to begin."
        page.js(_WATCH_PROGRESS)
        page.upload("#file", photo)
        page.wait(f"{_NOTE}.startsWith('2 hands in')")
        assert page.js("window.hasShownProgress")
        page.wait("document.querySelector('#progress').hidden")
        assert page.js("document.querySelector('#view').naturalWidth") == 960
        rows = page.js("[...document.querySelectorAll('#hands tbody tr')].map(row => row.innerText)")
        assert sorted(row.split()[1] for row in rows) == ["left", "right"]
        assert all("its size" in row for row in rows)

        before = canvas_with_hands(page)
        page.drag("#scene canvas", 120, 40)
        end = time.monotonic() + PATIENCE_S
        while canvas_with_hands(page) == before:
            assert time.monotonic() < end, "the 3D view does not turn"
            page.pump(0.2)

        page.click("#glb")
        page.click("#json")
        check_files(page.downloaded("hands.glb"), page.downloaded("hands.json"))
        page.click("#jpg")
        assert cv2.imread(str(page.downloaded("overlay.jpg"))).shape == (600, 960, 3)

        grip = ".grip[data-hand='0'][data-joint='8']"
        place = page.js(f'document.querySelector("{grip}").getBoundingClientRect().x')
        page.drag(grip, 20, 6)
        page.wait("!document.querySelector('#undo').disabled && document.querySelector('#progress').hidden")
        assert page.js("document.querySelectorAll('#joints .moved').length") == 1
        assert page.js("document.querySelector('#view').src").rpartition("=")[2] != "1"  # the mesh was drawn again
        assert abs(page.js(f'document.querySelector("{grip}").getBoundingClientRect().x') - place - 20) < 2
        page.click("#undo")
        page.wait("document.querySelector('#undo').disabled && document.querySelector('#progress').hidden")
        assert abs(page.js(f'document.querySelector("{grip}").getBoundingClientRect().x') - place) < 2
        page.click("#add")
        page.drag("#joints", 80, 90)
        page.wait("document.querySelectorAll('#hands tbody tr').length === 3")
        page.wait("document.querySelector('#progress').hidden")

        bad = tmp_path / "bad.png"
        bad.write_text("no picture")
        page.upload("#file", bad)
        page.wait(f"{_NOTE}.startsWith('bad.png: not a picture')")
        assert not page.js("document.querySelector('#drop').hidden")
        assert page.js("document.querySelector('#hands').hidden && document.querySelector('#downloads').hidden")
        assert page.complaints == []

        page.click("#camera")
        page.wait("document.querySelector('#video').videoWidth > 0")
        page.click("#shoot")
        page.wait(f"{_NOTE}.startsWith('No hand was found')")

        page.click("#again")
        page.wait("!document.querySelector('#drop').hidden")
        page.click("#example")
        page.wait(f"{_NOTE}.startsWith('2 hands in')")

        assert page.requests
        assert [request for request in page.requests if not request.startswith(address)] == []
        assert page.complaints == []
    assert "CONNECT" not in errors.read_text()


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on this machine")
def test_the_page_on_a_telephone(server, photo, tmp_path):
    with Browser(tmp_path / "browser", size=(390, 844), scale=2, mobile=True) as page:
        page.goto(server[0])
        page.wait("document.querySelector('#method')?.options.length > 0")
        assert page.js("document.documentElement.scrollWidth") == 390
        page.upload("#file", photo)
        page.wait(f"{_NOTE}.startsWith('2 hands in')")
        canvas_with_hands(page)
        page.js("document.querySelector('#options').open = true")
        assert page.js("document.documentElement.scrollWidth") == 390
        parts = "[...document.querySelectorAll('button, a, input, table, canvas, #view')]"
        boxes = f"{parts}.map(part => part.getBoundingClientRect())"
        assert page.js(f"{boxes}.every(box => box.left >= 0 && box.right <= 390)")
        assert page.complaints == []
