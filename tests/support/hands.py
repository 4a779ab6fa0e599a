"""Predicted hands whose every number is known: the open hand, decoded."""

import numpy as np

from utnet.geometry import box_of, project
from utnet.hand.arrays import load_open_hand
from utnet.predict.formats import PredictedFrame
from utnet.predict.hand import Hand
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.decoder import NumpyHand
from utnet.types import HandParams

K = np.array([[600.0, 0, 319.5], [0, 600.0, 239.5], [0, 0, 1]])
SIZE_PX = (640, 480)
ARRAYS = {"right": load_open_hand()}
ARRAYS["left"] = ARRAYS["right"].mirrored()


def hand_of(params, side="right", **fields):
    """The hand of these parameters (numpy, one hand) in the camera `K`."""
    posed = NumpyHand(ARRAYS[side])(params)
    joints, vertices = posed.joints_m.astype(float), posed.vertices_m.astype(float)
    px = project(joints, K)
    fields = {"score": 0.9, "distance_source": "hand_size", "method": "fit"} | fields
    return Hand(
        side=side,
        box_px=box_of(px),
        joints_cam_m=joints,
        joints_px=px,
        vertices_cam_m=vertices,
        faces=ARRAYS[side].faces,
        params=params,
        K_px=K,
        **fields,
    )


def random_params(rng, *, bend=0.3):
    """Bends of about that many radians about any axis, any orientation and shape, half a metre away."""
    return HandParams(
        global_orient=axis_angle_to_matrix(rng.normal(0, 1, (1, 3))),
        hand_pose=axis_angle_to_matrix(rng.normal(0, bend, (15, 3))),
        betas=rng.normal(0, 1, 10),
        transl_m=np.array([0.02, -0.01, 0.5]) + rng.normal(0, 0.02, 3),
    )


def random_hand(rng, side="right", **fields):
    return hand_of(random_params(rng), side, **fields)


def frame_of(*hands, index=0, time_s=0.0, file="clip.mp4", is_video=True):
    return PredictedFrame(file, hands, SIZE_PX, K, index, time_s, is_video)
