"""The network as an ONNX file, for ONNX Runtime, OpenVINO and others (`pip install -e '.[export]'`)."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from utnet.errors import InputError
from utnet.model import UTNet

OPSET = 20
INPUTS = ("rgb", "depth_m", "K_px")
OUTPUTS = ("global_orient", "hand_pose", "betas", "cam", "cam_t", "joints_m", "joints_crop", "vertices_m")
"""By their names in `types.Prediction`; a network with depth also gives `root_z_m`."""


class _Exported(nn.Module):
    """Tensors in, a tuple of tensors out: what ONNX can say."""

    def __init__(self, model: UTNet, *, with_depth: bool):
        super().__init__()
        self.model, self.names = model, output_names(with_depth=with_depth)

    def forward(self, rgb: Tensor, depth_m: Tensor | None = None, K_px: Tensor | None = None) -> tuple[Tensor, ...]:
        prediction = self.model(rgb, depth_m, K_px)
        return tuple(getattr(prediction, name) for name in self.names)


def output_names(*, with_depth: bool) -> tuple[str, ...]:
    """The outputs of an exported network, in order."""
    return (*OUTPUTS, "root_z_m") if with_depth else OUTPUTS


def export_onnx(model: UTNet, path: str | Path, *, with_depth: bool) -> Path:
    """Writes a network as ONNX, opset 20, for any batch size.

    Its hand is in the file too: a file made with MANO's numbers stays under MANO's licence.

    Args:
        model: on the CPU, in eval mode.
        path: the file to write; weights of more than 2 GB go beside it, into `path` + ".data".
        with_depth: inputs rgb (B, 3, H, H) in [0, 1], depth_m (B, H, H) in m (0 = no reading) and K_px (B, 3, 3) (NaN =
            not known); without, rgb alone. Outputs are `output_names`, float32, as `UTNet.forward` gives them.

    Returns:
        `path`.

    Raises:
        InputError: the extra `export` is not installed, or the folder does not exist.
        ValueError: the network is in training mode.
    """
    path = Path(path)
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"ONNX export needs {' and '.join(missing)}: install utnet's extra, pip install 'utnet[export]'"
        )
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; make it first")
    if model.training:
        raise ValueError("the network is in training mode; call model.eval() before exporting it")
    size = model.config.size_px
    # Two hands, not one: an axis of one would be taken for a constant.
    inputs: tuple[Tensor, ...] = (torch.rand(2, 3, size, size),)
    if with_depth:
        inputs += (torch.full((2, size, size), 0.6), torch.eye(3).repeat(2, 1, 1) * size)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it tells that torchvision is not there
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        warnings.simplefilter("ignore")  # torch's own: deprecations, and one name for the batch of three inputs
        program = torch.onnx.export(
            _Exported(model, with_depth=with_depth).eval(),
            inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS[: len(inputs)],
            output_names=output_names(with_depth=with_depth),
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in inputs),
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch gave no ONNX program")
        program.save(Path(folder) / path.name)
        for part in sorted(Path(folder).iterdir(), reverse=True):  # the data before the file that names it
            part.replace(path.parent / part.name)
    return path
