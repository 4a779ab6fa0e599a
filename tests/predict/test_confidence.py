"""The score of a mesh: what it is made of, that what speaks for a mesh never lowers it, and boxes without hands."""

import shutil
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from support.hands import random_hand
from utnet.checkpoint import find_checkpoint, shipped_networks
from utnet.errors import InputError
from utnet.geometry import intrinsics, mirror_points
from utnet.hand import HandModel
from utnet.predict import Predictor, confidence
from utnet.predict.confidence import ALONE, FEATURES, MOST_SCALE, Evidence, FeatureModel, error_scale, kind_of, score
from utnet.predict.evidence import apart_mm, depth_evidence, distance_mm, view_evidence
from utnet.render.raster import rasterize
from utnet.synth.poses import angles_to_pose

K = intrinsics(600.0, 600.0, 160.0, 120.0)
METHODS = ("fit", "network", "both")


def posed(curl_deg, turn=((1, 0, 0), (0, 1, 0), (0, 0, 1)), z_m=0.5):
    """Joints, vertices and faces of a hand half a metre away, its back to the camera or turned, its fingers bent."""
    hand = HandModel.open()
    angles = np.zeros((15, 3))
    angles[:12, 0] = np.deg2rad(curl_deg)
    back = np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0.0]])  # the palm's normal, -y, away from the camera
    pose = torch.from_numpy(angles_to_pose(angles)).float()[None]
    mesh = hand(torch.from_numpy(np.array(turn) @ back).float()[None, None], pose, torch.zeros(1, 10))
    shift = [0, 0, z_m] - mesh.joints_m[0].numpy().mean(0)
    return mesh.joints_m[0].numpy() + shift, mesh.vertices_m[0].numpy() + shift, hand.faces.numpy()


def test_a_fist_hides_joints_and_an_open_hand_none():
    open_visible, open_across = view_evidence(*posed(0), K)
    fist_visible, _ = view_evidence(*posed(85), K)
    assert open_visible > 0.8 > fist_visible + 0.3
    quarter = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0.0]])
    assert open_across > 0.95 > view_evidence(*posed(0, quarter), K)[1] + 0.3  # fingers along the line of sight


def test_depth_speaks_for_the_mesh_that_it_was_measured_of():
    _, vertices, faces = posed(20)
    depth = rasterize(vertices, faces, K, (320, 240)).depth_m
    assert depth_evidence(vertices, faces, depth, K) == pytest.approx((0.0, 1.0), abs=0.01)
    near, share = depth_evidence(vertices + [0, 0, 0.01], faces, depth, K)
    assert near == pytest.approx(10, abs=1)
    assert share > 0.8
    assert depth_evidence(vertices + [0, 0, 0.2], faces, depth, K) == (25.0, 0.0)


def test_joints_are_compared_up_to_a_similarity_that_is_no_mirror():
    joints = posed(20)[0]
    assert apart_mm(3 * joints[:, [1, 2, 0]] + 1, joints) < 1e-3
    assert apart_mm(mirror_points(joints), joints) > 5
    assert distance_mm(joints + 1, joints) < 1e-3
    assert distance_mm(joints[:, [1, 2, 0]], joints) > 20  # orientation counts
    assert np.isnan(apart_mm(np.full((21, 3), np.nan), joints))


def test_what_speaks_for_a_mesh_never_lowers_its_score():
    rng = np.random.default_rng(0)
    for method in METHODS:
        for with_depth in (False, True):
            kind = kind_of(method, with_depth=with_depth)
            features = rng.normal(0, 2, len(FEATURES))
            for i in range(len(FEATURES)):
                more = features.copy()
                more[i] += 1
                assert 0 <= score(kind, features) <= score(kind, more) <= 1


def test_features_grow_with_what_speaks_for_a_mesh():
    good = Evidence(0.9, 0.9, 2.0, 2.0, 5.0, 3.0, 20.0, 150.0, 1.0, 0.9, 0.8, 5.0, 0.8, 2.0, 0.9, 5.0, 3.0)
    bad = Evidence(0.5, 0.6, 9.0, 9.0, 15.0, 30.0, 200.0, 30.0, 0.5, 0.5, -0.8, 20.0, 0.4, 20.0, 0.2, 40.0, 30.0)
    assert (good.features() > bad.features()).all()
    certain = Evidence(1.0, 1.0, *[np.nan] * 13).features()
    assert np.isfinite(certain[:2]).all()
    assert np.isnan(certain[2:7]).all()


def test_a_model_is_read_as_it_was_written():
    rng = np.random.default_rng(1)
    weights = np.round(np.maximum(rng.normal(size=len(FEATURES)), 0), 3)
    model = FeatureModel(0.25, weights, np.where(weights > 0, np.round(rng.normal(size=len(FEATURES)), 3), 0))
    again = FeatureModel.from_dict(model.to_dict())
    x = rng.normal(size=(4, len(FEATURES)))
    np.testing.assert_array_equal(again.probability(x), model.probability(x))
    unknown = x.copy()
    unknown[:, 3] = np.nan
    x[:, 3] = model.mean[3]
    np.testing.assert_allclose(model.probability(unknown), model.probability(x))


