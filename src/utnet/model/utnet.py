"""UTNet: RGB and optional depth -> hand parameters, coarse to fine (DESIGN.md section 6)."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from utnet.config import ModelConfig
from utnet.conventions import NOMINAL_FOCAL, NUM_MANO_JOINTS
from utnet.geometry import matrix_to_rotation_6d, rotation_6d_to_matrix
from utnet.hand import HandModel
from utnet.model.encoder import Encoder
from utnet.model.heads import JointReadout, ParameterHead
from utnet.model.presets import PATCH_PX, get_preset
from utnet.model.refiner import GraphRefiner
from utnet.model.tokens import HandTokens, Stem, depth_channels, hand_distance, normalise_rgb
from utnet.model.upsampler import JointMaps, Upsampler
from utnet.types import Batch, HandMesh, Prediction

_MEAN_CAM = (7.0, 0.0, 0.0)
"""A hand that fills half of its crop: s = 2 / (0.29 m crop)."""


def crop_camera_translation(cam: Tensor) -> Tensor:
    """(B, 3) s, tx, ty -> (B, 3) translation in the crop's camera, metres: (tx, ty, 2 f / s), f in crop widths."""
    return torch.stack([cam[:, 1], cam[:, 2], 2 * NOMINAL_FOCAL / (cam[:, 0] + 1e-9)], -1)


def project_crop(points_m: Tensor, cam_t: Tensor) -> Tensor:
    """(B, N, 3) hand frame and (B, 3) translation -> (B, N, 2) crop units, by the nominal perspective camera."""
    points = points_m + cam_t[:, None]
    return NOMINAL_FOCAL * points[..., :2] / points[..., 2:]


