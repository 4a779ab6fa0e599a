"""The hand model against a naive implementation, and the backward pass of skinning against finite differences."""

import pytest
import torch

from support.mano_files import random_mano, write_mano
from support.naive_hand import NaiveHand, axis_angle_to_matrix
from utnet.hand import HandModel
from utnet.hand.skinning import skin

NUM = 35  # three blocks of skinning, the last one partial


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The hand model and the naive one with equal float32 arrays, both computing in float64."""
    data = random_mano()
    hand = HandModel.from_mano(write_mano(tmp_path_factory.mktemp("hand") / "MANO_RIGHT.pkl", data)).double()
    twin = NaiveHand(data, hand.tip_vertices.tolist(), torch.float64)
    twin.v_template, twin.shapedirs, twin.weights = hand.v_template, hand.shapedirs, hand.weights
    twin.posedirs = hand.posedirs.flatten(0, 1).T
    return hand, twin


def leaves(num=NUM, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(num, 16, 3, generator=generator, dtype=torch.float64) * 0.5
    betas = torch.randn(num, 10, generator=generator, dtype=torch.float64)
    return axis_angle_to_matrix(vectors).to(dtype).requires_grad_(), betas.to(dtype).requires_grad_()


def gradients(outputs, inputs):
    """Gradients of a fixed random weighting of the outputs."""
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in outputs]
    return torch.autograd.grad(outputs, inputs, weights)


@pytest.mark.parametrize("with_vertices", [True, False])
def test_values_and_gradients_are_the_naive_twins(pair, with_vertices):
    hand, twin = pair
    R, betas = leaves()
    mesh = hand(R[:, :1], R[:, 1:], betas, with_vertices=with_vertices)
    joints, vertices = twin(R, betas)
    ours = [mesh.joints_m, mesh.vertices_m] if with_vertices else [mesh.joints_m]
    theirs = [joints, vertices] if with_vertices else [joints]
    for a, b in zip(ours, theirs, strict=True):  # the twin regresses joints with a float64 regressor
        torch.testing.assert_close(a, b, atol=1e-8, rtol=0)
    for a, b in zip(gradients(ours, (R, betas)), gradients(theirs, (R, betas)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-7)


@pytest.mark.parametrize("with_vertices", [True, False])
def test_float32_is_within_a_thousandth_of_a_millimetre_of_the_twin(pair, with_vertices):
    hand, twin = HandModel(pair[0].arrays, name="mano"), pair[1]
    R, betas = leaves()
    joints, vertices = twin(R, betas)
    mesh = hand(*(x.detach().float() for x in (R[:, :1], R[:, 1:], betas)), with_vertices=with_vertices)
    torch.testing.assert_close(mesh.joints_m.double(), joints.detach(), atol=1e-6, rtol=0)
    if with_vertices:
        torch.testing.assert_close(mesh.vertices_m.double(), vertices.detach(), atol=1e-6, rtol=0)


def test_the_backward_pass_of_skinning_is_the_finite_difference():
    generator = torch.Generator().manual_seed(0)
    transforms, rest, weights = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((18, 16, 3, 4), (18, 3 * 70), (16, 70))
    )
    assert torch.autograd.gradcheck(
        lambda t, v: skin(t, v, weights), (transforms.requires_grad_(), rest.requires_grad_()), fast_mode=True
    )


def test_few_vertices_are_skinned_as_many_are(pair):
    hand = pair[0]
    R, betas = leaves(5)
    with torch.no_grad():
        few = hand(R[:, :1], R[:, 1:], betas, with_vertices=False).joints_m
        torch.testing.assert_close(few, hand(R[:, :1], R[:, 1:], betas).joints_m, atol=1e-13, rtol=0)


def test_no_hands_are_no_error(pair):
    R, betas = leaves(0)
    mesh = pair[0](R[:, :1], R[:, 1:], betas)
    assert mesh.vertices_m.shape == (0, 778, 3)
    assert mesh.joints_m.shape == (0, 21, 3)


def test_autocast_does_not_lower_the_precision(pair):
    hand = HandModel(pair[0].arrays, name="mano")
    R, betas = (x.detach() for x in leaves(3, torch.float32))
    plain = hand(R[:, :1], R[:, 1:], betas)
    with torch.autocast("cpu", torch.bfloat16):
        again = hand(R[:, :1], R[:, 1:], betas)
    assert torch.equal(again.vertices_m, plain.vertices_m)
    assert torch.equal(again.joints_m, plain.joints_m)
