"""`utnet predict` on videos and cameras."""

import os
import signal

import cv2
import numpy as np
import pytest
import trimesh

from support.predict_command import HEIGHT, WIDTH, picture, predict, read, video
from support.skinned import Skinned
from utnet.io.videos import VideoReader

pytestmark = pytest.mark.usefixtures("nothing_ships")


def test_a_video_gives_frames_an_overlay_and_what_else_is_asked(detector, tmp_path, capsys):
    clip, out = video(tmp_path / "clip.mp4", 12), tmp_path / "out"
    assert predict(clip, "--out", out, "--npz", "--mesh", "ply") == 0
    assert "1 video (12 frames), 12 hands" in capsys.readouterr().out
    (record,) = read(out)["videos"]
    assert [frame["index"] for frame in record["frames"]] == list(range(12))
    np.testing.assert_allclose([frame["time_s"] for frame in record["frames"]], np.arange(12) / 25, atol=1e-4)
    assert (record["fps"], record["smoothed"], record["K_from"]) == (25.0, True, "default")
    assert {frame["hands"][0]["track"] for frame in record["frames"]} == {3}
    assert all((out / frame["hands"][0]["mesh"]).is_file() for frame in record["frames"])
    with VideoReader(out / record["overlay"]) as reader:
        assert len(list(reader)) == 12
    arrays = np.load(out / record["arrays"])
    np.testing.assert_array_equal(arrays["frame"], np.arange(12))
    assert "vertices_cam_m" not in arrays
    assert arrays["joints_cam_m"].shape == (12, 21, 3)


def test_videos_are_smoothed_unless_raw_is_asked(detector, tmp_path):
    clip = video(tmp_path / "clip.mp4", 20)

    def jitter(out, *options):
        predict(clip, "--out", out, "--no-overlay", *options)
        assert sorted(p.name for p in out.iterdir()) == ["predictions.json"]  # no meshes of videos unless asked
        joints = [frame["hands"][0]["joints_cam_m"] for frame in read(out)["videos"][0]["frames"]]
        return np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1).mean()

    assert jitter(tmp_path / "a") < 0.5 * jitter(tmp_path / "b", "--raw")


def test_a_video_cut_short_is_done_as_far_as_it_goes(detector, tmp_path, capsys):
    clip, out = video(tmp_path / "clip.mp4", 60), tmp_path / "out"
    data = clip.read_bytes()
    clip.write_bytes(data[: int(len(data) * 0.9)])
    assert predict(clip, "--out", out) == 1
    tree = read(out)
    num = len(tree["videos"][0]["frames"])
    assert 0 < num < 58
    assert "cut short" in tree["problems"][0]["why"] or "damaged" in tree["problems"][0]["why"]
    assert "clip.mp4" in capsys.readouterr().err
    with VideoReader(out / "clip_overlay.mp4") as reader:
        assert len(list(reader)) == num


def test_seconds_end_a_video_in_good_order(detector, tmp_path):
    assert predict(video(tmp_path / "clip.mp4", 20), "--out", tmp_path / "out", "--seconds", "0.2") == 0
    assert len(read(tmp_path / "out")["videos"][0]["frames"]) == 5


def test_a_camera_runs_until_ctrl_c(detector, tmp_path, monkeypatch, capsys):
    class Camera:
        def __init__(self, number):
            assert number == 5

        def isOpened(self):
            return True

        def get(self, what):
            return 30.0

        def read(self):
            return True, np.full((HEIGHT, WIDTH, 3), 200, np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.chdir(tmp_path)
    detector.at_call = (4, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert predict("5", "--out", "out") == 0
    (record,) = read(tmp_path / "out")["videos"]
    assert (record["file"], len(record["frames"])) == ("camera 5", 4)
    assert (tmp_path / "out" / "camera_5_overlay.mp4").is_file()


def test_an_animated_glb_a_video_and_a_scene_a_picture(detector, tmp_path):
    out = tmp_path / "out"
    given = [picture(tmp_path / "a.png"), video(tmp_path / "v.mp4", frames=4)]
    assert predict(*given, "--out", out, "--mesh", "animated", "--no-overlay") == 0
    tree = read(out)
    assert tree["images"][0]["hands"][0]["mesh"] == "a_hands.glb"
    assert tree["videos"][0]["mesh"] == "v_hands.glb"
    assert set(trimesh.load(out / "a_hands.glb").graph.nodes_geometry) == {"0_right"}
    wrists = np.array([frame["hands"][0]["joints_cam_m"][0] for frame in tree["videos"][0]["frames"]])
    file = Skinned(out / "v_hands.glb")
    for wrist, frame in zip(wrists, tree["videos"][0]["frames"], strict=True):
        place = file.node_place("right_3_wrist", frame["time_s"])[:3, 3]
        np.testing.assert_allclose(place, wrist * [1, -1, -1], atol=1e-5)
    assert predict(given[0], "--out", out, "--overwrite", "--no-overlay", "--mesh", "none") == 0
    assert [path.name for path in out.iterdir()] == ["predictions.json"]
    assert (
        predict(video(tmp_path / "e.mp4", hand=False), "--out", out, "--overwrite", "--mesh", "animated", "--npz") == 0
    )
    (record,) = read(out)["videos"]
    assert (record["mesh"], record["arrays"]) == (None, "e.npz")  # without a hand nothing is animated
    assert not list(out.glob("*.glb"))
