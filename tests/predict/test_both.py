"""The method `both`: what a network says and what landmarks say, in one hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from support.fitting import SIZE_WH, K, decode, error_mm, landmarks_of, make_hands, scene
from utnet.checkpoint import DEFAULT_NETWORK, save_checkpoint
from utnet.config import Config, ModelConfig
from utnet.conventions import PARENTS
from utnet.detect import Detection
from utnet.errors import InputError
from utnet.fit import HandFitter
from utnet.fit.angles import pose_to_angles
from utnet.fit.landmarks import bone_directions, mean_directions
from utnet.fit.priors import angle_prior, expecting
from utnet.geometry import axis_angle_to_matrix, box_of, mirror_camera, mirror_params, mirror_points, project
from utnet.model import UTNet
from utnet.predict import Predictor
from utnet.predict.fitting import BothLifter
from utnet.predict.lifting import RightHands
from utnet.predict.method import choose
from utnet.render.raster import rasterize
from utnet.synth.poses import AXES
from utnet.types import HandParams

INDEX = [5, 6, 7, 8]


@pytest.fixture(scope="module")
def fitter():
    return HandFitter(landmarks="joints")


def shaken(params, degrees, seed=3):
    """Other fingers: each joint turned by so much about a random axis."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=(*params.hand_pose.shape[:2], 3))
    axis *= np.deg2rad(degrees) / np.linalg.norm(axis, axis=-1, keepdims=True)
    turned = params.hand_pose @ axis_angle_to_matrix(axis)
    return HandParams(params.global_orient, turned, params.betas, params.transl_m)


# ----------------------------------------------------------------------------------------------------------- the fit


def test_who_is_told_the_truth_finds_it(fitter):
    params, joints, landmarks = scene(20)
    alone = error_mm(fitter, fitter(*landmarks, betas=params.betas), joints).mean(1)
    told = error_mm(fitter, fitter(*landmarks, betas=params.betas, expected=params), joints).mean(1)
    assert told.max() < 1.0 < alone.max()
    assert (told < alone + 0.1).all()


def test_an_expectation_helps_where_landmarks_in_depth_do_not(fitter):
    """Relative depths as a poor landmark network gives them: the joints' places in the picture stay what they are."""
    params, joints, (px, xyz, K_px) = scene(20)
    flat = xyz * [1.0, 1.0, 0.3]
    alone = fitter(px, flat, K_px, betas=params.betas)
    told = fitter(px, flat, K_px, betas=params.betas, expected=shaken(params, 8))
    assert error_mm(fitter, told, joints).mean() < 0.7 * error_mm(fitter, alone, joints).mean()
    assert np.median(np.linalg.norm(project(decode(fitter, told)[0], K) - px, axis=-1)) < 1.5


def test_a_finger_that_is_not_seen_is_as_expected(fitter):
    params, _, (px, xyz, K_px) = scene(10, seed=4)
    px[:, INDEX], xyz[:, INDEX] = np.nan, np.nan
    alone, told = (fitter(px, xyz, K_px, betas=params.betas, expected=e) for e in (None, params))
    bent, relaxed, true = (
        np.stack([pose_to_angles(pose, AXES)[:3, 0] for pose in hands.hand_pose]) for hands in (told, alone, params)
    )  # of the index finger
    assert np.abs(bent - true).max() < np.deg2rad(8)  # the last joint would bend with the middle one
    assert np.abs(relaxed - true).mean() > 4 * np.abs(bent - true).mean()


def test_an_expectation_that_contradicts_the_picture_does_not_move_it(fitter):
    params, joints, (px, xyz, K_px) = scene(20, seed=5)
    other = make_hands(20, seed=6)
    told = fitter(px, xyz, K_px, betas=params.betas, expected=other)
    apart = np.linalg.norm(project(decode(fitter, told)[0], K) - px, axis=-1).mean(1)
    assert (apart / np.ptp(px, axis=1).max(1)).max() < 0.05
    assert error_mm(fitter, told, joints).mean() < 12 < 0.2 * error_mm(fitter, other, joints).mean()


