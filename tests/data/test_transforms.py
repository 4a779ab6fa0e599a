"""Mirror and crop: what moves the picture moves everything else by the same affine."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.laws import assert_labels_agree
from support.samples import sample_at, with_everything
from support.trees import dexycb_tree
from utnet.config import CropConfig
from utnet.data import open_source
from utnet.data.transforms import crop, mirror, right_crop, to_right, warp
from utnet.geometry import apply_affine, crop_affine, crop_camera, jittered_crop_affine, project
from utnet.hand import HandModel
from utnet.types import Sample

SEEDS = st.integers(0, 10_000)


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


@settings(max_examples=20)
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
    crop(to_right(sample), 64, CropConfig(), np.random.default_rng(0))
    right_crop(sample, 64, CropConfig(), np.random.default_rng(0))
    assert_same(sample, copy)


# -------------------------------------------------------------------------------------------- every field, every source


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("seed", [None, 3, 4])
def test_one_affine_is_mirroring_and_then_cropping(side, seed):
    """Labels to the last digit; pixels but for the rounding of where they are sampled."""
    sample = with_everything(sample_at(12, side=side))
    sample = replace(sample, landmarks_m=sample.joints_cam_m)
    rng = [None if seed is None else np.random.default_rng(seed) for _ in range(2)]
    one, two = right_crop(sample, 96, CropConfig(), rng[0]), crop(to_right(sample), 96, CropConfig(), rng[1])
    assert one.side == two.side == "right"
    for name in ("K_px", "box_px", "joints_cam_m", "joints_px", "vertices_cam_m"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    np.testing.assert_allclose(one.landmarks_m, one.joints_cam_m, atol=1e-12)
    for name in ("global_orient", "hand_pose", "betas", "transl_m"):
        np.testing.assert_array_equal(getattr(one.params, name), getattr(two.params, name), err_msg=name)
    assert np.abs(one.rgb.astype(int) - two.rgb).max() <= 10
    assert np.abs(one.rgb.astype(int) - two.rgb).mean() < 0.2
    for name in ("depth_m", "hand_mask"):
        assert (getattr(one, name) != getattr(two, name)).mean() < 0.01, name


@pytest.mark.parametrize("box", [(100, 80, 160, 150), (-40, -30, 700, 500), (2, 2, 630, 470)])
def test_a_mirrored_view_is_cropped_as_the_copy(box):
    noise = np.random.default_rng(3).integers(0, 256, (480, 640, 3), np.uint8)
    sample = replace(sample_at(3, side="left", size_wh=(640, 480)), rgb=noise, box_px=np.array(box, float))
    one, two = (crop(to_right(sample, copy=copy), 96, CropConfig()) for copy in (True, False))
    np.testing.assert_array_equal(one.rgb, two.rgb)


@pytest.mark.parametrize("K_px", [True, False])
@pytest.mark.parametrize("side", ["right", "left"])
def test_labels_of_the_picture_mesh_and_mask_move_along_and_nan_stays_nan(side, K_px):
    plain = sample_at(13, side=side)
    sample, config = with_everything(plain, K_px=K_px), CropConfig(rotation_jitter_deg=120)
    moved = right_crop(sample, 80, config, np.random.default_rng(2))
    truth = right_crop(plain, 80, config, np.random.default_rng(2))
    expected = project(truth.joints_cam_m, truth.K_px)
    rest = np.arange(21) != 9
    np.testing.assert_allclose(moved.joints_px[rest], expected[rest], atol=1e-9)
    rest = np.arange(21) != 5
    np.testing.assert_allclose(moved.joints_cam_m[rest], truth.joints_cam_m[rest], atol=1e-12)
    for unlabelled in (moved.joints_px[9], moved.joints_cam_m[5], moved.params.transl_m):
        assert np.isnan(unlabelled).all()
    np.testing.assert_array_equal(moved.params.global_orient, truth.params.global_orient)
    np.testing.assert_array_equal(moved.hand_mask, truth.depth_m == np.float32(0.5))
    assert moved.hand_mask.dtype == bool
    assert (moved.K_px is None) is not K_px
    joints = sample_at(13, side=side).joints_cam_m + 0.01
    joints = joints * ([-1, 1, 1] if side == "left" else [1, 1, 1])
    A = jittered_crop_affine(to_right(plain).box_px, 80, config, np.random.default_rng(2))
    np.testing.assert_allclose(moved.vertices_cam_m, joints @ crop_camera(A, None)[1].T, atol=1e-6)


def test_a_ready_crop_passes_and_must_have_the_models_size():
    sample = replace(sample_at(14, size_wh=(64, 64)), is_crop=True)
    assert right_crop(sample, 64, CropConfig(), np.random.default_rng(0)) is sample
    with pytest.raises(ValueError, match="test/14: a ready crop of 64 px, the model takes 96 px"):
        right_crop(sample, 96, CropConfig())


@pytest.mark.parametrize("shrink", [0.7, 1.3, 1.9, 2.6, 5.3])
@pytest.mark.parametrize("size_wh", [(400, 400), (331, 277)])
def test_shrinking_is_near_exact_averaging(shrink, size_wh):
    """Against sampling eight times finer and averaging, on a smooth random picture, up to the picture's edges."""
    noise = np.random.default_rng(0).integers(0, 256, (*size_wh[::-1], 3)).astype(np.uint8)
    rgb = cv2.GaussianBlur(noise, (0, 0), 0.8)
    rgb = cv2.normalize(rgb, None, 0, 255, cv2.NORM_MINMAX)
    side = int(240 / shrink)
    sample = replace(sample_at(6, size_wh=size_wh), rgb=rgb)
    # The square reaches over the right and the lower edge.
    box = np.array([size_wh[0] - 180.0, size_wh[1] - 160.0, size_wh[0] - 60.0, size_wh[1] - 40.0])
    A = crop_affine(box, side, rotation_rad=0.1)
    finer = np.array([[8, 0, 3.5], [0, 8, 3.5], [0, 0, 1.0]]) @ A
    exact = cv2.resize(cv2.warpAffine(rgb, finer[:2], (8 * side, 8 * side)), (side, side), interpolation=cv2.INTER_AREA)
    plain = cv2.warpAffine(rgb, A[:2], (side, side))
    ours, bilinear = (np.sqrt(((p.astype(float) - exact) ** 2).mean()) for p in (warp(sample, A, side).rgb, plain))
    assert ours < (1.001 if shrink < 1 else 0.72) * bilinear, (ours, bilinear)