class UTNet(nn.Module):
    """The network.

    Tokens of RGB and depth and 18 hand tokens go through a ViT; feature maps grow back from the image tokens; joints
    read off the maps and the hand tokens give a coarse hand; the refiner reads the maps under the coarse mesh.
    """

    def __init__(self, config: ModelConfig | None = None, hand: HandModel | None = None):
        super().__init__()
        self.config = config or ModelConfig()
        preset = get_preset(self.config.preset)
        self.hand = hand or HandModel.open()
        num_tokens = (self.config.size_px // PATCH_PX) ** 2
        self.stem = Stem(preset.stem_dims, preset.dim)
        self.pos_embed = nn.Parameter(torch.randn(1, num_tokens, preset.dim) * 0.02)
        flat_hand = matrix_to_rotation_6d(torch.eye(3).repeat(NUM_MANO_JOINTS, 1, 1))
        self.hand_tokens = HandTokens(preset.dim, flat_hand, torch.tensor(_MEAN_CAM))
        self.encoder = Encoder(preset.dim, preset.depth, preset.num_heads)
        skip_dims = [preset.stem_dims[1], preset.stem_dims[0]][: preset.num_maps]
        self.upsampler = Upsampler(preset.dim, skip_dims, preset.map_dim)
        self.joint_maps = JointMaps(preset.map_dim)
        self.readout = JointReadout(preset.dim, preset.map_dim, preset.num_heads)
        self.coarse_head = ParameterHead(preset.dim)
        self.refiner = GraphRefiner(
            self.hand,
            preset.dim,
            [preset.map_dim] * preset.num_maps,
            preset.refiner_dim,
            num_vertices=preset.refiner_vertices,
        )

    def forward(
        self,
        rgb: Tensor,
        depth_m: Tensor | None = None,
        K_px: Tensor | None = None,
        depth_ok: Tensor | None = None,
        with_vertices: bool = True,
    ) -> Prediction:
        """Right hands in square crops.

        Args:
            rgb: (B, 3, H, W) float in [0, 1].
            depth_m: (B, H, W) or (B, 1, H, W) metres, 0 where there is no reading; None without depth.
            K_px: (B, 3, 3) of the crops; gives depth its metric width. None: a nominal width.
            depth_ok: (B,) bool, which samples have depth (default: all that have a reading in the box).
            with_vertices: False leaves the final `vertices_m` out.

        Returns:
            Prediction, float32.
        """
        size = self.config.size_px
        if rgb.ndim != 4 or tuple(rgb.shape[1:]) != (3, size, size):
            raise ValueError(f"rgb has shape {tuple(rgb.shape)}, expected (B, 3, {size}, {size})")
        depth, depth_ok = self._prepare_depth(rgb, depth_m, K_px, depth_ok)
        image, skips = self.stem(normalise_rgb(rgb), depth, depth_ok)
        grid = image.shape[-2:]
        tokens = torch.cat([self.hand_tokens(len(rgb)), image.flatten(2).transpose(1, 2) + self.pos_embed], 1)
        tokens = self.encoder(tokens)
        hand, image = tokens[:, : NUM_MANO_JOINTS + 2], tokens[:, NUM_MANO_JOINTS + 2 :]
        maps = self.upsampler(image.transpose(1, 2).unflatten(2, grid), skips)
        joint_map, features, heat = self.joint_maps(maps[0])
        hand = self.readout(hand, joint_map.to(hand.dtype), features)

        means = self.hand_tokens
        pose, betas, cam = self.coarse_head(hand)
        pose, cam = pose + means.mean_pose, cam + means.mean_cam
        coarse, mesh = self._decode(pose, betas, cam, with_vertices=True)
        d_pose, d_betas, d_cam = self.refiner(hand, maps, project_crop(mesh.vertices_m, coarse.cam_t), mesh.vertices_m)
        final, mesh = self._decode(pose + d_pose, betas + d_betas, cam + d_cam, with_vertices=with_vertices)
        return replace(final, vertices_m=mesh.vertices_m, coarse=coarse, joint_map=joint_map, joint_heat=heat)

    def forward_batch(self, batch: Batch, *, use_depth: bool = True, with_vertices: bool = True) -> Prediction:
        """`forward` of a Batch; `use_depth=False` hides its depth."""
        rgb = batch.rgb.float() / 255
        if not use_depth:
            return self(rgb, with_vertices=with_vertices)
        return self(rgb, batch.depth_m, batch.K_px, batch.depth_ok, with_vertices)

    def _prepare_depth(self, rgb, depth_m, K_px, depth_ok):
        """(B, 4, H, W) channels and (B,) which samples have depth; some lose theirs in training (`p_drop`)."""
        if depth_m is None:
            return None, None
        if depth_m.ndim == 4:
            depth_m = depth_m[:, 0]
        if depth_m.shape != rgb.shape[:1] + rgb.shape[2:]:
            raise ValueError(
                f"depth_m has shape {tuple(depth_m.shape)}, expected {tuple(rgb.shape[:1] + rgb.shape[2:])}"
            )
        depth_m = torch.nan_to_num(depth_m, nan=0.0, posinf=0.0, neginf=0.0)
        distance = hand_distance(depth_m)
        ok = distance.isfinite()
        if depth_ok is not None:
            ok = ok & depth_ok
        if self.training and self.config.p_drop > 0:
            ok = ok & (torch.rand(len(rgb), device=rgb.device) >= self.config.p_drop)
        distance = torch.where(ok, distance, 1.0)
        return depth_channels(torch.where(ok[:, None, None], depth_m, 0.0), distance, K_px), ok

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def _decode(self, pose, betas, cam, *, with_vertices: bool) -> tuple[Prediction, HandMesh]:
        """Parameters to a hand, in float32 always: half precision would move joints by millimetres."""
        R = rotation_6d_to_matrix(pose)
        # The scale is positive by construction: a hand is never behind the camera.
        cam = torch.cat([torch.nn.functional.softplus(cam[:, :1]), cam[:, 1:]], 1)
        cam_t = crop_camera_translation(cam)
        mesh = self.hand(R[:, :1], R[:, 1:], betas, with_vertices=with_vertices)
        prediction = Prediction(
            global_orient=R[:, :1],
            hand_pose=R[:, 1:],
            betas=betas,
            cam=cam,
            cam_t=cam_t,
            joints_m=mesh.joints_m,
            joints_crop=project_crop(mesh.joints_m, cam_t),
        )
        return prediction, mesh
