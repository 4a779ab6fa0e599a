"""Tracks of a whole recording: quieter and not later, one shape, short losses filled, measured distances kept."""

from dataclasses import replace

import numpy as np
import pytest

from support.drawn_tracks import MODELS, decoded, moving
from utnet.conventions import PARENTS
from utnet.predict.smoothed_tracks import SeenFrame, SmoothedTracks, decoded_again, shapes_of, without_mesh

FPS = 30.0


def seen(*tracks, lost=()):
    """Frames of several tracks; frames in `lost` show none."""
    return [
        SeenFrame(i, i / FPS, () if i in lost else tuple(without_mesh(hand) for hand in hands))
        for i, hands in enumerate(zip(*tracks, strict=True))
    ]


def smoothed(frames, **options):
    tracks = SmoothedTracks(frames, MODELS["right"], **options)
    return [tracks.hands(i) for i in range(len(frames))]


def joints(hands):
    return np.stack([hand.joints_cam_m for hand in hands])


def jitter(x):
    relative = x - x[:, :1]
    return np.linalg.norm(np.diff(relative, 2, axis=0), axis=-1).mean()


def test_smoothing_is_quieter_more_exact_and_not_late():
    noisy, truth = moving(0, 60), moving(0, 60, noise=0.0)
    out = [hands[0] for hands in smoothed(seen(noisy))]
    assert jitter(joints(out)) < 0.5 * jitter(joints(noisy))

    def error(hands):
        x, y = joints(hands), joints(truth)
        return np.linalg.norm((x - x[:, :1]) - (y - y[:, :1]), axis=-1).mean()

    assert error(out) < error(noisy)
    # Late or early by a frame is worse than neither.
    shifted = [
        np.linalg.norm(joints(out)[5 + k : 55 + k, 8] - joints(truth)[5:55, 8], axis=-1).mean() for k in (-1, 0, 1)
    ]
    assert np.argmin(shifted) == 1


def test_backwards_in_time_gives_the_same_backwards():
    noisy = moving(1, 20)
    forwards = joints([hands[0] for hands in smoothed(seen(noisy))])
    backwards = joints([hands[0] for hands in smoothed(seen(noisy[::-1]))])
    np.testing.assert_allclose(forwards, backwards[::-1], atol=1e-5)


def test_bones_have_one_length_and_both_hands_of_a_person_one_shape():
    right, left = moving(2, 12, track=1), moving(3, 12, track=2, side="left")
    frames = seen(right, left)
    out = smoothed(frames)
    for side in (0, 1):
        x = joints([hands[side] for hands in out])
        bones = np.linalg.norm(x[:, 1:] - x[:, list(PARENTS[1:])], axis=-1)
        assert bones.std(0).max() < 1e-6
    np.testing.assert_allclose(out[0][0].params.betas, out[0][1].params.betas)
    two = shapes_of(seen(right, moving(3, 12, track=2)))
    assert not np.allclose(two[1], two[2]), "two right hands are of two people"


def test_the_shape_is_that_of_the_frames_with_depth():
    hands = moving(4, 10)
    hands[3] = replace(hands[3], distance_source="sensor")
    np.testing.assert_allclose(shapes_of(seen(hands))[0], hands[3].params.betas)


def test_measured_distances_stay():
    hands = [replace(hand, distance_source="sensor") for hand in moving(5, 20)]
    out = [one[0] for one in smoothed(seen(hands))]
    palm = [0, 5, 9, 13, 17]
    ranges = [np.linalg.norm(joints(x)[:, palm].mean(1), axis=-1) for x in (hands, out)]
    np.testing.assert_allclose(*ranges, atol=1e-6)


@pytest.mark.parametrize(("gap", "filled"), [(3, True), (15, False)])
def test_short_losses_are_filled_and_marked(gap, filled):
    hands = moving(6, 40, noise=0.01)
    lost = range(10, 10 + gap)
    out = smoothed(seen(hands, lost=lost))
    assert [bool(out[i]) for i in lost] == [filled] * gap
    assert all(one[0].valid for i, one in enumerate(out) if i not in lost)
    if filled:
        between = [out[i][0] for i in lost]
        assert not any(hand.valid for hand in between)
        wrist = np.array([hand.joints_cam_m[0] for hand in between])
        true = joints(moving(6, 40, noise=0.0))[list(lost), 0]
        assert np.linalg.norm(wrist - true, axis=-1).max() < 0.02


def test_tracks_do_not_touch_each_other():
    a, b = moving(7, 10, track=1), moving(8, 10, track=2)
    alone, together = smoothed(seen(a)), smoothed(seen(a, b))
    np.testing.assert_allclose(joints([x[0] for x in alone]), joints([x[0] for x in together]), atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_hand_without_its_mesh_decodes_to_itself(side):
    hand = moving(9, 1, side=side)[0]
    again = decoded_again(without_mesh(hand), MODELS["right"])
    np.testing.assert_allclose(again.vertices_cam_m, decoded(hand.params, side=side).vertices_cam_m, atol=1e-6)
