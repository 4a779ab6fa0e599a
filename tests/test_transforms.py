"""Mirror, crop and colours: what moves the picture moves everything else by the same affine."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from utnet.config import CropConfig
from utnet.data.transforms import augment_colors, crop, mirror, to_right, warp
from utnet.geometry import apply_affine, crop_affine, jittered_crop_affine, project
from utnet.types import HandParams, Sample

SEEDS = st.integers(0, 10_000)


def sample_at(seed: int = 0, *, side: str = "right", size_wh: tuple[int, int] = (200, 150)) -> Sample:
    """A picture with a soft white dot at joint 7, in front of a plane; only geometry matters."""
    rng = np.random.default_rng(seed)
    width, height = size_wh
    K = np.array([[180.0, 0.5, width / 2 - 3], [0.0, 176.0, height / 2 + 2], [0.0, 0.0, 1.0]])
    joints = np.column_stack([rng.uniform(-0.08, 0.08, (21, 2)), rng.uniform(0.4, 0.6, 21)])
    points = project(joints, K)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    dot = 250 * np.exp(-((x - points[7, 0]) ** 2 + (y - points[7, 1]) ** 2) / (2 * 3.0**2))
    turn = np.linalg.qr(rng.normal(size=(16, 3, 3)))[0]
    turn *= np.linalg.det(turn)[:, None, None]
    return Sample(
        key=f"test/{seed}",
        rgb=np.repeat(dot[..., None], 3, 2).astype(np.uint8),
        K_px=K,
        side=side,
        box_px=np.concatenate([points.min(0), points.max(0)]),
        joints_cam_m=joints,
        joints_2d_conf=np.ones(21, np.float32),
        joints_3d_conf=np.ones(21, np.float32),
        depth_m=np.where(dot > 100, 0.5, 0.9).astype(np.float32),
        params=HandParams(turn[:1], turn[1:], rng.normal(size=10), joints[0] - [0.01, 0.002, 0.0]),
    )


def dot_centre(image: np.ndarray) -> np.ndarray:
    weight = image[..., 0].astype(float)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(x * weight).sum(), (y * weight).sum()]) / weight.sum()


def assert_same(a: Sample, b: Sample) -> None:
    for name in ("rgb", "depth_m", "K_px", "box_px", "joints_cam_m"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=1e-9, err_msg=name)
    for name in ("global_orient", "hand_pose", "betas", "transl_m"):
        np.testing.assert_allclose(getattr(a.params, name), getattr(b.params, name), atol=1e-9, err_msg=name)


@pytest.mark.parametrize("side", ["right", "left"])
def test_mirroring_twice_changes_nothing_and_once_changes_the_side(side):
    sample = sample_at(3, side=side)
    assert mirror(sample).side != side
    assert_same(mirror(mirror(sample)), sample)
    assert to_right(sample).side == "right"
    assert_same(to_right(to_right(sample)), to_right(sample))


def test_a_mirrored_joint_lies_at_the_mirrored_pixel():
    sample = sample_at(4, side="left")
    before, after = (
        project(sample.joints_cam_m, sample.K_px),
        project(to_right(sample).joints_cam_m, to_right(sample).K_px),
    )
    np.testing.assert_allclose(after, np.column_stack([199 - before[:, 0], before[:, 1]]), atol=1e-9)
    np.testing.assert_allclose(to_right(sample).box_px, np.concatenate([after.min(0), after.max(0)]), atol=1e-9)
    assert np.linalg.norm(dot_centre(to_right(sample).rgb) - after[7]) < 0.1


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_crop_then_project_is_project_then_crop(seed):
    sample, config = sample_at(seed), CropConfig(rotation_jitter_deg=180.0)
    A = jittered_crop_affine(sample.box_px, 64, config, np.random.default_rng(seed))
    cropped = crop(sample, 64, config, np.random.default_rng(seed))
    expected = apply_affine(A, project(sample.joints_cam_m, sample.K_px))
    np.testing.assert_allclose(project(cropped.joints_cam_m, cropped.K_px), expected, atol=1e-9)
    np.testing.assert_allclose(cropped.joints_cam_m[:, 2], sample.joints_cam_m[:, 2], atol=1e-12)
    low, high = cropped.box_px[:2] - 1e-6, cropped.box_px[2:] + 1e-6
    assert (expected >= low).all()
    assert (expected <= high).all()


@pytest.mark.parametrize("size_px", [24, 48, 400])
@pytest.mark.parametrize("rotation_deg", [0, 35, -120])
def test_the_picture_goes_where_the_joints_go(size_px, rotation_deg):
    """Shrinking, enlarging and turning: the dot stays on its joint to a fraction of a pixel of either picture."""
    sample = sample_at(11)
    A = crop_affine(sample.box_px, size_px, expand=1.8, rotation_rad=np.deg2rad(rotation_deg))
    cropped = warp(sample, A, size_px)
    pixel = max(1.0, np.sqrt(np.linalg.det(A[:2, :2])))
    joint = project(cropped.joints_cam_m, cropped.K_px)[7]
    assert np.linalg.norm(dot_centre(cropped.rgb) - joint) < 0.12 * pixel
    near = np.argwhere(cropped.depth_m == np.float32(0.5))[:, ::-1].mean(0)
    assert np.linalg.norm(near - joint) < 0.6 * pixel


def test_parameters_turn_about_the_wrist_with_the_camera():
    sample = sample_at(5)
    cropped = crop(sample, 64, CropConfig(rotation_jitter_deg=90.0), np.random.default_rng(1))
    root = sample.joints_cam_m[0] - sample.params.transl_m  # J0 does not move when the hand does
    np.testing.assert_allclose(cropped.joints_cam_m[0] - cropped.params.transl_m, root, atol=1e-12)
    turn = cropped.params.global_orient[0] @ sample.params.global_orient[0].T
    np.testing.assert_allclose(cropped.joints_cam_m, sample.joints_cam_m @ turn.T, atol=1e-9)


def test_shrinking_averages_instead_of_picking():
    """A fine checkerboard becomes grey, where bilinear sampling alone would give stripes."""
    sample = sample_at(6, size_wh=(400, 400))
    board = np.indices((400, 400)).sum(0) % 2 * 255
    checker = Sample(**{**vars(sample), "rgb": np.repeat(board[..., None], 3, 2).astype(np.uint8)})
    A = crop_affine(np.array([100.0, 100.0, 300.0, 300.0]), 64, expand=1.0)
    ours = warp(checker, A, 64).rgb[8:-8, 8:-8]
    plain = cv2.warpAffine(checker.rgb, A[:2], (64, 64))[8:-8, 8:-8]
    assert ours.std() < 30
    assert plain.std() > 2 * ours.std()


def test_depth_is_never_mixed():
    sample = sample_at(7)
    for seed in range(5):
        cropped = crop(sample, 90, CropConfig(), np.random.default_rng(seed))
        assert set(np.unique(cropped.depth_m)) <= {np.float32(0.0), np.float32(0.5), np.float32(0.9)}


def test_outside_the_picture_is_black_without_depth():
    sample = sample_at(8)
    cropped = crop(sample, 64, CropConfig(expand=8.0))
    assert not cropped.rgb[:4].any()
    assert not cropped.depth_m[:4].any()
    assert cropped.depth_m.any()


def test_evaluation_crops_are_fixed_and_training_crops_follow_the_seed():
    sample, config = sample_at(9), CropConfig()
    assert_same(crop(sample, 64, config), crop(sample, 64, config))
    assert_same(*(crop(sample, 64, config, np.random.default_rng(2)) for _ in range(2)))
    a, b = (crop(sample, 64, config, np.random.default_rng(seed)) for seed in (2, 3))
    assert np.abs(a.K_px - b.K_px).max() > 1
    centre = project(sample.joints_cam_m, sample.K_px)
    centre = (centre.min(0) + centre.max(0)) / 2
    A = crop_affine(sample.box_px, 64, expand=config.expand)
    np.testing.assert_allclose(apply_affine(A, centre), [31.5, 31.5], atol=1e-9)


def test_inputs_stay_unchanged():
    sample = sample_at(10, side="left")
    copy = sample.map(np.copy)
    augment_colors(crop(to_right(sample), 64, CropConfig(), np.random.default_rng(0)).rgb, np.random.default_rng(0))
    assert_same(sample, copy)


def test_colours_change_lightly_and_by_the_seed():
    rgb = np.random.default_rng(0).integers(60, 180, (32, 32, 3)).astype(np.uint8)
    a, b, c = (augment_colors(rgb, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (a.dtype, a.shape) == (np.uint8, rgb.shape)
    assert (a == b).all()
    assert (a != c).any()
    for seed in range(20):
        changed = augment_colors(rgb, np.random.default_rng(seed)).astype(float)
        assert 3 < np.abs(changed - rgb).mean() < 70
        assert np.corrcoef(changed.ravel(), rgb.ravel())[0, 1] > 0.7
