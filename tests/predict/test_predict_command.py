"""`utnet predict` as a user meets it: what they type, what they find in the folder, and how bad input ends."""

import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from support.mano_files import random_mano, write_mano
from support.skinned import Skinned
from utnet.checkpoint import save_checkpoint
from utnet.cli.main import main
from utnet.config import Config, ModelConfig
from utnet.detect import Detection
from utnet.errors import InputError
from utnet.geometry import box_of, intrinsics, project
from utnet.hand import HandModel
from utnet.io.pictures import read_picture
from utnet.io.videos import VideoReader, VideoWriter
from utnet.model import UTNet
from utnet.predict import read_predictions
from utnet.predict.files import write_hands
from utnet.predict.inputs import DepthFiles, find_inputs
from utnet.predict.predictor import Predictor
from utnet.render.drawing import save_picture

pytestmark = pytest.mark.usefixtures("nothing_ships")  # test_release.py: what holds where something does
ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 160, 120
K = intrinsics(160, 160, 79.5, 59.5)  # the default of that size


def hand_at(z_m=0.5, x_m=0.0):
    """A flat right hand, and what a detector sees of it."""
    eye = torch.eye(3).expand(1, 16, 3, 3)
    mesh = HandModel.open()(eye[:, :1], eye[:, 1:], torch.zeros(1, 10))
    joints = mesh.joints_m[0].double().numpy()
    joints = joints - joints.mean(0)
    joints_px = project(joints + [x_m, 0.0, z_m], K)
    return Detection("right", 0.9, box_of(joints_px), joints_px, joints)


class FakeDetector:
    """Sees a hand in pictures whose first pixel is not black, at a place that the second pixel tells."""

    calls = 0
    at_call = None  # (number, function): what happens while that picture is looked at

    def __call__(self, image_rgb):
        FakeDetector.calls += 1
        if FakeDetector.at_call and FakeDetector.calls == FakeDetector.at_call[0]:
            FakeDetector.at_call[1]()
        if not image_rgb[0, 0].any():
            return []
        return [hand_at(x_m=float(image_rgb[0, 1, 0]) / 2000)]


class FakeTracker:
    """The same hand through a video, as it jitters."""

    def __init__(self, detector, *, patience):
        self._detector, self._rng = detector, np.random.default_rng(0)

    def __call__(self, image_rgb):
        return [
            Detection(d.side, d.score, d.box_px, d.joints_px + self._rng.normal(0, 0.5, (21, 2)), d.joints_m, 3)
            for d in self._detector(image_rgb)
        ]


@pytest.fixture
def detector(monkeypatch):
    FakeDetector.calls, FakeDetector.at_call = 0, None
    monkeypatch.setattr("utnet.predict.predictor.HandDetector", FakeDetector)
    monkeypatch.setattr("utnet.predict.video.LandmarkTracker", FakeTracker)
    return FakeDetector


