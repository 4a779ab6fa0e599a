"""Hand models: (global_orient, hand_pose, betas) -> vertices and joints."""

from utnet.hand.model import HandModel

__all__ = ["HandModel"]
