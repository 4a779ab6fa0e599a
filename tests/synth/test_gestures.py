"""Gestures and grasps: within limits, varied, without self-penetration."""

import numpy as np
import pytest

from utnet.conventions import JOINT_NAMES
from utnet.synth.gestures import (
    GESTURES,
    _bone_ends,
    _distance,
    gesture_angles,
    overlaps,
    sample_pose,
    vary,
    without_overlap,
)
from utnet.synth.poses import JOINT_LIMITS_RAD, angles_to_pose
from utnet.synth.scene import SceneRenderer
from utnet.types import HandParams


def joints_of(angles):
    pose = angles_to_pose(angles)
    return (
        SceneRenderer("right", forearm=False)
        .decode(HandParams(np.eye(3)[None], pose, np.zeros(10), np.zeros(3)))
        .joints_m
    )


def at(joints, name):
    return joints[JOINT_NAMES.index(name)]


def within(angles):
    return (angles >= JOINT_LIMITS_RAD[..., 0] - 1e-9).all() and (angles <= JOINT_LIMITS_RAD[..., 1] + 1e-9).all()


@pytest.mark.parametrize("name", GESTURES)
def test_gestures_are_anatomical(name):
    angles = gesture_angles(GESTURES[name])
    assert within(angles)
    assert overlaps(without_overlap(angles)).max() < 0.0036


def test_sampled_poses_keep_the_limits_and_do_not_pass_through_themselves():
    rng = np.random.default_rng(0)
    poses = [sample_pose(rng, gestures=1.0, contact=True) for _ in range(400)]
    assert all(within(pose) for pose in poses)
    deep = np.array([overlaps(pose).max() for pose in poses])
    assert np.mean(deep <= 0.0036) > 0.99
    loose = np.array([overlaps(sample_pose(rng, gestures=1.0, contact=False)).max() for _ in range(400)])
    assert np.mean(loose > 0.0036) > 0.05, "there is something to mend"


@pytest.mark.parametrize("name", ["ok", "pinch", "pinch_middle", "pinch_ring"])
def test_pinches_meet(name):
    joints = joints_of(gesture_angles(GESTURES[name]))
    finger = {"pinch_middle": "middle", "pinch_ring": "ring"}.get(name, "index")
    assert np.linalg.norm(at(joints, "thumb_tip") - at(joints, f"{finger}_tip")) < 0.025


def test_open_hands_are_open_and_fists_closed():
    reach = {}
    for name in ("open", "fist", "point"):
        joints = joints_of(gesture_angles(GESTURES[name]))
        reach[name] = [
            np.linalg.norm(at(joints, f"{f}_tip") - at(joints, f"{f}_mcp")) for f in ("index", "middle", "little")
        ]
    assert min(np.array(reach["open"]) - reach["fist"]) > 0.02
    assert reach["point"][0] > reach["open"][0] - 0.005
    assert reach["point"][1] < reach["open"][1] - 0.03


def test_variation_has_the_asked_size_and_moves_fingers_together():
    rng = np.random.default_rng(0)
    start = gesture_angles(GESTURES["relaxed"])
    moved = np.stack([vary(rng, start, 0.5) for _ in range(1500)])
    assert np.array_equal(vary(rng, start, 0.0), start)
    middle_joints = moved[:, [1, 4, 10, 7], 0]
    r = np.corrcoef(middle_joints.T)
    assert r[np.triu_indices(4, 1)].min() > 0.3, "fingers bend together"
    own = np.corrcoef(moved[:, 1, 0], moved[:, 2, 0])[0, 1]
    assert own > 0.6, "the last joint follows the middle one"


def test_capsules_follow_the_hand_model():
    angles = sample_pose(np.random.default_rng(4), gestures=1.0, contact=True)
    ends, joints = _bone_ends(angles_to_pose(angles)), joints_of(angles)
    for row, name in enumerate(("index_mcp", "index_pip", "index_dip", "middle_mcp")):
        np.testing.assert_allclose(ends[row, 0], at(joints, name), atol=1e-5)
    np.testing.assert_allclose(ends[14, 0], at(joints, "thumb_ip"), atol=1e-5)


def test_the_distance_of_segments_equals_the_searched_one():
    rng = np.random.default_rng(0)
    t = np.linspace(0, 1, 400)
    for _ in range(40):
        p, q, r, s = rng.normal(size=(4, 3))
        a, b = p + t[:, None] * (q - p), r + t[:, None] * (s - r)
        searched = np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1).min())
        assert _distance(p, q, r, s) == pytest.approx(searched, abs=0.01)
