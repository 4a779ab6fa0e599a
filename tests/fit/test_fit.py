"""`utnet.fit`: a hand model through landmarks and depth."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import support.mano_files as mano_files
from support.fitting import SIZE_WH, K, decode, error_mm, landmarks_of, make_hands, scene
from utnet.conventions import MANO21_TO_OPENPOSE, MANO_PARENTS, PARENTS
from utnet.fit import HandFitter, solver
from utnet.fit.angles import pose_to_angles
from utnet.fit.landmark_model import VIEWS, LandmarkModel
from utnet.fit.landmarks import look_at
from utnet.fit.priors import angle_limits, rest_prior
from utnet.geometry import intrinsics, mirror_camera, mirror_points, project
from utnet.hand import HandModel
from utnet.placement import measure_distance
from utnet.render.raster import rasterize
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.poses import AXES, angles_to_pose, sample_angles
from utnet.types import HandParams

REAL = Path(__file__).parents[2].parent / "shared" / "real"


@pytest.fixture(scope="module")
def fitter():
    return HandFitter(landmarks="joints")


def test_normal_equations_are_the_derivatives_of_the_cost(fitter):
    rng = np.random.default_rng(0)
    hands = make_hands(1)
    a = fitter.model.arrays
    extra = np.array([2, 14, 0, 8])
    model = (
        a.J_template, a.J_shapedirs, fitter.model.axes, np.concatenate([fitter.model.joint, extra]),
        np.concatenate([fitter.model.offset(fitter.model.landmarks.at(0.3)), rng.normal(0, 0.01, (4, 3))]),
        np.concatenate([fitter.model.dirs, rng.normal(0, 0.001, (4, 3, 10))]),
    )  # fmt: skip
    readings = rng.normal(0, 0.1, (4, 7)) + [0, 0, 0.5, 0, 0, 1, 50.0]
    repeated = np.where(np.arange(21) % 4 == 1, 0.0, 0.8) * (np.arange(21) > 0)
    seen = np.column_stack([rng.normal(0, 0.05, (21, 2)), np.full(21, 100.0), repeated])
    directions = rng.normal(size=(20, 3))
    bones = np.column_stack(
        [directions / np.linalg.norm(directions, axis=1, keepdims=True), np.full(20, 4.0), np.full(20, 2.0)]
    )
    rest = rest_prior()
    observed = (seen, bones, readings, angle_limits(), rest.mean, rest.precision, rng.normal(size=10), 9.0)
    angles = rng.normal(0, 0.5, (15, 3))
    problem = solver.Problem(model, observed)
    state = np.concatenate([hands.transl_m[0], np.zeros(3), angles.ravel(), hands.betas[0]])
    root = hands.global_orient[0, 0]

    def cost(step):
        return problem.normal_equations(state + step, root, np.empty((61, 61)), np.empty(61))

    H, gradient = np.empty((61, 61)), np.empty(61)
    problem.normal_equations(state, root, H, gradient)
    numeric = np.array([(cost(1e-6 * e) - cost(-1e-6 * e)) / 2e-6 for e in np.eye(61)])
    np.testing.assert_allclose(gradient, numeric, rtol=1e-5, atol=1e-5 * np.abs(numeric).max())
    full = np.tril(H) + np.tril(H, -1).T
    assert np.linalg.eigvalsh(full).min() > 0


def test_pose_and_angles_are_one_another(fitter):
    rng = np.random.default_rng(1)
    for _ in range(10):
        angles = sample_angles(rng)
        angles[:, 2] += rng.normal(0, 0.05, 15)
        pose = angles_to_pose(angles)
        found = pose_to_angles(pose, AXES)
        np.testing.assert_allclose(angles_to_pose(found), pose, atol=1e-6)
        unique = np.abs(angles[:, 0]) < np.deg2rad(80)  # at 90 degrees abduction and twist are one turn
        np.testing.assert_allclose(found[unique], angles[unique], atol=1e-6)


def test_hands_are_found_again_from_their_projection(fitter):
    params, joints, landmarks = scene(30)
    found = fitter(*landmarks, betas=params.betas)
    error = error_mm(fitter, found, joints).mean(1)
    assert np.median(error) < 1.5
    assert error.max() < 6.0  # a pose far from rest
    assert np.median(error_mm(fitter, found, joints, relative=False)) < 3.0
    np.testing.assert_array_equal(found.betas, params.betas)
    reprojected = np.linalg.norm(project(decode(fitter, found)[0], K) - landmarks[0], axis=-1)
    assert np.median(reprojected) < 1.0


def test_without_the_shape_the_pose_is_found_up_to_size(fitter):
    _, joints, landmarks = scene(30)
    found, _ = decode(fitter, fitter(*landmarks))
    a, b = found - found[:, :1], joints - joints[:, :1]
    scale = (a * b).sum((1, 2)) / (a * a).sum((1, 2))
    error = 1000 * np.linalg.norm(scale[:, None, None] * a - b, axis=-1).mean(1)
    assert np.median(error) < 4.0
    assert np.median(np.linalg.norm(project(found, K) - landmarks[0], axis=-1)) < 1.0


def test_left_hands_come_mirrored(fitter):
    """A left hand in a picture, mirrored by its K and pixels, gives the mirrored hand."""
    params, joints, _ = scene(5)
    left = mirror_points(joints)
    camera = intrinsics(600, 590, 300, 250)
    pixels, relative, _ = landmarks_of(left, np.tile(camera, (5, 1, 1)))
    pixels[..., 0] = SIZE_WH[0] - 1 - pixels[..., 0]
    cameras = np.tile(mirror_camera(camera, SIZE_WH[0]), (5, 1, 1))
    found = fitter(pixels, mirror_points(relative), cameras, betas=params.betas)
    assert np.median(error_mm(fitter, found, joints)) < 2.0


def test_a_batch_is_its_hands_one_by_one(fitter):
    _, _, (pixels, relative, cameras) = scene(4, seed=3)
    together = fitter(pixels, relative, cameras)
    for i in range(4):
        alone = fitter(pixels[i : i + 1], relative[i : i + 1], cameras[i : i + 1])
        for name in ("global_orient", "hand_pose", "betas", "transl_m"):
            np.testing.assert_array_equal(getattr(together, name)[i], getattr(alone, name)[0])


@pytest.mark.parametrize("turn", ["roll", "any"])
def test_turning_the_camera_turns_the_hand(fitter, turn):
    _, joints, (pixels, relative, cameras) = scene(6, seed=4)
    angle = np.array([0.0, 0.0, 0.8]) if turn == "roll" else np.array([0.2, -0.15, 0.3])
    R = cv2.Rodrigues(angle)[0]
    before = decode(fitter, fitter(pixels, relative, cameras))[0]
    after = decode(fitter, fitter(*landmarks_of(joints @ R.T, cameras)))[0]
    np.testing.assert_allclose(after, before @ R.T, atol=0.001)


def test_scaling_pixels_and_camera_changes_nothing(fitter):
    _, _, (pixels, relative, cameras) = scene(3, seed=5)
    scale = np.array([[2.5, 0.3, 11.0], [0.0, 1.7, -40.0], [0.0, 0.0, 1.0]])  # with skew: any affine of the picture
    moved = pixels @ scale[:2, :2].T + scale[:2, 2]
    a, b = fitter(pixels, relative, cameras), fitter(moved, relative, scale @ cameras)
    np.testing.assert_allclose(decode(fitter, a)[0], decode(fitter, b)[0], atol=1e-6)


def test_landmarks_that_are_no_hand_give_a_hand_before_the_camera(fitter):
    rng = np.random.default_rng(16)
    pixels, relative = rng.uniform(200, 300, (20, 21, 2)), rng.normal(0, 0.05, (20, 21, 3))
    found = fitter.fit(pixels, relative, np.tile(K, (20, 1, 1)))
    assert np.isfinite(decode(fitter, found.params)[1]).all()
    assert (decode(fitter, found.params)[0][..., 2] > 0).all()
    assert found.cost.min() > 60.0
    with pytest.raises(ValueError, match="apart in 2D and 3D"):
        fitter(np.full((1, 21, 2), 100.0), relative[:1], K[None])


def test_joints_stay_within_their_limits(fitter):
    """Whatever the landmarks say: here they are noise."""
    rng = np.random.default_rng(6)
    _, _, (pixels, relative, cameras) = scene(20, seed=6)
    wild = pixels + rng.normal(0, 15, pixels.shape)
    found = fitter(wild, relative + rng.normal(0, 0.02, relative.shape), cameras)
    angles = np.stack([pose_to_angles(pose, fitter.model.axes) for pose in found.hand_pose])
    lower, upper = angle_limits()[:2]
    over = np.rad2deg(np.maximum(angles - upper, 0) + np.maximum(lower - angles, 0))
    hinges = upper == lower
    assert over.max() < 20.0
    assert over[:, hinges].max() < 12.0


def test_one_wrong_landmark_does_little_harm(fitter):
    params, joints, (pixels, relative, cameras) = scene(12, seed=7)
    right = error_mm(fitter, fitter(pixels, relative, cameras, betas=params.betas), joints)
    for wrong in (8, 14, 5):
        moved = pixels.copy()
        moved[:, wrong] += [70.0, -50.0]  # 8 cm
        harmed = error_mm(fitter, fitter(moved, relative, cameras, betas=params.betas), joints)
        assert np.median(harmed - right) < 1.0, wrong
        others = np.delete(harmed - right, wrong, 1)
        assert np.median(others.max(1)) < 3.0, wrong


def test_landmarks_that_are_not_there_are_left_out(fitter):
    params, joints, (pixels, relative, cameras) = scene(8, seed=8)
    pixels[:, [4, 11, 12, 20]] = np.nan
    relative[:, [16, 3]] = np.nan
    found = fitter(pixels, relative, cameras, betas=params.betas)
    error = error_mm(fitter, found, joints)
    seen = np.isfinite(pixels[0]).all(1)
    assert np.isfinite(error).all()
    assert np.median(error[:, seen]) < 2.0
    pixels[:, [0, 1, 5, 9]] = np.nan
    with pytest.raises(ValueError, match="three landmarks of the palm"):
        fitter(pixels, relative, cameras)


def draw_depth(vertices, faces, background_m=1.5):
    drawn = rasterize(vertices, faces, K, SIZE_WH)
    return np.where(drawn.mask, drawn.depth_m, background_m).astype(np.float32), drawn.mask


def test_depth_measures_the_distance_and_moves_it_exactly(fitter):
    """The same picture of a hand, with depth that puts it at 0.6 m or 10 cm farther (a larger hand)."""
    params, joints, landmarks = scene(4, seed=9, shape=0.0)
    _, vertices = decode(fitter, params)
    faces = fitter.hand.faces
    near = [draw_depth(v, faces)[0] for v in vertices]
    found = fitter.fit(*landmarks, depth_m=near)
    assert found.measured.all()
    assert error_mm(fitter, found.params, joints, relative=False).mean(1).max() < 6.0
    scales = 1 + 0.1 / joints[:, 9, 2]
    far = [np.where(d < 1.4, d * s, d).astype(np.float32) for d, s in zip(near, scales, strict=True)]
    farther = fitter.fit(*landmarks, depth_m=far)
    moved = (decode(fitter, farther.params)[0] - decode(fitter, found.params)[0])[:, 9, 2]
    np.testing.assert_allclose(moved, 0.1, atol=0.004)
    blind = fitter.fit(*landmarks, depth_m=[None, np.zeros_like(near[1]), None, None])
    assert not blind.measured.any()
    np.testing.assert_array_equal(blind.params.transl_m, fitter(*landmarks).transl_m)


def test_distance_is_the_hands_behind_an_object_with_holes_and_flying_pixels(fitter):
    rng = np.random.default_rng(0)
    flat = np.zeros((15, 3))
    params = make_hands(1, 10, shape=0.0, pose=flat)
    params = params.map(lambda a: a.copy())
    params.global_orient[:] = cv2.Rodrigues(np.array([np.pi / 2, 0.3, 0.2]))[0]
    params.transl_m[:] = [0.08, 0.0, 0.6]
    joints, vertices = decode(fitter, params)
    faces = fitter.hand.faces
    depth, mask = draw_depth(vertices[0], faces, background_m=0.8)
    y, _ = np.nonzero(mask)
    box = (np.arange(480)[:, None] > np.quantile(y, 0.62)) & np.ones((480, 640), bool)
    depth[box] = 0.52  # a carton before a third of the hand
    depth[rng.random(depth.shape) < 0.2] = 0.0
    flying = cv2.dilate(mask.view(np.uint8), np.ones((5, 5))) - cv2.erode(mask.view(np.uint8), np.ones((5, 5))) > 0
    depth[flying] = rng.uniform(0.5, 0.9, flying.sum())
    off = params.transl_m[0] * 1.15  # the guess from size: 9 cm too far
    measured = measure_distance(vertices[0] - params.transl_m[0], faces, joints[0] - params.transl_m[0], off, depth, K)
    assert abs(measured[2] - 0.6) < 0.004


def test_a_start_is_kept_where_it_is_right_and_left_where_it_is_not(fitter):
    _, _, landmarks = scene(6, seed=11)
    found = fitter.fit(*landmarks)
    again = fitter.fit(*landmarks, start=found.params)
    assert (again.cost <= found.cost * 1.001).all()
    a, b = (decode(fitter, fit.params)[0] for fit in (found, again))
    np.testing.assert_allclose(a, b, atol=0.002)
    elsewhere = fitter.fit(*landmarks, start=found.params.map(lambda array: array[::-1].copy()))
    assert (elsewhere.cost < found.cost * 1.05).all()


def test_one_shape_of_a_person_comes_out_of_many_pictures(fitter):
    rng = np.random.default_rng(12)
    params = make_hands(16, 12, shape=0.0)
    betas = np.array([1.0, 1.8, 0, 0, 0, 0, 0, 0, 0, 0])
    params = HandParams(params.global_orient, params.hand_pose, np.tile(betas, (16, 1)), params.transl_m)
    pixels, relative, cameras = landmarks_of(decode(fitter, params)[0], np.tile(K, (16, 1, 1)))
    pixels = pixels + rng.normal(0, 2.0, pixels.shape)
    shared = fitter.shared_betas(pixels, relative, cameras)
    assert abs(shared[1] - 1.8) < 0.5 * 1.8
    fits = fitter.fit(pixels, relative, cameras, betas=shared, betas_from="frames")
    assert set(fits.shape_source) == {"frames"}
    np.testing.assert_array_equal(fits.params.betas, np.tile(shared, (16, 1)))


def bone_sum(fitter, params):
    joints = decode(fitter, params)[0]
    return np.linalg.norm(joints[:, 1:] - joints[:, list(PARENTS[1:])], axis=-1).sum(1)


def test_the_size_of_a_hand_comes_from_depth_and_from_nothing_else(fitter):
    """People a tenth smaller and larger than the mean, seen with and without depth."""
    params = make_hands(9, 20, shape=0.0)
    params.betas[:, 0] = np.linspace(-1.2, 1.2, 9)
    joints, vertices = decode(fitter, params)
    landmarks = landmarks_of(joints, np.tile(K, (9, 1, 1)))
    depth = [draw_depth(v, fitter.hand.faces)[0] for v in vertices]
    alone, measured = fitter.fit(*landmarks), fitter.fit(*landmarks, depth_m=depth)
    assert (set(alone.shape_source), set(measured.shape_source)) == ({"mean"}, {"depth"})
    np.testing.assert_array_equal(alone.params.betas, 0.0)
    truth, found = bone_sum(fitter, params), bone_sum(fitter, measured.params)
    assert np.corrcoef(found, truth)[0, 1] > 0.95
    assert abs(found.mean() / truth.mean() - 1) < 0.02


def test_mediapipes_landmarks_are_not_the_models_joints(fitter):
    """Landmarks at the measured offsets from the joints of a hand, as seen from its view, give that hand."""
    params = make_hands(6, 13, shape=0.0)
    joints, _ = decode(fitter, params)
    R = [params.global_orient[:, 0]]
    for j in range(1, 16):
        R.append(R[MANO_PARENTS[j]] @ params.hand_pose[:, j - 1])
    R = np.stack([*R, R[15], R[3], R[6], R[12], R[9]], 1)[:, list(MANO21_TO_OPENPOSE)]
    cameras = np.tile(K, (6, 1, 1))
    look = np.stack([look_at(project(j, K), j, K).look for j in joints])
    facing = np.einsum("nab,nb->na", look, R[:, 0, :, 1])[:, 2]
    offsets = np.stack([LandmarkModel.mediapipe().at(f).offsets_m for f in facing])
    landmarks = landmarks_of(joints + np.einsum("bjac,bjc->bja", R, offsets), cameras)
    known, unknown = (np.median(error_mm(fitter, f(*landmarks), joints)) for f in (HandFitter(), fitter))
    assert known < 2.5
    assert unknown > 2 * known


def test_views_lie_between_the_measured_ones():
    model = LandmarkModel.mediapipe()
    for k, facing in enumerate(VIEWS):
        np.testing.assert_allclose(model.at(facing).offsets_m, model.offsets_m[k], atol=1e-12)
    np.testing.assert_array_equal(model.at(1.0).deviation_m, model.deviation_m[0])
    half = model.at((VIEWS[1] + VIEWS[2]) / 2)
    np.testing.assert_allclose(half.bone_rad, model.bone_rad[1:].mean(0))
    assert (model.own_deviation_m[:, model.repeated > 0] <= 1.1 * model.deviation_m[:, model.repeated > 0]).all()


def test_joints_without_landmarks_bend_with_their_neighbours():
    """The Gaussian of poses: what is seen of a finger and of its neighbours tells of the rest."""
    rest = rest_prior()
    covariance = np.linalg.inv(rest.precision)
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-12)
    bends = np.arange(0, 45, 3)
    told, rest_of = bends[[1, 4]], bends[[2, 5, 10]]  # middle joints; last joints and the ring finger's middle one
    slope = covariance[np.ix_(rest_of, told)] @ np.linalg.inv(covariance[np.ix_(told, told)])
    last = slope[[0, 1], [0, 1]]
    assert ((last > 0.4) & (last < 0.8)).all()  # about two thirds (Cobos et al., 2008), drawn towards rest
    assert slope[2, 1] > 0.3


@pytest.mark.parametrize("flat_hand_mean", [True, False])
def test_manos_files_are_fitted_by_the_same_code(tmp_path, flat_hand_mean):
    data = mano_files.random_mano()
    near = np.linalg.norm(data["v_template"] - data["J"][:, None], axis=-1)
    data["J_regressor"] = (near < np.sort(near, 1)[:, 20:21]) / 20.0  # joints among their vertices, as MANO's are
    data["hands_mean"] *= 0.2
    path = mano_files.write_mano(tmp_path / "MANO_RIGHT.pkl", data)
    fitter = HandFitter(HandModel.from_mano(path, flat_hand_mean=flat_hand_mean), landmarks="joints")
    params = make_hands(4, 14, shape=0.3)
    for i in range(4):  # anatomical about this hand's axes, as its prior is
        turns = axis_angle_to_matrix(fitter.model.axes * pose_to_angles(params.hand_pose[i], AXES)[..., None])
        params.hand_pose[i] = turns[:, 1] @ turns[:, 0] @ turns[:, 2]
    if not flat_hand_mean:  # poses that are anatomical once the mean is added
        params = HandParams(
            params.global_orient, np.stack([fitter.model.with_mean(p, -1.0) for p in params.hand_pose]), params.betas,
            params.transl_m,
        )  # fmt: skip
    joints, _ = decode(fitter, params)
    landmarks = landmarks_of(joints, np.tile(K, (4, 1, 1)))
    found = fitter(*landmarks, betas=params.betas)
    assert np.median(error_mm(fitter, found, joints)) < 4.0
    assert np.median(np.linalg.norm(project(decode(fitter, found)[0], K) - landmarks[0], axis=-1)) < 2.0


def test_wrong_calls_are_refused(fitter):
    _, _, (pixels, relative, cameras) = scene(2, seed=15)
    with pytest.raises(ValueError, match="joints_px has shape"):
        fitter(pixels[:, :20], relative, cameras)
    with pytest.raises(ValueError, match="1 depth images for 2 hands"):
        fitter(pixels, relative, cameras, depth_m=[None])
    with pytest.raises(ValueError, match="right hand model"):
        HandFitter(HandModel.open("left"))
    with pytest.raises(ValueError, match="expected 'mediapipe' or 'joints'"):
        HandFitter(landmarks="coco")


@pytest.mark.skipif(not (REAL / "keypointfusion_mit_rgbd").is_dir(), reason="no real pictures here")
def test_real_depth_of_half_the_hand_foretells_the_other_half():
    """Squares of 8 px in turn are fitted and scored; the hand's pixels are those under the mesh that have the colour of
    skin (the carton in front of the fingers is red)."""
    from utnet.detect import HandDetector

    folder = REAL / "keypointfusion_mit_rgbd"
    rgb = np.ascontiguousarray(cv2.imread(str(folder / "box.png"))[..., ::-1])
    depth = cv2.imread(str(folder / "box_d.png"), cv2.IMREAD_UNCHANGED).astype(np.float32) / 1000
    camera = np.array([[906.96, 0, 956.75], [0, 906.79, 547.23], [0, 0, 1]])
    box = [[885 - 89, 515.5 - 63.5, 885 + 89, 515.5 + 63.5]]
    hand = HandDetector(threads=1).in_boxes(rgb, box, ["right"])[0]
    luma, red, blue = np.moveaxis(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb), -1, 0)
    skin = (red > 136) & (red < 168) & (blue > 90) & (blue < 128) & (luma > 60)
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]]
    fitter = HandFitter()
    for half in range(2):
        shown = (x // 8 + y // 8) % 2 == half
        found = fitter.fit(hand.joints_px[None], hand.joints_m[None], camera[None], depth_m=[np.where(shown, depth, 0)])
        drawn = rasterize(decode(fitter, found.params)[1][0], fitter.hand.faces, camera, depth.shape[::-1])
        scored = drawn.mask & skin & ~shown & (depth > 0)
        assert scored.sum() > 3000
        assert np.median(np.abs(depth[scored] - drawn.depth_m[scored])) < 0.010
