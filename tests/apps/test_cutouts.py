"""Copies of labelled hands before other backgrounds: the hand and its labels stay, the rest changes."""

import json

import cv2
import numpy as np
import pytest

from support.label_clips import pictures, read
from utnet.apps.label.copies import Copier, Copies, shifted
from utnet.apps.label.cutouts import before, cut_out, draw_light, extended, leaves_by_the_arm, room
from utnet.apps.label.dataset import Summary, label_pictures
from utnet.cli.label_command import summary_lines
from utnet.cli.main import main
from utnet.conventions import SIDES
from utnet.data import open_source
from utnet.errors import InputError
from utnet.geometry import project
from utnet.predict.inputs import find_inputs
from utnet.synth.surfaces import SRGB_TO_LINEAR

SKIN = np.array([200, 140, 110])


def hand_and_arm(size=120, noise=3):
    """A round hand on an arm that leaves through the bottom, on white: picture, mesh mask, true outline."""
    true = np.zeros((size, size), np.uint8)
    cv2.circle(true, (size // 2, size // 2), size // 5, 1, -1)
    mask = true > 0
    true[size // 2 :, size // 2 - size // 10 : size // 2 + size // 10] = 1
    rgb = np.where(true[..., None] > 0, SKIN, 240) + np.random.default_rng(0).normal(0, noise, (size, size, 3))
    return rgb.clip(0, 255).astype(np.uint8), mask, true > 0


@pytest.mark.parametrize("size", [90, 120, 384])
def test_a_cut_out_is_the_hand_with_its_arm_and_no_rim(size):
    rgb, mask, true = hand_and_arm(size)
    rgb = cv2.GaussianBlur(rgb, (0, 0), 0.7)  # at an outline, hand and background mix
    alpha = cut_out(rgb, mask)
    np.testing.assert_array_equal(alpha, cut_out(rgb, mask))
    assert ((alpha > 0.5) == true).mean() > 0.995
    assert ((alpha > 0) & (alpha < 1)).sum() < 4 * cv2.Canny(true.astype(np.uint8) * 255, 50, 100).astype(bool).sum()
    wide, _ = extended(rgb, alpha, mask, np.full((21, 2), 60.0), (0, 0, 0, 0))
    assert wide[alpha > 0.3][:, 2].max() < 160  # 110 in the skin, 240 in the white


def test_a_mesh_that_disagrees_with_the_picture_gives_none():
    rgb, mask, _ = hand_and_arm()
    assert cut_out(rgb, np.roll(mask, 40, axis=1)) is None
    assert cut_out(rgb, np.zeros_like(mask)) is None


def test_an_arm_goes_on_beyond_the_edge_and_fingers_do_not():
    rgb, mask, true = hand_and_arm()
    alpha, box = cut_out(rgb, mask), np.array([36, 36, 84, 84.0])
    joints = np.full((21, 2), 60.0)
    sides = room(box, joints, alpha, mask, 3.42)
    assert sides == (23, 23, 24, 24)
    wide, more = extended(rgb, alpha, mask, joints, sides)
    inside = np.s_[23:-24, 23:-24]
    np.testing.assert_array_equal(more[inside], alpha)
    assert (more[-1] > 0.5).sum() == pytest.approx((alpha[-1] > 0.5).sum(), abs=3)
    assert not more[:23].any()
    np.testing.assert_allclose(wide[-1][more[-1] == 1].mean(0), SKIN, atol=6)
    assert room(box, joints, alpha, mask | true, 3.42)[3] == 24  # at the edge is the wrist
    joints[8] = [60, 119]
    assert room(box, joints, alpha, mask | true, 3.42)[3] == 0


def test_an_arm_goes_on_where_fingers_are_cut_off_on_the_other_side():
    rgb, mask, _ = hand_and_arm()
    joints = np.full((21, 2), 60.0)
    joints[0], joints[8] = [60, 80], [60, 0]
    finger = np.zeros_like(mask)
    finger[:60, 56:64] = True
    rgb[finger] = SKIN
    mask |= finger
    alpha = cut_out(rgb, mask)
    sides = room(np.array([36, 0, 84, 84.0]), joints, alpha, mask, 3.42)
    _, more = extended(rgb, alpha, mask, joints, sides)
    assert sides[1] == 0
    assert (more[-1] > 0.5).sum() == pytest.approx((alpha[-1] > 0.5).sum(), abs=3)


def test_a_hand_that_fills_the_picture_is_not_cut_out():
    rgb = np.random.default_rng(0).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    assert cut_out(rgb, np.ones((100, 100), bool)) is None
    mask = np.zeros((100, 100), bool)
    mask[2:-2, 2:-2] = True
    assert cut_out(rgb, mask) is None


def test_nothing_but_an_arm_reaches_the_edge():
    """The arm leaves through the bottom: right where the wrist is there, background where fingers are."""
    rgb, mask, _ = hand_and_arm()
    alpha, joints = cut_out(rgb, mask), np.full((21, 2), 60.0)
    joints[:, 1] -= np.arange(21)
    joints[0] = [60, 80]
    assert leaves_by_the_arm(alpha, mask, joints)
    assert not leaves_by_the_arm(alpha, mask, joints * [1, -1] + [0, 120])
    assert leaves_by_the_arm(alpha * mask, mask, joints), "a hand that ends before the edge"


def test_a_light_is_all_that_changes_of_the_hand():
    rgb, mask, _ = hand_and_arm(noise=0)
    alpha, rng = cut_out(rgb, mask), np.random.default_rng(1)
    background, gain = rng.uniform(0, 1, rgb.shape).astype(np.float32), draw_light(rng, (120, 120))
    picture = before(background, rgb, alpha, gain)
    expected = (SRGB_TO_LINEAR[rgb] * gain).clip(0, 1) ** (1 / 2.2) * 255
    assert np.abs(picture - expected)[alpha == 1].max() <= 0.51
    assert np.abs(picture - background ** (1 / 2.2) * 255)[alpha == 0].max() <= 0.51


@pytest.mark.parametrize("side", SIDES)
def test_labels_point_at_the_same_hand_in_a_copy(drawn, tmp_path, side):
    folder = pictures(tmp_path / "in", "a_left.png" if side == "left" else "a.png")
    label_pictures(find_inputs([str(folder)]), tmp_path / "out", val_share=0)
    (line,) = read(tmp_path / "out")
    copier, count = Copier(2), Copies()
    copies = list(copier(tmp_path / "out", [line], count))
    assert [copy.jpeg for copy in copies] == [copy.jpeg for copy in copier(tmp_path / "out", [line], Copies())]
    assert copies[0].jpeg != copies[1].jpeg
    assert (count.made, count.not_cut_out) == (2, 0)
    again = Copier(3)(tmp_path / "out", [line], Copies())
    assert next(iter(again)).jpeg == copies[0].jpeg
    for copy in copies:
        assert copy.line["side"] == side
        joints = np.array(copy.line["joints_2d"])
        moved = joints - line["joints_2d"]
        np.testing.assert_allclose(moved, moved[:1].repeat(21, 0), atol=1e-3)
        np.testing.assert_allclose(np.subtract(copy.line["box"], line["box"]), np.tile(moved[0], 2), atol=1e-3)
        np.testing.assert_allclose(
            project(np.array(copy.line["joints_3d"]), np.array(copy.line["K"])), joints, atol=0.1
        )
        for key in ("joints_3d", "params", "joints_2d_conf"):
            assert copy.line[key] == line[key]


def test_shifting_there_and_back_changes_nothing():
    line = {
        "K": [[500.123, 0, 60.5], [0, 500.1, 59.7], [0, 0, 1]],
        "joints_2d": [[1.123, 2.0]] * 21,
        "box": [1, 2, 3.3, 4],
    }
    assert shifted(shifted(line, 37, 12), -37, -12) == line


def test_copies_are_of_the_training_split_alone_and_the_rest_stays(drawn, tmp_path, capsys):
    folder, photos = pictures(tmp_path / "in", "p1_a.png", "p1_left.png", "p2_a.png"), tmp_path / "photos"
    photos.mkdir()
    cv2.imwrite(str(photos / "a.png"), np.full((400, 500, 3), (0, 200, 0), np.uint8))
    words = ["label", str(folder), "--sequence-by", "(p[0-9])_", "--out"]
    main([*words, str(tmp_path / "plain")])
    assert "val has 33% of the hands, not 10%" in capsys.readouterr().out
    main([*words, str(tmp_path / "more"), "--copies", "2", "--backgrounds", str(photos)])
    plain, more = read(tmp_path / "plain"), read(tmp_path / "more")
    assert more[: len(plain)] == plain
    about = [json.loads((tmp_path / name / "labels.json").read_text()) for name in ("plain", "more")]
    copies = about[1].pop("copies")
    assert about[0] == about[1]
    assert copies == {"made": 4, "not_cut_out": 0}
    assert [line["split"] for line in more[len(plain) :]] == ["train"] * copies["made"]
    for line in plain:
        files = [(tmp_path / name / line["image"]).read_bytes() for name in ("plain", "more")]
        assert files[0] == files[1]
    assert len(open_source("custom", tmp_path / "more", split="train")) == about[0]["kept"]["train"] + 4
    with pytest.raises(InputError, match="copies is 0"):
        label_pictures(find_inputs([str(folder)]), tmp_path / "no", backgrounds=photos)


def test_a_photograph_that_cannot_be_read_is_named_and_the_rest_is_done(drawn, tmp_path):
    folder, photos = pictures(tmp_path / "in", "a.png"), tmp_path / "photos"
    photos.mkdir()
    (photos / "broken.jpg").write_bytes(b"no picture")
    found = find_inputs([str(folder)])
    summary = label_pictures(found, tmp_path / "out", val_share=0, copies=2, backgrounds=photos)
    assert [problem["file"] for problem in summary.problems] == [str(photos / "broken.jpg")]
    assert (summary.copies.made, len(read(tmp_path / "out"))) == (0, 1)


def test_the_share_held_out_is_said_only_where_it_is_far_off():
    for val, lines in ((10, 0), (14, 0), (16, 1), (4, 1)):
        summary = Summary(kept={"train": 100 - val, "val": val}, sequences={"train": 9, "val": 1})
        assert sum("not 10%" in line for line in summary_lines(summary, 0.1)) == lines
