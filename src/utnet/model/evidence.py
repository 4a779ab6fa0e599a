"""Segmentation and handedness: which pixels are the hand's, and whether it is a right hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_WIDTH = 32
CELLS = 4
"""Cells of the mask per token, in each direction."""


class EvidenceHead(nn.Module):
    """Predicts a mask of the visible hand and its side from the first feature map and the stem's finest one.

    Args:
        map_dim: channels of the first feature map.
        skip_dim: channels of the stem's finest map, or 0 without one.
    """

    def __init__(self, map_dim: int, skip_dim: int = 0):
        super().__init__()
        self.coarse = nn.Conv2d(map_dim, _WIDTH, 1)
        self.fine = nn.Conv2d(skip_dim, _WIDTH, 1) if skip_dim else None
        self.mix = nn.Conv2d(_WIDTH, _WIDTH, 3, padding=1)
        self.mask = nn.Conv2d(_WIDTH, 1, 3, padding=1)
        self.side_hidden, self.side = nn.Linear(2 * map_dim, 2 * map_dim), nn.Linear(2 * map_dim, 1)

    def forward(self, feature_map: Tensor, skips: list[Tensor], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Predicts mask and side.

        Args:
            feature_map: (B, C, h, w).
            skips: the stem's maps, the finest (of `size`, where there is one) last.
            size: height and width of the mask, `CELLS` per token.

        Returns:
            Logits of the mask (B, *size) over the network's part of the crop, and of the side (B,), above 0 for a
            right hand.
        """
        x = F.interpolate(self.coarse(feature_map), size=size, mode="bilinear", align_corners=False)
        if self.fine is not None:
            x = x + self.fine(skips[-1])
        x = x + self.mix(F.gelu(x))
        mask = self.mask(F.gelu(x))[:, 0]
        pooled = torch.cat([feature_map.mean((2, 3)), feature_map.amax((2, 3))], 1)
        return mask.float(), self.side(F.gelu(self.side_hidden(pooled)))[:, 0].float()
