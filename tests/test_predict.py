"""Out of the crop: a hand whose place is known must come back to it, whatever the camera, the side and the crop."""

import json

import cv2
import numpy as np
import pytest
import torch
import trimesh

from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import Config, ModelConfig
from utnet.conventions import NOMINAL_FOCAL
from utnet.errors import InputError
from utnet.geometry import box_of, intrinsics, mirror_params, mirror_points, project, px_to_crop
from utnet.model import UTNet
from utnet.predict import Predictor
from utnet.predict.camera import default_intrinsics, measure_distance, solve_translation
from utnet.predict.files import draw_hands, read_depth, read_picture, write_hands
from utnet.synth.appearance import Appearance
from utnet.synth.poses import angles_to_pose, sample_angles, sample_betas, sample_orientation
from utnet.synth.scene import SceneRenderer
from utnet.types import HandParams, Prediction

K = intrinsics(610.0, 580.0, 300.0, 260.0)  # fx != fy, off-centre
SIZE = (640, 480)


def make_scene(side, seed):
    """A rendered hand of known place: params, Render."""
    rng = np.random.default_rng(seed)
    params = HandParams(
        global_orient=sample_orientation(rng)[None],
        hand_pose=angles_to_pose(sample_angles(rng)),
        betas=sample_betas(rng),
        transl_m=np.array([rng.uniform(-0.1, 0.1), rng.uniform(-0.05, 0.05), rng.uniform(0.5, 0.8)]),
    )
    if side == "left":
        params = mirror_params(params)
    renderer = SceneRenderer(side, forearm=False)
    return params, renderer.render(renderer.decode(params), K, SIZE, Appearance.sample(rng), rng=rng, depth_noise_m=0.0)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "best"
    config = Config(model=ModelConfig(size_px=64))
    torch.manual_seed(0)
    save_checkpoint(folder, UTNet(config.model), config, step=0)
    return Predictor(folder, device="cpu")


def knowing(predictor, monkeypatch, params, joints_cam_m, *, side, scale=1.0):
    """The predictor with a network that knows the answer in its crop, up to the size of the hand."""
    right = mirror_params(params) if side == "left" else params
    joints_cam_m = mirror_points(joints_cam_m) if side == "left" else joints_cam_m

    def tensor(array):
        return torch.from_numpy(np.asarray(array, np.float32))[None]

    def forward_batch(batch, *, use_depth=True, with_vertices=True):
        mesh = predictor.model.hand(tensor(right.global_orient), tensor(right.hand_pose), tensor(right.betas))
        seen = px_to_crop(project(joints_cam_m, batch.K_px[0].double().numpy()), batch.rgb.shape[-1])
        return Prediction(
            global_orient=tensor(right.global_orient),
            hand_pose=tensor(right.hand_pose),
            betas=tensor(right.betas),
            cam=torch.zeros(1, 3),
            cam_t=torch.zeros(1, 3),
            joints_m=mesh.joints_m * scale,
            joints_crop=tensor(seen),
            vertices_m=mesh.vertices_m * scale,
        )

    monkeypatch.setattr(predictor.model, "forward_batch", forward_batch)
    return predictor


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_known_hand_comes_back_to_its_place(predictor, monkeypatch, side, seed):
    params, render = make_scene(side, seed)
    box = box_of(project(render.joints_cam_m, K))
    knowing(predictor, monkeypatch, params, render.joints_cam_m, side=side)
    (hand,) = predictor(render.rgb, None, K, boxes=[box], sides=[side])
    np.testing.assert_allclose(hand.joints_cam_m, render.joints_cam_m, atol=2e-5)
    np.testing.assert_allclose(hand.vertices_cam_m, render.vertices_cam_m, atol=2e-5)
    np.testing.assert_allclose(hand.params.transl_m, params.transl_m, atol=2e-5)
    np.testing.assert_allclose(hand.params.global_orient, params.global_orient, atol=1e-5)
    np.testing.assert_allclose(hand.box_px, box)
    assert (hand.side, hand.distance_from) == (side, "size")


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_drawn_hand_covers_the_hand_in_the_picture(predictor, monkeypatch, side):
    params, render = make_scene(side, 5)
    knowing(predictor, monkeypatch, params, render.joints_cam_m, side=side)
    (hand,) = predictor(render.rgb, None, K, boxes=[box_of(project(render.joints_cam_m, K))], sides=[side])
    blank = np.zeros_like(render.rgb)
    drawn = draw_hands(blank, [hand]).any(-1)
    overlap = (drawn & render.mask).sum() / (drawn | render.mask).sum()
    assert overlap > 0.93  # the skeleton's dots at the fingertips stick out a little


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_depth_measures_the_distance_where_the_size_is_wrong(predictor, monkeypatch, side, scale):
    params, render = make_scene(side, 7)
    box = box_of(project(render.joints_cam_m, K))
    knowing(predictor, monkeypatch, params, render.joints_cam_m, side=side, scale=scale)
    (guessed,) = predictor(render.rgb, None, K, boxes=[box], sides=[side])
    (measured,) = predictor(render.rgb, render.depth_m, K, boxes=[box], sides=[side])
    centre = render.joints_cam_m[:, 2].mean()
    assert abs(guessed.joints_cam_m[:, 2].mean() - centre) > 0.03
    assert abs(measured.joints_cam_m[:, 2].mean() - centre) < 0.008
    assert measured.distance_from == "depth"


