"""What a fit is not given: numbers that are none, other units, no hand. Nothing comes out as NaN."""

import numpy as np
import pytest

from support.fitting import scene
from utnet.fit import HandFitter
from utnet.geometry import intrinsics


def given(**changes):
    rng = np.random.default_rng(0)
    inputs = {
        "joints_px": rng.uniform(50, 100, (1, 21, 2)),
        "joints_m": rng.normal(0, 0.05, (1, 21, 3)),
        "K_px": intrinsics(200.0, 200.0, 80.0, 60.0)[None],
        "depth_m": None,
        "betas": None,
    }
    return inputs | changes


def with_K(**entries):
    K = intrinsics(200.0, 200.0, 80.0, 60.0)[None]
    for name, value in entries.items():
        K[0, int(name[1]), int(name[2])] = value
    return K


REFUSED = {
    "no hands": {"joints_px": np.zeros((0, 21, 2)), "joints_m": np.zeros((0, 21, 3)), "K_px": np.zeros((0, 3, 3))},
    "inf": {"joints_px": np.full((1, 21, 2), np.inf)},
    "K_px": {"K_px": with_K(K00=np.nan)},
    "K_px: ": {"K_px": with_K(K00=1e-6, K11=1e-6)},
    "K_px: expected": {"K_px": with_K(K22=0.0)},
    "K_px: expected finite": {"K_px": with_K(K01=-1e9)},
    "joints_px holds numbers": {"joints_px": np.full((1, 21, 2), 1e30)},
    "joints_m holds numbers": {"joints_m": np.full((1, 21, 3), 1e30)},
    "betas": {"betas": np.full(10, np.nan)},
    "betas: ": {"betas": np.zeros(9)},
    "metres": {"depth_m": [np.full((120, 160), 500, np.uint16)]},
    "depth_m": {"depth_m": [np.zeros((3, 120, 160))]},
    "1 hands": {"depth_m": [None, None]},
    "three landmarks": {"joints_px": np.full((1, 21, 2), np.nan)},
}


@pytest.mark.parametrize("word", REFUSED)
def test_what_cannot_be_fitted_is_refused(word):
    with pytest.raises(ValueError, match=word):
        HandFitter().fit(**given(**REFUSED[word]))


def test_no_hand_is_behind_the_camera_and_one_of_no_hand_leaves_the_others():
    """A landmark far beside the others turns the view away from them; landmarks of blurred frames may do so, too."""
    joints_px, joints_m, K_px = (array[:2].copy() for array in scene(3)[2])
    fitter = HandFitter(landmarks="joints")
    alone = fitter.fit(joints_px[1:], joints_m[1:], K_px[1:])
    joints_px[0, 0, 0] += 9e5
    fits = fitter.fit(joints_px, joints_m, K_px)
    wrists_cam_m = fitter.hand.decode(fits.params).joints_m[:, 0] + fits.params.transl_m
    assert (wrists_cam_m[:, 2] > 0).all()
    assert fits.cost[0] == 1e6 > 1e4 * alone.cost[0]
    np.testing.assert_array_equal(fits.params.transl_m[1], alone.params.transl_m[0])


@pytest.mark.parametrize("depth_m", [np.nan, np.inf, -1.0, 500.0, 1e-3])
def test_depth_of_any_numbers_gives_a_finite_hand(depth_m):
    fits = HandFitter().fit(**given(depth_m=[np.full((120, 160), depth_m, np.float32)]))
    assert all(np.isfinite(part).all() for part in (fits.params.hand_pose, fits.params.transl_m, fits.cost))
    assert not fits.measured.any()
