"""Hand models: (global_orient, hand_pose, betas) -> vertices and joints.

`HandModel` loads on first use: it needs torch.
"""

from typing import TYPE_CHECKING

from utnet.hand.numpy_model import AnyHandModel, NumpyHandModel

if TYPE_CHECKING:
    from utnet.hand.model import HandModel

__all__ = ["AnyHandModel", "HandModel", "NumpyHandModel"]


def __getattr__(name: str):
    if name != "HandModel":
        raise AttributeError(f"module 'utnet.hand' has no attribute {name!r}")
    from utnet.hand.model import HandModel

    return HandModel
