"""From hand tokens to a coarse hand: the joints of the maps join the tokens, then small linear heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.conventions import NUM_BETAS, NUM_JOINTS, NUM_MANO_JOINTS, OPENPOSE_TO_MANO21
from utnet.model.encoder import Block

_UNITS = (0.25, 0.25, 0.1)
"""Typical spread of a joint's x, y (crop units) and z (m): brings the coordinates near 1."""


class JointReadout(nn.Module):
    """Adds what the maps say of the joints to the hand tokens, and lets the tokens talk it over."""

    def __init__(self, dim: int, map_dim: int, num_heads: int, depth: int = 2):
        super().__init__()
        self.positions = nn.Sequential(
            nn.Linear(NUM_JOINTS * 3, 2 * dim), nn.GELU(), nn.Linear(2 * dim, 2 * dim), nn.GELU()
        )
        self.to_tokens = nn.Linear(2 * dim, (NUM_MANO_JOINTS + 2) * dim)
        self.features = nn.Linear(map_dim, dim)
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))

    def forward(self, tokens: Tensor, joints: Tensor, features: Tensor) -> Tensor:
        """tokens (B, 18, dim), joints (B, 21, 3), features (B, 21, C) -> (B, 18, dim)."""
        scaled = joints / joints.new_tensor(_UNITS)
        tokens = tokens + self.to_tokens(self.positions(scaled.flatten(1))).unflatten(-1, tokens.shape[1:])
        own = self.features(features[:, list(OPENPOSE_TO_MANO21[:NUM_MANO_JOINTS])])
        tokens = tokens + F.pad(own, (0, 0, 0, 2))  # the shape and camera tokens have no joint
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


class ParameterHead(nn.Module):
    """(B, 18, dim) hand tokens -> residuals of pose (B, 16, 6), betas (B, 10) and camera (B, 3).

    `plain` is WiLoR's: linear layers on tokens that are normalised already, and a camera shift in metres; ours has a
    norm of its own and a shift in units of 0.1 m.
    """

    def __init__(self, dim: int, *, plain: bool = False):
        super().__init__()
        self.norm = nn.Identity() if plain else nn.LayerNorm(dim, eps=1e-6)
        self.shift_unit_m = 1.0 if plain else 0.1
        self.pose, self.betas, self.cam = nn.Linear(dim, 6), nn.Linear(dim, NUM_BETAS), nn.Linear(dim, 3)
        for layer in (self.pose, self.betas, self.cam):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.norm(tokens)
        pose, betas, cam = self.pose(x[:, :NUM_MANO_JOINTS]), self.betas(x[:, -2]), self.cam(x[:, -1])
        return pose.float(), betas.float(), torch.cat([cam[:, :1], cam[:, 1:] * self.shift_unit_m], 1).float()
