"""`utnet predict` with many inputs, and such as cannot be read: each is named, and the rest is done."""

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from support.predict_command import FakeDetector, fails, hand_at, picture, predict, read, video
from utnet.errors import InputError
from utnet.predict.inputs import find_inputs
from utnet.render.drawing import save_picture

pytestmark = pytest.mark.usefixtures("nothing_ships")


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
        ([good, clip, "--box", "0,0,9,9"], "--box is for one picture"),
        ([clip, "--depth", good], "not a depth video"),
        ([good, "--depth", good], "expected one channel of 16 bits"),
        ([good, "--depth", tmp_path / "none.png"], "none.png: no such file"),
        ([good, "--depth", good, "--depth-scale", "0"], "--depth-scale is 0"),
        ([good, "--jobs", "0"], "--jobs is 0"),
        ([clip, "--seconds", "0"], "--seconds is 0"),
        ([good, "--method", "network"], "no bundled weights"),
        ([good, "--weights", tmp_path / "none"], "no such file; give a checkpoint folder"),
        ([good, "--mano", tmp_path], "MANO_RIGHT.pkl: no such file"),
    ):
        assert message in fails(capsys, *words, "--out", out)
        assert not out.exists()


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
    assert len([line for line in said.out.splitlines() if "its middle at" in line]) == 3


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
