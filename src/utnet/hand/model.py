"""Linear blend skinning with shape blendshapes and optional pose correctives, for the open hand and for MANO alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utnet.conventions import MANO21_TO_OPENPOSE, MANO_PARENTS, NUM_BETAS, SIDES
from utnet.geometry import axis_angle_to_matrix, matrix_to_axis_angle
from utnet.hand.arrays import HandArrays, load_open_hand
from utnet.types import HandMesh, HandParams, check_shape

_LEVELS = ((1, 4, 7, 10, 13), (2, 5, 8, 11, 14), (3, 6, 9, 12, 15))
"""Joints by distance from the root: forward kinematics needs three steps, not fifteen."""


class HandModel(nn.Module):
    """(global_orient, hand_pose, betas) -> vertices, 16 joints, 21 keypoints (Romero et al. 2017, eq. 1-4).

    One class for two sources of numbers: `HandModel.open()` and `HandModel.from_mano(path)`. It has no trainable
    parameters. Joints come straight from betas (blendshapes of the joints), kinematics runs level by level, and
    vertices are skinned only where they are asked for.

    Attributes:
        side: "right" or "left".
        name: "open" or "mano".
        faces: (F, 3) int64 tensor, counter-clockwise seen from outside.
        num_vertices: V.
    """

    v_template: Tensor
    shapedirs: Tensor
    J_template: Tensor
    J_shapedirs: Tensor
    weights: Tensor
    posedirs: Tensor | None
    pose_mean: Tensor | None
    pose_basis: Tensor | None
    faces: Tensor
    tip_vertices: Tensor
    to_openpose: Tensor

    def __init__(self, arrays: HandArrays, *, side: str = "right", name: str = "open"):
        super().__init__()
        if side not in SIDES:
            raise ValueError(f"side is {side!r}, expected 'right' or 'left'")
        self.side, self.name, self._arrays = side, name, arrays
        self.num_vertices = len(arrays.v_template)

        def keep(key: str, value, dtype=torch.float32):
            tensor = None if value is None else torch.as_tensor(np.ascontiguousarray(value)).to(dtype)
            self.register_buffer(key, tensor, persistent=False)

        keep("v_template", arrays.v_template)
        keep("shapedirs", arrays.shapedirs)
        keep("J_template", arrays.J_template)
        keep("J_shapedirs", arrays.J_shapedirs)
        keep("weights", arrays.weights)
        keep("posedirs", arrays.posedirs)
        has_mean = arrays.pose_mean is not None and np.any(arrays.pose_mean)
        keep("pose_mean", arrays.pose_mean if has_mean else None)
        keep("pose_basis", arrays.pose_basis)
        keep("faces", arrays.faces, torch.int64)
        keep("tip_vertices", arrays.tip_vertices, torch.int64)
        keep("to_openpose", MANO21_TO_OPENPOSE, torch.int64)

    @classmethod
    def open(cls, side: str = "right") -> HandModel:
        """The open hand (Apache-2.0 / CC0): 1,609 vertices, shipped with the package. The left is its mirror image."""
        arrays = load_open_hand()
        return cls(arrays.mirrored() if side == "left" else arrays, side=side, name="open")

    @classmethod
    def from_mano(
        cls, path: str | Path, *, side: str = "right", flat_hand_mean: bool = True, tips: str = "smplx"
    ) -> HandModel:
        """The user's own MANO file (`MANO_RIGHT.pkl` or `MANO_LEFT.pkl`), read without running anything in it.

        Args:
            path: the file.
            side: which hand the file holds.
            flat_hand_mean: False adds the file's `hands_mean` to every pose (FreiHAND, DexYCB); True does not (HO3D,
                WiLoR).
            tips: whose fingertip vertices: "smplx", "freihand", "ho3d" or "manopth" (`conventions.MANO_TIP_VERTICES`).

        Raises:
            InputError: no such file, a pickle that would call anything, or arrays that are not MANO's.
        """
        from utnet.hand.mano import load_mano

        return cls(load_mano(path, side=side, flat_hand_mean=flat_hand_mean, tips=tips), side=side, name="mano")

    def mirrored(self) -> HandModel:
        """The other hand: `mirrored()(S R S, ...)` is the mirror image of `self(R, ...)`."""
        other = "left" if self.side == "right" else "right"
        return HandModel(self._arrays.mirrored(), side=other, name=self.name).to(self.v_template)

    def forward(
        self, global_orient: Tensor, hand_pose: Tensor, betas: Tensor, *, with_vertices: bool = True
    ) -> HandMesh:
        """Decodes a batch.

        Args:
            global_orient: (B, 1, 3, 3) rotation matrices.
            hand_pose: (B, 15, 3, 3) rotation matrices, MANO order. With a mean pose (`flat_hand_mean=False`) the mean
                is added to their axis-angle vectors.
            betas: (B, 10).
            with_vertices: False skins the five fingertips only; `vertices_m` is then None.

        Returns:
            HandMesh in the model's frame, metres.

        Raises:
            ValueError: a wrong shape, with what came and what is expected.
        """
        num = len(global_orient)
        check_shape("global_orient", global_orient, (num, 1, 3, 3))
        check_shape("hand_pose", hand_pose, (num, 15, 3, 3))
        check_shape("betas", betas, (num, NUM_BETAS))
        if self.pose_mean is not None:
            hand_pose = axis_angle_to_matrix(matrix_to_axis_angle(hand_pose) + self.pose_mean.view(15, 3))
        rest = self.J_template + torch.einsum("jck,bk->bjc", self.J_shapedirs, betas)
        R, joints = self._kinematics(torch.cat([global_orient, hand_pose], 1), rest)
        # A skinned vertex is sum_j w_j (R_j (v - rest_j) + joint_j): rotation and offset of each joint, blended.
        offset = joints - (R @ rest[..., None])[..., 0]
        transforms = torch.cat([R.flatten(2), offset], 2)
        if with_vertices:
            vertices = self._skin(transforms, hand_pose, betas, slice(None))
            tips = vertices[:, self.tip_vertices]
        else:
            vertices, tips = None, self._skin(transforms, hand_pose, betas, self.tip_vertices)
        joints21 = torch.cat([joints, tips], 1)[:, self.to_openpose]
        return HandMesh(joints_m=joints21, mano_joints_m=joints, vertices_m=vertices)

    def decode(self, params: HandParams, *, with_vertices: bool = True) -> HandMesh:
        """`forward` of a HandParams with a batch axis; the translation is not added."""
        return self(params.global_orient, params.hand_pose, params.betas, with_vertices=with_vertices)

    def pose_from_pca(self, coefficients: Tensor) -> Tensor:
        """(B, n <= 45) principal pose coefficients -> (B, 45) axis-angle, before any mean. Needs a model with a basis.

        The open hand has no basis of its own: its coefficients are the axis-angle itself (identity basis).
        """
        if self.pose_basis is None:
            return coefficients
        return coefficients @ self.pose_basis[: coefficients.shape[1]]

    def _kinematics(self, R_local: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 16, 3, 3) local rotations, (B, 16, 3) rest joints -> world rotations and posed joints."""
        R = [R_local[:, :1]]
        p = [rest[:, :1]]
        order = [0]
        parents_R, parents_p = R[0], p[0]
        for level in _LEVELS:
            parents = [MANO_PARENTS[j] for j in level]
            bone = rest[:, level] - rest[:, parents]
            p.append(parents_p + (parents_R @ bone[..., None])[..., 0])
            R.append(parents_R @ R_local[:, level])
            order.extend(level)
            parents_R, parents_p = R[-1], p[-1]
        back = torch.tensor([order.index(j) for j in range(len(order))], device=rest.device)
        return torch.cat(R, 1)[:, back], torch.cat(p, 1)[:, back]

    def _skin(self, transforms: Tensor, hand_pose: Tensor, betas: Tensor, which) -> Tensor:
        """Vertices `which` (a slice or indices) under (B, 16, 12) blended transforms."""
        v = self.v_template[which] + torch.einsum("vck,bk->bvc", self.shapedirs[which], betas)
        if self.posedirs is not None:
            feature = (hand_pose - torch.eye(3).to(hand_pose)).flatten(1)
            v = v + torch.einsum("vck,bk->bvc", self.posedirs[which], feature)
        blended = torch.einsum("vj,bjt->bvt", self.weights[which], transforms)
        return (blended[..., :9].unflatten(-1, (3, 3)) @ v[..., None])[..., 0] + blended[..., 9:]
