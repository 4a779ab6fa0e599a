"""Export of a network to ONNX, OpenVINO or torch.export, with a check against the network."""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from utnet.config import CropConfig
from utnet.conventions import NUM_JOINTS
from utnet.data.collate import collate
from utnet.errors import InputError, install_line
from utnet.export.description import ENTRY, description
from utnet.export.runtime import RECORD, SUFFIXES, Contents, ExportedConfig, ExportedNetwork
from utnet.model import UTNet
from utnet.synth import SyntheticHands
from utnet.types import Batch, Prediction

OPSET = 20
INPUTS = ("rgb", "depth_m", "K_px")
OUTPUTS = ("global_orient", "hand_pose", "betas", "cam", "cam_t", "joints_m", "joints_crop", "vertices_m")
"""Outputs by their names in `types.Prediction`; `output_names` adds optional ones."""

TOLERANCE_MM = 0.05
_TOLERANCE = 1e-3 * TOLERANCE_MM
_NEEDS = {"onnx": ("onnx", "onnxscript"), "openvino": ("openvino", "onnx", "onnxscript"), "torch": ()}
_BATCHES = (1, 4)
_LEAST_HALVED = 1024


@dataclass(frozen=True)
class Agreement:
    """Difference between the outputs of a file and of the network.

    Attributes:
        mm: largest distance of a joint or vertex.
        relative: largest difference of any output relative to max(1, |output|); infinite if only one is NaN.
        hands: number of compared hands; with and without depth are counted separately.
    """

    mm: float
    relative: float
    hands: int


def output_names(model: UTNet, *, with_depth: bool) -> tuple[str, ...]:
    """The outputs of an exported network, in order."""
    names = (*OUTPUTS, "root_z_m") if with_depth else OUTPUTS
    if model.scale_head is not None:
        names = (*names, "joint_scale_mm", "error_shape")
    return names if model.evidence is None else (*names, "mask_logit", "side_logit")


def input_names(model: UTNet, *, with_depth: bool) -> tuple[str, ...]:
    """The inputs of an exported network, in order."""
    names = INPUTS if with_depth else INPUTS[:1]
    return names if model.prompts is None else (*names, "landmarks")


def export_network(
    model: UTNet, path: str | Path, *, crop: CropConfig, format: str = "onnx", with_depth: bool = True
) -> Agreement:
    """Exports a network for any batch size, in float32. Run the file with `utnet.export.runtime.ExportedNetwork`.

    The file is loaded and compared with the network on synthetic hands, in batches of one and four; with depth, also
    without depth, with holes and with an unknown camera. It is deleted if it differs by more than 0.05 mm (outputs
    other than points: 5e-5 of max(1, |output|)). The file contains the hand model: with MANO it stays under MANO's
    licence.

    Args:
        model: on the CPU, in eval mode.
        path: the file to write, .onnx, .xml or .pt2; an existing one is replaced. Weights are stored in a second file
            by OpenVINO (.bin) and, if larger than 2 GB, by ONNX (`path` + ".data").
        crop: crop settings, stored in the file.
        format: "onnx" (opset 20), "openvino" or "torch" (torch.export).
        with_depth: inputs rgb (B, 3, H, H) in [0, 1], depth_m (B, H, H) in m (0 = no reading; all zeros = no depth)
            and K_px (B, 3, 3) (NaN = unknown); without, only rgb. Networks with prompts have landmarks (B, 21, 6) as
            last input (zeros: none). Outputs are `output_names`, float32, as of `UTNet.forward`.

    Raises:
        InputError: a package is not installed, the path is invalid, or the file does not match the network.
        ValueError: the network is in training mode or the format unknown.
    """
    path = Path(path)
    _check_request(model, path, format)
    names = output_names(model, with_depth=with_depth)
    inputs = input_names(model, with_depth=with_depth)
    contents = Contents(
        config=ExportedConfig(model=replace(model.config, mano=""), crop=crop),  # the hand is stored in the file
        inputs=inputs,
        outputs=names,
        hand_model=model.hand.name,
        faces=tuple(tuple(face) for face in model.hand.faces.tolist()),
    )
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        fresh = Path(folder) / path.name
        program = _trace(model, inputs, names)
        if format == "torch":
            torch.export.save(program, fresh, extra_files={f"{RECORD}.json": contents.to_json()})
        elif format == "onnx":
            _write_onnx(program, fresh, contents)
            halve_exactly(fresh)
        else:
            _write_openvino(program, fresh, contents)
        del program
        agreement = compare(model, fresh, crop=crop)
        if not (agreement.mm <= TOLERANCE_MM and agreement.relative <= _TOLERANCE):
            raise InputError(
                f"{path}: not written, it is {agreement.mm:.3g} mm (other outputs {agreement.relative:.2g}) off the "
                f"network, more than {TOLERANCE_MM} mm ({_TOLERANCE:.0e}); try another --format"
            )
        for part in sorted(Path(folder).iterdir(), key=lambda part: part == fresh):  # weights first
            part.replace(path.parent / part.name)
    return agreement


