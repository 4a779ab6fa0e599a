"""The landmark lifter: laws of its input and output that hold whatever its weights, and that it learns."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from utnet.errors import InputError
from utnet.fit import HandFitter
from utnet.fit.angles import angles_to_pose, pose_to_angles
from utnet.fit.hypotheses import lift_hands
from utnet.fit.lifter import FREE, NUM_HYPOTHESES, LandmarkLifter, to_features
from utnet.geometry import intrinsics, project
from utnet.hand import HandModel
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.poses import AXES, sample_angles

sys.path[:0] = [str(Path(__file__).parents[2] / "tools")]

import train_lifter  # noqa: E402

ALL = np.ones((16, 21), bool)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return train_lifter.LifterNetwork(width=32, blocks=2).eval()


@pytest.fixture(scope="module")
def lifter(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("lifter") / "lifter.safetensors"
    save_file(network.state_dict(), path)
    return LandmarkLifter(path)


@pytest.fixture(scope="module")
def angles():
    rng = np.random.default_rng(0)
    return np.stack([sample_angles(rng) for _ in range(16)])


@pytest.fixture(scope="module")
def joints(angles):
    """(16, 21, 3) in the view, 40 cm away."""
    rng = np.random.default_rng(1)
    chains = train_lifter.Chains()
    hands = torch.stack(chains(torch.tensor(angles[:, *FREE]).float(), chains.rest(torch.zeros(16, 10))), -1)
    hands = np.concatenate([np.zeros((16, 1, 3)), hands.numpy()], 1) @ axis_angle_to_matrix(rng.normal(size=(16, 3)))
    return hands - hands.mean(1, keepdims=True) + [0, 0, 0.4]


def lift(lifter, joints, relative, seen=ALL, there=ALL):
    return lifter(joints[..., :2] / joints[..., 2:], relative, seen, there)


def assert_same(a, b):
    for name in ("root", "angles", "betas", "probability", "error_m"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=2e-4, err_msg=name)


def test_numpy_computes_what_torch_does(network, lifter, joints):
    features, _ = to_features(joints[..., :2] / joints[..., 2:], joints, ALL, ALL)
    with torch.no_grad():
        expected = network(torch.from_numpy(features).float()).numpy()
    np.testing.assert_allclose(lifter._forward(features), expected, atol=2e-4)


def test_a_turned_picture_turns_the_root_alone(lifter, joints):
    roll = axis_angle_to_matrix(np.array([0.0, 0.0, 2.0]))
    hands, turned = lift(lifter, joints, joints), lift(lifter, joints @ roll.T, joints @ roll.T)
    np.testing.assert_allclose(turned.root, roll @ hands.root, atol=2e-4)
    np.testing.assert_allclose(turned.angles, hands.angles, atol=2e-4)


def test_scale_and_origin_of_relative_landmarks_do_not_matter(lifter, joints):
    assert_same(lift(lifter, joints, joints), lift(lifter, joints, 3 * joints + [0.1, 0.2, 0.3]))


def test_numbers_of_missing_landmarks_do_not_matter(lifter, joints):
    seen = np.random.default_rng(2).random((16, 21)) < 0.7
    others = np.where(seen[..., None], joints, np.nan)
    assert_same(lift(lifter, joints, joints, seen, seen), lift(lifter, others, others, seen, seen))
    none = np.zeros_like(seen)
    assert_same(
        lift(lifter, joints, joints, seen, none), lift(lifter, joints, np.full_like(joints, np.nan), seen, none)
    )


def test_a_batch_is_its_hands_one_by_one(lifter, joints):
    together = lift(lifter, joints, joints)
    for i in (0, 7):
        alone = lift(lifter, joints[i : i + 1], joints[i : i + 1], ALL[:1], ALL[:1])
        np.testing.assert_allclose(alone.root[0], together.root[i], atol=1e-5)
        np.testing.assert_allclose(alone.angles[0], together.angles[i], atol=1e-5)


def test_hypotheses_are_hands_in_order(lifter, joints):
    hands = lift(lifter, joints, joints)
    assert hands.probability.shape == (16, NUM_HYPOTHESES)
    np.testing.assert_allclose(hands.probability.sum(1), 1)
    assert (np.diff(hands.probability, axis=1) <= 0).all()
    np.testing.assert_allclose(
        hands.root @ hands.root.swapaxes(2, 3), np.broadcast_to(np.eye(3), hands.root.shape), atol=1e-6
    )
    assert (np.linalg.det(hands.root) > 0).all()
    fixed = np.ones((15, 3), bool)
    fixed[FREE] = False
    assert (hands.angles[..., fixed] == 0).all()


def test_angles_and_rotations_are_inverse(angles):
    for hand in angles[:4]:
        np.testing.assert_allclose(pose_to_angles(angles_to_pose(hand, AXES), AXES), hand, atol=1e-4)


def test_chains_are_the_hand_model(angles):
    betas = torch.from_numpy(np.random.default_rng(3).normal(size=(16, 10))).float()
    pose = torch.from_numpy(angles_to_pose(angles, AXES)).float()
    joints = HandModel.open()(torch.eye(3).expand(16, 1, 3, 3), pose, betas).joints_m
    chains = train_lifter.Chains()
    found = torch.stack(chains(torch.tensor(angles[:, *FREE]).float(), chains.rest(betas)), -1)
    torch.testing.assert_close(found, joints[:, 1:] - joints[:, :1], atol=1e-6, rtol=0)


def test_lifted_hands_are_placed_on_their_landmarks(lifter, joints):
    model, K = HandFitter(landmarks="joints").model, intrinsics(500.0, 500.0, 320.0, 240.0)
    away = joints[:3] + [0.1, 0.05, 0.2]
    hands = lift_hands(lifter, model, project(away, K), joints[:3], np.tile(K, (3, 1, 1)))
    for params in hands.params:
        for i in range(3):
            placed = model.decode(params.map(lambda array, i=i: array[i]))[0] + params.transl_m[i]
            seen = project(placed, K) - project(away[i], K)
            assert np.linalg.norm(seen.mean(0)) < 40  # px: the middle; the pose is that of random weights


def test_learning_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    """Stopped after two of four steps and resumed, the weights are those of four steps, and the loss falls."""
    monkeypatch.setattr(train_lifter, "POOL", 500)
    monkeypatch.setattr(train_lifter, "BATCH", 256)
    monkeypatch.setattr(train_lifter, "EVERY", 2)
    monkeypatch.setattr(train_lifter, "WIDTH", 32)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train_lifter.train(whole, 4 * 256)
    with monkeypatch.context() as stopped:
        stopped.setattr(train_lifter, "save", _stop_after_saving(train_lifter.save))
        with pytest.raises(KeyboardInterrupt):
            train_lifter.train(parts, 4 * 256)
    train_lifter.train(parts, 4 * 256)
    assert (parts / "lifter.safetensors").read_bytes() == (whole / "lifter.safetensors").read_bytes()


def _stop_after_saving(save):
    def stop(*args):
        save(*args)
        raise KeyboardInterrupt

    return stop


def test_a_file_that_is_no_lifter_is_named(tmp_path):
    with pytest.raises(InputError, match="missing"):
        LandmarkLifter(tmp_path / "none.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not a landmark lifter"):
        LandmarkLifter(tmp_path / "other.safetensors")
