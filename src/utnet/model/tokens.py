"""From pixels to tokens: RGB and optional depth become image tokens, mean parameters become hand tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.conventions import NUM_MANO_JOINTS

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_DEPTH_UNIT_M = 0.1
_DEPTH_RANGE_M = 0.25
"""Readings farther than this from the hand's distance are background or something in front: marked invalid."""
_DEPTH_QUANTILE = 0.2
"""The hand is mostly the nearest thing in its box, and edge-on it covers less than a third of it."""
_WIDTH_WITHOUT_K_M = 0.3
"""Assumed width of a crop at the hand's distance when the camera is not known."""


def normalise_rgb(rgb: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> ImageNet mean 0 and deviation 1."""
    mean = torch.tensor(IMAGENET_MEAN, device=rgb.device, dtype=rgb.dtype).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=rgb.device, dtype=rgb.dtype).view(3, 1, 1)
    return (rgb - mean) / std


def hand_distance(depth_m: Tensor) -> Tensor:
    """Robust distance of the hand from the depth inside its box, without labels: a quantile over the crop's middle.

    The middle half of a crop lies inside the hand's box whatever the margin round it (up to twice the box).

    Args:
        depth_m: (B, H, W), 0 where there is no reading.

    Returns:
        (B,) metres; NaN where the middle holds no reading.
    """
    height, width = depth_m.shape[1:]
    middle = depth_m[:, height // 4 : height - height // 4 : 2, width // 4 : width - width // 4 : 2].flatten(1)
    return torch.nanquantile(torch.where(middle > 0, middle, torch.nan), _DEPTH_QUANTILE, dim=1)


def depth_channels(depth_m: Tensor, distance_m: Tensor, K_px: Tensor | None) -> Tensor:
    """Every reading as a metric point relative to the hand, and whether it is one.

    Args:
        depth_m: (B, H, W), 0 where there is no reading.
        distance_m: (B,) of `hand_distance`, finite.
        K_px: (B, 3, 3) of the crop, or None (then the crop is taken to be 0.3 m wide at the hand).

    Returns:
        (B, 4, H, W): x, y from the crop's centre and z from the hand's distance in units of 0.1 m, and validity 0/1;
        all 0 where the reading is missing or farther than 0.25 m from the hand.
    """
    height, width = depth_m.shape[1:]
    if K_px is None:
        metres_per_px = (_WIDTH_WITHOUT_K_M / width) * torch.ones_like(distance_m)
    else:
        metres_per_px = distance_m / K_px[:, :2, :2].det().abs().sqrt()
    relative = depth_m - distance_m[:, None, None]
    valid = (depth_m > 0) & (relative.abs() < _DEPTH_RANGE_M)
    scale = (metres_per_px / _DEPTH_UNIT_M)[:, None, None] * (depth_m / distance_m[:, None, None])
    x = torch.arange(width, device=depth_m.device, dtype=depth_m.dtype) - (width - 1) / 2
    y = torch.arange(height, device=depth_m.device, dtype=depth_m.dtype) - (height - 1) / 2
    channels = torch.stack([x * scale, y[:, None] * scale, relative / _DEPTH_UNIT_M], 1)
    valid = valid[:, None]
    return torch.cat([torch.where(valid, channels, 0.0), valid.to(depth_m.dtype)], 1)


class ConvBlock(nn.Module):
    """Residual pair of 3x3 convolutions with group normalisation (no batch statistics)."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, dim), nn.GroupNorm(8, dim)
        self.conv1, self.conv2 = nn.Conv2d(dim, dim, 3, padding=1), nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.norm2(self.conv1(F.gelu(self.norm1(x))))))


def _embed(channels: int, dim: int) -> nn.Sequential:
    """Two convolutions down to stride 4: a finger is only a few pixels wide."""
    return nn.Sequential(
        nn.Conv2d(channels, dim // 2, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
    )


class Stem(nn.Module):
    """RGB and depth, each embedded at stride 4 and added there, then one trunk down to stride 16.

    T = T_rgb + n T_depth + (1 - n) T_placeholder with n = 1 for samples with depth (DESIGN.md section 6); the sum is
    taken before the trunk rather than after it, so that both kinds of input share its convolutions.
    """

    def __init__(self, dims: tuple[int, int, int], dim: int):
        super().__init__()
        first, second, third = dims
        self.embed_rgb = _embed(3, first)
        self.embed_depth = _embed(4, first)
        self.placeholder = nn.Parameter(torch.zeros(first, 1, 1))
        self.block4 = ConvBlock(first)
        self.down8 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.block8 = ConvBlock(second)
        self.down16 = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.block16 = ConvBlock(third)
        self.to_tokens = nn.Conv2d(third, dim, 1)

    def forward(self, rgb: Tensor, depth: Tensor | None, depth_ok: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) and (B, 4, H, W) with (B,) bool, or None -> tokens (B, dim, H/16, W/16), maps at 4 and 8."""
        x = self.embed_rgb(rgb)
        if depth is None or depth_ok is None:
            x = x + self.placeholder
        else:
            # A sample without depth must not see the tensor's content at all, not even 0 * NaN.
            x = x + torch.where(depth_ok[:, None, None, None], self.embed_depth(depth), self.placeholder)
        x4 = self.block4(x)
        x8 = self.block8(self.down8(x4))
        x16 = self.block16(self.down16(x8))
        return self.to_tokens(x16), [x8, x4]


class HandTokens(nn.Module):
    """16 pose tokens, 1 shape token and 1 camera token, made from the mean parameters."""

    def __init__(self, dim: int, mean_pose: Tensor, mean_cam: Tensor):
        super().__init__()
        self.register_buffer("mean_pose", mean_pose)
        self.register_buffer("mean_cam", mean_cam)
        self.embed_pose, self.embed_cam = nn.Linear(6, dim), nn.Linear(3, dim)
        # Tells joints of the same mean pose apart; it is all that the shape token has, whose mean is 0.
        self.embed_slot = nn.Parameter(torch.randn(NUM_MANO_JOINTS + 2, dim) * 0.02)

    def forward(self, num: int) -> Tensor:
        """(num, 18, dim)."""
        cam = self.embed_cam(self.mean_cam)[None]
        means = torch.cat([self.embed_pose(self.mean_pose), torch.zeros_like(cam), cam])
        return (means + self.embed_slot).expand(num, -1, -1)
