"""The calibrated score of a hand, the probability that its mesh is right, and the calibrated errors of its joints.

A mesh is right if its joints are within 12 mm of the true ones after the best similarity (without reflection), on the
right side, and within a fifth of the box from their true positions in the picture. The probability is a logistic model
of a few features with nonnegative weights; one model for each method, with and without depth.

The logarithm of the joints' expected mean error is a linear model of the same features and of two that include the
orientation of the hand; it scales the network's expected errors of the single joints. Intervals are multiples of these.

The constants, `assets/score.json`, are made by `tools/calibrate_score.py` on drawn hands, which also evaluates them on
others. They are calibrated for the bundled network; with other weights the score is a guide, and the expected errors
are the network's own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from utnet.errors import InputError, shown

RIGHT_MM = 12.0
"""Largest PA-MPJPE of a mesh that counts as right."""
RIGHT_PERCENT = 20.0
"""Largest mean distance of its joints from the true ones in the picture, in percent of the box."""
FEATURES = (
    "presence",
    "side",
    "looks",
    "landmarks_2d",
    "landmarks_3d",
    "network",
    "fit",
    "size",
    "visible",
    "across_view",
    "palm_view",
    "stated",
    "mask",
    "depth_near",
    "depth_share",
    "lifted",
    "network_distance",
)
"""Names of `Evidence.features`, in order."""

INTERVALS = {0.5: 0.92, 0.9: 1.70}
"""Probabilities and radii of the intervals of a joint, in units of its expected error, where none are calibrated
(`utnet.uncertainty.HAND_SHAPE`)."""

ALONE = "network alone"
"""Name of the network without landmarks among the models of expected errors."""

_LARGEST_LOGIT = 6.0
MOST_SCALE = 10.0
"""Bound of the factor of the network's expected errors, for hands unlike the calibrated ones (of which 0.3 % need a
larger one)."""


@dataclass(frozen=True)
class Evidence:
    """Measures of how well a mesh fits its picture; NaN if unknown.

    Attributes:
        presence: the landmark network's probability of a hand.
        side_probability: probability that the side is right.
        looks_percent: distance between the landmarks of two passes, percent of the box.
        landmark_error_percent: distance of the mesh's joints from the landmarks in the picture, percent of the box.
        landmarks_mm: distance of the mesh's joints from the relative 3D landmarks after the best similarity.
        network_mm: the same distance from the network's joints, for a fitted mesh.
        fit_cost: `utnet.fit.Fits.cost`.
        size_px: longer side of the box.
        visible: fraction of the joints that are not hidden by the mesh itself.
        across_view: mean sine of the angle between bones and the line of sight.
        palm_view: cosine of the angle between the palm's normal and the direction to the camera.
        stated_mm: mean of the network's expected joint errors.
        mask_iou: intersection over union of the mesh and the network's mask of the visible hand; NaN if `both`
            rejects it.
        depth_mm: median distance of the readings from the mesh, at most 25 mm.
        depth_share: fraction of the mesh's pixels with a reading within 25 mm.
        lifted_mm: mean distance of the joints from those of the landmark lifter's likeliest hand, relative to the
            wrist; it includes the hand's orientation.
        network_distance_mm: the same from the network's joints, for a fitted mesh.
    """

    presence: float
    side_probability: float
    looks_percent: float
    landmark_error_percent: float
    landmarks_mm: float
    network_mm: float
    fit_cost: float
    size_px: float
    visible: float
    across_view: float
    palm_view: float
    stated_mm: float
    mask_iou: float
    depth_mm: float
    depth_share: float
    lifted_mm: float = np.nan
    network_distance_mm: float = np.nan

    def features(self) -> np.ndarray:
        """(F,) numbers in the order of `FEATURES`, larger is better; NaN if unknown."""
        with np.errstate(invalid="ignore"):
            return np.array(
                [
                    _logit(self.presence),
                    _logit(self.side_probability),
                    -np.log(1 + self.looks_percent),
                    -np.log(1 + self.landmark_error_percent),
                    -np.log(1 + self.landmarks_mm),
                    -np.log(1 + self.network_mm),
                    -np.log(1 + self.fit_cost),
                    np.log(min(self.size_px, 200.0)),
                    self.visible,
                    self.across_view,
                    self.palm_view,
                    -np.log(1 + self.stated_mm),
                    self.mask_iou,
                    -np.log(1 + self.depth_mm),
                    self.depth_share,
                    -np.log(1 + self.lifted_mm),
                    -np.log(1 + self.network_distance_mm),
                ]
            )


def kind_of(method: str, *, with_depth: bool) -> str:
    """The name of a model in `assets/score.json`, for example "both rgbd"."""
    return f"{method} {'rgbd' if with_depth else 'rgb'}"


def score(kind: str, features: np.ndarray) -> float:
    """The probability that a mesh with these (F,) features is right."""
    return float(_models("models")[kind].probability(features))


def error_scale(kind: str, evidence: Evidence) -> float:
    """Factor of the network's expected joint errors for this hand; 1 for methods without a model."""
    model = _models("errors").get(kind)
    if model is None:
        return 1.0
    return float(np.clip(np.exp(model(evidence.features())) / evidence.stated_mm, 1 / MOST_SCALE, MOST_SCALE))