def picture(path, place=100, hand=True, **options):
    """A plain picture, with a hand for the fake detector or without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    pixels[0, :2] = [[255, 0, 0], [place, 0, 0]] if hand else 0
    Image.fromarray(pixels).save(path, **options)
    return path


def video(path, frames=10, hand=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, 25.0) as writer:
        for i in range(frames):
            pixels = np.full((HEIGHT, WIDTH, 3), 200 if hand else 0, np.uint8)
            writer.write(pixels, i / 25)
    return path


def predict(*words):
    """Runs `utnet predict ...`; its exit code."""
    try:
        main(["predict", *map(str, words)])
    except SystemExit as exit_:
        return exit_.code
    return 0


def fails(capsys, *words):
    """The error line of a call that must end with exit code 2."""
    assert predict(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("utnet: "), lines
    return lines[0]


def read(out):
    return json.loads((out / "predictions.json").read_text())


# ----------------------------------------------------------------------------------------------------------- pictures


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


# ---------------------------------------------------------------------------------------------------- many, and damage


def test_results_are_the_same_whatever_the_number_of_jobs(detector, tmp_path):
    for i in range(9):
        picture(tmp_path / "in" / f"{i}.png", place=20 * i, hand=i != 4)
    (tmp_path / "in" / "5.jpg").write_text("no picture")
    for jobs in (1, 4):
        assert predict(tmp_path / "in", "--out", tmp_path / f"out{jobs}", "--jobs", jobs, "--npz") == 1
    files = sorted(p.name for p in (tmp_path / "out1").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "out4").iterdir())
    for name in files:
        if not name.endswith(".npz"):  # a zip, which holds the time of writing
            assert (tmp_path / "out1" / name).read_bytes() == (tmp_path / "out4" / name).read_bytes(), name
    assert [Path(image["file"]).stem for image in read(tmp_path / "out4")["images"]] == [str(i) for i in range(9)]


def test_what_cannot_be_read_is_named_and_the_rest_is_done(detector, tmp_path, capsys):
    picture(tmp_path / "in" / "good.png")
    picture(tmp_path / "in" / "also.png")
    (tmp_path / "in" / "bad.jpg").write_text("no picture")
    (tmp_path / "in" / "empty.png").touch()
    (tmp_path / "in" / "notes.txt").write_text("not looked at")
    video(tmp_path / "in" / "v.mp4", 3)
    (tmp_path / "in" / "w.mp4").write_text("no video")
    out = tmp_path / "out"
    assert predict(tmp_path / "in", "--out", out) == 1
    said = capsys.readouterr()
    for name, why in (("bad.jpg", "not a picture"), ("empty.png", "0 bytes"), ("w.mp4", "not a video")):
        assert any(name in line and why in line for line in said.err.splitlines())
    assert "2 pictures, 1 video (3 frames), 5 hands" in said.out
    assert "3 could not be read" in said.out
    tree = read(out)
    assert [Path(image["file"]).name for image in tree["images"]] == ["also.png", "good.png"]
    assert [Path(problem["file"]).name for problem in tree["problems"]] == ["bad.jpg", "empty.png", "w.mp4"]
    assert len(tree["videos"][0]["frames"]) == 3


def test_whatever_an_input_raises_is_its_problem(detector, tmp_path, capsys):
    """A defect in this package or a library while one picture is looked at, at each place."""
    for i in range(12):
        picture(tmp_path / "in" / f"{i:02d}.png")
    video(tmp_path / "in" / "v.mp4", 4)
    video(tmp_path / "in" / "w.mp4", 4)
    raised = iter([MemoryError(), RecursionError("a\nb"), cv2.error("assertion"), AttributeError("x"), TypeError("y")])

    def fail():
        FakeDetector.at_call = (FakeDetector.calls + 3, fail)
        if error := next(raised, None):
            raise error

    detector.at_call = (2, fail)
    out = tmp_path / "out"
    assert predict(tmp_path / "in", "--out", out, "--jobs", 1) == 1
    tree = read(out)
    named = {Path(problem["file"]).name: problem["why"] for problem in tree["problems"]}
    assert len(named) == 5
    assert all("\n" not in why for why in named.values())
    assert len(tree["images"]) + len(named) + sum(len(v["frames"]) == 4 for v in tree["videos"]) == 14
    listed = {image["overlay"] for image in tree["images"]}
    listed |= {hand["mesh"] for image in tree["images"] for hand in image["hands"]}
    listed |= {f"{Path(v['file']).stem}_overlay.mp4" for v in tree["videos"]}
    assert {p.name for p in out.iterdir()} <= {"predictions.json", *listed}


def test_titles_and_codecs_of_videos_are_not_believed(detector, tmp_path, capsys):
    for name, old, new in (("latin", b"Lavf", b"L\xe4vf"), ("codec", b"avc1", b"zzz1"), ("good", b"", b"")):
        data = video(tmp_path / "in" / f"{name}.mp4", 3).read_bytes()
        assert old in data
        (tmp_path / "in" / f"{name}.mp4").write_bytes(data.replace(old, new) if old else data)
    assert predict(tmp_path / "in", "--out", tmp_path / "out") == 1
    tree = read(tmp_path / "out")
    assert [(Path(v["file"]).stem, len(v["frames"])) for v in tree["videos"]] == [("good", 3), ("latin", 3)]
    assert "codec" in tree["problems"][0]["why"]


def test_a_bad_only_input_writes_nothing(detector, tmp_path, capsys):
    out = tmp_path / "out"
    (tmp_path / "bad.jpg").write_text("no picture")
    (tmp_path / "bad.mp4").write_text("no video")
    (tmp_path / "folder").mkdir()
    good = picture(tmp_path / "good.png")
    clip = video(tmp_path / "clip.mp4", 2)
    for words, message in (
        ([tmp_path / "none.jpg"], "none.jpg: no such file"),
        ([tmp_path / "bad.jpg"], "bad.jpg: not a picture"),
        ([tmp_path / "bad.mp4"], "bad.mp4: not a video"),
        ([tmp_path / "folder"], "folder: the folder has no picture or video"),
        ([tmp_path / "*.bmp"], r"*.bmp: no picture or video matches"),
        ([], "no inputs"),
        (["99"], "camera 99: cannot be opened"),
        ([good, "--K", "1,2"], "--K '1,2': 2 numbers, expected 4"),
        ([good, "--K", "0.1,0.1,0,0"], "focal length of 0.1 px"),
        ([clip, "--K", "0.1,0.1,0,0"], "focal length of 0.1 px"),
        ([good, "--box", "0,0,x,9"], "--box '0,0,x,9'"),
        ([good, "--box", "0,0,200,2"], "too small for a hand"),
        ([good, "--box", "0,0,9,9", "--side", "left", "right"], "2 sides for 1 boxes"),
        ([good, "--side", "left"], "without --box"),
        ([good, clip, "--box", "0,0,9,9"], "--box is of one picture"),
        ([clip, "--depth", good], "not a depth video"),
        ([good, "--depth", good], "expected one channel of 16 bits"),
        ([good, "--depth", tmp_path / "none.png"], "none.png: no such file"),
        ([good, "--depth", good, "--depth-scale", "0"], "--depth-scale is 0"),
        ([good, "--jobs", "0"], "--jobs is 0"),
        ([clip, "--seconds", "0"], "--seconds is 0"),
        ([good, "--method", "network"], "no weights ship"),
        ([good, "--weights", tmp_path / "none"], "no such file; give a checkpoint folder"),
        ([good, "--mano", tmp_path], "MANO_RIGHT.pkl: no such file"),
    ):
        assert message in fails(capsys, *words, "--out", out)
        assert not out.exists()


def test_an_earlier_call_s_files_are_kept_or_removed_but_never_mixed(detector, tmp_path, capsys):
    photo, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    predict(photo, video(tmp_path / "v.mp4", 2), "--out", out, "--mesh", "glb", "--npz")
    (out / "mine.txt").write_text("not ours")
    outside = picture(tmp_path / "outside.jpg")
    before = (out / "predictions.json").read_bytes()
    assert "--overwrite" in fails(capsys, photo, "--out", out)
    assert (out / "predictions.json").read_bytes() == before
    tree = read(out)
    tree["images"][0]["overlay"] = "../outside.jpg"  # someone else's JSON
    (out / "predictions.json").write_text(json.dumps(tree))
    assert predict(picture(tmp_path / "other.png"), "--out", out, "--overwrite", "--mesh", "none") == 0
    left = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    assert left == {"predictions.json", "other_overlay.jpg", "mine.txt", "photo_overlay.jpg"}
    assert outside.exists()
    (out / "predictions.json").write_text('{"schema": "someone else"}')
    assert "not written by utnet predict" in fails(capsys, photo, "--out", out, "--overwrite")


def test_earlier_results_stay_until_the_new_ones_are_there(detector, tmp_path, capsys):
    photo, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    predict(photo, "--out", out)
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert "none.png: no such file" in fails(capsys, photo, "--depth", "none.png", "--out", out, "--overwrite")
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert predict(photo, "--out", out, "--overwrite") == 0  # the same names, written again
    assert {p.name for p in out.iterdir()} == set(before)


def test_only_files_that_are_called_like_results_are_removed(detector, tmp_path):
    """Whatever the JSON names: folders, the user's files, files outside."""
    out = tmp_path / "out"
    predict(picture(tmp_path / "photo.png"), video(tmp_path / "v.mp4", 2), "--out", out, "--mesh", "glb")
    (out / "a_overlay.jpg").mkdir()
    (out / "thesis.odt").write_text("mine")
    picture(tmp_path / "far_overlay.jpg")
    tree = read(out)
    for name in ("a_overlay.jpg", "thesis.odt", "../far_overlay.jpg", "gone_overlay.jpg", "x" * 300 + ".npz"):
        tree["images"].append({"overlay": name, "hands": []})
    (out / "predictions.json").write_text(json.dumps(tree))
    assert predict(picture(tmp_path / "other.png"), "--out", out, "--overwrite") == 0
    left = {"a_overlay.jpg", "thesis.odt", "predictions.json", "other_overlay.jpg", "other_0_right.glb"}
    assert {p.name for p in out.iterdir()} == left  # v_meshes went with its meshes
    assert (tmp_path / "far_overlay.jpg").exists()