def compare(model: UTNet, path: str | Path, *, crop: CropConfig) -> Agreement:
    """Compares an exported file (trusted) with its network on synthetic hands."""
    network = ExportedNetwork(path, trusted=True)
    mm, relative, hands = [], [], 0
    for batch in _batches(model, crop):
        for use_depth in (False, True) if network.takes_depth else (False,):
            with torch.inference_mode():
                expected = model.forward_batch(batch, use_depth=use_depth)
            got = network.forward_batch(batch, use_depth=use_depth)
            for name in output_names(model, with_depth=True):
                relative.append(_difference(getattr(got, name), getattr(expected, name)))
            mm.append(1e3 * max(_distance_m(got, expected, name) for name in ("joints_m", "vertices_m")))
            hands += len(batch)
    return Agreement(mm=max(mm), relative=max(relative), hands=hands)


class _Traced(nn.Module):
    """Network with a tuple of tensors as output, for tracing."""

    def __init__(self, model: UTNet, names: tuple[str, ...]):
        super().__init__()
        self.model, self.names = model, names

    def forward(
        self,
        rgb: Tensor,
        depth_m: Tensor | None = None,
        K_px: Tensor | None = None,
        landmarks: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        prediction = self.model(rgb, depth_m, K_px, landmarks=landmarks)
        return tuple(getattr(prediction, name) for name in self.names)


class _TracedWithoutDepth(_Traced):
    def forward(self, rgb: Tensor, landmarks: Tensor | None = None) -> tuple[Tensor, ...]:  # type: ignore[override]
        return super().forward(rgb, landmarks=landmarks)


def _check_request(model: UTNet, path: Path, format: str) -> None:
    if format not in SUFFIXES:
        raise ValueError(f"format is {format!r}, expected {', '.join(SUFFIXES)}")
    if model.training:
        raise ValueError("the network is in training mode; call model.eval() before exporting it")
    if path.suffix != SUFFIXES[format]:
        raise InputError(f"{path}: a file of format {format} ends in {SUFFIXES[format]}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: its folder does not exist; make it first")
    missing = [name for name in _NEEDS[format] if importlib.util.find_spec(name) is None]
    if missing:
        extras = "export,openvino" if format == "openvino" else "export"
        raise InputError(f"{format} export needs {' and '.join(missing)}; {install_line(extras)}")


def _trace(model: UTNet, inputs: tuple[str, ...], names: tuple[str, ...]) -> torch.export.ExportedProgram:
    size = model.config.size_px
    # Two hands, since an axis of size 1 would become a constant.
    example = {
        "rgb": torch.rand(2, 3, size, size),
        "depth_m": torch.full((2, size, size), 0.6),
        "K_px": torch.eye(3).repeat(2, 1, 1) * size,
        "landmarks": torch.rand(2, NUM_JOINTS, 6),
    }
    traced = _Traced if "depth_m" in inputs else _TracedWithoutDepth
    batch = torch.export.Dim("batch")
    program = torch.export.export(
        traced(model, names).eval(),
        tuple(example[name] for name in inputs),
        dynamic_shapes=tuple({0: batch} for _ in inputs),
        strict=False,
    )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains local paths
    return program


def _write_onnx(program: torch.export.ExportedProgram, path: Path, contents: Contents) -> None:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # warns about missing torchvision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations in torch, and the shared name of the batch axis
        written = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=contents.inputs,
            output_names=contents.outputs,
            dynamic_shapes=tuple({0: "batch"} for _ in contents.inputs),
            verbose=False,
        )
    if written is None:
        raise RuntimeError("torch returned no ONNX program")
    for node in written.model.graph:
        node.metadata_props.clear()  # origin of nodes, a tenth of a small file
    written.model.metadata_props[RECORD] = contents.to_json()
    names = (*contents.inputs, *contents.outputs)
    written.model.metadata_props[ENTRY] = description(names, contents.config.crop.recipe)
    written.save(path)


