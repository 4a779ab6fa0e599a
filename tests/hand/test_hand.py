"""Laws of the hand model: equals a plain loop, equivariance, batching, gradients, mirroring."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from support.mano_files import random_mano, write_mano
from utnet.conventions import FINGERS, JOINT_NAMES, MANO_JOINT_NAMES, MANO_PARENTS, MANO_TIP_VERTICES
from utnet.errors import InputError
from utnet.geometry import mirror_points, mirror_rotations
from utnet.hand import HandModel
from utnet.hand.arrays import load_open_hand
from utnet.rotations import axis_angle_to_matrix

KINDS = ("open", "mano", "mano_mean")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, HandModel]:
    """The open hand, a random hand in MANO's format (with pose correctives), and the same with mean pose; float64."""
    path = write_mano(tmp_path_factory.mktemp("hand") / "MANO_RIGHT.pkl", random_mano())
    return {
        "open": HandModel.open().double(),
        "mano": HandModel.from_mano(path).double(),
        "mano_mean": HandModel.from_mano(path, flat_hand_mean=False).double(),
    }


@pytest.fixture(params=KINDS)
def hand(request, models) -> HandModel:
    return models[request.param]


def random_inputs(batch: int = 3, seed: int = 0, angle: float = 0.6):
    """global_orient, hand_pose, betas, float64."""
    rng = np.random.default_rng(seed)
    pose = axis_angle_to_matrix(torch.from_numpy(rng.normal(0, angle, (batch, 16, 3))))
    return pose[:, :1], pose[:, 1:], torch.from_numpy(rng.normal(size=(batch, 10)))


def rodrigues(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix of an axis-angle vector."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-300)
    K = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * K + (1 - np.cos(angle)) * K @ K


def axis_angle(R: np.ndarray) -> np.ndarray:
    """Inverse of `rodrigues` for angles in (0, pi)."""
    angle = np.arccos((np.trace(R) - 1) / 2)
    return angle / (2 * np.sin(angle)) * np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])


def plain_loop(hand: HandModel, global_orient, hand_pose, betas):
    """One hand by the definition (Romero et al. 2017), 4x4 transforms and loops; numpy float64."""
    arrays = {key: value.numpy() for key, value in hand.named_buffers()}
    local = [global_orient[0].numpy(), *hand_pose.numpy()]
    if "pose_mean" in arrays:
        mean = arrays["pose_mean"].reshape(15, 3)
        local[1:] = [rodrigues(axis_angle(R) + mean[j]) for j, R in enumerate(local[1:])]
    rest = arrays["J_template"] + arrays["J_shapedirs"] @ betas.numpy()
    world = []
    for j, parent in enumerate(MANO_PARENTS):
        T = np.eye(4)
        T[:3, :3] = local[j]
        T[:3, 3] = rest[j] if parent < 0 else rest[j] - rest[parent]
        world.append(T if parent < 0 else world[parent] @ T)
    shaped = arrays["v_template"] + arrays["shapedirs"] @ betas.numpy()
    if "posedirs" in arrays:
        shaped = shaped + arrays["posedirs"] @ np.concatenate([(R - np.eye(3)).ravel() for R in local[1:]])
    vertices = np.zeros_like(shaped)
    for i, v in enumerate(shaped):
        for j in np.flatnonzero(arrays["weights"][i]):
            moved = world[j] @ np.append(v - rest[j], 1.0)
            vertices[i] += arrays["weights"][i, j] * moved[:3]
    return vertices, np.array([T[:3, 3] for T in world])


def test_equals_the_plain_loop(hand):
    inputs = random_inputs(2)
    mesh = hand(*inputs)
    for i in range(2):
        vertices, joints = plain_loop(hand, *(x[i] for x in inputs))
        np.testing.assert_allclose(mesh.vertices_m[i].numpy(), vertices, atol=1e-12)
        np.testing.assert_allclose(mesh.mano_joints_m[i].numpy(), joints, atol=1e-12)