GOOD = Evidence(0.99, 0.99, 2.0, 2.0, 5.0, 3.0, 0.02, 150.0, 1.0, 0.9, 0.8, 20.0, 0.8, 2.0, 0.9, 15.0, 6.0)
BAD = {"presence": 0.6, "side_probability": 0.6, "looks_percent": 8.0, "lifted_mm": 60.0, "network_distance_mm": 60.0}


@pytest.mark.parametrize("method", ["network", "both"])
@pytest.mark.parametrize("with_depth", [False, True])
def test_expected_errors_depend_on_the_evidence_and_not_only_on_what_the_network_states(method, with_depth):
    kind = kind_of(method, with_depth=with_depth)
    off = replace(GOOD, landmarks_mm=25.0, network_mm=25.0, fit_cost=0.1, mask_iou=0.3, presence=0.7, depth_mm=20.0)
    assert error_scale(kind, off) > error_scale(kind, GOOD)
    base = GOOD if with_depth else replace(GOOD, depth_mm=np.nan, depth_share=np.nan)
    for field, worse in BAD.items():
        assert error_scale(kind, replace(base, **{field: worse})) >= error_scale(kind, base) > 0
    extreme = Evidence(*(1e6 if field.name == "landmarks_mm" else 20.0 for field in fields(Evidence)))
    assert 1 / MOST_SCALE <= error_scale(kind, extreme) <= MOST_SCALE
    assert error_scale(kind_of("fit", with_depth=with_depth), GOOD) == 1


def test_every_model_of_errors_has_intervals():
    tree = confidence._read()
    assert (
        tree["errors"].keys()
        == tree["intervals"].keys()
        == {kind_of(method, with_depth=depth) for method in ("network", ALONE, "both") for depth in (False, True)}
    )


@pytest.mark.parametrize("model", [*confidence._read()["intervals"], None])
def test_intervals_are_multiples_of_the_expected_errors(model):
    rng = np.random.default_rng(3)
    error_mm = np.append(0, rng.uniform(2, 30, 20))
    hand = random_hand(rng, joint_error_mm=error_mm, error_model=model)
    half, most = hand.joint_interval_mm(0.5), hand.joint_interval_mm(0.9)
    assert half[0] == most[0] == 0
    assert (half[1:] < error_mm[1:]).all()  # errors have a long tail: their median is below their mean
    assert (error_mm[1:] < most[1:]).all()
    np.testing.assert_allclose(most[1:] / error_mm[1:], most[1] / error_mm[1])
    with pytest.raises(InputError, match=r"probability.*0\.5 or 0\.9"):
        hand.joint_interval_mm(0.8)
    with pytest.raises(InputError, match="joint_error_mm"):
        replace(hand, joint_error_mm=None).joint_interval_mm()
    if model is None:  # the network's own: other weights
        np.testing.assert_allclose(most, 1.7 * error_mm)


@pytest.mark.skipif(not shipped_networks(), reason="no bundled weights")
def test_expected_errors_of_other_weights_are_the_network_s_own(tmp_path):
    """The constants belong to the bundled network; a file with the same numbers counts as another."""
    other = tmp_path / "other.onnx"
    shutil.copy(find_checkpoint("ti") / "network.onnx", other)
    rgb, box = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8), [20, 20, 76, 76]
    (ours,), (theirs,) = (
        Predictor(weights)(rgb, boxes=[box], sides=["right"], K_px=K) for weights in ("ti", str(other))
    )
    scale = ours.joint_error_mm[1:] / theirs.joint_error_mm[1:]
    np.testing.assert_allclose(scale, error_scale(kind_of("network", with_depth=False), ours.evidence), rtol=1e-5)
    assert abs(scale.mean() - 1) > 0.01


@pytest.mark.skipif(not shipped_networks(), reason="no bundled weights")
def test_expected_errors_of_several_hands_equal_those_one_by_one():
    predictor = Predictor(method="network")
    rgb, boxes = (
        np.random.default_rng(4).integers(0, 255, (96, 128, 3), dtype=np.uint8),
        [[5, 5, 70, 80], [40, 9, 120, 90]],
    )
    together = predictor(rgb, boxes=boxes, sides=["right", "left"], K_px=K)
    for hand, box in zip(together, boxes, strict=True):
        (alone,) = predictor(rgb, boxes=[box], sides=[hand.side], K_px=K)
        np.testing.assert_allclose(hand.joint_error_mm, alone.joint_error_mm, rtol=1e-4)
        assert (hand.joint_error_mm[1:] > 0).all()
        assert np.isfinite(hand.evidence.lifted_mm)


@pytest.mark.skipif(not shipped_networks(), reason="no bundled weights")
@pytest.mark.parametrize("method", METHODS)
def test_a_box_round_no_hand_has_a_low_score(method):
    """Also where the method asks for no landmarks, and the side is given."""
    predictor = Predictor(method=method)
    rng = np.random.default_rng(2)
    picture = np.repeat(np.repeat(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8), 10, 0), 10, 1)
    depth_m = np.full((240, 320), 0.6, np.float32)
    for depth in (None, depth_m):
        for hand in predictor(picture, depth, boxes=[[40, 40, 160, 180], [200, 30, 300, 140]], sides=["right", "left"]):
            assert hand.score < 0.2
            assert hand.presence < 0.5
