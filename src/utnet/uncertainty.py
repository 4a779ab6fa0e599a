"""How far off a joint may be: the generalised gamma distribution (Stacy 1962) of the length of its error.

    f(r) = p / (a Gamma(k)) (r / a)^(k p - 1) exp(-(r / a)^p),   mean a Gamma(k + 1/p) / Gamma(k)

It is the length of a normal 3D error for (k, p) = (1.5, 2), and has the longer tail that estimated hands have for
smaller p. `Prediction.joint_scale_mm` is the mean, `Prediction.error_shape` holds k and p.
"""

from __future__ import annotations

import torch
from torch import Tensor

from utnet.types import Prediction

NORMAL_SHAPE = (1.5, 2.0)
"""k and p of the length of a vector whose three parts are normal with one deviation."""

HAND_SHAPE = (3.0, 1.15)
"""k and p that the errors of estimated hands come to, each over its own mean: where a network's head starts."""

_LEAST_ERROR_MM = 0.01
"""Smaller errors count as this one: the density of 0 is 0."""
_BISECTIONS = 60


def error_nll(error_mm: Tensor, mean_mm: Tensor, shape: Tensor) -> Tensor:
    """Negative logarithm of the density (per mm) of errors that are `mean_mm` in the mean.

    Args:
        error_mm: (...) lengths, not negative.
        mean_mm: (...) positive.
        shape: (..., 2) k and p, positive.
    """
    k, p = shape.unbind(-1)
    log_error = error_mm.clamp_min(_LEAST_ERROR_MM).log()
    z = p * (log_error - mean_mm.log() + _log_mean(k, p))
    return log_error + torch.lgamma(k) + z.exp() - p.log() - k * z


def share_within(radius_mm: Tensor, mean_mm: Tensor, shape: Tensor) -> Tensor:
    """The share of errors of at most `radius_mm`; shapes as in `error_nll`."""
    k, p = shape.unbind(-1)
    return torch.special.gammainc(k, (radius_mm / mean_mm * _log_mean(k, p).exp()) ** p)


def interval_mm(prediction: Prediction, share: float) -> Tensor:
    """The radius round each predicted joint, relative to the wrist, that holds the true joint with probability `share`.

    Args:
        prediction: of a network with `model.uncertainty`.
        share: more than 0 and less than 1.

    Returns:
        (B, 21) mm; 0 for the wrist, which is the origin.

    Raises:
        ValueError: a network without that head, or another share.
    """
    if prediction.joint_scale_mm is None or prediction.error_shape is None:
        raise ValueError("the prediction has no joint_scale_mm; train a network with model.uncertainty: true")
    if not 0 < share < 1:
        raise ValueError(f"share is {share}, expected more than 0 and less than 1")
    return prediction.joint_scale_mm * quantile(share, prediction.error_shape)[:, None]


def quantile(share: float, shape: Tensor) -> Tensor:
    """The radius, in units of the mean, that holds `share` of the errors: (..., 2) k and p -> (...), by bisection."""
    k, p = shape.double().unbind(-1)
    low, high = torch.full_like(k, -60.0), torch.full_like(k, 20.0)  # of the logarithm of (r / a)^p
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        below = torch.special.gammainc(k, middle.exp()) < share
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low / p - _log_mean(k, p)).exp().to(shape.dtype)


def _log_mean(k: Tensor, p: Tensor) -> Tensor:
    """Logarithm of the mean over a."""
    return torch.lgamma(k + 1 / p) - torch.lgamma(k)
