"""Your own data: every key and every mistake by file and line, splits by recording, nothing outside the folder."""

import json
import re
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from support.custom_folder import labelled, write
from support.laws import assert_labels_agree
from utnet.config import CropConfig
from utnet.conventions import SIDES
from utnet.data import open_source
from utnet.data.custom.custom_line import KEYS
from utnet.data.custom.custom_reader import BadLines
from utnet.data.inspection.check import check_source
from utnet.data.source import BadSample, read_sample
from utnet.data.transforms import crop, to_right
from utnet.errors import InputError
from utnet.geometry import project
from utnet.hand import HandModel
from utnet.synth import SyntheticHands

ROOT = Path(__file__).parents[2]
SIZE = 128


def line_of(**changes) -> dict:
    """A minimal line with 2D joints; None removes a key."""
    joints = [[20.0 + j, 30.0 - j] for j in range(21)]
    line = {"image": "a.png", "side": "right", "joints_2d": joints} | changes
    return {key: value for key, value in line.items() if value is not None}


def line_3d(**changes) -> dict:
    joints = [[0.004 * j, -0.003 * j, 0.5 + 0.001 * j] for j in range(21)]
    return line_of(joints_2d=None, joints_3d=joints, K=[80.0, 80.0, 40.0, 40.0]) | changes


@pytest.fixture(scope="module")
def full(tmp_path_factory) -> Path:
    """Four hands with all labels, right and left (mirrored) in turn; the last has no translation."""
    from utnet.data.transforms import mirror

    folder = tmp_path_factory.mktemp("full")
    source = SyntheticHands(seed=4, size_px=SIZE, num=4)
    samples = [source[i] if i % 2 == 0 else mirror(source[i]) for i in range(4)]
    return write(folder, [labelled(s, folder, i, transl=i < 3) for i, s in enumerate(samples)])


# ------------------------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("how", ["as it is", "right", "turned crop"])
def test_parameters_joints_camera_and_depth_agree(full, how):
    source = open_source("custom", full)
    seen, sides = [], set()
    for index in range(len(source)):
        sample = source[index]
        sides.add(sample.side)
        if how != "as it is":
            sample = to_right(sample)
        if how == "turned crop":
            config = CropConfig(rotation_jitter_deg=180.0)
            sample = crop(sample, 96, config, np.random.default_rng(index))
        seen.append(assert_labels_agree(sample, HandModel.open(), max_px=0.1))
        assert sample.K_px is not None
        assert sample.joints_px is None
    assert sides == set(SIDES)
    assert np.mean(seen) > 0.3


def test_numbers_come_back_as_they_were_written(full):
    source = open_source("custom", full, sides="right")
    truth = SyntheticHands(seed=4, size_px=SIZE, num=4)
    assert len(source) == 2
    assert source.counts == {"lines": 4, "of other splits": 0, "of the other side": 2, "hands": 2}
    sample, written = source[0], truth[0]
    assert sample.key == "0.png:1"
    assert sample.sequence == source.sequence(0) == "s0"
    np.testing.assert_array_equal(sample.rgb, written.rgb)
    np.testing.assert_allclose(sample.depth_m, written.depth_m, atol=0.0003)
    np.testing.assert_allclose(sample.K_px, written.K_px)
    np.testing.assert_allclose(sample.params.hand_pose, written.params.hand_pose, atol=1e-6)
    assert np.isnan(source[1].params.transl_m).all() == ("transl" not in read_line(full, 2)["params"])
    assert open_source("custom", full, with_depth=False)[0].depth_m is None


def read_line(folder: Path, index: int) -> dict:
    return json.loads((folder / "hands.jsonl").read_text().splitlines()[index])


