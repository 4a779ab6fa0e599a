"""Refiners: features sampled at projected vertices of the coarse mesh -> residuals of pose, betas and camera.

Two with one interface, (hand tokens, feature maps, coarse prediction with its mesh) -> residuals: `GraphRefiner` is
ours, `MaxPoolRefiner` is WiLoR's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.conventions import NOMINAL_FOCAL, NUM_BETAS, NUM_MANO_JOINTS
from utnet.hand import HandModel
from utnet.model.camera import project_crop
from utnet.model.heads import ParameterHead
from utnet.model.presets import Preset
from utnet.types import Prediction

Residuals = tuple[Tensor, Tensor, Tensor]
"""Of pose (B, 16, 6), betas (B, 10) and camera (B, 3)."""

_WILOR_FOCAL_PX = NOMINAL_FOCAL * 256
_FULL_UP_TO = 512
"""Number of vertices up to which the product with the full adjacency matrix is faster than sums over neighbours."""


def skin_patches(vertices_m: Tensor, num: int) -> tuple[Tensor, Tensor]:
    """Splits a mesh into patches around vertices by farthest-point sampling; deterministic.

    Args:
        vertices_m: (V, 3) rest vertices.
        num: patches, at most V (then every vertex is one).

    Returns:
        centres (num,), the vertices that represent their patch; and (V,) the patch of every vertex, that of its nearest
        centre.
    """
    centres = [0]
    nearest = torch.full_like(vertices_m[:, 0], torch.inf)
    for _ in range(num - 1):
        nearest = torch.minimum(nearest, (vertices_m - vertices_m[centres[-1]]).square().sum(-1))
        centres.append(int(nearest.argmax()))
    return torch.tensor(centres, device=vertices_m.device), torch.cdist(vertices_m, vertices_m[centres]).argmin(1)


def normalised_adjacency(faces: Tensor, patches: Tensor, num: int) -> Tensor:
    """D^-1/2 (A + I) D^-1/2 of patches joined by a mesh edge (Kipf & Welling 2017), (num, num) float32."""
    edges = patches[faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)]
    A = torch.eye(num, device=faces.device)
    A[edges[:, 0], edges[:, 1]] = 1
    A[edges[:, 1], edges[:, 0]] = 1
    scale = A.sum(1).rsqrt()
    return scale[:, None] * A * scale


def neighbour_lists(adjacency: Tensor) -> tuple[Tensor, Tensor]:
    """The nonzero entries of a sparse (N, N) matrix with at most K in a row.

    Returns:
        (K, N) the columns of row n's entries, and (K, N, 1) the entries; shorter rows are padded by their own index
        and 0.
    """
    num = int((adjacency != 0).sum(1).max())
    columns = (adjacency != 0).int().sort(dim=1, descending=True, stable=True).indices[:, :num]
    entries = adjacency.gather(1, columns)
    columns = torch.where(entries != 0, columns, torch.arange(len(adjacency), device=columns.device)[:, None])
    return columns.T.contiguous(), entries.T[..., None].contiguous()


def gather_neighbours(x: Tensor, columns: Tensor, entries: Tensor) -> Tensor:
    """`adjacency @ x` by its `neighbour_lists`, (N, B, C) -> (N, B, C): seven entries a row instead of 1,609."""
    # Plain products and sums, because a sparse matrix cannot be exported.
    total = torch.zeros_like(x)
    for column, entry in zip(columns, entries[..., None].to(x.dtype), strict=True):
        total = torch.addcmul(total, entry, x.index_select(0, column))
    return total


class Neighbours(nn.Module):
    """Product with a sparse symmetric matrix, (N, B, C) -> (N, B, C): as a full matrix where that is faster."""

    adjacency: Tensor
    columns: Tensor
    entries: Tensor

    def __init__(self, adjacency: Tensor):
        super().__init__()
        self.full = len(adjacency) <= _FULL_UP_TO
        if self.full:
            self.register_buffer("adjacency", adjacency, persistent=False)
        else:
            columns, entries = neighbour_lists(adjacency)
            self.register_buffer("columns", columns, persistent=False)
            self.register_buffer("entries", entries, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.full:
            return (self.adjacency.to(x.dtype) @ x.flatten(1)).unflatten(1, x.shape[1:])
        return gather_neighbours(x, self.columns, self.entries)


class GraphConv(nn.Module):
    """Residual graph convolution: x + W2 gelu(A W1 norm(x))."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm, self.fc1, self.fc2 = nn.LayerNorm(dim), nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor, neighbours: Neighbours) -> Tensor:
        """(N, B, C) -> (N, B, C): contiguous in a vertex's features of all hands."""
        return x + self.fc2(F.gelu(neighbours(self.fc1(self.norm(x)))))


