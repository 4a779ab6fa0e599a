"""A transformer-decoder head: one query token attends to the image tokens and yields the hand (HaMeR's head)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.conventions import NUM_BETAS, NUM_MANO_JOINTS

DECODER_HEAD_DIM = 64
"""Width of an attention head."""


class SelfAttention(nn.Module):
    """Pre-norm self-attention without a bias on queries, keys and values: (B, N, dim) -> (B, N, dim)."""

    def __init__(self, dim: int, num_heads: int):
        super().__init__()
        inner = num_heads * DECODER_HEAD_DIM
        self.norm = nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * inner, bias=False), nn.Linear(inner, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (_heads(part) for part in self.qkv(self.norm(x)).chunk(3, -1))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class CrossAttention(nn.Module):
    """Pre-norm attention of tokens (B, N, dim) to a context (B, M, context_dim), which is not normalised again."""

    def __init__(self, dim: int, context_dim: int, num_heads: int):
        super().__init__()
        inner = num_heads * DECODER_HEAD_DIM
        self.norm = nn.LayerNorm(dim)
        self.q, self.kv = nn.Linear(dim, inner, bias=False), nn.Linear(context_dim, 2 * inner, bias=False)
        self.proj = nn.Linear(inner, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q = _heads(self.q(self.norm(x)))
        k, v = (_heads(part) for part in self.kv(context).chunk(2, -1))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def _heads(x: Tensor) -> Tensor:
    """(B, N, heads * 64) -> (B, heads, N, 64)."""
    return x.unflatten(-1, (-1, DECODER_HEAD_DIM)).transpose(1, 2)


class DecoderLayer(nn.Module):
    """x + self-attention, + cross-attention, + MLP."""

    def __init__(self, dim: int, context_dim: int, num_heads: int, mlp_dim: int):
        super().__init__()
        self.attend_self = SelfAttention(dim, num_heads)
        self.attend_image = CrossAttention(dim, context_dim, num_heads)
        self.norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, mlp_dim), nn.Linear(mlp_dim, dim)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.attend_self(x)
        x = x + self.attend_image(x, context)
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class HandDecoder(nn.Module):
    """Image tokens -> one hand token (Pavlakos et al. 2024, HaMeR).

    Args:
        dim: width of the hand token.
        num_layers: decoder layers.
        num_heads: attention heads of `DECODER_HEAD_DIM` each.
        mlp_dim: hidden width of the layers' MLP.
        context_dim: width of the image tokens.
        mean_pose: (16, 6) mean joint rotations, 6D; the head's residuals are added without normalisation.
        mean_cam: (3,) mean s, tx, ty.
    """

    mean_pose: Tensor
    mean_betas: Tensor
    mean_cam: Tensor

    def __init__(
        self,
        dim: int,
        num_layers: int,
        num_heads: int,
        mlp_dim: int,
        *,
        context_dim: int,
        mean_pose: Tensor,
        mean_cam: Tensor,
    ):
        super().__init__()
        self.register_buffer("mean_pose", mean_pose)
        self.register_buffer("mean_betas", torch.zeros(NUM_BETAS))
        self.register_buffer("mean_cam", mean_cam)
        self.query = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.layers = nn.ModuleList(DecoderLayer(dim, context_dim, num_heads, mlp_dim) for _ in range(num_layers))

    def forward(self, image: Tensor) -> Tensor:
        """(B, N, context_dim) image tokens -> (B, 1, dim)."""
        token = self.query.expand(image.shape[0], -1, -1)
        for layer in self.layers:
            token = layer(token, image)
        return token


class TokenHead(nn.Module):
    """(B, N, dim) identical hand tokens -> residuals of pose (B, 16, 6), betas (B, 10) and camera (B, 3), shift in
    m."""

    def __init__(self, dim: int):
        super().__init__()
        self.pose, self.betas = nn.Linear(dim, NUM_MANO_JOINTS * 6), nn.Linear(dim, NUM_BETAS)
        self.cam = nn.Linear(dim, 3)
        for layer in (self.pose, self.betas, self.cam):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Always in float32, as `heads.ParameterHead`."""
        x = tokens[:, 0].float()
        return self.pose(x).unflatten(-1, (NUM_MANO_JOINTS, 6)), self.betas(x), self.cam(x)
