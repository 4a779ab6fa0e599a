"""Out of the crop: a hand whose place is known must come back to it, whatever the camera, the side and the crop."""

import json

import cv2
import numpy as np
import pytest
import torch

from support.mano_files import random_mano, write_mano
from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import Config, ModelConfig
from utnet.conventions import NOMINAL_FOCAL
from utnet.detect import Detection
from utnet.errors import InputError
from utnet.geometry import box_of, intrinsics, mirror_camera, mirror_params, mirror_points, project, px_to_crop
from utnet.model import UTNet
from utnet.placement import default_intrinsics, measure_distance, solve_translation
from utnet.predict import Predictor
from utnet.predict.drawing import draw_hands
from utnet.render.drawing import MESH_COLOR, draw_skeleton, overlay_mesh
from utnet.render.raster import render_shaded
from utnet.synth.appearance import Appearance
from utnet.synth.poses import angles_to_pose, sample_angles, sample_betas, sample_orientation
from utnet.synth.scene import SceneRenderer
from utnet.types import HandParams, Prediction

pytestmark = pytest.mark.usefixtures("nothing_ships")  # test_release.py: what holds where something does

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

    def batched(array):
        return np.asarray(array, np.float32)[None]

    def forward_batch(batch, *, use_depth=True, with_vertices=True):
        mesh = predictor.hand(batched(right.global_orient), batched(right.hand_pose), batched(right.betas))
        seen = px_to_crop(project(joints_cam_m, batch.K_px[0].astype(float)), batch.rgb.shape[-1])
        return Prediction(
            global_orient=batched(right.global_orient),
            hand_pose=batched(right.hand_pose),
            betas=batched(right.betas),
            cam=np.zeros((1, 3)),
            cam_t=np.zeros((1, 3)),
            joints_m=mesh.joints_m * scale,
            joints_crop=batched(seen),
            vertices_m=mesh.vertices_m * scale,
        )

    monkeypatch.setattr(predictor._reconstruct.network, "forward_batch", forward_batch)
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
    assert (hand.side, hand.distance_source) == (side, "hand_size")


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
    assert measured.distance_source == "sensor"


def test_depth_out_of_reach_is_left_out_for_that_hand_alone(predictor):
    """Where one of two boxes is far behind, the network lifts it as it does without depth, and the other as with it."""
    _, render = make_scene("right", 7)
    depth_m, boxes = render.depth_m.copy(), [box_of(project(render.joints_cam_m, K)), np.array([4.0, 4.0, 60.0, 60.0])]
    depth_m[:64, :64] = 14.0
    near, far = predictor(render.rgb, depth_m, K, boxes, ["right", "left"])
    (alone,) = predictor(render.rgb, depth_m, K, boxes[:1], ["right"])
    (without,) = predictor(render.rgb, None, K, boxes[1:], ["left"])
    assert far.distance_source == "hand_size"
    np.testing.assert_allclose(near.vertices_cam_m, alone.vertices_cam_m, atol=1e-5)
    np.testing.assert_allclose(far.vertices_cam_m, without.vertices_cam_m, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="14 m"):
        predictor(render.rgb, depth_m, K, boxes[1:], ["left"])


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


def test_readings_out_of_reach_leave_the_distance():
    """A hand that is guessed a few centimetres from the camera, before a far wall."""
    params, render = make_scene("right", 3)
    near = params.transl_m * [0.1, 0.1, 0.3]
    joints, vertices = render.joints_cam_m - params.transl_m, render.vertices_cam_m - params.transl_m
    wall, faces = np.full((480, 640), 9.0, np.float32), SceneRenderer("right", forearm=False).faces
    np.testing.assert_array_equal(measure_distance(vertices, faces, joints, near, wall, K), near)


def test_without_readings_the_distance_stays():
    params, render = make_scene("right", 3)
    hand = SceneRenderer("right", forearm=False)
    joints = render.joints_cam_m - params.transl_m
    vertices = render.vertices_cam_m - params.transl_m
    empty = np.zeros((480, 640), np.float32)
    same = measure_distance(vertices, hand.faces, joints, params.transl_m, empty, K)
    np.testing.assert_array_equal(same, params.transl_m)


