"""Smoothing: what the One Euro filter promises, and that it knows no axis, no side, no order and no other track."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from utnet.conventions import SIDES
from utnet.fit import HandFitter
from utnet.geometry import intrinsics, mirror_params, mirror_points, project, rotate_params
from utnet.hand import NumpyHandModel
from utnet.placement import default_intrinsics
from utnet.predict.hand import Hand
from utnet.predict.smooth import HandSmoother, OneEuro, Smoothing
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from utnet.synth.poses import angles_to_pose, sample_angles, sample_betas, sample_orientation
from utnet.types import HandParams

FPS = 25.0
K = intrinsics(610.0, 580.0, 300.0, 260.0)  # fx != fy, off-centre
MODELS = {side: NumpyHandModel.open(side) for side in SIDES}
PALM = [0, 5, 9, 13, 17]
Z = np.array([0.0, 0.0, 1.0])
CLIP = Path(__file__).parents[2].parent / "shared" / "real" / "tfjs_models_apache2"


def decoded(params, *, side="right", track=0, distance_source="hand_size"):
    mesh = MODELS[side].decode(params.map(lambda array: array[None]))
    joints, vertices = (points[0].astype(float) + params.transl_m for points in (mesh.joints_m, mesh.vertices_m))
    px = project(joints, K)
    box = np.concatenate([px.min(0), px.max(0)])
    faces = MODELS[side].faces
    return Hand(side, 0.9, box, joints, px, vertices, faces, params, K, distance_source, "fit", track=track)


def pose(seed, place=(0.05, -0.04, 0.5)):
    """A hand's parameters; `place` is where its wrist is."""
    rng = np.random.default_rng(seed)
    hand_pose, betas = angles_to_pose(sample_angles(rng)), sample_betas(rng)
    return HandParams(sample_orientation(rng)[None], hand_pose, betas, np.array(place))


def turned(params, angles_rad):
    """Every joint turned by its own rotation vector, (16, 3)."""
    R = axis_angle_to_matrix(np.asarray(angles_rad, float))
    return replace(params, global_orient=params.global_orient @ R[:1], hand_pose=params.hand_pose @ R[1:])


def wobble(seed, num, *, side="right", track=0):
    """A hand that goes somewhere and trembles on the way."""
    rng = np.random.default_rng(seed)
    params, hands = pose(seed), []
    for i in range(num):
        shaken = turned(params, rng.normal(0, 0.05, (16, 3)) + 0.02 * i * Z)
        moved = params.transl_m + [0.01 * i, 0, 0] + rng.normal(0, 0.003, 3)
        shaken = replace(shaken, transl_m=moved, betas=params.betas + rng.normal(0, 0.3, 10))
        hands.append(decoded(mirror_params(shaken) if side == "left" else shaken, side=side, track=track))
    return hands


def smoothed(hands, smoother=None, fps=FPS):
    """One track through a smoother, at equal times."""
    smoother = smoother or HandSmoother(fps)
    return [smoother([hand], i / fps)[0] for i, hand in enumerate(hands)]


def rotation_vectors(hands, origin):
    """(T, 16, 3) rotation vectors of every joint relative to those of `origin`."""
    rotations = np.stack([np.concatenate([h.params.global_orient, h.params.hand_pose]) for h in hands])
    return matrix_to_axis_angle(np.concatenate([origin.global_orient, origin.hand_pose]).swapaxes(-1, -2) @ rotations)


def palm(hand):
    return hand.joints_cam_m[PALM].mean(0)


def same(a, b, atol=1e-6):
    """Two hands, field by field."""
    assert (a.side, a.track, a.distance_source) == (b.side, b.track, b.distance_source)
    for name in ("joints_cam_m", "vertices_cam_m"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=atol)
    for name in ("global_orient", "hand_pose", "betas", "transl_m"):
        np.testing.assert_allclose(getattr(a.params, name), getattr(b.params, name), atol=atol)


def weight(cutoff_hz, fps=FPS):
    return 1 / (1 + fps / (2 * np.pi * cutoff_hz))


def acceleration(x):
    return np.linalg.norm(np.diff(x, 2, axis=0), axis=-1).mean()


