"""A network's hand, fitted to the detector's landmarks and to depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from utnet.errors import InputError
from utnet.fit import HandFitter
from utnet.fit.hypotheses import average_hands
from utnet.fit.lifter import LandmarkLifter
from utnet.predict.methods.base import RightHandBatch
from utnet.predict.methods.landmarks import decode_fits, lift_samples, observations
from utnet.predict.methods.network import NetworkMethod
from utnet.types import Sample


class CombinedMethod:
    """Fits a network's hands to the detector's landmarks and to depth, each weighted by its expected error.

    Without depth the prior is the mean of the network's and the landmark lifter's pose, and the model's mean shape;
    with depth both are the network's. The network's distance is not used.

    Args:
        network: a network whose hand model is available.

    Raises:
        InputError: it was exported with MANO's hand.
    """

    name = "both"
    needs_landmarks = True

    def __init__(self, network: NetworkMethod):
        if network.hand is None:
            raise InputError(f"{network.weights}: no hand model to fit; use the method network, or a checkpoint")
        self.network, self.hand, self.weights = network, network.hand, network.weights
        self.faces, self.hand_model = network.faces, network.hand_model
        self._fitter, self._lifter = HandFitter(self.hand), LandmarkLifter()

    def __call__(self, samples: Sequence[Sample]) -> RightHandBatch:
        network = self.network(samples)
        lifted = lift_samples(self._lifter, self._fitter, samples).params[0]
        without_depth = np.array([sample.depth_m is None for sample in samples])
        expected = average_hands(self._fitter.model, network.params, lifted, np.where(without_depth, 0.5, 0.0))
        seen, error_mm = observations(samples), network.joint_error_mm
        if error_mm is not None:  # where a person corrects a finger, the network may be wrong as well
            error_mm = error_mm * np.maximum(seen["deviation_scale"], 1.0)
        fits = self._fitter.fit(expected=expected, expected_error_mm=error_mm, **seen)
        return replace(decode_fits(self.hand, fits), network_joints_m=network.joints_cam_m)