@pytest.mark.parametrize("word", ["ow", "ow/a.png", "link/a.png"])
def test_a_folder_with_inputs_is_not_written_into(detector, tmp_path, capsys, monkeypatch, word):
    """Or a.png's overlay would take the place of the user's own a_overlay.jpg."""
    monkeypatch.chdir(tmp_path)
    picture(Path("ow/a.png"))
    own = picture(Path("ow/a_overlay.jpg")).read_bytes()
    Path("link").symlink_to("ow")
    for options in ([], ["--overwrite"]):
        assert "--out ow: contains" in fails(capsys, word, "--out", "ow", *options)
    assert Path("ow/a_overlay.jpg").read_bytes() == own
    assert sorted(p.name for p in Path("ow").iterdir()) == ["a.png", "a_overlay.jpg"]


def test_long_names_are_cut(detector, tmp_path):
    """A name may have 255 bytes, and so may a result's."""
    letters = [picture(tmp_path / "in" / f"{'x' * 245}{i}.png") for i in range(2)]
    picture(tmp_path / "in" / f"{'手' * 80}.png")
    out = tmp_path / "out"
    assert predict(tmp_path / "in", "--out", out, "--npz") == 0
    images = read(out)["images"]
    assert {image["file"] for image in images} >= {str(path) for path in letters}
    names = [image[kind] for image in images for kind in ("overlay", "arrays")]
    assert len(set(names)) == 6
    assert all((out / name).is_file() for name in names)


