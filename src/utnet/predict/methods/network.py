"""A network with trained weights, in torch or exported."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from utnet.checkpoint import load_checkpoint, name_checkpoint, pick_device
from utnet.config import Config
from utnet.data.collate import collate
from utnet.data.prompts import prompts_of_landmarks
from utnet.data.transforms import crop
from utnet.errors import InputError
from utnet.export.runtime import SUFFIXES, ExportedConfig, ExportedNetwork
from utnet.geometry import crop_to_px
from utnet.hand import HandModel
from utnet.model import UTNet
from utnet.placement import measure_distance, solve_translation
from utnet.predict.methods.base import RightHandBatch
from utnet.types import HandParams, Sample


class NetworkMethod:
    """Runs a network on crops and places its hands in the picture's camera.

    Args:
        weights: a checkpoint folder such as RUN/best, the name of a bundled network, or a file of `utnet export`.
        device: "auto", "cpu", "cuda", ... (ignored for exported files).
        prompts: pass landmarks to a network trained with prompts.

    Attributes:
        needs_landmarks: whether landmarks are passed to the network.
    """

    name = "network"

    def __init__(self, weights: str | Path, *, device: str = "auto", prompts: bool = True):
        self.weights: str | None = name_checkpoint(weights)
        self.network: UTNet | ExportedNetwork
        self.config: Config | ExportedConfig
        self.hand: HandModel | None
        if Path(weights).suffix in SUFFIXES.values():
            self.network, self._device = ExportedNetwork(weights), torch.device("cpu")
            self.config = self.network.config
            self.faces, self.hand_model = self.network.faces, self.network.hand_model
            self.hand = HandModel.open() if self.hand_model == "open" else None
        else:
            self._device = pick_device(device)
            self.network, self.config = load_checkpoint(weights, device=str(self._device))
            self.hand = copy.deepcopy(self.network.hand).cpu()
            self.faces, self.hand_model = self.hand.faces.numpy(), self.hand.name
        self.needs_landmarks = prompts and self.config.model.prompts

    def __call__(self, samples: Sequence[Sample]) -> RightHandBatch:
        crops = [crop(sample, self.config.model.size_px, self.config.crop) for sample in samples]
        if self.needs_landmarks:
            crops = [replace(cropped, landmarks=_prompts(cropped)) for cropped in crops]
        batch = collate(crops).to(self._device)
        with torch.inference_mode():
            out = self.network.forward_batch(batch, use_depth=any(sample.depth_m is not None for sample in samples))
        out = out.map(lambda tensor: tensor.detach().double().cpu().numpy())
        if not all(np.isfinite(np.asarray(a)).all() for a in (out.joints_m, out.joints_crop, out.vertices_m)):
            raise InputError(f"{self.weights}: the network's joints are NaN or inf; use another checkpoint")
        placed = [self._place(out, i, cropped) for i, cropped in enumerate(crops)]
        transl = np.stack([transl for transl, _ in placed])
        return RightHandBatch(
            params=HandParams(out.global_orient, out.hand_pose, out.betas, transl),
            joints_cam_m=out.joints_m + transl[:, None],
            vertices_cam_m=out.vertices_m + transl[:, None],
            measured=np.array([measured for _, measured in placed]),
            shape_source=["network"] * len(placed),
            network_joints_m=np.asarray(out.joints_m),
            joint_error_mm=None if out.joint_scale_mm is None else np.asarray(out.joint_scale_mm),
        )

    def _place(self, out, i: int, cropped: Sample) -> tuple[np.ndarray, bool]:
        """(3,) translation in the picture's camera, and whether its distance was measured."""
        assert cropped.K_px is not None  # the user's, or the default
        # The fixed crop is not rotated, so the crop's camera frame is the picture's.
        joints_px = crop_to_px(out.joints_crop[i], cropped.rgb.shape[0])
        guessed = solve_translation(out.joints_m[i], joints_px, cropped.K_px)
        if cropped.depth_m is None:
            return guessed, False
        measured = measure_distance(
            out.vertices_m[i], self.faces, out.joints_m[i], guessed, cropped.depth_m, cropped.K_px
        )
        return measured, not np.array_equal(measured, guessed)


def _prompts(cropped: Sample) -> np.ndarray:
    """(21, 6) prompts of a crop's landmarks; joints placed by a person (confidence 1) have no relative 3D."""
    confidence = cropped.joints_2d_conf.astype(float)
    assert cropped.joints_px is not None
    points = np.where((confidence > 0)[:, None], cropped.joints_px, np.nan)
    relative = np.where((confidence < 1)[:, None], cropped.joints_cam_m, np.nan)
    return prompts_of_landmarks(points, cropped.rgb.shape[0], relative, confidence)
