"""Hands that move and tremble, as a predictor gives them."""

from dataclasses import replace

import numpy as np

from utnet.conventions import SIDES
from utnet.geometry import box_of, intrinsics, mirror_params, project
from utnet.hand import NumpyHandModel
from utnet.predict.hand import Hand
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.poses import angles_to_pose, sample_angles, sample_betas, sample_orientation
from utnet.types import HandParams

K = intrinsics(610.0, 580.0, 300.0, 260.0)
MODELS = {side: NumpyHandModel.open(side) for side in SIDES}


def decoded(params, *, side="right", track=0):
    mesh = MODELS[side].decode(params.map(lambda array: array[None]))
    joints, vertices = (points[0].astype(float) + params.transl_m for points in (mesh.joints_m, mesh.vertices_m))
    px, faces = project(joints, K), MODELS[side].faces
    return Hand(side, 0.9, box_of(px), joints, px, vertices, faces, params, K, "hand_size", "fit", track=track)


def moving(seed, num, *, side="right", track=0, noise=0.05):
    """A hand that goes along x and turns; `noise` (radians) shakes rotations, place and shape of each frame."""
    rng = np.random.default_rng(seed)
    hand_pose, betas, R = angles_to_pose(sample_angles(rng)), sample_betas(rng), sample_orientation(rng)
    hands = []
    for i in range(num):
        shake = rng.normal(0, noise, (16, 3)) + 0.02 * i * np.array([0.0, 0.0, 1.0])
        turns = axis_angle_to_matrix(shake)
        params = HandParams(
            R[None] @ turns[:1], hand_pose @ turns[1:], betas + rng.normal(0, 6 * noise, 10),
            np.array([0.004 * i, -0.04, 0.5]) + rng.normal(0, 0.06 * noise, 3),
        )  # fmt: skip
        own = mirror_params(params) if side == "left" else params
        hands.append(replace(decoded(own, side=side, track=track), shape_source="network"))
    return hands