class GraphRefiner(nn.Module):
    """Residuals of pose, betas and camera from the maps under the coarse mesh.

    Vertices spread evenly over the skin (all of them, or fewer for small presets) sample the maps where the crop's
    camera projects them; their features pass through graph convolutions along the mesh's edges and are pooled into
    joints by the skinning weights.

    Args:
        hand: the hand whose mesh it is.
        dim: width of the hand tokens.
        map_dims: channels of the maps.
        width: of its own features.
        num_vertices: number of sampled vertices (all where the hand has fewer).
        width_share: share of the square crop's width that the maps span.
    """

    centres: Tensor
    gather: Tensor

    def __init__(
        self,
        hand: HandModel,
        dim: int,
        *,
        map_dims: list[int],
        width: int,
        num_vertices: int,
        width_share: float = 1.0,
        num_layers: int = 2,
    ):
        super().__init__()
        num_vertices = min(num_vertices, hand.num_vertices)
        self.width_share = width_share
        self.read = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in map_dims)
        self.embed_position = nn.Linear(3, width)
        self.embed_vertex = nn.Parameter(torch.randn(num_vertices, width) * 0.02)
        self.layers = nn.ModuleList(GraphConv(width) for _ in range(num_layers))
        self.to_token = nn.Linear(width, dim)
        self.head = ParameterHead(dim)

        centres, patches = skin_patches(hand.v_template, num_vertices)
        in_patch = F.one_hot(patches, num_vertices).float().T @ hand.weights
        gather = in_patch / in_patch.sum(0, keepdim=True).clamp_min(1e-6)
        whole = torch.full_like(gather[:, :2], 1 / num_vertices)  # shape and camera: mean over all vertices
        self.register_buffer("centres", centres, persistent=False)
        self.neighbours = Neighbours(normalised_adjacency(hand.faces, patches, num_vertices))
        self.register_buffer("gather", torch.cat([gather, whole], 1).T.contiguous(), persistent=False)

    def forward(self, tokens: Tensor, maps: list[Tensor], coarse: Prediction) -> Residuals:
        """(B, 18, dim) hand tokens, [(B, C, h, w), ...] and the coarse hand with its vertices."""
        vertices_m = _vertices(coarse)
        vertices_crop = project_crop(vertices_m, coarse.cam_t)[:, self.centres]
        # Crop units to grid_sample's [-1, 1] at the map's outer edges.
        grid = _safe_grid(2 * vertices_crop / vertices_crop.new_tensor([self.width_share, 1.0]))[:, None]
        x = self.embed_vertex[:, None] + self.embed_position(vertices_m[:, self.centres].transpose(0, 1) * 10)
        for read, feature_map in zip(self.read, maps, strict=True):
            sampled = F.grid_sample(read(feature_map).float(), grid, align_corners=False, padding_mode="border")
            x = x + sampled[:, :, 0].permute(2, 0, 1)
        for layer in self.layers:
            x = layer(x, self.neighbours)
        joints = (self.gather.to(x.dtype) @ x.flatten(1)).unflatten(1, x.shape[1:]).transpose(0, 1)
        return self.head(tokens + self.to_token(joints))


class MaxPoolRefiner(nn.Module):
    """WiLoR's refiner: the largest feature over all vertices, map by map, and one linear layer each for the residuals.

    It keeps a quirk with which the published weights were trained: coordinates in [-0.5, 0.5] over the map are passed
    to a sampler that expects cells of the map, so every vertex is sampled near the map's first cell.
    """

    def __init__(self, map_dims: list[int]):
        super().__init__()
        self.pose = nn.Linear(sum(map_dims), NUM_MANO_JOINTS * 6)
        self.betas, self.cam = nn.Linear(sum(map_dims), NUM_BETAS), nn.Linear(sum(map_dims), 3)
        for layer in (self.pose, self.betas, self.cam):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(self, tokens: Tensor, maps: list[Tensor], coarse: Prediction) -> Residuals:
        """[(B, C, h, w), ...] and the coarse hand with its vertices; hand tokens are ignored. Always in float32."""
        vertices_m, cam = _vertices(coarse), coarse.cam
        largest = []
        for feature_map in maps:
            height, width = feature_map.shape[-2:]
            z = 2 * _WILOR_FOCAL_PX / (height * cam[:, 0] + 1e-9)
            points = vertices_m + torch.stack([cam[:, 1], cam[:, 2], z], -1)[:, None]
            xy = _WILOR_FOCAL_PX / height * points[..., :2] / points[..., 2:]
            grid = xy / xy.new_tensor([width - 1, height - 1]) * 2 - 1
            grid = _safe_grid(grid)
            largest.append(F.grid_sample(feature_map.float(), grid[:, None], align_corners=True)[:, :, 0].amax(-1))
        features = torch.cat(largest, 1)
        pose = self.pose(features).unflatten(-1, (NUM_MANO_JOINTS, 6))
        return pose, self.betas(features), self.cam(features)


def _safe_grid(grid: Tensor) -> Tensor:
    """Clamps the grid without changing samples (beyond 3 there is only padding): with NaN or very large numbers, as in
    a diverging run, grid_sample's backward pass writes outside its memory."""
    return grid.nan_to_num(nan=3.0).clamp(-3.0, 3.0)


def _vertices(coarse: Prediction) -> Tensor:
    if coarse.vertices_m is None:
        raise ValueError("the coarse prediction has no vertices; a refiner requires them")
    return coarse.vertices_m


def make_refiner(preset: Preset, hand: HandModel, map_dims: list[int]) -> GraphRefiner | MaxPoolRefiner | None:
    """The refiner of a preset, or None."""
    if preset.refiner == "none":
        return None
    if preset.refiner == "maxpool":
        return MaxPoolRefiner(map_dims)
    return GraphRefiner(
        hand,
        preset.dim,
        map_dims=map_dims,
        width=preset.refiner_dim,
        num_vertices=preset.refiner_vertices,
        width_share=preset.width_share,
    )