def test_a_picture_too_long_for_jpeg_gets_a_png(detector, tmp_path, capfd):
    Image.fromarray(np.full((12, 66_000, 3), 90, np.uint8)).save(tmp_path / "scan.png")
    out = tmp_path / "out"
    assert predict(tmp_path / "scan.png", "--out", out, "--K", "66000,66000,33000,6") == 0
    assert read(out)["images"][0]["overlay"] == "scan_overlay.png"
    assert Image.open(out / "scan_overlay.png").size == (66_000, 12)
    with pytest.raises(InputError, match=r"too large for a JPEG"):
        save_picture(out / "scan.jpg", np.zeros((12, 66_000, 3), np.uint8))
    assert "ERROR" not in capfd.readouterr().err  # OpenCV's own lines


def unwritable(monkeypatch, number, *names):
    """Overlays of these names cannot be written."""
    real = save_picture

    def save(path, rgb):
        if path.name in names:
            raise OSError(number, os.strerror(number), str(path))
        real(path, rgb)

    monkeypatch.setattr("utnet.predict.picture.save_picture", save)


def test_what_cannot_be_written_is_named_and_the_rest_is_done(detector, tmp_path, monkeypatch, capsys):
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.png")
    unwritable(monkeypatch, errno.EIO, "b_overlay.jpg")
    out = tmp_path / "out"
    assert predict(tmp_path / "in", "--out", out, "--npz") == 1
    assert "b.png: cannot be written to" in capsys.readouterr().err
    assert [Path(image["file"]).stem for image in read(out)["images"]] == ["a", "c"]
    assert [Path(problem["file"]).stem for problem in read(out)["problems"]] == ["b"]
    assert not list(out.glob("b*"))  # its mesh was written before
    assert "(Input/output error)" in fails(capsys, tmp_path / "in" / "b.png", "--out", tmp_path / "only")
    assert not (tmp_path / "only").exists()


def test_a_full_disk_ends_the_call_with_a_whole_file(detector, tmp_path, monkeypatch, capsys):
    for i in range(20):
        picture(tmp_path / "in" / f"{i:02d}.png")
    unwritable(monkeypatch, errno.ENOSPC, *(f"{i:02d}_overlay.jpg" for i in range(3, 20)))
    assert predict(tmp_path / "in", "--out", tmp_path / "a") == 1
    tree, said = read(tmp_path / "a"), capsys.readouterr()
    assert [Path(image["file"]).stem for image in tree["images"]] == ["00", "01", "02"]
    assert len(tree["problems"]) == 17  # every input is in the file
    assert said.err.count("No space left on device") <= 2  # not one line for each
    assert "were not started" in said.out


def test_a_disk_that_fills_in_a_video_keeps_its_frames(detector, tmp_path, monkeypatch, capsys):
    clip, out, write = video(tmp_path / "v.mp4", 10), tmp_path / "out", VideoWriter.write

    def full(self, rgb, time_s):
        if time_s > 0.1:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, rgb, time_s)

    monkeypatch.setattr(VideoWriter, "write", full)
    assert predict(clip, "--out", out) == 1
    tree = read(out)
    indices = [frame["index"] for frame in tree["videos"][0]["frames"]]
    assert indices == list(range(len(indices)))
    assert 4 <= len(indices) <= 6  # the overlay is written behind: two frames may be predicted meanwhile
    assert "No space left" in tree["problems"][0]["why"]
    assert [p.name for p in out.iterdir()] == ["predictions.json"]


