"""Distribution of the error of a joint (its length): the generalised gamma distribution (Stacy 1962).

    f(r) = p / (a Gamma(k)) (r / a)^(k p - 1) exp(-(r / a)^p),   mean a Gamma(k + 1/p) / Gamma(k)

For (k, p) = (1.5, 2) it is the length of a normal 3D error; smaller p gives the longer tail of estimated hands.
`Prediction.joint_scale_mm` is the mean, `Prediction.error_shape` holds k and p.
"""

from __future__ import annotations

import torch
from torch import Tensor

from utnet.types import Prediction

NORMAL_SHAPE = (1.5, 2.0)
"""k and p of the length of an isotropic normal 3D vector."""

HAND_SHAPE = (3.0, 1.15)
"""k and p fitted to errors of estimated hands, each divided by its mean; initial values of the network's head."""

_LEAST_ERROR_MM = 0.01
"""Errors are clamped to this: the density at 0 is 0."""
_BISECTIONS = 60


def error_nll(error_mm: Tensor, mean_mm: Tensor, shape: Tensor) -> Tensor:
    """Negative log-likelihood (density per mm) of errors with mean `mean_mm`.

    Args:
        error_mm: (...) lengths, not negative.
        mean_mm: (...) positive.
        shape: (..., 2) k and p, positive.
    """
    k, p = shape.unbind(-1)
    log_error = error_mm.clamp_min(_LEAST_ERROR_MM).log()
    z = p * (log_error - mean_mm.log() + _log_mean(k, p))
    return log_error + torch.lgamma(k) + z.exp() - p.log() - k * z


def probability_within(radius_mm: Tensor, mean_mm: Tensor, shape: Tensor) -> Tensor:
    """Probability of an error of at most `radius_mm`; shapes as in `error_nll`."""
    k, p = shape.unbind(-1)
    return torch.special.gammainc(k, (radius_mm / mean_mm * _log_mean(k, p).exp()) ** p)


def interval_mm(prediction: Prediction, probability: float) -> Tensor:
    """Radius around each predicted joint, relative to the wrist, that contains the true joint with this probability.

    Args:
        prediction: of a network with `model.uncertainty`.
        probability: more than 0 and less than 1.

    Returns:
        (B, 21) mm; 0 for the wrist, which is the origin.

    Raises:
        ValueError: the network lacks that head, or the probability is out of range.
    """
    if prediction.joint_scale_mm is None or prediction.error_shape is None:
        raise ValueError("the prediction has no joint_scale_mm; train a network with model.uncertainty: true")
    if not 0 < probability < 1:
        raise ValueError(f"probability is {probability}, expected more than 0 and less than 1")
    return prediction.joint_scale_mm * quantile(probability, prediction.error_shape)[:, None]


def quantile(probability: float, shape: Tensor) -> Tensor:
    """Quantile of the error in units of its mean: (..., 2) k and p -> (...), by bisection."""
    k, p = shape.double().unbind(-1)
    low, high = torch.full_like(k, -60.0), torch.full_like(k, 20.0)  # bounds of log (r / a)^p
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = torch.special.gammainc(k, middle.exp()) < probability
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low / p - _log_mean(k, p)).exp().to(shape.dtype)


def _log_mean(k: Tensor, p: Tensor) -> Tensor:
    """Logarithm of the mean over a."""
    return torch.lgamma(k + 1 / p) - torch.lgamma(k)
