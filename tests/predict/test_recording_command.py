"""`utnet predict` on a recording: one video record, hands of every frame, arrays and an overlay beside it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from support import hands as known
from support.recording_files import write_numbered
from utnet.cli.main import main
from utnet.geometry import intrinsics, project
from utnet.io.recordings import Camera
from utnet.io.videos import VideoReader
from utnet.predict.drawing import draw_hands, through_lens
from utnet.synth.sequence import draw_sequence, write_recording

K = intrinsics(300.0, 300.0, 159.5, 119.5)
SIZE = (320, 240)
NUM = 6


def predict(*words):
    try:
        main(["predict", *map(str, words)])
    except SystemExit as error:
        return error.code
    return 0


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "clip"
    return folder, write_recording(folder, draw_sequence(4_100_003, NUM, K, SIZE), K)


def test_a_recording_becomes_one_record_arrays_and_an_overlay(drawn, tmp_path):
    folder, truth = drawn
    out = tmp_path / "out"
    assert predict(folder, "--out", out, "--npz", "--show-depth", "--method", "fit") == 0
    (video,) = json.loads((out / "predictions.json").read_text())["videos"]
    assert (video["K_from"], video["width"], len(video["frames"])) == ("recording", 320, NUM)
    hands = [frame["hands"][0] for frame in video["frames"]]
    assert {hand["distance_source"] for hand in hands} == {"sensor"}
    assert len({tuple(hand["betas"]) for hand in hands}) == 1
    wrists = np.array([hand["joints_cam_m"][0] for hand in hands])
    assert np.median(np.linalg.norm(wrists - truth[:, 0], axis=-1)) < 0.015
    arrays = np.load(out / "clip.npz")
    np.testing.assert_allclose(arrays["joints_cam_m"], [hand["joints_cam_m"] for hand in hands], atol=1e-5)
    with VideoReader(out / "clip_overlay.mp4") as reader:
        shapes = [frame.rgb.shape for frame in reader]
    assert shapes == [(240, 640, 3)] * NUM


def test_depth_in_another_unit_is_named_and_nothing_written(drawn, tmp_path, capsys):
    assert (
        predict(drawn[0], "--depth-scale", "1", "--out", tmp_path / "out", "--method", "fit", "--seconds", "0.1") == 2
    )
    assert "--depth-scale" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_depth_without_a_camera_is_named(drawn, tmp_path, capsys):
    shutil.copytree(drawn[0], tmp_path / "clip", ignore=shutil.ignore_patterns("intrinsics.json"))
    words = ("--out", tmp_path / "out", "--method", "fit", "--seconds", "0.05", "--no-overlay")
    assert predict(tmp_path / "clip", *words) == 0
    assert "give --K" in capsys.readouterr().err
    assert predict(tmp_path / "clip", "--K", "300,300,159.5,119.5", *words, "--overwrite") == 0
    assert "--K" not in capsys.readouterr().err


def test_a_recording_without_hands_is_done(tmp_path):
    shots = [(i / 30, np.full((48, 64, 3), 90, np.uint8), np.full((48, 64), 600, np.uint16)) for i in range(3)]
    folder = write_numbered(tmp_path / "empty", shots)
    assert predict(folder, "--out", tmp_path / "out", "--method", "fit") == 0
    (video,) = json.loads((tmp_path / "out" / "predictions.json").read_text())["videos"]
    assert [frame["hands"] for frame in video["frames"]] == [[], [], []]


def test_hands_are_drawn_on_the_distorted_picture_where_the_lens_shows_them():
    """Colours of the skeleton drawn through the lens, rectified, are those drawn on the rectified picture."""
    lens = Camera(known.K, known.SIZE_PX, "plumb_bob", (0.3, -0.1, 0.004, -0.003, 0.02))
    params = replace(known.random_params(np.random.default_rng(1)), transl_m=np.array([0.15, 0.09, 0.5]))
    hand = known.hand_of(params)  # in a corner
    shown = through_lens(hand, lens)
    assert np.abs(shown.joints_px - hand.joints_px).max() > 3
    np.testing.assert_allclose(shown.joints_px, lens.distorted_px(hand.joints_px))
    vertices_px = lens.distorted_px(project(hand.vertices_cam_m, hand.K_px))
    np.testing.assert_allclose(project(shown.vertices_cam_m, hand.K_px), vertices_px, atol=1e-6)
    np.testing.assert_allclose(shown.vertices_cam_m[:, 2], hand.vertices_cam_m[:, 2])
    blank = np.full((*known.SIZE_PX[::-1], 3), 128, np.uint8)
    straight = draw_hands(blank, [hand], "skeleton").astype(int)
    bent = draw_hands(blank, [hand], "skeleton", lens=lens)
    inside = lens.rectified(np.full(blank.shape[:2], 255, np.uint8)) == 255

    def overlap(other):
        a, b = ((np.abs(picture - 128).max(-1) > 40) & inside for picture in (straight, other))
        assert a.sum() > 500
        return (a & b).sum() / (a | b).sum()

    assert overlap(lens.rectified(bent).astype(int)) > 0.8
    assert overlap(bent.astype(int)) < 0.7
