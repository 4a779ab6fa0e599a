"""Synthetic hands: anatomy, lighting, consistency of labels and picture, determinism."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from utnet.config import CropConfig, SynthConfig
from utnet.conventions import JOINT_NAMES, MANO_JOINT_NAMES, TIPS
from utnet.geometry import intrinsics, mirror_params, project
from utnet.hand import HandModel
from utnet.render.raster import interpolate, rasterize, render_shaded, vertex_normals
from utnet.synth import SyntheticHands
from utnet.synth.appearance import Appearance
from utnet.synth.poses import AXES, JOINT_LIMITS_RAD, angles_to_pose, sample_angles, sample_betas, sample_orientation
from utnet.synth.scene import SceneRenderer
from utnet.types import HandParams

INNER = [i for i in range(21) if i not in TIPS]  # a tip is a vertex: its pixel may already show the background
K = intrinsics(500.0, 520.0, 119.5, 90.0)


def hand_at(z=0.5, side="right", angles=None, R=None):
    params = HandParams(
        global_orient=(np.eye(3) if R is None else R)[None],
        hand_pose=angles_to_pose(np.zeros((15, 3)) if angles is None else angles),
        betas=np.zeros(10),
        transl_m=np.array([0.08, 0.0, z]),
    )
    return mirror_params(params) if side == "left" else params


def joints_of(angles):
    return SceneRenderer("right", forearm=False).decode(hand_at(angles=angles)).joints_m


# -------------------------------------------------------------------------------------------------------------- poses


def test_sampled_poses_stay_within_their_limits():
    rng = np.random.default_rng(0)
    angles = np.stack([sample_angles(rng) for _ in range(2000)])
    assert (angles >= JOINT_LIMITS_RAD[..., 0] - 1e-9).all()
    assert (angles <= JOINT_LIMITS_RAD[..., 1] + 1e-9).all()
    moving = JOINT_LIMITS_RAD[..., 1] > JOINT_LIMITS_RAD[..., 0]
    spread = np.ptp(angles, axis=0)[moving] / np.ptp(JOINT_LIMITS_RAD, axis=-1)[moving]
    assert (spread > 0.5).all(), "every joint uses most of its range"


@pytest.mark.parametrize("finger", ["index", "middle", "ring", "little"])
def test_flexion_moves_a_fingertip_towards_the_palm(finger):
    angles = np.zeros((15, 3))
    for joint in ("mcp", "pip", "dip"):
        angles[MANO_JOINT_NAMES.index(f"{finger}_{joint}") - 1, 0] = np.deg2rad(50)
    tip = JOINT_NAMES.index(f"{finger}_tip")
    flat, bent = joints_of(None), joints_of(angles)
    assert bent[tip, 1] < flat[tip, 1] - 0.03, "the palm is on the side of -y"
    others = [i for i in range(21) if finger not in JOINT_NAMES[i]]
    np.testing.assert_allclose(bent[others], flat[others], atol=1e-6)


def test_thumb_flexion_moves_its_tip_across_the_palm_and_abduction_out_of_it():
    tip, little = JOINT_NAMES.index("thumb_tip"), JOINT_NAMES.index("little_mcp")
    flat = joints_of(None)
    across, out = np.zeros((15, 3)), np.zeros((15, 3))
    across[12:, 0] = np.deg2rad(30)
    out[12, 1] = np.deg2rad(40)
    assert np.linalg.norm(joints_of(across)[tip] - flat[little]) < np.linalg.norm(flat[tip] - flat[little]) - 0.02
    assert joints_of(out)[tip, 1] < flat[tip, 1] - 0.03


def test_angles_turn_about_their_axes_in_the_stated_order():
    angles = np.random.default_rng(0).uniform(-1, 1, (15, 3))
    turns = Rotation.from_rotvec((angles[..., None] * AXES).reshape(-1, 3)).as_matrix().reshape(15, 3, 3, 3)
    np.testing.assert_allclose(angles_to_pose(angles), turns[:, 1] @ turns[:, 0] @ turns[:, 2], atol=1e-12)


def test_orientations_cover_the_sphere_or_the_cone_they_are_asked_for():
    rng = np.random.default_rng(0)
    R = np.stack([sample_orientation(rng) for _ in range(4000)])
    np.testing.assert_allclose(R @ R.transpose(0, 2, 1), np.broadcast_to(np.eye(3), R.shape), atol=1e-12)
    np.testing.assert_allclose(R.mean(0), 0, atol=0.05)
    facing = np.stack([sample_orientation(rng, 30.0) for _ in range(300)])
    assert (np.abs(facing[:, 2, 1]) >= np.cos(np.deg2rad(30))).all()


def test_betas_have_the_asked_spread():
    rng = np.random.default_rng(0)
    betas = np.stack([sample_betas(rng, 0.5) for _ in range(4000)])
    assert betas.shape == (4000, 10)
    np.testing.assert_allclose(betas.std(0), 0.5, atol=0.03)
    assert np.abs(betas).max() <= 1.25


# ----------------------------------------------------------------------------------------------------------- rasteriser


def naive_raster(vertices, faces, width, height):
    """Every pixel against every face, in float64."""
    p = project(vertices, K)
    depth, face = np.full((height, width), np.inf), np.full((height, width), -1)
    for f, (a, b, c) in enumerate(faces):
        M = np.array([[p[a, 0], p[b, 0], p[c, 0]], [p[a, 1], p[b, 1], p[c, 1]], [1, 1, 1]])
        if abs(np.linalg.det(M)) < 1e-9:
            continue
        inverse = np.linalg.inv(M)
        for y in range(height):
            for x in range(width):
                w = inverse @ [x, y, 1]
                if (w >= 0).all():
                    z = 1 / (w / vertices[[a, b, c], 2]).sum()
                    if z < depth[y, x]:
                        depth[y, x], face[y, x] = z, f
    return face, np.where(np.isfinite(depth), depth, 0)


def test_rasteriser_equals_the_naive_one():
    rng = np.random.default_rng(0)
    vertices = np.column_stack([rng.uniform(-0.03, 0.03, (24, 2)), rng.uniform(0.4, 0.6, 24)])
    vertices[:, 0] -= 0.06
    faces = rng.permuted(np.tile(np.arange(24), (10, 1)), axis=1)[:, :3]
    fragments = rasterize(vertices, faces, K, (120, 150))
    face, depth = naive_raster(vertices, faces, 120, 150)
    same = fragments.face == face
    assert same.mean() > 0.9995, "pixels on an edge may fall to either side"
    assert (face >= 0).mean() > 0.1
    np.testing.assert_allclose(fragments.depth_m[same], depth[same], atol=2e-6)
    points = interpolate(fragments, faces, vertices)
    np.testing.assert_allclose(points[same & (face >= 0)][:, 2], depth[same & (face >= 0)], atol=2e-6)
    ys, xs = np.nonzero(fragments.mask)
    np.testing.assert_allclose(project(points[ys, xs], K), np.stack([xs, ys], 1), atol=0.02)


def test_what_lies_behind_or_too_near_the_camera_is_not_drawn():
    triangle = np.array([[-0.1, -0.1, -1.0], [0.1, -0.1, 0.5], [0.0, 0.1, 0.5]])
    assert not rasterize(triangle, np.array([[0, 1, 2]]), K, (64, 64)).mask.any()


def test_normals_point_outwards_and_overlays_are_anti_aliased():
    hand = HandModel.open()
    vertices = hand.v_template.numpy()
    normals = vertex_normals(vertices, hand.faces.numpy())
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-5)
    back, palm = normals[:, 1] > 0.9, normals[:, 1] < -0.9
    assert vertices[back, 1].mean() > vertices[palm, 1].mean() + 0.01
    rgb, alpha = render_shaded(vertices + [0.08, 0, 0.4], hand.faces.numpy(), K, (240, 180))
    assert set(np.unique(alpha)) == {0, 0.25, 0.5, 0.75, 1}
    assert (rgb[alpha == 0] == 0).all()
    assert rgb[alpha == 1].min() > 0.1


# --------------------------------------------------------------------------------------------------------------- scenes


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_scene_is_lit_from_its_light_s_side_on_both_hands(side):
    """Light from the left makes the left side brighter on both hands (normals point outwards)."""
    rng = np.random.default_rng(0)
    R = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # fingers up, palm towards the camera
    look = Appearance.sample(rng)
    light = np.array([-0.8, 0.0, -0.6])
    look = Appearance(**{**vars(look), "light": light, "mottle": np.zeros((3, 4)), "exposure": 1.0, "noise": 0.0})
    renderer = SceneRenderer(side, forearm=False)
    params = hand_at(side=side, R=R)
    render = renderer.render(renderer.decode(params), K, (240, 180), look, rng=rng)
    normals = vertex_normals(render.vertices_cam_m, renderer.hand.faces)
    fragments = rasterize(render.vertices_cam_m, renderer.hand.faces, K, (240, 180))
    facing = interpolate(fragments, renderer.hand.faces, normals) @ light
    bright = render.rgb.astype(float).mean(-1)
    inside = fragments.mask
    assert np.corrcoef(facing[inside], bright[inside])[0, 1] > 0.6
    seen = interpolate(fragments, renderer.hand.faces, normals)[inside]
    assert (seen[:, 2] < 0.1).mean() > 0.95, "what is seen faces the camera"


def test_left_scene_is_the_mirror_image_of_the_right_one():
    renders = {}
    for side in ("right", "left"):
        rng = np.random.default_rng(1)
        look = Appearance.sample(rng)
        centred = intrinsics(500.0, 520.0, 119.5, 90.0)
        renderer = SceneRenderer(side)
        posed = renderer.decode(hand_at(side=side))
        renders[side] = renderer.render(posed, centred, (240, 180), look, rng=rng)
    # The forearm bends at random about axes that are mirrored too, so the hands alone are compared.
    right, left = renders["right"], renders["left"]
    overlap = (right.mask[:, ::-1] & left.mask).sum() / (right.mask[:, ::-1] | left.mask).sum()
    assert overlap > 0.97
    np.testing.assert_allclose(left.joints_cam_m, right.joints_cam_m * [-1, 1, 1], atol=1e-6)


def test_items_depend_on_seed_and_index_alone():
    source = SyntheticHands(seed=3, size_px=64)
    backwards = [SyntheticHands(seed=3, size_px=64)[i] for i in (5, 2)]
    for sample, index in zip(backwards, (5, 2), strict=True):
        again = source[index]
        np.testing.assert_array_equal(sample.rgb, again.rgb)
        np.testing.assert_array_equal(sample.depth_m, again.depth_m)
        np.testing.assert_array_equal(sample.joints_cam_m, again.joints_cam_m)
        assert sample.key == again.key
    assert (SyntheticHands(seed=4, size_px=64)[5].rgb != backwards[0].rgb).any()


@pytest.mark.parametrize("jitter", [True, False])
def test_labels_agree_with_the_picture(jitter):
    """Parameters decode to the joints, joints lie on the hand, and depth agrees with their z."""
    source = SyntheticHands(seed=1, size_px=128, jitter=jitter, crop=CropConfig(rotation_jitter_deg=90.0))
    renderer = SceneRenderer("right", forearm=False)
    near_skin, before = [], []
    for i in range(24):
        sample = source[i]
        joints = renderer.decode(sample.params).joints_m
        error = project(joints, sample.K_px) - project(sample.joints_cam_m, sample.K_px)
        assert np.abs(error).max() < 0.5
        pixels = np.rint(project(sample.joints_cam_m, sample.K_px)).astype(int)
        assert (pixels > 0).all()
        assert (pixels < 127).all()
        depth = (sample.depth_m[pixels[:, 1], pixels[:, 0]] - sample.joints_cam_m[:, 2])[INNER]
        near_skin.append(np.abs(depth) < 0.03)
        before.append(depth < 0.01)
    assert np.mean(before) > 0.97, "a joint lies under the skin or under what hides it, never in the open"
    assert np.mean(near_skin) > 0.6  # the others are occluded


def test_noise_and_forearm_have_switches():
    smooth = SyntheticHands(seed=2, size_px=64, synth=SynthConfig(depth_noise_m=0.0))[0]
    noisy = SyntheticHands(seed=2, size_px=64, synth=SynthConfig(depth_noise_m=0.01))[0]
    assert 0.0005 < np.median(np.abs(noisy.depth_m - smooth.depth_m)) < 0.05
    bare = SyntheticHands(seed=2, size_px=64, synth=SynthConfig(forearm=False))[0]
    assert (bare.rgb != smooth.rgb).any()


def test_an_index_out_of_range_ends_the_source():
    source = SyntheticHands(num=2, size_px=64)
    assert len(list(iter(source.__getitem__(i) for i in range(len(source))))) == 2
    with pytest.raises(IndexError):
        source[2]
