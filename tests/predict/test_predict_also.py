"""`utnet predict --also` and `--npz-style`: files that hold all hands of a call."""

import errno
import json
from pathlib import Path

import numpy as np
import pytest

from support.mano_files import random_mano, write_mano
from support.predict_command import HEIGHT, WIDTH, fails, picture, predict, read, video
from utnet.errors import InputError
from utnet.predict.predictor import Predictor

pytestmark = pytest.mark.usefixtures("nothing_ships")


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


def test_every_format_holds_all_hands(detector, tmp_path, capsys):
    out, names = tmp_path / "out", ("angles", "openxr", "coco", "custom")
    given = [picture(tmp_path / "a.png"), video(tmp_path / "v.mp4", frames=3)]
    also = [word for name in names[1:] for word in ("--also", name)]
    assert predict(*given, "--out", out, "--angles", *also, "--no-overlay", "--mesh", "none") == 0
    assert set(read(out)["also"]) == set(names)
    assert "openxr.jsonl, coco_wholebody.json, custom and angles.csv beside it" in capsys.readouterr().out
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


def test_a_format_that_cannot_be_finished_takes_nothing_else_with_it(detector, tmp_path, monkeypatch, capsys):
    from utnet.predict.formats import coco

    def full(path, tree):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(coco, "write_json", full)
    out, also = tmp_path / "out", ("--also", "openxr", "--also", "coco", "--also", "angles")
    assert predict(picture(tmp_path / "a.png"), "--out", out, *also, "--no-overlay", "--mesh", "none") == 1
    shown = capsys.readouterr()
    assert "coco_wholebody.json: cannot be written" in shown.err
    assert "openxr.jsonl and angles.csv beside it" in shown.out
    assert [problem["file"] for problem in read(out)["problems"]] == ["coco_wholebody.json"]
    assert {path.name for path in out.iterdir()} == {"predictions.json", "openxr.jsonl", "angles.csv"}
    assert len((out / "angles.csv").read_text().splitlines()) == 2
