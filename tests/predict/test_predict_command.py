"""`utnet predict` as a user meets it: what they type and what they find in the folder."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from support.predict_command import HEIGHT, REAL, WIDTH, K, hand_at, needs_real, picture, predict, read, video
from utnet.checkpoint import save_checkpoint
from utnet.config import Config, ModelConfig
from utnet.errors import InputError
from utnet.geometry import project
from utnet.hand import HandModel
from utnet.io.pictures import read_picture
from utnet.model import UTNet
from utnet.predict import read_predictions
from utnet.predict.files import write_hands
from utnet.predict.predictor import Predictor

pytestmark = pytest.mark.usefixtures("nothing_ships")  # test_release.py: what holds where something does
ROOT = Path(__file__).parents[2]


def test_a_picture_gives_an_overlay_a_json_and_a_mesh(detector, tmp_path, capsys):
    photo, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    assert predict(photo, "--out", out) == 0
    assert {p.name for p in out.iterdir()} == {"predictions.json", "photo_overlay.jpg", "photo_0_right.glb"}
    tree = read(out)
    assert (tree["schema"], tree["version"]) == ("utnet-hands", 3)
    assert (tree["made_by"]["method"], tree["problems"], tree["videos"]) == ("fit", [], [])
    (image,) = tree["images"]
    assert (image["file"], image["width"], image["height"]) == (str(photo), WIDTH, HEIGHT)
    assert (image["K_from"], image["K_px"]) == ("default", K.tolist())
    (hand,) = image["hands"]
    assert hand["mesh"] == "photo_0_right.glb"
    assert "right hand, its middle at x" in (said := capsys.readouterr().out)
    assert f"score {hand['score']:.2f}, distance from the hand's size" in said
    assert [hand[name] for name in ("presence", "side_probability", "valid")] == [0.9, 1.0, True]
    assert (hand["distance_source"], hand["shape_source"]) == ("hand_size", "mean")
    assert "1 picture, 1 hand" in said
    joints = np.array(hand["joints_cam_m"])
    np.testing.assert_allclose(project(joints, K), hand["joints_px"], atol=2e-3)
    np.testing.assert_allclose(project(joints, K), hand_at(x_m=0.05).joints_px, atol=2)
    drawn = read_picture(out / "photo_overlay.jpg").rgb
    x, y = np.mean(hand["joints_px"], 0).astype(int)
    assert drawn.shape == (HEIGHT, WIDTH, 3)
    assert abs(int(drawn[y, x].max()) - 90) > 20  # something is drawn there
    assert abs(drawn[-10:, :10].astype(int) - 90).max() < 6  # and nothing here


def test_parameters_in_the_json_decode_to_its_joints(detector, tmp_path):
    """What docs/predictions.md promises a reader of the file."""
    from utnet.rotations import axis_angle_to_matrix

    out = tmp_path / "out"
    predict(picture(tmp_path / "photo.png"), "--out", out, "--npz")
    hand = read(out)["images"][0]["hands"][0]
    rotations = [hand["global_orient_axis_angle"], *hand["hand_pose_axis_angle"]]
    R = axis_angle_to_matrix(torch.tensor(rotations))[None]
    mesh = HandModel.open(hand["side"])(R[:, :1], R[:, 1:], torch.tensor([hand["betas"]]))
    joints = mesh.joints_m[0].numpy() + hand["transl_m"]
    np.testing.assert_allclose(joints, hand["joints_cam_m"], atol=2e-5)
    arrays = np.load(out / "photo.npz")
    np.testing.assert_allclose(arrays["vertices_cam_m"][0], mesh.vertices_m[0].numpy() + hand["transl_m"], atol=2e-5)
    for name in set(arrays) & set(hand) - {"side", "track", "joint_error_mm"}:
        np.testing.assert_allclose(arrays[name][0], hand[name], atol=6e-3 if name.endswith("px") else 1e-4)
    assert (arrays["side"][0], arrays["track"][0], hand["joint_error_mm"]) == ("right", -1, None)
    assert np.isnan(arrays["joint_error_mm"]).all()


def test_every_field_is_in_the_docs(detector, tmp_path):
    out = tmp_path / "out"
    predict(picture(tmp_path / "a.png"), video(tmp_path / "v.mp4", 2), "--out", out, "--npz")
    docs = (ROOT / "docs" / "predictions.md").read_text()

    def keys(value):
        if isinstance(value, dict):
            yield from value
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from keys(item)

    names = set(keys(read(out))) | set(np.load(out / "a.npz")) | set(np.load(out / "v.npz"))
    assert [name for name in sorted(names) if f"`{name}`" not in docs] == []


@pytest.mark.parametrize("ending", ["glb", "obj", "ply"])
def test_meshes_are_in_metres_in_the_camera_s_frame(detector, tmp_path, ending):
    out = tmp_path / "out"
    predict(picture(tmp_path / "photo.png"), "--out", out, "--mesh", ending, "--npz")
    arrays = np.load(out / "photo.npz")
    scene = trimesh.load(out / f"photo_0_right.{ending}", process=False)
    (mesh,) = scene.geometry.values() if ending == "glb" else [scene]
    np.testing.assert_allclose(mesh.vertices, arrays["vertices_cam_m"][0], atol=1e-6)
    np.testing.assert_array_equal(mesh.faces, arrays["faces_right"])
    if ending == "glb":  # viewers show it upright: glTF's axes are y up, z towards the viewer
        shown = scene.to_geometry() if hasattr(scene, "to_geometry") else scene.dump(concatenate=True)
        np.testing.assert_allclose(shown.vertices, arrays["vertices_cam_m"][0] * [1, -1, -1], atol=1e-6)
    # Counter-clockwise seen from outside: the signed volume is positive.
    a, b, c = (mesh.vertices[mesh.faces[:, k]] - mesh.vertices.mean(0) for k in range(3))
    assert np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6 > 1e-5


def test_nothing_is_written_that_is_not_wanted(detector, tmp_path):
    out = tmp_path / "out"
    predict(picture(tmp_path / "photo.png"), "--out", out, "--mesh", "none", "--no-overlay")
    assert [p.name for p in out.iterdir()] == ["predictions.json"]
    image = read(out)["images"][0]
    assert (image["overlay"], image["arrays"], image["hands"][0]["mesh"]) == (None, None, None)


def test_no_hand_is_an_answer(detector, tmp_path, capsys):
    out = tmp_path / "out"
    assert predict(picture(tmp_path / "photo.png", hand=False), "--out", out, "--npz") == 0
    assert read(out)["images"][0]["hands"] == []
    assert "1 picture, 0 hands" in capsys.readouterr().out
    assert np.load(out / "photo.npz")["frame"].shape == (0,)


def test_the_camera_is_the_given_one_else_exif_s_else_the_default(detector, tmp_path):
    from PIL.ExifTags import IFD, Base

    tags = Image.Exif()
    tags.get_ifd(IFD.Exif)[Base["FocalLengthIn35mmFilm"]] = 50
    picture(tmp_path / "in" / "exif.jpg", exif=tags)
    picture(tmp_path / "in" / "plain.png")
    predict(tmp_path / "in", "--out", tmp_path / "a")
    exif, plain = read(tmp_path / "a")["images"]
    assert (exif["K_from"], plain["K_from"]) == ("exif", "default")
    np.testing.assert_allclose(exif["K_px"][0][0], 50 * 200 / np.hypot(36, 24), rtol=1e-4)
    predict(tmp_path / "in", "--out", tmp_path / "b", "--K", "150,140,80,60")
    for image in read(tmp_path / "b")["images"]:
        assert (image["K_from"], image["K_px"]) == ("given", [[150, 0, 80], [0, 140, 60], [0, 0, 1]])


def test_every_way_in_takes_the_picture_s_own_camera(detector, tmp_path):
    """The command, a file, a `Picture`; an array has none."""
    from PIL.ExifTags import IFD, Base

    tags = Image.Exif()
    tags.get_ifd(IFD.Exif)[Base["FocalLengthIn35mmFilm"]] = 50
    path = picture(tmp_path / "exif.jpg", exif=tags)
    assert predict(path, "--out", tmp_path / "out") == 0
    (hand,) = read(tmp_path / "out")["images"][0]["hands"]
    predictor, image = Predictor(method="fit"), read_picture(path)
    same = [predictor(path), predictor(str(path)), predictor(image), predictor(image.rgb, K_px=image.K_px)]
    same.append(predictor.from_detections(image, predictor.detector(image.rgb)))
    for (other,) in same:
        np.testing.assert_allclose(other.K_px, image.K_px)
        np.testing.assert_allclose(other.joints_cam_m, hand["joints_cam_m"], atol=2e-6)
    (plain,), (given,) = predictor(image.rgb), predictor(path, K_px=K)
    np.testing.assert_allclose(plain.K_px, K)
    np.testing.assert_allclose(given.joints_cam_m, plain.joints_cam_m)
    written = write_hands(tmp_path / "more", "hand", image, predictor(image))
    assert json.loads(written["json"][0].read_text())["images"][0]["K_from"] == "exif"


def test_depth_of_a_turned_picture_is_refused_by_the_library_too(detector, tmp_path):
    tags = Image.Exif()
    tags[274] = 3  # Orientation: upside down
    path = picture(tmp_path / "photo.png", exif=tags)
    with pytest.raises(InputError, match="upright"):
        Predictor(method="fit")(path, np.full((HEIGHT, WIDTH), 0.5, np.float32))


def test_predictions_are_read_back_as_they_were_written(detector, tmp_path):
    out = tmp_path / "out"
    predict(picture(tmp_path / "a.png"), video(tmp_path / "v.mp4", 2), "--out", out)
    assert read_predictions(out / "predictions.json") == read(out)
    (hand,) = read(out)["images"][0]["hands"]
    T = np.array(hand["T_cam_wrist"])
    back = np.array(hand["joints_wrist_m"]) @ T[:3, :3].T + T[:3, 3]
    np.testing.assert_allclose(back, hand["joints_cam_m"], atol=5e-6)


def test_a_network_s_box_and_side(tmp_path, capsys):
    """Landmarks tell whether there is a hand, also where the method asks for none."""
    torch.manual_seed(0)
    config = Config(model=ModelConfig(size_px=64))
    save_checkpoint(tmp_path / "best", UTNet(config.model), config, step=0)
    photo, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    np.save(tmp_path / "depth.npy", np.full((HEIGHT, WIDTH), 0.6, np.float32))
    options = ["--weights", tmp_path / "best", "--box", "40,30,100,90", "--K", "150,150,80,60"]
    assert predict(photo, "--out", out, *options, "--side", "left", "--depth", tmp_path / "depth.npy") == 0
    assert "left hand, its middle at x" in capsys.readouterr().out
    tree = read(out)
    assert tree["made_by"]["weights"] == str(tmp_path / "best")
    (hand,) = tree["images"][0]["hands"]
    assert (hand["side"], hand["method"], hand["box_px"]) == ("left", "network", [40, 30, 100, 90])
    assert tree["images"][0]["depth"] == str(tmp_path / "depth.npy")
    assert hand["presence"] < 0.5


def test_an_uncertain_side_is_named(tmp_path, capsys, monkeypatch, detector):
    sure = detector.__call__
    for probability, named in ((0.9, False), (0.7, True)):
        seen = lambda self, rgb, p=probability: [replace(hand, side_probability=p) for hand in sure(self, rgb)]  # noqa: E731
        monkeypatch.setattr(detector, "__call__", seen)
        assert predict(picture(tmp_path / "photo.png"), "--out", tmp_path / str(probability), "--method", "fit") == 0
        assert ("hand 1: probably a right hand" in capsys.readouterr().err) == named


def test_write_hands_is_the_same_for_one_picture(tmp_path):
    seen = hand_at()
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    hands = Predictor(method="fit").from_detections(image, [seen], K_px=K)
    written = write_hands(tmp_path / "new", "hand", image, hands, K_px=K, depth="d.png")
    assert {kind: [p.name for p in paths] for kind, paths in written.items()} == {
        "json": ["hand.json"],
        "overlay": ["hand_overlay.jpg"],
        "mesh": ["hand_0_right.glb"],
    }
    (record,) = json.loads(written["json"][0].read_text())["images"]
    np.testing.assert_allclose(record["hands"][0]["joints_cam_m"], hands[0].joints_cam_m, atol=1e-6)
    assert (record["K_from"], record["depth"], record["arrays"]) == ("given", "d.png", None)
    write_hands(tmp_path / "new", "other", image, [])
    (record,) = json.loads((tmp_path / "new" / "other.json").read_text())["images"]
    assert (record["K_from"], record["K_px"], record["depth"]) == ("default", K.tolist(), None)
    with pytest.raises(InputError, match="meshes are written as"):
        write_hands(tmp_path, "hand", image, hands, mesh="stl")


@needs_real
def test_a_real_rgbd_frame_is_measured(tmp_path):
    folder, out = REAL / "keypointfusion_mit_rgbd", tmp_path / "out"
    options = ["--depth", folder / "box_d.png", "--K", "906.96,906.79,956.75,547.23", "--out", out]
    assert predict(folder / "box.png", *options) == 0
    (hand,) = read(out)["images"][0]["hands"]
    assert (hand["side"], hand["distance_source"]) == ("right", "sensor")
    assert 0.74 < np.mean(hand["joints_cam_m"], 0)[2] < 0.88  # its README: 0.75 to 0.85 m


@needs_real
def test_a_real_video_has_one_hand_with_one_number(tmp_path):
    clip, out = REAL / "tfjs_models_apache2" / "asl_hand.25fps.mp4", tmp_path / "out"
    assert predict(clip, "--seconds", "0.6", "--out", out) == 0
    frames = read(out)["videos"][0]["frames"]
    assert len(frames) == 15
    assert {(len(frame["hands"]), frame["hands"][0]["track"]) for frame in frames} == {(1, 1)}


@needs_real
def test_jobs_change_nothing_on_real_pictures(tmp_path):
    words = [REAL / "hamer_mit_example_data" / f"test{i}.jpg" for i in (1, 2, 3)]
    for jobs in (1, 3):
        assert predict(*words, "--out", tmp_path / str(jobs), "--jobs", jobs, "--no-overlay") == 0
    a, b = ((tmp_path / jobs / "predictions.json").read_bytes() for jobs in ("1", "3"))
    assert a == b
    assert len(json.loads(a)["images"]) == 3
