"""`utnet view`: predictions with their recording, in viser's scene."""

import importlib.metadata
import importlib.util
import json
from dataclasses import replace

import numpy as np
import pytest

from utnet.apps.view import reading
from utnet.apps.view.moments import Moments
from utnet.cli.main import main
from utnet.errors import InputError
from utnet.geometry import intrinsics, project
from utnet.hand import NumpyHandModel
from utnet.io.recordings import Options
from utnet.predict.files import PredictionsFile, hand_record, image_record
from utnet.predict.hand import Hand
from utnet.synth.sequence import draw_sequence, write_recording
from utnet.types import HandParams

K, SIZE, NUM = intrinsics(150.0, 150.0, 79.5, 59.5), (160, 120), 4


def hand(i: int) -> Hand:
    """A right hand at rest, which moves by a centimetre a frame; in the third it is bridged."""
    model = NumpyHandModel.open()
    params = HandParams.from_axis_angle(np.zeros(48), transl_m=np.array([0.01 * i, 0, 0.5]))
    one = model(params.global_orient[None], params.hand_pose[None], params.betas[None])
    joints = one.joints_m[0] + params.transl_m
    return Hand(
        side="right", score=0.9, box_px=np.array([0, 0, 9, 9.0]), joints_cam_m=joints, joints_px=project(joints, K),
        vertices_cam_m=one.vertices_m[0] + params.transl_m, faces=model.faces, params=params, K_px=K,
        distance_source="sensor", method="fit", track=1, valid=i != 2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """predictions.json of a drawn recording whose camera moves along x."""
    folder = tmp_path_factory.mktemp("view")
    write_recording(folder / "clip", draw_sequence(4_100_003, NUM, K, SIZE), K)
    with PredictionsFile(folder / "predictions.json", {}) as file:
        head = image_record(str(folder / "clip"), SIZE, K, "recording", {"overlay": None})
        with file.video(head | {"fps": 30.0}, {"arrays": None}) as add:
            for i in range(NUM):
                T = np.eye(4)
                T[0, 3] = 0.1 * i
                add({"index": i, "time_s": i / 30, "T_world_cam": T.tolist(), "hands": [hand_record(hand(i))]})
    return folder


def test_moments_hold_hands_depth_and_paths_in_the_world(predicted):
    with Moments() as moments:
        assert reading.fill(moments, predicted, None, Options()) == []
        assert len(moments) == NUM
        moment, (shown,) = moments[2], moments.hands(2)
        np.testing.assert_allclose(shown.vertices_cam_m, hand(2).vertices_cam_m, atol=2e-6)
        assert (shown.name, shown.valid) == ("right_1", False)
        pixels = project(moment.points_cam_m.astype(float), K)
        np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-3)  # points lie on their pixels' rays
        assert moment.rgb.shape == (120, 160, 3)
        x, y = np.rint(pixels).astype(int).T
        np.testing.assert_array_equal(moment.colors, moment.rgb[y, x])
        np.testing.assert_allclose(np.diff(moments.wrists()["right_1"][:, 0]), 0.11, atol=1e-6)


def test_pictures_are_joined_by_no_path_and_missing_ones_are_named(predicted, tmp_path):
    tree = json.loads((predicted / "predictions.json").read_text())
    (video,) = tree["videos"]
    camera = {"width": video["width"], "height": video["height"], "K_px": video["K_px"], "K_from": "given"}
    files = {"depth": None, "overlay": None, "arrays": None}
    hands = [[{**one, "track": None} for one in frame["hands"]] for frame in video["frames"]]
    pictures = [{"file": f"{i}.jpg", **camera, **files, "hands": own} for i, own in enumerate(hands)]
    (tmp_path / "predictions.json").write_text(json.dumps({**tree, "images": pictures, "videos": []}))
    with Moments() as moments:
        (remark,) = reading.fill(moments, tmp_path, None, Options())
        assert f"0.jpg: not found ({NUM} of {NUM})" in remark
        assert len(moments.hands(0)) == 1
        assert moments.wrists() == {}


def test_hands_are_shown_without_their_recording_and_long_ones_thinned(predicted, tmp_path, monkeypatch):
    text = (predicted / "predictions.json").read_text().replace(str(predicted / "clip"), "gone")
    (tmp_path / "predictions.json").write_text(text)
    monkeypatch.setattr(reading, "MOST_MOMENTS", 2)
    with Moments() as moments:
        (remark,) = reading.fill(moments, tmp_path, None, Options())
        assert "gone" in remark
        assert [moment.time_s for moment in moments] == pytest.approx([0, 2 / 30], abs=1e-6)
        assert moments[0].rgb is None
    with Moments() as moments:
        reading.fill(moments, tmp_path / "predictions.json", predicted / "clip", Options())
        assert [moments[i].rgb is None for i in range(2)] == [False, False]


