"""The network: pixels to hand parameters."""

from utnet.model.presets import PRESETS
from utnet.model.utnet import UTNet

__all__ = ["PRESETS", "UTNet"]
