"""Laws of cameras, crops, mirrors, rotations and alignment."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.transform import Rotation

from utnet import geometry as g
from utnet import rotations
from utnet.hand import HandModel
from utnet.types import HandParams

ANGLES = st.floats(-np.pi, np.pi)
SEEDS = st.integers(0, 10_000)
RIGHT = HandModel.open().double()
LEFT = HandModel.open("left").double()


def points_cam(seed: int, num: int = 21) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(-0.3, 0.3, (num, 2)), rng.uniform(0.3, 1.2, num)])


def camera(skew: float = 0.0) -> np.ndarray:
    K = g.intrinsics(fx=610.0, fy=570.0, cx=301.5, cy=245.25)
    K[0, 1] = skew
    return K


def random_params(seed: int) -> HandParams:
    rng = np.random.default_rng(seed)
    return HandParams(
        global_orient=Rotation.random(1, rng=rng).as_matrix(),
        hand_pose=Rotation.from_rotvec(rng.normal(size=(15, 3)) * 0.4).as_matrix(),
        betas=rng.normal(size=10),
        transl_m=rng.normal(size=3) * 0.2 + [0.0, 0.0, 0.7],
    )


def decode_cam(hand: HandModel, params: HandParams) -> tuple[np.ndarray, np.ndarray]:
    """Joints (21, 3) and vertices (V, 3) in the camera frame."""
    mesh = hand.decode(params.map(lambda array: torch.from_numpy(np.ascontiguousarray(array))[None]))
    return mesh.joints_m[0].numpy() + params.transl_m, mesh.vertices_m[0].numpy() + params.transl_m


# ------------------------------------------------------------------------------------------------------------- camera


@settings(max_examples=25)
@given(seed=SEEDS, skew=st.floats(-20, 20))
def test_unproject_undoes_project(seed, skew):
    points = points_cam(seed)
    back = g.unproject(g.project(points, camera(skew)), points[:, 2], camera(skew))
    np.testing.assert_allclose(back, points, rtol=0, atol=1e-12)


def test_project_is_the_pinhole_equation():
    points = points_cam(0)
    x, y, z = points.T
    expected = np.column_stack([610.0 * x / z + 3.0 * y / z + 301.5, 570.0 * y / z + 245.25])
    np.testing.assert_allclose(g.project(points, camera(3.0)), expected, rtol=0, atol=1e-10)
    assert g.project(np.array([[0.0, 0.0, 0.5]]), camera()).tolist() == [[301.5, 245.25]]


def test_project_takes_batches_and_tensors():
    points = np.stack([points_cam(s) for s in range(3)])
    K = np.stack([camera(s) for s in range(3)])
    batch = g.project(torch.from_numpy(points), torch.from_numpy(K))
    for i in range(3):
        np.testing.assert_allclose(batch[i], g.project(points[i], K[i]), rtol=0, atol=1e-10)


# --------------------------------------------------------------------------------------------------------------- crop


@settings(max_examples=50)
@given(
    seed=SEEDS,
    rotation=ANGLES,
    shift=st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    expand=st.floats(0.7, 3.0),
    skew=st.floats(-5, 5),
)
def test_crop_then_project_is_project_then_crop(seed, rotation, shift, expand, skew):
    points, K = points_cam(seed), camera(skew)
    full = g.project(points, K)
    A = g.crop_affine(g.box_of(full), 128, expand=expand, rotation_rad=rotation, shift=shift)
    K_crop, R = g.crop_camera(A, K)
    np.testing.assert_allclose(g.project(points @ R.T, K_crop), g.apply_affine(A, full), rtol=0, atol=1e-8)
    np.testing.assert_allclose(K_crop[2], [0, 0, 1], rtol=0, atol=1e-15)
    np.testing.assert_allclose(R @ R.T, np.eye(3), rtol=0, atol=1e-12)
    np.testing.assert_allclose((points @ R.T)[:, 2], points[:, 2], rtol=0, atol=1e-12)  # depth images stay as they are


def test_upright_crop_of_a_square_box_fills_it_edge_to_edge():
    A = g.crop_affine(np.array([9.5, 19.5, 109.5, 119.5]), 50, expand=1.0)
    corners = g.apply_affine(A, np.array([[9.5, 19.5], [109.5, 119.5], [59.5, 69.5]]))
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [49.5, 49.5], [24.5, 24.5]], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("wh", "side"), [((60.0, 90.0), 2 * 90), ((90.0, 60.0), 2 * 90 / 0.75), ((72.0, 90.0), 192)])
def test_a_box_fits_into_what_a_narrow_network_sees_of_the_square(wh, side):
    """WiLoR's square: the tight box times 2, grown to 3:4, its longer side."""
    A = g.crop_affine(np.array([10.0, 20.0, 10 + wh[0], 20 + wh[1]]), 256, expand=2.0, aspect=0.75)
    np.testing.assert_allclose(A[0, 0], 256 / side, rtol=1e-12)