def test_joints_that_are_null_are_nan_with_confidence_0(tmp_path):
    line = line_3d(joints_3d_conf=[0.5] * 21)
    line["joints_3d"][7] = None
    sample = open_source("custom", write(tmp_path, [line]))[0]
    assert np.isnan(sample.joints_cam_m[7]).all()
    assert np.isfinite(np.delete(sample.joints_cam_m, 7, 0)).all()
    expected = np.where(np.arange(21) == 7, 0, 0.5)
    np.testing.assert_array_equal(sample.joints_3d_conf, expected)
    np.testing.assert_array_equal(sample.joints_2d_conf, expected)
    points = project(np.delete(sample.joints_cam_m, 7, 0), sample.K_px)
    np.testing.assert_allclose(sample.box_px, [*points.min(0), *points.max(0)])


def test_image_points_win_over_projected_joints(tmp_path):
    both = line_3d(joints_2d=line_of()["joints_2d"], joints_2d_conf=[1.0] * 20 + [0.25])
    both["joints_2d"][3] = None
    sample = open_source("custom", write(tmp_path, [both]))[0]
    expected = np.array([p if p is not None else [np.nan] * 2 for p in both["joints_2d"]])
    np.testing.assert_array_equal(sample.joints_px, expected)
    np.testing.assert_array_equal(sample.joints_2d_conf, [1, 1, 1, 0] + [1] * 16 + [0.25])
    np.testing.assert_array_equal(sample.joints_3d_conf, np.ones(21))
    np.testing.assert_allclose(sample.box_px, [20, 10, 40, 30])  # of the 2D joints


def test_a_camera_may_be_four_numbers_or_a_matrix(tmp_path):
    matrix = [[80.0, 0.5, 40.0], [0, 81.0, 30.0], [0, 0, 1]]
    source = open_source("custom", write(tmp_path, [line_3d(K=[80, 81, 40, 30]), line_3d(K=matrix), line_of()]))
    np.testing.assert_array_equal(source[0].K_px, [[80, 0, 40], [0, 81, 30], [0, 0, 1]])
    np.testing.assert_array_equal(source[1].K_px, matrix)
    assert source[2].K_px is None


def test_a_box_alone_is_enough_and_counts_nothing(tmp_path):
    lines = [line_of(joints_2d=None, box=[10, 12, 50, 40.5]) | extra for extra in ({}, {"K": [80, 80, 40, 30]})]
    for sample in map(open_source("custom", write(tmp_path, lines)).__getitem__, range(2)):
        np.testing.assert_array_equal(sample.box_px, [10, 12, 50, 40.5])
        assert not sample.joints_2d_conf.any()
        assert not sample.joints_3d_conf.any()
        assert np.isnan(sample.joints_cam_m).all()


def test_joints_without_a_camera_keep_their_origin(tmp_path):
    line = line_3d(K=None, joints_2d=line_of()["joints_2d"])
    line["joints_3d"] = (np.array(line["joints_3d"]) - line["joints_3d"][0]).tolist()
    sample = open_source("custom", write(tmp_path, [line]))[0]
    np.testing.assert_array_equal(sample.joints_cam_m, line["joints_3d"])
    assert sample.K_px is None


@pytest.mark.parametrize(("side", "model", "ok"), [("left", "mano", False), ("left", "open", True)])
def test_betas_of_a_left_mano_hand_are_not_learnt(full, tmp_path, side, model, ok):
    line = line_3d(side=side, hand_model=model, params=read_line(full, 0)["params"])
    sample = open_source("custom", write(tmp_path, [line]))[0]
    assert sample.hand_model == model
    assert sample.betas_ok is ok
    assert open_source("custom", tmp_path, hand_model="open")[0].hand_model == "open"


# ------------------------------------------------------------------------------------------------------------ splits


def images(source) -> set[str]:
    return {source.key(i).split(":")[0] for i in range(len(source))}


