"""Numbers of hands through a video: crossings, occlusions, who is asked and when."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from utnet.detect import HandDetector, LandmarkTracker
from utnet.detect.landmark import Landmarks

REAL = Path(__file__).parents[2].parent / "shared" / "real"
SHAPE = np.random.default_rng(0).uniform(-50, 50, (21, 2))
"""A hand of 100 px."""


def hand(x, y, *, right=0.95):
    return Landmarks(SHAPE * [1 if right > 0.5 else -1, 1] + [x, y], np.zeros((21, 3)), 0.9, right)


class Script:
    """A detector that knows every frame: `frames[t]` are the hands that can be seen; a picture is its number t."""

    def __init__(self, frames):
        self.frames, self.looks = frames, []

    def find(self, picture, *, quick=False, known=()):
        self.looks.append((int(picture[0, 0, 0]), quick))
        return self.frames[picture[0, 0, 0]]

    def follow(self, picture, joints_px):
        """Like the landmark network: the nearest hand in reach, whose ever it is."""
        near = [h for h in self.frames[picture[0, 0, 0]] if np.abs((h.joints_px - joints_px).mean(0)).max() < 60]
        return min(near, key=lambda h: np.abs(h.joints_px - joints_px).mean(), default=None)


def play(frames, **knobs):
    """The detections of each frame, and the detector."""
    script = Script(frames)
    tracker = LandmarkTracker(script, **knobs)
    return [tracker(np.full((1, 1, 3), t, np.int64)) for t in range(len(frames))], script


def numbers(detections):
    return [d.track for d in detections]


def test_a_still_hand_is_followed_and_looked_for_now_and_then():
    out, script = play([[hand(100, 100)]] * 151, every=10)
    assert all(numbers(frame) == [1] for frame in out)
    assert [t for t, _ in script.looks] == list(range(0, 151, 10))
    assert [t for t, quick in script.looks if not quick] == [0, 30, 90, 150]


def test_full_looks_that_find_a_hand_come_sooner_again():
    """The second hand is seen in full looks alone."""
    both = [hand(100, 100), hand(400, 100, right=0.1)]

    class Hidden(Script):
        def find(self, picture, *, quick=False, known=()):
            return super().find(picture, quick=quick)[: 1 if quick else 2]

    script = Hidden([both[:1]] * 80 + [both] * 50)
    tracker = LandmarkTracker(script, every=10)
    out = [tracker(np.full((1, 1, 3), t, np.int64)) for t in range(130)]
    assert [t for t, quick in script.looks if not quick] == [0, 30, 90, 120]
    assert numbers(out[89]) == [1]
    assert numbers(out[-1]) == [1, 2]


def test_without_hands_the_detector_is_asked_every_so_often():
    out, script = play([[]] * 21, every=10)
    assert not any(out)
    assert script.looks == [(0, False), (10, False), (20, False)]


def test_hands_that_cross_keep_their_numbers_and_sides():
    frames = []
    for t in range(60):
        left, right = hand(100 + 10 * t, 200, right=0.05), hand(700 - 10 * t, 210)
        frames.append([left] if 26 < t < 34 else [left, right])  # the left hand is in front
    out, _ = play(frames)
    number = {d.side: d.track for d in out[0]}
    for t in (20, 26, 40, 59):
        assert {d.side: d.track for d in out[t]} == number
        x = {d.side: d.joints_px[:, 0].mean() for d in out[t]}
        assert x["left"] == pytest.approx(frames[t][0].joints_px[:, 0].mean())
    assert all(d.track == number["left"] for frame in out[28:34] for d in frame)
    assert {d.track for frame in out for d in frame} == set(number.values())


@pytest.mark.parametrize(("gap", "same"), [(1, True), (5, True), (12, True), (25, False)])
def test_a_lost_hand_is_remembered_for_half_a_second(gap, same):
    out, _ = play([[hand(200, 200)]] * 10 + [[]] * gap + [[hand(215, 205)]] * 15)
    assert not any(out[10 : 10 + gap])
    assert numbers(out[-1]) == [1 if same else 2]


def test_a_hand_elsewhere_is_another_one_and_numbers_are_not_used_again():
    out, _ = play([[hand(100, 100)]] * 5 + [[]] * 3 + [[hand(900, 100)]] * 20 + [[]] * 30 + [[hand(100, 100)]] * 15)
    assert numbers(out[20]) == [2]
    assert numbers(out[-1]) == [3]


def test_a_new_hand_joins_the_others():
    out, _ = play([[hand(100, 100)]] * 5 + [[hand(100, 100), hand(400, 100, right=0.1)]] * 12)
    assert numbers(out[4]) == [1]
    assert numbers(out[-1]) == [1, 2]
    assert [d.side for d in out[-1]] == ["right", "left"]


def test_a_side_is_the_majority_of_the_frames():
    frames = [[Landmarks(SHAPE + 200, np.zeros((21, 3)), 0.9, 0.2 if t % 5 == 4 else 0.9)] for t in range(20)]
    out, _ = play(frames)
    assert {d.side for frame in out for d in frame} == {"right"}


def test_two_tracks_never_hold_one_hand():
    frames = [[hand(100, 100), hand(200, 100)]] * 5 + [[hand(150, 100)]] * 20
    out, _ = play(frames)
    assert all(len(frame) == 1 for frame in out[6:])
    assert len({d.track for frame in out[6:] for d in frame}) == 1


@pytest.mark.parametrize("knobs", [{"every": 0}, {"patience": 0}])
def test_silly_knobs_are_refused(knobs):
    with pytest.raises(ValueError, match="at least 1"):
        LandmarkTracker(Script([]), **knobs)


# ------------------------------------------------------------------------------------------------------- real pictures


def test_two_hands_of_a_photo_that_cross():
    path = REAL / "tfjs_models_apache2" / "hands.jpg"
    if not path.is_file():
        pytest.skip("the photos of shared/real are not here")
    left = np.ascontiguousarray(cv2.imread(str(path))[:, :360, ::-1])
    tracker, sides = LandmarkTracker(HandDetector(threads=1)), {}
    for t in range(0, 61, 2):
        frame = np.full((400, 1000, 3), 255, np.uint8)
        for x, hand_rgb in ((620 - 10 * t, left[:, ::-1]), (20 + 10 * t, left)):
            y, u = np.nonzero(hand_rgb.min(2) < 245)
            frame[y, u + x] = hand_rgb[y, u]
        found = tracker(frame)
        assert 1 <= len(found) <= 2
        for d in found:
            sides.setdefault(d.track, []).append((t, d.side, d.joints_px[:, 0].mean()))
        assert len(found) == 2 or 20 < t < 50
    assert len(sides) == 2
    for frames in sides.values():
        assert len({side for _, side, _ in frames}) == 1
        step = np.polyfit([t for t, _, _ in frames], [x for _, _, x in frames], 1)[0]
        assert step == pytest.approx(10 if frames[0][1] == "left" else -10, abs=0.5)
