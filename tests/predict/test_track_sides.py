"""One side a track: earlier frames are done again where it is turned; a mirrored clip gives the mirrored track."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from utnet.checkpoint import shipped_networks
from utnet.detect import Detection
from utnet.geometry import box_of, intrinsics, mirror_points, project
from utnet.predict import Predictor
from utnet.predict.live import HandTracker
from utnet.predict.recording import FirstReading
from utnet.synth.sequence import draw_sequence

pytestmark = pytest.mark.skipif(not shipped_networks(), reason="no bundled weights")
WIDTH, HEIGHT = 320, 240
K = intrinsics(300.0, 300.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
NUM = 6
WRONG = [0.97, 0.97, 0.9, 0.8, 0.7, 0.7]
"""Probability of the wrong side by the detector, a mean over frames: at first too sure to be turned."""


@dataclass
class Shot:
    index: int
    time_s: float
    rgb: np.ndarray
    depth_m: np.ndarray
    joints_cam_m: np.ndarray
    K_px: np.ndarray
    T_world_cam: None = None


@pytest.fixture(scope="module")
def clip():
    drawn = draw_sequence(4_100_007, NUM, K, (WIDTH, HEIGHT))
    return [Shot(i, t, r.rgb, r.depth_m, r.joints_cam_m, K) for i, (t, r) in enumerate(drawn)]


@pytest.fixture(scope="module")
def predictor():
    return Predictor(method="network")


def mirrored(clip):
    return [
        replace(
            shot,
            rgb=np.ascontiguousarray(shot.rgb[:, ::-1]),
            depth_m=np.ascontiguousarray(shot.depth_m[:, ::-1]),
            joints_cam_m=mirror_points(shot.joints_cam_m),
        )
        for shot in clip
    ]


def scripted(monkeypatch, clip, side, probabilities):
    """The tracker's place taken by detections of one track."""
    detections = []
    for shot, probability in zip(clip, probabilities, strict=True):
        px = project(shot.joints_cam_m, K)
        relative = shot.joints_cam_m - shot.joints_cam_m[9]
        detections.append([Detection(side, 0.9, box_of(px), px, relative, track=1, side_probability=probability)])
    for module in ("recording", "live"):
        left = iter(detections)
        monkeypatch.setattr(f"utnet.predict.{module}.LandmarkTracker", lambda *_, left=left, **__: lambda _: next(left))


def read(predictor, clip):
    reading = FirstReading(predictor, 30.0, lambda frame: (frame.K_px, "recording"))
    reading.read(clip)
    before = [frame.hands[0].side for frame in reading.frames]
    reading.give_each_track_one_side(iter(clip))
    return before, [frame.hands[0] for frame in reading.frames]


def test_a_recording_has_one_side_that_of_all_its_frames(monkeypatch, clip, predictor):
    scripted(monkeypatch, clip, "left", WRONG)
    before, hands = read(predictor, clip)
    assert (before[0], before[-1]) == ("left", "right")
    scripted(monkeypatch, clip, "right", [1.0] * NUM)
    _, expected = read(predictor, clip)
    for hand, true in zip(hands, expected, strict=True):
        assert hand.side == true.side == "right"
        np.testing.assert_allclose(hand.joints_cam_m, true.joints_cam_m, atol=1e-5)


def test_a_mirrored_recording_gives_the_mirrored_track(monkeypatch, clip, predictor):
    scripted(monkeypatch, clip, "left", WRONG)
    _, hands = read(predictor, clip)
    scripted(monkeypatch, mirrored(clip), "right", WRONG)
    _, others = read(predictor, mirrored(clip))
    for hand, other in zip(hands, others, strict=True):
        assert {hand.side, other.side} == {"right", "left"}
        assert hand.side_probability == pytest.approx(other.side_probability, abs=1e-3)
        np.testing.assert_allclose(mirror_points(other.joints_cam_m), hand.joints_cam_m, atol=1e-4)


def test_a_live_track_is_turned_once_and_its_smoothing_starts_again(monkeypatch, clip, predictor):
    scripted(monkeypatch, clip, "left", WRONG)
    tracker = HandTracker(predictor)
    smooth = [tracker.update(shot.rgb, shot.time_s, depth_m=shot.depth_m, K_px=K)[0] for shot in clip]
    (change,) = tracker.side_changes
    at = [hand.side for hand in smooth].index("right")
    assert change == (1, "right", clip[at].time_s)
    assert {hand.side for hand in smooth[at:]} == {"right"}
    scripted(monkeypatch, clip, "left", WRONG)
    tracker = HandTracker(predictor, smooth=False)
    raw = [tracker.update(shot.rgb, shot.time_s, depth_m=shot.depth_m, K_px=K)[0] for shot in clip]
    np.testing.assert_allclose(smooth[at].joints_cam_m, raw[at].joints_cam_m, atol=1e-5)
    assert np.abs(smooth[at + 1].joints_cam_m - raw[at + 1].joints_cam_m).max() > 1e-5