ABSURD = {
    "hand": [
        {"side": "up"}, {"side": ["right"]}, {"track": "../x"}, {"joints_cam_m": [[0, 0, 1]]}, {"betas": [1e300] * 10},
        {"joints_cam_m": [[0, 0, float("nan")]] * 21}, {"joints_cam_m": None}, {"hand_pose_axis_angle": [1e400] * 45},
        {"global_orient_axis_angle": "abc"},
    ],
    "frame": [
        {"time_s": float("inf")}, {"time_s": "x"}, {"T_world_cam": [[1]]}, {"T_world_cam": [[float("nan")] * 4] * 4},
        {"hands": 5}, {"hands": [7]}, {"index": "x"},
    ],
    "video": [
        {"width": 0}, {"height": 10**400}, {"width": None}, {"K_px": [[0] * 3] * 3}, {"K_px": [[float("nan")] * 3] * 3},
        {"frames": 3}, {"frames": [None]}, {"file": 5}, {"file": None},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("place", "change"), [(place, one) for place, changes in ABSURD.items() for one in changes])
def test_absurd_numbers_are_one_line(predicted, tmp_path, place, change):
    """With the recording and without it."""
    for file in ("gone", None):
        tree = json.loads((predicted / "predictions.json").read_text())
        (video,) = tree["videos"]
        video["file"] = file or video["file"]
        {"video": video, "frame": video["frames"][1], "hand": video["frames"][1]["hands"][0]}[place].update(change)
        (tmp_path / "predictions.json").write_text(json.dumps(tree))
        with Moments() as moments, pytest.raises(InputError, match=r"predictions\.json") as caught:
            reading.fill(moments, tmp_path, None, Options())
        assert "\n" not in str(caught.value)


def test_the_scene_follows_the_slider(predicted):
    pytest.importorskip("viser")
    from utnet.apps.view.scene import RecordingScene

    with Moments() as moments:
        reading.fill(moments, predicted, None, Options())
        last = moments[NUM - 1]
        moments.add(replace(last, hands={}, points_cam_m=None))
        scene = RecordingScene(moments)
        try:
            assert scene.address.startswith("http://127.0.0.1:")
            names = {f"/camera/hands/right_1/{part}" for part in ("mesh", "joints", "bones")}
            assert scene.drawn == names | {"/camera/depth", "/camera/picture"}
            scene.slider.value = NUM
            scene.show(NUM)
            assert scene.drawn == {"/camera/picture"}
        finally:
            scene.close()


def test_pages_of_other_sites_cannot_read_the_scene(predicted):
    pytest.importorskip("viser")
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    from utnet.apps.view.scene import RecordingScene

    with Moments() as moments:
        reading.fill(moments, predicted, None, Options())
        scene = RecordingScene(moments)
        try:
            address, port = scene.address.replace("http", "ws"), scene.server.get_port()
            own = {"subprotocols": [f"viser-v{importlib.metadata.version('viser')}"], "max_size": None}
            for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
                with connect(address, origin=origin, **own) as socket:
                    assert socket.recv()
            for origin in ("http://elsewhere.example", f"http://elsewhere.example:{port}", "null", "http://127.0.0.1"):
                with pytest.raises(InvalidStatus, match="403"):
                    connect(address, origin=origin, **own)
        finally:
            scene.close()


def test_bad_requests_are_one_line(tmp_path, capsys, monkeypatch):
    def message(*words):
        with pytest.raises(SystemExit) as ended:
            main(["view", *map(str, words)])
        assert ended.value.code == 2
        return capsys.readouterr().err

    assert "--port" in message(tmp_path, "--port", "0")
    damaged = tmp_path / "predictions.json"
    video = {"file": "x", "K_from": "given", "K_px": [], "frames": [{"index": 0}], "width": 1, "height": 1}
    damaged.write_text(json.dumps({"schema": "utnet-hands", "version": 3, "images": [], "videos": [video]}))
    if importlib.util.find_spec("viser") is not None:
        assert "predictions.json" in message(damaged)
        assert "no such file" in message(tmp_path / "nothing.bag")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert "utnet[viewer]" in message(damaged)
