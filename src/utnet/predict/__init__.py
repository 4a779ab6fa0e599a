"""Prediction: from pictures to hands, and the files written for them.

Names are imported on first use, because the command line imports this package for its options.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utnet.predict.hand import Hand as Hand
    from utnet.predict.hands import Hands as Hands
    from utnet.predict.predictor import Predictor as Predictor
    from utnet.predict.reading import read_predictions as read_predictions

_LAZY = {
    "Hand": "utnet.predict.hand",
    "Hands": "utnet.predict.hands",
    "Predictor": "utnet.predict.predictor",
    "read_predictions": "utnet.predict.reading",
}

__all__ = ["Hand", "Hands", "Predictor", "read_predictions"]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'utnet.predict' has no attribute {name!r}")
    return getattr(_import_module(_LAZY[name]), name)
