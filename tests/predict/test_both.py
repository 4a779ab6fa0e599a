"""The method `both`: what a network says and what landmarks say, in one hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from support.fitting import SIZE_WH, K, decode, error_mm, landmarks_of, make_hands, scene
from utnet.checkpoint import DEFAULT_NETWORK, save_checkpoint, shipped_networks
from utnet.config import Config, ModelConfig, override
from utnet.conventions import PARENTS
from utnet.data.transforms import crop, mirror, to_right
from utnet.detect import Detection
from utnet.errors import InputError
from utnet.fit import HandFitter
from utnet.fit.angles import pose_to_angles
from utnet.fit.hypotheses import average_hands, lift_hands
from utnet.fit.landmarks import bone_directions, combined_directions, weighted_directions
from utnet.fit.lifter import LandmarkLifter
from utnet.fit.priors import angle_limits, expected_errors_rad, expected_prior, rest_prior
from utnet.geometry import box_of, mirror_camera, mirror_params, mirror_points, project
from utnet.model import UTNet
from utnet.predict import Predictor
from utnet.predict.methods.base import RightHandBatch
from utnet.predict.methods.combined import CombinedMethod
from utnet.predict.methods.network import NetworkMethod, mask_of_crop
from utnet.predict.methods.resolve import resolve_method
from utnet.render.raster import rasterize
from utnet.rotations import axis_angle_to_matrix
from utnet.synth import SyntheticHands
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


def test_the_expected_shape_counts_with_depth_within_what_is_usual():
    """Without depth the size is the mean's: a network does not see it either."""
    fitter = HandFitter(landmarks="joints")
    params, joints, landmarks = scene(4, seed=11, fitter=fitter)
    vertices = decode(fitter, params)[1]
    depth = [rasterize(v, fitter.hand.faces, K, SIZE_WH).depth_m for v in vertices]
    np.testing.assert_array_equal(fitter(*landmarks, expected=params).betas, 0.0)
    alone, told = (
        error_mm(fitter, fitter(*landmarks, depth_m=depth, expected=e), joints).mean() for e in (None, params)
    )
    assert told < alone
    far, most = (
        HandParams(params.global_orient, params.hand_pose, np.full_like(params.betas, value), params.transl_m)
        for value in (9.0, 2.0)
    )
    found = (decode(fitter, fitter(*landmarks, depth_m=depth, expected=expected))[0] for expected in (far, most))
    np.testing.assert_allclose(next(found), next(found), atol=0.002)


def test_the_expected_error_is_the_width_of_the_prior(fitter):
    """A hand that is expected to be off by little keeps its fingers; by much, it does as if there were none."""
    params, _, (px, xyz, K_px) = scene(8, seed=4)
    px[:, INDEX], xyz[:, INDEX] = np.nan, np.nan
    expected = shaken(params, 15)
    said = np.stack([pose_to_angles(pose, AXES)[:3, 0] for pose in expected.hand_pose])
    apart = []
    for error in (2.0, 15.0, 150.0):
        found = fitter(px, xyz, K_px, expected=expected, expected_error_mm=np.full((8, 21), error))
        bent = np.stack([pose_to_angles(pose, AXES)[:3, 0] for pose in found.hand_pose])
        apart.append(np.abs(bent - np.clip(said, *angle_limits()[:2, :3, 0])).mean())
    assert apart[0] < 0.5 * apart[1] < 0.5 * apart[2]
    with pytest.raises(ValueError, match="expected_error_mm"):
        fitter(px, xyz, K_px, expected=expected, expected_error_mm=np.ones(21))


def test_errors_of_joints_as_angles():
    """The end of a bone is off by what its start is, and by what the bone turns."""
    joints = scene(1)[1][0]
    length = 1000 * np.linalg.norm(joints[6] - joints[5])
    error = np.full(21, 1e-9)
    error[5], error[6] = 3.0, 5.0
    np.testing.assert_allclose(expected_errors_rad(error, joints)[5], 4.0 / length, rtol=1e-6)