def test_a_pipe_is_no_input(detector, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.jpg")
    for word in (tmp_path / "pipe.jpg", "/dev/null"):
        assert f"{word}: not a file" in fails(capsys, word, "--out", tmp_path / "out")


def test_boxes_that_hardly_hold_a_hand_are_named(detector, tmp_path, monkeypatch, capsys):
    def in_boxes(self, image_rgb, boxes, sides):
        return [replace(hand_at(), score=0.97), replace(hand_at(), score=0.02), hand_at(z_m=60.0)]

    monkeypatch.setattr(FakeDetector, "in_boxes", in_boxes, raising=False)
    photo, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    assert predict(photo, "--out", out, "--box", "9,9,99,99", "20,20,40,40", "60,50,66,56") == 0
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()
    assert lines[0].startswith("utnet: box 2: probably no hand (presence 0.02); look at the overlay")
    assert lines[1].startswith("utnet: box 3: its hand would be ")
    assert len(lines) == 2
    assert len([line for line in said.out.splitlines() if "score " in line]) == 3


def test_names_never_collide(tmp_path):
    for name in ("a/x.png", "b/x.png", "b/x.jpg", "b/X.webp", "b/b_x.png", "b/y.png", "camera_0.png"):
        picture(tmp_path / name)
    words = [str(tmp_path / word) for word in ("a", "b", "camera_0.png", "b/y.png")]
    inputs = find_inputs([*words, "0"])
    names = [item.name.casefold() for item in inputs]
    assert len(set(names)) == len(names) == 8  # y.png was named twice and is done once
    assert names[names.index("y")] == "y"
    assert [item.kind for item in inputs].count("camera") == 1
    assert find_inputs([str(tmp_path / "**" / "x.*")]) == find_inputs([str(tmp_path / "**" / "x.*")] * 2)


def test_an_untidy_end_leaves_a_whole_file(detector, tmp_path, capsys):
    """Ctrl-C while the third picture is looked at, and in the middle of a video: what is done is written."""
    for i in range(30):
        picture(tmp_path / "in" / f"{i:02d}.png")
    detector.at_call = (3, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert predict(tmp_path / "in", "--out", tmp_path / "a") == 130
    done = read(tmp_path / "a")["images"]
    assert 3 <= len(done) <= 6
    assert all((tmp_path / "a" / image["overlay"]).is_file() for image in done)
    assert "of 30 inputs were not started" in capsys.readouterr().out
    left = [Path(problem["file"]).stem for problem in read(tmp_path / "a")["problems"]]
    assert left == [f"{i:02d}" for i in range(len(done), 30)]  # it does not look complete
    detector.calls = 0
    clip = video(tmp_path / "v.mp4", 20)
    assert predict(clip, picture(tmp_path / "p.png"), "--out", tmp_path / "b") == 130
    tree = read(tmp_path / "b")
    assert len(tree["images"]) == 1
    assert len(tree["videos"][0]["frames"]) == 2
    assert tree["problems"] == [{"file": str(clip), "why": "stopped after 2 of 20 frames"}]
    assert "v.mp4: stopped after 2 of 20 frames" in capsys.readouterr().err
    with VideoReader(tmp_path / "b" / "v_overlay.mp4") as reader:
        assert len(list(reader)) == 2


def test_a_second_ctrl_c_keeps_what_is_done(detector, tmp_path, capsys):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    photo, clip, out = picture(tmp_path / "p.png"), video(tmp_path / "v.mp4", 20), tmp_path / "out"
    detector.at_call = (4, twice)
    assert predict(photo, clip, "--out", out) == 130
    assert "checkpoint" not in capsys.readouterr().err
    tree = read(out)
    assert len(tree["images"]) == 1
    assert len(tree["videos"][0]["frames"]) == 2
    assert tree["problems"] == [{"file": str(clip), "why": "stopped before it was done"}]
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for folder in (out, tmp_path / "new"):  # nothing is done yet: earlier results stay, nothing new is left
        detector.calls, detector.at_call = 0, (1, twice)
        assert predict(clip, "--out", folder, "--overwrite") == 130
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert not (tmp_path / "new").exists()


def test_ctrl_c_in_compiled_code_is_ctrl_c(detector, tmp_path):
    """Numba makes a SystemError of it."""

    def interrupt():
        raise SystemError("returned a result with an exception set") from KeyboardInterrupt()

    detector.at_call = (3, interrupt)
    assert predict(video(tmp_path / "v.mp4", 20), "--out", tmp_path / "out") == 130
    assert len(read(tmp_path / "out")["videos"][0]["frames"]) == 2


# -------------------------------------------------------------------------------------------------------------- depth


def write_depth(path, metres, size=(WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full(size[::-1], round(metres * 1000), np.uint16))


def test_pictures_meet_their_depth_images(detector, tmp_path):
    for i in range(3):
        picture(tmp_path / "rgb" / f"color_{i:06d}.png")
        write_depth(tmp_path / "d" / f"color_{i:06d}.png", 0.5 + 0.1 * i)
        write_depth(tmp_path / "rgb" / f"aligned_depth_to_color_{i:06d}.png", 0.5 + 0.1 * i)
    both = str(tmp_path / "rgb" / "aligned_*.png")
    for number, depth in enumerate((tmp_path / "d", tmp_path / "rgb", both)):
        out = tmp_path / f"out{number}"
        assert predict(str(tmp_path / "rgb" / "color_*.png"), "--depth", depth, "--out", out) == 0
        wrists = []
        for i, image in enumerate(read(out)["images"]):
            assert image["depth"].endswith(f"color_{i:06d}.png")
            assert image["hands"][0]["distance_source"] == "sensor"
            wrists.append(image["hands"][0]["joints_cam_m"][0][2])
        np.testing.assert_allclose(np.diff(wrists), 0.1, atol=0.01)


def test_depth_that_does_not_fit_its_picture_is_named(detector, tmp_path, capsys):
    for name in ("good", "none", "small", "unit", "blank"):
        picture(tmp_path / "rgb" / f"{name}.png")
    write_depth(tmp_path / "d" / "good.png", 0.5)
    write_depth(tmp_path / "d" / "small.png", 0.5, (WIDTH // 2, HEIGHT))
    write_depth(tmp_path / "d" / "unit.png", 50.0)
    write_depth(tmp_path / "d" / "blank.png", 0.0)
    out = tmp_path / "out"
    assert predict(tmp_path / "rgb", "--depth", tmp_path / "d", "--out", out) == 1
    assert [Path(image["file"]).stem for image in read(out)["images"]] == ["good"]
    why = {Path(problem["file"]).stem: problem["why"] for problem in read(out)["problems"]}
    assert "no depth image of its name or number" in why["none"]
    assert "another shape" in why["small"]
    assert "50 m" in why["unit"]
    assert "no reading at all" in why["blank"]
    assert not list(out.glob("small*"))


def test_depth_refuses_a_picture_only_where_no_hand_is_in_reach(detector, tmp_path, monkeypatch):
    """A doubtful detection far behind the hand is lifted without depth."""
    near, far = hand_at(x_m=-0.1), replace(hand_at(x_m=0.1), score=0.5)
    monkeypatch.setattr(FakeDetector, "__call__", lambda self, rgb: [near, far])
    photo, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    metres = np.full((HEIGHT, WIDTH), 0.5, np.float32)
    metres[:, WIDTH // 2 :] = 12.0
    np.save(tmp_path / "d.npy", metres)
    assert predict(photo, "--depth", tmp_path / "d.npy", "--out", out) == 0
    assert [hand["distance_source"] for hand in read(out)["images"][0]["hands"]] == ["sensor", "hand_size"]
    np.save(tmp_path / "d.npy", metres * 100)
    assert predict(photo, "--depth", tmp_path / "d.npy", "--out", out, "--overwrite") == 2


def test_depth_that_contradicts_the_hands_size_is_doubted(detector, tmp_path, capsys):
    """As when a sensor of 0.25 mm a step is read as one of millimetres."""
    photo, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    write_depth(tmp_path / "d.png", 0.5)
    assert predict(photo, "--depth", tmp_path / "d.png", "--out", out) == 0
    assert "check --depth-scale" not in capsys.readouterr().err
    scaled = ("--depth-scale", "0.004")
    assert predict(photo, "--depth", tmp_path / "d.png", *scaled, "--out", out, "--overwrite") == 0
    assert "hand 1: at" in (said := capsys.readouterr().err)
    assert "check --depth-scale and --K" in said


def test_depth_of_a_picture_that_exif_turns_is_refused(detector, tmp_path, capsys):
    """Whether the depth image is turned, too, nobody says."""
    tags = Image.Exif()
    tags[274] = 3  # Orientation: upside down
    photo = picture(tmp_path / "photo.png", exif=tags)
    write_depth(tmp_path / "d.png", 0.5)
    assert predict(photo, "--out", tmp_path / "without") == 0
    assert predict(photo, "--depth", tmp_path / "d.png", "--out", tmp_path / "out") == 2
    assert "save it upright first" in capsys.readouterr().err


def test_depth_files_that_cannot_be_meant(tmp_path):
    write_depth(tmp_path / "d" / "a_1.png", 1)
    write_depth(tmp_path / "d" / "b_1.png", 1)
    with pytest.raises(InputError, match=r"a_1.png and b_1.png both fit"):
        DepthFiles(str(tmp_path / "d"), 3).of(Path("color_0001.jpg"))
    with pytest.raises(InputError, match="one depth image for 3 pictures"):
        DepthFiles(str(tmp_path / "d" / "a_1.png"), 3)
    with pytest.raises(InputError, match="no depth image"):
        DepthFiles(str(tmp_path / "*.none"), 3)


# ------------------------------------------------------------------------------------------------------------- videos


def test_a_video_gives_frames_an_overlay_and_what_else_is_asked(detector, tmp_path, capsys):
    clip, out = video(tmp_path / "clip.mp4", 12), tmp_path / "out"
    assert predict(clip, "--out", out, "--npz", "--mesh", "ply") == 0
    assert "1 video (12 frames), 12 hands" in capsys.readouterr().out
    (record,) = read(out)["videos"]
    assert [frame["index"] for frame in record["frames"]] == list(range(12))
    np.testing.assert_allclose([frame["time_s"] for frame in record["frames"]], np.arange(12) / 25, atol=1e-4)
    assert (record["fps"], record["smoothed"], record["K_from"]) == (25.0, True, "default")
    assert {frame["hands"][0]["track"] for frame in record["frames"]} == {3}
    assert all((out / frame["hands"][0]["mesh"]).is_file() for frame in record["frames"])
    with VideoReader(out / record["overlay"]) as reader:
        assert len(list(reader)) == 12
    arrays = np.load(out / record["arrays"])
    np.testing.assert_array_equal(arrays["frame"], np.arange(12))
    assert "vertices_cam_m" not in arrays
    assert arrays["joints_cam_m"].shape == (12, 21, 3)


def test_videos_are_smoothed_unless_raw_is_asked(detector, tmp_path):
    clip = video(tmp_path / "clip.mp4", 20)

    def jitter(out, *options):
        predict(clip, "--out", out, "--no-overlay", *options)
        assert sorted(p.name for p in out.iterdir()) == ["predictions.json"]  # no meshes of videos unless asked
        joints = [frame["hands"][0]["joints_cam_m"] for frame in read(out)["videos"][0]["frames"]]
        return np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1).mean()

    assert jitter(tmp_path / "a") < 0.5 * jitter(tmp_path / "b", "--raw")


def test_a_video_cut_short_is_done_as_far_as_it_goes(detector, tmp_path, capsys):
    clip, out = video(tmp_path / "clip.mp4", 60), tmp_path / "out"
    data = clip.read_bytes()
    clip.write_bytes(data[: int(len(data) * 0.9)])
    assert predict(clip, "--out", out) == 1
    tree = read(out)
    num = len(tree["videos"][0]["frames"])
    assert 0 < num < 58
    assert "cut short" in tree["problems"][0]["why"] or "damaged" in tree["problems"][0]["why"]
    assert "clip.mp4" in capsys.readouterr().err
    with VideoReader(out / "clip_overlay.mp4") as reader:
        assert len(list(reader)) == num


def test_seconds_end_a_video_in_good_order(detector, tmp_path):
    assert predict(video(tmp_path / "clip.mp4", 20), "--out", tmp_path / "out", "--seconds", "0.2") == 0
    assert len(read(tmp_path / "out")["videos"][0]["frames"]) == 5


def test_a_camera_runs_until_ctrl_c(detector, tmp_path, monkeypatch, capsys):
    class Camera:
        def __init__(self, number):
            assert number == 5

        def isOpened(self):
            return True

        def get(self, what):
            return 30.0

        def read(self):
            return True, np.full((HEIGHT, WIDTH, 3), 200, np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    monkeypatch.chdir(tmp_path)
    detector.at_call = (4, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert predict("5", "--out", "out") == 0
    (record,) = read(tmp_path / "out")["videos"]
    assert (record["file"], len(record["frames"])) == ("camera 5", 4)
    assert (tmp_path / "out" / "camera_5_overlay.mp4").is_file()


# ------------------------------------------------------------------------------------------------------------ library


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


# ------------------------------------------------------------------------------------------------------- real pictures

REAL = ROOT.parent / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real pictures here")


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


def test_all_hands_in_one_table_beside_the_json(detector, tmp_path):
    """Of pictures and videos, in the order of the JSON; the next call removes it."""
    from utnet.predict.formats.table import read_table

    pytest.importorskip("pyarrow")
    out = tmp_path / "out"
    given = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", hand=False), video(tmp_path / "v.mp4", frames=4)]
    assert predict(*given, "--out", out, "--also", "table", "--no-overlay", "--mesh", "none") == 0
    tree, table = read(out), read_table(out / "hands.parquet")
    assert tree["also"] == {"table": "hands.parquet"}
    hands = [hand for record in tree["images"] for hand in record["hands"]]
    hands += [hand for record in tree["videos"] for frame in record["frames"] for hand in frame["hands"]]
    np.testing.assert_allclose(table["joints_cam_m"], [hand["joints_cam_m"] for hand in hands], atol=1e-5)
    assert table["frame"].tolist() == [0, 0, 1, 2, 3]
    assert table["track"].tolist() == [-1, 3, 3, 3, 3]
    assert predict(given[0], "--out", out, "--overwrite", "--no-overlay", "--mesh", "none") == 0
    assert not (out / "hands.parquet").exists()


def test_hamer_s_arrays_need_mano_and_are_fitted_to_it(detector, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("UTNET_MANO_DIR", raising=False)
    photo, out = picture(tmp_path / "photo.png"), tmp_path / "out"
    options = ("--method", "fit", "--out", out, "--npz-style", "hamer", "--no-overlay", "--mesh", "none")
    assert "MANO" in fails(capsys, photo, *options)
    assert not out.exists()
    (tmp_path / "mano").mkdir()
    write_mano(tmp_path / "mano" / "MANO_RIGHT.pkl", random_mano())
    hand = Predictor(method="fit")(photo)[0]
    data = hand.to_hamer((WIDTH, HEIGHT), tmp_path / "mano")
    assert data["pred_vertices"].shape == (778, 3)
    assert "licence" in fails(capsys, photo, "--mano", tmp_path / "mano", "--out", out, "--mesh", "animated")
    assert predict(photo, "--mano", tmp_path / "mano", *options) == 0
    with np.load(out / "photo.npz") as arrays:
        assert arrays["pred_vertices"].shape == (1, 778, 3)
        assert arrays["faces"].shape == (1538, 3)
        assert arrays["mano_fit_mm"] == [0]


def test_an_animated_glb_a_video_and_a_scene_a_picture(detector, tmp_path):
    out = tmp_path / "out"
    given = [picture(tmp_path / "a.png"), video(tmp_path / "v.mp4", frames=4)]
    assert predict(*given, "--out", out, "--mesh", "animated", "--no-overlay") == 0
    tree = read(out)
    assert tree["images"][0]["hands"][0]["mesh"] == "a_hands.glb"
    assert tree["videos"][0]["mesh"] == "v_hands.glb"
    assert set(trimesh.load(out / "a_hands.glb").graph.nodes_geometry) == {"0_right"}
    wrists = np.array([frame["hands"][0]["joints_cam_m"][0] for frame in tree["videos"][0]["frames"]])
    file = Skinned(out / "v_hands.glb")
    for wrist, frame in zip(wrists, tree["videos"][0]["frames"], strict=True):
        place = file.node_place("right_3_wrist", frame["time_s"])[:3, 3]
        np.testing.assert_allclose(place, wrist * [1, -1, -1], atol=1e-5)
    assert predict(given[0], "--out", out, "--overwrite", "--no-overlay", "--mesh", "none") == 0
    assert [path.name for path in out.iterdir()] == ["predictions.json"]
    assert (
        predict(video(tmp_path / "e.mp4", hand=False), "--out", out, "--overwrite", "--mesh", "animated", "--npz") == 0
    )
    (record,) = read(out)["videos"]
    assert (record["mesh"], record["arrays"]) == (None, "e.npz")  # without a hand nothing is animated
    assert not list(out.glob("*.glb"))


def test_every_format_holds_all_hands(detector, tmp_path, capsys):
    out, names = tmp_path / "out", ("angles", "openxr", "coco", "custom")
    given = [picture(tmp_path / "a.png"), video(tmp_path / "v.mp4", frames=3)]
    also = [word for name in names[1:] for word in ("--also", name)]
    assert predict(*given, "--out", out, "--angles", *also, "--no-overlay", "--mesh", "none") == 0
    assert set(read(out)["also"]) == set(names)
    lines = {
        name: (out / name).read_text().splitlines() for name in ("angles.csv", "openxr.jsonl", "custom/hands.jsonl")
    }
    assert [len(text) for text in lines.values()] == [1 + 4, 1 + 4, 4]
    assert len(json.loads((out / "coco_wholebody.json").read_text())["annotations"]) == 4
    assert len(list((out / "custom" / "images").iterdir())) == 4
    (out / "custom" / "hands.jsonl").write_text("corrected by hand\n")
    assert "corrected" in fails(capsys, *given, "--out", out, "--overwrite", "--also", "custom", "--no-overlay")
    assert (out / "custom" / "hands.jsonl").read_text() == "corrected by hand\n"
    assert len(read(out)["images"]) == 1


def test_a_picture_that_a_format_cannot_hold_is_a_problem_of_that_picture(detector, tmp_path, monkeypatch, capsys):
    from utnet.predict.formats.custom import CustomWriter

    add, out = CustomWriter.add, tmp_path / "out"
    given = [picture(tmp_path / f"{name}.png") for name in "abc"]

    def gone(self, frame):
        if frame.file.endswith("b.png"):
            raise InputError(f"{frame.file}: no such file")
        add(self, frame)

    monkeypatch.setattr(CustomWriter, "add", gone)
    assert predict(*given, "--out", out, "--also", "custom", "--no-overlay", "--mesh", "none") == 1
    assert [Path(problem["file"]).name for problem in read(out)["problems"]] == ["b.png"]
    assert len(list((out / "custom" / "images").iterdir())) == 2
