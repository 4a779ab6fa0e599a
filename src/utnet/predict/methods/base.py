"""The interface of reconstruction methods, and the batch of hands that they return."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from utnet.fit.outline import HandMask
from utnet.hand import NumpyHandModel
from utnet.types import HandParams, Sample


@dataclass(frozen=True)
class RightHandBatch:
    """B right (or mirrored left) hands in the camera of their picture, numpy.

    Attributes:
        params: with a leading axis B; `joints_cam_m = joints_m + transl_m`.
        joints_cam_m: (B, 21, 3).
        vertices_cam_m: (B, V, 3).
        measured: (B,) bool, whether the distance was measured by depth, not derived from the hand's size.
        shape_source: of each hand, as in `Hand`.
        fit_cost: (B,) as in `utnet.fit.Fits`; None without a fit.
        network_joints_m: (B, 21, 3) joints of the network's own hands, any origin; None without a network.
        lifted_joints_m: (B, 21, 3) joints of the landmark lifter's likeliest hands, any origin, NaN where landmarks are
            missing; None if not computed.
        joint_error_mm: (B, 21) expected error of each joint relative to the wrist; None if not available.
        masks: of the visible hands, by a network; None if not available, or for a hand if it is rejected.
        side_logit: (B,) of a network, above 0 if the crop looks like a right hand; None if not available.
    """

    params: HandParams
    joints_cam_m: np.ndarray
    vertices_cam_m: np.ndarray
    measured: np.ndarray
    shape_source: Sequence[str]
    fit_cost: np.ndarray | None = None
    network_joints_m: np.ndarray | None = None
    lifted_joints_m: np.ndarray | None = None
    joint_error_mm: np.ndarray | None = None
    masks: Sequence[HandMask | None] | None = None
    side_logit: np.ndarray | None = None


class ReconstructionMethod(Protocol):
    """Reconstructs meshes of detected hands.

    Attributes:
        name: "network", "fit" or "both".
        needs_landmarks: whether the samples must contain a detector's landmarks.
        weights: path or name of the weights; None without.
        faces: (F, 3) of the right hand, counter-clockwise seen from outside.
        hand_model: "open" or "mano", which decodes the parameters.
        hand: that model of the right hand; None if not available (an exported network with MANO's).
    """

    name: str
    needs_landmarks: bool
    weights: str | None
    faces: np.ndarray
    hand_model: str

    @property
    def hand(self) -> NumpyHandModel | None: ...

    def __call__(self, samples: Sequence[Sample]) -> RightHandBatch:
        """Returns the hands of one or several pictures.

        Args:
            samples: at least one; right hands (left ones mirrored), each in the full picture with its box and K_px.
                Landmarks: `joints_px` in the picture, `joints_2d_conf` their confidence (of prompts),
                `landmarks_m` relative ones in metres.
        """
        ...
