"""The detector's measured residuals: landmarks as the detector would give them."""

from dataclasses import replace

import numpy as np
import pytest

from utnet.detect.residuals import PALM_M, STEP, Conditions, DetectorResiduals, measure_residuals, palm_length
from utnet.errors import InputError
from utnet.hand.arrays import load_open_hand
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.decoder import NumpyHand
from utnet.synth.gestures import sample_pose
from utnet.synth.poses import angles_to_pose, sample_betas, sample_orientation
from utnet.types import HandParams


@pytest.fixture(scope="module")
def table():
    return DetectorResiduals.load()


@pytest.fixture(scope="module")
def joints_cam_m():
    """(64, 21, 3) of sampled hands."""
    rng, decode = np.random.default_rng(0), NumpyHand(load_open_hand())
    hands = []
    for _ in range(64):
        pose = angles_to_pose(sample_pose(rng, gestures=1.0, contact=False))
        place = rng.uniform([-0.2, -0.2, 0.4], [0.2, 0.2, 1.0])
        hands.append(decode(HandParams(sample_orientation(rng)[None], pose, sample_betas(rng), place)).joints_m)
    return np.array(hands, float)


def observe(table, joints_cam_m):
    return table.observe(np.random.default_rng(1), joints_cam_m)


def test_measuring_what_was_observed_gives_measured_vectors(table, joints_cam_m):
    rays, landmarks_m, presence = observe(table, joints_cam_m)
    points, joints, conditions = measure_residuals(rays, landmarks_m, joints_cam_m)
    expected = table.sample(np.random.default_rng(1), conditions)
    np.testing.assert_allclose(points, expected[0], atol=1e-6)
    centred = expected[1] - expected[1].mean(1, keepdims=True)
    np.testing.assert_allclose(joints, centred, atol=1e-6)
    np.testing.assert_array_equal(presence, expected[2])
    known = np.linalg.norm(table.points, axis=-1)  # whole vectors, only turned
    for row in np.linalg.norm(points, axis=-1):
        assert np.abs(known - row).max(1).min() < 1e-5


def test_samples_have_the_covariance_that_was_measured(table):
    """`covariance` is of all measured hands, of which the table keeps a part."""
    rng, drawn = np.random.default_rng(2), []
    for _ in range(2):
        points, joints, presence = table.sample(rng, table.conditions, candidates=len(table) // 4)
        drawn.append(replace(table, points=points, joints=joints, presence=presence).canonical())
    covariance = np.cov(np.concatenate(drawn).T)
    off = np.linalg.norm(covariance - table.covariance) / np.linalg.norm(table.covariance)
    assert off < 0.2, off  # two halves of the measured hands differ by as much
    ratio = np.diag(covariance) / np.diag(table.covariance)
    assert 0.85 < ratio.mean() < 1.1, ratio.mean()


def test_near_hands_have_similar_residuals(table):
    """The vector of a similar hand is nearer to a hand's own than that of any hand turned the same way."""
    half = len(table) // 2
    first = replace(
        table,
        points=table.points[:half],
        joints=table.joints[:half],
        presence=table.presence[:half],
        conditions=Conditions(table.conditions.frame[:half], table.conditions.bends[:half]),
    )
    others = Conditions(table.conditions.frame[half:], table.conditions.bends[half:])

    def distance(seed, candidates):
        points, joints, _ = first.sample(np.random.default_rng(seed), others, candidates=candidates)
        pairs = (points, table.points[half:]), (joints, table.joints[half:])
        return np.array([np.linalg.norm(a - b, axis=-1).mean() for a, b in pairs])

    any_hand = np.mean([distance(seed, 1) for seed in range(20)], axis=0)
    assert (distance(0, half) < [0.9, 0.8] * any_hand).all()


def test_a_turned_camera_turns_the_landmarks(table, joints_cam_m):
    roll = axis_angle_to_matrix(np.array([0.0, 0.0, 1.1]))
    rays, landmarks_m, _ = observe(table, joints_cam_m)
    turned_rays, turned_m, _ = observe(table, joints_cam_m @ roll.T)
    np.testing.assert_allclose(turned_rays, rays @ roll.T, atol=1e-5)
    np.testing.assert_allclose(turned_m, landmarks_m @ roll.T, atol=1e-5)


def test_landmarks_do_not_tell_the_size_of_a_hand(table, joints_cam_m):
    rays, landmarks_m, _ = observe(table, joints_cam_m)
    larger_rays, larger_m, _ = observe(table, 1.2 * joints_cam_m)  # larger and as much farther away
    np.testing.assert_allclose(larger_rays, rays, atol=1e-9)
    np.testing.assert_allclose(larger_m, landmarks_m, atol=1e-9)
    assert 0.9 < np.median(palm_length(landmarks_m)) / PALM_M < 1.1


def test_moments_are_of_hands_alike_and_turned_with_the_hand(table, joints_cam_m):
    roll = axis_angle_to_matrix(np.array([0.0, 0.0, np.pi / 2]))
    hand = joints_cam_m[:1] - joints_cam_m[:1].mean(1, keepdims=True)
    mean, covariance = table.moments(Conditions.of(hand))
    turned_mean, turned_covariance = table.moments(Conditions.of(hand @ roll.T))
    both = np.zeros((5, 5))
    both[:2, :2], both[2:, 2:] = roll[:2, :2], roll
    np.testing.assert_allclose(turned_mean, mean @ both.T, atol=1e-6)
    np.testing.assert_allclose(turned_covariance, both @ covariance @ both.T, atol=1e-6)
    assert (np.linalg.eigvalsh(covariance) > 0).all()


def test_a_saved_table_is_read_again(table, tmp_path):
    table.save(tmp_path / "again.npz")
    again = DetectorResiduals.load(tmp_path / "again.npz")
    assert len(again) == len(table)
    assert np.abs(again.points - table.points).max() <= STEP / 2
    assert np.abs(again.joints - table.joints).max() <= STEP / 2
    with pytest.raises(InputError, match="missing"):
        DetectorResiduals.load(tmp_path / "none.npz")
