"""Hands out of a network and into the crop's camera, as `predict` places them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from utnet.conventions import MANO_TIP_VERTICES, MANOPTH_LEFT_TIP_VERTICES, TIPS
from utnet.errors import InputError
from utnet.evaluation.crops import Part
from utnet.geometry import crop_to_px
from utnet.hand import HandModel
from utnet.model import UTNet
from utnet.placement import measure_distance, solve_translation
from utnet.types import Prediction


@dataclass(frozen=True)
class Placed:
    """Predicted right (or mirrored) hands in the cameras of their crops, float64.

    Attributes:
        joints_m: (B, 21, 3) hand frame.
        vertices_m: (B, V, 3) hand frame.
        transl_m: (B, 1, 3) hand frame to camera; NaN where the camera is not known.
        expected_mm: (B, 21) error that the network expects of each joint, NaN if it does not say.
    """

    joints_m: np.ndarray
    vertices_m: np.ndarray
    transl_m: np.ndarray
    expected_mm: np.ndarray


def forward(model: UTNet, part: Part, *, use_depth: bool) -> Prediction:
    """What the network says of a part's crops, on the CPU."""
    assert part.batch is not None
    batch = part.batch.to(next(model.parameters()).device)
    with torch.inference_mode():
        out = model.forward_batch(batch, use_depth=use_depth, with_vertices=True)
    return out.map(lambda tensor: tensor.detach().cpu())


def place(out: Prediction, part: Part, hand: HandModel, *, use_depth: bool) -> Placed:
    """Solves each hand's translation from its pixels; with depth its distance is measured.

    Raises:
        InputError: the network's numbers are NaN or inf.
    """
    joints = out.joints_m.double().numpy()
    vertices = out.vertices_m.double().numpy()  # type: ignore[union-attr]
    points = out.joints_crop.double().numpy()
    faces = hand.faces.cpu().numpy()
    transl = np.full((len(joints), 1, 3), np.nan)
    for i, crop in enumerate(part.crops):
        sample = crop.sample
        if not (np.isfinite(joints[i]).all() and np.isfinite(points[i]).all() and np.isfinite(vertices[i]).all()):
            raise InputError(f"{sample.key}: the network's joints are NaN or inf; take another checkpoint")
        if sample.K_px is None:
            continue
        joints_px = crop_to_px(points[i], sample.rgb.shape[0])
        transl[i] = solve_translation(joints[i], joints_px, sample.K_px)
        if use_depth and sample.depth_m is not None:
            transl[i] = measure_distance(vertices[i], faces, joints[i], transl[i, 0], sample.depth_m, sample.K_px)
    expected = np.full(joints.shape[:2], np.nan)
    if out.joint_scale_mm is not None:
        expected = out.joint_scale_mm.double().numpy()
    return Placed(joints, vertices, transl, expected)


def benchmark_tips(joints: np.ndarray, vertices: np.ndarray, tips: str, sides: Sequence[str]) -> np.ndarray:
    """A copy of (B, 21, 3) joints whose fingertips are the benchmark's vertices of the (B, 778, 3) meshes."""
    joints = joints.copy()
    for i, side in enumerate(sides):
        left = tips == "manopth" and side == "left"
        joints[i, list(TIPS)] = vertices[i, list(MANOPTH_LEFT_TIP_VERTICES if left else MANO_TIP_VERTICES[tips])]
    return joints


def check_benchmark_tips(hand: HandModel, tips: str) -> None:
    """InputError where the benchmark's fingertips mean nothing: another mesh than MANO's, or no benchmark."""
    if hand.name != "mano":
        raise InputError(
            f"benchmark's tips are vertices of MANO's mesh, and this network's hand is the {hand.name} one; "
            "score its own joints"
        )
    if tips not in MANO_TIP_VERTICES:
        raise InputError("this data set has no fingertips of its own; score the network's own joints")
