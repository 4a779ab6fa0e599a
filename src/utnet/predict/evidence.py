"""Measures of a mesh against detector, fit, network and depth: the inputs of its score."""

from __future__ import annotations

import numpy as np

from utnet.conventions import PARENTS
from utnet.detect import Detection
from utnet.fit.outline import mask_iou
from utnet.geometry import longer_side, mirror_points
from utnet.metrics import pa_mpjpe_mm
from utnet.placement import depth_around
from utnet.predict.confidence import Evidence
from utnet.predict.hand import Hand
from utnet.predict.methods.base import RightHandBatch
from utnet.render.raster import rasterize

_PART_PX = 64
_HIDDEN_M = 0.015
"""Depth behind the mesh's nearest skin above which a joint is hidden (larger than a finger's radius)."""
_NEAR_M = 0.025


def evidence_of(
    hand: Hand, detection: Detection, rights: RightHandBatch, i: int, depth_m: np.ndarray | None
) -> Evidence:
    """`Evidence` of the i-th reconstructed hand, given on its own side, with its detection and depth image (or
    None)."""
    marks = mirror_points(detection.joints_m) if hand.side == "left" else detection.joints_m
    right = rights.joints_cam_m[i]
    network, lifted = rights.network_joints_m, rights.lifted_joints_m
    mask = None if rights.masks is None else rights.masks[i]
    mesh = (hand.vertices_cam_m, hand.faces)
    visible, across = view_evidence(hand.joints_cam_m, *mesh, hand.K_px)
    near, share = (np.nan, np.nan) if depth_m is None else depth_evidence(*mesh, depth_m, hand.K_px)
    return Evidence(
        presence=hand.presence,
        side_probability=hand.side_probability,
        looks_percent=np.nan if detection.agreement is None else detection.agreement,
        landmark_error_percent=np.nan if hand.landmark_error_percent is None else hand.landmark_error_percent,
        landmarks_mm=apart_mm(right, marks),
        network_mm=np.nan if network is None or rights.fit_cost is None else apart_mm(right, network[i]),
        fit_cost=np.nan if rights.fit_cost is None else float(rights.fit_cost[i]),
        size_px=float(np.ptp(hand.box_px.reshape(2, 2), axis=0).max()),
        visible=visible,
        across_view=across,
        palm_view=palm_view(hand),
        stated_mm=np.nan if hand.joint_error_mm is None else float(hand.joint_error_mm[1:].mean()),
        mask_iou=np.nan if mask is None else mask_iou(rights.vertices_cam_m[i], hand.faces, mask),
        depth_mm=near,
        depth_share=share,
        lifted_mm=np.nan if lifted is None else distance_mm(right, lifted[i]),
        network_distance_mm=np.nan if network is None or rights.fit_cost is None else distance_mm(right, network[i]),
    )


def view_evidence(
    joints_cam_m: np.ndarray, vertices_cam_m: np.ndarray, faces: np.ndarray, K_px: np.ndarray
) -> tuple[float, float]:
    """`visible` and `across_view` of a mesh in its picture."""
    bones = joints_cam_m[1:] - joints_cam_m[list(PARENTS[1:])]
    rays = joints_cam_m[1:] / np.linalg.norm(joints_cam_m[1:], axis=1, keepdims=True)
    along = np.abs((bones * rays).sum(1)) / np.maximum(np.linalg.norm(bones, axis=1), 1e-9)
    across = float(np.sqrt(np.clip(1 - along**2, 0, 1)).mean())
    if vertices_cam_m[:, 2].min() <= 0.01:  # touches the camera
        return float("nan"), across
    px = vertices_cam_m @ K_px.T
    px = px[:, :2] / px[:, 2:]
    low, size = px.min(0), max(longer_side(px), 1e-6)
    scale = (_PART_PX - 1) / size
    K = np.array([[scale, 0, -scale * low[0]], [0, scale, -scale * low[1]], [0, 0, 1]]) @ K_px
    drawn = rasterize(vertices_cam_m, faces, K, (_PART_PX, _PART_PX)).depth_m
    at = joints_cam_m @ K.T
    x, y = np.clip(np.rint(at[:, :2] / at[:, 2:]), 0, _PART_PX - 1).astype(int).T
    skin = drawn[y, x]
    return float(1 - ((skin > 0) & (joints_cam_m[:, 2] > skin + _HIDDEN_M)).mean()), across


def palm_view(hand: Hand) -> float:
    """`palm_view`: 1 if the palm faces the camera, -1 for the back of the hand."""
    middle = hand.joints_cam_m.mean(0)
    return float(hand.params.global_orient[0][:, 1] @ middle / np.linalg.norm(middle))


def depth_evidence(
    vertices_cam_m: np.ndarray, faces: np.ndarray, depth_m: np.ndarray, K_px: np.ndarray
) -> tuple[float, float]:
    """`depth_mm` and `depth_share` of a mesh over the depth image of its picture."""
    part, K, _ = depth_around(vertices_cam_m, depth_m, K_px)
    drawn = rasterize(vertices_cam_m, faces, K, part.shape[::-1])
    if not drawn.mask.any():
        return float("nan"), 0.0
    off = np.abs(part - drawn.depth_m)[drawn.mask]
    near = (part[drawn.mask] > 0) & (off < _NEAR_M)
    return (float(1000 * np.median(off[near])) if near.any() else 1000 * _NEAR_M), float(near.mean())


def distance_mm(joints_m: np.ndarray, other_m: np.ndarray) -> float:
    """Mean distance of (21, 3) joints from others, both relative to the wrist; NaN if any is NaN."""
    between = (joints_m - joints_m[0]) - (other_m - other_m[0])
    return float(1e3 * np.linalg.norm(between[1:], axis=1).mean())


def apart_mm(joints_m: np.ndarray, other_m: np.ndarray) -> float:
    """Mean distance of (21, 3) joints from others after the best similarity; NaN if any is NaN."""
    if not (np.isfinite(joints_m).all() and np.isfinite(other_m).all()):
        return float("nan")
    return float(pa_mpjpe_mm(joints_m[None], other_m[None], allow_reflection=False)[0])
