"""The law of docs/design.md that every source and every transform must obey, as one function for all test files."""

from __future__ import annotations

import numpy as np
import torch

from utnet.geometry import project
from utnet.hand import HandModel
from utnet.types import Sample

MAX_PX = 0.5
"""`project(HandModel(params))` lies this near to `project(joints_cam_m)`."""

DEPTH_M = 0.04
"""Depth at a joint that is seen agrees with its z: the skin lies up to 2 cm before the joint."""


def assert_labels_agree(
    sample: Sample, hand_model: HandModel, *, max_px: float = MAX_PX, max_m: float = 0.002, min_seen: float = 0.1
) -> float:
    """Parameters, mesh, joints, camera and depth of one sample say the same.

    Args:
        sample: before or after any transform. Joints without a 3D label (confidence 0) are left out, and without a
            known camera or translation what is left is compared: joints relative to the wrist.
        hand_model: decodes `sample.params` with the source's own tips and `flat_hand_mean=True`. A hand that was
            mirrored since its source decoded it is decoded by the mirrored model: give the source's.
        max_px: largest distance in the picture, on either axis.
        max_m: largest distance in space, on any axis.
        min_seen: least share of the joints with a reading under them at which depth must agree to `DEPTH_M`. Something
            may stand before the others, but at most a fifth may show what lies behind the hand (its outline frays).

    Returns:
        The share that agrees, 1 where there is no depth to compare; a test of many samples wants their mean above 0.3.
    """
    where, joints = sample.key, sample.joints_cam_m
    labelled = sample.joints_3d_conf > 0
    assert np.isfinite(joints[labelled]).all(), f"{where}: a labelled joint is not finite"
    if sample.params is not None:
        if hand_model.side != sample.side:
            hand_model = hand_model.mirrored()
        batch = sample.params.map(lambda array: torch.from_numpy(np.array(array, np.float32))[None])
        with torch.no_grad():
            mesh = hand_model.decode(batch)
        decoded, transl, truth = mesh.joints_m[0].double().numpy(), sample.params.transl_m, joints
        if np.isfinite(transl).all():
            decoded = decoded + transl
        else:
            decoded, truth = decoded - decoded[:1], joints - joints[:1]
        off = np.abs(decoded - truth)[labelled]
        assert np.isfinite(off).all(), f"{where}: joints cannot be compared: {off}"
        assert off.max() < max_m, f"{where}: parameters are {off.max():.4f} m off the joints"
        if sample.K_px is not None and np.isfinite(transl).all():
            error = np.abs(project(decoded, sample.K_px) - project(joints, sample.K_px))[labelled]
            assert error.max() < max_px, f"{where}: parameters are {error.max():.2f} px off the joints"
        if sample.vertices_cam_m is not None and np.isfinite(transl).all():
            off = np.abs(mesh.vertices_m[0].double().numpy() + transl - sample.vertices_cam_m)
            assert off.max() < max_m, f"{where}: parameters are {off.max():.4f} m off the labelled mesh"
    return _depth_agrees(sample, min_seen)


def _depth_agrees(sample: Sample, min_seen: float) -> float:
    """Share of the joints with a reading at which depth agrees."""
    if sample.depth_m is None or sample.K_px is None:
        return 1.0
    joints = sample.joints_cam_m[sample.joints_3d_conf > 0]
    x, y = np.rint(project(joints, sample.K_px)).astype(int).T
    height, width = sample.depth_m.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    read, z = sample.depth_m[y[inside], x[inside]], joints[inside, 2]
    read, z = read[read > 0], z[read > 0]
    if not len(read):
        return 1.0
    share, behind = float((np.abs(read - z) < DEPTH_M).mean()), float((read - z >= DEPTH_M).mean())
    says = f"{sample.key}: depth minus z at the joints is {np.round(read - z, 3)} m"
    assert behind <= 0.2, f"{says}: the hand is not where its joints are"
    assert share >= min_seen, f"{says}: no more than {share:.0%} agree"
    return share
