"""Landmarks as prompts: 21 optional joints, each with its position in the crop, relative 3D and a confidence.

A joint of confidence 0 is absent: its numbers, NaN included, have no effect. Each of the prompt paths ends in a
zero-initialised layer, so weights trained without prompts have the same outputs at first, with prompts and without.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.conventions import NUM_JOINTS, NUM_MANO_JOINTS
from utnet.types import check_shape

PROMPT_AXES = 6
"""x, y in crop units, relative x, y, z in metres, confidence."""
_POSITION_UNIT, _RELATIVE_UNIT_M = 0.25, 0.05
_FARTHEST = 2.0
"""Crop units; prompts farther from the crop's centre are clamped to this distance."""
_FREQUENCIES = (1.0, 2.0, 4.0, 8.0)
"""Frequencies of the positional encoding of a prompt, in periods per crop width."""
_SPREAD = 0.05
"""Standard deviation, in crop widths, of a prompt's Gaussian on the map."""
_HIDDEN, _RANK = 384, 48
"""Hidden width of `PromptTable`, and width of its output per hand token before the last layer."""


class Prompts:
    """Validated prompts of a batch; all numbers of an absent joint are 0.

    Attributes:
        xy: (B, 21, 2) crop units.
        present: (B, 21) bool.
        any: (B,) bool, samples with at least one prompt.
        numbers: (B, 21, 8) presence, confidence, x, y, whether the relative 3D is known, and it (about its mean),
            normalised.
    """

    def __init__(self, landmarks: Tensor, num: int):
        check_shape("landmarks", landmarks, (num, NUM_JOINTS, PROMPT_AXES))
        landmarks = landmarks.float()
        confidence = landmarks[..., 5].nan_to_num()
        self.present = (confidence > 0) & landmarks[..., :2].isfinite().all(-1)
        self.any = self.present.any(1)
        known = (self.present & landmarks[..., 2:5].isfinite().all(-1))[..., None]
        self.xy = torch.where(self.present[..., None], landmarks[..., :2], 0.0).clamp(-_FARTHEST, _FARTHEST)
        relative = torch.where(known, landmarks[..., 2:5], 0.0)
        mean = relative.sum(1, keepdim=True) / known.sum(1, keepdim=True).clamp_min(1)
        relative = torch.where(known, relative - mean, 0.0) / _RELATIVE_UNIT_M
        present = self.present[..., None].float()
        confidence = torch.where(self.present, confidence, 0.0)[..., None].clamp_max(1.0)
        self.numbers = torch.cat([present, confidence, self.xy / _POSITION_UNIT, known.float(), relative], -1)

    def offsets(self, joints_crop: Tensor) -> Tensor:
        """(B, 21, 2) normalised offsets from the network's joints (B, 21, 2) to the prompts; 0 for absent ones."""
        offsets = (self.xy - joints_crop.float()).clamp(-_FARTHEST, _FARTHEST) / _POSITION_UNIT
        return torch.where(self.present[..., None], offsets, 0.0)


def _zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


class PromptAttention(nn.Module):
    """Cross-attention to the prompts, each a token of its joint, its numbers and the image feature at its position."""

    def __init__(self, dim: int, num_heads: int, *, width_share: float = 1.0):
        super().__init__()
        self.num_heads, self.width_share = num_heads, width_share
        self.joint = nn.Parameter(torch.randn(NUM_JOINTS, dim) * 0.02)
        self.nothing = nn.Parameter(torch.randn(1, 1, dim) * 0.02)  # an additional key beside the prompts
        self.fc1, self.fc2 = nn.Linear(8 + 4 * len(_FREQUENCIES), dim), nn.Linear(dim, dim)
        self.feature = nn.Linear(dim, dim)
        self.norm, self.norm_prompts = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = _zero(nn.Linear(dim, dim))

    def forward(self, tokens: Tensor, image: Tensor, prompts: Prompts) -> Tensor:
        """tokens (B, N, dim) and the image's token map (B, dim, h, w) -> (B, N, dim)."""
        angles = 2 * torch.pi * prompts.xy[..., None] * prompts.xy.new_tensor(_FREQUENCIES)
        numbers = torch.cat([prompts.numbers, angles.sin().flatten(2), angles.cos().flatten(2)], -1)
        grid = (2 * prompts.xy / prompts.xy.new_tensor([self.width_share, 1.0]))[:, None]
        seen = F.grid_sample(image.float(), grid, align_corners=False, padding_mode="border")[:, :, 0].transpose(1, 2)
        own = self.joint + self.fc2(F.gelu(self.fc1(numbers))) + self.feature(seen.to(image.dtype))
        own = torch.cat([self.nothing.expand(own.shape[0], -1, -1).to(own.dtype), own], 1)
        k, v = self.key_value(self.norm_prompts(own)).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        q = self.query(self.norm(tokens)).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        with torch.autocast(q.device.type, enabled=False):  # as in the encoder: slow in bfloat16 on a CPU
            logits = (q.float() @ k.float().mT) * q.shape[-1] ** -0.5
            absent = torch.cat([torch.zeros_like(prompts.present[:, :1]), ~prompts.present], 1)[:, None, None]
            mixed = logits.masked_fill(absent, -torch.inf).softmax(-1) @ v.float()
        added = self.proj(mixed.transpose(1, 2).flatten(2))
        return tokens + torch.where(prompts.any[:, None, None], added, 0.0).to(tokens.dtype)


