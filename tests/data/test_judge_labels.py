"""Labels of other conventions are named, with a line that converts them; sound and unusual ones pass."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np
import pytest
from PIL import Image

from support.trees import dexycb_tree, ho3d_tree
from utnet.config import CropConfig, SynthConfig
from utnet.conventions import OPENPOSE_TO_MANO21
from utnet.data import open_source
from utnet.data.inspection.check import check_source, refuse_wrong_labels
from utnet.data.mixture import Mixture
from utnet.data.transforms import mirror
from utnet.errors import InputError
from utnet.geometry import mirror_points, project
from utnet.hand.proportions import OPENPOSE, bends_as_right, find_joint_order, joint_orders
from utnet.synth import SyntheticHands

W, H = 160, 120


@lru_cache(maxsize=1)
def hands() -> list[dict]:
    """Twelve hands of both sides in pictures of 160 x 120, as lines with 3D joints, without other labels."""
    drawn = SyntheticHands(seed=8, size_px=64, num=12, crop=CropConfig(), synth=SynthConfig())
    rng, lines = np.random.default_rng(3), []
    for i in range(12):
        sample = drawn[i] if i % 3 else mirror(drawn[i])
        joints = sample.joints_cam_m - sample.joints_cam_m.mean(0) + [*rng.uniform(-0.06, 0.06, 2), 0.6]
        lines.append(
            {"image": f"{i}.png", "side": sample.side, "K": [170.0, 170.0, 79.5, 59.5], "joints_3d": joints.tolist()}
        )
    return lines


def folder(tmp_path, change=lambda hand: None, hands_of=hands):
    """A folder of the hands after `change(hand)`."""
    lines = json.loads(json.dumps(hands_of()))
    for line in lines:
        cv2.imwrite(str(tmp_path / line["image"]), np.full((H, W, 3), 90, np.uint8))
        change(line)
    (tmp_path / "hands.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def points(hand) -> np.ndarray:
    fx, fy, cx, cy = hand["K"]
    return project(np.array(hand["joints_3d"]), np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))


def with_2d(hand, keep_3d=False):
    hand["joints_2d"] = points(hand).tolist()
    if not keep_3d:
        del hand["K"], hand["joints_3d"]


def mano_order(hand):
    hand["joints_3d"] = np.array(hand["joints_3d"])[list(OPENPOSE_TO_MANO21)].tolist()


def reversed_fingers_2d(hand):
    with_2d(hand)
    order = [0] + [4 * finger + joint for finger in range(5) for joint in (4, 3, 2, 1)]
    hand["joints_2d"] = np.array(hand["joints_2d"])[order].tolist()


def normalised(hand):
    with_2d(hand)
    hand["joints_2d"] = ((np.array(hand["joints_2d"]) + 0.5) / [W, H]).tolist()


def swapped(hand):
    with_2d(hand)
    hand["box"] = [*np.min(hand["joints_2d"], 0), *np.max(hand["joints_2d"], 0)]
    hand["joints_2d"] = np.array(hand["joints_2d"])[:, ::-1].tolist()


def width_height(hand):
    p = points(hand)
    hand["box"] = [*p.min(0), *(p.max(0) - p.min(0))]


def other_side(hand):
    hand["side"] = {"right": "left", "left": "right"}[hand["side"]]


def open_gl(hand):
    hand["joints_3d"] = (np.array(hand["joints_3d"]) * [1, -1, -1]).tolist()


def open_gl_with_2d(hand):
    with_2d(hand, keep_3d=True)
    open_gl(hand)


def y_up(hand):
    with_2d(hand, keep_3d=True)
    hand["joints_3d"] = (np.array(hand["joints_3d"]) * [1, -1, 1]).tolist()


def millimetres(hand):
    hand["joints_3d"] = (1000 * np.array(hand["joints_3d"])).tolist()


def relative(hand):
    with_2d(hand, keep_3d=True)
    hand["joints_3d"] = (np.array(hand["joints_3d"]) - hand["joints_3d"][0]).tolist()


def larger_k(hand):
    hand["K"] = [340.0, 340.0, 159.5, 119.5]


def larger_k_with_2d(hand):
    with_2d(hand, keep_3d=True)
    larger_k(hand)


def normalised_k(hand):
    with_2d(hand, keep_3d=True)
    hand["K"] = [170 / W, 170 / H, 0.5, 0.5]


def backslashes(hand):
    hand["image"] = "." + "\\" + hand["image"]


KINDS = {
    mano_order: "joints_3d of 12 of 12 .*MANO/HO3D",
    reversed_fingers_2d: "joints_2d of 12 of 12 .*tip to palm",
    normalised: r"joints_2d of 12 of 12 .*0\.\.1",
    swapped: "joints_2d .*x and y swapped",
    width_height: "x, y, width, height",
    other_side: "side of 1[0-2] of 1[0-2] .*other hand",
    open_gl: "12 of 12 .*OpenGL",
    open_gl_with_2d: "12 of 12 .*OpenGL",
    y_up: "y pointing up",
    millimetres: "12 of 12 .*millimetres",
    relative: "12 of 12 .*relative to the hand",
    larger_k: "K of 1[0-2] of 1[0-2] .*picture 2 times as large",
    larger_k_with_2d: "K of 12 of 12 .*picture 2 times as large",
    normalised_k: "K of 12 of 12 .*shares of the picture",
    backslashes: "12 of 12 .*backslashes",
}


@pytest.mark.parametrize("change", KINDS, ids=lambda change: change.__name__)
def test_each_kind_is_named_and_its_line_mends_it(change, tmp_path):
    root = folder(tmp_path, change)
    report = check_source(open_source("custom", root))
    text = "; ".join(finding.what for finding in report.findings)
    assert re.search(KINDS[change], text), text
    lines = [finding.convert for finding in report.findings if finding.convert]
    assert len(lines) == 1, text
    subprocess.run(lines[0].replace("python", sys.executable, 1), shell=True, check=True, cwd=root)
    (root / "hands.converted.jsonl").replace(root / "hands.jsonl")
    mended = check_source(open_source("custom", root))
    assert mended.ok, mended.findings


def test_sound_labels_pass_and_unusual_ones_too(tmp_path):
    def unusual(hand):
        """A wide lens, a crop whose camera has its centre outside, a hand at the edge, half of the joints."""
        number = int(hand["image"].split(".")[0])
        joints = np.array(hand["joints_3d"])
        if number % 4 == 0:
            joints[:, 2] -= 0.45
            hand["K"] = [45.0, 45.0, 79.5, 59.5]
        elif number % 4 == 1:
            hand["K"] = [1700.0, 1700.0, *(-1700 * joints.mean(0)[:2] / joints.mean(0)[2] + [80, 60])]
        elif number % 4 == 2:
            joints[:, :2] += [0.22, 0.0] - joints.mean(0)[:2]
        hand["joints_3d"] = [None if number % 4 == 3 and j % 2 else row for j, row in enumerate(joints.tolist())]

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for root in (folder(tmp_path / "a"), folder(tmp_path / "b", unusual)):
        assert check_source(open_source("custom", root)).ok


@pytest.mark.parametrize(
    ("name", "tree"), [("dexycb", dexycb_tree), ("ho3d", ho3d_tree), ("ho3d", lambda: ho3d_tree("h2o3d"))]
)
def test_training_takes_sound_data(name, tree):
    refuse_wrong_labels(open_source(name, tree(), split="train"))


def test_training_refuses_wrong_data_also_in_a_mixture(tmp_path):
    source = open_source("custom", folder(tmp_path, other_side))
    with pytest.raises(InputError, match="custom: side of"):
        refuse_wrong_labels(source)
    endless = SyntheticHands(seed=1, size_px=64, num=2**40, crop=CropConfig(), synth=SynthConfig())
    refuse_wrong_labels(endless)
    with pytest.raises(InputError, match="custom: side of"):
        refuse_wrong_labels(Mixture([(endless, 1.0), (source, 1.0)]))


def test_training_refuses_lines_in_millimetres(tmp_path):
    """Such lines cannot be read; training must not go on with the others."""

    def some_in_mm(hand):
        if int(hand["image"].split(".")[0]) % 3 == 0:
            millimetres(hand)

    with pytest.raises(InputError, match=r"4 of 12 samples: .*millimetres"):
        refuse_wrong_labels(open_source("custom", folder(tmp_path, some_in_mm)))


def test_labels_counted_on_upright_pictures_are_named(tmp_path):
    """A tall picture stored on its side: the hands lie where only the upright picture has pixels."""

    def tall(hand):
        p = points(hand)
        del hand["K"], hand["joints_3d"]
        hand["joints_2d"] = (p - p.mean(0) + [60, 112]).tolist()
        hand["image"] = hand["image"].replace(".png", ".jpg")
        exif = Image.Exif()
        exif[274] = 6
        Image.new("RGB", (W, H), "grey").save(tmp_path / hand["image"], exif=exif)

    root = folder(tmp_path, tall)
    report = check_source(open_source("custom", root))
    assert ["upright" in finding.what for finding in report.findings][:1] == [True]
    line = report.findings[0].convert.replace("python", sys.executable, 1)
    subprocess.run(line, shell=True, check=True, cwd=root)
    mended = check_source(open_source("custom", root))
    assert mended.ok, mended.findings


def test_orders_are_permutations_and_found():
    joints = np.array([hand["joints_3d"] for hand in hands()])
    assert joint_orders()[0] is OPENPOSE is find_joint_order(joints)
    for order in joint_orders()[:60:7]:
        assert sorted(order.to_openpose) == list(range(21))
        assert find_joint_order(joints[:, np.argsort(order.to_openpose)]) is order


def test_bend_tells_the_side_and_a_mirror_turns_it():
    joints = np.array([hand["joints_3d"] for hand in hands()])
    right = np.array([hand["side"] == "right" for hand in hands()])
    bend = bends_as_right(joints)
    told = np.isfinite(bend)
    assert told.mean() > 0.7
    assert ((bend > 0) == right)[told].all()
    np.testing.assert_allclose(bends_as_right(mirror_points(joints))[told], -bend[told], rtol=1e-6)


def test_one_bad_hand_among_many_is_no_finding(tmp_path):
    source = open_source("custom", folder(tmp_path))
    samples = [source[i] for i in range(12)] * 3
    samples[0] = replace(samples[0], side="left" if samples[0].side == "right" else "right")
    from utnet.data.inspection.check import labels_of
    from utnet.data.inspection.decode import Decoder
    from utnet.data.inspection.judge_labels import judge_labels
    from utnet.data.inspection.measure import Measure

    labels = labels_of(source, Measure(Decoder(None))(samples), [str(i) for i in range(36)])
    assert not list(judge_labels(labels))
