"""OpenXR's and WebXR's joints: axes as the specifications define them, on a hand at rest and on gestures."""

import json
from itertools import pairwise

import numpy as np
import pytest

from support.hands import frame_of, hand_of, random_hand
from utnet.predict.formats.openxr import OPENXR_JOINTS, WEBXR_JOINTS, open_writer, openxr_joints, to_openxr
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.gestures import GESTURES, gesture_angles
from utnet.synth.poses import angles_to_pose
from utnet.types import HandParams

MIRROR = np.outer([-1, 1, 1], [-1, 1, 1])
VIEW = np.array([1.0, -1.0, -1.0])
FINGERS = ("index-finger", "middle-finger", "ring-finger", "pinky-finger")


def posed(gesture, side, turn=(0.0, 0.0, 0.0)):
    pose = angles_to_pose(gesture_angles(GESTURES[gesture]))
    root = axis_angle_to_matrix(np.array([turn]))
    return hand_of(HandParams(root, pose * (MIRROR if side == "left" else 1), np.zeros(10), np.r_[0, 0, 0.5]), side)


def test_names_are_the_specifications():
    assert len(OPENXR_JOINTS) == 26
    assert len(set(WEBXR_JOINTS)) == 25
    assert WEBXR_JOINTS[:6] == (
        "wrist", "thumb-metacarpal", "thumb-phalanx-proximal", "thumb-phalanx-distal", "thumb-tip",
        "index-finger-metacarpal",
    )  # fmt: skip
    assert WEBXR_JOINTS[-1] == "pinky-finger-tip"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("gesture", ["flat", "open", "fist", "point", "pinch", "thumb_up"])
def test_z_is_along_the_bones_and_y_out_of_the_back(gesture, side):
    hand = posed(gesture, side, turn=(0.4, -0.7, 0.3))
    places, R, radii = openxr_joints(hand)
    np.testing.assert_allclose(R @ R.swapaxes(1, 2), np.broadcast_to(np.eye(3), R.shape), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(R), 1, atol=1e-6)
    names = list(OPENXR_JOINTS)
    for first, second in pairwise(names[2:]):
        if first.endswith("tip"):
            continue
        i, j = names.index(first), names.index(second)
        bone = (places[j] - places[i]) / np.linalg.norm(places[j] - places[i])
        assert -R[i, :, 2] @ bone > 0.999, first
    back = hand.params.global_orient[0] @ [0, 1, 0] * VIEW
    for name in ("palm", "wrist", *(f"{finger}-metacarpal" for finger in FINGERS)):
        assert R[names.index(name), :, 1] @ back > 0.9, name
    for finger in FINGERS:  # a bent finger turns its bones towards the palm, away from +Y of the bone before
        start = names.index(f"{finger}-phalanx-proximal")
        along, up = -R[start + 1, :, 2], R[start, :, 1]
        bent = np.degrees(np.arccos(np.clip(along @ -R[start, :, 2], -1, 1)))
        assert bent < 15 or along @ up < -0.2, finger
    assert (radii > 0.004).all()
    assert (radii < 0.03).all()


def test_a_flat_right_hand_before_the_camera():
    """Palm away from the camera's -z, fingers to -x: what both specifications say of such a hand."""
    hand = posed("flat", "right", turn=(0.0, 0.0, 0.0))  # OpenCV: fingers -x, back +y (down): view space back is -y
    places, R, _ = openxr_joints(hand)
    wrist = OPENXR_JOINTS.index("wrist")
    np.testing.assert_allclose(-R[wrist, :, 2], [-1, 0, 0], atol=0.1)
    np.testing.assert_allclose(R[wrist, :, 1], [0, -1, 0], atol=0.1)
    np.testing.assert_allclose(R[wrist, :, 0], np.cross(R[wrist, :, 1], R[wrist, :, 2]), atol=1e-6)
    np.testing.assert_allclose(places[wrist], hand.joints_cam_m[0] * VIEW)


def test_turning_the_hand_turns_every_pose():
    rng = np.random.default_rng(0)
    hand = random_hand(rng)
    turn = axis_angle_to_matrix(np.array([0.3, -0.5, 0.2]))
    p = hand.params
    joint = hand.joints_cam_m[0]
    turned = hand_of(HandParams(turn @ p.global_orient, p.hand_pose, p.betas, turn @ joint - joint + p.transl_m))
    view = np.diag(VIEW)
    (places, R, radii), (other, R2, radii2) = openxr_joints(hand), openxr_joints(turned)
    np.testing.assert_allclose(R2, view @ turn @ view @ R, atol=1e-5)
    np.testing.assert_allclose(other - other[1], (places - places[1]) @ (view @ turn @ view).T, atol=1e-6)
    np.testing.assert_allclose(radii2, radii, rtol=1e-5)


def test_lines_hold_what_was_written(tmp_path):
    rng = np.random.default_rng(1)
    hands = random_hand(rng, track=1), random_hand(rng, "left", track=2, valid=False)
    with open_writer(tmp_path / "openxr.jsonl") as writer:
        writer.add(frame_of(*hands, index=3, time_s=0.12))
    head, *lines = map(json.loads, (tmp_path / "openxr.jsonl").read_text().splitlines())
    assert head["joints"] == list(OPENXR_JOINTS)
    assert [(line["track"], line["is_active"], line["flags"][0]) for line in lines] == [(1, True, 15), (2, False, 3)]
    for hand, line in zip(hands, lines, strict=True):
        np.testing.assert_allclose(line["position_m"], to_openxr(hand)["position_m"], atol=1e-6)
        np.testing.assert_allclose(np.linalg.norm(line["orientation_xyzw"], axis=1), 1, atol=1e-5)