def test_lines_without_a_split_are_divided_by_recording(tmp_path):
    lines = [line_of(image=f"{i}.png", sequence=f"r{i // 3}") for i in range(60)]
    write(tmp_path, lines)
    train, fit, val = (open_source("custom", tmp_path, split=split) for split in ("train", "train_fit", "val"))
    assert len(train) == 60
    assert images(fit) | images(val) == images(train)
    assert not images(fit) & images(val)
    assert 6 <= len(val) <= 9
    recordings = [{source.sequence(i) for i in range(len(source))} for source in (fit, val)]
    assert not recordings[0] & recordings[1]
    with pytest.raises(InputError, match="split test has no hand"):
        open_source("custom", tmp_path, split="test")


@pytest.mark.parametrize("large", ["a", "b", "c"])
def test_the_largest_recording_stays_in_training(large, tmp_path):
    """Whatever the order of the names' hashes: of 18, 1 and 1 hands validation takes the two small recordings."""
    write(tmp_path, [line_of(image=f"{n}/{i}.png") for n in "abc" for i in range(18 if n == large else 1)])
    fit, val = (open_source("custom", tmp_path, split=split) for split in ("train_fit", "val"))
    assert len(fit) + len(val) == 20
    assert len(val) == 2
    assert large not in {val.sequence(i) for i in range(len(val))}


def test_splits_that_the_lines_name_are_kept(tmp_path):
    said = ["train", None, "val", "test", "test"]
    write(tmp_path, [line_of(image=f"{i}.png", split=split) for i, split in enumerate(said)])
    found = {split: images(open_source("custom", tmp_path, split=split)) for split in ("train", "val", "test")}
    assert found == {"train": {"0.png", "1.png"}, "val": {"2.png"}, "test": {"3.png", "4.png"}}
    assert images(open_source("custom", tmp_path, split="train_fit")) == found["train"]


def test_a_picture_s_folder_is_its_recording_and_one_recording_cannot_be_divided(tmp_path):
    write(tmp_path, [line_of(image=f"{name}/{i}.png") for i in range(3) for name in "ab"])
    recordings = [
        {source.sequence(i) for i in range(len(source))}
        for source in (open_source("custom", tmp_path, split=split) for split in ("train_fit", "val"))
    ]
    assert sorted(map(len, recordings)) == [1, 1]
    assert set.union(*recordings) == {"a", "b"}
    write(tmp_path, [line_of(image=f"a/{i}.png") for i in range(3)])
    with pytest.raises(InputError, match="all training hands belong to one recording"):
        open_source("custom", tmp_path, split="val")


def test_a_limit_is_spread_evenly_and_blank_lines_do_not_shift_numbers(tmp_path):
    write(tmp_path, ["", *(line_of(image=f"{i}.png") for i in range(7)), "  "])
    source = open_source("custom", tmp_path, limit=3)
    assert [source.key(i) for i in range(3)] == ["0.png:2", "3.png:5", "6.png:8"]


def test_a_changed_file_is_indexed_again(tmp_path):
    write(tmp_path, [line_of()])
    assert len(open_source("custom", tmp_path)) == 1
    write(tmp_path, [line_of(), line_of()])
    assert len(open_source("custom", tmp_path)) == 2


# ------------------------------------------------------------------------------------------------------------ faults

