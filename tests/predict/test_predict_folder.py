"""The folder that `utnet predict` writes: earlier calls, full disks, and calls that are stopped."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest

from support.predict_command import fails, picture, predict, read, video
from utnet.io.videos import VideoReader, VideoWriter
from utnet.render.drawing import save_picture
from utnet.signals import InterruptHandler

pytestmark = pytest.mark.usefixtures("nothing_ships")


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


def unwritable(monkeypatch, number, *names):
    """Overlays of these names cannot be written."""
    real = save_picture

    def save(path, rgb, **options):
        if path.name in names:
            raise OSError(number, os.strerror(number), str(path))
        real(path, rgb, **options)

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


def test_a_second_ctrl_c_keeps_what_is_done(detector, tmp_path, capsys, monkeypatch):
    note = InterruptHandler._note

    def noted_twice(self, *args):  # of two signals sent by another thread Python may deliver one
        note(self, *args)
        note(self, *args)

    def twice():
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(InterruptHandler, "_note", noted_twice)
    photo, clip, out = picture(tmp_path / "p.png"), video(tmp_path / "v.mp4", 20), tmp_path / "out"
    detector.at_call = (4, twice)
    assert predict(photo, clip, "--out", out) == 130
    assert "checkpoint" not in capsys.readouterr().err
    tree = read(out)
    assert len(tree["images"]) == 1
    assert len(tree["videos"][0]["frames"]) in (1, 2)  # one frame is followed while another is reconstructed
    assert tree["problems"] == [{"file": str(clip), "why": "stopped before it was done"}]
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    for folder in (out, tmp_path / "new"):  # nothing is done yet: earlier results stay, nothing new is left
        detector.calls, detector.at_call = 0, (1, twice)
        assert predict(clip, "--out", folder, "--overwrite") == 130
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert not (tmp_path / "new").exists()
