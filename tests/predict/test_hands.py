"""What a predictor takes and returns: lists equal one by one, and files hold what was saved."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from support.hands import SIZE_PX, random_hand
from support.mano_files import random_mano, write_mano
from utnet.checkpoint import save_checkpoint
from utnet.config import Config, ModelConfig
from utnet.errors import InputError
from utnet.geometry import intrinsics
from utnet.hand import HandModel
from utnet.hand.mano import load_mano
from utnet.io.pictures import read_picture
from utnet.model import UTNet
from utnet.predict import Predictor, read_predictions
from utnet.predict.drawing import draw_hands
from utnet.predict.hands import Hands
from utnet.render.drawing import save_picture
from utnet.types import HandParams

pytestmark = pytest.mark.usefixtures("nothing_ships")

K = intrinsics(150.0, 140.0, 80.0, 60.0)
BOX, OTHER = [20.0, 20.0, 90.0, 100.0], [60.0, 10.0, 150.0, 110.0]


@pytest.fixture(scope="module", params=["fit", "network"])
def predictor(request, tmp_path_factory):
    if request.param == "fit":
        return Predictor(method="fit")
    folder, config = tmp_path_factory.mktemp("run") / "best", Config(model=ModelConfig(size_px=64))
    torch.manual_seed(0)
    save_checkpoint(folder, UTNet(config.model), config, step=0)
    return Predictor(folder, device="cpu")


@pytest.fixture(scope="module")
def picture():
    rng = np.random.default_rng(0)
    return np.kron(rng.integers(0, 255, (12, 16, 3)), np.ones((10, 10, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def two(picture):
    return Predictor(method="fit")(picture, None, K, [BOX, OTHER], ["right", "left"])


def assert_equal(one, other):
    assert [hand.side for hand in one] == [hand.side for hand in other]
    np.testing.assert_allclose(one.vertices_cam_m, other.vertices_cam_m, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-4)
    np.testing.assert_array_equal(one.K_px, other.K_px)
    assert (one.K_from, one.file, one.size_px) == (other.K_from, other.file, other.size_px)


def test_a_list_equals_one_by_one(predictor, picture, tmp_path):
    """Of files, arrays, Pictures and Pillow images of several sizes, with and without depth, boxes, sides and K."""
    file = tmp_path / "a.png"
    save_picture(file, picture)
    images = [file, picture[:, ::-1], Image.fromarray(picture[:110]), read_picture(file), str(file)]
    depths = [None, np.full(picture.shape[:2], 0.6, np.float32), None, None, None]
    cameras = [None, K, (150.0, 140.0, 80.0, 60.0), None, K]
    boxes = [[BOX], [BOX, OTHER], [OTHER], [], None]
    sides = [["left"], None, ["right"], None, None]
    together = predictor(images, depths, cameras, boxes, sides)
    assert [len(hands) for hands in together[:4]] == [1, 2, 1, 0]
    for hands, *given in zip(together, images, depths, cameras, boxes, sides, strict=True):
        assert_equal(hands, predictor(*given))
    assert predictor([]) == []


def test_a_picture_that_may_be_overwritten_is_saved_alike(picture, tmp_path):
    tall = np.tile(picture, (2, 1, 1))
    for name, overwrite in (("a.png", False), ("b.png", True)):
        save_picture(tmp_path / name, tall.copy(), overwrite=overwrite)
        np.testing.assert_array_equal(read_picture(tmp_path / name).rgb, tall)


def test_every_kind_of_picture_and_camera_is_the_same(predictor, picture, tmp_path):
    file = tmp_path / "a.png"
    save_picture(file, picture)
    expected = predictor(picture, None, K, [BOX], ["right"])
    for image in (file, str(file), Image.fromarray(picture), read_picture(file)):
        for camera in (K, K.tolist(), (150, 140, 80, 60), np.array([150.0, 140, 80, 60])):
            hands = predictor(image, None, camera, [BOX], ["right"])
            np.testing.assert_allclose(hands.vertices_cam_m, expected.vertices_cam_m, atol=1e-6)
            assert hands.K_from == "given"
    (hands,) = predictor([picture], K_px=K, boxes=[[BOX]], sides=[["right"]])
    np.testing.assert_allclose(hands.vertices_cam_m, expected.vertices_cam_m, atol=1e-6)


def test_stacked_arrays_are_those_of_the_hands(two):
    assert two.sides == ["right", "left"]
    for name in ("joints_cam_m", "joints_px", "vertices_cam_m"):
        np.testing.assert_array_equal(getattr(two, name), [getattr(hand, name) for hand in two])
    np.testing.assert_array_equal(two.boxes_px, [BOX, OTHER])
    np.testing.assert_array_equal(two.params.map(lambda a: a[1]).hand_pose, two[1].params.hand_pose)
    none = two[:0]
    assert isinstance(none, Hands)
    assert (none.joints_cam_m.shape, none.params.betas.shape, none.scores.shape) == ((0, 21, 3), (0, 10), (0,))
    np.testing.assert_array_equal(none.draw(), two.image_rgb)


def test_json_and_npz_hold_the_hands(two, tmp_path):
    two.save(tmp_path / "a.json")
    tree = read_predictions(tmp_path / "a.json")
    assert tree["images"] == [json.loads(json.dumps(two.to_dict()))]
    assert tree["made_by"]["method"] == "fit"
    two.save(tmp_path / "a.npz")
    two[1].save(tmp_path / "b.npz")
    two[1].save(tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == tree["images"][0]["hands"][1]
    arrays, alone = np.load(tmp_path / "a.npz"), np.load(tmp_path / "b.npz")
    np.testing.assert_allclose(arrays["vertices_cam_m"], two.vertices_cam_m, atol=1e-6)
    np.testing.assert_array_equal(alone["joints_cam_m"], arrays["joints_cam_m"][1:])
    pose = np.concatenate([arrays["global_orient_axis_angle"], arrays["hand_pose_axis_angle"].reshape(2, 45)], 1)
    params = HandParams.from_axis_angle(pose, arrays["betas"], arrays["transl_m"])
    np.testing.assert_allclose(params.hand_pose, two.params.hand_pose, atol=1e-5)
    two[:0].save(tmp_path / "c.json")
    assert read_predictions(tmp_path / "c.json")["images"][0]["hands"] == []


@pytest.mark.parametrize("suffix", [".glb", ".obj", ".ply"])
def test_mesh_files_hold_the_vertices(two, tmp_path, suffix):
    two.save(tmp_path / f"both{suffix}")
    two[0].save(tmp_path / f"one{suffix}")
    turn = np.array([1.0, -1.0, -1.0]) if suffix == ".glb" else 1.0  # glTF: y up
    for name, hands in (("both", two), ("one", two[:1])):
        mesh = trimesh.load(tmp_path / f"{name}{suffix}", force="mesh", process=False)
        halves = np.array_split(mesh.vertices, len(hands))
        halves.sort(key=lambda vertices: float(vertices[:, 0].mean()))  # nodes of a GLB come in any order
        wanted = sorted(hands.vertices_cam_m * turn, key=lambda vertices: float(vertices[:, 0].mean()))
        np.testing.assert_allclose(halves, wanted, atol=1e-6)
    assert mesh.faces.shape == two[0].faces.shape
    with pytest.raises(InputError, match="no hand"):
        two[:0].save(tmp_path / f"none{suffix}")


def test_overlays_are_the_drawings(two, picture, tmp_path):
    assert (two.draw() != picture).any()
    two.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").rgb, two.draw())
    two[0].save(tmp_path / "b.png", picture)
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").rgb, two[:1].draw())


def test_a_file_is_read_again_when_it_is_drawn(picture, tmp_path):
    file = tmp_path / "a.png"
    save_picture(file, picture)
    hands = Predictor(method="fit")(file, None, K, [BOX], ["right"])
    np.testing.assert_array_equal(hands.image_rgb, picture)
    save_picture(file, picture[:50])
    with pytest.raises(InputError, match="another picture"):
        hands.draw()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"image": 3}, "PIL image"),
        ({"image": None}, "PIL image"),
        ({"image": np.zeros((4, 4))}, r"\(H, W, 3\) uint8"),
        ({"K_px": (1.0, 2.0)}, "fx, fy, cx, cy"),
        ({"K_px": "K"}, "fx, fy, cx, cy"),
        ({"image": "list", "boxes": [[BOX]]}, "boxes has 1 entries for 2"),
        ({"image": "list", "depth_m": np.ones((120, 160))}, "list with one for each"),
        ({"image": "list", "K_px": [K, K, K]}, "K_px has 3"),
        ({"image": "list", "boxes": [[BOX], [[1, 1, 1, 1]]]}, "picture 1: box"),
    ],
)
def test_a_wrong_argument_names_what_is_expected(picture, arguments, word):
    image = arguments.pop("image", picture)
    predictor = Predictor(method="fit")
    with pytest.raises(InputError, match=word):
        predictor([picture, picture] if isinstance(image, str) else image, **arguments)


def test_wrong_files_are_named(two, tmp_path):
    for name, word in (("a.stl", "unknown suffix"), ("none/a.glb", "no such folder")):
        for hands in (two, two[0]):
            with pytest.raises(InputError, match=word):
                hands.save(tmp_path / name)
    with pytest.raises(InputError, match="image_rgb"):
        two[0].save(tmp_path / "a.png")


# ------------------------------------------------------------------------------------------------------------- MANO


@pytest.mark.parametrize("kind", ["numpy", "torch"])
@pytest.mark.parametrize("lead", [(), (5,)])
def test_axis_angle_round_trip(kind, lead):
    rng = np.random.default_rng(1)
    pose, betas, mean = rng.uniform(-1.5, 1.5, (*lead, 48)), rng.normal(size=(*lead, 10)), rng.uniform(-0.2, 0.2, 45)
    as_kind = torch.from_numpy if kind == "torch" else np.asarray
    for mean_pose in (None, as_kind(mean)):
        params = HandParams.from_axis_angle(as_kind(pose), as_kind(betas), mean_pose=mean_pose)
        assert tuple(params.hand_pose.shape) == (*lead, 15, 3, 3)
        assert tuple(params.transl_m.shape) == (*lead, 3)
        again, same = params.to_axis_angle(mean_pose=mean_pose)
        assert type(again) is type(as_kind(pose))
        np.testing.assert_allclose(again, pose, atol=1e-6)
        np.testing.assert_array_equal(same, betas)
    split = HandParams.from_axis_angle(as_kind(pose.reshape(*lead, 16, 3)))
    np.testing.assert_allclose(split.to_axis_angle()[0], pose, atol=1e-6)


def test_mano_s_numbers_decode_to_the_same_hand(tmp_path):
    """48 + 10 relative to the file's mean pose, decoded with and without it in the model; `mano` as folder and file."""
    write_mano(tmp_path / "MANO_RIGHT.pkl", random_mano())
    mean = load_mano(tmp_path, flat_hand_mean=False).pose_mean
    rng = np.random.default_rng(2)
    pose, betas = torch.from_numpy(rng.uniform(-1, 1, (2, 48))).float(), torch.zeros(2, 10)
    relative = HandModel.from_mano(tmp_path, flat_hand_mean=False)
    flat = HandModel.from_mano(tmp_path / "MANO_RIGHT.pkl")
    one = relative.decode(HandParams.from_axis_angle(pose, betas))
    other = flat.decode(HandParams.from_axis_angle(pose, betas, mean_pose=torch.from_numpy(mean).reshape(45)))
    np.testing.assert_allclose(one.vertices_m, other.vertices_m, atol=1e-5)
    assert Predictor(mano=tmp_path).hand_model == Predictor(mano=tmp_path / "MANO_RIGHT.pkl").hand_model == "mano"


@pytest.mark.parametrize(("pose", "betas", "word"), [(45, 10, "48"), (48, 3, "betas")])
def test_other_shapes_are_named(pose, betas, word):
    with pytest.raises(InputError, match=word):
        HandParams.from_axis_angle(np.zeros(pose), np.zeros(betas))


def test_styles_draw_what_they_promise():
    """The outline leaves the hand visible, the mesh covers it; every style names the sides."""
    rng = np.random.default_rng(0)
    hands = [random_hand(rng, side) for side in ("right", "left")]
    picture = np.full((SIZE_PX[1], SIZE_PX[0], 3), 120, np.uint8)
    drawn = {style: (draw_hands(picture, hands, style) != picture).any(2) for style in ("mesh", "outline", "skeleton")}
    assert drawn["outline"].sum() < 0.4 * drawn["mesh"].sum()
    assert drawn["skeleton"].sum() < drawn["mesh"].sum()
    other = [replace(hand, side={"right": "left", "left": "right"}[hand.side]) for hand in hands]
    for style in drawn:
        assert (draw_hands(picture, other, style) != draw_hands(picture, hands, style)).any()
    with pytest.raises(InputError, match="outline"):
        draw_hands(picture, hands, "outlines")