def test_an_expectation_goes_with_a_start_and_with_depth():
    fitter = HandFitter(landmarks="joints")
    params, joints, landmarks = scene(4, seed=12, fitter=fitter)
    vertices = decode(fitter, params)[1]
    depth = [rasterize(v, fitter.hand.faces, K, SIZE_WH).depth_m for v in vertices]
    found = fitter.fit(*landmarks, depth_m=depth, start=shaken(params, 10), expected=shaken(params, 10))
    assert found.measured.all()
    assert np.linalg.norm(decode(fitter, found.params)[0] - joints, axis=-1).mean() < 0.006


def test_expectations_of_another_number_or_without_numbers_are_refused(fitter):
    params, _, (px, xyz, K_px) = scene(3, seed=13)
    with pytest.raises(ValueError, match=r"expected\.global_orient"):
        fitter(px[:2], xyz[:2], K_px[:2], expected=params)
    params.betas[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"start\.betas contains NaN"):
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
    limits, rest = angle_limits(), rest_prior()
    wild = expected_prior(np.random.default_rng(0).uniform(-9, 9, (15, 3)), rest, np.full(15, 1e-3))
    assert (wild.mean >= limits[0].ravel() - 0.01).all()
    assert (wild.mean <= limits[1].ravel() + 0.01).all()
    looser = expected_prior(np.zeros((15, 3)), rest, np.full(15, 0.2))
    assert (np.diag(wild.precision) > np.diag(looser.precision)).all()
    assert np.linalg.eigvalsh(looser.precision - 0.5 * rest.precision).min() > 0  # it pulls more than rest does


def test_directions_of_two_observers():
    rng = np.random.default_rng(1)
    deviation = np.tile([0.2, 0.3], (20, 1))
    one, other = (
        weighted_directions(bone_directions(rng.normal(size=(21, 3)), np.ones(21, bool)), deviation) for _ in range(2)
    )
    np.testing.assert_allclose(combined_directions(one, other), combined_directions(other, one))
    same = combined_directions(one, one)
    np.testing.assert_allclose(same[:, :3], one[:, :3])
    np.testing.assert_allclose(same[:, 3:], np.sqrt(2) * one[:, 3:])
    against = np.column_stack([-one[:, :3], one[:, 3:]])
    np.testing.assert_allclose(combined_directions(one, against), 0)
    np.testing.assert_allclose(combined_directions(one, np.zeros_like(one)), one)
    np.testing.assert_allclose(combined_directions(np.zeros_like(one), one), one)
    surer = np.column_stack([other[:, :3], 100 * other[:, 3:]])
    np.testing.assert_allclose(combined_directions(one, surer)[:, :3], other[:, :3], atol=0.01)
    missing = bone_directions(rng.normal(size=(21, 3)), np.arange(21) != 6)
    gone = [child - 1 for child, parent in enumerate(PARENTS) if child == 6 or parent == 6]
    np.testing.assert_array_equal(np.flatnonzero(~missing.any(1)), gone)


# ------------------------------------------------------------------------------------------------------- the predictor


class Knowing:
    """A network that says given right hands, whatever it sees."""

    weights, hand_model = "known", "open"

    def __init__(self, hand, params, joints_cam_m, *, measured=False, error_mm=None):
        self.hand, self.faces = hand, hand.faces
        num, vertices = len(joints_cam_m), np.zeros((len(joints_cam_m), 1, 3))
        self._said = RightHandBatch(
            params, joints_cam_m, vertices, np.full(num, measured), ["network"] * num, joint_error_mm=error_mm
        )

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
    np.testing.assert_allclose([a.landmark_error_percent, b.landmark_error_percent], 100 * apart, rtol=1e-3)
    np.testing.assert_allclose(mirror_points(b.vertices_cam_m), a.vertices_cam_m, atol=1e-4)
    np.testing.assert_allclose(mirror_params(b.params).hand_pose, a.params.hand_pose, atol=1e-3)


