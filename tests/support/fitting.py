"""Hands drawn for the fit: parameters, landmarks, errors."""

import numpy as np

from utnet.fit import HandFitter
from utnet.fit.landmarks import look_at
from utnet.geometry import intrinsics, project
from utnet.synth.poses import angles_to_pose, sample_angles, sample_betas, sample_orientation
from utnet.types import HandParams

K = intrinsics(600, 600, 319.5, 239.5)
SIZE_WH = (640, 480)


def make_hands(num, seed=0, *, shape=0.7, pose=None):
    """Parameters of random anatomical hands half a metre away, with a leading axis."""
    rng = np.random.default_rng(seed)
    transl = np.stack([[rng.uniform(-0.1, 0.1), rng.uniform(-0.05, 0.05), rng.uniform(0.45, 0.7)] for _ in range(num)])
    return HandParams(
        global_orient=np.stack([sample_orientation(rng)[None] for _ in range(num)]),
        hand_pose=np.stack([angles_to_pose(sample_angles(rng) if pose is None else pose) for _ in range(num)]),
        betas=np.stack([sample_betas(rng, shape) for _ in range(num)]),
        transl_m=transl,
    )


def decode(fitter, params):
    """(B, 21, 3) joints and (B, V, 3) vertices in the camera."""
    mesh = fitter.hand.decode(params)
    return mesh.joints_m + params.transl_m[:, None], mesh.vertices_m + params.transl_m[:, None]


def landmarks_of(joints_cam_m, K_px):
    """What a perfect landmark network says: pixels, and relative joints as seen along the ray, in another size."""
    points = project(joints_cam_m, K_px)
    views = [look_at(px, xyz, k).look for px, xyz, k in zip(points, joints_cam_m, K_px, strict=True)]
    relative = np.stack([(joints - joints[9]) @ look.T for joints, look in zip(joints_cam_m, views, strict=True)])
    return points, 0.9 * relative, K_px


def scene(num, seed=0, *, camera=K, fitter=None, **kwargs):
    """True parameters, joints in the camera, and the three arguments of a fit."""
    fitter = fitter or HandFitter(landmarks="joints")
    params = make_hands(num, seed, **kwargs)
    joints, _ = decode(fitter, params)
    return params, joints, landmarks_of(joints, np.tile(camera, (num, 1, 1)))


def error_mm(fitter, params, joints_cam_m, *, relative=True):
    """(B, 21), of joints relative to the wrist or in the camera."""
    off = decode(fitter, params)[0] - joints_cam_m
    return 1000 * np.linalg.norm(off - off[:, :1] if relative else off, axis=-1)