def interval_factor(kind: str | None, probability: float) -> float:
    """Radius that contains a joint with this probability, in units of its expected error.

    Args:
        kind: of the model of expected errors; None for errors that no model has scaled.
        probability: 0.5 or 0.9.

    Raises:
        InputError: a probability other than those of `INTERVALS`.
    """
    try:
        number = round(float(probability), 6)  # of NumPy's single precision, too
    except (TypeError, ValueError):
        number = np.nan
    if number not in INTERVALS:
        raise InputError(f"probability is {shown(probability)}; expected {' or '.join(map(str, INTERVALS))}")
    return INTERVALS[number] if kind is None else _read()["intervals"][kind][str(number)]


@dataclass(frozen=True)
class FeatureModel:
    """bias + weights . (features - mean): the logit of a probability, or the logarithm of an error. NaN features are
    replaced by the mean."""

    bias: float
    weights: np.ndarray
    mean: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """(..., F) features, NaN if not known -> (...,)."""
        known = np.where(np.isfinite(features), features, self.mean)
        return self.bias + (known - self.mean) @ self.weights

    def probability(self, features: np.ndarray) -> np.ndarray:
        """(..., F) features -> (...,) probabilities."""
        return 1 / (1 + np.exp(-self(features)))

    def to_dict(self) -> dict:
        """The model in the format of `assets/score.json`; features without weight are left out."""
        used = {
            name: {"weight": round(float(weight), 4), "mean": round(float(mean), 4)}
            for name, weight, mean in zip(FEATURES, self.weights, self.mean, strict=True)
            if weight != 0
        }
        return {"bias": round(self.bias, 4), "features": used}

    @staticmethod
    def from_dict(tree: dict) -> FeatureModel:
        """The inverse of `to_dict`."""
        used = tree["features"]
        columns = [[used[name][key] if name in used else 0.0 for name in FEATURES] for key in ("weight", "mean")]
        return FeatureModel(tree["bias"], np.array(columns[0]), np.array(columns[1]))


@cache
def _read() -> dict:
    return json.loads((files("utnet") / "assets" / "score.json").read_text(encoding="utf-8"))


@cache
def _models(key: str) -> dict[str, FeatureModel]:
    return {kind: FeatureModel.from_dict(model) for kind, model in _read()[key].items()}


def _logit(probability: float) -> float:
    with np.errstate(divide="ignore"):
        odds = np.log(np.float64(probability)) - np.log1p(-np.float64(probability))
    return float(np.clip(odds, -_LARGEST_LOGIT, _LARGEST_LOGIT))
