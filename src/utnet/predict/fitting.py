"""`fit`: a hand model fitted to the detector's landmarks, and to depth. It needs no weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from utnet.errors import InputError
from utnet.fit import HandFitter
from utnet.hand import HandModel
from utnet.predict.lifting import RightHands
from utnet.types import Sample


class FitLifter:
    """Landmarks through `utnet.fit.HandFitter`.

    Args:
        mano: the folder of the user's MANO_RIGHT.pkl; None: the open hand.
    """

    name = "fit"
    weights: str | None = None
    needs_landmarks = True

    def __init__(self, *, mano: str | Path | None = None):
        self.hand = HandModel.open() if mano is None else _mano(Path(mano))
        self.faces, self.hand_model = self.hand.faces.numpy(), self.hand.name
        self._fitter = HandFitter(self.hand)

    def __call__(self, samples: Sequence[Sample]) -> RightHands:
        fits = self._fitter.fit(
            np.array([sample.joints_px for sample in samples]),
            np.array([sample.joints_cam_m for sample in samples]),
            np.array([sample.K_px for sample in samples]),
            depth_m=[sample.depth_m for sample in samples],
        )
        with torch.inference_mode():
            mesh = self.hand.decode(fits.params.map(lambda array: torch.from_numpy(array).float()))
        transl = fits.params.transl_m[:, None]
        return RightHands(
            params=fits.params,
            joints_cam_m=mesh.joints_m.double().numpy() + transl,
            vertices_cam_m=mesh.vertices_m.double().numpy() + transl,
            measured=fits.measured,
        )


def _mano(folder: Path) -> HandModel:
    path = folder / "MANO_RIGHT.pkl"
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder of your MANO_RIGHT.pkl (mano.is.tue.mpg.de)")
    return HandModel.from_mano(path)