def test_crop_side_follows_the_longer_side_and_shift_moves_the_window():
    box = np.array([100.0, 100.0, 140.0, 180.0])
    A = g.crop_affine(box, 80, expand=2.0)
    assert A[0, 0] == pytest.approx(80 / 160)
    moved = g.crop_affine(box, 80, expand=2.0, shift=(0.25, 0.0))
    centre = np.array([[120.0, 140.0]])
    np.testing.assert_allclose(g.apply_affine(moved, centre) - g.apply_affine(A, centre), [[-20.0, 0.0]], atol=1e-12)


def test_positive_rotation_turns_x_towards_y():
    A = g.crop_affine(np.array([0.0, 0.0, 10.0, 10.0]), 11, expand=1.1, rotation_rad=np.pi / 2)
    right_of_centre = g.apply_affine(A, np.array([[8.0, 5.0]]))
    np.testing.assert_allclose(right_of_centre, [[5.0, 8.0]], atol=1e-12)  # below the centre: y points down


def test_affine_is_the_one_that_moves_pixels():
    picture = np.zeros((200, 200), np.float32)
    picture[60:63, 120:123] = 1.0  # centred at x = 121, y = 61
    A = g.crop_affine(np.array([70.0, 20.0, 160.0, 110.0]), 180, expand=1.0, rotation_rad=0.4)
    crop = cv2.warpAffine(picture, A[:2], (180, 180), flags=cv2.INTER_LINEAR)
    rows, columns = np.mgrid[:180, :180]
    found = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(found, g.apply_affine(A, np.array([121.0, 61.0])), rtol=0, atol=0.05)


@settings(max_examples=20)
@given(seed=SEEDS, size=st.integers(1, 512))
def test_crop_units_round_trip(seed, size):
    points = np.random.default_rng(seed).uniform(-50, 600, (7, 2))
    np.testing.assert_allclose(g.crop_to_px(g.px_to_crop(points, size), size), points, rtol=0, atol=1e-9)
    edges = g.px_to_crop(np.array([-0.5, (size - 1) / 2, size - 0.5]), size)
    np.testing.assert_allclose(edges, [-0.5, 0.0, 0.5], rtol=0, atol=1e-12)


def test_box_of_holds_its_points():
    points = np.array([[3.0, 8.0], [13.0, 4.0], [5.0, 5.0]])
    assert g.box_of(points).tolist() == [3.0, 4.0, 13.0, 8.0]


@pytest.mark.parametrize(
    "box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (np.nan, 0, 1, 1), (0, 0, np.inf, 1), (0, 0, 1, np.nan)]
)
def test_empty_box_is_an_error(box):
    with pytest.raises(ValueError, match="empty or not finite"):
        g.crop_affine(np.array(box, float), 64)


# ------------------------------------------------------------------------------------------------ mirroring and turning


