"""The robot hand of examples/retarget.py closes as the hand does (examples/retarget_requirements.txt)."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from utnet.hand import NumpyHandModel
from utnet.synth.poses import angles_to_pose

SCRIPT = Path(__file__).parents[2] / "examples" / "retarget.py"


@pytest.mark.long
@pytest.mark.parametrize("side", ["right", "left"])
def test_commanded_closing_follows_the_hand(tmp_path, side):
    pytest.importorskip("dex_retargeting")
    closing = 0.6 - 0.6 * np.cos(np.linspace(0, 4 * np.pi, 60))  # radians of flexion, twice closed and opened
    angles = np.zeros((60, 15, 3))
    angles[:, :12, 0] = closing[:, None]  # the fingers of MANO's order; the thumb is last
    orient = np.broadcast_to(np.eye(3), (60, 1, 3, 3))
    joints = NumpyHandModel.open()(orient, angles_to_pose(angles), np.zeros((60, 10))).joints_m
    joints = (joints - joints[:, :1]) * ([1, 1, 1] if side == "right" else [-1, 1, 1])
    with (tmp_path / "hands.jsonl").open("w") as file:
        for i in range(60):
            hand = {"track": 0, "side": side, "valid": i != 30, "joints_wrist_m": joints[i].tolist()}
            file.write(json.dumps({"time_s": i / 30, "hands": [hand]}) + "\n")
    out = tmp_path / "joints.jsonl"
    command = [sys.executable, SCRIPT, tmp_path / "hands.jsonl", "--side", side, "--out", out]
    subprocess.run(command, check=True, capture_output=True, text=True)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 59  # the hand that was not seen commands nothing
    drawn = np.delete(closing, 30)
    for finger in ("index", "middle"):
        bends = [row["joints_rad"] for row in rows]
        commanded = np.array([bend[f"{finger}_1_joint"] + bend[f"{finger}_2_joint"] for bend in bends])
        assert np.corrcoef(commanded, drawn)[0, 1] > 0.95
        assert np.ptp(commanded) > 1.0