def test_solved_translation_is_the_field_s_formula_for_long_focal_lengths():
    """t_z = 2 f / (b s), t_x = tx + 2 (cx - W/2) / (b s) (FORMATS.md), for a crop of side b round (cx, cy)."""
    rng = np.random.default_rng(0)
    joints = rng.normal(0, 0.05, (21, 3))
    s, tx, ty, f, b = 6.0, 0.02, -0.01, 200_000.0, 180.0
    centre, middle = np.array([350.0, 210.0]), np.array([319.5, 239.5])
    cam_t = np.array([tx, ty, 2 * NOMINAL_FOCAL / s])
    joints_crop = (joints + cam_t)[:, :2] * NOMINAL_FOCAL / (joints + cam_t)[:, 2:]
    solved = solve_translation(joints, centre + joints_crop * b, intrinsics(f, f, *middle))
    wanted = np.array([tx, ty, 0.0]) + np.append(2 * (centre - middle) / (b * s), 2 * f / (b * s))
    np.testing.assert_allclose(solved[:2], wanted[:2], atol=3e-3)
    np.testing.assert_allclose(solved[2], wanted[2], rtol=0.02)


def test_solved_translation_keeps_a_given_distance():
    rng = np.random.default_rng(1)
    joints, transl = rng.normal(0, 0.05, (21, 3)), np.array([0.05, -0.02, 0.7])
    seen = project(joints + transl, K)
    np.testing.assert_allclose(solve_translation(joints, seen, K), transl, atol=1e-9)
    np.testing.assert_allclose(solve_translation(joints, seen, K, z_m=0.7), transl, atol=1e-9)


def test_without_readings_the_distance_stays():
    params, render = make_scene("right", 3)
    hand = SceneRenderer("right", forearm=False)
    joints = render.joints_cam_m - params.transl_m
    vertices = render.vertices_cam_m - params.transl_m
    empty = np.zeros((480, 640), np.float32)
    same = measure_distance(vertices, hand.faces, joints, params.transl_m, empty, K)
    np.testing.assert_array_equal(same, params.transl_m)


