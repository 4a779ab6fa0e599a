"""UTNet: a 3D hand (pose, shape, mesh, camera) from an RGB image, with depth where there is a sensor.

Importing the package is light: a name loads its module on first use. Type checkers and editors see all of them.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from utnet.checkpoint import load_checkpoint as load_checkpoint
    from utnet.config import Config as Config
    from utnet.data import open_source as open_dataset
    from utnet.detect import HandDetector as HandDetector
    from utnet.errors import InputError as InputError
    from utnet.evaluation.validation import evaluate as evaluate
    from utnet.export.writer import export_network as export_network
    from utnet.fit import HandFitter as HandFitter
    from utnet.hand import HandModel as HandModel
    from utnet.io.pictures import read_picture as read_picture
    from utnet.losses import UTNetLoss as UTNetLoss
    from utnet.model import UTNet as UTNet
    from utnet.predict.hand import Hand as Hand
    from utnet.predict.hands import Hands as Hands
    from utnet.predict.live import HandTracker as HandTracker
    from utnet.predict.predictor import Predictor as Predictor
    from utnet.training.loop import train as train
    from utnet.types import HandParams as HandParams

__version__ = "0.2.0.dev0"

_LAZY = {
    "Config": "utnet.config:Config",
    "Hand": "utnet.predict.hand:Hand",
    "HandDetector": "utnet.detect:HandDetector",
    "HandFitter": "utnet.fit:HandFitter",
    "HandModel": "utnet.hand:HandModel",
    "HandParams": "utnet.types:HandParams",
    "HandTracker": "utnet.predict.live:HandTracker",
    "Hands": "utnet.predict.hands:Hands",
    "InputError": "utnet.errors:InputError",
    "Predictor": "utnet.predict.predictor:Predictor",
    "UTNet": "utnet.model:UTNet",
    "UTNetLoss": "utnet.losses:UTNetLoss",
    "evaluate": "utnet.evaluation.validation:evaluate",
    "export_network": "utnet.export.writer:export_network",
    "load_checkpoint": "utnet.checkpoint:load_checkpoint",
    "open_dataset": "utnet.data:open_source",
    "read_picture": "utnet.io.pictures:read_picture",
    "train": "utnet.training.loop:train",
}
"""Name -> module:name in it."""

__all__ = [
    "Config",
    "Hand",
    "HandDetector",
    "HandFitter",
    "HandModel",
    "HandParams",
    "HandTracker",
    "Hands",
    "InputError",
    "Predictor",
    "UTNet",
    "UTNetLoss",
    "__version__",
    "evaluate",
    "export_network",
    "load_checkpoint",
    "open_dataset",
    "read_picture",
    "train",
]

if not TYPE_CHECKING:  # or type checkers would accept any name

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module 'utnet' has no attribute {name!r}")
        module, _, attribute = _LAZY[name].partition(":")
        value = globals()[name] = getattr(_import_module(module), attribute)
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
