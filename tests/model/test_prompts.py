"""Laws of prompts: absent ones have no effect, weights without them start unchanged, samples do not mix."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.loaders import loader_of
from support.networks import FIELDS, assert_same, inputs
from utnet.checkpoint import save_checkpoint
from utnet.config import Config, ModelConfig, PromptConfig
from utnet.data.collate import collate
from utnet.data.masks import MaskLabels
from utnet.data.prompts import PromptNoise, prompts_of_landmarks
from utnet.data.prompts_and_masks import PromptsAndMasks
from utnet.data.transforms import in_mirror
from utnet.detect.residuals import DetectorResiduals
from utnet.geometry import project, px_to_crop
from utnet.hand.arrays import load_open_hand
from utnet.losses import UTNetLoss
from utnet.model import UTNet
from utnet.model.prompts import Prompts
from utnet.synth import SyntheticHands
from utnet.synth.decoder import NumpyHand
from utnet.training.state import make_model

SIZE = 64


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = UTNet(ModelConfig(size_px=SIZE, prompts=True, uncertainty=True)).eval()
    with torch.no_grad():  # away from the start, where prompts have no effect
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def prompts(num=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    xy = torch.rand(num, 21, 2, generator=generator) - 0.5
    relative = torch.randn(num, 21, 3, generator=generator) * 0.05
    return torch.cat([xy, relative, torch.full((num, 21, 1), 0.7)], -1)


def run(model, landmarks, num=3, **changes):
    rgb, depth, K = inputs(num)
    with torch.inference_mode():
        return model(rgb, depth, K, landmarks=landmarks, **changes)


@pytest.mark.parametrize("preset", ["ti", "s", "b", "h"])
def test_weights_without_prompts_start_unchanged(preset):
    small = {"dim": 64, "num_blocks": 1, "num_heads": 2} if preset in ("s", "b", "h") else {}
    config = ModelConfig(preset=preset, size_px=SIZE, **small)
    torch.manual_seed(0)
    old = UTNet(config).eval()
    new = UTNet(replace(config, prompts=True, evidence=preset != "h")).eval()
    state = new.state_dict()
    added = {name: state[name] for name in state.keys() - old.state_dict().keys()}
    assert added
    assert all(name.startswith(("prompts.", "evidence.")) for name in added)
    new.load_state_dict(old.state_dict() | added)
    rgb, depth, K = inputs()
    with torch.inference_mode():
        before, after = old(rgb, depth, K), new(rgb, depth, K, landmarks=prompts())
    for name in FIELDS:
        if getattr(before, name) is not None:
            assert torch.equal(getattr(before, name), getattr(after, name)), name


def test_prompts_of_confidence_0_have_no_effect(model):
    none, shown = prompts(), prompts()
    none[..., 5] = 0
    plain = run(model, None)
    assert_same(plain, run(model, none), atol=0)
    none[..., :5] = torch.nan
    assert_same(plain, run(model, none), atol=0)
    half, odd = shown.clone(), shown.clone()
    half[:, 1::2, 5] = 0
    odd[:, 1::2] = torch.tensor([torch.nan, torch.inf, 3.0, torch.nan, -torch.inf, 0.0])
    assert_same(run(model, half), run(model, odd), atol=0)
    assert (run(model, shown).joints_m - plain.joints_m).abs().max() > 1e-4


def test_each_number_of_a_prompt_has_an_effect(model):
    shown = prompts()
    before = run(model, shown)
    for axis in range(6):
        other = shown.clone()
        other[0, 8, axis] += 0.1
        after = run(model, other)
        assert (after.joints_m[0] - before.joints_m[0]).abs().max() > 1e-6
        assert_same(before, after, rows_a=slice(1, 3), rows_b=slice(1, 3), atol=0)


def test_relative_3d_has_no_origin_and_may_be_missing(model):
    shown, moved, flat = prompts(), prompts(), prompts()
    moved[..., 2:5] += torch.tensor([0.3, -0.2, 0.5])
    assert_same(run(model, shown), run(model, moved), atol=2e-4)
    flat[..., 2:5] = torch.nan
    assert run(model, flat).joints_m.isfinite().all()
    assert (run(model, flat).joints_m - run(model, shown).joints_m).abs().max() > 1e-5


def test_a_sample_does_not_depend_on_the_prompts_of_others(model):
    shown = prompts(4)
    shown[1, :, 5] = 0
    rgb, depth, K = inputs(4)
    with torch.inference_mode():
        whole = model(rgb, depth, K, landmarks=shown)
        for i in range(4):
            one = model(rgb[i : i + 1], depth[i : i + 1], K[i : i + 1], landmarks=shown[i : i + 1])
            assert_same(whole, one, rows_a=slice(i, i + 1))
        assert_same(whole, model(rgb[1:2], depth[1:2], K[1:2]), rows_a=slice(1, 2))


def test_tokens_attend_to_prompts_in_any_order(model):
    attention, order = model.prompts.attention, torch.randperm(21, generator=torch.Generator().manual_seed(0))
    tokens, image, shown = torch.randn(2, 30, 128), torch.randn(2, 128, 4, 4), prompts(2)
    shown[0, ::3, 5] = 0
    with torch.inference_mode():
        straight = attention(tokens, image, Prompts(shown, 2))
        kept = attention.joint.clone()
        attention.joint.copy_(kept[order])
        shuffled = attention(tokens, image, Prompts(shown[:, order], 2))
        attention.joint.copy_(kept)
    torch.testing.assert_close(straight, shuffled, atol=1e-5, rtol=1e-5)
    assert (straight - tokens).abs().max() > 1e-3


def test_the_stated_error_knows_four_kinds_of_hands(model):
    depth_ok = torch.tensor([True, False, True, False])
    shown = prompts(4)
    shown[:2, :, 5] = 0
    out = run(model, shown, 4, depth_ok=depth_ok)
    shape = (model.scale_head.log_shape * 10).exp().view(4, 2)
    assert torch.equal(out.error_shape, shape[[1, 0, 3, 2]])
    assert (out.joint_scale_mm[:, 1:] > 0).all()


def test_every_parameter_of_the_new_parts_gets_a_gradient():
    torch.manual_seed(0)
    model = UTNet(ModelConfig(size_px=SIZE, prompts=True, evidence=True)).train()
    with torch.no_grad():
        for parameter in model.prompts.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    shown = prompts(4)
    shown[0, :, 5], shown[1, ::2, 5] = 0, 0
    rgb, depth, K = inputs(4)
    out = model(rgb, depth, K, landmarks=shown)
    terms = [out.joints_m, out.joint_map, out.mask_logit, out.side_logit]
    sum((term * torch.randn_like(term)).sum() for term in terms).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if name.startswith(("prompts.", "evidence."))}
    assert [name for name, grad in grads.items() if grad is None or not grad.abs().sum() > 0] == []


def test_landmarks_of_a_wrong_kind_are_refused(model):
    with pytest.raises(ValueError, match="landmarks has shape"):
        run(model, prompts()[..., :5])
    with pytest.raises(ValueError, match=r"model\.prompts"):
        run(UTNet(ModelConfig(size_px=SIZE)).eval(), prompts())


# ------------------------------------------------------------------------------------------------------------- training


@pytest.fixture(scope="module")
def samples():
    source = SyntheticHands(seed=3, size_px=SIZE)
    return [source[i] for i in range(30)]


def test_prompts_of_landmarks_are_in_crop_units():
    points = np.random.default_rng(0).uniform(0, SIZE, (21, 2))
    points[4] = np.nan
    made = prompts_of_landmarks(points, SIZE, confidence=0.5)
    np.testing.assert_allclose(made[:4, :2], px_to_crop(points[:4], SIZE))
    assert made[4].tolist() == [0.0] * 6
    assert (made[np.arange(21) != 4, 5] == 0.5).all()
    assert np.isnan(made[0, 2:5]).all()


def exact(rng, joints):
    return joints / joints[..., 2:], joints - joints.mean(1, keepdims=True), np.ones(len(joints))


def test_prompts_without_noise_are_the_joints(samples):
    calm = PromptConfig(drop_p=0, clicks_p=0, wrong_p=0, flat_p=0, drop_joint_p=0)
    for sample in samples[:5]:
        made = PromptNoise(calm, exact)(sample, np.random.default_rng(0))
        truth = px_to_crop(project(sample.joints_cam_m, sample.K_px), SIZE)
        np.testing.assert_allclose(made[:, :2], truth, atol=1e-5)
        np.testing.assert_allclose(made[:, 2:5], sample.joints_cam_m - sample.joints_cam_m.mean(0), atol=1e-6)
        assert (made[:, 5] == 0.5).all()


def test_prompts_are_dropped_as_often_as_the_config_says(samples):
    noise = PromptNoise(PromptConfig(), exact)
    drawn = np.stack(
        [noise(sample, np.random.default_rng((i, j))) for i in range(10) for j, sample in enumerate(samples)]
    )
    shown = drawn[..., 5] > 0
    assert abs((~shown.any(1)).mean() - 0.3) < 0.08
    clicked = (drawn[..., 5] == 1).any(1)
    assert abs(clicked.sum() / shown.any(1).sum() - 0.25) < 0.08
    assert np.isfinite(drawn[shown][:, :2]).all()
    unlabelled = replace(samples[0], joints_3d_conf=np.zeros(21, np.float32))
    assert not noise(unlabelled, np.random.default_rng(0)).any()


def test_the_measured_noise_is_that_of_a_detector(samples):
    noise = PromptNoise(PromptConfig(drop_p=0, clicks_p=0, wrong_p=0), DetectorResiduals.load().observe)
    off = []
    for i, sample in enumerate(samples):
        made = noise(sample, np.random.default_rng(i))
        truth = px_to_crop(project(sample.joints_cam_m, sample.K_px), SIZE)
        off.append(np.linalg.norm(made[:, :2] - truth, axis=1)[made[:, 5] > 0].mean() / np.ptp(truth, axis=0).max())
    assert 0.02 < np.median(off) < 0.15


def test_a_crop_in_a_mirror_teaches_its_side_alone(samples):
    sample = replace(samples[0], landmarks=np.arange(126.0).reshape(21, 6), mask_cells=np.eye(16))
    shown = in_mirror(sample)
    assert np.array_equal(shown.rgb, sample.rgb[:, ::-1])
    assert np.array_equal(shown.depth_m, sample.depth_m[:, ::-1])
    assert np.array_equal(shown.mask_cells, np.eye(16)[:, ::-1])
    np.testing.assert_allclose(shown.landmarks[:, [0, 2]], -sample.landmarks[:, [0, 2]])
    batch = collate([sample, shown])
    assert batch.is_right.tolist() == [True, False]
    assert batch.params_ok.tolist() == [True, False]
    assert not batch.joints_2d[1, :, 2].any()
    assert not batch.joints_3d[1, :, 3].any()
    np.testing.assert_allclose(in_mirror(shown).rgb, sample.rgb)


def test_masks_are_the_drawn_hand_where_depth_agrees(samples):
    arrays = load_open_hand()
    masks = MaskLabels(NumpyHand(arrays), arrays.faces, 16)
    for sample in samples[:8]:
        cells = masks(sample)
        assert cells.shape == (16, 16)
        assert np.nanmax(cells) == 1
        assert 0.02 < np.nanmean(cells) < 0.8
        hidden = replace(sample, depth_m=np.full_like(sample.depth_m, 0.2))  # something before all of it
        assert np.nansum(masks(hidden)) == 0
    assert masks(replace(samples[0], depth_m=None)) is None


def test_the_loader_draws_the_same_extras_again_and_keeps_the_rest(samples):
    config = Config()
    config = replace(
        config, model=replace(config.model, size_px=SIZE), train=replace(config.train, batch_size=4, num_workers=0)
    )

    class Listed:
        name, tips, counts = "list", "", {}

        def __len__(self):
            return 8

        def __getitem__(self, i):
            return samples[i]

        def key(self, i):
            return samples[i].key

    extras = PromptsAndMasks(PromptNoise(PromptConfig(), exact), None, 0.0)
    plain, first, again = (
        next(iter(loader_of(Listed(), config, train=True, extras=e))) for e in (None, extras, extras)
    )
    assert plain.landmarks is None
    assert torch.equal(plain.rgb, first.rgb)
    assert torch.equal(plain.depth_m, first.depth_m)
    assert torch.equal(first.landmarks.nan_to_num(), again.landmarks.nan_to_num())


def test_a_run_goes_on_from_earlier_weights_with_new_parts_and_learns(tmp_path):
    """Weights without prompts, masks and stated errors, as those of version 0.1."""
    config = Config()
    earlier = replace(config, model=replace(config.model, size_px=96, stem="lite0"))
    torch.manual_seed(0)
    before = UTNet(earlier.model).eval()
    save_checkpoint(tmp_path / "best", before, earlier, step=1)
    tree = {"prompts": True, "evidence": True, "uncertainty": True}
    loss = replace(config.loss, w_uncertainty=0.002, w_mask=0.3, w_side=0.1)
    config = replace(
        config,
        model=replace(earlier.model, **tree),
        loss=loss,
        train=replace(config.train, init_from=str(tmp_path / "best"), batch_size=4, num_workers=0),
    )
    model, about = make_model(config.model, config.train)
    batch = next(
        iter(
            loader_of(
                SyntheticHands(seed=5, size_px=96),
                config,
                train=True,
                extras=PromptsAndMasks.of(config.model, config.prompts),
            )
        )
    )
    with torch.inference_mode():
        old, new = before.forward_batch(replace(batch, landmarks=None)), model.eval().forward_batch(batch)
    assert torch.equal(old.joints_m, new.joints_m)
    assert "start without effect" in about
    terms = UTNetLoss.from_config(loss)(model.train().forward_batch(batch), batch)
    assert all(value.isfinite() for value in terms.values())
    assert terms["loss_mask"] > 0
    assert terms["loss_side"] > 0
    terms["total_loss"].backward()
    assert model.prompts.readout.to_tokens.weight.grad.abs().sum() > 0
