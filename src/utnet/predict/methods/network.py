"""A network with trained weights, in torch or exported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utnet.data.collate import stack_samples
from utnet.data.prompts import prompts_of_landmarks
from utnet.data.transforms import crop
from utnet.errors import InputError, install_line
from utnet.fit.outline import HandMask
from utnet.geometry import crop_to_px
from utnet.hand import NumpyHandModel
from utnet.placement import measure_distance, solve_translation
from utnet.predict.methods.base import RightHandBatch
from utnet.types import HandParams, Sample
from utnet.weights import NETWORK, find_checkpoint, name_checkpoint

if TYPE_CHECKING:
    from utnet.export.runtime import ExportedNetwork
    from utnet.predict.methods.checkpoint_network import CheckpointNetwork


_USED = (
    "global_orient", "hand_pose", "betas", "joints_m", "joints_crop", "vertices_m", "joint_scale_mm", "mask_logit",
    "side_logit",
)  # fmt: skip


class NetworkMethod:
    """Runs a network on crops and places its hands in the picture's camera.

    Args:
        weights: a checkpoint folder such as RUN/best, the name of a bundled network, or a file of `utnet export`.
            Checkpoints need torch (the extra `train`); files do not, and a bundled network is run from its file.
        device: "auto", "cpu", "cuda", ... Files run on the CPU; for another device the checkpoint of a bundled network
            is used.
        prompts: pass landmarks to a network trained with prompts.

    Attributes:
        needs_landmarks: whether landmarks are passed to the network.
    """

    name = "network"

    def __init__(self, weights: str | Path, *, device: str = "auto", prompts: bool = True):
        from utnet.export.runtime import SUFFIXES, ExportedNetwork  # with the config's modules

        self.weights: str | None = name_checkpoint(weights)
        self.network: ExportedNetwork | CheckpointNetwork
        self.hand: NumpyHandModel | None
        file = Path(weights)
        if file.suffix not in SUFFIXES.values() and device in ("auto", "cpu"):
            file = find_checkpoint(weights) / NETWORK
        if file.suffix in SUFFIXES.values() and (file.is_file() or file.name != NETWORK):
            self.network = ExportedNetwork(file)
            self.hand = NumpyHandModel.open() if self.network.hand_model == "open" else None
        else:
            self.network = _open_checkpoint(weights, device)
            self.hand = self.network.hand
        self.config, self.faces, self.hand_model = self.network.config, self.network.faces, self.network.hand_model
        self.needs_landmarks = prompts and self.config.model.prompts

    def __call__(self, samples: Sequence[Sample]) -> RightHandBatch:
        crops = [crop(sample, self.config.model.size_px, self.config.crop) for sample in samples]
        if self.needs_landmarks:
            crops = [replace(cropped, landmarks=_prompts(cropped)) for cropped in crops]
        batch, with_depth = stack_samples(crops), any(sample.depth_m is not None for sample in samples)
        out = self.network.forward_batch(batch, use_depth=with_depth).map(lambda array: np.asarray(array, float))
        used = (getattr(out, name) for name in _USED)
        if not all(np.isfinite(array).all() for array in used if array is not None):
            raise InputError(f"{self.weights}: the network's outputs are NaN or inf; use another checkpoint")
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
            side_logit=None if out.side_logit is None else np.asarray(out.side_logit),
            masks=None
            if out.mask_logit is None
            else [mask_of_crop(*row) for row in zip(out.mask_logit, crops, samples, strict=True)],
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


def _open_checkpoint(weights: str | Path, device: str) -> CheckpointNetwork:
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"{weights}: checkpoints need torch: {install_line('train')}; or give an exported file")
    from utnet.predict.methods.checkpoint_network import CheckpointNetwork

    return CheckpointNetwork(weights, device=device)


def mask_of_crop(logit: np.ndarray, cropped: Sample, sample: Sample) -> HandMask:
    """The network's mask of a crop's central columns, with the camera of its cells and the bounds of the picture."""
    assert cropped.K_px is not None
    assert sample.K_px is not None
    (rows, columns), size = logit.shape, cropped.rgb.shape[0]
    share = rows / size
    beside = (size - columns / share) / 2  # unused columns of the crop on each side
    to_cells = np.array([[share, 0, (share - 1) / 2 - share * beside], [0, share, (share - 1) / 2], [0, 0, 1]])
    K_cells = to_cells @ cropped.K_px
    height, width = sample.rgb.shape[:2]
    corners = np.array([[-0.5, -0.5, 1], [width - 0.5, height - 0.5, 1]]) @ (K_cells @ np.linalg.inv(sample.K_px)).T
    return HandMask(logit, K_cells, known=corners[:, :2].ravel())


def _prompts(cropped: Sample) -> np.ndarray:
    """(21, 6) prompts of a crop's landmarks; joints placed by a person (confidence 1) have no relative 3D."""
    confidence = cropped.joints_2d_conf.astype(float)
    assert cropped.joints_px is not None
    assert cropped.landmarks_m is not None
    points = np.where((confidence > 0)[:, None], cropped.joints_px, np.nan)
    relative = np.where((confidence < 1)[:, None], cropped.landmarks_m, np.nan)
    return prompts_of_landmarks(points, cropped.rgb.shape[0], relative, confidence)