class PromptMap(nn.Module):
    """A Gaussian on the feature map at each prompt, one channel per joint, mixed into the map's channels."""

    def __init__(self, map_dim: int, *, width_share: float = 1.0):
        super().__init__()
        self.width_share = width_share
        self.mix = _zero(nn.Conv2d(2 * NUM_JOINTS, map_dim, 1, bias=False))

    def forward(self, feature_map: Tensor, prompts: Prompts) -> Tensor:
        """(B, C, h, w) -> the same."""
        height, width = feature_map.shape[-2:]
        xs = ((torch.arange(width, device=feature_map.device) + 0.5) / width - 0.5) * self.width_share
        ys = (torch.arange(height, device=feature_map.device) + 0.5) / height - 0.5
        x, y = prompts.xy[..., None].unbind(2)
        across = (-((xs - x) ** 2) / (2 * _SPREAD**2)).exp()
        down = (-((ys - y) ** 2) / (2 * _SPREAD**2)).exp()
        drawn = down[..., None] * across[:, :, None]
        weights = prompts.numbers[..., :2]  # presence, confidence
        drawn = (drawn[:, None] * weights.transpose(1, 2)[..., None, None]).flatten(1, 2)
        return feature_map + self.mix(drawn.to(feature_map.dtype))


class PromptTable(nn.Module):
    """An MLP of all prompts and their offsets from the network's joints, whose output is added to the hand tokens."""

    def __init__(self, dim: int):
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Linear(NUM_JOINTS * 10, _HIDDEN), nn.GELU(), nn.Linear(_HIDDEN, _HIDDEN), nn.GELU()
        )
        self.slots = nn.Linear(_HIDDEN, (NUM_MANO_JOINTS + 2) * _RANK)
        self.to_tokens = _zero(nn.Linear(_RANK, dim))

    def forward(self, tokens: Tensor, prompts: Prompts, joints_crop: Tensor) -> Tensor:
        """Hand tokens (B, 18, dim) and the network's joints so far (B, 21, 2) -> (B, 18, dim)."""
        numbers = torch.cat([prompts.numbers, prompts.offsets(joints_crop)], -1)
        slots = self.slots(self.hidden(numbers.flatten(1))).unflatten(-1, (NUM_MANO_JOINTS + 2, _RANK))
        added = self.to_tokens(F.gelu(slots))
        return tokens + torch.where(prompts.any[:, None, None], added, 0.0).to(tokens.dtype)


class PromptLayers(nn.Module):
    """The prompt paths of a network: before the encoder, and with joint maps also on the map, in the readout and
    between the coarse hand and the refiner."""

    def __init__(self, dim: int, num_heads: int, *, map_dim: int | None, width_share: float = 1.0):
        super().__init__()
        self.attention = PromptAttention(dim, num_heads, width_share=width_share)
        self.on_map = None if map_dim is None else PromptMap(map_dim, width_share=width_share)
        self.readout = None if map_dim is None else PromptTable(dim)
        self.correction = None if map_dim is None else PromptTable(dim)
