"""The numpy hand model equals the torch module."""

import numpy as np
import pytest
import torch

from support.mano_files import random_mano, write_mano
from utnet.hand import HandModel, NumpyHandModel
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle


@pytest.fixture(scope="module")
def hands(tmp_path_factory):
    """The open hand; one in MANO's format, which has pose correctives; the same with a mean pose."""
    path = write_mano(tmp_path_factory.mktemp("hand") / "MANO_RIGHT.pkl", random_mano())
    return {
        "open": HandModel.open(),
        "mano": HandModel.from_mano(path),
        "mean": HandModel.from_mano(path, flat_hand_mean=False),
    }


def inputs(num=5):
    rng = np.random.default_rng(0)
    pose = axis_angle_to_matrix(rng.normal(0, 0.6, (num, 16, 3)))
    return pose[:, :1], pose[:, 1:], rng.normal(size=(num, 10))


@pytest.mark.parametrize("name", ["open", "mano", "mean"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("mirror", [False, True])
def test_it_is_the_torch_module(hands, name, dtype, mirror):
    hand = hands[name].mirrored() if mirror else hands[name]
    twin = NumpyHandModel.of(hand, dtype=dtype)
    if dtype == np.float64:
        hand = HandModel(hand.arrays, side=hand.side, name=hand.name).double()
    mesh = hand(*(torch.from_numpy(array.astype(dtype)) for array in inputs()))
    found = twin(*inputs())
    for field in ("joints_m", "mano_joints_m", "vertices_m"):
        np.testing.assert_allclose(getattr(found, field), getattr(mesh, field).numpy(), rtol=0, atol=1e-6)
        assert getattr(found, field).dtype == dtype
    np.testing.assert_array_equal(twin.faces, hand.faces.numpy())
    assert (twin.side, twin.name, twin.num_vertices) == (hand.side, hand.name, hand.num_vertices)


def test_a_batch_is_its_hands_one_by_one(hands):
    twin, (root, pose, betas) = NumpyHandModel.of(hands["mean"]), inputs()
    whole = twin(root, pose, betas)
    for i in range(len(root)):
        one = twin(root[i : i + 1], pose[i : i + 1], betas[i : i + 1])
        np.testing.assert_allclose(one.vertices_m[0], whole.vertices_m[i], rtol=0, atol=1e-7)
    with pytest.raises(ValueError, match="hand_pose"):
        twin(root, pose[:, 1:], betas)


def test_rotation_vectors_are_roma_s():
    rng = np.random.default_rng(1)
    axes = rng.normal(size=(400, 3))
    axes = np.concatenate([axes / np.linalg.norm(axes, axis=1, keepdims=True), np.eye(3), -np.eye(3)])
    for angle in (0.0, 1e-12, 1e-7, 1e-3, 1.0, 3.0, np.pi - 1e-7):
        R = axis_angle_to_matrix(axes * angle)
        found = matrix_to_axis_angle(R)
        np.testing.assert_allclose(found, axes * angle, rtol=0, atol=2e-8)
        np.testing.assert_allclose(found, matrix_to_axis_angle(torch.from_numpy(R)).numpy(), rtol=0, atol=2e-8)
    half = axis_angle_to_matrix(axes * np.pi)  # either sign of the axis
    np.testing.assert_allclose(axis_angle_to_matrix(matrix_to_axis_angle(half)), half, atol=1e-12)
    assert matrix_to_axis_angle(half.astype(np.float32)).dtype == np.float32