@pytest.mark.parametrize("fx_over_fy", [1.0, 1.25])
def test_the_law_holds_after_every_transform_left_and_right(fx_over_fy):
    """docs/design.md: parameters, joints, camera and depth of written hands still agree, fx equal to fy or not."""
    source, hands = open_source("dexycb", dexycb_tree(), split="train"), {}
    sides, agree = [], []
    for index in range(0, len(source), 3):
        sample = source[index]
        if fx_over_fy != 1.0:
            sample = stretched(sample, fx_over_fy)
        hand = hands.setdefault(sample.side, HandModel.open(sample.side))
        sides.append(sample.side)
        config, rng = CropConfig(rotation_jitter_deg=180.0, scale_jitter=0.3), np.random.default_rng(index)
        for moved in (sample, mirror(sample), crop(sample, 128, config, rng), right_crop(sample, 128, config, rng)):
            agree.append(assert_labels_agree(moved, hand))
    assert set(sides) == {"right", "left"}
    assert np.mean(agree) > 0.4


def stretched(sample: Sample, factor: float) -> Sample:
    """The same view by a camera whose fx is `factor` times as large."""
    height, width = sample.rgb.shape[:2]
    size_wh, stretch = (round(width * factor), height), np.diag([factor, 1.0, 1.0])
    stretch[0, 2] = (factor - 1) / 2
    corners = apply_affine(stretch, sample.box_px.reshape(2, 2))
    return replace(
        sample,
        rgb=cv2.resize(sample.rgb, size_wh),
        depth_m=cv2.resize(sample.depth_m, size_wh, interpolation=cv2.INTER_NEAREST),
        K_px=stretch @ sample.K_px,
        box_px=corners.ravel(),
    )