def test_mirror_twice_is_identity():
    points, K, params = points_cam(1), camera(2.5), random_params(1)
    np.testing.assert_array_equal(g.mirror_points(g.mirror_points(points)), points)
    np.testing.assert_allclose(g.mirror_camera(g.mirror_camera(K, 640), 640), K, rtol=0, atol=1e-12)
    twice = g.mirror_params(g.mirror_params(params))
    for name in ("global_orient", "hand_pose", "betas", "transl_m"):
        np.testing.assert_array_equal(getattr(twice, name), getattr(params, name))


@pytest.mark.parametrize("width", [1, 64, 641])
def test_mirrored_projection_lands_at_the_mirrored_pixel(width):
    points, K = points_cam(2), camera(4.0)
    u, v = g.project(points, K).T
    found = g.project(g.mirror_points(points), g.mirror_camera(K, width))
    np.testing.assert_allclose(found, np.column_stack([width - 1 - u, v]), rtol=0, atol=1e-9)
    assert g.mirror_camera(K, width)[0, 0] == K[0, 0] > 0


def test_mirrored_rotation_is_a_rotation_that_commutes_with_the_mirror():
    R, points = Rotation.random(5, rng=3).as_matrix(), points_cam(3)
    mirrored = g.mirror_rotations(R)
    np.testing.assert_allclose(np.linalg.det(mirrored), 1.0)
    np.testing.assert_allclose(g.mirror_points(points) @ mirrored[0].T, g.mirror_points(points @ R[0].T), atol=1e-12)
    axis_angle = Rotation.from_matrix(R).as_rotvec() * [1, -1, -1]
    np.testing.assert_allclose(Rotation.from_matrix(mirrored).as_rotvec(), axis_angle, atol=1e-12)
    np.testing.assert_array_equal(g.mirror_rotations(torch.from_numpy(R)), mirrored)
    np.testing.assert_array_equal(g.mirror_points(torch.from_numpy(points)), g.mirror_points(points))


@pytest.mark.parametrize("seed", range(3))
def test_mirrored_params_decode_to_the_mirrored_hand(seed):
    params = random_params(seed)
    joints, vertices = decode_cam(RIGHT, params)
    joints_left, vertices_left = decode_cam(LEFT, g.mirror_params(params))
    np.testing.assert_allclose(joints_left, g.mirror_points(joints), rtol=0, atol=1e-12)
    np.testing.assert_allclose(vertices_left, g.mirror_points(vertices), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (0.095, 0.006, -0.02)])
def test_rotated_params_decode_to_the_rotated_hand(seed, offset):
    # The root joint of MANO is 10 cm from the origin; any offset must work.
    hand = HandModel.open().double()
    hand.J_template += torch.tensor(offset)
    hand.v_template += torch.tensor(offset)
    params, R = random_params(seed), Rotation.random(rng=seed + 10).as_matrix()
    joints, vertices = decode_cam(hand, params)
    joints_turned, vertices_turned = decode_cam(hand, g.rotate_params(params, R, joints[0]))
    np.testing.assert_allclose(joints_turned, joints @ R.T, rtol=0, atol=1e-12)
    np.testing.assert_allclose(vertices_turned, vertices @ R.T, rtol=0, atol=1e-7)  # float32 weights sum to 1 +- 1e-7


# ---------------------------------------------------------------------------------------------------------- rotations


def test_6d_is_the_first_two_columns():
    R = torch.from_numpy(Rotation.random(4, rng=0).as_matrix())
    six = rotations.matrix_to_rotation_6d(R)
    assert torch.equal(six, torch.cat([R[:, :, 0], R[:, :, 1]], -1))
    torch.testing.assert_close(rotations.rotation_6d_to_matrix(six), R, rtol=0, atol=1e-12)


def test_6d_is_gram_schmidt_for_any_numbers():
    six = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 5, 6)) * 2)
    R = rotations.rotation_6d_to_matrix(six).numpy()
    for index in np.ndindex(3, 5):
        first, second = six[index][:3].numpy(), six[index][3:].numpy()
        b1 = first / np.linalg.norm(first)
        b2 = second - (b1 @ second) * b1
        b2 /= np.linalg.norm(b2)
        np.testing.assert_allclose(R[index], np.column_stack([b1, b2, np.cross(b1, b2)]), rtol=0, atol=1e-12)