def test_zero_pose_is_the_template(models):
    identity = torch.eye(3).double().expand(1, 16, 3, 3)
    for kind in ("open", "mano"):
        mesh = models[kind](identity[:, :1], identity[:, 1:], torch.zeros(1, 10).double())
        torch.testing.assert_close(mesh.vertices_m[0], models[kind].v_template, atol=1e-7, rtol=0)
        torch.testing.assert_close(mesh.mano_joints_m[0], models[kind].J_template, atol=1e-12, rtol=0)


def test_equivariance_under_global_rotation(hand):
    """Rotating the root rotates the whole hand about the root joint."""
    global_orient, hand_pose, betas = random_inputs()
    R = axis_angle_to_matrix(torch.tensor([0.4, -1.1, 0.7]).double())
    before, after = hand(global_orient, hand_pose, betas), hand(R @ global_orient, hand_pose, betas)
    root = before.mano_joints_m[:, :1]
    for name in ("vertices_m", "joints_m", "mano_joints_m"):
        turned = (getattr(before, name) - root) @ R.T + root
        torch.testing.assert_close(getattr(after, name), turned, atol=1e-8, rtol=0)  # float32 weights sum to 1 +- 1e-7


def test_batch_equals_one_by_one(hand):
    inputs = random_inputs(4)
    mesh = hand(*inputs)
    for i in range(4):
        one = hand(*(x[i : i + 1] for x in inputs))
        torch.testing.assert_close(mesh.vertices_m[i], one.vertices_m[0], atol=1e-13, rtol=0)
        torch.testing.assert_close(mesh.joints_m[i], one.joints_m[0], atol=1e-13, rtol=0)


def test_joints_without_vertices(hand):
    inputs = random_inputs()
    full, joints_only = hand(*inputs), hand(*inputs, with_vertices=False)
    assert joints_only.vertices_m is None
    torch.testing.assert_close(joints_only.joints_m, full.joints_m, atol=1e-13, rtol=0)


def test_joints_are_the_named_ones(hand):
    mesh = hand(*random_inputs())
    for index, name in enumerate(JOINT_NAMES):
        if name.endswith("_tip"):
            tip = int(hand.tip_vertices[FINGERS.index(name.removesuffix("_tip"))])
            expected = mesh.vertices_m[:, tip]
        else:
            expected = mesh.mano_joints_m[:, MANO_JOINT_NAMES.index(name)]
        torch.testing.assert_close(mesh.joints_m[:, index], expected, atol=1e-13, rtol=0)


def test_joints_of_mano_are_regressed_from_the_shaped_template(models, tmp_path):
    """Joint blendshapes equal J_regressor times the shaped vertices."""
    data = random_mano()
    betas = random_inputs()[2]
    shaped = data["v_template"] + np.einsum("vck,bk->bvc", data["shapedirs"], betas.numpy())
    expected = np.stack([data["J_regressor"] @ one for one in shaped])
    identity = torch.eye(3).double().expand(len(betas), 16, 3, 3)
    joints = models["mano"](identity[:, :1], identity[:, 1:], betas, with_vertices=False).mano_joints_m
    np.testing.assert_allclose(joints.numpy(), expected, atol=1e-7)  # the model stores float32


def test_gradients_at_the_zero_pose(hand):
    """Finite and not all zero, through axis-angle vectors of zero and through a mean pose."""
    vectors = torch.zeros(2, 16, 3, dtype=torch.float64, requires_grad=True)
    betas = torch.zeros(2, 10, dtype=torch.float64, requires_grad=True)
    pose = axis_angle_to_matrix(vectors)
    mesh = hand(pose[:, :1], pose[:, 1:], betas)
    weight = torch.linspace(0.5, 1.5, mesh.vertices_m.numel()).view_as(mesh.vertices_m)
    ((mesh.vertices_m * weight).sum() + mesh.joints_m.sum()).backward()
    for grad in (vectors.grad, betas.grad):
        assert torch.isfinite(grad).all()
        assert (grad.abs().flatten(1).amax(1) > 1e-6).all()