MISTAKES_AT_OPENING = [
    (line_of(joint_2d=[1]), "unknown key 'joint_2d'; did you mean 'joints_2d'?"),
    (line_of(zebra=1), "unknown key 'zebra'; expected some of image, side"),
    (line_of(side=None), "'side' is missing"),
    (line_of(side="rihgt"), "'side' is 'rihgt', expected right or left"),
    (line_of(image=None), "'image' is missing"),
    (line_of(image=5), "'image' is 5, expected a text"),
    (line_of(image="x" * 2000), "'image' is 'xxx.*, expected a text of at most 1000"),
    (line_of(sequence="\ud800"), "'sequence' is .*, expected a text"),
    (line_of(split="trian"), "'split' is 'trian', expected one of train, val, test"),
    ('{"image": "a.png", "side": "ri', "not JSON"),
    ("[1, 2]", "expected an object"),
    ('{"image": "a.png", "side": "right", "box": [NaN, 1, 2, 3]}', "NaN is not a number.*null"),
    ("[" * 100000, "not JSON that can be read"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES_AT_OPENING, ids=range(len(MISTAKES_AT_OPENING)))
def test_mistakes_in_the_structure_are_named_when_the_folder_is_opened(tmp_path, line, message):
    write(tmp_path, [line_of()])
    with open(tmp_path / "hands.jsonl", "a") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(InputError, match=rf"hands\.jsonl: line 2: .*{message}"):
        open_source("custom", tmp_path)


POSE = {"global_orient": [0.1] * 3, "hand_pose": [0.1] * 45, "betas": [0.0] * 10}
MISTAKES_AT_READING = [
    (line_of(joints_2d=[[1, 2]] * 20), "'joints_2d': expected 21 joints"),
    (line_of(joints_2d=[[1, 2, 3]] * 21), r"'joints_2d\[0\]' has shape \(3,\); expected 2"),
    (line_of(joints_2d=[[1, None]] * 21), r"'joints_2d\[0\]': expected 2 number"),
    (line_of(joints_2d=[["1", "2"]] * 21), r"'joints_2d\[0\]': expected 2 number"),
    (json.dumps(line_of(box=[1, 2, 3, 4])).replace("3, 4", "3, 1e999"), r"'box' has shape \(4,\); expected 4 finite"),
    (line_of(joints_2d=[[1, 10**400]] * 21), r"'joints_2d\[0\]': expected 2 number"),
    (line_of(joints_2d_conf=[1] * 20), "'joints_2d_conf' has shape"),
    (line_of(joints_2d_conf=[-1] * 21), "'joints_2d_conf' has a number below 0"),
    (line_of(joints_3d_conf=[1] * 21), "'joints_3d_conf' is given without 'joints_3d'"),
    (line_of(joints_2d=None), "no 'box', and no joints"),
    (line_of(joints_2d=[[900, 900 + j] for j in range(21)]), "no 'box'|lies outside the picture of 80x60"),
    (line_of(box=[300, 10, 400, 50]), "lies outside the picture of 80x60 pixels"),
    (line_of(box=[5, 4, 3, 2]), "'box' is .*x0 < x1"),
    (line_of(K=[1, 2, 3]), "'K' has shape"),
    (line_of(K=[-80, 80, 40, 40]), "'K' is not a camera matrix"),
    (line_of(K=[[80, 0, 0], [0, 80, 0], [40, 40, 1]]), "'K' is not a camera matrix"),
    (line_3d(joints_3d=[[4.0 * j, 3.0, 500.0] for j in range(21)]), "expected metres"),
    (line_3d(joints_3d=[[0.01 * j, 0.0, -0.5] for j in range(21)]), "OpenGL axes .* behind the camera"),
    (line_of(params=POSE), "'params' need 'hand_model'"),
    (line_of(params=POSE, hand_model="smpl"), "'hand_model' is 'smpl', expected open or mano"),
    (line_of(params=POSE | {"beta": []}, hand_model="open"), "unknown key 'beta' in 'params'; did you mean 'betas'"),
    (line_of(params=POSE | {"hand_pose": [0] * 48}, hand_model="open"), "'params.hand_pose' has shape"),
    (line_of(params={"betas": [0] * 10}, hand_model="open"), "'params' has no 'global_orient'"),
    (line_of(depth="d.png"), r"'depth': .*d\.png: no such file"),
    (line_of(depth="a.png"), "'depth' needs 'K'"),
    (line_3d(depth="a.png"), r"a\.png: uint8.*expected a 16-bit PNG"),
    (line_3d(depth="a.png", depth_scale=0), "'depth_scale' is 0"),
]


@pytest.mark.parametrize(("line", "message"), MISTAKES_AT_READING, ids=range(len(MISTAKES_AT_READING)))
def test_mistakes_in_the_numbers_are_named_when_the_hand_is_read(tmp_path, line, message):
    source = open_source("custom", write(tmp_path, [line_of(), line]))
    assert source[0].side == "right"
    with pytest.raises(InputError, match=message) as error:
        source[1]
    assert "hands.jsonl: line 2" in str(error.value) or "a.png" in str(error.value)


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret.png", "a/../../secret.png", "C:\\secret.png", "a\0.png"])
def test_paths_that_lead_out_of_the_folder_are_refused(tmp_path, name):
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "hands.jsonl").write_text(json.dumps(line_of(image=name)) + "\n")
    with pytest.raises(InputError, match=r"line 1: 'image' is .*expected a path below the folder"):
        open_source("custom", tmp_path / "mine")[0]


