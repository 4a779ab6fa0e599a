"""Small networks, their inputs, and outputs compared."""

import torch

SIZE = 64
FIELDS = ("global_orient", "hand_pose", "betas", "cam", "cam_t", "joints_m", "joints_crop", "vertices_m", "joint_map")


def inputs(num=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.rand(num, 3, SIZE, SIZE, generator=generator)
    depth = 0.6 + 0.1 * torch.rand(num, SIZE, SIZE, generator=generator)
    K = torch.tensor([[150.0, 0, 31.5], [0, 150.0, 31.5], [0, 0, 1]]).expand(num, 3, 3)
    return rgb, depth, K


def assert_same(a, b, rows_a=slice(None), rows_b=slice(None), atol=2e-5):
    for name in FIELDS:
        torch.testing.assert_close(getattr(a, name)[rows_a], getattr(b, name)[rows_b], atol=atol, rtol=1e-4, msg=name)


PUBLISHED_OUTPUTS = {
    "pred_cam": "cam",
    "pred_cam_t": "cam_t",
    "pred_keypoints_3d": "joints_m",
    "pred_vertices": "vertices_m",
    "pred_keypoints_2d": "joints_crop",
    "global_orient": "global_orient",
    "hand_pose": "hand_pose",
    "betas": "betas",
}
"""HaMeR's and WiLoR's names of outputs -> fields of `Prediction`."""