def test_gradients_at_the_zero_pose_in_float32(models):
    """As in training; the mean pose requires the logarithm of the identity."""
    hand = HandModel(models["mano_mean"].arrays, name="mano")
    vectors = torch.zeros(1, 16, 3, requires_grad=True)
    pose = axis_angle_to_matrix(vectors)
    hand(pose[:, :1], pose[:, 1:], torch.zeros(1, 10)).joints_m.square().sum().backward()
    assert torch.isfinite(vectors.grad).all()
    assert vectors.grad.abs().max() > 1e-6


def test_gradient_of_the_pose_is_the_finite_difference(hand):
    vectors = torch.zeros(1, 16, 3, dtype=torch.float64)
    betas = torch.zeros(1, 10, dtype=torch.float64)

    def height(v):
        pose = axis_angle_to_matrix(v)
        return (hand(pose[:, :1], pose[:, 1:], betas).joints_m * torch.linspace(0.5, 1.5, 63).view(21, 3)).sum()

    leaf = vectors.clone().requires_grad_()
    height(leaf).backward()
    for joint, axis in ((0, 1), (1, 2), (9, 2), (13, 0), (15, 1)):
        step = torch.zeros_like(vectors)
        step[0, joint, axis] = 1e-5
        slope = (height(vectors + step) - height(vectors - step)) / 2e-5
        assert float(leaf.grad[0, joint, axis]) == pytest.approx(float(slope), abs=1e-7)


def test_left_is_the_mirrored_right(hand):
    global_orient, hand_pose, betas = random_inputs()
    left = hand.mirrored()
    assert (left.side, left.name) == ("left", hand.name)
    a = hand(global_orient, hand_pose, betas)
    b = left(mirror_rotations(global_orient), mirror_rotations(hand_pose), betas)
    for name in ("vertices_m", "joints_m", "mano_joints_m"):
        torch.testing.assert_close(getattr(b, name), mirror_points(getattr(a, name)), atol=1e-12, rtol=0)
    torch.testing.assert_close(left.faces, hand.faces.flip(1))
    twice = left.mirrored()
    for (key, first), (_, second) in zip(hand.named_buffers(), twice.named_buffers(), strict=True):
        torch.testing.assert_close(first, second, msg=f"{key} changed by mirroring twice")


def test_mirrored_pca_is_the_mirrored_pose(models):
    """Equal coefficients give the mirrored pose in the mirrored model."""
    hand = models["mano"]
    coefficients = torch.linspace(-1, 1, 30, dtype=torch.float64).view(2, 15)
    right = axis_angle_to_matrix(hand.pose_from_pca(coefficients).view(2, 15, 3))
    left = axis_angle_to_matrix(hand.mirrored().pose_from_pca(coefficients).view(2, 15, 3))
    torch.testing.assert_close(left, mirror_rotations(right), atol=1e-12, rtol=0)


