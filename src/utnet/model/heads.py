"""From hand tokens to a coarse hand: joints read from the maps are added to the tokens, then small linear heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.conventions import JOINT_NAMES, NUM_BETAS, NUM_JOINTS, NUM_MANO_JOINTS, OPENPOSE_TO_MANO21, PARENTS, TIPS
from utnet.model.encoder import Block
from utnet.uncertainty import HAND_SHAPE

_UNITS = (0.25, 0.25, 0.1)
"""Typical deviations of a joint's x, y (crop units) and z (m), used to normalise the coordinates."""


class JointReadout(nn.Module):
    """Adds joint features read from the maps to the hand tokens, followed by self-attention."""

    def __init__(self, dim: int, map_dim: int, num_heads: int, num_blocks: int = 2):
        super().__init__()
        self.positions = nn.Sequential(
            nn.Linear(NUM_JOINTS * 3, 2 * dim), nn.GELU(), nn.Linear(2 * dim, 2 * dim), nn.GELU()
        )
        self.to_tokens = nn.Linear(2 * dim, (NUM_MANO_JOINTS + 2) * dim)
        self.features = nn.Linear(map_dim, dim)
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(num_blocks))

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

    `plain` is WiLoR's: linear layers on normalised tokens and a camera shift in metres; ours has its own norm and a
    shift in units of 0.1 m.
    """

    def __init__(self, dim: int, *, plain: bool = False):
        super().__init__()
        self.norm = nn.Identity() if plain else nn.LayerNorm(dim, eps=1e-6)
        self.shift_unit_m = 1.0 if plain else 0.1
        self.pose, self.betas, self.cam = nn.Linear(dim, 6), nn.Linear(dim, NUM_BETAS), nn.Linear(dim, 3)
        for layer in (self.pose, self.betas, self.cam):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Always in float32: half precision here costs fractions of a millimetre."""
        x = self.norm(tokens.float())
        pose, betas, cam = self.pose(x[:, :NUM_MANO_JOINTS]), self.betas(x[:, -2]), self.cam(x[:, -1])
        return pose, betas, torch.cat([cam[:, :1], cam[:, 1:] * self.shift_unit_m], 1)


_ROOT_UNIT_M = 0.1


class RootHead(nn.Module):
    """Distance of the wrist: the robust distance of the depth in the box plus a learnt residual.

    The residual is linear in the camera token and zero-initialised.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.offset = nn.Linear(dim, 1)
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor, distance_m: Tensor, depth_ok: Tensor) -> Tensor:
        """tokens (B, 18, dim), distances (B,) in m, which samples have one (B,) -> (B,) m, NaN for the others."""
        token = F.layer_norm(tokens[:, -1], tokens.shape[-1:])
        offset = self.offset(token)[:, 0].float() * _ROOT_UNIT_M
        return torch.where(depth_ok, distance_m + offset, torch.nan)


_SCALE_DIM = 64
_START_MM = 40.0
PACE = 10.0
"""Factor on the learning rate of levels and shapes, single numbers that a weight's rate trains too slowly."""
_JOINT_UNIT_M = 0.1

# Every joint's token is that of the joint that moves it; a fingertip's that of the last joint before it.
_TOKEN_OF_JOINT = [OPENPOSE_TO_MANO21.index(PARENTS[j] if j in TIPS else j) for j in range(NUM_JOINTS)]


class ScaleHead(nn.Module):
    """Expected error of each joint relative to the wrist, and the shape of its distribution (`utnet.uncertainty`).

    Its inputs, the network's tokens and hand, are detached. Whether a sample has depth is an input, with a learnt level
    per joint for either case (without it a short training underestimates errors of RGB and overestimates those of
    RGB-D). The shape is two numbers for RGB and two for RGB-D; with prompts there are four cases instead of two.
    """

    def __init__(self, dim: int, *, prompts: bool = False):
        super().__init__()
        num_kinds = 4 if prompts else 2
        self.own, self.all = nn.Linear(dim, _SCALE_DIM), nn.Linear(2 * dim, _SCALE_DIM)
        self.place = nn.Linear(3, _SCALE_DIM)
        self.joint = nn.Parameter(torch.randn(NUM_JOINTS, _SCALE_DIM) * 0.02)
        self.mix, self.out = nn.Linear(_SCALE_DIM, _SCALE_DIM), nn.Linear(_SCALE_DIM, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.kind = nn.Parameter(torch.randn(num_kinds, _SCALE_DIM) * 0.02)
        self.level = nn.Parameter(torch.zeros(num_kinds, NUM_JOINTS))
        # One axis, so that weight decay leaves it alone: (k, p) of RGB, RGB-D, and of these with prompts.
        self.log_shape = nn.Parameter(torch.tensor(HAND_SHAPE * num_kinds).log() / PACE)

    def forward(
        self, tokens: Tensor, joints_m: Tensor, depth_ok: Tensor, prompted: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """tokens (B, 18, dim), joints (B, 21, 3), which samples have depth, and prompts (B,) -> (B, 21) mm, (B, 2)."""
        tokens, joints_m = tokens.detach(), joints_m.detach()
        tokens = F.layer_norm(tokens, tokens.shape[-1:])
        place = (joints_m - joints_m[:, :1]) / _JOINT_UNIT_M
        x = self.own(tokens[:, _TOKEN_OF_JOINT]) + self.place(place) + self.joint
        kind = depth_ok.long() if prompted is None else depth_ok.long() + 2 * prompted.long()
        x = x + (self.all(torch.cat([tokens[:, 0], tokens.mean(1)], -1)) + self.kind[kind])[:, None]
        log_scale = self.out(F.gelu(self.mix(F.gelu(x))))[..., 0].float() + self.level[kind] * PACE
        scale_mm = log_scale.exp() * _START_MM
        wrist = torch.arange(NUM_JOINTS, device=scale_mm.device) == JOINT_NAMES.index("wrist")
        shape = (self.log_shape * PACE).exp().view(-1, 2)
        return torch.where(wrist, 0.0, scale_mm), shape[kind]
