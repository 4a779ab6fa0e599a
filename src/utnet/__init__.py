"""UTNet: a 3D hand (pose, shape, mesh, camera) from an RGB image, with depth where there is a sensor.

Importing the package is light: names load what they need on first use.
"""

from importlib import import_module as _import_module

__version__ = "0.2.0.dev0"

_LAZY = {
    "Config": "utnet.config",
    "HandModel": "utnet.hand",
    "HandParams": "utnet.types",
    "InputError": "utnet.errors",
    "UTNet": "utnet.model",
    "UTNetLoss": "utnet.losses",
    "Predictor": "utnet.predict",
}

__all__ = ["__version__", *sorted(_LAZY)]


def __getattr__(name: str):
    if name not in _LAZY:
        raise AttributeError(f"module 'utnet' has no attribute {name!r}")
    return getattr(_import_module(_LAZY[name]), name)