def lag_frames(late, early, num=6):
    """The peak of the cross-correlation of two (T, ...) tracks, with a parabola between frames."""

    def correlation(shift):
        a, b = (late[shift:], early[: len(early) - shift]) if shift >= 0 else (late[:shift], early[-shift:])
        return np.corrcoef((a - a.mean(0)).ravel(), (b - b.mean(0)).ravel())[0, 1]

    best = max(range(-num, num + 1), key=correlation)
    left, middle, right = (correlation(best + i) for i in (-1, 0, 1))
    return best + 0.5 * (left - right) / (left - 2 * middle + right)


# ------------------------------------------------------------------------------------------------------ quiet, not late


@pytest.mark.parametrize("cutoff_hz", [1.0, 3.0])
def test_a_still_hand_is_as_quiet_as_theory_says(cutoff_hz):
    """An exponential mean of white noise has the autocovariance a / (2 - a) (1 - a)^k."""
    rng, params = np.random.default_rng(0), pose(1)
    still = OneEuro(cutoff_hz, 0.0)
    hands = []
    for _ in range(450):
        shaken = turned(params, rng.normal(0, 0.02, (16, 3)))
        hands.append(decoded(shaken))
    out = smoothed(hands, HandSmoother(FPS, smoothing=Smoothing(still, still, still)))
    raw, quiet = (rotation_vectors(h, params)[50:] for h in (hands, out))
    a = weight(cutoff_hz)
    r = a / (2 - a) * (1 - a) ** np.arange(3)
    assert quiet.var() / raw.var() == pytest.approx(r[0], rel=0.08)
    accelerations = np.diff(quiet, 2, axis=0).var() / np.diff(raw, 2, axis=0).var()
    assert accelerations == pytest.approx((6 * r[0] - 8 * r[1] + 2 * r[2]) / 6, rel=0.05)


def test_the_filters_as_they_come_take_away_most_of_the_tremble_and_no_place():
    rng, params = np.random.default_rng(0), pose(2)
    hands = []
    for _ in range(150):
        shaken = turned(params, rng.normal(0, 0.03, (16, 3)))
        hands.append(decoded(replace(shaken, transl_m=params.transl_m + rng.normal(0, [0.001, 0.001, 0.008]))))
    out = smoothed(hands)
    raw, quiet = (np.stack([h.joints_cam_m for h in some]) for some in (hands, out))
    truth = decoded(params).joints_cam_m
    assert acceleration(quiet) < 0.4 * acceleration(raw)
    assert np.linalg.norm(quiet[20:] - truth, axis=-1).mean() < 0.65 * np.linalg.norm(raw[20:] - truth, axis=-1).mean()


@pytest.mark.parametrize("deg_per_s", [60, 200, 600])
def test_a_steady_turn_is_at_most_a_frame_late(deg_per_s):
    params, rate = pose(3), np.deg2rad(deg_per_s)
    raw = [decoded(turned(params, np.tile(rate * i / FPS * Z, (16, 1)))) for i in range(40)]
    late = rotation_vectors(raw[-1:], smoothed(raw)[-1].params)[0]  # from the smoothed to the raw
    frames = late @ Z / rate * FPS
    assert (frames > 0).all()
    assert (frames < 1).all()


@pytest.mark.parametrize("velocity", [(0.1, 0, 0), (0.5, -0.5, 0), (1.5, 0, 0), (0, 0, 0.15), (0.0, 0.1, -0.4)])
def test_a_steady_move_is_at_most_a_frame_late(velocity):
    params, velocity = pose(3, (0.0, 0.0, 0.6)), np.array(velocity)
    raw = [decoded(replace(params, transl_m=params.transl_m + (i - 15) / FPS * velocity)) for i in range(26)]
    late = palm(raw[-1]) - palm(smoothed(raw)[-1])
    frames = late @ velocity / (velocity @ velocity) * FPS
    assert 0 < frames < 1


