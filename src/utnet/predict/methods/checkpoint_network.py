"""A torch checkpoint with the interface of `ExportedNetwork`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from utnet.checkpoint import load_checkpoint, pick_device
from utnet.hand import NumpyHandModel
from utnet.types import Batch, Prediction


class CheckpointNetwork:
    """A network with trained weights in torch; arrays in, arrays out.

    Args:
        weights: a checkpoint folder or the name of a bundled network.
        device: "auto", "cpu", "cuda", ...

    Attributes:
        config: of its run.
        hand: its hand model.
        faces: (F, 3) int64 of that.
        hand_model: "open" or "mano".
    """

    def __init__(self, weights: str | Path, *, device: str = "auto"):
        self._device = pick_device(device)
        self._model, self.config = load_checkpoint(weights, device=str(self._device))
        self.hand = NumpyHandModel.of(self._model.hand)
        self.faces, self.hand_model = self.hand.faces, self.hand.name

    def forward_batch(self, batch: Batch, *, use_depth: bool = True) -> Prediction:
        """As `ExportedNetwork.forward_batch`."""
        with torch.inference_mode():
            tensors = batch.map(torch.from_numpy).to(self._device)
            out = self._model.forward_batch(tensors, use_depth=use_depth)
        return replace(out, coarse=None, joint_map=None, joint_heat=None).map(lambda tensor: tensor.cpu().numpy())
