"""Augmentation: pixels change lightly and by the seed, labels stay, and every knob does what it says."""

from dataclasses import replace

import numpy as np
import pytest

from support.samples import sample_at
from utnet.config import AugmentConfig
from utnet.data.augment import augment, augment_colors, augment_depth
from utnet.errors import InputError
from utnet.types import Sample

NOTHING = AugmentConfig(
    gain=0, channel_gain=0, contrast=0, brightness=0, saturation=0, noise=0, blur_p=0, depth_noise=0, depth_step_m=0,
    depth_holes_p=0, depth_edges_p=0,
)  # fmt: skip


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(60, 180, (64, 64, 3)).astype(np.uint8)


def ramp() -> np.ndarray:
    """Depth from 0.3 m to 1.2 m, with a step and a hole."""
    depth = np.tile(np.linspace(0.3, 0.7, 64, dtype=np.float32), (64, 1))
    depth[:, 40:] += 0.5
    depth[10:20, 10:20] = 0
    return depth


def test_all_at_zero_changes_nothing():
    sample = sample_at(1)
    out = augment(sample, NOTHING, np.random.default_rng(0))
    np.testing.assert_array_equal(out.rgb, sample.rgb)
    np.testing.assert_array_equal(out.depth_m, sample.depth_m)


def test_colours_change_lightly_and_by_the_seed():
    rgb, config = picture(), AugmentConfig()
    a, b, c = (augment_colors(rgb, config, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (a.dtype, a.shape) == (np.uint8, rgb.shape)
    assert (a == b).all()
    assert (a != c).any()
    sharp = replace(config, blur_p=0)
    for seed in range(20):
        changed = augment_colors(rgb, sharp, np.random.default_rng(seed)).astype(float)
        assert 2 < np.abs(changed - rgb).mean() < 70
        assert np.corrcoef(changed.ravel(), rgb.ravel())[0, 1] > 0.7


@pytest.mark.parametrize("size_wh", [(256, 256), (64, 48), (700, 700)])
def test_noise_is_normal_of_the_drawn_strength_at_every_size(size_wh):
    grey = np.full((*size_wh[::-1], 3), 128, np.uint8)
    stds = [
        (augment_colors(grey, replace(NOTHING, noise=20), np.random.default_rng(seed)).astype(float) - 128).std()
        for seed in range(12)
    ]
    assert 0 < min(stds) < 8
    assert 12 < max(stds) < 20.5


def test_gain_brightness_contrast_and_saturation_do_what_they_say():
    rgb = picture()
    for seed in range(5):
        rng = np.random.default_rng(seed)
        draw = np.random.default_rng(seed).uniform(-1, 1, 8)
        brighter = augment_colors(rgb, replace(NOTHING, brightness=40), rng).astype(float)
        np.testing.assert_allclose(brighter - rgb, 40 * draw[5], atol=0.51)
        scaled = augment_colors(rgb, replace(NOTHING, gain=0.3), np.random.default_rng(seed)).astype(float)
        np.testing.assert_allclose(scaled, rgb * (1 + 0.3 * draw[0]), atol=0.51)
        flatter = augment_colors(rgb, replace(NOTHING, contrast=0.3), np.random.default_rng(seed)).astype(float)
        np.testing.assert_allclose(flatter.std() / rgb.std(), 1 + 0.3 * draw[4], atol=0.01)
        np.testing.assert_allclose(flatter.mean(), rgb.mean(), atol=0.5)
        grey = np.repeat(rgb[..., :1], 3, 2)
        turned = augment_colors(grey, replace(NOTHING, saturation=0.9, hue_deg=90), np.random.default_rng(seed))
        np.testing.assert_allclose(turned.astype(float), grey, atol=1)  # grey has no colour to turn


def test_depth_noise_grows_with_the_distance_squared():
    config = replace(NOTHING, depth_noise=0.01)
    near, far = np.full((200, 200), 0.5, np.float32), np.full((200, 200), 1.5, np.float32)
    for seed in range(3):
        std = [(augment_depth(d, config, np.random.default_rng(seed)) - d).std() for d in (near, far)]
        np.testing.assert_allclose(std[1] / std[0], 9.0, rtol=1e-3)
        assert std[1] < 0.0226


def test_depth_without_a_reading_stays_so_and_rounding_gives_steps():
    depth = ramp()
    for seed in range(10):
        out = augment_depth(depth, AugmentConfig(), np.random.default_rng(seed))
        assert not out[depth == 0].any()
        assert out.min() >= 0
        assert out.dtype == np.float32
    out = augment_depth(depth, replace(NOTHING, depth_step_m=0.05), np.random.default_rng(3))
    step = 0.05 * np.random.default_rng(3).random(4)[1]
    np.testing.assert_allclose(out / step, np.rint(out / step), atol=1e-3)
    assert np.abs(out - depth).max() <= step / 2 + 1e-6


def test_edges_and_holes_take_readings_away_and_make_none():
    depth = ramp()
    out = augment_depth(depth, replace(NOTHING, depth_edges_p=1.0), np.random.default_rng(0))
    assert not out[:, 39:41].any()  # the step
    np.testing.assert_array_equal(out[out > 0], depth[out > 0])
    assert (out > 0).mean() > 0.8
    lost = []
    for seed in range(10):
        out = augment_depth(depth, replace(NOTHING, depth_holes_p=1.0), np.random.default_rng(seed))
        np.testing.assert_array_equal(out[out > 0], depth[out > 0])
        lost.append(((out == 0) & (depth > 0)).mean())
    assert 0 < np.mean(lost) < 0.1


def test_an_occluding_patch_has_one_colour_and_is_nearer():
    sample = sample_at(2)
    out = augment(sample, replace(NOTHING, occlude_p=1.0, occlude_size=0.5), np.random.default_rng(4))
    changed = (out.rgb != sample.rgb).any(-1)
    assert 0 < changed.mean() < 0.3
    assert len(np.unique(out.rgb[changed], axis=0)) == 1
    assert (out.depth_m[changed] < sample.depth_m[changed]).all()


def test_labels_and_inputs_stay():
    sample = sample_at(3)
    copy = sample.map(np.copy)
    out = augment(sample, replace(AugmentConfig(), occlude_p=1.0, depth_edges_p=1.0), np.random.default_rng(0))
    for field in vars(Sample(**vars(sample))):
        if field not in ("rgb", "depth_m"):
            assert getattr(out, field) is getattr(sample, field), field
    np.testing.assert_array_equal(sample.rgb, copy.rgb)
    np.testing.assert_array_equal(sample.depth_m, copy.depth_m)


def test_samples_without_depth_are_augmented_too():
    out = augment(replace(sample_at(4), depth_m=None), replace(AugmentConfig(), occlude_p=1), np.random.default_rng(0))
    assert out.depth_m is None


@pytest.mark.parametrize(
    ("knob", "value"),
    [("gain", 1.0), ("noise", -1.0), ("blur_p", 1.5), ("depth_step_m", -0.1), ("depth_noise", float("nan"))],
)
def test_impossible_knobs_are_named(knob, value):
    with pytest.raises(InputError, match=rf"augment\.{knob} is"):
        AugmentConfig(**{knob: value})
