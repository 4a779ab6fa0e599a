"""Sides of hands by detector and network together."""

import numpy as np
import pytest

from utnet.checkpoint import shipped_networks
from utnet.config import Config, override
from utnet.detect import Detection
from utnet.geometry import box_of, mirror_camera, mirror_points, project
from utnet.predict import Predictor
from utnet.predict.sides import TrackSides, is_predicted, needs_other_side, with_likelier_side
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
    assert is_predicted(detection())
    assert not is_predicted(detection(probability=1.0))
    assert not is_predicted(detection(track=3))
    assert needs_other_side(0.5)
    assert not needs_other_side(9.0)


def decided_by(votes, sides=None):
    """The sides of a track after each of its frames: (side, probability of the detector's mean, network's)."""
    sides, out = sides or TrackSides(), []
    for side, probability, difference in votes:
        one = sides.see(detection(side, probability, track=7))
        if sides.is_due(one):
            one = sides.add(one, difference if one.side == side else -difference)
        out.append(one)
    return out


def test_votes_of_sixty_to_forty_give_one_side():
    right, left = ("right", 0.6, 3.0), ("right", 0.6, -3.0)
    decided = decided_by([right, left, right, left, right] * 3)
    assert {one.side for one in decided[4:]} == {"right"}
    assert 0.6 < decided[-1].side_probability < 0.95


def test_frames_of_the_network_turn_a_track_that_starts_on_the_wrong_side():
    decided = decided_by([("left", 0.9, 2.0), *[("left", 0.9, -2.9)] * 12])
    assert decided[0].side == "left"
    assert decided[-1].side == "right"


def test_the_order_of_frames_does_not_matter():
    rng = np.random.default_rng(3)
    votes = [("right", 0.7, float(value)) for value in rng.normal(0.5, 3, 12)]
    last = [decided_by(one)[-1] for one in (votes, votes[::-1])]
    assert last[0].side_probability == pytest.approx(last[1].side_probability)
    assert last[0].side == last[1].side


def test_a_sure_detector_is_not_outweighed_over_frames_and_a_mirrored_track_is_the_mirror_image():
    for probability, difference in ((0.97, -50.0), (0.6, -2.0), (0.8, 1.0)):
        one = decided_by([("right", probability, difference)] * 40)[-1]
        mirrored = decided_by([("left", probability, difference)] * 40)[-1]
        assert {one.side, mirrored.side} == {"right", "left"}
        assert one.side_probability == pytest.approx(mirrored.side_probability)
        assert (one.side == "right") == (probability > 0.95 or difference > 0)


def test_tracks_do_not_mix():
    sides = TrackSides()
    decided_by([("right", 0.9, 3.0)] * 5, sides)
    other = sides.add(sides.see(detection("left", 0.6, track=8)), 1.0)
    alone = TrackSides()
    expected = alone.add(alone.see(detection("left", 0.6, track=8)), 1.0)
    assert (other.side, other.side_probability) == (expected.side, expected.side_probability)


@pytest.mark.skipif(not shipped_networks(), reason="no bundled weights")
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
