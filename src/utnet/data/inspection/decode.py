"""Decoding of labels with their own hand model, where it is available."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utnet.conventions import MANO_TIP_VERTICES, NUM_JOINTS, SIDES
from utnet.data.source import MIN_JOINT_Z_M
from utnet.errors import InputError
from utnet.geometry import intrinsics, project
from utnet.hand import HandModel
from utnet.hand.mano import mano_file
from utnet.types import HandParams, Sample

_FAR_M = 100.0
"""Distance at which a hand's extent in depth changes its size in the picture by 0.1 %."""


@dataclass(frozen=True)
class Posed:
    """A decoded hand before translation: joints (21, 3) and vertices (V, 3) in metres, faces (F, 3)."""

    joints_m: np.ndarray
    vertices_m: np.ndarray
    faces: np.ndarray


class Decoder:
    """Decodes parameters to joints and meshes in the camera frame, with the fingertip vertices of a source.

    A left hand whose betas may be learnt (`betas_ok`) is decoded by the mirrored right hand, to which these betas
    belong; any other by the left hand's own model.

    Args:
        source: the samples' source. Its `hand_model_of`, if any, takes precedence over the files in `mano`.
        mano: folder of the user's MANO_RIGHT.pkl and MANO_LEFT.pkl; without it, only the source's own models are used.

    Raises:
        InputError: `mano` is not a folder, or contains neither file.
    """

    def __init__(self, source: Any, mano: str | Path | None = None):
        self._models: dict[tuple[str, str], HandModel] = {("open", side): HandModel.open(side) for side in SIDES}
        if mano:
            self._models.update(_mano_models(Path(mano), source.tips))
        self._models.update(_own_models(source))
        right = self._models.get(("mano", "right"))
        self._mirrored = None if right is None else right.mirrored()

    def model(self, sample: Sample) -> HandModel | None:
        """The model of the sample's labels, or None where it is not available."""
        if sample.hand_model == "mano" and sample.side == "left" and sample.betas_ok:
            return self._mirrored
        return self._models.get((sample.hand_model, sample.side))

    def tip_vertices(self, sample: Sample) -> np.ndarray | None:
        """(5,) vertices of the fingertips on the labelled mesh, or None where the model is missing."""
        model = self.model(sample)
        return None if model is None else model.tip_vertices.numpy()

    def joints_m(self, samples: Sequence[Sample]) -> np.ndarray:
        """(n, 21, 3) float64 joints before translation; NaN where parameters or their model are missing."""
        out = np.full((len(samples), NUM_JOINTS, 3), np.nan)
        groups: dict[HandModel, list[int]] = {}
        for i, sample in enumerate(samples):
            model = self.model(sample)
            if sample.params is not None and model is not None:
                groups.setdefault(model, []).append(i)
        for model, members in groups.items():
            mesh = model.decode(_stack([samples[i].params for i in members]), with_vertices=False)
            out[members] = mesh.joints_m.double().numpy()
        return out

    def mesh(self, sample: Sample) -> Posed | None:
        """The sample's parameters decoded, or None where it has none or their model is missing."""
        model = self.model(sample)
        if sample.params is None or model is None:
            return None
        mesh = model.decode(_stack([sample.params]))
        return Posed(mesh.joints_m[0].double().numpy(), mesh.vertices_m[0].double().numpy(), model.faces.numpy())

    def faces(self, sample: Sample) -> np.ndarray | None:
        """(F, 3) of the sample's hand model, or None where that is missing."""
        model = self.model(sample)
        return None if model is None else model.faces.numpy()


def _mano_models(folder: Path, tips: str) -> dict[tuple[str, str], HandModel]:
    """The user's MANO hands for which a file exists."""
    paths = {side: mano_file(folder, side) for side in SIDES}
    paths = {side: path for side, path in paths.items() if path.is_file()}
    if not paths:
        raise InputError(f"{folder}: contains neither MANO_RIGHT.pkl nor MANO_LEFT.pkl; give their folder as --mano")
    tips = tips if tips in MANO_TIP_VERTICES else "smplx"
    return {("mano", side): HandModel.from_mano(path, side=side, tips=tips) for side, path in paths.items()}


def _own_models(source: Any) -> dict[tuple[str, str], HandModel]:
    """Hand models that the source provides for its labels, such as H2O3D's left hand."""
    found = {}
    for side in SIDES if hasattr(source, "hand_model_of") else ():
        try:
            model = source.hand_model_of(side)
        except InputError:
            continue  # MANO labels without a MANO file
        found[model.name, side] = model
    return found


def fitted_camera(
    joints_m: np.ndarray, points_px: np.ndarray, conf: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Fits a distant camera that projects a hand onto its 2D labels, for samples without a camera or a translation.

    Weak perspective by least squares, x = s X + o, expressed as a pinhole camera at distance `_FAR_M`.

    Args:
        joints_m: (21, 3) decoded joints.
        points_px: (21, 2) image points, NaN where there is none.
        conf: (21,) their confidence.

    Returns:
        K (3, 3) and the translation (3,); None with fewer than three labelled points, or if the hand would be mirrored.
    """
    ok = np.isfinite(points_px).all(1) & (conf > 0)
    if ok.sum() < 3:
        return None
    X, x = joints_m[ok, :2], points_px[ok]
    centred = X - X.mean(0)
    scale = float((centred * (x - x.mean(0))).sum() / max((centred**2).sum(), 1e-12))
    if scale <= 0:
        return None
    offset = x.mean(0) - scale * X.mean(0)
    depth = _FAR_M - joints_m[:, 2].mean()
    return intrinsics(scale * _FAR_M, scale * _FAR_M, *offset), np.array([0.0, 0.0, depth])


def _stack(params: Sequence[HandParams | None]) -> HandParams:
    """A batch of float32 tensors."""

    def tensor(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(p, name) for p in params]).astype(np.float32))

    return HandParams(tensor("global_orient"), tensor("hand_pose"), tensor("betas"), tensor("transl_m"))


def image_points(sample: Sample) -> np.ndarray:
    """(21, 2) joints in the picture: the source's own 2D labels, else the projected joints. NaN where there is none."""
    if sample.joints_px is not None:
        return np.asarray(sample.joints_px, np.float64)
    return projected(sample.joints_cam_m, sample.K_px)


def projected(joints_cam_m: np.ndarray, K_px: np.ndarray | None) -> np.ndarray:
    """(N, 2) `project`, NaN for points that are NaN or behind the camera, and everywhere without a camera."""
    ahead = joints_cam_m[:, 2] > MIN_JOINT_Z_M
    out = np.full((len(joints_cam_m), 2), np.nan)
    if K_px is not None:
        out[ahead] = project(joints_cam_m[ahead].astype(np.float64), K_px)
    return out
