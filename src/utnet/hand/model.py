"""Linear blend skinning with shape blendshapes and optional pose correctives, for the open hand and MANO."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utnet.conventions import MANO21_TO_OPENPOSE, MANO_PARENTS, NUM_BETAS, SIDES
from utnet.hand.arrays import HandArrays, load_open_hand
from utnet.hand.skinning import skin
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from utnet.types import HandMesh, HandParams, check_shape

_FINGERS = (5, 3)
"""MANO's joints 1 to 15 are five chains of three from the root: kinematics needs three steps, not fifteen."""
assert all(MANO_PARENTS[j] == (0 if j % 3 == 1 else j - 1) for j in range(1, 16))


class HandModel(nn.Module):
    """(global_orient, hand_pose, betas) -> vertices, 16 joints, 21 keypoints (Romero et al. 2017, eq. 1-4).

    Create it with `HandModel.open()` or `HandModel.from_mano(path)`. It has no trainable parameters. Joints are
    computed from betas directly (joint blendshapes), kinematics runs level by level, and vertices are skinned on
    request. Autocast does not lower its precision.

    Attributes:
        arrays: its numbers, numpy.
        side: "right" or "left".
        name: "open" or "mano".
        faces: (F, 3) int64 tensor, counter-clockwise seen from outside.
        num_vertices: number of vertices V.
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
    identity_pose: Tensor
    rest_dirs: Tensor
    skin_template: Tensor
    skin_dirs: Tensor
    skin_weights: Tensor
    tips_template: Tensor
    tips_dirs: Tensor
    tips_weights: Tensor

    def __init__(self, arrays: HandArrays, *, side: str = "right", name: str = "open"):
        super().__init__()
        if side not in SIDES:
            raise ValueError(f"side is {side!r}, expected 'right' or 'left'")
        self.side, self.name, self.arrays = side, name, arrays
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
        self._lay_out()

    def _lay_out(self) -> None:
        """Registers blendshapes and weights in the memory layout used by `forward`."""
        dirs = self.shapedirs if self.posedirs is None else torch.cat([self.shapedirs, self.posedirs], 2)
        laid = {"identity_pose": torch.eye(3).flatten().repeat(15), "rest_dirs": self.J_shapedirs.flatten(0, 1).T}
        for name, which in (("skin", slice(None)), ("tips", self.tip_vertices)):
            laid[f"{name}_template"] = self.v_template[which].T.flatten()
            laid[f"{name}_dirs"] = dirs[which].permute(2, 1, 0).flatten(1)
            laid[f"{name}_weights"] = self.weights[which].T
        for name, tensor in laid.items():
            self.register_buffer(name, tensor.contiguous(), persistent=False)

    @classmethod
    def open(cls, side: str = "right") -> HandModel:
        """The bundled open hand (Apache-2.0 / CC0) with 1,609 vertices. The left hand is its mirror image."""
        arrays = load_open_hand()
        return cls(arrays.mirrored() if side == "left" else arrays, side=side, name="open")

    @classmethod
    def from_mano(
        cls, path: str | Path, *, side: str = "right", flat_hand_mean: bool = True, tips: str = "smplx"
    ) -> HandModel:
        """Loads a MANO file (`MANO_RIGHT.pkl` or `MANO_LEFT.pkl`), without running code in it.

        Args:
            path: the file, or its folder.
            side: "right" or "left", the hand in the file.
            flat_hand_mean: False adds the file's `hands_mean` to every pose (FreiHAND, DexYCB); True does not (HO3D,
                WiLoR).
            tips: convention of the fingertip vertices: "smplx", "freihand", "ho3d" or "manopth"
                (`conventions.MANO_TIP_VERTICES`).

        Raises:
            InputError: the file is missing, unsafe, or not a MANO file.
        """
        from utnet.hand.mano import load_mano

        return cls(load_mano(path, side=side, flat_hand_mean=flat_hand_mean, tips=tips), side=side, name="mano")

    def mirrored(self) -> HandModel:
        """Returns the other hand: `mirrored()(S R S, ...)` is the mirror image of `self(R, ...)`."""
        other = "left" if self.side == "right" else "right"
        return HandModel(self.arrays.mirrored(), side=other, name=self.name).to(self.v_template)

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def forward(
        self, global_orient: Tensor, hand_pose: Tensor, betas: Tensor, *, with_vertices: bool = True
    ) -> HandMesh:
        """Decodes a batch.

        Args:
            global_orient: (B, 1, 3, 3) rotation matrices.
            hand_pose: (B, 15, 3, 3) rotation matrices, MANO order. With a mean pose (`flat_hand_mean=False`) the mean
                is added to their axis-angle vectors.
            betas: (B, 10).
            with_vertices: False skins only the five fingertips; `vertices_m` is then None.

        Returns:
            HandMesh in the model's frame, metres.

        Raises:
            ValueError: a wrong shape, or numbers of another type than the model's (32-bit floats unless it was
                converted by `double()`).
        """
        num = global_orient.shape[0]
        check_shape("global_orient", global_orient, (num, 1, 3, 3))
        check_shape("hand_pose", hand_pose, (num, 15, 3, 3))
        check_shape("betas", betas, (num, NUM_BETAS))
        for name, tensor in (("global_orient", global_orient), ("hand_pose", hand_pose), ("betas", betas)):
            if tensor.dtype != self.v_template.dtype:
                raise ValueError(f"{name} is {tensor.dtype}, the hand model {self.v_template.dtype}; convert either")
        if self.pose_mean is not None:
            hand_pose = axis_angle_to_matrix(matrix_to_axis_angle(hand_pose) + self.pose_mean.view(15, 3))
        rest = torch.addmm(self.J_template.flatten(), betas, self.rest_dirs).unflatten(1, (-1, 3))
        transforms, joints = self._kinematics(torch.cat([global_orient, hand_pose], 1), rest)
        code = betas
        if self.posedirs is not None:
            code = torch.cat([betas, hand_pose.flatten(1) - self.identity_pose], 1)
        if with_vertices:
            vertices = skin(transforms, torch.addmm(self.skin_template, code, self.skin_dirs), self.skin_weights)
            tips = vertices.index_select(1, self.tip_vertices)
        else:
            vertices = None
            tips = skin(transforms, torch.addmm(self.tips_template, code, self.tips_dirs), self.tips_weights)
        joints21 = torch.cat([joints, tips], 1).index_select(1, self.to_openpose)
        return HandMesh(joints_m=joints21, mano_joints_m=joints, vertices_m=vertices)

    def decode(self, params: HandParams, *, with_vertices: bool = True) -> HandMesh:
        """`forward` for HandParams with a batch axis; the translation is not added."""
        return self(params.global_orient, params.hand_pose, params.betas, with_vertices=with_vertices)

    def pose_from_pca(self, coefficients: Tensor) -> Tensor:
        """(B, n <= 45) principal pose coefficients -> (B, 45) axis-angle, without the mean pose.

        The open hand uses the identity basis: its coefficients are the axis-angle.
        """
        if self.pose_basis is None:
            return coefficients
        return coefficients @ self.pose_basis[: coefficients.shape[1]]

    def _kinematics(self, R_local: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 16, 3, 3) local rotations, (B, 16, 3) rest joints -> transforms [R | t] of rest-pose points (B, 16, 3, 4)
        and posed joints (B, 16, 3)."""
        root, fingers = rest[:, :1], rest[:, 1:].unflatten(1, _FINGERS)
        bones = torch.cat([fingers[:, :, :1] - root[:, None], fingers[:, :, 1:] - fingers[:, :, :-1]], 2)
        local = torch.cat([R_local[:, 1:].unflatten(1, _FINGERS), bones[..., None]], -1)
        world, levels = R_local[:, :1], []
        for level in local.unbind(2):  # [R | bone] of the joint, rotated by its parent
            world = world[..., :3] @ level
            levels.append(world)
        turned = torch.stack(levels, 2)
        joints = torch.cat([root, (root[:, None] + turned[..., 3].cumsum(2)).flatten(1, 2)], 1)
        R = torch.cat([R_local[:, :1], turned[..., :3].flatten(1, 2)], 1)
        return torch.cat([R, joints[..., None] - R @ rest[..., None]], -1), joints
