"""Additional inputs and labels of training crops: prompts, masks, and mirrored crops for the side head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from utnet.config import ModelConfig, PromptConfig
from utnet.data.masks import MaskLabels
from utnet.data.prompts import PromptNoise
from utnet.data.transforms import in_mirror
from utnet.detect.residuals import DetectorResiduals
from utnet.hand.arrays import load_open_hand
from utnet.model.evidence import CELLS
from utnet.model.presets import resolve_preset
from utnet.synth.decoder import NumpyHand
from utnet.types import Sample


@dataclass(frozen=True)
class PromptsAndMasks:
    """Additional inputs and labels of a sample; none by default.

    Attributes:
        prompts: draws landmarks, or None.
        masks: makes masks, or None.
        mirror_p: probability that a crop is mirrored, for the side head only.
    """

    prompts: PromptNoise | None = None
    masks: MaskLabels | None = None
    mirror_p: float = 0.0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Adds them to the crop; determined by `rng`."""
        if self.prompts is not None:
            sample = replace(sample, landmarks=self.prompts(sample, rng))
        if self.masks is not None:
            sample = replace(sample, mask_cells=self.masks(sample))
        return in_mirror(sample) if self.mirror_p > 0 and rng.random() < self.mirror_p else sample

    @classmethod
    def of(cls, model: ModelConfig, prompts: PromptConfig, mirror_p: float = 0.0) -> PromptsAndMasks:
        """Those that a network is trained with: prompts with `model.prompts`, masks with `model.evidence`."""
        noise = masks = None
        if model.prompts:
            noise = PromptNoise(prompts, DetectorResiduals.load().observe)
        if model.evidence:
            arrays, cells = load_open_hand(), CELLS * model.size_px // resolve_preset(model).patch_px
            masks = MaskLabels(NumpyHand(arrays), arrays.faces, cells)
        return cls(noise, masks, mirror_p)