@settings(max_examples=25)
@given(seed=SEEDS, angle=st.floats(0, 3.14))
def test_axis_angle_round_trip_and_rodrigues(seed, angle):
    axis = np.random.default_rng(seed).normal(size=3)
    axis /= np.linalg.norm(axis)
    x, y, z = vector = (axis * angle).astype(np.longdouble)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    length = max(np.sqrt((vector**2).sum()), np.longdouble(1e-300))
    exact = np.eye(3) + np.sin(length) / length * cross + 2 * (np.sin(length / 2) / length) ** 2 * (cross @ cross)
    R = rotations.axis_angle_to_matrix(axis * angle)
    assert isinstance(R, np.ndarray)
    np.testing.assert_allclose(R, exact.astype(float), rtol=0, atol=1e-15)
    np.testing.assert_allclose(rotations.matrix_to_axis_angle(R), axis * angle, rtol=0, atol=1e-7)
    by_roma = rotations.axis_angle_to_matrix(torch.from_numpy(axis * angle))
    np.testing.assert_allclose(by_roma, R, rtol=0, atol=1e-12)  # it is up to 5e-13 off at angles near 1e-6


def test_axis_angle_is_smooth_at_zero():
    axis_angle = torch.zeros(15, 3, dtype=torch.float64, requires_grad=True)
    rotations.axis_angle_to_matrix(axis_angle).square().sum().backward()
    assert axis_angle.grad.isfinite().all()
    assert rotations.axis_angle_to_matrix(np.zeros((2, 3))).tolist() == [np.eye(3).tolist()] * 2


# ---------------------------------------------------------------------------------------------------------- alignment


def naive_align(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Alignment of one hand with scipy's orthogonal Procrustes on centred points of norm 1."""
    s, t = source - source.mean(0), target - target.mean(0)
    norm_s, norm_t = np.linalg.norm(s) + 1e-8, np.linalg.norm(t) + 1e-8
    R, scale = orthogonal_procrustes(s / norm_s, t / norm_t)
    return s / norm_s @ R * scale * norm_t + target.mean(0)


@settings(max_examples=25)
@given(seed=SEEDS, mirror=st.booleans())
def test_alignment_agrees_with_scipy(seed, mirror):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=(4, 21, 3)) * 0.05 + rng.normal(size=(4, 1, 3))
    source = 3 * (target + rng.normal(size=target.shape) * 0.02) @ Rotation.random(rng=rng).as_matrix()
    source = g.mirror_points(source) if mirror else source
    found = g.align_similarity(source, target)
    expected = np.stack([naive_align(s, t) for s, t in zip(source, target, strict=True)])
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_alignment_without_reflection():
    target = np.stack([points_cam(s) for s in range(3)])
    turned = 0.5 * target @ Rotation.random(rng=0).as_matrix() + 1.0
    mirrored = g.mirror_points(turned)
    proper = {"allow_reflection": False}
    np.testing.assert_allclose(g.align_similarity(turned, target, **proper), target, rtol=0, atol=1e-6)
    np.testing.assert_allclose(g.align_similarity(mirrored, target), target, rtol=0, atol=1e-6)
    left_over = np.linalg.norm(g.align_similarity(mirrored, target, **proper) - target, axis=-1).mean(1)
    assert left_over.min() > 0.01
    # No proper similarity nearby is better.
    best = np.square(g.align_similarity(mirrored, target, **proper) - target).sum((1, 2))
    rng = np.random.default_rng(0)
    for _ in range(50):
        R = Rotation.from_rotvec(rng.normal(size=3) * 0.05).as_matrix()
        aligned = g.align_similarity(mirrored, target, **proper)
        centre = aligned.mean(1, keepdims=True)
        nearby = (aligned - centre) @ R * (1 + 0.05 * rng.normal()) + centre + 0.01 * rng.normal()
        assert (np.square(nearby - target).sum((1, 2)) > best).all()