def test_default_intrinsics_are_the_stated_ones():
    np.testing.assert_array_equal(default_intrinsics(640, 480), intrinsics(640, 640, 319.5, 239.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": None, "sides": ["right"]}, "sides are given without boxes"),
        ({"boxes": [[10, 10, 10, 50]]}, "empty or not finite"),
        ({"boxes": [[700, 10, 800, 50]]}, "outside the image"),
        ({"sides": ["right", "left"]}, "2 sides for 1 boxes"),
        ({"sides": ["both"]}, "give right or left for each"),
        ({"boxes": [[np.nan, 10, 50, 50]], "depth_m": np.full((480, 640), 0.8)}, "empty or not finite"),
        ({"boxes": [[100, 100, 100.5, 100.5]]}, "too small for a hand"),
        ({"boxes": [[-1e9, -1e9, 1e9, 1e9]]}, "too large for a hand"),
        ({"boxes": ["abcd"]}, "not numbers"),
        ({"boxes": 5}, "boxes is a int"),
        ({"boxes": [[100, 100, 200, 220]] * 257, "sides": None}, "at most 256"),
        ({"sides": [["left"]]}, "give right or left for each"),
        ({"landmarks_px": "abc"}, "landmarks_px is a str"),
        ({"landmarks_px": [{}]}, "not numbers"),
        ({"landmarks_px": [[[1, 2], [3]]]}, "not numbers"),
        ({"landmarks_px": [np.full((21, 2), 1j)]}, "not numbers"),
        ({"boxes": [[640, 10, 700, 50]]}, "outside the image"),
        ({"K_px": intrinsics(0.5, 0.5, 0.5, 0.5)}, "focal length of 0.5 px"),
        ({"K_px": np.zeros((3, 3))}, "not a camera matrix"),
        ({"K_px": intrinsics(500, 5e8, 320, 240)}, "focal length of 5e"),
        ({"K_px": intrinsics(500, 500, 1e9, 240)}, "not belong to a picture"),
        ({"K_px": intrinsics(500, 500, 320, 240) + 1e9 * np.eye(3, k=1)}, "not belong to a picture"),
        ({"K_px": intrinsics(np.nan, 500, 1, 1)}, "not a camera matrix"),
        ({"depth_m": np.full((480, 640), 800.0)}, "800 m.*millimetres"),
        ({"depth_m": np.full((240, 640), 0.8)}, "another aspect ratio"),
        ({"depth_m": np.zeros((480, 640))}, "no reading at all"),
        ({"depth_m": np.full((480, 640, 1), 0.8)}, "has the shape"),
        ({"depth_m": np.zeros((0, 0))}, "has the shape"),
        ({"depth_m": np.ones((480, 640), bool)}, "depth is bool"),
        ({"depth_m": "depth.png"}, "depth is str"),
    ],
)
def test_bad_input_says_what_and_what_to_do(predictor, change, message):
    arguments = {"depth_m": None, "K_px": K, "boxes": [[100, 100, 200, 220]], "sides": ["right"]} | change
    with pytest.raises(InputError, match=message):
        predictor(np.zeros((480, 640, 3), np.uint8), **arguments)


def test_without_weights_the_fit_is_taken_and_the_network_refused(tmp_path):
    assert Predictor().method == "fit"
    with pytest.raises(InputError, match="no bundled weights"):
        Predictor(method="network")
    with pytest.raises(InputError, match="fit uses no weights"):
        Predictor(tmp_path, method="fit")
    with pytest.raises(InputError, match="expected auto, both, network or fit"):
        Predictor(method="magic")
    with pytest.raises(InputError, match=r"weights.safetensors: no such file; give a checkpoint folder"):
        Predictor(tmp_path)
    with pytest.raises(InputError, match=r"MANO_RIGHT.pkl: no such file"):
        Predictor(mano=tmp_path)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_mesh_half_over_the_background_is_measured_on_the_hand(side):
    params, render = make_scene(side, 7)
    renderer = SceneRenderer(side, forearm=False)
    joints, vertices = render.joints_cam_m - params.transl_m, render.vertices_cam_m - params.transl_m
    wall = np.where(render.mask, render.depth_m, 2.0).astype(np.float32)
    aside = params.transl_m + [0.03, 0.0, 0.05]
    measured = measure_distance(vertices, renderer.faces, joints, aside, wall, K)
    assert abs(measured[2] - params.transl_m[2]) < 0.03


def test_checkpoints_round_trip_and_damage_is_named(tmp_path):
    config = Config(model=ModelConfig(size_px=64))
    network = UTNet(config.model)
    save_checkpoint(tmp_path / "c", network, config, step=3)
    save_checkpoint(tmp_path / "c", network, config, step=4)  # replaces the first
    model, read = load_checkpoint(tmp_path / "c")
    assert read == config
    assert json.loads((tmp_path / "c" / "run.json").read_text())["step"] == 4
    for (name, a), b in zip(model.state_dict().items(), network.state_dict().values(), strict=True):
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