def test_a_step_of_a_quarter_turn_goes_the_short_way():
    start = turned(pose(4), np.tile(np.deg2rad(170) * Z, (16, 1)))
    step = np.tile(np.deg2rad(90) * Z, (16, 1))
    slow = OneEuro(1.0, 0.2)
    hands = [decoded(start)] * 5 + [decoded(turned(start, step))] * 60
    out = smoothed(hands, HandSmoother(FPS, smoothing=Smoothing(slow, slow, slow)))
    angles = rotation_vectors(out[4:], start)
    assert (np.diff(angles[..., 2], axis=0) > -1e-6).all()  # never back
    np.testing.assert_allclose(angles[-1], step, atol=0.01)
    assert np.abs(angles[..., :2]).max() < 1e-5  # and about no other axis
    assert (angles[2, :, 2] < np.deg2rad(80)).all()  # over several frames


def test_without_a_cutoff_it_is_raw():
    raw = wobble(5, 12)
    raw = [decoded(replace(hand.params, betas=raw[0].params.betas)) for hand in raw]  # the shape is a mean all the same
    off = OneEuro(np.inf, 0.0)
    for a, b in zip(smoothed(raw, HandSmoother(FPS, smoothing=Smoothing(off, off, off))), raw, strict=True):
        same(a, b, atol=2e-6)


@pytest.mark.skipif(not CLIP.is_dir(), reason="needs shared/real")
def test_a_real_clip_trembles_half_as_much_and_is_at_most_a_frame_late():
    """Fits of single frames to another program's landmarks of a signing hand, 325 frames."""
    px, m = (
        np.array(json.loads((CLIP / name).read_text())) for name in ("asl_hand.full.json", "asl_hand_3d.full.json")
    )
    camera = default_intrinsics(620, 1080)
    fits = HandFitter()(px[..., :2], m, np.tile(camera, (len(px), 1, 1)))
    raw = [replace(decoded(fits.map(lambda array, i=i: array[i])), K_px=camera) for i in range(len(px))]
    a, b = (np.stack([hand.joints_cam_m for hand in hands]) for hands in (raw, smoothed(raw)))
    assert acceleration(b) < 0.5 * acceleration(a)
    assert 0 < lag_frames(b, a) < 1


# --------------------------------------------------------------------------------- axes, sides, order, tracks and times


def test_turning_everything_turns_the_result():
    hands = wobble(6, 15)
    R = axis_angle_to_matrix(np.array([0.3, -0.5, 0.9]))
    turned_hands = [decoded(rotate_params(h.params, R, h.joints_cam_m[0])) for h in hands]
    for a, b in zip(smoothed(hands), smoothed(turned_hands), strict=True):
        np.testing.assert_allclose(a.joints_cam_m @ R.T, b.joints_cam_m, atol=2e-6)
        np.testing.assert_allclose(R @ a.params.global_orient, b.params.global_orient, atol=2e-6)


def test_left_hands_are_smoothed_as_their_mirror_images():
    right, left = smoothed(wobble(7, 12)), smoothed(wobble(7, 12, side="left"))
    for a, b in zip(right, left, strict=True):
        np.testing.assert_allclose(mirror_points(a.joints_cam_m), b.joints_cam_m, atol=2e-6)
        np.testing.assert_allclose(mirror_points(a.vertices_cam_m), b.vertices_cam_m, atol=2e-6)


def test_tracks_and_their_order_do_not_touch_one_another():
    tracks = [wobble(8, 10, track=3), wobble(9, 10, track=1, side="left"), wobble(10, 10, track=7)]
    alone = [smoothed(hands) for hands in tracks]
    smoother, rng = HandSmoother(FPS), np.random.default_rng(0)
    for i in range(10):
        order = rng.permutation(3)
        together = smoother([tracks[t][i] for t in order], i / FPS)
        for t, hand in zip(order, together, strict=True):
            same(hand, alone[t][i], atol=1e-9)


def test_a_track_that_comes_back_starts_anew_and_a_short_gap_does_not():
    hands = wobble(11, 12)
    smoother = HandSmoother(FPS)
    for i in range(10):
        smoother([hands[i]], i / FPS)
    short = smoother([hands[10]], 9 / FPS + 0.1)[0]
    assert np.abs(short.joints_cam_m - hands[10].joints_cam_m).max() > 1e-3
    smoother([], 1.0)
    long = smoother([hands[11]], 2.0)[0]
    same(long, hands[11])


def test_a_track_on_the_other_side_starts_anew():
    smoother = HandSmoother(FPS)
    for i, hand in enumerate(wobble(12, 5)):
        smoother([hand], i / FPS)
    other = wobble(13, 1, side="left")[0]
    same(smoother([other], 5 / FPS)[0], other)