def test_links_that_lead_out_of_the_folder_are_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "secret.png"), np.zeros((60, 80, 3), np.uint8))
    folder = write(
        tmp_path / "mine", [line_of(image="in.png"), line_of(image="out.png"), line_of(image="far/secret.png")]
    )
    for path in (folder / "out.png", folder / "far/secret.png"):
        path.unlink()
    (folder / "out.png").symlink_to(tmp_path / "secret.png")
    (folder / "far").rmdir()
    (folder / "far").symlink_to(tmp_path)
    (folder / "near.png").symlink_to(folder / "in.png")
    source = open_source("custom", folder)
    assert source[0].rgb.shape == (60, 80, 3)
    for index in (1, 2):
        with pytest.raises(InputError, match="a link that leads out of the folder"):
            source[index]
    write(folder, [line_of(image="near.png")])
    assert open_source("custom", folder)[0].rgb.shape == (60, 80, 3)


def test_pictures_and_depth_that_are_damaged_are_named(tmp_path):
    folder = write(tmp_path, [line_3d(depth="d.png")])
    cv2.imwrite(str(folder / "d.png"), np.full((60, 80), 500, np.uint16))
    source = open_source("custom", folder)
    assert source[0].depth_m[0, 0] == np.float32(0.5)
    cv2.imwrite(str(folder / "d.png"), np.full((30, 40), 500, np.uint16))
    with pytest.raises(InputError, match=r"d\.png: 40x30 pixels, the picture has 80x60"):
        source[0]
    cv2.imwrite(str(folder / "d.png"), np.full((60, 80), 50000, np.uint16))
    with pytest.raises(InputError, match=r"d\.png: .*50 m.*depth_scale"):
        source[0]
    (folder / "a.png").write_bytes((folder / "a.png").read_bytes()[:50])
    with pytest.raises(InputError, match=r"a\.png.*truncated"):
        source[0]
    (folder / "a.png").unlink()
    with pytest.raises(InputError, match=r"line 1: 'image': .*a\.png: no such file"):
        source[0]


def test_folders_and_options_that_are_wrong_are_named(tmp_path):
    with pytest.raises(InputError, match=r"hands\.jsonl: no such file"):
        open_source("custom", tmp_path)
    (tmp_path / "hands.jsonl").mkdir()
    with pytest.raises(InputError, match=r"hands\.jsonl: a folder"):
        open_source("custom", tmp_path)
    (tmp_path / "hands.jsonl").rmdir()
    (tmp_path / "hands.jsonl").write_text("\n\n")
    with pytest.raises(InputError, match="has no line"):
        open_source("custom", tmp_path)
    (tmp_path / "hands.jsonl").write_text(" " * (2**20 + 1))
    with pytest.raises(InputError, match="line 1: more than 1048576 bytes"):
        open_source("custom", tmp_path)
    write(tmp_path, [line_of()])
    for bad in ({"split": "holiday"}, {"sides": "top"}, {"hand_model": "smpl"}, {"tips": "nails"}):
        with pytest.raises(InputError, match=f"{next(iter(bad))} is .*expected one of"):
            open_source("custom", tmp_path, **bad)