def test_landmarks_that_are_not_there_do_not_count(untrained):
    """`landmark_error_percent` is of those that are, and None where there are none."""
    predictor = Predictor(untrained, device="cpu")
    rgb = np.zeros((480, 640, 3), np.uint8)
    nothing = np.full((21, 3), np.nan)
    unseen = Detection("right", 1.0, np.array([100.0, 100.0, 200.0, 220.0]), nothing[:, :2], nothing)
    (alone,) = predictor.from_detections(rgb, [unseen], K_px=K)
    assert alone.landmark_error_percent is None
    px = alone.joints_px + [0.0, 6.0]
    px[3] = np.nan
    seen = Detection("right", 0.9, alone.box_px, px, alone.joints_cam_m)
    (hand,) = predictor.from_detections(rgb, [seen], K_px=K)
    side = np.nanmax(np.nanmax(px, axis=0) - np.nanmin(px, axis=0))
    np.testing.assert_allclose(hand.landmark_error_percent, 100 * 6 / side, rtol=1e-6)


def test_an_average_of_hands_lies_between_them():
    fitter = HandFitter()
    one, _, _ = scene(3, seed=9, fitter=fitter)
    other = scene(3, seed=10, fitter=fitter)[0]
    for share, hands in ((0.0, one), (1.0, other)):
        mean = average_hands(fitter.model, one, other, np.full(3, share))
        for name in ("global_orient", "hand_pose", "betas"):
            np.testing.assert_allclose(getattr(mean, name), getattr(hands, name), atol=1e-6)
    middle = average_hands(fitter.model, one, other, np.full(3, 0.5))
    swapped = average_hands(fitter.model, other, one, np.full(3, 0.5))
    np.testing.assert_allclose(middle.global_orient, swapped.global_orient, atol=1e-9)
    np.testing.assert_allclose(middle.hand_pose, swapped.hand_pose, atol=1e-6)


def test_the_mean_of_the_network_s_hand_and_the_lifter_s_is_what_is_expected():
    fitter = HandFitter()
    params, joints, _ = scene(2, seed=9, fitter=fitter)
    px, xyz, K_px = landmarks_of(joints, np.tile(K, (2, 1, 1)))
    samples = [
        SimpleNamespace(joints_px=p, landmarks_m=x, joints_2d_conf=np.full(21, 0.5), K_px=k, depth_m=None)
        for p, x, k in zip(px, xyz, K_px, strict=True)
    ]
    expected = shaken(params, 30)
    lifter = CombinedMethod(Knowing(fitter.hand, expected, joints))
    told = lifter(samples)
    lifted = lift_hands(LandmarkLifter(), fitter.model, px, xyz, K_px)
    mean = average_hands(fitter.model, expected, lifted.params[0], np.full(2, 0.5))
    directly = HandFitter()(px, xyz, K_px, expected=mean)
    np.testing.assert_allclose(told.params.hand_pose, directly.hand_pose, atol=1e-6)
    assert (lifter.name, lifter.weights, lifter.hand_model) == ("both", "known", "open")


def samples_of(fitter, num):
    params, joints, _ = scene(num, seed=9, fitter=fitter)
    px, xyz, K_px = landmarks_of(joints, np.tile(K, (num, 1, 1)))
    samples = [
        SimpleNamespace(joints_px=p, landmarks_m=x, joints_2d_conf=np.full(21, 0.5), K_px=k, depth_m=None)
        for p, x, k in zip(px, xyz, K_px, strict=True)
    ]
    return params, joints, samples


@pytest.mark.parametrize("measured", [True, False])
def test_the_shape_with_depth_is_that_of_a_network_that_states_its_errors(measured):
    fitter = HandFitter()
    params, joints, samples = samples_of(fitter, 2)
    error = np.full((2, 21), 10.0)
    found = CombinedMethod(Knowing(fitter.hand, params, joints, measured=measured, error_mm=error))(samples)
    np.testing.assert_allclose(found.params.betas, np.clip(params.betas, -2, 2) if measured else 0.0)
    assert found.shape_source == ["network" if measured else "mean"] * 2