def test_files_hold_the_hand(predictor, monkeypatch, tmp_path):
    params, render = make_scene("left", 2)
    knowing(predictor, monkeypatch, params, render.joints_cam_m, side="left")
    hands = predictor(render.rgb, None, K, boxes=[box_of(project(render.joints_cam_m, K))], sides=["left"])
    written = write_hands(tmp_path, "picture", render.rgb, hands)
    tree = json.loads(written["json"][0].read_text())
    (hand,) = tree["hands"]
    assert (tree["version"], hand["side"]) == (1, "left")
    np.testing.assert_allclose(hand["joints_cam_m"], hands[0].joints_cam_m, atol=1e-6)
    assert np.shape(hand["hand_pose_axis_angle"]) == (15, 3)
    scene = trimesh.load(written["mesh"][0])
    (mesh,) = scene.geometry.values()
    np.testing.assert_allclose(mesh.vertices, hands[0].vertices_cam_m, atol=1e-6)
    shown = scene.to_mesh() if hasattr(scene, "to_mesh") else scene.dump(concatenate=True)
    np.testing.assert_allclose(shown.vertices, hands[0].vertices_cam_m * [1, -1, -1], atol=1e-6)
    # Counter-clockwise seen from outside, on the mirrored hand too: the signed volume is positive.
    a, b, c = (mesh.vertices[mesh.faces[:, k]] - mesh.vertices.mean(0) for k in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6 > 1e-5
    assert read_picture(written["overlay"][0]).shape == render.rgb.shape


def test_depth_files(tmp_path):
    metres = np.array([[0.0, 0.5], [1.25, 0.801]], np.float32)
    cv2.imwrite(str(tmp_path / "d.png"), (metres * 1000).round().astype(np.uint16))
    np.testing.assert_allclose(read_depth(tmp_path / "d.png"), metres, atol=1e-6)
    np.save(tmp_path / "d.npy", metres)
    np.testing.assert_array_equal(read_depth(tmp_path / "d.npy"), metres)


def test_default_intrinsics_are_the_stated_ones():
    np.testing.assert_array_equal(default_intrinsics(640, 480), intrinsics(640, 640, 319.5, 239.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": None}, "no box was given"),
        ({"boxes": [[10, 10, 10, 50]]}, "empty or not finite"),
        ({"boxes": [[700, 10, 800, 50]]}, "outside the image"),
        ({"sides": ["right", "left"]}, "2 sides for 1 boxes"),
        ({"boxes": [[np.nan, 10, 50, 50]], "depth_m": np.full((480, 640), 0.8)}, "empty or not finite"),
        ({"boxes": [[100, 100, 100.5, 100.5]]}, "cannot hold a hand"),
        ({"boxes": [[-1e9, -1e9, 1e9, 1e9]]}, "cannot hold a hand"),
        ({"boxes": [[640, 10, 700, 50]]}, "outside the image"),
        ({"K_px": intrinsics(0.5, 0.5, 0.5, 0.5)}, "focal length of 0.5 px"),
        ({"K_px": np.zeros((3, 3))}, "not a camera matrix"),
        ({"K_px": intrinsics(np.nan, 500, 1, 1)}, "not a camera matrix"),
        ({"depth_m": np.full((480, 640), 800.0)}, "800 m away.*millimetres"),
        ({"depth_m": np.full((240, 320), 0.8)}, "depth is 320x240, the image 640x480"),
        ({"depth_m": np.zeros((480, 640))}, "no reading inside the box"),
    ],
)
def test_bad_input_says_what_and_what_to_do(predictor, change, message):
    arguments = {"depth_m": None, "K_px": K, "boxes": [[100, 100, 200, 220]], "sides": None} | change
    with pytest.raises(InputError, match=message):
        predictor(np.zeros((480, 640, 3), np.uint8), **arguments)


def test_bad_files_are_named(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("none.png", "no such file"), ("text.png", "not a picture")):
        with pytest.raises(InputError, match=f"{name}: {message}"):
            read_picture(tmp_path / name)
    with pytest.raises(InputError, match=r"weights.safetensors: no such file; give a checkpoint folder"):
        Predictor(tmp_path)


def test_depth_files_that_are_not_metres_or_16_bit_are_refused(tmp_path):
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    (tmp_path / "empty.npy").touch()
    cv2.imwrite(str(tmp_path / "grey.png"), np.zeros((4, 4), np.uint8))
    for name, message in (
        ("text.npy", "numbers in metres"),
        ("empty.npy", "not a numpy array"),
        ("grey.png", "expected a 16-bit PNG"),
        ("none.npy", "no such file"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*{message}"):
            read_depth(tmp_path / name)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_mesh_half_over_the_background_is_measured_on_the_hand(side):
    params, render = make_scene(side, 7)
    renderer = SceneRenderer(side, forearm=False)
    joints, vertices = render.joints_cam_m - params.transl_m, render.vertices_cam_m - params.transl_m
    wall = np.where(render.mask, render.depth_m, 2.0).astype(np.float32)
    aside = params.transl_m + [0.03, 0.0, 0.05]
    measured = measure_distance(vertices, renderer.faces, joints, aside, wall, K)
    assert abs(measured[2] - params.transl_m[2]) < 0.03


def test_checkpoints_round_trip_and_damage_is_named(predictor, tmp_path):
    save_checkpoint(tmp_path / "c", predictor.model, predictor.config, step=3)
    save_checkpoint(tmp_path / "c", predictor.model, predictor.config, step=4)  # replaces the first
    model, config = load_checkpoint(tmp_path / "c")
    assert config == predictor.config
    assert json.loads((tmp_path / "c" / "run.json").read_text())["step"] == 4
    for (name, a), b in zip(model.state_dict().items(), predictor.model.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
    assert load_checkpoint(tmp_path / "c" / "weights.safetensors")[1] == config
    with torch.no_grad():
        model.coarse_head.cam.bias.fill_(torch.nan)
    save_checkpoint(tmp_path / "nan", model, config, step=5)
    with pytest.raises(InputError, match=r"coarse_head\.cam\.bias holds NaN"):
        load_checkpoint(tmp_path / "nan")
    (tmp_path / "c" / "weights.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"weights.safetensors: not a readable safetensors file"):
        load_checkpoint(tmp_path / "c")
