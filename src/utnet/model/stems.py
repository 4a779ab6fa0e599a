"""From pixels to image tokens: convolutions for networks trained from scratch, plain patches for a ViT's weights.

Both compute T = T_rgb + n T_depth + (1 - n) T_placeholder with n = 1 for samples with depth (docs/design.md), with one
interface: (rgb, depth channels or None, which samples have depth or None) -> image tokens as a map, and the stem's own
maps at growing size for the upsampler.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_DEPTH_DIM = 32  # channels of the first layer of the patch stem's depth path


class ConvBlock(nn.Module):
    """Residual pair of 3x3 convolutions with group normalisation (no batch statistics)."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, dim), nn.GroupNorm(8, dim)
        self.conv1, self.conv2 = nn.Conv2d(dim, dim, 3, padding=1), nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.gelu(self.norm2(self.conv1(F.gelu(self.norm1(x))))))


def embed(channels: int, dim: int) -> nn.Sequential:
    """Two convolutions down to stride 4: a finger is only a few pixels wide."""
    return nn.Sequential(
        nn.Conv2d(channels, dim // 2, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
    )


def embed_or_placeholder(
    embed: nn.Module, placeholder: Tensor, depth: Tensor | None, depth_ok: Tensor | None
) -> Tensor:
    """n T_depth + (1 - n) T_placeholder."""
    if depth is None or depth_ok is None:
        return placeholder
    # `where`, because 0 * NaN of a sample without depth would be NaN.
    return torch.where(depth_ok[:, None, None, None], embed(depth), placeholder)


class ConvStem(nn.Module):
    """RGB and depth, each embedded at stride 4 and added there, then one trunk down to stride 16.

    They are added before the trunk, so that both kinds of input share its convolutions.
    """

    def __init__(self, dims: tuple[int, int, int], dim: int):
        super().__init__()
        first, second, third = dims
        self.embed_rgb = embed(3, first)
        self.embed_depth = embed(4, first)
        self.placeholder = nn.Parameter(torch.zeros(first, 1, 1))
        self.block4 = ConvBlock(first)
        self.down8 = nn.Conv2d(first, second, 3, stride=2, padding=1)
        self.block8 = ConvBlock(second)
        self.down16 = nn.Conv2d(second, third, 3, stride=2, padding=1)
        self.block16 = ConvBlock(third)
        self.to_tokens = nn.Conv2d(third, dim, 1)
        self.map_dims = (second, first)

    def forward(self, rgb: Tensor, depth: Tensor | None, depth_ok: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) and (B, 4, H, W) with (B,) bool, or None -> tokens (B, dim, H/16, W/16), maps at 8 and 4."""
        x = self.embed_rgb(rgb) + embed_or_placeholder(self.embed_depth, self.placeholder, depth, depth_ok)
        x4 = self.block4(x)
        x8 = self.block8(self.down8(x4))
        x16 = self.block16(self.down16(x8))
        return self.to_tokens(x16), [x8, x4]


class PatchStem(nn.Module):
    """A ViT's patch embedding of RGB, and a depth path whose last layer is zero-initialised.

    A network with RGB weights therefore has exactly their outputs, whatever the depth, and the depth path has a
    gradient from the first step (its first layer from the second).
    """

    def __init__(self, dim: int, patch_px: int, patch_pad_px: int):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch_px, stride=patch_px, padding=patch_pad_px)
        half = patch_px // 2
        to_tokens = nn.Conv2d(_DEPTH_DIM, dim, half, stride=half)
        for parameter in to_tokens.parameters():
            nn.init.zeros_(parameter)
        self.embed_depth = nn.Sequential(nn.Conv2d(4, _DEPTH_DIM, 3, stride=2, padding=1), nn.GELU(), to_tokens)
        self.placeholder = nn.Parameter(torch.zeros(dim, 1, 1))
        self.map_dims = ()

    def forward(self, rgb: Tensor, depth: Tensor | None, depth_ok: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) and (B, 4, H, W) with (B,) bool, or None -> tokens (B, dim, H/patch, W/patch), no maps."""
        return self.patches(rgb) + embed_or_placeholder(self.embed_depth, self.placeholder, depth, depth_ok), []
