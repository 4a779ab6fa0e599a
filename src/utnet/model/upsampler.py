"""Feature maps from the image tokens, and joints from the first of them.

Two upsamplers with one interface, (token map, the stem's maps) -> feature maps, with their channels in `map_dims`:
`Upsampler` is ours, `DeconvMaps` is WiLoR's.
"""

from __future__ import annotations

from itertools import zip_longest
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.conventions import NUM_JOINTS
from utnet.model.presets import Preset
from utnet.model.stems import ConvBlock

_MAP_DEPTH_UNIT_M = 0.1
_LOG_OUTSIDE = -13.8
"""Log probability (one in a million) of cells outside the network's part of the crop."""


class Upsampler(nn.Module):
    """Image tokens -> maps, each twice as large as the one before; a stem's map of that size, if any, is added.

    Args:
        dim: width of the tokens.
        map_dim: channels of the maps.
        num_maps: number of maps.
        skip_dims: channels of the stem's maps, at stride 8 and then 4; empty for a stem without.
    """

    def __init__(self, dim: int, map_dim: int, *, num_maps: int, skip_dims: tuple[int, ...]):
        super().__init__()
        widths = [dim] + [map_dim] * (num_maps - 1)
        self.map_dims = [map_dim] * num_maps
        self.shrink = nn.ModuleList(nn.Conv2d(before, map_dim, 1) for before in widths)
        self.skips = nn.ModuleList(nn.Conv2d(skip, map_dim, 1) for skip in skip_dims[:num_maps])
        self.blocks = nn.ModuleList(ConvBlock(map_dim) for _ in range(num_maps))

    def forward(self, tokens: Tensor, skips: list[Tensor]) -> list[Tensor]:
        """(B, dim, h, w) and the stem's maps -> [(B, map_dim, 2h, 2w), ...]."""
        maps, x = [], tokens
        added = [skip(stem_map) for skip, stem_map in zip(self.skips, skips, strict=False)]
        for shrink, block, skip in zip_longest(self.shrink, self.blocks, added):
            x = F.interpolate(shrink(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = block(x if skip is None else x + skip)
            maps.append(x)
        return maps


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch normalisation by the stored statistics, also in training; its scale and shift are trained."""

    def train(self, mode: bool = True) -> Self:
        return super().train(False)


def _double(channels: int, out: int) -> list[nn.Module]:
    """A transposed convolution that doubles a map's size (WiLoR: kernel 4, no bias), batch norm, ReLU."""
    deconv = nn.ConvTranspose2d(channels, out, 4, stride=2, padding=1, bias=False)
    return [deconv, FrozenBatchNorm(out).eval(), nn.ReLU()]


class DeconvMaps(nn.Module):
    """WiLoR's maps: dim/8 channels at four times the tokens' size, dim/4 at twice, dim/2 at their own."""

    def __init__(self, dim: int):
        super().__init__()
        self.map_dims = [dim // 8, dim // 4, dim // 2]
        self.first = nn.Conv2d(dim, dim // 2, 1)
        self.twice = nn.Sequential(*_double(dim // 2, dim // 4))
        self.four_times = nn.Sequential(*_double(dim // 2, dim // 4), *_double(dim // 4, dim // 8))

    def forward(self, tokens: Tensor, skips: list[Tensor]) -> list[Tensor]:
        """(B, dim, h, w) -> [(B, dim/8, 4h, 4w), (B, dim/4, 2h, 2w), (B, dim/2, h, w)]; a stem's maps are not used."""
        x = self.first(tokens)
        return [self.four_times(x), self.twice(x), x]


def make_maps(preset: Preset, skip_dims: tuple[int, ...]) -> Upsampler | DeconvMaps | None:
    """The feature maps of a preset: none where nothing uses them, one where only the joint maps do."""
    if preset.refiner == "none" and not preset.joint_maps:
        return None
    if preset.maps == "deconv":
        return DeconvMaps(preset.dim)
    num_maps = 1 if preset.refiner == "none" else preset.num_maps
    return Upsampler(preset.dim, preset.map_dim, num_maps=num_maps, skip_dims=skip_dims)


class JointMaps(nn.Module):
    """One heat map per joint: its position by soft-argmax, its depth and its feature by the same weights.

    Integral regression (Sun et al. 2018): dense supervision that trains localisation long before the pose parameters
    do.

    Args:
        map_dim: channels of the map.
        width_share: share of the square crop's width that the map spans.
    """

    def __init__(self, map_dim: int, *, width_share: float = 1.0):
        super().__init__()
        self.width_share = width_share
        self.heat = nn.Conv2d(map_dim, NUM_JOINTS, 1)
        self.depth = nn.Conv2d(map_dim, NUM_JOINTS, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Computes the joints of a map.

        Args:
            x: (B, C, h, w).

        Returns:
            joints (B, 21, 3): x, y in crop units, z relative to the wrist in m; features (B, 21, C) under them; heat
            (B, 21, h, h), log probabilities of each joint over the square crop (one in a million per cell outside a
            narrower map).
        """
        height, width = x.shape[-2:]
        heat, depth = self.heat(x).flatten(2).float().log_softmax(-1), self.depth(x).flatten(2).float()
        weights = heat.exp()
        xs = ((torch.arange(width, device=x.device) + 0.5) / width - 0.5) * self.width_share
        ys = (torch.arange(height, device=x.device) + 0.5) / height - 0.5
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1).flatten(0, 1)
        # Sums instead of matrix products, which run in half precision under autocast.
        xy = (weights[..., None] * grid).sum(2)
        z = (weights * depth).sum(-1, keepdim=True) * _MAP_DEPTH_UNIT_M
        features = weights.to(x.dtype) @ x.flatten(2).transpose(1, 2)
        beside = (height - width) // 2
        square = F.pad(heat.unflatten(-1, (height, width)), (beside, beside), value=_LOG_OUTSIDE)
        return torch.cat([xy, z - z[:, :1]], -1), features, square
