"""DexYCB's 51 pose numbers -> parameters and meshes, by the open hand or the user's MANO files."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from utnet.errors import InputError
from utnet.hand import HandModel
from utnet.hand.arrays import HandArrays
from utnet.hand.mano import load_mano, mano_file
from utnet.rotations import axis_angle_to_matrix
from utnet.types import HandParams


class DexYcbHands:
    """Decodes labels as the toolkit's `MANOLayer` does: 45 principal components, mean pose, manopth's fingertips.

    Args:
        hand_model: "open" (identity basis, no mean) or "mano".
        mano: folder of the user's MANO_RIGHT.pkl and MANO_LEFT.pkl, or None.
        sides: the sides in the data. Without MANO_LEFT.pkl left hands have no parameters, with a warning.

    Raises:
        InputError: no such folder, no MANO_RIGHT.pkl where right hands occur, or a file that is not MANO's.
    """

    def __init__(self, hand_model: str, mano: str | Path | None, sides: list[str]):
        self.name = hand_model
        self._models: dict[str, HandModel] = {}
        self._mano: dict[str, HandArrays] = {}
        if hand_model == "mano" and mano is not None:
            self._mano = _load_files(Path(mano), sides)

    def has_params(self, side: str) -> bool:
        """Whether labels of this hand become parameters."""
        return self.name == "open" or side in self._mano

    def params(self, pose_m: np.ndarray, side: str, betas: np.ndarray) -> HandParams | None:
        """(51,) global axis-angle, 45 pose coefficients, translation -> parameters in the colour camera, mean included.

        None where the side's MANO file is not there. All zeros is no pose either: the toolkit's mark of no hand.
        """
        if not self.has_params(side) or not pose_m.any():
            return None
        pose_m = pose_m.astype(np.float64)
        axis_angle = pose_m[:48].copy()
        if self.name == "mano":
            arrays = self._mano[side]
            axis_angle[3:] = axis_angle[3:] @ arrays.pose_basis + arrays.pose_mean
        R = axis_angle_to_matrix(axis_angle.reshape(16, 3))
        return HandParams(global_orient=R[:1], hand_pose=R[1:], betas=betas, transl_m=pose_m[48:])

    def model(self, side: str) -> HandModel:
        """The model that decodes `params` of this side: no mean pose of its own, manopth's fingertips.

        Raises:
            InputError: the side's MANO file is not there.
        """
        if not self.has_params(side):
            raise InputError(f"a {side} hand of DexYCB needs MANO_{side.upper()}.pkl; name its folder as mano")
        if side not in self._models:
            if self.name == "open":
                self._models[side] = HandModel.open(side)
            else:
                self._models[side] = HandModel(replace(self._mano[side], pose_mean=None), side=side, name="mano")
        return self._models[side]

    def vertices_cam_m(self, params: HandParams, side: str) -> np.ndarray:
        """(V, 3) float32 mesh in the camera frame."""
        with torch.no_grad():
            mesh = self.model(side).decode(params.map(lambda array: torch.from_numpy(array[None]).float()))
        return mesh.vertices_m[0].numpy() + params.transl_m.astype(np.float32)


def _load_files(folder: Path, sides: list[str]) -> dict[str, HandArrays]:
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; name the one that holds your MANO_RIGHT.pkl and MANO_LEFT.pkl")
    files = {}
    for side in sides:
        path = mano_file(folder, side)
        if side == "left" and not path.is_file():
            warnings.warn(f"{path}: no such file, so DexYCB's left hands have joints and no pose", stacklevel=2)
            continue
        files[side] = load_mano(path, side=side, flat_hand_mean=False, tips="manopth")
    return files
