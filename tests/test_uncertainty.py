"""Predicted errors: distribution equal to scipy's, calibrated intervals, pose unaffected by the head."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from support.loaders import loader_of
from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import Config, DataConfig, LossConfig, ModelConfig, TrainConfig
from utnet.data.sources import open_data
from utnet.errors import InputError
from utnet.losses import UTNetLoss
from utnet.model import UTNet
from utnet.types import Prediction
from utnet.uncertainty import NORMAL_SHAPE, error_nll, interval_mm, probability_within, quantile

SHAPES = [NORMAL_SHAPE, (1.0, 1.0), (4.0, 0.7), (0.8, 3.0)]
MODEL = ModelConfig(size_px=64, uncertainty=True)
CONFIG = Config(
    data=DataConfig(limit=8),
    model=MODEL,
    loss=LossConfig(w_uncertainty=0.01),
    train=TrainConfig(batch_size=8, num_workers=0),
)


@pytest.fixture(scope="module")
def batch():
    return next(iter(loader_of(open_data(CONFIG.data, CONFIG, train=False), CONFIG, train=False)))


def built(config=MODEL, *, perturbed=True):
    torch.manual_seed(0)
    model = UTNet(config)
    if perturbed:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def stated(scale_mm, shape):
    """A prediction with errors only."""
    none = torch.zeros(0)
    num = len(scale_mm)
    return Prediction(
        *[none] * 7, joint_scale_mm=scale_mm, error_shape=torch.tensor(shape, dtype=scale_mm.dtype).expand(num, 2)
    )


def scipy_twin(mean, shape):
    k, p = shape
    free = stats.gengamma(k, p)
    return stats.gengamma(k, p, scale=mean / free.mean())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_distribution_is_scipys(shape):
    twin, r = scipy_twin(12.0, shape), np.array([0.5, 3.0, 12.0, 40.0, 90.0])
    args = torch.tensor(12.0).double(), torch.tensor(shape, dtype=torch.float64)
    np.testing.assert_allclose(error_nll(torch.from_numpy(r), *args), -twin.logpdf(r), rtol=1e-9)
    np.testing.assert_allclose(probability_within(torch.from_numpy(r), *args), twin.cdf(r), rtol=1e-9)
    for share in (0.01, 0.5, 0.9, 0.999):
        assert 12 * quantile(share, args[1]).item() == pytest.approx(twin.ppf(share), rel=1e-9)
    total = integrate.quad(lambda x: np.exp(-error_nll(torch.tensor(x).double(), *args).item()), 0.01, 2000, limit=500)
    assert total[0] == pytest.approx(1, abs=2e-3)
    assert twin.mean() == pytest.approx(12)


def test_the_first_shape_is_that_of_a_normal_vector():
    generator = torch.Generator().manual_seed(0)
    length = torch.randn(200_000, 3, generator=generator).norm(dim=-1)
    shape = torch.tensor(NORMAL_SHAPE)
    for share in (0.1, 0.5, 0.9, 0.99):
        within = (length <= length.mean() * quantile(share, shape)).float().mean()
        assert within.item() == pytest.approx(share, abs=0.005)


def test_gradients_of_the_likelihood_are_right():
    r = torch.tensor([3.0, 20.0], dtype=torch.float64)
    mean = torch.tensor([5.0, 8.0], dtype=torch.float64, requires_grad=True)
    shape = torch.tensor([1.3, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda m, s: error_nll(r, m, s), (mean, shape))


def test_an_error_of_nothing_is_finite():
    shape = torch.tensor(NORMAL_SHAPE, requires_grad=True)
    nll = error_nll(torch.zeros(3), torch.tensor([1e-3, 1.0, 1e3]), shape)
    nll.sum().backward()
    assert nll.isfinite().all()
    assert shape.grad.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
def test_intervals_hold_what_they_state(shape):
    rng = np.random.default_rng(0)
    scale = torch.from_numpy(rng.uniform(5, 80, (2000, 21)))
    errors = torch.from_numpy(scipy_twin(1.0, shape).rvs((2000, 21), random_state=rng)) * scale
    prediction = stated(scale, shape)
    radii = [interval_mm(prediction, share) for share in (0.1, 0.5, 0.9)]
    for share, radius in zip((0.1, 0.5, 0.9), radii, strict=True):
        assert (errors <= radius).double().mean().item() == pytest.approx(share, abs=0.01)
    assert (radii[0] < radii[1]).all()
    assert (radii[1] < radii[2]).all()


def test_likelihood_finds_the_scale_and_the_shape():
    """500 steps recover the parameters of a heavy-tailed distribution with two scales."""
    rng, shape = np.random.default_rng(1), (1.2, 0.8)
    mean = torch.tensor([10.0, 40.0]).repeat(2000, 1)
    errors = torch.from_numpy(scipy_twin(1.0, shape).rvs((2000, 2), random_state=rng)).float() * mean
    log_scale, log_shape = torch.zeros(2, requires_grad=True), torch.tensor(NORMAL_SHAPE).log().requires_grad_()
    optimizer = torch.optim.Adam([log_scale, log_shape], lr=0.03)
    for _ in range(500):
        optimizer.zero_grad()
        error_nll(errors, log_scale.exp() * 20, log_shape.exp()).mean().backward()
        optimizer.step()
    torch.testing.assert_close(log_scale.exp() * 20, mean[0], rtol=0.05, atol=0)
    for share in (0.5, 0.9):
        radius = log_scale.exp() * 20 * quantile(share, log_shape.exp())
        assert (errors <= radius).float().mean().item() == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    "config",
    [
        MODEL,
        replace(MODEL, preset="h", size_px=64, width_px=64, dim=48, num_blocks=2, num_heads=4),
        replace(MODEL, refiner="none"),
    ],
    ids=["ti", "h", "coarse only"],
)
def test_the_head_states_an_error_for_every_joint_but_the_wrist(config, batch):
    model = built(config)
    with torch.inference_mode():
        out = model.forward_batch(batch)
    assert out.joint_scale_mm.shape == (8, 21)
    assert out.error_shape.shape == (8, 2)
    assert (out.joint_scale_mm[:, 0] == 0).all()
    assert (interval_mm(out, 0.9)[:, 0] == 0).all()
    assert (out.joint_scale_mm[:, 1:] > 0).all()
    assert out.joint_scale_mm[:, 1:].std() > 0
    assert out.map(lambda tensor: tensor[:2]).joint_scale_mm.shape == (2, 21)


def test_rgb_and_rgbd_have_shapes_of_their_own(batch):
    model = built()
    with torch.no_grad():
        model.scale_head.log_shape.copy_(torch.tensor([1.0, 2.0, 3.0, 4.0]).log() / 10)
        mixed = model(
            batch.rgb.float() / 255, batch.depth_m, batch.K_px, torch.tensor([True, False] * 4), with_vertices=False
        )
        plain = model.forward_batch(batch, use_depth=False)
    torch.testing.assert_close(mixed.error_shape, torch.tensor([[3.0, 4.0], [1.0, 2.0]]).repeat(4, 1))
    torch.testing.assert_close(plain.error_shape, torch.tensor([[1.0, 2.0]]).repeat(8, 1))


def test_no_gradient_reaches_the_pose_and_every_parameter_of_the_head_gets_one(batch):
    model = built().train()
    out = model(batch.rgb.float() / 255, batch.depth_m, batch.K_px, torch.tensor([True, False] * 4))
    UTNetLoss(w_uncertainty=1.0)._loss_uncertainty(out, batch).backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert got == {"scale_head." + name for name, _ in model.scale_head.named_parameters()}


def test_training_with_the_head_leaves_the_pose_as_it_is_without(batch):
    """Without clipping (which uses the norm of all gradients, including the head's)."""
    plain = replace(CONFIG, model=replace(MODEL, uncertainty=False), loss=LossConfig())
    states = []
    for config in (plain, CONFIG):
        model = built(config.model, perturbed=False).train()
        optimizer, loss = torch.optim.AdamW(model.parameters(), lr=1e-3), UTNetLoss.from_config(config.loss)
        torch.manual_seed(1)
        for _ in range(3):
            optimizer.zero_grad()
            terms = loss(model.forward_batch(batch), batch)
            terms["total_loss"].backward()
            optimizer.step()
        states.append(model.state_dict())
    assert "loss_uncertainty" in terms
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert set(states[1]) - set(states[0])


def test_the_loss_sums_over_labelled_joints_but_the_wrist(batch):
    out = built().forward_batch(batch)
    joints = batch.joints_3d.clone()
    joints[0, 5] = torch.tensor([torch.nan, torch.nan, torch.nan, 0.0])
    joints[1, 6, 3] = 0.5
    joints[2, 0] = torch.tensor([torch.nan, torch.nan, torch.nan, 0.0])  # nothing to be relative to
    expected = 0.0
    for b in range(8):
        for j in range(1, 21):
            weight = float(joints[b, j, 3]) * (b != 2)
            if weight == 0:
                continue
            error = (out.joints_m[b, j] - out.joints_m[b, 0] - joints[b, j, :3] + joints[b, 0, :3]).norm() * 1000
            expected += weight * error_nll(error, out.joint_scale_mm[b, j], out.error_shape[b]).item()
    targets = replace(batch, joints_3d=joints)
    found = UTNetLoss(w_uncertainty=1.0)(out, targets)["loss_uncertainty"]
    assert found.item() == pytest.approx(expected, rel=1e-5)
    # Errors are relative to the wrist: translation does not matter.
    moved = replace(out, joints_m=out.joints_m + 3.0)
    assert UTNetLoss(w_uncertainty=1.0)(moved, targets)["loss_uncertainty"].item() == pytest.approx(expected, rel=1e-4)
    mean = UTNetLoss(w_uncertainty=1.0, reduction="batch_mean")(out, targets)["loss_uncertainty"]
    assert mean.item() == pytest.approx(expected / 8, rel=1e-5)


def test_the_head_learns_which_joints_are_harder(batch):
    """The pose is unchanged; predicted errors converge to actual errors."""
    model, loss, seen = built(perturbed=False), UTNetLoss(w_uncertainty=1.0), {}
    model.scale_head.register_forward_pre_hook(lambda module, args: seen.setdefault("inputs", args))
    with torch.no_grad():
        out = model.forward_batch(batch, with_vertices=False)
    joints = out.joints_m - out.joints_m[:, :1]
    truth = batch.joints_3d[..., :3] - batch.joints_3d[:, :1, :3]
    error = (joints - truth).norm(dim=-1) * 1000
    optimizer = torch.optim.Adam(model.scale_head.parameters(), lr=0.003)
    for _ in range(150):
        scale, shape = model.scale_head(*seen["inputs"])
        optimizer.zero_grad()
        loss(replace(out, joint_scale_mm=scale, error_shape=shape), batch)["loss_uncertainty"].backward()
        optimizer.step()
    scale = scale.detach()
    torch.testing.assert_close(scale.mean(), error.mean(), rtol=0.15, atol=0)
    assert torch.corrcoef(torch.stack([scale[:, 1:].flatten(), error[:, 1:].flatten()]))[0, 1] > 0.5


def test_a_checkpoint_keeps_the_head(batch, tmp_path):
    model = built()
    save_checkpoint(tmp_path / "net", model, CONFIG)
    loaded, config = load_checkpoint(tmp_path / "net")
    assert config == CONFIG
    with torch.inference_mode():
        ours, theirs = model.forward_batch(batch), loaded.forward_batch(batch)
    assert torch.equal(ours.joint_scale_mm, theirs.joint_scale_mm)
    assert torch.equal(interval_mm(ours, 0.5), interval_mm(theirs, 0.5))
    run = json.loads((tmp_path / "net" / "run.json").read_text())
    assert run["config"]["model"]["uncertainty"]


def test_head_and_weight_go_together():
    with pytest.raises(InputError, match=r"loss.w_uncertainty is 0.0; expected more than 0 with model.uncertainty"):
        Config(model=MODEL)
    with pytest.raises(InputError, match=r"loss.w_uncertainty is 1.0; expected 0 without model.uncertainty"):
        Config(loss=LossConfig(w_uncertainty=1.0))


def test_intervals_are_refused_where_they_mean_nothing():
    with pytest.raises(ValueError, match=r"model\.uncertainty: true"):
        interval_mm(Prediction(*[torch.zeros(0)] * 7), 0.5)
    for share in (0.0, 1.0, 50, -0.1):
        with pytest.raises(ValueError, match="more than 0 and less than 1"):
            interval_mm(stated(torch.ones(1, 21), NORMAL_SHAPE), share)