def test_a_network_without_a_hand_has_nothing_to_fit():
    with pytest.raises(InputError, match="no hand model"):
        CombinedMethod(SimpleNamespace(hand=None, weights="net.onnx"))


@pytest.mark.parametrize("ships", [True, False])
@pytest.mark.parametrize(
    ("weights", "mano", "way"), [(None, None, None), (None, "folder", "fit"), ("best", None, "network")]
)
def test_what_auto_stands_for(monkeypatch, ships, weights, mano, way):
    monkeypatch.setattr("utnet.predict.methods.resolve.shipped_weights", lambda: DEFAULT_NETWORK if ships else None)
    assert resolve_method("auto", weights, mano) == (way or ("both" if ships else "fit"))
    for method in ("both", "network", "fit"):
        assert resolve_method(method, weights, mano) == method


def test_a_mask_that_contradicts_the_network_does_not_count(monkeypatch):
    """Photographs on a floor in the hand's colours: the mask of the network is of the floor."""
    if not shipped_networks():
        pytest.skip("no bundled weights")
    method = CombinedMethod(NetworkMethod(DEFAULT_NETWORK))
    sample = to_right(SyntheticHands(seed=5, size_px=256, jitter=False)[0])
    sample = replace(sample, joints_px=project(sample.joints_cam_m, sample.K_px), landmarks_m=sample.joints_cam_m)
    network = method.network([sample])
    (mask,) = network.masks
    for logit, counts in ((mask.logit, True), (-mask.logit, False)):
        monkeypatch.setattr(method, "network", lambda _, g=logit: replace(network, masks=[replace(mask, logit=g)]))
        with_mask = method([sample]).joints_cam_m
        monkeypatch.setattr(method, "network", lambda _: replace(network, masks=None))
        assert np.array_equal(with_mask, method([sample]).joints_cam_m) != counts


@pytest.mark.parametrize("columns", [24, 18])
def test_a_mask_has_the_camera_of_its_crop(columns):
    """The true joints are in the mask's cells where they are in the crop's pixels; bounds are the picture's."""
    sample = SyntheticHands(seed=5, size_px=256, jitter=False)[1]
    px = project(sample.joints_cam_m, sample.K_px)
    cropped = crop(replace(sample, box_px=box_of(px), joints_px=px), 96, Config().crop)
    mask = mask_of_crop(np.zeros((24, columns)), cropped, sample)
    in_crop = (project(sample.joints_cam_m, cropped.K_px) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(project(sample.joints_cam_m, mask.K_px), in_crop - [(24 - columns) / 2, 0], atol=1e-6)
    corners = np.array([[-0.5, -0.5], [255.5, 255.5]])
    rays = np.column_stack([corners, np.ones(2)]) @ np.linalg.inv(sample.K_px).T
    np.testing.assert_allclose(mask.known.reshape(2, 2), project(rays, mask.K_px), atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_bundled_network_s_mask_is_where_the_hand_is(side):
    """The middles of mask and drawn mesh agree within a fifth of a cell on average over bare hands."""
    if not shipped_networks():
        pytest.skip("no bundled weights")
    bare = [f"synth.factors.{name}=0" for name in ("held", "occluder", "second_hand", "sleeve")]
    synth = override(Config(), ["synth.appearance=full", *bare]).synth
    method, source = NetworkMethod(DEFAULT_NETWORK), SyntheticHands(seed=5, size_px=256, synth=synth, jitter=False)
    apart = []
    for i in range(8):
        sample = source[i]
        sample = replace(sample, joints_px=project(sample.joints_cam_m, sample.K_px), landmarks_m=sample.joints_cam_m)
        (mask,) = method([sample if side == "right" else to_right(mirror(sample))]).masks
        mesh = method.hand.decode(sample.params.map(lambda array: array[None])).vertices_m[0] + sample.params.transl_m
        drawn = rasterize(mesh, method.faces, mask.K_px, (24, 24)).mask
        apart.append(np.argwhere(drawn).mean(0) - np.argwhere(mask.logit > 0).mean(0))
    assert np.abs(np.mean(apart, axis=0)).max() < 0.2
