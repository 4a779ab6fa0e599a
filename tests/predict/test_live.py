"""Live: a RealSense (a fake device, and the SDK's own playback), the tracker's loop, messages to other programs."""

import json
import socket
import sys
import threading
import time
import types

import cv2
import numpy as np
import pytest

from support.waiting import PATIENCE_S
from utnet.cli.main import main
from utnet.errors import InputError
from utnet.geometry import intrinsics
from utnet.io.recordings import Options
from utnet.io.recordings.realsense import RealSenseFrames
from utnet.io.videos import Frame
from utnet.predict.live import HandTracker, NewestFrames
from utnet.predict.predictor import Predictor
from utnet.synth.sequence import draw_sequence, write_recording

K = intrinsics(300.0, 300.0, 159.5, 119.5)


class FakeSdk(types.SimpleNamespace):
    """pyrealsense2 with a device that gives `shots`: (milliseconds, rgb, uint16 depth or None)."""

    def __init__(self, shots, offset_m=0.0, fails=""):
        def lens(f):
            sizes = {"width": 64, "height": 48, "fx": f, "fy": f, "ppx": 31.5, "ppy": 23.5}
            return types.SimpleNamespace(**sizes, model="distortion.brown_conrady", coeffs=[0.0] * 5)

        to_color = types.SimpleNamespace(rotation=[1, 0, 0, 0, 1, 0, 0, 0, 1], translation=[offset_m, 0, 0])
        stream = types.SimpleNamespace(
            as_video_stream_profile=lambda: stream,
            get_intrinsics=lambda: lens(60.0),
            get_extrinsics_to=lambda _: to_color,
        )
        sensor = types.SimpleNamespace(get_depth_scale=lambda: 0.0005)
        device = types.SimpleNamespace(first_depth_sensor=lambda: sensor)
        profile = types.SimpleNamespace(get_stream=lambda _: stream, get_device=lambda: device)
        left = iter(shots)

        def image(pixels, time_ms=0.0):
            return pixels is not None and types.SimpleNamespace(get_data=lambda: pixels, get_timestamp=lambda: time_ms)

        def wait_for_frames(_):
            shot = next(left, None)
            if shot is None:
                raise RuntimeError("Frame didn't arrive within 5000")
            time_ms, rgb, depth = shot
            color, depth = image(rgb, time_ms), image(depth)
            return types.SimpleNamespace(get_color_frame=lambda: color, get_depth_frame=lambda: depth)

        def start(_):
            if fails:
                raise RuntimeError(fails)
            return profile

        pipeline = types.SimpleNamespace(start=start, wait_for_frames=wait_for_frames, stop=lambda: None)
        names = {"stream": types.SimpleNamespace(depth=1, color=2), "format": types.SimpleNamespace(z16=1, rgb8=2)}
        config = types.SimpleNamespace(enable_stream=lambda *_: None)
        super().__init__(pipeline=lambda: pipeline, config=lambda: config, **names)


def shots(num=3):
    depth = np.full((48, 64), 1200, np.uint16)
    return [(1000 + 33.3 * i, np.full((48, 64, 3), 50 + i, np.uint8), None if i == 1 else depth) for i in range(num)]


def test_a_realsense_gives_colour_and_registered_depth(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrealsense2", FakeSdk(shots(), offset_m=0.05))
    device = RealSenseFrames(Options())
    got = list(device)
    assert [frame.rgb[0, 0, 0] for frame in got] == [50, 51, 52]
    np.testing.assert_allclose([frame.time_s for frame in got], [0, 0.0333, 0.0666], atol=1e-6)
    assert got[1].depth_m is None
    assert got[0].depth_m[20, 30] == pytest.approx(0.6)  # half a millimetre a unit
    assert (got[0].depth_m[20, :4] == 0).all()  # 60 * 0.05 / 0.6 = 5 pixels to the right
    assert "arrive" in device.incomplete


def test_no_realsense_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyrealsense2", FakeSdk([], fails="No device connected"))
    with pytest.raises(InputError, match="plugged in"):
        RealSenseFrames(Options())
    monkeypatch.setitem(sys.modules, "pyrealsense2", None)
    with pytest.raises(InputError, match="realsense"):
        RealSenseFrames(Options())


def test_the_sdks_own_recording_is_read_by_it_and_by_us(tmp_path):
    rs = pytest.importorskip("pyrealsense2", exc_type=ImportError)
    from support.realsense_device import record
    from utnet.io.recordings import open_recording

    path = record(rs, tmp_path / "clip.db3", num=4, offset_m=0.03)
    ours = list(open_recording(path))
    theirs = list(RealSenseFrames(Options(), file=path))
    assert len(ours) == 4
    assert 0 < len(theirs) <= 4
    np.testing.assert_allclose(theirs[0].K_px, ours[0].K_px)
    by_level = {int(frame.rgb[0, 0, 0]): frame for frame in ours}
    for frame in theirs:
        same = by_level[int(frame.rgb[0, 0, 0])]
        np.testing.assert_allclose(frame.depth_m, same.depth_m, atol=1e-4)


def test_the_newest_frame_is_taken_and_late_ones_are_dropped():
    def camera():
        for i in range(20):
            time.sleep(0.002)
            yield Frame(i, float(i), np.zeros((2, 2, 3), np.uint8))
        raise InputError("unplugged")

    frames, seen = NewestFrames(camera()), []

    def take():
        for frame in frames:
            seen.append(frame.index)
            time.sleep(0.01)

    with pytest.raises(InputError, match="unplugged"):
        take()
    assert seen == sorted(set(seen))
    assert seen[-1] == 19
    assert frames.dropped == 20 - len(seen)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("live") / "clip"
    return folder, write_recording(folder, draw_sequence(4_100_003, 4, K, (320, 240)), K)


def run(*words):
    try:
        main(["live", *map(str, words)])
    except SystemExit as error:
        return error.code
    return 0


def test_messages_as_lines_and_as_datagrams_are_the_same(clip, tmp_path):
    folder, truth = clip
    assert run(folder, "--out", tmp_path / "hands.jsonl", "--method", "fit") == 0
    lines = [json.loads(line) for line in (tmp_path / "hands.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == [0, 1, 2, 3]
    for line, joints in zip(lines, truth, strict=True):
        (hand,) = line["hands"]
        T, wrist = np.array(hand["T_cam_wrist"]), np.array(hand["joints_wrist_m"])
        np.testing.assert_allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3), atol=1e-5)
        in_camera = wrist @ T[:3, :3].T + T[:3, 3]
        assert np.linalg.norm(in_camera - joints, axis=-1).mean() < 0.03
        assert (hand["valid"], hand["side"], hand["distance_source"]) == (True, "right", "sensor")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10)
        address = f"127.0.0.1:{receiver.getsockname()[1]}"
        assert run(folder, "--to", "udp", "--address", address, "--method", "fit") == 0
        sent = [json.loads(receiver.recv(65_536)) for _ in lines]
    for a, b in zip(lines, sent, strict=True):
        assert a["hands"] == b["hands"]