@pytest.mark.parametrize("nearer", [0.1, 0.35, 3.0, -1.0])
def test_where_the_expected_hand_is_is_of_no_account(fitter, nearer):
    """Also behind the camera: only fingers, bones and shape are asked for."""
    params, _, landmarks = scene(10, seed=10)
    moved = HandParams(params.global_orient, params.hand_pose, params.betas, nearer * params.transl_m)
    told, there = (decode(fitter, fitter(*landmarks, expected=expected))[0] for expected in (moved, params))
    np.testing.assert_allclose(told, there, atol=1e-9)


def test_the_expected_shape_sizes_the_hand_within_what_is_usual(fitter):
    params, joints, landmarks = scene(10, seed=11)
    alone, told = (error_mm(fitter, fitter(*landmarks, expected=e), joints).mean() for e in (None, params))
    assert told < 0.5 * alone
    far, most = (
        HandParams(params.global_orient, params.hand_pose, np.full_like(params.betas, value), params.transl_m)
        for value in (9.0, 2.0)
    )
    found = (decode(fitter, fitter(*landmarks, expected=expected))[0] for expected in (far, most))
    np.testing.assert_allclose(next(found), next(found), atol=1e-9)


def test_an_expectation_goes_with_a_start_and_with_depth():
    fitter = HandFitter(landmarks="joints")
    params, joints, landmarks = scene(4, seed=12, fitter=fitter)
    vertices = decode(fitter, params)[1]
    depth = [rasterize(v, fitter.hand.faces.numpy(), K, SIZE_WH).depth_m for v in vertices]
    found = fitter.fit(*landmarks, depth_m=depth, start=shaken(params, 10), expected=shaken(params, 10))
    assert found.measured.all()
    assert np.linalg.norm(decode(fitter, found.params)[0] - joints, axis=-1).mean() < 0.006


def test_expectations_of_another_number_or_without_numbers_are_refused(fitter):
    params, _, (px, xyz, K_px) = scene(3, seed=13)
    with pytest.raises(ValueError, match=r"expected\.global_orient"):
        fitter(px[:2], xyz[:2], K_px[:2], expected=params)
    params.betas[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"start\.betas holds NaN"):
        fitter(px, xyz, K_px, start=params)


def test_hands_with_expectations_do_not_touch_each_other(fitter):
    params, _, (px, xyz, K_px) = scene(3, seed=7)
    expected = shaken(params, 20)
    together = decode(fitter, fitter(px, xyz, K_px, expected=expected))[0]
    for i in range(3):
        one = slice(i, i + 1)
        alone = fitter(px[one], xyz[one], K_px[one], expected=expected.map(lambda array, one=one: array[one]))
        np.testing.assert_allclose(decode(fitter, alone)[0][0], together[i], atol=1e-9)


def test_expectations_keep_to_what_a_hand_can_do():
    prior = angle_prior()
    wild = expecting(prior, np.random.default_rng(0).uniform(-9, 9, (15, 3)))
    assert ((wild[3] >= prior[0]) & (wild[3] <= prior[1])).all()
    np.testing.assert_array_equal(wild[:3], prior[:3])
    assert (wild[4, :, 0] > prior[4, :, 0]).all()  # it pulls more than rest does


def test_directions_of_two_observers():
    rng = np.random.default_rng(1)
    one, other = (bone_directions(rng.normal(size=(21, 3)), np.ones(21, bool)) for _ in range(2))
    np.testing.assert_allclose(mean_directions(one, other), mean_directions(other, one))
    np.testing.assert_allclose(mean_directions(one, one), one)
    np.testing.assert_allclose(mean_directions(one, -one), 0)
    np.testing.assert_array_equal(mean_directions(one, np.zeros_like(one)), one)
    np.testing.assert_array_equal(mean_directions(np.zeros_like(one), one), one)
    missing = bone_directions(rng.normal(size=(21, 3)), np.arange(21) != 6)
    gone = [child - 1 for child, parent in enumerate(PARENTS) if child == 6 or parent == 6]
    np.testing.assert_array_equal(np.flatnonzero(~missing.any(1)), gone)


# ------------------------------------------------------------------------------------------------------- the predictor


class Knowing:
    """A network that says given right hands, whatever it sees."""

    weights, hand_model = "known", "open"

    def __init__(self, hand, params, joints_cam_m):
        self.hand, self.faces = hand, hand.faces.numpy()
        self._said = RightHands(params, joints_cam_m, np.zeros((len(joints_cam_m), 1, 3)), np.zeros(1, bool))

    def __call__(self, samples):
        return self._said