def test_a_split_without_a_hand_names_those_that_have_some(tmp_path):
    takes = [line_of(sequence=name, side=side) for name, side in (("a", "right"), ("b", "right"), ("b", "left"))]
    write(tmp_path, takes)
    with pytest.raises(InputError) as error:
        open_source("custom", tmp_path, split="test")
    said = str(error.value)
    assert "split test has no hand; it has train (2 right and 1 left), train_fit (" in said
    for split in ("train", "train_fit", "val"):
        counts = [
            len(open_source("custom", tmp_path, split=split, sides=s)) for s in SIDES if s in said.split(split)[1]
        ]
        assert counts
    write(tmp_path, [line_of()])  # one recording, which cannot be divided
    with pytest.raises(InputError, match=r"has no left hand; it has train \(1 right\): choose another"):
        open_source("custom", tmp_path, sides="left")


def test_every_line_that_is_no_hand_is_found_at_once(tmp_path):
    write(tmp_path, [line_of(), "not JSON", line_of(side="up"), line_of(), '{"image": 3}'])
    with pytest.raises(BadLines, match=r"line 2: not JSON .*2 more such lines; `utnet data check custom`") as error:
        open_source("custom", tmp_path)
    assert [text.split(": ")[1] for text in error.value.messages] == ["line 2", "line 3", "line 5"]


def test_few_lines_that_are_no_hands_are_problems_of_themselves(tmp_path):
    lines = [line_of(sequence=f"take{i % 3}", side=SIDES[i % 2]) for i in range(30)]
    write(tmp_path, [*lines[:10], '{"image": "a.png", "side": "ri', *lines[10:]])
    for split, holds in (("train", True), ("train_fit", True), ("val", False)):
        for sides in (*SIDES, "both"):
            source = open_source("custom", tmp_path, split=split, sides=sides)
            read = [read_sample(source, i) for i in range(len(source))]
            bad = [item for item in read if isinstance(item, BadSample)]
            assert [item.key for item in bad] == ["line 11"] * holds
            assert all("line 11: not JSON" in item.message for item in bad)
            assert len(read) > len(bad)
    report = check_source(open_source("custom", tmp_path))
    assert list(report.numbers["damaged"]) == ["line 11"]
    assert (report.numbers["samples"]["expected"], report.numbers["samples"]["read"]) == (31, 30)


# ----------------------------------------------------------------------------------------------------- documentation


def test_the_documented_line_is_read_and_the_table_has_every_key(tmp_path):
    text = (ROOT / "docs/custom_data.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    line = json.loads(example)
    (tmp_path / "depth").mkdir()
    cv2.imwrite(str(tmp_path / line["depth"]), np.full((480, 640), 550, np.uint16))
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / line["image"]), np.zeros((480, 640, 3), np.uint8))
    sample = open_source("custom", write(tmp_path, [example.replace("\n", "")]))[0]
    assert sample.joints_3d_conf.sum() == 19.5
    assert np.isnan(sample.joints_cam_m[16]).all()
    points = project(sample.joints_cam_m[sample.joints_3d_conf > 0], sample.K_px)
    assert (points > sample.box_px[:2] - 1).all()
    assert (points < sample.box_px[2:] + 1).all()
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(KEYS)


def test_the_example_writes_a_folder_that_opens(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["custom_hands.py", str(tmp_path / "mine")])
    runpy.run_path(str(ROOT / "examples/custom_hands.py"), run_name="__main__")
    source = open_source("custom", tmp_path / "mine")
    samples = [source[i] for i in range(len(source))]
    printed = capsys.readouterr().out.splitlines()
    assert len(samples) == 6
    assert len(printed) == 7  # each sample, and what to do next
    for with_depth in samples[::2]:
        assert_labels_agree(with_depth, HandModel.open())
        assert with_depth.depth_m is not None
    for without in samples[1::2]:
        assert without.depth_m is without.K_px is None
        assert without.joints_2d_conf.tolist() == [1.0] * 20 + [0.0]
