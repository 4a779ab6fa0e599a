"""Drives a robot hand with the messages of `utnet live`, by dex-retargeting (MIT).

    pip install -r examples/retarget_requirements.txt
    utnet live recording.bag --out hands.jsonl
    python examples/retarget.py hands.jsonl --side right --out joints.jsonl

The robot is a small right hand of a thumb and two fingers, of two joints each, written as URDF by `urdf`; put your own
URDF and its link names in its place. Its palm has the axes of UTNet's wrist frame (MANO's: fingers of a right hand
along -x, palm to -y, thumb to +z). Left hands are mirrored. The output has a line for each valid hand: time_s, track,
and the robot's joint angles in radians by name.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from dex_retargeting.retargeting_config import RetargetingConfig

FINGERS = {  # joint of OpenPose-21 that the tip follows, base in metres, direction of the links, axis that closes it
    "thumb": (4, (-0.03, -0.01, 0.03), (-0.6, 0.0, 0.8), (0, -1, 0)),
    "index": (8, (-0.09, 0.0, 0.02), (-1.0, 0.0, 0.0), (0, 0, 1)),
    "middle": (12, (-0.09, 0.0, -0.005), (-1.0, 0.0, 0.0), (0, 0, 1)),
}
LINK_M, MAX_BEND_RAD = 0.045, 1.6


def urdf():
    """The robot's URDF: links palm, and NAME_1, NAME_2 and NAME_tip of each finger; joints are named as their child."""
    parts = ['<link name="palm"/>']
    for name, (_, base, direction, axis) in FINGERS.items():
        along = tuple(LINK_M * d for d in direction)
        chain = [("palm", f"{name}_1", base), (f"{name}_1", f"{name}_2", along), (f"{name}_2", f"{name}_tip", along)]
        for parent, child, (x, y, z) in chain:
            moves = not child.endswith("tip")
            limits = f'<limit lower="0" upper="{MAX_BEND_RAD}" effort="1" velocity="10"/>'
            parts.append(
                f'<link name="{child}"/><joint name="{child}_joint" type="{"revolute" if moves else "fixed"}">'
                f'<parent link="{parent}"/><child link="{child}"/><origin xyz="{x} {y} {z}"/>'
                + (f'<axis xyz="{axis[0]} {axis[1]} {axis[2]}"/>{limits}' if moves else "")
                + "</joint>"
            )
    return f'<?xml version="1.0"?><robot name="small_hand">{"".join(parts)}</robot>'


class Retargeter:
    """Angles of the robot's joints under which its tips are where the hand's are, relative to the wrist."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "small_hand.urdf"
            path.write_text(urdf(), encoding="utf-8")
            tips = [joint for joint, *_ in FINGERS.values()]
            self._solver = RetargetingConfig(
                type="vector",
                urdf_path=str(path),
                target_origin_link_names=["palm"] * len(FINGERS),
                target_task_link_names=[f"{name}_tip" for name in FINGERS],
                target_link_human_indices=np.array([[0] * len(FINGERS), tips]),
                low_pass_alpha=1.0,  # UTNet's messages are smoothed already
            ).build()
        self._origins, self._tips = self._solver.optimizer.target_link_human_indices

    def __call__(self, joints_wrist_m, side="right"):
        """Angles in radians by joint name, of (21, 3) joints in the wrist's frame; starts from the last call's."""
        joints = np.asarray(joints_wrist_m) * ([1, 1, 1] if side == "right" else [-1, 1, 1])
        angles = self._solver.retarget(joints[self._tips] - joints[self._origins])
        return dict(zip(self._solver.joint_names, map(float, angles), strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("messages", type=Path, help="JSON lines of utnet live")
    parser.add_argument("--side", choices=["right", "left"], default="right")
    parser.add_argument("--out", type=Path, help="default: standard output")
    args = parser.parse_args()
    retargeters = {}  # one for each track: each starts from its own last angles
    with args.messages.open(encoding="utf-8") as lines, args.out.open("w") if args.out else sys.stdout as out:
        for message in map(json.loads, lines):
            for hand in message["hands"]:
                if hand["side"] == args.side and hand["valid"]:
                    if hand["track"] not in retargeters:
                        retargeters[hand["track"]] = Retargeter()
                    angles = retargeters[hand["track"]](hand["joints_wrist_m"], args.side)
                    row = {"time_s": message["time_s"], "track": hand["track"], "joints_rad": angles}
                    out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
