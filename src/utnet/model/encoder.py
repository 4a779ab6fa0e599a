"""A plain ViT encoder: pre-norm blocks with scaled dot-product attention (Dosovitskiy et al. 2021).

The layout of ViTPose, MAE and DINOv2 (`qkv` in one layer with a bias, norms with eps 1e-6, GELU, an MLP of four times
the width), so that their blocks can be loaded entry by entry.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_LAYER_SCALE = 0.1
"""Initial value of LayerScale's factors (Touvron et al. 2021, for networks of up to 18 blocks)."""


class Attention(nn.Module):
    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(_attend(q, k, v).transpose(1, 2).flatten(2))


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if q.dtype == torch.float32 or q.device.type != "cpu" or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v)
    # Its backward pass in bfloat16 takes three to five times as long as in float32 on a CPU.
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)


class Block(nn.Module):
    """x + attention, then x + MLP of four times the width; with LayerScale each addend has one factor per channel."""

    def __init__(self, dim: int, num_heads: int, *, layer_scale: bool = False):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = Attention(dim, num_heads)
        self.fc1, self.fc2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.scale1 = nn.Parameter(torch.full((dim,), _LAYER_SCALE)) if layer_scale else None
        self.scale2 = nn.Parameter(torch.full((dim,), _LAYER_SCALE)) if layer_scale else None

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attn(self.norm1(x))
        x = x + (attended if self.scale1 is None else attended * self.scale1)
        mixed = self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return x + (mixed if self.scale2 is None else mixed * self.scale2)


class Encoder(nn.Module):
    """`num_blocks` blocks and a final norm: (B, N, dim) -> (B, N, dim).

    With `checkpoint_blocks` the activations inside a block are recomputed in the backward pass: the same numbers, a
    fraction of the memory, about a third more time.
    """

    def __init__(
        self, dim: int, num_blocks: int, num_heads: int, *, layer_scale: bool = False, checkpoint_blocks: bool = False
    ):
        super().__init__()
        self.checkpoint_blocks = checkpoint_blocks
        self.blocks = nn.ModuleList(Block(dim, num_heads, layer_scale=layer_scale) for _ in range(num_blocks))
        self.norm = nn.LayerNorm(dim, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        recompute = self.checkpoint_blocks and torch.is_grad_enabled()
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return self.norm(x)
