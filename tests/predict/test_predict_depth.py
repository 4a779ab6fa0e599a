"""`utnet predict --depth`: which depth image is of which picture, and those that cannot be meant."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from support.predict_command import HEIGHT, WIDTH, FakeDetector, hand_at, picture, predict, read
from utnet.errors import InputError
from utnet.predict.inputs import DepthFiles

pytestmark = pytest.mark.usefixtures("nothing_ships")


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
    assert "another aspect ratio" in why["small"]
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
    with pytest.raises(InputError, match=r"a_1.png and b_1.png both match"):
        DepthFiles(str(tmp_path / "d"), 3).of(Path("color_0001.jpg"))
    with pytest.raises(InputError, match="one depth image for 3 pictures"):
        DepthFiles(str(tmp_path / "d" / "a_1.png"), 3)
    with pytest.raises(InputError, match="no depth image"):
        DepthFiles(str(tmp_path / "*.none"), 3)


def test_depth_without_a_camera_is_named(detector, tmp_path, capsys):
    """For every picture, with its name where there are several."""
    folder, depth = tmp_path / "photos", tmp_path / "depth"
    depth.mkdir()
    for name in "ab":
        picture(folder / f"{name}.png")
        np.save(depth / f"{name}.npy", np.full((HEIGHT, WIDTH), 0.5, np.float32))
    known = ("--K", "150,150,80,60")
    for i, (photos, depths, camera, named) in enumerate(
        [
            (folder / "a.png", depth / "a.npy", (), ["depth without"]),
            (folder, depth, (), ["a.png: depth without", "b.png: depth without"]),
            (folder, depth, known, []),
        ]
    ):
        assert predict(photos, "--out", tmp_path / str(i), "--method", "fit", "--depth", depths, *camera) == 0
        said = capsys.readouterr().err
        assert said.count("guessed focal length") == len(named)
        assert all(words in said for words in named)