# ---------------------------------------------------------------------------------------------------- fit and detector


@pytest.fixture(scope="module")
def fit():
    return Predictor(method="fit")


def seen(render, side, K_px=K, track=None):
    """What a perfect detector says of a rendered hand."""
    joints_px = project(render.joints_cam_m, K_px)
    joints_m = render.joints_cam_m - render.joints_cam_m.mean(0)
    return Detection(side, 0.9, box_of(joints_px), joints_px, joints_m, track)


@pytest.mark.parametrize("side", ["right", "left"])
def test_fit_puts_a_hand_where_its_landmarks_are(fit, side):
    _, render = make_scene(side, 1)
    (hand,) = fit.from_detections(render.rgb, [seen(render, side, track=7)], K_px=K)
    assert (hand.side, hand.method, hand.hand_model, hand.track) == (side, "fit", "open", 7)
    assert (hand.distance_source, hand.presence, hand.side_probability) == ("hand_size", 0.9, 1.0)
    off_px = np.linalg.norm(hand.joints_px - project(render.joints_cam_m, K), axis=1)
    assert np.median(off_px) < 0.02 * np.ptp(hand.box_px[[0, 2]])
    model = fit.hand if side == "right" else fit.hand.mirrored()
    mesh = model.decode(hand.params.map(lambda a: a[None]))
    np.testing.assert_allclose(mesh.joints_m[0] + hand.params.transl_m, hand.joints_cam_m, atol=1e-5)
    np.testing.assert_allclose(mesh.vertices_m[0] + hand.params.transl_m, hand.vertices_cam_m, atol=1e-5)


def test_a_mirrored_picture_gives_the_mirrored_hand(fit):
    _, render = make_scene("right", 2)
    width, right = render.rgb.shape[1], seen(render, "right")
    flipped = right.joints_px * [-1, 1] + [width - 1, 0]
    left = Detection("left", 0.9, box_of(flipped), flipped, mirror_points(right.joints_m))
    (a,) = fit.from_detections(render.rgb, [right], render.depth_m, K)
    (b,) = fit.from_detections(render.rgb[:, ::-1], [left], render.depth_m[:, ::-1], mirror_camera(K, width))
    np.testing.assert_allclose(mirror_points(b.vertices_cam_m), a.vertices_cam_m, atol=1e-6)
    np.testing.assert_allclose(b.params.betas, a.params.betas, atol=1e-6)
    np.testing.assert_allclose(mirror_params(b.params).hand_pose, a.params.hand_pose, atol=1e-6)
    assert a.distance_source == b.distance_source
    np.testing.assert_allclose(a.evidence.features(), b.evidence.features(), atol=1e-6)
    np.testing.assert_allclose(a.joints_wrist_m @ a.T_cam_wrist[:3, :3].T + a.T_cam_wrist[:3, 3], a.joints_cam_m)
    np.testing.assert_allclose(mirror_points(b.joints_wrist_m), a.joints_wrist_m, atol=1e-6)


def test_hands_of_one_picture_do_not_touch_each_other(fit):
    _, one = make_scene("right", 3)
    _, two = make_scene("left", 4)
    hands = [seen(one, "right"), seen(two, "left")]
    together = fit.from_detections(one.rgb, hands, K_px=K)
    for alone, hand in zip(hands, together, strict=True):
        (other,) = fit.from_detections(one.rgb, [alone], K_px=K)
        np.testing.assert_allclose(hand.vertices_cam_m, other.vertices_cam_m, atol=1e-9)


def test_mano_takes_the_place_of_the_open_hand(tmp_path):
    write_mano(tmp_path / "MANO_RIGHT.pkl", random_mano())
    predictor = Predictor(mano=tmp_path)
    _, render = make_scene("left", 1)
    (hand,) = predictor.from_detections(render.rgb, [seen(render, "left")], K_px=K)
    assert (hand.hand_model, hand.vertices_cam_m.shape) == ("mano", (778, 3))
    with pytest.raises(InputError, match="MANO"):
        Predictor(tmp_path, mano=tmp_path)


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (480, 640)])
def test_no_hand_is_an_empty_list(fit, shape):
    assert len(fit(np.full((*shape, 3), 120, np.uint8))) == 0


