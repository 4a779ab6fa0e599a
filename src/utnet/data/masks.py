"""Masks of the visible hand in a crop: its rendered mesh where the depth image agrees."""

from __future__ import annotations

import numpy as np

from utnet.render.raster import rasterize
from utnet.synth.decoder import NumpyHand
from utnet.types import Sample

_SAME_M = 0.02
"""A reading this near the drawn surface is the hand; one nearer by more is something in front."""


class MaskLabels:
    """Masks of samples of the open hand that have depth.

    Args:
        decode: the open hand.
        faces: (F, 3) its triangles.
        size_px: side of the masks; crops are multiples of it.
    """

    def __init__(self, decode: NumpyHand, faces: np.ndarray, size_px: int):
        self._decode, self._faces, self._size_px = decode, faces, size_px

    def __call__(self, sample: Sample) -> np.ndarray | None:
        """(size_px, size_px) float32 share of the cell that is the visible hand, NaN if unknown; None for
        samples without depth, camera or parameters of the open hand."""
        params = sample.params
        if sample.depth_m is None or sample.K_px is None or params is None or sample.hand_model != "open":
            return None
        if not np.isfinite(params.transl_m).all():
            return None
        side, k = sample.rgb.shape[0], 2
        fine = self._size_px * k  # two samples a cell and axis
        A = np.array([[fine / side, 0, (fine / side - 1) / 2], [0, fine / side, (fine / side - 1) / 2], [0, 0, 1]])
        drawn = rasterize(self._decode(params).vertices_m, self._faces, A @ sample.K_px, (fine, fine)).depth_m
        at = np.minimum(((np.arange(fine) + 0.5) * side / fine).astype(int), side - 1)
        read = sample.depth_m[np.ix_(at, at)]
        mask = np.where(drawn > 0, np.nan, 0.0)
        mask[(drawn > 0) & (np.abs(read - drawn) < _SAME_M)] = 1.0
        mask[(drawn > 0) & (read > 0) & (read < drawn - _SAME_M)] = 0.0
        return mask.reshape(self._size_px, k, self._size_px, k).mean((1, 3)).astype(np.float32)
