"""A hand model fitted to the detector's landmarks and to depth; no weights required."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from utnet.conventions import NUM_JOINTS
from utnet.errors import InputError
from utnet.fit import Fits, HandFitter
from utnet.fit.hypotheses import LiftedHands, lift_hands
from utnet.fit.landmarks import TooFewLandmarks
from utnet.fit.lifter import LandmarkLifter
from utnet.hand import NumpyHandModel
from utnet.hand.mano import mano_file
from utnet.predict.methods.base import RightHandBatch
from utnet.types import Sample

_PLACED = 0.4
"""Deviation of a joint that a person placed, in units of the detector's: 1 to 2 mm."""
_PRIOR_WIDTH = 2.5
"""Standard deviation of the prior in units of the lifter's expected errors, which are in the hand's own frame."""
_MOST_DEVIATION = 20.0


class LandmarkMethod:
    """Fits a hand model to landmarks and depth, with the landmark lifter's likeliest hypothesis as start and prior.

    Args:
        mano: the folder of the user's MANO_RIGHT.pkl; None: the open hand.
    """

    name = "fit"
    weights: str | None = None
    needs_landmarks = True

    def __init__(self, *, mano: str | Path | None = None):
        self.hand = NumpyHandModel.open() if mano is None else _mano(Path(mano))
        self.faces, self.hand_model = self.hand.faces, self.hand.name
        self._fitter, self._lifter = HandFitter(self.hand), LandmarkLifter()

    def __call__(self, samples: Sequence[Sample]) -> RightHandBatch:
        lifted = lift_samples(self._lifter, self._fitter, samples)
        seen = observations(samples)
        error_mm = 1e3 * _PRIOR_WIDTH * lifted.error_m[:, 0] * np.maximum(seen["deviation_scale"], 1.0)
        fits = self._fitter.fit(expected=lifted.params[0], expected_error_mm=error_mm, **seen)
        return decode_fits(self.hand, fits)


class JointLifter:
    """Joints of the landmark lifter's likeliest hands: evidence for or against a network's."""

    def __init__(self) -> None:
        self._fitter, self._lifter = HandFitter(), LandmarkLifter()

    def __call__(self, samples: Sequence[Sample]) -> np.ndarray:
        """(B, 21, 3) metres, camera axes, any origin; NaN for hands with too few landmarks."""
        joints_m = np.full((len(samples), NUM_JOINTS, 3), np.nan)
        for i, sample in enumerate(samples):
            with suppress(TooFewLandmarks):
                lifted = lift_samples(self._lifter, self._fitter, [sample])
                joints_m[i] = self._fitter.hand.decode(lifted.params[0]).joints_m[0]
        return joints_m


def lift_samples(lifter: LandmarkLifter, fitter: HandFitter, samples: Sequence[Sample]) -> LiftedHands:
    """Returns the landmark lifter's likeliest hypothesis for each sample."""
    seen = observations(samples)
    return lift_hands(lifter, fitter.model, seen["joints_px"], seen["joints_m"], seen["K_px"], num=1)


def observations(samples: Sequence[Sample]) -> dict[str, Any]:
    """Returns landmarks, cameras and depth as arguments of `HandFitter.fit`."""
    return {
        "joints_m": np.array([sample.landmarks_m for sample in samples]),
        "joints_px": np.array([sample.joints_px for sample in samples]),
        "K_px": np.array([sample.K_px for sample in samples]),
        "depth_m": [sample.depth_m for sample in samples],
        "deviation_scale": np.array([deviation_scale(sample.joints_2d_conf) for sample in samples]),
    }


def deviation_scale(confidence: np.ndarray) -> np.ndarray:
    """(21,) confidences of landmarks -> their deviations in units of the detector's: 1 for the most confident landmark
    and for missing ones, less for joints that a person placed (confidence 1)."""
    placed = confidence == 1
    others = ~placed & (confidence > 0)
    scale = np.where(placed, _PLACED, 1.0)
    if others.any():
        surest = confidence[others].max()
        scale[others] = np.minimum(surest / confidence[others], _MOST_DEVIATION)
    return scale


def decode_fits(hand: NumpyHandModel, fits: Fits) -> RightHandBatch:
    """Returns the fitted hands with joints and vertices."""
    mesh = hand.decode(fits.params)
    transl = fits.params.transl_m[:, None]
    return RightHandBatch(
        params=fits.params,
        joints_cam_m=mesh.joints_m + transl,
        vertices_cam_m=mesh.vertices_m + transl,
        measured=fits.measured,
        shape_source=fits.shape_source.tolist(),
        fit_cost=fits.cost,
    )


def _mano(folder: Path) -> NumpyHandModel:
    path = mano_file(folder)
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder of your MANO_RIGHT.pkl (mano.is.tue.mpg.de)")
    return NumpyHandModel.from_mano(path)