def test_boxes_need_no_sides_and_may_leave_the_picture(fit):
    """Bad boxes are refused; others get one hand each, whatever is in them, in their order."""
    picture = np.random.default_rng(0).integers(0, 255, (120, 160, 3), dtype=np.uint8)
    boxes = [[-30, -20, 60, 70], [100, 60, 190, 150], [20, 20, 25, 26]]
    hands = fit(picture, None, None, boxes)
    np.testing.assert_array_equal([hand.box_px for hand in hands], boxes)
    assert all(np.isfinite(hand.vertices_cam_m).all() for hand in hands)
    sided = fit(picture, None, None, boxes, ["left", "right", "left"])
    assert [hand.side for hand in sided] == ["left", "right", "left"]


def test_pictures_that_are_none_are_the_programmer_s_error(fit):
    for picture in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(InputError, match=r"expected \(H, W, 3\) uint8"):
            fit(picture)


def test_a_skeleton_leaves_a_small_hand_in_view():
    """Its dots are smaller than those of a skeleton as thick."""
    _, render = make_scene("right", 6)
    joints_px, box = project(render.joints_cam_m, K), box_of(project(render.joints_cam_m, K))
    for extent_px in (60, 110):
        points = joints_px * extent_px / max(box[2] - box[0], box[3] - box[1])
        blank = np.zeros((480, 640, 3), np.uint8)
        dots = draw_skeleton(blank, points).any(-1).sum() - draw_skeleton(blank, points, thickness=1).any(-1).sum()
        assert dots < 0


def test_drawing_touches_only_the_hand_and_draws_all_of_it():
    """Against the mesh drawn over the whole picture; also where it is cut by the border or behind the camera."""
    _, render = make_scene("right", 6)
    hand = SceneRenderer("right", forearm=False)
    blank = np.full((480, 640, 3), 90, np.uint8)
    for shift in ([0, 0, 0], [0.25, 0.1, 0], [-0.3, -0.2, -0.1], [5, 0, 0], [0, 0, -3]):
        vertices = render.vertices_cam_m + shift
        shaded, alpha = render_shaded(vertices, hand.faces, K, (640, 480), color=MESH_COLOR)
        whole = blank * (1 - 0.85 * alpha[..., None]) + shaded * (255 * 0.85)
        drawn = overlay_mesh(blank, vertices, hand.faces, K)
        off = np.abs(drawn - whole).max(-1)
        assert (off > 1.01).mean() < 1e-4  # a pixel at an edge may fall to the other side


def test_a_large_hand_is_drawn_as_a_smaller_one():
    """More than 1,024 samples a side are not drawn, so the edges of a hand of 1,400 px are softer, and nothing else."""
    _, render = make_scene("right", 6)
    faces = SceneRenderer("right", forearm=False).faces
    pictures = []
    for scale in (1, 5):
        K_scaled = np.diag([scale, scale, 1.0]) @ K + [[0, 0, (scale - 1) / 2], [0, 0, (scale - 1) / 2], [0, 0, 0]]
        blank = np.full((480 * scale, 640 * scale, 3), 90, np.uint8)
        drawn = overlay_mesh(blank, render.vertices_cam_m, faces, K_scaled)
        pictures.append(cv2.resize(drawn, (640, 480), interpolation=cv2.INTER_AREA).astype(int))
    off = np.abs(pictures[0] - pictures[1]).max(-1)
    assert (pictures[0] != 90).any(-1).sum() > 3000
    assert off.max() < 40
    assert (off > 6).sum() < 0.02 * (pictures[0] != 90).any(-1).sum()


def test_an_exported_network_predicts_as_its_checkpoint_does(predictor, monkeypatch):
    """With no more of it than `ExportedNetwork` promises; that a file of `utnet export` keeps the promise, its own
    tests say."""
    lifter = predictor._reconstruct

    class Exported:
        config, faces, hand_model = lifter.config, lifter.faces, "open"

        def __init__(self, path):
            assert str(path) == "n.onnx"

        def forward_batch(self, batch, *, use_depth=True):
            return lifter.network.forward_batch(batch, use_depth=use_depth)

    monkeypatch.setattr("utnet.export.runtime.ExportedNetwork", Exported)
    exported = Predictor("n.onnx")
    _, render = make_scene("right", 8)
    box = box_of(project(render.joints_cam_m, K))
    for depth_m in (None, render.depth_m):
        one = predictor(render.rgb, depth_m, K, [box, box], ["right", "left"])
        other = exported(render.rgb, depth_m, K, [box, box], ["right", "left"])
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a.vertices_cam_m, b.vertices_cam_m)
            assert (a.side, a.distance_source, a.hand_model) == (b.side, b.distance_source, b.hand_model)
