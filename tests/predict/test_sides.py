"""Sides of hands by detector and network together."""

import numpy as np
import pytest

from utnet.checkpoint import shipped_networks
from utnet.config import Config, override
from utnet.detect import Detection
from utnet.geometry import box_of, mirror_camera, mirror_points, project
from utnet.predict import Predictor
from utnet.predict.sides import is_predicted, needs_other_side, with_likelier_side
from utnet.synth import SyntheticHands


def detection(side="right", probability=0.9, **given):
    joints = np.random.default_rng(0).normal(100, 20, (21, 2))
    return Detection(
        side, 0.9, np.array([50.0, 50, 150, 150]), joints, np.zeros((21, 3)), side_probability=probability, **given
    )


def test_a_sure_detector_is_not_outweighed():
    one = detection(probability=0.96)
    assert with_likelier_side(one, -50.0).side == "right"
    assert with_likelier_side(one, -50.0).side_probability < 0.6


def test_the_network_decides_where_the_detector_is_unsure():
    one = detection(probability=0.8)
    turned = with_likelier_side(one, -8.0)
    assert (turned.side, turned.side_probability > 0.8) == ("left", True)
    assert with_likelier_side(one, 8.0).side_probability > 0.97


@pytest.mark.parametrize("difference", [-9.0, -1.0, 0.3, 4.0])
@pytest.mark.parametrize("probability", [0.5, 0.7, 0.99])
def test_which_side_comes_first_does_not_matter(difference, probability):
    one = with_likelier_side(detection("right", probability), difference)
    other = with_likelier_side(detection("left", 1 - probability), -difference)
    assert one.side == other.side
    assert one.side_probability == pytest.approx(other.side_probability)


def test_given_sides_and_tracks_stay():
    assert not is_predicted(detection(probability=1.0))
    assert not is_predicted(detection(track=3))
    assert needs_other_side(detection(), 0.5)
    assert not needs_other_side(detection(), 9.0)
    assert not needs_other_side(detection(track=3), -9.0)


@pytest.mark.skipif(not shipped_networks(), reason="no weights ship")
@pytest.mark.parametrize("method", ["network", "both"])
def test_hands_on_the_wrong_side_are_turned(method):
    """Drawn hands and their mirror images whose detector is unsure and wrong."""
    synth = override(Config(), ["synth.appearance=full"]).synth
    predictor, source = Predictor(method=method), SyntheticHands(seed=5, size_px=256, synth=synth, jitter=False)
    for sample in (source[0], source[3]):
        width = sample.rgb.shape[1]
        right = sample.rgb, sample.joints_cam_m, sample.K_px
        left = sample.rgb[:, ::-1], mirror_points(sample.joints_cam_m), mirror_camera(sample.K_px, width)
        hands = []
        for side, (rgb, joints, K_px) in (("right", right), ("left", left)):
            px, wrong = project(joints, K_px), "left" if side == "right" else "right"
            seen = Detection(wrong, 0.9, box_of(px), px, joints - joints[9], side_probability=0.6)
            sure = Detection(side, 0.9, box_of(px), px, joints - joints[9])
            turned, given = predictor.from_detections(np.ascontiguousarray(rgb), [seen, sure], K_px=K_px)
            assert (turned.side, turned.side_probability > 0.8) == (side, True)
            np.testing.assert_allclose(turned.joints_cam_m, given.joints_cam_m, atol=1e-5)
            hands.append(turned)
        np.testing.assert_allclose(mirror_points(hands[1].joints_cam_m), hands[0].joints_cam_m, atol=1e-4)
