"""Inputs of the network: normalised RGB, depth as metric channels, and hand tokens from mean parameters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from utnet.conventions import NUM_BETAS, NUM_MANO_JOINTS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_DEPTH_UNIT_M = 0.1
_DEPTH_RANGE_M = 0.25
"""Readings farther than this from the hand's distance are marked invalid."""
_WIDTH_WITHOUT_K_M = 0.3
"""Assumed width of a crop at the hand's distance when the camera is not known."""
_MEAN_BETA = 0.1


def normalise_rgb(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> ImageNet mean 0 and deviation 1."""
    mean = torch.tensor(IMAGENET_MEAN, device=rgb.device, dtype=rgb.dtype).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=rgb.device, dtype=rgb.dtype).view(3, 1, 1)
    return (rgb - mean) / std


def depth_channels(depth_m: Tensor, distance_m: Tensor, K_px: Tensor | None) -> Tensor:
    """Converts depth to metric points relative to the hand and a validity mask.

    Args:
        depth_m: (B, H, W), 0 where there is no reading.
        distance_m: (B,) of `geometry.hand_distance`, finite.
        K_px: (B, 3, 3) of the crop; None or NaN: not known, and the crop is assumed to be 0.3 m wide at the hand.

    Returns:
        (B, 4, H, W): x, y from the crop's centre and z from the hand's distance in units of 0.1 m, and validity 0/1;
        all 0 where the reading is missing or farther than 0.25 m from the hand.
    """
    height, width = depth_m.shape[1:]
    metres_per_px = (_WIDTH_WITHOUT_K_M / width) * torch.ones_like(distance_m)
    if K_px is not None:
        # The determinant, written out because OpenVINO has none.
        area = (K_px[:, 0, 0] * K_px[:, 1, 1] - K_px[:, 0, 1] * K_px[:, 1, 0]).abs()
        by_camera = distance_m / area.sqrt()
        metres_per_px = torch.where(by_camera.isfinite(), by_camera, metres_per_px)
    relative = depth_m - distance_m[:, None, None]
    valid = (depth_m > 0) & (relative.abs() < _DEPTH_RANGE_M)
    scale = (metres_per_px / _DEPTH_UNIT_M)[:, None, None] * (depth_m / distance_m[:, None, None])
    x = torch.arange(width, device=depth_m.device, dtype=depth_m.dtype) - (width - 1) / 2
    y = torch.arange(height, device=depth_m.device, dtype=depth_m.dtype) - (height - 1) / 2
    channels = torch.stack([x * scale, y[:, None] * scale, relative / _DEPTH_UNIT_M], 1)
    valid = valid[:, None]
    return torch.cat([torch.where(valid, channels, 0.0), valid.to(depth_m.dtype)], 1)


class HandTokens(nn.Module):
    """16 pose tokens, 1 shape token and 1 camera token, made from the mean parameters.

    Args:
        dim: width of the tokens.
        mean_pose: (16, 6) mean joint rotations, 6D.
        mean_cam: (3,) mean s, tx, ty before the head's own transform of the scale.
        embed_betas: embed the mean betas, too (WiLoR); otherwise they are 0 and have no layer.

    WiLoR's means come with its weights; before, its betas are `_MEAN_BETA`: at 0 their embedding has no gradient.
    """

    mean_pose: Tensor
    mean_betas: Tensor
    mean_cam: Tensor

    def __init__(self, dim: int, mean_pose: Tensor, mean_cam: Tensor, *, embed_betas: bool = False):
        super().__init__()
        self.register_buffer("mean_pose", mean_pose)
        self.register_buffer(
            "mean_betas", torch.full((NUM_BETAS,), _MEAN_BETA if embed_betas else 0.0), persistent=embed_betas
        )
        self.register_buffer("mean_cam", mean_cam)
        self.embed_pose, self.embed_cam = nn.Linear(6, dim), nn.Linear(3, dim)
        self.embed_betas = nn.Linear(NUM_BETAS, dim) if embed_betas else None
        # Distinguishes joints of the same mean pose; the only part of the shape token where betas are not embedded.
        self.embed_slot = nn.Parameter(torch.randn(NUM_MANO_JOINTS + 2, dim) * 0.02)

    def forward(self, num: int) -> Tensor:
        """(num, 18, dim)."""
        cam = self.embed_cam(self.mean_cam)[None]
        betas = torch.zeros_like(cam) if self.embed_betas is None else self.embed_betas(self.mean_betas)[None]
        means = torch.cat([self.embed_pose(self.mean_pose), betas, cam])
        return (means + self.embed_slot).expand(num, -1, -1)
