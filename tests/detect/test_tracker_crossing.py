"""Two drawn hands that pass one before the other: the tracker's numbers stay with the hands."""

import numpy as np
import pytest

from utnet.detect import HandDetector, LandmarkTracker
from utnet.geometry import intrinsics, mirror_params, project
from utnet.synth.appearance import Appearance
from utnet.synth.pair import PairRenderer
from utnet.synth.poses import PALM_M, angles_to_pose
from utnet.types import HandParams

K, SIZE = intrinsics(600.0, 600.0, 319.5, 239.5), (640, 480)
FACING = np.array(
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
)  # fingers up, the right hand's palm to the camera
NUM_FRAMES = 28


def open_hand(side, x, z, bend):
    """A hand whose palm's middle is at x, z."""
    angles = np.zeros((15, 3))
    angles[:12, 0], angles[12:, 0] = bend, 0.2
    centre = np.array([x if side == "right" else -x, 0.0, z])
    right = HandParams(FACING[None], angles_to_pose(angles), np.zeros(10), centre - FACING @ PALM_M)
    return right if side == "right" else mirror_params(right)


def crossing(seed):
    """Pictures and true landmarks of both hands; the right one, nearer, passes before the left one."""
    look, renderer = Appearance.sample(np.random.default_rng(seed)), PairRenderer()
    for place in np.linspace(-0.16, 0.16, NUM_FRAMES):
        params = {"right": open_hand("right", place, 0.45, 0.15), "left": open_hand("left", -place, 0.62, 0.25)}
        posed = {side: renderer.hands[side].decode(params[side]) for side in params}
        drawn = renderer.render(posed, K, SIZE, look, rng=np.random.default_rng(seed))
        yield drawn["right"].rgb, {side: project(d.joints_cam_m.astype(float), K) for side, d in drawn.items()}


@pytest.fixture(scope="module")
def detector():
    return HandDetector(threads=1)


def owners(detections, truth):
    """Track number -> whose landmarks it lies on."""
    found = {}
    for detection in detections:
        distance = {side: np.linalg.norm(detection.joints_px - px, axis=1).mean() for side, px in truth.items()}
        found[detection.track] = min(distance, key=distance.get)
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_numbers_stay_with_the_hands_while_one_passes_before_the_other(detector, seed):
    tracker, seen = LandmarkTracker(detector), []
    for picture, truth in crossing(seed):
        seen.append(owners(tracker(picture), truth))
    assert sorted(seen[0].values()) == ["left", "right"]
    assert seen[-1] == seen[0]
    assert all(owner == seen[0].get(number) for frame in seen for number, owner in frame.items())


def test_numbers_come_back_after_a_short_time_in_the_dark_and_never_to_new_hands(detector):
    frames = list(crossing(2))
    picture, truth = frames[0]
    tracker = LandmarkTracker(detector)
    before = owners(tracker(picture), truth)
    for _ in range(6):
        assert tracker(np.zeros_like(picture)) == []
    again = [owners(tracker(picture), truth) for _ in range(12)][-1]
    assert again == before
    for _ in range(40):
        tracker(np.zeros_like(picture))
    later = [owners(tracker(picture), truth) for _ in range(12)][-1]
    assert sorted(later.values()) == ["left", "right"]
    assert not set(later) & set(before)
