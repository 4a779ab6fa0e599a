"""Feature maps from the image tokens, and the joints read off the first of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.conventions import NUM_JOINTS
from utnet.model.tokens import ConvBlock

_MAP_DEPTH_UNIT_M = 0.1


class Upsampler(nn.Module):
    """Image tokens -> maps, each twice as large as the one before, with the stem's map of that size added."""

    def __init__(self, dim: int, skip_dims: list[int], map_dim: int):
        super().__init__()
        widths = [dim] + [map_dim] * len(skip_dims)
        self.shrink = nn.ModuleList(nn.Conv2d(before, map_dim, 1) for before in widths[:-1])
        self.skips = nn.ModuleList(nn.Conv2d(skip, map_dim, 1) for skip in skip_dims)
        self.blocks = nn.ModuleList(ConvBlock(map_dim) for _ in skip_dims)

    def forward(self, tokens: Tensor, skips: list[Tensor]) -> list[Tensor]:
        """(B, dim, h, w) and the stem's maps -> [(B, map_dim, 2h, 2w), ...]."""
        maps, x = [], tokens
        for shrink, skip, stem_map, block in zip(self.shrink, self.skips, skips, self.blocks, strict=False):
            up = F.interpolate(shrink(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(up + skip(stem_map))
            maps.append(x)
        return maps


class JointMaps(nn.Module):
    """One heat map a joint: its position by soft-argmax, its depth and its feature by the same weights.

    Integral regression (Sun et al. 2018) gives the image a short way to the joints: dense supervision teaches the
    network where things are long before the pose parameters do.
    """

    def __init__(self, map_dim: int):
        super().__init__()
        self.heat = nn.Conv2d(map_dim, NUM_JOINTS, 1)
        self.depth = nn.Conv2d(map_dim, NUM_JOINTS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Reads the joints off a map.

        Args:
            x: (B, C, h, w).

        Returns:
            joints (B, 21, 3): x, y in crop units, z relative to the wrist in m; features (B, 21, C) under them; heat
            (B, 21, h, w), logarithms of each joint's probability over the map.
        """
        height, width = x.shape[-2:]
        heat, depth = self.heat(x).flatten(2).float().log_softmax(-1), self.depth(x).flatten(2).float()
        weights = heat.exp()
        xs = (torch.arange(width, device=x.device) + 0.5) / width - 0.5
        ys = (torch.arange(height, device=x.device) + 0.5) / height - 0.5
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).flatten(0, 1)
        # Sums, not matrix products: those would run in half precision under autocast.
        xy = (weights[..., None] * grid).sum(2)
        z = (weights * depth).sum(-1, keepdim=True) * _MAP_DEPTH_UNIT_M
        features = weights.to(x.dtype) @ x.flatten(2).transpose(1, 2)
        return torch.cat([xy, z - z[:, :1]], -1), features, heat.unflatten(-1, (height, width))
