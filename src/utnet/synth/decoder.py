"""Decoding of a single hand for the renderer."""

from __future__ import annotations

import numpy as np

from utnet.hand.arrays import HandArrays
from utnet.hand.numpy_model import NumpyHandModel
from utnet.synth.scene import PosedHand
from utnet.types import HandParams


class NumpyHand:
    """`NumpyHandModel` of one hand in the camera frame."""

    def __init__(self, arrays: HandArrays):
        self._model = NumpyHandModel(arrays)

    def __call__(self, params: HandParams) -> PosedHand:
        """Decodes the parameters of one hand (numpy, no batch axis)."""
        mesh, transl = self._model.decode(params.map(lambda array: array[None])), params.transl_m.astype(np.float32)
        root = params.global_orient[0].astype(np.float32)
        return PosedHand(mesh.vertices_m[0] + transl, mesh.joints_m[0] + transl, root)
