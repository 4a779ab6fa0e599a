"""Prompts for training: landmarks of a detector, another program or a person, simulated from the labels.

The detector's errors are measured residual vectors of one hand, passed in as `Observe`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from utnet.conventions import NUM_JOINTS
from utnet.geometry import project, px_to_crop
from utnet.types import Sample

if TYPE_CHECKING:
    from utnet.config import PromptConfig

DETECTOR_CONFIDENCE = 0.5
"""Confidence of a detector's landmarks that are surely a hand's; a joint that a person placed has 1."""

LEAST_PRESENCE = 0.02
"""Lowest confidence factor of a detector's landmarks."""

Observe: TypeAlias = "Callable[[np.random.Generator, np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]"
"""True joints (B, 21, 3) of right hands in the camera -> rays (B, 21, 3) towards the landmarks, relative landmarks
(B, 21, 3) in metres, presence (B,) in [0, 1] (`detect.residuals.DetectorResiduals.observe`)."""

_FINGERS = tuple(tuple(range(first, first + 4)) for first in (1, 5, 9, 13, 17))
_CLICK_STD = 0.012
"""Deviation of a joint that a person places, in crop widths."""
_MOVED_SHARE = 0.3


def prompts_of_landmarks(
    joints_px: np.ndarray, size_px: int, joints_m: np.ndarray | None = None, confidence: float | np.ndarray = 1.0
) -> np.ndarray:
    """(21, 6) prompts of landmarks in a crop.

    Args:
        joints_px: (21, 2) in pixels of the crop, NaN for a joint that is not given.
        size_px: side of the crop.
        joints_m: (21, 3) relative landmarks in metres, axes as the crop's, or None.
        confidence: of all, or (21,).
    """
    given = np.isfinite(joints_px).all(1)
    out = np.full((NUM_JOINTS, 6), np.nan)
    out[:, :2] = px_to_crop(joints_px, size_px)
    if joints_m is not None:
        out[:, 2:5] = joints_m
    out[:, 5] = np.where(given, confidence, 0.0)
    return np.where(given[:, None], out, 0.0)


class PromptNoise:
    """Draws the prompts of training samples.

    Args:
        config: how often what.
        observe: the detector's noise.
    """

    def __init__(self, config: PromptConfig, observe: Observe):
        self.config, self._observe = config, observe

    def __call__(self, sample: Sample, rng: np.random.Generator) -> np.ndarray:
        """(21, 6) prompts of a crop of a right hand; all 0 where they are dropped, or joints are not labelled."""
        config, none = self.config, np.zeros((NUM_JOINTS, 6))
        labelled = (sample.joints_2d_conf > 0) & (sample.joints_3d_conf > 0) & np.isfinite(sample.joints_cam_m).all(1)
        if rng.random() < config.drop_p or sample.K_px is None or not labelled.all():
            return none
        size_px, joints = sample.rgb.shape[0], sample.joints_cam_m.astype(np.float64)
        if (joints[:, 2] < 0.05).any():
            return none
        clicked, alone = rng.random() < config.clicks_p, rng.random() < 0.4
        prompts = none if clicked and alone else self._detected(joints, sample.K_px, size_px, rng)
        if clicked:
            chosen = rng.choice(NUM_JOINTS, rng.integers(1, 7), replace=False)
            points = px_to_crop(project(joints[chosen], sample.K_px), size_px)
            prompts[chosen] = np.nan
            prompts[chosen, :2] = points + rng.normal(0.0, _CLICK_STD, points.shape)
            prompts[chosen, 5] = 1.0
        return prompts

    def _detected(self, joints: np.ndarray, K_px: np.ndarray, size_px: int, rng: np.random.Generator) -> np.ndarray:
        rays, relative, presence = self._observe(rng, joints[None])
        confidence = DETECTOR_CONFIDENCE * float(np.clip(presence[0], LEAST_PRESENCE, 1.0))
        out = prompts_of_landmarks(project(rays[0], K_px), size_px, relative[0], confidence)
        if rng.random() < self.config.wrong_p:
            _spoil(out, rng)
        if rng.random() < self.config.flat_p:
            out[:, 2:5] = np.nan
        if rng.random() < 0.5:
            out[rng.random(NUM_JOINTS) < self.config.drop_joint_p] = 0.0
        return out


def _spoil(prompts: np.ndarray, rng: np.random.Generator) -> None:
    """Gross mistakes, in place: joints moved, fingers swapped or collapsed onto one another, everything shifted."""
    points = prompts[:, :2]
    box = float((points.max(0) - points.min(0)).max())
    kind = rng.integers(4)
    if kind == 0:
        wrong = rng.random(NUM_JOINTS) < _MOVED_SHARE
        angle = rng.uniform(0, 2 * np.pi, NUM_JOINTS)
        by = box * rng.uniform(0.2, 0.8, NUM_JOINTS)[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
        points[wrong] += by[wrong]
    elif kind == 3:
        points += box * rng.uniform(-0.4, 0.4, 2)
    else:
        a, b = (list(_FINGERS[i]) for i in rng.choice(5, 2, replace=False))
        if kind == 1:
            prompts[a + b] = prompts[b + a]
        else:
            prompts[a] = prompts[b]
