"""Results of the fit, and the state of one hand during it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from utnet.conventions import NUM_JOINTS
from utnet.fit.landmarks import View
from utnet.fit.model import FitModel
from utnet.fit.outline import HandMask
from utnet.fit.priors import PosePrior
from utnet.fit.solver import NUM_UNKNOWNS, pose_joints
from utnet.types import HandParams


@dataclass(frozen=True)
class Fits:
    """B fitted hands, numpy float64.

    Attributes:
        params: input of `HandModel`, with `transl_m`.
        measured: (B,) bool, the distance comes from depth; otherwise from the hand's size.
        cost: (B,) half the sum of squared residuals in standard deviations, outliers bounded: without depth 10 to 60
            for plausible hands, more for other landmarks; readings of depth and of a mask's outline add to it. 1e6 for
            a hand with its initial placement, because its landmarks led it behind the camera.
        shape_source: (B,) str, source of the betas: "mean" (the model's mean; one picture without depth does not
            determine them), "depth" (fitted to depth), "frames" (`shared_betas`) or "given" (by the caller).
    """

    params: HandParams
    measured: np.ndarray
    cost: np.ndarray
    shape_source: np.ndarray


@dataclass
class FittedHand:
    """State of the fit of one hand, in its view.

    Attributes:
        view: its landmarks and the camera turned towards it, the frame of all other fields.
        wrist: (3,) metres.
        root: (3, 3) hand to view.
        angles: (15, 3) flexion, abduction, twist in radians.
        betas: (10,).
        prior: Gaussian of the angles.
        shape: (10,) expected betas.
        bones: (20, 5) directions of an expected hand's bones, `weighted_directions`; None without one.
        tips: (21, 3) offset of a blended fingertip from where its last joint alone would put it, rest frame, metres.
        free_betas: the betas are fitted, too.
        mask: of the visible hand; None without one.
        measured: the distance is from depth.
        shape_source: as in `Fits`.
        cost: of the last step.
        normal: (61, 61) normal matrix at the last step, lower triangle.
    """

    view: View
    wrist: np.ndarray
    root: np.ndarray
    angles: np.ndarray
    betas: np.ndarray
    prior: PosePrior
    shape: np.ndarray
    bones: np.ndarray | None = None
    tips: np.ndarray = field(default_factory=lambda: np.zeros((NUM_JOINTS, 3)))
    free_betas: bool = False
    mask: HandMask | None = None
    measured: bool = False
    shape_source: str = "mean"
    cost: float = np.inf
    normal: np.ndarray = field(default_factory=lambda: np.zeros((NUM_UNKNOWNS, NUM_UNKNOWNS)))

    @property
    def facing(self) -> float:
        """Cosine between the palm's normal and the line to the camera."""
        return float(self.root[2, 1])

    @property
    def is_in_front(self) -> bool:
        """Whether the wrist is finite and in front of the camera."""
        wrist_cam_m = self.view.look.T @ self.wrist
        return bool(np.isfinite(wrist_cam_m).all() and wrist_cam_m[2] > 0)

    def posed(self, model: FitModel) -> tuple[np.ndarray, np.ndarray]:
        """(16, 3) positions and (16, 3, 3) rotations of the joints."""
        arrays = model.arrays
        rest = (arrays.J_template, arrays.J_shapedirs, model.axes)
        return pose_joints(self.wrist, self.root, self.angles, self.betas, *rest)
