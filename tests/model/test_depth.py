"""The network says how far the hand is: laws of `root_z_m` on an untrained network, and of the loss that teaches it."""

from dataclasses import replace

import pytest
import torch

from support.loaders import loader_of
from utnet.config import Config, DataConfig, LossConfig, ModelConfig
from utnet.data.sources import open_data
from utnet.geometry import hand_distance
from utnet.losses import UTNetLoss
from utnet.model import UTNet

SIZE = 64
KINDS = {
    "ti": ModelConfig(size_px=SIZE, p_drop=0.0),
    "h": ModelConfig(preset="h", size_px=SIZE, width_px=SIZE, dim=48, num_blocks=2, num_heads=4, p_drop=0.0),
}


def built(kind="ti", *, perturbed=True, **changes):
    torch.manual_seed(0)
    model = UTNet(replace(KINDS[kind], **changes))
    if perturbed:  # away from the start, where the residual is nothing and depth may have no effect
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def scene(distance_m, *, num=2, background_m=2.0):
    """A flat hand that faces the camera, 0.3 m of the scene seen at its distance: (rgb, depth, K) of the crop.

    The camera's focal length follows the distance, as that of a crop that is cut anew round the same hand does.
    """
    rgb = torch.rand(num, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    depth = torch.full((num, SIZE, SIZE), distance_m + background_m)
    depth[:, 16:48, 20:44] = distance_m
    depth[:, 30:33, 30:33] = 0
    f = distance_m * SIZE / 0.3
    K = torch.tensor([[f, 0, (SIZE - 1) / 2], [0, f, (SIZE - 1) / 2], [0, 0, 1]])
    return rgb, depth, K.expand(num, 3, 3)


@pytest.fixture(scope="module")
def batch():
    config = Config(model=ModelConfig(size_px=SIZE), data=DataConfig(limit=8))
    config = replace(config, train=replace(config.train, num_workers=0, batch_size=8))
    return next(iter(loader_of(open_data(config.data, config, train=False), config, train=False)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift_m", [-0.1, 0.1, 0.5])
def test_a_hand_that_moves_away_moves_the_root_by_as_much_and_nothing_else(kind, shift_m):
    model = built(kind)
    with torch.inference_mode():
        near, far = model(*scene(0.5)), model(*scene(0.5 + shift_m))
    assert (near.root_z_m - 0.5).abs().min() > 1e-4, "the residual must not be nothing for this to mean something"
    torch.testing.assert_close(far.root_z_m - near.root_z_m, torch.full((2,), shift_m), atol=2e-5, rtol=0)
    for name in ("joints_m", "joints_crop", "global_orient"):
        torch.testing.assert_close(getattr(far, name), getattr(near, name), atol=2e-5, rtol=0)


def test_without_a_camera_the_law_holds_as_well():
    model = built()
    with torch.inference_mode():
        near, far = model(*scene(0.5)[:2]), model(*scene(0.6)[:2])
    torch.testing.assert_close(far.root_z_m - near.root_z_m, torch.full((2,), 0.1), atol=2e-5, rtol=0)
    torch.testing.assert_close(far.joints_m, near.joints_m, atol=2e-5, rtol=0)


def test_metric_scale_is_kept():
    """The same depth through a longer lens is a smaller hand: the network must be able to see that."""
    rgb, depth, K = scene(0.5)
    longer = K * torch.tensor([2.0, 2.0, 1.0])[:, None]
    model = built()
    with torch.inference_mode():
        assert (model(rgb, depth, K).joints_m - model(rgb, depth, longer).joints_m).abs().max() > 1e-4


def test_untrained_it_is_the_robust_distance():
    model = built(perturbed=False)
    rgb, depth, K = scene(0.7)
    with torch.inference_mode():
        assert torch.equal(model(rgb, depth, K).root_z_m, hand_distance(depth))


@pytest.mark.parametrize("kind", KINDS)
def test_samples_without_depth_have_no_distance(kind):
    model = built(kind)
    rgb, depth, K = scene(0.5, num=3)
    depth[2] = 0
    with torch.inference_mode():
        assert model(rgb).root_z_m.isnan().all()
        mixed = model(rgb, depth, K, torch.tensor([True, False, True])).root_z_m
        alone = model(rgb[:1], depth[:1], K[:1]).root_z_m
    assert mixed.isnan().tolist() == [False, True, True]
    torch.testing.assert_close(mixed[:1], alone)


def test_the_head_draws_no_random_number():
    """What is drawn after a network of a seed, and all its other weights, are what they were without the head."""
    torch.manual_seed(0)
    model = UTNet(KINDS["ti"])
    after = torch.rand(1)
    torch.manual_seed(0)
    with_scale = UTNet(replace(KINDS["ti"], uncertainty=True))
    assert torch.equal(torch.rand(1), after)
    other = with_scale.state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.any() for parameter in model.root_head.parameters())


def test_the_loss_is_the_l1_distance_of_labelled_wrists_with_depth(batch):
    model = built()
    out = model.forward_batch(batch)
    joints = batch.joints_3d.clone()
    joints[1, 0] = torch.tensor([torch.nan, torch.nan, torch.nan, 0.0])  # a wrist without a label
    joints[2, 0, 3] = 0.5
    K = batch.K_px.clone()
    K[3] = torch.nan  # a camera that is not known
    has_depth = torch.ones(len(batch), dtype=torch.bool)
    has_depth[4] = False
    targets = replace(batch, joints_3d=joints, K_px=K, depth_ok=has_depth)
    root_z = out.root_z_m.detach().clone()
    root_z[4] = torch.nan
    root_z.requires_grad_()
    expected = sum(
        (0.5 if i == 2 else 1.0) * (root_z[i] - batch.joints_3d[i, 0, 2]).abs().detach() for i in (0, 2, 5, 6, 7)
    )
    loss = UTNetLoss(w_root_z=1.0)
    found = loss(replace(out, root_z_m=root_z), targets)["loss_root_z"]
    torch.testing.assert_close(found, expected)
    found.backward()
    torch.testing.assert_close(root_z.grad.abs(), torch.tensor([1.0, 0, 0.5, 0, 0, 1, 1, 1]))
    halved = UTNetLoss(w_root_z=1.0, reduction="batch_mean")(replace(out, root_z_m=root_z), targets)["loss_root_z"]
    torch.testing.assert_close(halved, expected / 8)


def test_a_distance_that_diverges_is_not_taken_for_one_that_is_not_there(batch):
    model, loss = built(), UTNetLoss(w_root_z=1.0)
    depth = batch.depth_m.clone()
    depth[0] = 0.0  # a depth image without a reading
    blind = replace(batch, depth_m=depth)
    out = model.forward_batch(blind)
    assert out.root_z_m.isnan().tolist() == [True] + [False] * 7
    assert loss(out, blind)["loss_root_z"].isfinite()
    with torch.no_grad():
        model.root_head.offset.bias.fill_(torch.nan)
    assert loss(model.forward_batch(blind), blind)["loss_root_z"].isnan()


def test_by_default_the_distance_is_not_learnt(batch):
    assert LossConfig().w_root_z == 0
    assert "loss_root_z" not in UTNetLoss()(built().forward_batch(batch), batch)


def test_the_residual_learns_where_the_wrist_is(batch):
    """The head alone, on the tokens of an untrained network: the error of the robust distance falls."""
    model, loss, seen = built(perturbed=False), UTNetLoss(w_root_z=1.0), {}
    model.root_head.register_forward_pre_hook(lambda module, args: seen.setdefault("inputs", args))
    with torch.no_grad():
        out = model.forward_batch(batch, with_vertices=False)
    optimiser = torch.optim.Adam(model.root_head.parameters(), lr=0.002)
    errors = []
    for _ in range(60):
        term = loss(replace(out, root_z_m=model.root_head(*seen["inputs"])), batch)["loss_root_z"]
        optimiser.zero_grad()
        term.backward()
        optimiser.step()
        errors.append(float(term.detach()) / len(batch))
    assert errors[0] > 0.01, "the nearest fifth of what is seen is not the wrist"
    assert errors[-1] < 0.75 * errors[0]
