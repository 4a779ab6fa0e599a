"""Training loss: terms and their weighted sum."""

from utnet.losses.weighted import UTNetLoss

__all__ = ["UTNetLoss"]
