"""`fit`: a hand model fitted to the detector's landmarks, and to depth; it needs no weights. `both`: a network's hand
fitted to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utnet.errors import InputError
from utnet.fit import Fits, HandFitter
from utnet.fit.hypotheses import LiftedHands, average_hands, lift_hands
from utnet.fit.lifter import LandmarkLifter
from utnet.hand import HandModel
from utnet.hand.mano import mano_file
from utnet.predict.lifting import RightHands
from utnet.predict.network import NetworkLifter
from utnet.types import Sample


class FitLifter:
    """Landmarks fitted by `utnet.fit.HandFitter`, starting from and drawn to the landmark lifter's likeliest hand.

    Args:
        mano: the folder of the user's MANO_RIGHT.pkl; None: the open hand.
    """

    name = "fit"
    weights: str | None = None
    needs_landmarks = True

    def __init__(self, *, mano: str | Path | None = None):
        self.hand = HandModel.open() if mano is None else _mano(Path(mano))
        self.faces, self.hand_model = self.hand.faces.numpy(), self.hand.name
        self._fitter, self._lifter = HandFitter(self.hand), LandmarkLifter()

    def __call__(self, samples: Sequence[Sample]) -> RightHands:
        lifted = _lifted(self._lifter, self._fitter, samples)
        fits = self._fitter.fit(
            expected=lifted.params[0], expected_error_mm=1e3 * lifted.error_m[:, 0], **_seen(samples)
        )
        return _decoded(self.hand, fits)


class BothLifter:
    """A network, and its hands fitted to the detector's landmarks and to depth: landmarks and the network's pose count
    as surely as they are known to be. Without depth the pose that is expected is the mean of the network's and the
    landmark lifter's, and the shape is the model's mean; with it both are the network's, which has seen the depth. The
    network's distance is not used.

    Args:
        network: one whose hand model is at hand.

    Raises:
        InputError: it was exported with MANO's numbers.
    """

    name = "both"
    needs_landmarks = True

    def __init__(self, network: NetworkLifter):
        if network.hand is None:
            raise InputError(f"{network.weights}: holds no hand to fit; take the method network, or a checkpoint")
        self.network, self.hand, self.weights = network, network.hand, network.weights
        self.faces, self.hand_model = network.faces, network.hand_model
        self._fitter, self._lifter = HandFitter(self.hand), LandmarkLifter()

    def __call__(self, samples: Sequence[Sample]) -> RightHands:
        network = self.network(samples)
        lifted = _lifted(self._lifter, self._fitter, samples).params[0]
        without_depth = np.array([sample.depth_m is None for sample in samples])
        expected = average_hands(self._fitter.model, network.params, lifted, np.where(without_depth, 0.5, 0.0))
        fits = self._fitter.fit(expected=expected, expected_error_mm=network.joint_error_mm, **_seen(samples))
        return replace(_decoded(self.hand, fits), network_joints_m=network.joints_cam_m)


def _lifted(lifter: LandmarkLifter, fitter: HandFitter, samples: Sequence[Sample]) -> LiftedHands:
    """The lifter's hypotheses for the samples' landmarks."""
    seen = _seen(samples)
    return lift_hands(lifter, fitter.model, seen["joints_px"], seen["joints_m"], seen["K_px"])


def _seen(samples: Sequence[Sample]) -> dict[str, Any]:
    """What detector and sensor say, as `HandFitter.fit` takes it."""
    return {
        "joints_m": np.array([sample.joints_cam_m for sample in samples]),
        "joints_px": np.array([sample.joints_px for sample in samples]),
        "K_px": np.array([sample.K_px for sample in samples]),
        "depth_m": [sample.depth_m for sample in samples],
    }


def _decoded(hand: HandModel, fits: Fits) -> RightHands:
    with torch.inference_mode():
        mesh = hand.decode(fits.params.map(lambda array: torch.from_numpy(array).float()))
    transl = fits.params.transl_m[:, None]
    return RightHands(
        params=fits.params,
        joints_cam_m=mesh.joints_m.double().numpy() + transl,
        vertices_cam_m=mesh.vertices_m.double().numpy() + transl,
        measured=fits.measured,
        shape_source=fits.shape_source.tolist(),
        fit_cost=fits.cost,
    )


def _mano(folder: Path) -> HandModel:
    path = mano_file(folder, "right")
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder of your MANO_RIGHT.pkl (mano.is.tue.mpg.de)")
    return HandModel.from_mano(path)
