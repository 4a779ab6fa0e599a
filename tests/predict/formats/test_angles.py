"""Angles under clinical names are the angles that a hand was posed with, on either side."""

import csv
import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest

from support.hands import frame_of, hand_of
from utnet.predict.formats.angles import ANGLES, clinical_angles, open_writer, standard_errors
from utnet.synth.poses import angles_to_pose, sample_angles
from utnet.types import HandParams

NAMES = [name for name, _, _ in ANGLES]
FIRST = {"index": 5, "middle": 9, "ring": 13, "little": 17}
MIRROR = np.outer([-1, 1, 1], [-1, 1, 1])


def params(pose):
    return HandParams(np.eye(3)[None], pose, np.zeros(10), np.array([0, 0, 0.5]))


def test_names_are_the_clinical_ones():
    assert len(NAMES) == len(set(NAMES)) == 20
    assert {"index_mcp_flexion", "index_mcp_abduction", "ring_pip_flexion", "thumb_cmc_abduction"} <= set(NAMES)
    assert not {"index_pip_abduction", "thumb_ip_abduction"} & set(NAMES)
    assert list(dict.fromkeys(name.split("_")[0] for name in NAMES)) == ["thumb", "index", "middle", "ring", "little"]


@pytest.mark.parametrize("side", ["right", "left"])
def test_drawn_angles_come_back(side):
    rng = np.random.default_rng(0)
    for _ in range(20):
        drawn = sample_angles(rng)
        pose = angles_to_pose(drawn) * (MIRROR if side == "left" else 1)
        found = dict(zip(NAMES, clinical_angles(pose, side), strict=True))
        wanted = np.rad2deg(drawn)
        assert found["index_pip_flexion"] == pytest.approx(wanted[1, 0], abs=0.1)
        assert found["thumb_ip_flexion"] == pytest.approx(wanted[14, 0], abs=0.1)
        assert found["middle_mcp_abduction"] == pytest.approx(wanted[3, 1], abs=0.1)


def test_abduction_is_the_angle_to_the_middle_finger():
    """Between the bones of a flat, spread hand, in the plane of the palm."""
    rng = np.random.default_rng(2)
    angles = np.zeros((15, 3))
    angles[[0, 6, 9], 1] = np.deg2rad(rng.uniform(-8, 8, 3))
    hand = hand_of(params(angles_to_pose(angles)))
    found = dict(zip(NAMES, clinical_angles(hand.params.hand_pose, "right"), strict=True))
    assert found["middle_mcp_abduction"] == pytest.approx(0, abs=1e-3)
    bones = {f: hand.joints_cam_m[k + 1] - hand.joints_cam_m[k] for f, k in FIRST.items()}
    towards_thumb = {f: np.rad2deg(np.arctan2(bone[2], -bone[0])) for f, bone in bones.items()}
    for finger, sign in (("index", 1), ("ring", -1), ("little", -1)):
        apart = sign * (towards_thumb[finger] - towards_thumb["middle"])
        assert found[f"{finger}_mcp_abduction"] == pytest.approx(apart, abs=0.5), finger


def test_a_line_a_hand_with_its_standard_errors(tmp_path):
    pose = angles_to_pose(sample_angles(np.random.default_rng(1)))
    rgb = hand_of(params(pose), method="both", track=2)
    rgbd = hand_of(params(pose), method="both", track=2, distance_source="sensor")
    with open_writer(tmp_path / "angles.csv") as writer:
        writer.add(frame_of(rgb, index=4, time_s=0.16))
        writer.add(frame_of(rgbd, index=5, time_s=0.2))
    with (tmp_path / "angles.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["4", "5"]
    for row, hand in zip(rows, (rgb, rgbd), strict=True):
        for name, angle, error in zip(NAMES, clinical_angles(pose, "right"), standard_errors(hand), strict=True):
            assert float(row[f"{name}_deg"]) == pytest.approx(angle, abs=0.06)
            assert float(row[f"{name}_se_deg"]) == pytest.approx(error, abs=0.06)
    measured = json.loads((files("utnet") / "assets" / "angles.json").read_text())
    rms = dict(zip(measured["angles"], measured["kinds"]["both rgb"]["rms_deg"], strict=True))
    assert dict(zip(NAMES, standard_errors(rgb), strict=True)) == rms
    assert standard_errors(replace(rgb, hand_model="mano")) is None  # not measured
    assert (standard_errors(rgbd) < standard_errors(rgb)).mean() > 0.7