def test_open_left_equals_open_mirrored(models):
    left = HandModel.open("left").double()
    assert left.side == "left"
    for (_, a), (_, b) in zip(left.named_buffers(), models["open"].mirrored().named_buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_open_hand_looks_like_a_right_hand(models):
    """Adult size, fingers towards -x, thumb towards +z, palm -y, faces outwards, fingers in order."""
    hand = models["open"]
    identity = torch.eye(3).double().expand(1, 16, 3, 3)
    mesh = hand(identity[:, :1], identity[:, 1:], torch.zeros(1, 10).double())
    joints = dict(zip(JOINT_NAMES, mesh.joints_m[0].numpy(), strict=True))
    np.testing.assert_allclose(joints["wrist"], 0.0, atol=1e-6)
    length = np.linalg.norm(joints["middle_tip"] - joints["wrist"])
    assert 0.16 < length < 0.21
    for finger in FINGERS[1:]:
        bones = [joints[f"{finger}_{part}"] for part in ("mcp", "pip", "dip", "tip")]
        along = np.diff(bones, axis=0)
        assert (along[:, 0] < -0.01).all(), f"{finger} does not point to -x"
        assert (np.abs(along[:, 0]) > np.abs(along[:, 1:]).max(1)).all()
        lengths = np.linalg.norm(along, axis=1)
        assert lengths[0] > lengths[1] > 0.5 * lengths[0]  # the first phalanx is the longest
    z = [joints[name][2] for name in ("thumb_tip", "index_mcp", "middle_mcp", "ring_mcp", "little_mcp")]
    assert z == sorted(z, reverse=True)
    triangles = mesh.vertices_m[0, hand.faces].numpy()
    volume = np.einsum("fc,fc->f", triangles[:, 0], np.cross(triangles[:, 1], triangles[:, 2])).sum() / 6
    assert 1e-4 < volume < 6e-4  # m^3, positive: the normals point outwards


def test_open_hand_flexes_about_plus_z(models):
    """Bending the middle finger about +z brings its tip towards the palm (-y)."""
    pose = torch.eye(3).double().repeat(1, 16, 1, 1)
    flat = models["open"](pose[:, :1], pose[:, 1:], torch.zeros(1, 10).double()).joints_m[0]
    bend = axis_angle_to_matrix(torch.tensor([0.0, 0.0, 1.0]).double())
    pose[:, [MANO_JOINT_NAMES.index(f"middle_{part}") for part in ("mcp", "pip", "dip")]] = bend
    bent = models["open"](pose[:, :1], pose[:, 1:], torch.zeros(1, 10).double()).joints_m[0]
    tip = JOINT_NAMES.index("middle_tip")
    assert bent[tip, 1] < flat[tip, 1] - 0.03
    still = [i for i, name in enumerate(JOINT_NAMES) if not name.startswith("middle")]
    torch.testing.assert_close(bent[still], flat[still], atol=1e-4, rtol=0)


def test_first_beta_of_the_open_hand_is_size(models):
    identity = torch.eye(3).double().expand(2, 16, 3, 3)
    betas = torch.zeros(2, 10).double()
    betas[:, 0] = torch.tensor([-1.0, 1.0])
    joints = models["open"](identity[:, :1], identity[:, 1:], betas).joints_m
    large, small = (joints[:, JOINT_NAMES.index("middle_tip")] - joints[:, 0]).norm(dim=1)
    assert large > 1.1 * small


def test_weights_are_convex(models):
    weights = load_open_hand().weights
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(1), 1.0, atol=1e-5)


def test_pca_of_the_open_hand_is_the_identity(models):
    vectors = torch.linspace(-1, 1, 45).double()[None]
    torch.testing.assert_close(models["open"].pose_from_pca(vectors), vectors)


def test_wrong_shapes_say_what_came(models):
    global_orient, hand_pose, betas = random_inputs(2)
    with pytest.raises(ValueError, match=r"betas has shape \(2, 9\), expected \(2, 10\)"):
        models["open"](global_orient, hand_pose, betas[:, :9])
    with pytest.raises(ValueError, match=r"hand_pose has shape \(2, 45\)"):
        models["open"](global_orient, torch.zeros(2, 45), betas)
    with pytest.raises(ValueError, match="side is 'both'"):
        HandModel.open("both")


def test_numbers_of_another_type_are_refused_by_name(models):
    model = next(iter(models.values())) if isinstance(models, dict) else HandModel.open()
    eye, own = torch.eye(3), model.v_template.dtype
    for dtype in {torch.float16, torch.float32, torch.float64} - {own}:
        with pytest.raises(ValueError, match=rf"betas is {dtype}"):
            model(eye.expand(1, 1, 3, 3).to(own), eye.expand(1, 15, 3, 3).to(own), torch.zeros(1, 10, dtype=dtype))


def test_arrays_that_are_no_hand_are_refused():
    arrays = load_open_hand()
    with pytest.raises(InputError, match="somewhere: weights has shape"):
        replace(arrays, weights=arrays.weights[:, :15]).check("somewhere")
    with pytest.raises(InputError, match="tip_vertices points outside"):
        replace(arrays, tip_vertices=np.array(MANO_TIP_VERTICES["smplx"]) + 1600).check("somewhere")


def test_float32_is_close_to_float64(models):
    inputs = random_inputs()
    exact = models["open"](*inputs).vertices_m
    single = HandModel.open()(*(x.float() for x in inputs)).vertices_m
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), exact, atol=1e-6, rtol=0)
