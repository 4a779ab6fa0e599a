"""Predictions of a network, placed in the cameras of their crops as in `predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utnet.conventions import MANO_TIP_VERTICES, MANOPTH_LEFT_TIP_VERTICES, TIPS
from utnet.errors import InputError
from utnet.evaluation.crops import CropBatch
from utnet.geometry import crop_to_px
from utnet.hand import HandModel
from utnet.placement import measure_distance, solve_translation
from utnet.types import Prediction


@dataclass(frozen=True)
class PlacedHands:
    """Predicted right (or mirrored) hands in the cameras of their crops, float64.

    Attributes:
        joints_m: (B, 21, 3) hand frame.
        vertices_m: (B, V, 3) hand frame.
        transl_m: (B, 1, 3) hand frame to camera; NaN if the camera is unknown.
        expected_mm: (B, 21) predicted error of each joint, NaN for networks without uncertainty.
    """

    joints_m: np.ndarray
    vertices_m: np.ndarray
    transl_m: np.ndarray
    expected_mm: np.ndarray


def place(out: Prediction, part: CropBatch, hand: HandModel, *, use_depth: bool) -> PlacedHands:
    """Solves the translation of each hand from its pixels; with depth, its distance is measured.

    Raises:
        InputError: the prediction is NaN or inf.
    """
    joints = out.joints_m.double().numpy()
    vertices = out.vertices_m.double().numpy()  # type: ignore[union-attr]
    points = out.joints_crop.double().numpy()
    faces = hand.faces.cpu().numpy()
    transl = np.full((len(joints), 1, 3), np.nan)
    for i, crop in enumerate(part.crops):
        sample = crop.sample
        if not (np.isfinite(joints[i]).all() and np.isfinite(points[i]).all() and np.isfinite(vertices[i]).all()):
            raise InputError(f"{sample.key}: the predicted joints are NaN or inf; use another checkpoint")
        if sample.K_px is None:
            continue
        joints_px = crop_to_px(points[i], sample.rgb.shape[0])
        transl[i] = solve_translation(joints[i], joints_px, sample.K_px)
        if use_depth and sample.depth_m is not None:
            transl[i] = measure_distance(vertices[i], faces, joints[i], transl[i, 0], sample.depth_m, sample.K_px)
    expected = np.full(joints.shape[:2], np.nan)
    if out.joint_scale_mm is not None:
        expected = out.joint_scale_mm.double().numpy()
    return PlacedHands(joints, vertices, transl, expected)


def benchmark_tips(joints: np.ndarray, vertices: np.ndarray, tips: str, sides: Sequence[str]) -> np.ndarray:
    """Replaces the fingertips of (B, 21, 3) joints by the benchmark's vertices of (B, 778, 3) meshes, in a copy."""
    joints = joints.copy()
    for i, side in enumerate(sides):
        left = tips == "manopth" and side == "left"
        joints[i, list(TIPS)] = vertices[i, list(MANOPTH_LEFT_TIP_VERTICES if left else MANO_TIP_VERTICES[tips])]
    return joints


def check_benchmark_tips(hand: HandModel, tips: str) -> None:
    """Raises InputError unless the hand is MANO's and the data set defines fingertip vertices."""
    if hand.name != "mano":
        raise InputError(
            f"benchmark's tips are vertices of MANO's mesh, but this network uses the {hand.name} hand; "
            "score its own joints"
        )
    if tips not in MANO_TIP_VERTICES:
        raise InputError("this data set defines no fingertip vertices; score the network's own joints")
