"""EfficientNet-Lite0 (Tan & Le 2019; the "lite" family: ReLU6, no squeeze-and-excitation) down to stride 16, as a stem.

Its ImageNet weights are free to use (`utnet.training.pretrained` loads them). Batch normalisation is folded into the
convolutions.
"""

from __future__ import annotations

from itertools import accumulate, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.model.depthwise import depthwise_conv, trains_on_cpu
from utnet.model.stems import ConvBlock, embed, embed_or_placeholder
from utnet.model.tokens import IMAGENET_MEAN, IMAGENET_STD

STAGES = (
    # kernel, stride, expansion, channels, blocks
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
)
_LAST_OF_STAGE = tuple(accumulate((num for *_, num in STAGES), initial=-1))[1:]
"""The last block of each stage."""
FIRST_DIM = 32
"""Channels of its first convolution, at stride 2."""
_MEAN, _STD = 127 / 255, 128 / 255
"""Its input normalisation: (rgb - mean) / std."""
_DEPTH_DIMS = (32, 64, 96)


def _pad(x: Tensor, kernel: int) -> Tensor:
    """TensorFlow's padding of a convolution of stride 2 on an even size: one more below and on the right."""
    before = (kernel - 2) // 2
    return F.pad(x, (before, kernel - 2 - before) * 2)


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, 1x1 projection; added to the input where the shapes are equal."""

    def __init__(self, dim: int, out: int, *, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = dim * expansion
        self.kernel, self.stride, self.residual = kernel, stride, stride == 1 and dim == out
        self.expand = nn.Conv2d(dim, wide, 1) if expansion > 1 else None
        padding = 0 if stride == 2 else kernel // 2
        self.depthwise = nn.Conv2d(wide, wide, kernel, stride=stride, padding=padding, groups=wide)
        self.project = nn.Conv2d(wide, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = _pad(y, self.kernel) if self.stride == 2 else y
        depthwise, padding = self.depthwise, 0 if self.stride == 2 else self.kernel // 2
        y = depthwise_conv(y, depthwise.weight, depthwise.bias, stride=self.stride, padding=padding)
        y = self.project(F.relu6(y))
        return x + y if self.residual else y


class LiteStem(nn.Module):
    """RGB through EfficientNet-Lite0, depth through a few convolutions, added at stride 4.

    The same interface as the other stems; the maps are those at strides 8 and 4.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, dim: int):
        super().__init__()
        self.first = nn.Conv2d(3, FIRST_DIM, 3, stride=2)
        blocks, before = [], FIRST_DIM
        for kernel, stride, expansion, out, num in STAGES:
            for i in range(num):
                block = InvertedResidual(
                    before, out, kernel=kernel, stride=stride if i == 0 else 1, expansion=expansion
                )
                blocks.append(block)
                before = out
        self.blocks = nn.ModuleList(blocks)
        self.embed_depth = embed(4, _DEPTH_DIMS[0])
        self.placeholder = nn.Parameter(torch.zeros(_DEPTH_DIMS[0], 1, 1))
        self.depth_blocks = nn.ModuleList(ConvBlock(width) for width in _DEPTH_DIMS)
        self.depth_down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(_DEPTH_DIMS))
        self.to_tokens = nn.Conv2d(before + _DEPTH_DIMS[-1], dim, 1)
        self.map_dims = (STAGES[2][3] + _DEPTH_DIMS[1], STAGES[1][3] + _DEPTH_DIMS[0])
        scale = torch.tensor(IMAGENET_STD).view(3, 1, 1) / _STD
        shift = (torch.tensor(IMAGENET_MEAN).view(3, 1, 1) - _MEAN) / _STD
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)

    def forward(self, rgb: Tensor, depth: Tensor | None, depth_ok: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) and (B, 4, H, W) with (B,) bool, or None -> tokens (B, dim, H/16, W/16), maps at 8 and 4."""
        x = (rgb * self.scale + self.shift).contiguous(memory_format=torch.channels_last)
        x = F.relu6(self.first(_pad(x, 3)))
        seen = []
        for block in self.blocks:
            x = block(x)
            seen.append(x)
        at4, at8 = seen[_LAST_OF_STAGE[1]], seen[_LAST_OF_STAGE[2]]
        num = rgb.shape[0]  # not len: an exported network takes any batch size
        depths = self._depth_maps(depth, depth_ok, (num, -1, *at4.shape[-2:]))
        tokens = self.to_tokens(torch.cat([x, depths[2]], 1))
        return tokens, [torch.cat([at8, depths[1]], 1), torch.cat([at4, depths[0]], 1)]

    def _depth_maps(
        self, depth: Tensor | None, depth_ok: Tensor | None, shape: tuple[int, int, int, int]
    ) -> list[Tensor]:
        """Maps of the depth at strides 4 (of `shape`), 8 and 16."""
        if depth is None or depth_ok is None or not trains_on_cpu(depth):
            return self._depth_trunk(
                embed_or_placeholder(self.embed_depth, self.placeholder, depth, depth_ok).expand(shape)
            )
        # Samples without depth have the same maps, which are computed once, as the first.
        nothing = self.placeholder.expand(1, *shape[1:])
        maps = self._depth_trunk(torch.cat([nothing, self.embed_depth(depth[depth_ok])]))
        rows = depth_ok.cumsum(0) * depth_ok
        return [depth_map.index_select(0, rows) for depth_map in maps]

    def _depth_trunk(self, x: Tensor) -> list[Tensor]:
        maps = [self.depth_blocks[0](x)]
        for down, block in zip(self.depth_down, list(self.depth_blocks)[1:], strict=True):
            maps.append(block(down(maps[-1])))
        return maps
