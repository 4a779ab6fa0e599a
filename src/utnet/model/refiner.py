"""The graph refiner: features read at projected vertices of the coarse mesh, passed along the mesh's edges."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.hand import HandModel
from utnet.model.heads import ParameterHead


def skin_patches(vertices_m: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Splits a mesh into patches round vertices that lie far from each other; deterministic.

    Args:
        vertices_m: (V, 3) rest vertices.
        num: patches, at most V (then every vertex is one).

    Returns:
        centres (num,), the vertices that stand for their patch, by farthest-point sampling; and (V,) the patch of every
        vertex, that of its nearest centre.
    """
    centres = [0]
    nearest = torch.full((len(vertices_m),), torch.inf)
    for _ in range(num - 1):
        nearest = torch.minimum(nearest, (vertices_m - vertices_m[centres[-1]]).square().sum(-1))
        centres.append(int(nearest.argmax()))
    return torch.tensor(centres), torch.cdist(vertices_m, vertices_m[centres]).argmin(1)


def normalised_adjacency(faces: Tensor, patches: Tensor, num: int) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 of patches joined by a mesh edge (Kipf & Welling 2017), (num, num) float32."""
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

    Vertices spread evenly over the skin (all of them, or fewer for small presets) read the maps where the crop's camera
    projects them, exchange along the mesh's edges, and are gathered into joints by the skinning weights: each joint
    hears from the skin that it moves.
    """

    centres: Tensor
    adjacency: Tensor
    gather: Tensor

    def __init__(
        self, hand: HandModel, dim: int, map_dims: list[int], width: int, *, num_vertices: int, num_layers: int = 2
    ):
        super().__init__()
        self.read = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in map_dims)
        self.embed_position = nn.Linear(3, width)
        self.embed_vertex = nn.Parameter(torch.randn(num_vertices, width) * 0.02)
        self.layers = nn.ModuleList(GraphConv(width) for _ in range(num_layers))
        self.to_token = nn.Linear(width, dim)
        self.head = ParameterHead(dim)

        centres, patches = skin_patches(hand.v_template, num_vertices)
        in_patch = F.one_hot(patches, num_vertices).float().T @ hand.weights
        gather = in_patch / in_patch.sum(0, keepdim=True).clamp_min(1e-6)
        whole = torch.full((num_vertices, 2), 1 / num_vertices)  # shape and camera hear from all the skin
        self.register_buffer("centres", centres, persistent=False)
        adjacency = normalised_adjacency(hand.faces, patches, num_vertices)
        self.register_buffer("adjacency", adjacency, persistent=False)
        self.register_buffer("gather", torch.cat([gather, whole], 1).T.contiguous(), persistent=False)

    def forward(self, tokens: Tensor, maps: list[Tensor], vertices_crop: Tensor, vertices_m: Tensor):
        """Residuals.

        Args:
            tokens: (B, 18, dim) hand tokens.
            maps: [(B, C, h, w), ...].
            vertices_crop: (B, V, 2) coarse vertices in crop units.
            vertices_m: (B, V, 3) coarse vertices, hand frame.
        """
        grid = (2 * vertices_crop[:, self.centres])[:, None]  # crop units to grid_sample's [-1, 1] at the outer edges
        x = self.embed_vertex + self.embed_position(vertices_m[:, self.centres] * 10)
        for read, feature_map in zip(self.read, maps, strict=True):
            sampled = F.grid_sample(read(feature_map).float(), grid, align_corners=False, padding_mode="border")
            x = x + sampled[:, :, 0].transpose(1, 2)
        for layer in self.layers:
            x = layer(x, self.adjacency)
        return self.head(tokens + self.to_token(self.gather.to(x.dtype) @ x))
