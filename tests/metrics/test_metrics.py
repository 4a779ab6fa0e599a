"""Metrics: equal to the official numbers, and their laws."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from utnet import metrics
from utnet.conventions import MANO21_TO_OPENPOSE

GOLDEN = Path(__file__).parents[1] / "golden"
with np.load(GOLDEN / "metrics_official.npz") as arrays:
    PRED, GT = arrays["pred_joints"], arrays["gt_joints"]
    PRED_MESH, GT_MESH = arrays["pred_vertices"], arrays["gt_vertices"]
SCORES = json.loads((GOLDEN / "metrics_official.json").read_text())


def hands(seed: int, num: int = 6) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gt = rng.normal(size=(num, 21, 3)) * 0.05 + rng.normal(size=(num, 1, 3))
    return gt + rng.normal(size=gt.shape) * 0.015, gt


def assert_scores(errors_mm, expected):
    found = metrics.summary(errors_mm)
    assert abs(found["mean_mm"] / 1000 - expected["epe_mean_m"]) < 1e-12
    assert abs(found["median_mm"] / 1000 - expected["epe_median_m"]) < 1e-12
    assert abs(found["auc"] - expected["auc_0_50mm"]) < 1e-9


@pytest.mark.parametrize(
    ("align", "key"), [("none", "absolute"), ("root", "root_relative"), ("procrustes", "procrustes")]
)
def test_official_scores(align, key):
    assert_scores(metrics.joint_errors_mm(PRED, GT, align=align), SCORES[f"joints/{key}"])


def test_official_scale_translation():
    # The golden arrays are scored as given, with the bone 0-4, which is wrist to middle knuckle in HO3D's order.
    pred, gt = PRED, GT
    aligned = metrics.align_scale_translation(pred, gt, joints=(0, 4))
    assert_scores(metrics.joint_errors_mm(aligned, gt), SCORES["joints/scale_translation"])
    # In the project's joint order the same bone is the default.
    order = list(MANO21_TO_OPENPOSE)
    assert_scores(
        metrics.joint_errors_mm(PRED[:, order], GT[:, order], align="scale_translation"),
        SCORES["joints/scale_translation"],
    )


def test_sample_means_are_the_means():
    np.testing.assert_allclose(metrics.mpjpe_mm(PRED, GT).mean() / 1000, SCORES["joints/root_relative"]["epe_mean_m"])
    np.testing.assert_allclose(
        metrics.mpjpe_mm(PRED, GT, root_id=None).mean() / 1000, SCORES["joints/absolute"]["epe_mean_m"]
    )
    np.testing.assert_allclose(metrics.pa_mpjpe_mm(PRED, GT).mean() / 1000, SCORES["joints/procrustes"]["epe_mean_m"])
    assert metrics.mpjpe_mm(PRED, GT).shape == metrics.pa_mpjpe_mm(PRED, GT).shape == (len(PRED),)


@pytest.mark.parametrize("align", metrics.ALIGNMENTS)
def test_zero_at_the_truth(align):
    assert metrics.joint_errors_mm(GT, GT, align=align).max() < 1e-4  # 1e-8 in each norm of the official alignment
    assert metrics.summary(metrics.joint_errors_mm(GT, GT, align=align))["auc"] > 0.994


def test_known_distance():
    gt = np.zeros((2, 21, 3))
    pred = gt.copy()
    pred[:, :, 0], pred[:, :, 1] = 0.003, 0.004
    np.testing.assert_allclose(metrics.joint_errors_mm(pred, gt), 5.0)
    np.testing.assert_allclose(metrics.mpjpe_mm(pred, gt, root_id=None), 5.0)
    np.testing.assert_allclose(metrics.mpjpe_mm(pred, gt), 0.0)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(0.2, 5.0),
    rotvec=st.tuples(*[st.floats(-3, 3)] * 3),
    shift=st.tuples(*[st.floats(-2, 2)] * 3),
    mirror=st.booleans(),
)
def test_pa_is_unmoved_by_any_similarity(seed, scale, rotvec, shift, mirror):
    pred, gt = hands(seed)
    R = Rotation.from_rotvec(rotvec).as_matrix() @ np.diag([-1.0 if mirror else 1.0, 1.0, 1.0])
    moved = scale * pred @ R.T + shift
    np.testing.assert_allclose(metrics.pa_mpjpe_mm(moved, gt), metrics.pa_mpjpe_mm(pred, gt), atol=1e-4)
    assert metrics.pa_mpjpe_mm(scale * gt @ R.T + shift, gt).max() < 1e-3


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), shift=st.tuples(*[st.floats(-2, 2)] * 6))
def test_root_relative_is_unmoved_by_translating_either_side(seed, shift):
    pred, gt = hands(seed)
    moved = metrics.mpjpe_mm(pred + shift[:3], gt + shift[3:])
    np.testing.assert_allclose(moved, metrics.mpjpe_mm(pred, gt), atol=1e-9)


def test_root_relative_root_is_exact():
    errors = metrics.joint_errors_mm(PRED, GT, align="root", root_id=9)
    assert errors[:, 9].max() == 0
    assert errors[:, 0].min() > 0


@pytest.mark.parametrize("align", metrics.ALIGNMENTS)
def test_order_and_partition_do_not_matter(align):
    pred, gt = hands(3, 10)
    whole = metrics.joint_errors_mm(pred, gt, align=align)
    parts = [metrics.joint_errors_mm(pred[i:j], gt[i:j], align=align) for i, j in ((0, 3), (3, 4), (4, 10))]
    np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=1e-10)
    order = np.random.default_rng(0).permutation(10)
    shuffled = metrics.joint_errors_mm(pred[order], gt[order], align=align)
    np.testing.assert_allclose(shuffled, whole[order], rtol=0, atol=1e-10)
    for key, value in metrics.summary(whole).items():
        assert metrics.summary(shuffled)[key] == pytest.approx(value, rel=1e-12)
        assert metrics.summary(np.concatenate(parts))[key] == pytest.approx(value, rel=1e-12)


def test_pck_counts_what_is_at_most_the_threshold():
    errors = np.array([[0.0, 25.0], [50.0, 50.001]])
    thresholds, fractions = metrics.pck_curve(errors, num=3)
    assert thresholds.tolist() == [0.0, 25.0, 50.0]
    assert fractions.tolist() == [0.25, 0.5, 0.75]
    assert metrics.auc(errors, num=3) == pytest.approx((0.25 / 2 + 0.5 + 0.75 / 2) / 2)


def test_auc_agrees_with_a_naive_loop():
    errors = metrics.joint_errors_mm(*hands(5, 4), align="procrustes")
    thresholds = np.linspace(0, 50, 100)
    curves = [[np.mean(errors[:, j] <= t) for t in thresholds] for j in range(21)]
    assert metrics.auc(errors) == pytest.approx(np.mean([np.trapezoid(c, thresholds) / 50 for c in curves]), abs=1e-12)
    assert metrics.auc(np.zeros((2, 21))) == 1.0
    assert metrics.auc(np.full((2, 21), 50.1)) == 0.0


@pytest.mark.parametrize("num", [1, 2, 5])
def test_median_is_numpys(num):
    errors = np.random.default_rng(num).uniform(0, 60, (num, 21))
    assert metrics.summary(errors)["median_mm"] == pytest.approx(np.median(errors, 0).mean())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("side", ["pred_m", "gt_m"])
@pytest.mark.parametrize("align", metrics.ALIGNMENTS)
def test_what_is_not_finite_is_an_error(value, side, align):
    arrays = {"pred_m": PRED.copy(), "gt_m": GT.copy()}
    arrays[side][5, 7, 1] = value
    with pytest.raises(ValueError, match=f"{side} is NaN or inf in sample 5"):
        metrics.joint_errors_mm(**arrays, align=align)


def test_errors_that_are_not_finite_are_refused_too():
    for function in (metrics.summary, metrics.auc):
        with pytest.raises(ValueError, match="NaN or inf"):
            function(np.array([[1.0, np.nan]]))


def test_wrong_shapes_and_names_are_errors():
    with pytest.raises(ValueError, match=r"\(24, 20, 3\).*\(24, 21, 3\)"):
        metrics.mpjpe_mm(PRED[:, :20], GT)
    with pytest.raises(ValueError, match=r"\(21, 3\), expected \(any, any, 3\)"):
        metrics.mpjpe_mm(PRED[0], GT[0])
    with pytest.raises(ValueError, match="empty"):
        metrics.mpjpe_mm(PRED[:0], GT[:0])
    with pytest.raises(ValueError, match="'procrustes'"):
        metrics.joint_errors_mm(PRED, GT, align="pa")


@pytest.mark.parametrize("align", metrics.ALIGNMENTS)
def test_arrays_and_tensors_are_the_same_and_unchanged(align):
    pred, gt = PRED.copy(), GT.copy()
    expected = metrics.joint_errors_mm(pred, gt, align=align)
    tensors = torch.from_numpy(pred).requires_grad_(), torch.from_numpy(gt)
    np.testing.assert_array_equal(metrics.joint_errors_mm(*tensors, align=align), expected)
    assert np.array_equal(pred, PRED)
    assert np.array_equal(gt, GT)
    halves = metrics.joint_errors_mm(torch.from_numpy(PRED).float(), torch.from_numpy(GT).float(), align=align)
    assert halves.dtype == np.float64
    np.testing.assert_allclose(halves, expected, atol=1e-3)
    flipped = metrics.joint_errors_mm(PRED[::-1], GT[::-1], align=align)  # negative strides
    np.testing.assert_allclose(flipped, expected[::-1], rtol=0, atol=1e-10)