def test_a_slow_camera_is_not_a_gap():
    hands = wobble(11, 3)
    out = smoothed(hands, fps=2.0)
    assert np.abs(out[2].joints_cam_m - hands[2].joints_cam_m).max() > 1e-4


def test_it_counts_seconds_not_frames():
    """The answer to a step, a third of a second later, whatever the camera's rate and however uneven it is."""
    start = pose(14)
    there = decoded(turned(start, np.tile(0.5 * Z, (16, 1))))
    slow = OneEuro(0.5, 0.0)
    rng, ends = np.random.default_rng(0), []
    for times in (
        np.arange(1, 51) / 150,
        np.arange(1, 101) / 300,
        np.sort(rng.uniform(0, 1 / 3, 99)).tolist() + [1 / 3],
    ):
        smoother = HandSmoother(FPS, smoothing=Smoothing(slow, slow, slow))
        smoother([decoded(start)], 0.0)
        ends.append(rotation_vectors([smoother([there], t)[0] for t in times][-1:], start)[0, :, 2])
    expected = 0.5 * (1 - np.exp(-2 * np.pi * 0.5 / 3))
    for end in ends:
        np.testing.assert_allclose(end, expected, rtol=0.02)


# ------------------------------------------------------------------------------------------------- shape and distance


def test_the_shape_is_the_mean_so_far_and_everything_follows_from_the_parameters():
    hands = wobble(15, 8)
    for i, hand in enumerate(smoothed(hands)):
        np.testing.assert_allclose(hand.params.betas, np.mean([h.params.betas for h in hands[: i + 1]], 0), atol=1e-9)
        again = decoded(hand.params)
        same(hand, again, atol=1e-9)
        np.testing.assert_allclose(hand.joints_px, again.joints_px, atol=1e-6)
        assert (hand.score, hand.box_px.tolist()) == (hands[i].score, hands[i].box_px.tolist())


def test_a_hand_taken_for_larger_and_farther_does_not_shake_the_picture():
    rng, params, hands = np.random.default_rng(0), pose(16), []
    base = decoded(params)
    for _ in range(20):
        guess = decoded(replace(params, betas=params.betas + rng.normal(0, 1.0, 10)))
        scale = np.linalg.norm(np.diff(guess.joints_cam_m[[0, 9]], axis=0)) / np.linalg.norm(
            np.diff(base.joints_cam_m[[0, 9]], axis=0)
        )
        hands.append(decoded(replace(guess.params, transl_m=guess.params.transl_m + (scale - 1) * palm(base))))
    out = smoothed(hands)
    raw_z, quiet_z = (np.array([palm(h)[2] for h in some]) for some in (hands, out))
    assert np.diff(quiet_z[10:]).std() < 0.15 * np.diff(raw_z[10:]).std()


def test_a_measured_distance_stays_as_measured():
    hands = [replace(hand, distance_source="sensor") for hand in wobble(17, 10)]
    for raw, out in zip(hands, smoothed(hands), strict=True):
        assert np.linalg.norm(palm(out)) == pytest.approx(np.linalg.norm(palm(raw)), abs=1e-6)
        assert out.distance_source == "sensor"


# ------------------------------------------------------------------------------------------------------------ bad input


def test_wrong_calls_are_refused():
    hand = wobble(18, 1)[0]
    with pytest.raises(ValueError, match="fps is 0"):
        HandSmoother(0)
    with pytest.raises(ValueError, match="no track"):
        HandSmoother(FPS)([replace(hand, track=None)], 0.0)
    with pytest.raises(ValueError, match="each hand once"):
        HandSmoother(FPS)([hand, hand], 0.0)
    with pytest.raises(ValueError, match="mano model"):
        HandSmoother(FPS)([replace(hand, hand_model="mano")], 0.0)
    smoother = HandSmoother(FPS)
    smoother([hand], 1.0)
    for time_s in (1.0, 0.5, np.nan):
        with pytest.raises(ValueError, match="increasing"):
            smoother([hand], time_s)
    out = smoother([hand], 1.1)[0]  # a refused call changes nothing
    same(out, hand)