@pytest.fixture
def untrained(tmp_path):
    config = Config(model=ModelConfig(preset="ti", size_px=64))
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "best", UTNet(config.model), config, step=0)
    return tmp_path / "best"


def test_left_hands_are_mirrored_right_ones(untrained):
    """The whole way, with a network: a picture in a mirror gives the mirrored hand."""
    predictor = Predictor(untrained, method="both", device="cpu")
    _, joints, _ = scene(1, seed=8)
    rgb = np.random.default_rng(0).integers(0, 255, (480, 640, 3), dtype=np.uint8)
    px = project(joints[0], K)
    right = Detection("right", 0.9, box_of(px), px, joints[0] - joints[0].mean(0))
    flipped = px * [-1, 1] + [639, 0]
    left = Detection("left", 0.9, box_of(flipped), flipped, mirror_points(right.joints_m))
    (a,) = predictor.from_detections(rgb, [right], K_px=K)
    (b,) = predictor.from_detections(np.ascontiguousarray(rgb[:, ::-1]), [left], K_px=mirror_camera(K, 640))
    assert (a.method, b.method, b.side) == ("both", "both", "left")
    apart = np.linalg.norm(a.joints_px - px, axis=1).mean() / np.ptp(px, axis=0).max()
    np.testing.assert_allclose([a.landmarks_percent, b.landmarks_percent], 100 * apart, rtol=1e-3)
    np.testing.assert_allclose(mirror_points(b.vertices_cam_m), a.vertices_cam_m, atol=1e-4)
    np.testing.assert_allclose(mirror_params(b.params).hand_pose, a.params.hand_pose, atol=1e-3)


def test_landmarks_that_are_not_there_do_not_count(untrained):
    """`landmarks_percent` is of those that are; a network that needs none says nothing of them."""
    predictor = Predictor(untrained, device="cpu")
    rgb = np.zeros((480, 640, 3), np.uint8)
    (alone,) = predictor(rgb, K_px=K, boxes=[[100, 100, 200, 220]], sides=["right"])
    assert alone.landmarks_percent is None
    px = alone.joints_px + [0.0, 6.0]
    px[3] = np.nan
    seen = Detection("right", 0.9, alone.box_px, px, alone.joints_cam_m)
    (hand,) = predictor.from_detections(rgb, [seen], K_px=K)
    side = np.nanmax(np.nanmax(px, axis=0) - np.nanmin(px, axis=0))
    np.testing.assert_allclose(hand.landmarks_percent, 100 * 6 / side, rtol=1e-6)


def test_the_network_s_hand_is_what_is_expected():
    fitter = HandFitter()
    params, joints, _ = scene(2, seed=9, fitter=fitter)
    px, xyz, K_px = landmarks_of(joints, np.tile(K, (2, 1, 1)))
    samples = [
        SimpleNamespace(joints_px=p, joints_cam_m=x, K_px=k, depth_m=None)
        for p, x, k in zip(px, xyz, K_px, strict=True)
    ]
    expected = shaken(params, 30)
    lifter = BothLifter(Knowing(fitter.hand.float(), expected, joints))
    told = lifter(samples)
    directly = HandFitter()(px, xyz, K_px, expected=expected)
    np.testing.assert_allclose(told.params.hand_pose, directly.hand_pose, atol=1e-6)
    assert (lifter.name, lifter.weights, lifter.hand_model) == ("both", "known", "open")


def test_a_network_without_a_hand_has_nothing_to_fit():
    with pytest.raises(InputError, match="holds no hand to fit; take the method network"):
        BothLifter(SimpleNamespace(hand=None, weights="net.onnx"))


@pytest.mark.parametrize("ships", [True, False])
@pytest.mark.parametrize(
    ("weights", "mano", "way"), [(None, None, None), (None, "folder", "fit"), ("best", None, "network")]
)
def test_what_auto_stands_for(monkeypatch, ships, weights, mano, way):
    monkeypatch.setattr("utnet.checkpoint.shipped_networks", lambda: (DEFAULT_NETWORK,) if ships else ())
    assert choose("auto", weights, mano) == (way or ("both" if ships else "fit"))
    for method in ("both", "network", "fit"):
        assert choose(method, weights, mano) == method
