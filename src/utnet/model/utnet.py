"""UTNet: RGB and optional depth -> hand parameters, coarse to fine (docs/design.md)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from utnet.config import ModelConfig
from utnet.conventions import NUM_MANO_JOINTS
from utnet.errors import InputError
from utnet.geometry import hand_distance
from utnet.hand import HandModel
from utnet.model.camera import crop_camera_translation, project_crop
from utnet.model.decoder import HandDecoder, TokenHead
from utnet.model.encoder import Encoder
from utnet.model.evidence import CELLS, EvidenceHead
from utnet.model.heads import JointReadout, ParameterHead, RootHead, ScaleHead
from utnet.model.lite_stem import LiteStem
from utnet.model.presets import Preset, resolve_preset
from utnet.model.prompts import PromptLayers, Prompts
from utnet.model.refiner import make_refiner
from utnet.model.stems import ConvStem, PatchStem
from utnet.model.tokens import HandTokens, depth_channels, normalise_rgb
from utnet.model.upsampler import JointMaps, make_maps
from utnet.rotations import matrix_to_rotation_6d, rotation_6d_to_matrix
from utnet.types import Batch, Prediction

_MEAN_CAM = (7.0, 0.0, 0.0)
"""A hand that fills half of its crop: s = 2 / (0.29 m crop)."""


class UTNet(nn.Module):
    """The network, at every size (`utnet.model.presets`).

    Tokens of RGB and depth and 18 hand tokens pass through a ViT; image tokens are upsampled to feature maps; joints
    read from the maps (own presets) and the hand tokens give a coarse hand; the refiner samples the maps under the
    coarse mesh. Parts that a preset does not have are None.
    """

    def __init__(self, config: ModelConfig | None = None, hand: HandModel | None = None):
        super().__init__()
        self.config = config or ModelConfig()
        self.preset = preset = resolve_preset(self.config)
        mano = self.config.mano
        self.hand = hand or (HandModel.from_mano(mano, tips="smplx") if mano else HandModel.open())
        self.width_px = round(self.config.size_px * preset.width_share)
        num_tokens = (self.config.size_px // preset.patch_px) * (self.width_px // preset.patch_px)
        self.stem = _make_stem(preset)
        self.pos_embed = nn.Parameter(torch.randn(1, num_tokens, preset.dim) * 0.02)
        flat_hand = matrix_to_rotation_6d(torch.eye(3).repeat(NUM_MANO_JOINTS, 1, 1))
        mean_cam = torch.tensor(_MEAN_CAM)
        self.hand_tokens: HandTokens | None = None
        self.decoder: HandDecoder | None = None
        if preset.head == "decoder":
            self.decoder = HandDecoder(*preset.decoder, context_dim=preset.dim, mean_pose=flat_hand, mean_cam=mean_cam)
        else:
            self.hand_tokens = HandTokens(preset.dim, flat_hand, mean_cam, embed_betas=preset.wilor_head)
        self.encoder = Encoder(
            preset.dim,
            preset.num_blocks,
            preset.num_heads,
            layer_scale=preset.layer_scale,
            checkpoint_blocks=self.config.checkpoint_blocks,
        )
        self.upsampler = make_maps(preset, self.stem.map_dims)
        map_dims = [] if self.upsampler is None else self.upsampler.map_dims
        self.joint_maps = JointMaps(map_dims[0], width_share=preset.width_share) if preset.joint_maps else None
        self.readout = JointReadout(preset.dim, map_dims[0], preset.num_heads) if preset.joint_maps else None
        self.coarse_head: ParameterHead | TokenHead
        if self.decoder is None:
            hand_dim, self.coarse_head = preset.dim, ParameterHead(preset.dim, plain=preset.wilor_head)
        else:
            hand_dim, self.coarse_head = preset.decoder[0], TokenHead(preset.decoder[0])
        self.refiner = make_refiner(preset, self.hand, map_dims)
        with torch.random.fork_rng(devices=[]):  # optional parts leave the generator's state as it is
            self.root_head = RootHead(hand_dim)
            with_prompts, share = self.config.prompts, preset.width_share
            self.scale_head = ScaleHead(hand_dim, prompts=with_prompts) if self.config.uncertainty else None
            map_dim, heads = map_dims[0] if preset.joint_maps else None, preset.num_heads
            self.prompts = PromptLayers(preset.dim, heads, map_dim=map_dim, width_share=share) if with_prompts else None
            self.evidence = _make_evidence(map_dims, self.stem.map_dims) if self.config.evidence else None

    def forward(
        self,
        rgb: Tensor,
        depth_m: Tensor | None = None,
        K_px: Tensor | None = None,
        depth_ok: Tensor | None = None,
        with_vertices: bool = True,
        landmarks: Tensor | None = None,
    ) -> Prediction:
        """Predicts right hands in square crops (a network with `width_px` uses their central columns).

        Args:
            rgb: (B, 3, H, H) float in [0, 1].
            depth_m: (B, H, H) or (B, 1, H, H) metres, 0 where there is no reading; None without depth.
            K_px: (B, 3, 3) of the crops, for the metric width of depth. None: a nominal width.
            depth_ok: (B,) bool, which samples have depth (default: all that have a reading in the box).
            with_vertices: False leaves the final `vertices_m` out.
            landmarks: (B, 21, 6) prompts (`model.prompts`): x, y in crop units, relative x, y, z in metres (about any
                origin; NaN where not known) and a confidence up to 1; 0 for a joint without prompt.

        Returns:
            Prediction, float32, in crop units of the square. `coarse` is None without a refiner.
        """
        size = self.config.size_px
        if rgb.ndim != 4 or tuple(rgb.shape[1:]) != (3, size, size):
            raise ValueError(f"rgb has shape {tuple(rgb.shape)}, expected (B, 3, {size}, {size})")
        if not rgb.is_floating_point():
            raise ValueError(f"rgb is {rgb.dtype}, expected float in [0, 1]: divide uint8 pictures by 255")
        prompts = self._prepare_prompts(landmarks, rgb.shape[0])
        depth, depth_ok, distance = self._prepare_depth(rgb, depth_m, K_px, depth_ok)

        image, skips = self.stem(self._seen(normalise_rgb(rgb)), self._seen(depth), depth_ok)
        grid = image.shape[-2:]
        hand, image = self._encode(image, prompts)

        maps = [] if self.upsampler is None else self.upsampler(image.transpose(1, 2).unflatten(2, grid), skips)
        if prompts is not None and self.prompts is not None and self.prompts.on_map is not None:
            maps = [self.prompts.on_map(maps[0], prompts), *maps[1:]]
        joint_map = heat = None
        if self.joint_maps is not None and self.readout is not None:
            joint_map, features, heat = self.joint_maps(maps[0])
            if prompts is not None and self.prompts is not None and self.prompts.readout is not None:
                hand = self.prompts.readout(hand, prompts, joint_map[..., :2])
            hand = self.readout(hand, joint_map.to(hand.dtype), features)
        mask = side = None
        if self.evidence is not None:
            mask, side = self.evidence(maps[0], skips, (CELLS * grid[0], CELLS * grid[1]))

        means = self.decoder or self.hand_tokens
        assert means is not None
        pose, betas, cam = self.coarse_head(hand)
        pose, betas, cam = pose + means.mean_pose, betas + means.mean_betas, cam + means.mean_cam
        if self.refiner is None:
            final, coarse = self._decode(pose, betas, cam, with_vertices=with_vertices), None
        else:
            coarse = self._decode(pose, betas, cam, with_vertices=True)
            if prompts is not None and self.prompts is not None and self.prompts.correction is not None:
                hand = self.prompts.correction(hand, prompts, coarse.joints_crop)
            d_pose, d_betas, d_cam = self.refiner(hand, maps, coarse)
            final = self._decode(pose + d_pose, betas + d_betas, cam + d_cam, with_vertices=with_vertices)
            coarse = replace(coarse, vertices_m=None)
        seen = torch.zeros(rgb.shape[0], dtype=torch.bool, device=rgb.device) if depth_ok is None else depth_ok
        scale = shape = None
        if self.scale_head is not None:
            prompted = None if prompts is None else prompts.any
            scale, shape = self.scale_head(hand, final.joints_m, seen, prompted)
        return replace(
            final,
            coarse=coarse,
            joint_map=joint_map,
            joint_heat=heat,
            root_z_m=self.root_head(hand, distance, seen),
            joint_scale_mm=scale,
            error_shape=shape,
            mask_logit=mask,
            side_logit=side,
        )

    def forward_batch(
        self, batch: Batch, *, use_depth: bool = True, use_landmarks: bool = True, with_vertices: bool = True
    ) -> Prediction:
        """`forward` of a Batch; `use_depth=False` hides its depth, `use_landmarks=False` its prompts."""
        rgb, landmarks = batch.rgb.float() / 255, batch.landmarks if use_landmarks else None
        if not use_depth:
            return self(rgb, with_vertices=with_vertices, landmarks=landmarks)
        return self(rgb, batch.depth_m, batch.K_px, batch.depth_ok, with_vertices, landmarks)

    def _prepare_prompts(self, landmarks: Tensor | None, num: int) -> Prompts | None:
        if landmarks is None:
            return None
        if self.prompts is None:
            raise ValueError("this network has no prompts (model.prompts); leave landmarks out")
        return Prompts(landmarks, num)

    def _encode(self, image: Tensor, prompts: Prompts | None) -> tuple[Tensor, Tensor]:
        """(B, dim, h, w) image tokens -> (B, 18, hand_dim) hand tokens (identical with a decoder head) and (B, N, dim)
        encoded image tokens."""
        tokens, num_hand = image.flatten(2).transpose(1, 2) + self.pos_embed, 0
        if self.hand_tokens is not None:
            tokens, num_hand = torch.cat([self.hand_tokens(image.shape[0]), tokens], 1), NUM_MANO_JOINTS + 2
        if prompts is not None and self.prompts is not None:
            tokens = self.prompts.attention(tokens, image, prompts)
        tokens = self.encoder(tokens)
        if self.decoder is not None:
            return self.decoder(tokens).expand(-1, NUM_MANO_JOINTS + 2, -1), tokens
        return tokens[:, :num_hand], tokens[:, num_hand:]

    def _prepare_depth(self, rgb, depth_m, K_px, depth_ok):
        """(B, 4, H, W) channels, (B,) which samples have depth, (B,) robust distances in m (1 without depth)."""
        if depth_m is None:
            return None, None, rgb.new_ones(rgb.shape[0])
        if depth_m.ndim == 4:
            depth_m = depth_m[:, 0]
        if depth_m.shape != rgb.shape[:1] + rgb.shape[2:]:
            raise ValueError(
                f"depth_m has shape {tuple(depth_m.shape)}, expected {tuple(rgb.shape[:1] + rgb.shape[2:])}"
            )
        if K_px is not None and K_px.shape != (rgb.shape[0], 3, 3):
            raise ValueError(f"K_px has shape {tuple(K_px.shape)}, expected ({rgb.shape[0]}, 3, 3)")
        if depth_ok is not None and depth_ok.shape != rgb.shape[:1]:
            raise ValueError(f"depth_ok has shape {tuple(depth_ok.shape)}, expected ({rgb.shape[0]},)")
        depth_m = torch.nan_to_num(depth_m.float(), nan=0.0, posinf=0.0, neginf=0.0)
        distance = hand_distance(depth_m)
        ok = distance.isfinite()
        if depth_ok is not None:
            ok = ok & depth_ok
        distance = torch.where(ok, distance, 1.0)
        return depth_channels(torch.where(ok[:, None, None], depth_m, 0.0), distance, K_px), ok, distance

    def _seen(self, square):
        """The central columns of a square crop: (..., H, H) -> (..., H, width_px), None -> None."""
        beside = (self.config.size_px - self.width_px) // 2
        return None if square is None else square[..., beside : beside + self.width_px]

    @torch.autocast("cpu", enabled=False)
    @torch.autocast("cuda", enabled=False)
    def _decode(self, pose, betas, cam, *, with_vertices: bool) -> Prediction:
        """Decodes parameters to a hand, always in float32: half precision would move joints by millimetres."""
        R = rotation_6d_to_matrix(pose)
        if not self.preset.wilor_head:  # the scale is positive by construction: a hand is never behind the camera
            cam = torch.cat([F.softplus(cam[:, :1]), cam[:, 1:]], 1)
        cam_t = crop_camera_translation(cam)
        mesh = self.hand(R[:, :1], R[:, 1:], betas, with_vertices=with_vertices)
        return Prediction(
            global_orient=R[:, :1],
            hand_pose=R[:, 1:],
            betas=betas,
            cam=cam,
            cam_t=cam_t,
            joints_m=mesh.joints_m,
            joints_crop=project_crop(mesh.joints_m, cam_t),
            vertices_m=mesh.vertices_m,
        )


def _make_stem(preset: Preset) -> ConvStem | LiteStem | PatchStem:
    if preset.stem == "lite0":
        return LiteStem(preset.dim)
    if preset.stem == "conv":
        return ConvStem(preset.stem_dims, preset.dim)
    return PatchStem(preset.dim, preset.patch_px, preset.patch_pad_px)


def _make_evidence(map_dims: list[int], stem_map_dims: Sequence[int]) -> EvidenceHead:
    if not map_dims:
        raise InputError("model.evidence needs feature maps, and this network has none; leave it out")
    return EvidenceHead(map_dims[0], stem_map_dims[-1] if stem_map_dims else 0)
