"""A hand layer written plainly, as the published algorithm goes (Loper et al. 2015; Romero et al. 2017): the twin that
`utnet.hand.HandModel` must equal, in values and gradients, and that `benchmarks/model.py` measures it against.

Every step is dense and in order: all vertices are shaped, the joints are regressed from them, all pose correctives are
added, sixteen 4x4 transforms are chained one by one, every vertex is skinned by its own 4x4 matrix, and the fingertips
are picked from the vertices. A model of MANO's layout is assumed; the mean pose is not added.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from utnet.conventions import MANO21_TO_OPENPOSE, MANO_PARENTS


class NaiveHand:
    """Numbers of a MANO file (`mano_files.random_mano`) -> (joints (B, 21, 3), vertices (B, V, 3))."""

    def __init__(self, data: dict, tip_vertices: list[int], dtype: torch.dtype = torch.float32):
        def tensor(value) -> Tensor:
            return torch.as_tensor(np.asarray(value)).to(dtype)

        self.v_template, self.shapedirs = tensor(data["v_template"]), tensor(data["shapedirs"])
        self.J_regressor, self.weights = tensor(data["J_regressor"].toarray()), tensor(data["weights"])
        self.posedirs = tensor(data["posedirs"]).reshape(-1, 135).T.contiguous()  # (135, 3 V)
        self.tips, self.order = torch.tensor(tip_vertices), torch.tensor(MANO21_TO_OPENPOSE)

    def __call__(self, R: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 16, 3, 3) rotations, root first, and (B, 10) -> joints and vertices."""
        num = len(R)
        shaped = self.v_template + torch.einsum("bk,vck->bvc", betas, self.shapedirs)
        rest = torch.einsum("jv,bvc->bjc", self.J_regressor, shaped)
        feature = (R[:, 1:] - torch.eye(3).to(R)).reshape(num, -1)
        posed = shaped + (feature @ self.posedirs).view(num, -1, 3)

        bones = torch.cat([rest[:, :1], rest[:, 1:] - rest[:, list(MANO_PARENTS[1:])]], 1)
        local = torch.cat([F.pad(R, (0, 0, 0, 1)), F.pad(bones[..., None], (0, 0, 0, 1), value=1.0)], -1)
        world = [local[:, 0]]
        for j in range(1, len(MANO_PARENTS)):
            world.append(world[MANO_PARENTS[j]] @ local[:, j])
        transforms = torch.stack(world, 1)
        joints = transforms[:, :, :3, 3]
        moved = transforms @ F.pad(rest, (0, 1))[..., None]
        transforms = transforms - F.pad(moved, (3, 0))

        weights = self.weights.expand(num, -1, -1)
        blended = (weights @ transforms.flatten(2)).unflatten(-1, (4, 4))
        homogeneous = torch.cat([posed, torch.ones_like(posed[..., :1])], -1)
        vertices = (blended @ homogeneous[..., None])[..., :3, 0]
        return torch.cat([joints, vertices[:, self.tips]], 1)[:, self.order], vertices


def axis_angle_to_matrix(vectors: Tensor) -> Tensor:
    """Rodrigues' formula with a skew matrix a vector: (..., 3) -> (..., 3, 3)."""
    angle = (vectors + 1e-8).norm(dim=-1, keepdim=True)
    x, y, z = (vectors / angle).unbind(-1)
    zero = torch.zeros_like(x)
    K = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    sin, cos = angle.sin()[..., None], angle.cos()[..., None]
    return torch.eye(3).to(vectors) + sin * K + (1 - cos) * K @ K
