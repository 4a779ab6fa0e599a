"""The graph refiner: features read at every projected vertex of the coarse mesh, passed along the mesh's edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.hand import HandModel
from utnet.model.heads import ParameterHead

NUM_PATCHES = 256
"""Patches of skin that exchange along edges: about six vertices each, a third of a fingertip."""


def skin_patches(vertices_m: Tensor, num: int) -> Tensor:
    """(V, 3) rest vertices -> (V,) patch of each, by farthest-point sampling and nearest centre; deterministic."""
    centres = [0]
    nearest = torch.full((len(vertices_m),), torch.inf)
    for _ in range(num - 1):
        nearest = torch.minimum(nearest, (vertices_m - vertices_m[centres[-1]]).square().sum(-1))
        centres.append(int(nearest.argmax()))
    return torch.cdist(vertices_m, vertices_m[centres]).argmin(1)


def normalised_adjacency(faces: Tensor, patches: Tensor, num: int) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 of patches joined by a mesh edge (Kipf & Welling 2017), (num, num) dense float32."""
    edges = patches[faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)]
    A = torch.eye(num)
    A[edges[:, 0], edges[:, 1]] = 1
    A[edges[:, 1], edges[:, 0]] = 1
    scale = A.sum(1).rsqrt()
    return scale[:, None] * A * scale


class GraphConv(nn.Module):
    """Residual graph convolution: x + W2 gelu(A W1 norm(x))."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        return x + self.fc2(F.gelu(adjacency.to(x.dtype) @ self.fc1(self.norm(x))))


class GraphRefiner(nn.Module):
    """Residuals of pose, betas and camera from what the maps show under the coarse mesh.

    Every vertex reads the maps where the crop's camera projects it. Vertices are gathered into patches of skin, which
    exchange along the mesh's edges, and patches into joints by the skinning weights: each joint hears from the skin
    that it moves.
    """

    def __init__(self, hand: HandModel, dim: int, map_dims: list[int], width: int, num_layers: int = 2):
        super().__init__()
        self.read = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in map_dims)
        self.embed_position = nn.Linear(3, width)
        self.embed_patch = nn.Parameter(torch.randn(NUM_PATCHES, width) * 0.02)
        self.layers = nn.ModuleList(GraphConv(width) for _ in range(num_layers))
        self.to_token = nn.Linear(width, dim)
        self.head = ParameterHead(dim)

        patches = skin_patches(hand.v_template, NUM_PATCHES)
        member = F.one_hot(patches, NUM_PATCHES).float().T  # (patches, V)
        in_patch = member @ hand.weights
        gather = in_patch / in_patch.sum(0, keepdim=True).clamp_min(1e-6)
        whole = torch.full((NUM_PATCHES, 2), 1 / NUM_PATCHES)  # shape and camera hear from all the skin
        mean = (member / member.sum(1, keepdim=True)).to_sparse()
        self.register_buffer("mean_of_patch", mean, persistent=False)
        self.register_buffer("adjacency", normalised_adjacency(hand.faces, patches, NUM_PATCHES), persistent=False)
        self.register_buffer("gather", torch.cat([gather, whole], 1).T.contiguous(), persistent=False)

    def forward(self, tokens: Tensor, maps: list[Tensor], vertices_crop: Tensor, vertices_m: Tensor):
        """Residuals.

        Args:
            tokens: (B, 18, dim) hand tokens.
            maps: [(B, C, h, w), ...].
            vertices_crop: (B, V, 2) coarse vertices in crop units.
            vertices_m: (B, V, 3) coarse vertices, hand frame.
        """
        grid = (2 * vertices_crop)[:, None]  # crop units to grid_sample's [-1, 1], outer pixel edges at the ends
        features: Tensor | None = None
        for read, feature_map in zip(self.read, maps, strict=True):
            sampled = F.grid_sample(read(feature_map).float(), grid, align_corners=False, padding_mode="border")
            features = sampled[:, :, 0] if features is None else features + sampled[:, :, 0]
        x = self._to_patches(features) + self.embed_position(self._to_patches(vertices_m.transpose(1, 2)) * 10)
        x = x + self.embed_patch
        for layer in self.layers:
            x = layer(x, self.adjacency)
        return self.head(tokens + self.to_token(self.gather.to(x.dtype) @ x))

    def _to_patches(self, values: Tensor) -> Tensor:
        """(B, C, V) vertex values -> (B, patches, C) means."""
        num, channels = values.shape[:2]
        with torch.autocast(values.device.type, enabled=False):  # sparse products exist in float32 only
            mean = self.mean_of_patch @ values.float().flatten(0, 1).T.contiguous()
        return mean.unflatten(1, (num, channels)).transpose(0, 1)