def test_the_tracker_takes_frames_and_gives_tracks(clip):
    from utnet.io.recordings import open_recording

    tracker = HandTracker(Predictor(method="fit"))
    tracked = list(tracker(open_recording(clip[0])))
    assert len({one.hands[0].track for one in tracked}) == 1
    assert all(one.latency_s > 0 for one in tracked)


def test_following_ahead_gives_the_hands_of_one_frame_after_the_other(clip):
    from utnet.io.recordings import open_recording

    predictor = Predictor(method="fit")
    frames = list(open_recording(clip[0]))
    one = HandTracker(predictor)
    expected = [one.update(f.rgb, f.time_s, depth_m=f.depth_m, K_px=f.K_px) for f in frames]
    for tracked, hands in zip(HandTracker(predictor)(frames), expected, strict=True):
        for a, b in zip(tracked.hands, hands, strict=True):
            assert (a.track, a.side, a.score) == (b.track, b.side, b.score)
            np.testing.assert_array_equal(a.joints_cam_m, b.joints_cam_m)


def test_what_the_source_of_frames_raises_comes_after_its_frames():
    def broken():
        yield Frame(0, 0.0, np.zeros((64, 64, 3), np.uint8))
        raise InputError("unplugged")

    tracked = HandTracker(Predictor(method="fit"))(broken())
    assert next(tracked).hands == ()
    with pytest.raises(InputError, match="unplugged"):
        next(tracked)


def test_a_camera_that_stalls_does_not_keep_its_follower():
    stalled = threading.Event()

    def source():
        yield Frame(0, 0.0, np.zeros((64, 64, 3), np.uint8))
        stalled.wait()

    tracked = HandTracker(Predictor(method="fit"))(NewestFrames(source()))
    assert next(tracked).hands == ()
    closing = threading.Thread(target=tracked.close)
    closing.start()
    closing.join(PATIENCE_S)
    is_late = closing.is_alive()
    stalled.set()
    assert not is_late


@pytest.mark.parametrize("words", [("nothing.mp4",), ("0", "--to", "udp", "--address", "here")])
def test_bad_requests_are_one_line(words, capsys):
    assert run(*words) == 2
    assert "utnet: " in capsys.readouterr().err


def test_the_page_shows_the_newest_frame_with_its_hands():
    """One frame in, the JPEG of the stream out: the picture, and the hands drawn over it."""
    pytest.importorskip("uvicorn")
    import http.client

    from support.hands import SIZE_PX, random_hand
    from utnet.apps.live_page import LivePage
    from utnet.predict.live import TrackedFrame

    rgb = np.full((*SIZE_PX[::-1], 3), 120, np.uint8)
    hand = random_hand(np.random.default_rng(0))
    with LivePage(port=0) as page:
        host = page.address.split("/")[2]
        connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
        connection.request("GET", "/")
        assert b"/stream" in connection.getresponse().read()
        connection = http.client.HTTPConnection(host, timeout=PATIENCE_S)
        connection.request("GET", "/stream")
        page.show(TrackedFrame(Frame(0, 0.0, rgb), (hand,), 0.02))
        answer = connection.getresponse()
        assert answer.getheader("content-type").startswith("multipart/x-mixed-replace")
        head = {}
        while line := answer.readline().strip():
            name, _, value = line.partition(b": ")
            head[name] = value
        data = np.frombuffer(answer.read(int(head[b"Content-Length"])), np.uint8)
        shown = cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1].astype(int)
        connection.close()
    changed = np.abs(shown - 120).max(-1) > 25
    x, y = np.rint(hand.joints_px[9]).astype(int)
    assert changed[y - 2 : y + 3, x - 2 : x + 3].any()  # a hand is here
    assert not changed[:8].any()  # and nothing above
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="--port"):
        LivePage(port=taken.getsockname()[1])
