"""A predicted hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from utnet.types import HandParams


@dataclass(frozen=True)
class Hand:
    """A predicted hand in the full picture's camera (OpenCV axes, metres), numpy.

    Attributes:
        side: "right" or "left".
        score: in [0, 1], that there is a hand: the detector's; in the user's box that of its landmarks, or 1 where a
            network was given box and side and no detector was asked.
        box_px: (4,) tight box x0, y0, x1, y1.
        joints_cam_m: (21, 3) OpenPose-21.
        joints_px: (21, 2) projected by `K_px`.
        vertices_cam_m: (V, 3).
        faces: (F, 3), counter-clockwise seen from outside.
        params: of the hand model of that side; `joints_cam_m = joints + transl_m`.
        K_px: (3, 3) camera used: the user's, or the stated default.
        distance_from: "depth" where the distance was measured, "size" where it is guessed from the hand's size.
        method: "both", "network" or "fit", which made the mesh.
        hand_model: "open" or "mano", which decodes `params`.
        landmarks_percent: mean distance of `joints_px` from the detector's landmarks in percent of these' box: 2 to 4
            is as good as can be (landmarks are not quite joints). Of a fit it is what is left over, which says nothing
            of depth, nor whether there is a hand (`score`). Before smoothing; None where no landmarks were asked for.
        track: number of the hand through a video, None in a single picture.
    """

    side: str
    score: float
    box_px: np.ndarray
    joints_cam_m: np.ndarray
    joints_px: np.ndarray
    vertices_cam_m: np.ndarray
    faces: np.ndarray
    params: HandParams
    K_px: np.ndarray
    distance_from: str
    method: str
    hand_model: str = "open"
    landmarks_percent: float | None = None
    track: int | None = None
