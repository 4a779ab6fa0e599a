"""Several passes over one hand combined: landmarks, side and its calibrated probability."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from utnet.detect.detection import SIDE_DOUBT_BELOW
from utnet.detect.landmark import LandmarkNetwork, Landmarks
from utnet.detect.regions import Pyramid, region_of_landmarks
from utnet.geometry import normalized_distance_percent

FIRST_WEIGHT, SECOND_WEIGHT, MIRROR_WEIGHT, FLATTENING = 0.47, 0.93, 1.0, 0.116
"""Weights of the passes' logits of handedness; their sum is divided by 1 + `FLATTENING` x distance of the first two
passes in percent of the box. Fitted by maximum likelihood on drawn hands; benchmarks/detect.py checks them on
others."""
_LARGEST_LOGIT = 9.0


def run_second_pass(network: LandmarkNetwork, picture: np.ndarray | Pyramid, first: Landmarks) -> Landmarks:
    """A second pass in the region of a hand's own landmarks, with its side by both passes.

    If the side remains doubtful, the mirror image of the region is used as a third.

    Args:
        network: the landmark network.
        picture: (H, W, 3) uint8.
        first: the hand in another region.

    Returns:
        The second pass's landmarks and presence, with the calibrated `right` of all passes and `agreement`.
    """
    region = region_of_landmarks(first.joints_px)
    second = network(picture, region)
    agreement = float(normalized_distance_percent(first.joints_px, second.joints_px).mean())
    right = right_probability(first.right, second.right, agreement)
    if max(right, 1 - right) < SIDE_DOUBT_BELOW:
        mirrored = network.mirrored_right(picture, region)
        right = right_probability(first.right, second.right, agreement, mirrored)
    return replace(second, right=right, agreement=agreement)


def right_probability(first: float, second: float, agreement: float, mirrored: float = 0.5) -> float:
    """Probability of a right hand: a logistic regression on the passes, flatter where they disagree.

    Args:
        first: probability of a right hand by the first pass.
        second: by the second.
        agreement: mean distance of their landmarks in percent of the box.
        mirrored: by the mirror image, 0.5 without.
    """
    weighted = FIRST_WEIGHT * _logit(first) + SECOND_WEIGHT * _logit(second) + MIRROR_WEIGHT * _logit(mirrored)
    return 1 / (1 + math.exp(-weighted / (1 + FLATTENING * agreement)))


def _logit(probability: float) -> float:
    limit = 1 / (1 + math.exp(_LARGEST_LOGIT))
    clipped = min(max(probability, limit), 1 - limit)
    return math.log(clipped / (1 - clipped))
