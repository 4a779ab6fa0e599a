"""Mesh metrics and scores of splits: equal to the official numbers and to naive versions, and their laws."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from utnet import metrics

GOLDEN = Path(__file__).parents[1] / "golden"
with np.load(GOLDEN / "metrics_official.npz") as arrays:
    ARRAYS = {name: arrays[name] for name in ("pred_joints", "gt_joints", "pred_vertices", "gt_vertices")}
SCORES = json.loads((GOLDEN / "metrics_official.json").read_text())
SEEDS = st.integers(0, 10_000)


def clouds(seed: int, num: int = 3, points: int = 60, noise_m: float = 0.006) -> dict[str, np.ndarray]:
    """Joints and meshes of a split with F-scores between 0 and 1."""
    rng = np.random.default_rng(seed)
    gt_joints = rng.normal(size=(num, 21, 3)) * 0.04 + rng.normal(size=(num, 1, 3))
    gt_vertices = rng.normal(size=(num, points, 3)) * (0.06, 0.02, 0.03) + gt_joints[:, :1]
    return {
        "pred_joints": gt_joints + rng.normal(size=gt_joints.shape) * noise_m,
        "gt_joints": gt_joints,
        "pred_vertices": gt_vertices + rng.normal(size=gt_vertices.shape) * noise_m,
        "gt_vertices": gt_vertices,
    }


def naive_f(pred: np.ndarray, gt: np.ndarray, threshold_m: float) -> float:
    distances = np.linalg.norm(pred[:, None] - gt[None], axis=-1)
    recall, precision = (distances.min(1) < threshold_m).mean(), (distances.min(0) < threshold_m).mean()
    return 2 * recall * precision / (recall + precision) if recall + precision > 0 else 0.0


def naive_align(pred: np.ndarray, gt: np.ndarray) -> np.ndarray:
    p, g = pred - pred.mean(0), gt - gt.mean(0)
    norm = np.linalg.norm(g) + 1e-8
    p, g = p / (np.linalg.norm(p) + 1e-8), g / norm
    R, scale = orthogonal_procrustes(g, p)
    return p @ R.T * scale * norm + gt.mean(0)


def assert_same(found: dict, expected: dict, tolerance: float):
    assert found.keys() == expected.keys()
    for name, scores in expected.items():
        assert found[name].keys() == scores.keys()
        for key, value in scores.items():
            assert abs(found[name][key] - value) <= tolerance, (name, key)


# ------------------------------------------------------------------------------------------------------------ official


def test_golden_scores():
    found = metrics.official_scores(**ARRAYS, scale_joint=4)
    assert_same(found, SCORES, 1e-9)
    tensors = {name: torch.from_numpy(array) for name, array in ARRAYS.items()}
    assert metrics.official_scores(**tensors, scale_joint=4) == found


def test_joints_alone_and_the_default_scale_joint():
    joints = ARRAYS["pred_joints"], ARRAYS["gt_joints"]
    found = metrics.official_scores(*joints)
    assert list(found) == ["joints/absolute", "joints/procrustes", "joints/scale_translation", "joints/root_relative"]
    middle = metrics.joint_errors_mm(*joints, align="scale_translation", scale_joint=9)
    assert found["joints/scale_translation"]["epe_mean_m"] == pytest.approx(middle.mean().item() / 1000, abs=1e-15)
    assert found["joints/scale_translation"] != SCORES["joints/scale_translation"]


def test_a_naive_loop_over_samples_and_vertices_gives_the_mesh_scores():
    data = clouds(1, num=5)
    found = metrics.official_scores(**data)
    for name in ("absolute", "procrustes"):
        pred = data["pred_vertices"]
        if name == "procrustes":
            pred = np.stack([naive_align(p, g) for p, g in zip(pred, data["gt_vertices"], strict=True)])
        errors = np.linalg.norm(pred - data["gt_vertices"], axis=-1)
        thresholds = np.linspace(0.0, 0.05, 100)
        areas = [np.trapezoid([(errors[:, v] <= t).mean() for t in thresholds], thresholds) / 0.05 for v in range(60)]
        scores = found[f"mesh/{name}"]
        assert scores["epe_mean_m"] == pytest.approx(errors.mean(0).mean(), abs=1e-13)
        assert scores["auc_0_50mm"] == pytest.approx(np.mean(areas), abs=1e-12)
        for key, threshold_m in (("f5", 0.005), ("f15", 0.015)):
            f = np.mean([naive_f(p, g, threshold_m) for p, g in zip(pred, data["gt_vertices"], strict=True)])
            assert 0 < f < 1
            assert scores[key] == pytest.approx(f, abs=1e-12)


def test_strict_alignment_does_not_mirror():
    data = clouds(2)
    mirrored = {name: a * (-1, 1, 1) if name.startswith("pred") else a for name, a in data.items()}
    loose, strict = (metrics.official_scores(**mirrored, allow_reflection=r) for r in (True, False))
    assert loose["joints/procrustes"]["epe_mean_m"] < 0.01 < strict["joints/procrustes"]["epe_mean_m"]
    assert loose["mesh/procrustes"]["epe_mean_m"] < 0.01 < strict["mesh/procrustes"]["epe_mean_m"]
    assert_same(metrics.official_scores(**data, allow_reflection=False), metrics.official_scores(**data), 1e-12)


def test_a_hand_without_size_is_scored_as_officially():
    gt = ARRAYS["gt_joints"][:3]
    found = metrics.official_scores(np.zeros_like(gt), gt)
    assert found["joints/absolute"]["epe_mean_m"] == pytest.approx(np.linalg.norm(gt, axis=-1).mean())
    centred = np.linalg.norm(gt - gt.mean(1, keepdims=True), axis=-1).mean()
    assert found["joints/procrustes"]["epe_mean_m"] == pytest.approx(centred)
    to_wrist = np.linalg.norm(gt - gt[:, :1], axis=-1).mean()
    assert found["joints/scale_translation"]["epe_mean_m"] == pytest.approx(to_wrist)


# --------------------------------------------------------------------------------------------------- parts of a split


@settings(max_examples=15)
@given(seed=SEEDS, cut=st.integers(1, 6))
def test_halves_combined_are_the_whole(seed, cut):
    data = clouds(seed, num=7)
    whole = metrics.sample_scores(**data)
    halves = [metrics.sample_scores(**{k: a[s] for k, a in data.items()}) for s in (slice(cut), slice(cut, None))]
    both = metrics.SampleScores.cat(halves)
    assert len(both) == len(whole) == 7
    assert_same(both.official(), whole.official(), 1e-13)


@settings(max_examples=15)
@given(seed=SEEDS)
def test_order_of_samples_does_not_matter(seed):
    data = clouds(seed, num=6)
    order = np.random.default_rng(seed).permutation(6)
    shuffled = metrics.official_scores(**{name: array[order] for name, array in data.items()})
    assert_same(shuffled, metrics.official_scores(**data), 1e-13)


def test_chunks_and_threads_do_not_matter(monkeypatch):
    data = clouds(4, num=9)
    expected = metrics.official_scores(**data)
    monkeypatch.setattr("utnet.metrics.mesh.usable_threads", lambda: 3)
    assert_same(metrics.official_scores(**data, chunk_size=2), expected, 1e-13)


def test_parts_keep_no_vertices():
    scores = metrics.sample_scores(**ARRAYS)
    mesh = scores.mesh["procrustes"]
    kept = [*scores.joints_mm.values()] + [t for m in scores.mesh.values() for t in (m.mean_mm, m.num_within, m.f)]
    assert sum(t.nbytes for t in kept) / len(scores) < 2000
    assert (np.diff(mesh.num_within, axis=1) >= 0).all()
    assert mesh.num_within.max() <= mesh.num_vertices == 778


def test_parts_that_are_not_one_split_are_refused():
    data = clouds(5)
    with_mesh = metrics.sample_scores(**data)
    joints = metrics.sample_scores(data["pred_joints"], data["gt_joints"])
    other = metrics.sample_scores(**clouds(5, points=50))
    for parts, what in (([with_mesh, joints], "combined"), ([with_mesh, other], "combined"), ([], "no parts")):
        with pytest.raises(ValueError, match=what):
            metrics.SampleScores.cat(parts)


@pytest.mark.parametrize("name", list(ARRAYS))
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_named_by_its_place_in_the_split(name, value):
    data = clouds(6, num=9)
    data[name][6, 3, 1] = value
    with pytest.raises(ValueError, match=f"{name} is NaN or inf in sample 6"):
        metrics.official_scores(**data, chunk_size=4)


def test_wrong_arguments_are_errors():
    data = clouds(7)
    with pytest.raises(ValueError, match="neither"):
        metrics.official_scores(data["pred_joints"], data["gt_joints"], data["pred_vertices"])
    with pytest.raises(ValueError, match=r"pred_joints.*\(3, 20, 3\)"):
        metrics.official_scores(data["pred_joints"][:, :20], data["gt_joints"])
    with pytest.raises(ValueError, match="benchmark's own mesh"):
        metrics.official_scores(**data | {"pred_vertices": data["pred_vertices"][:, 1:]})
    with pytest.raises(ValueError, match="different numbers of samples"):
        metrics.official_scores(**data | {n: data[n][:2] for n in ("pred_vertices", "gt_vertices")})
    with pytest.raises(ValueError, match="empty"):
        metrics.official_scores(**{name: array[:0] for name, array in data.items()})
    with pytest.raises(ValueError, match="scale_joint is 21"):
        metrics.official_scores(**data, scale_joint=21)


# ------------------------------------------------------------------------------------------------------------ F-scores


@settings(max_examples=40)
@given(
    seed=SEEDS,
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    apart=st.floats(0, 0.05),
    grid=st.booleans(),
)
def test_f_scores_are_a_brute_force_searchs(seed, sizes, apart, grid):
    rng = np.random.default_rng(seed)
    pred = rng.normal(size=(2, sizes[0], 3)) * (0.01, 0.05, 0.02) + apart
    gt = rng.normal(size=(2, sizes[1], 3)) * (0.01, 0.05, 0.02)
    if grid:  # distances equal to a threshold, equal coordinates, points that coincide
        pred, gt = np.rint(pred * 200) / 200, np.rint(gt * 200) / 200
    thresholds_mm = (2.0, 5.0, 15.0, 30.0)
    found = metrics.f_scores(pred, gt, thresholds_mm=thresholds_mm)
    expected = [[naive_f(p, g, t / 1000) for t in thresholds_mm] for p, g in zip(pred, gt, strict=True)]
    np.testing.assert_array_equal(found, expected)
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert (np.diff(found, axis=1) >= 0).all()


def test_f_is_below_the_threshold_not_at_it():
    gt = np.zeros((1, 1, 3))
    pred = np.array([[[0.0, 0.005, 0.0]]])
    assert metrics.f_scores(pred, gt).tolist() == [[0.0, 1.0]]
    assert metrics.f_scores(pred, gt, thresholds_mm=(5.0, np.nextafter(5.0, 6.0))).tolist() == [[0.0, 1.0]]


def test_f_is_one_at_the_truth_and_zero_far_off():
    gt = clouds(8)["gt_vertices"]
    assert (metrics.f_scores(gt, gt) == 1).all()
    assert (metrics.f_scores(gt[:, ::-1], gt) == 1).all()
    assert (metrics.f_scores(gt + 1.0, gt) == 0).all()


@pytest.mark.parametrize("thresholds", [(), (15.0, 5.0), (5.0, 5.0), (0.0, 5.0)])
def test_f_thresholds_must_increase(thresholds):
    gt = clouds(9)["gt_vertices"]
    with pytest.raises(ValueError, match="thresholds_mm"):
        metrics.f_scores(gt, gt, thresholds_mm=thresholds)


# ------------------------------------------------------------------------------------------------------- vertex errors


@settings(max_examples=15)
@given(seed=SEEDS, scale=st.floats(0.2, 5.0), rotvec=st.tuples(*[st.floats(-3, 3)] * 3), mirror=st.booleans())
def test_mesh_procrustes_scores_are_unmoved_by_any_similarity(seed, scale, rotvec, mirror):
    data = clouds(seed)
    R = Rotation.from_rotvec(rotvec).as_matrix() @ np.diag([-1.0 if mirror else 1.0, 1.0, 1.0])
    moved = data | {name: scale * data[name] @ R.T + 0.3 for name in ("pred_joints", "pred_vertices")}
    before, after = metrics.official_scores(**data), metrics.official_scores(**moved)
    for name in ("joints/procrustes", "mesh/procrustes"):
        assert after[name]["epe_mean_m"] == pytest.approx(before[name]["epe_mean_m"], abs=1e-7)
    # The 1e-8 in the norms moves points slightly, so single vertices may cross a threshold.
    assert abs(after["mesh/procrustes"]["f5"] - before["mesh/procrustes"]["f5"]) <= 2 / 60


def test_vertex_errors_agree_with_the_split():
    pred, gt = ARRAYS["pred_vertices"], ARRAYS["gt_vertices"]
    assert metrics.pve_mm(pred, gt).mean() / 1000 == pytest.approx(SCORES["mesh/absolute"]["epe_mean_m"], abs=1e-12)
    assert metrics.pa_pve_mm(pred, gt).mean() / 1000 == pytest.approx(
        SCORES["mesh/procrustes"]["epe_mean_m"], abs=1e-12
    )
    strict = metrics.pa_pve_mm(pred, gt, allow_reflection=False)
    assert (strict >= metrics.pa_pve_mm(pred, gt) - 1e-9).all()
    assert metrics.pa_pve_mm(gt, gt).max() < 1e-4


# -------------------------------------------------------------------------------------------------------------- DexYCB


def test_dexycb_scores_are_a_naive_loops_in_millimetres():
    data = clouds(10, num=12, noise_m=0.02)
    pred, gt = data["pred_joints"] * 1000, data["gt_joints"] * 1000
    found = metrics.dexycb_scores_mm(pred, gt)
    aligned = np.stack([naive_align(p, g) for p, g in zip(pred, gt, strict=True)])
    sides = {
        "absolute": (pred, gt),
        "root-relative": (pred - pred[:, :1], gt - gt[:, :1]),
        "procrustes": (aligned, gt),
    }
    assert found.keys() == sides.keys()
    thresholds = np.linspace(0.0, 50.0, 100)
    for name, (p, g) in sides.items():
        errors = np.linalg.norm(p - g, axis=-1)
        area = np.trapezoid([(errors <= t).mean() for t in thresholds], thresholds) / 50
        assert found[name]["mpjpe"] == pytest.approx(errors.mean(), abs=1e-11)
        assert found[name]["auc"] == pytest.approx(area, abs=1e-12)