def halve_exactly(path: Path) -> None:
    """Stores every weight of an ONNX file that half precision holds exactly (those of bundled networks) in half
    precision, with a Cast that ONNX Runtime folds when it loads the file: the same numbers in half the bytes."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(path, load_external_data=False)
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        return
    casts = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype != np.float32 or array.size < _LEAST_HALVED:
            continue
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if np.array_equal(half.astype(np.float32), array):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, path)


def _write_openvino(program: torch.export.ExportedProgram, path: Path, contents: Contents) -> None:
    """Converts via ONNX, since OpenVINO does not support some operations of torch.export."""
    import openvino

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        between = Path(folder) / "network.onnx"
        _write_onnx(program, between, contents)
        model = openvino.Core().read_model(between)
        model.set_rt_info(contents.to_json(), [RECORD])
        openvino.save_model(model, path, compress_to_fp16=False)


def _batches(model: UTNet, crop: CropConfig) -> Iterator[Batch]:
    """Yields synthetic hands; the largest batch has samples without depth, with unknown camera and with holes.

    With prompts it also has a sample without prompt, and one without relative 3D.
    """
    size_px, prompted = model.config.size_px, model.prompts is not None
    source, first = SyntheticHands(seed=0, size_px=size_px, crop=crop), 0
    for num in _BATCHES:
        batch = collate([source[i] for i in range(first, first + num)])
        first += num
        if prompted:
            relative = batch.joints_3d[..., :3] - batch.joints_3d[:, :1, :3]
            landmarks = torch.cat([batch.joints_2d[..., :2], relative, torch.full_like(relative[..., :1], 0.5)], -1)
            landmarks[-1, ::2], landmarks[0, :, 2:5] = 0.0, torch.nan
            if num > 1:
                landmarks[1] = 0.0
            batch = replace(batch, landmarks=landmarks)
        if num == max(_BATCHES):
            depth_ok, K_px, depth_m = batch.depth_ok.clone(), batch.K_px.clone(), batch.depth_m.clone()
            depth_ok[1], K_px[2], depth_m[3, : size_px // 2] = False, torch.nan, torch.nan
            batch = replace(batch, depth_ok=depth_ok, K_px=K_px, depth_m=depth_m)
        yield batch


def _difference(got: Tensor | None, expected: Tensor | None) -> float:
    """Largest difference relative to max(1, |expected|)."""
    if got is None or expected is None:
        return 0.0 if got is expected else float("inf")
    if got.shape != expected.shape or not torch.equal(got.isnan(), expected.isnan()):
        return float("inf")
    return float(((got - expected).abs() / expected.abs().clamp_min(1)).nan_to_num(nan=0.0).max())


def _distance_m(got: Prediction, expected: Prediction, name: str) -> float:
    distance = (getattr(got, name) - getattr(expected, name)).norm(dim=-1)
    return float(distance.nan_to_num(nan=float("inf")).max())
