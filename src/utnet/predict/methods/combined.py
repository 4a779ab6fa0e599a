"""A network's hand, fitted to the detector's landmarks and to depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from utnet.errors import InputError
from utnet.fit import HandFitter
from utnet.fit.hypotheses import average_hands
from utnet.fit.lifter import LandmarkLifter
from utnet.fit.outline import HandMask, mask_iou
from utnet.predict.methods.base import RightHandBatch
from utnet.predict.methods.landmarks import decode_fits, lift_samples, observations
from utnet.predict.methods.network import NetworkMethod
from utnet.types import Sample

_AGREES = 0.6
"""Smallest intersection over union of the network's hand and its mask for which the mask is used."""
_MOST_BETA = 2.0
"""Bound of the network's betas, in standard deviations of the shape prior."""


class CombinedMethod:
    """Fits a network's hands to the detector's landmarks, to the outline of the network's mask and to depth.

    Without depth the prior is the mean of the network's and the landmark lifter's pose, and the model's mean shape;
    with depth it is the network's pose. Its width is the same for all hands: with the network's expected errors, which
    include the orientation of the hand, drawn hands were 0.2 to 0.7 mm worse. With depth the shape is the network's
    if it predicts errors, since such networks are trained to measure hands by depth; otherwise it is fitted. The
    network's distance is not used: in photographs its hands are too small. Expected errors are the network's.

    Args:
        network: a network whose hand model is available.

    Raises:
        InputError: the network was exported with MANO's hand.
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
        seen, betas = observations(samples), None
        if network.joint_error_mm is not None:
            usual = np.clip(network.params.betas, -_MOST_BETA, _MOST_BETA)
            betas = np.where(network.measured[:, None], usual, 0.0)
        masks = self._trusted(network)
        fits = self._fitter.fit(expected=expected, betas=betas, masks=masks, **seen)
        hands = decode_fits(self.hand, fits)
        if betas is not None:
            hands = replace(hands, shape_source=["network" if measured else "mean" for measured in network.measured])
        return replace(
            hands,
            network_joints_m=network.joints_cam_m,
            lifted_joints_m=self.hand.decode(lifted).joints_m,
            joint_error_mm=network.joint_error_mm,
            masks=masks,
            side_logit=network.side_logit,
        )

    def _trusted(self, network: RightHandBatch) -> list[HandMask | None] | None:
        """The masks that agree with the network's own hands; on a background in the hand's colours they fail."""
        if network.masks is None:
            return None
        pairs = zip(network.vertices_cam_m, network.masks, strict=True)
        return [mask if mask and mask_iou(vertices, self.faces, mask) > _AGREES else None for vertices, mask in pairs]
