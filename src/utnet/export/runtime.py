"""Exported networks, run by ONNX Runtime, OpenVINO or torch.export with the interface of `UTNet`.

torch is imported only for a torch.export file, and to return tensors to whoever gives tensors.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import utnet
from utnet.config import CropConfig, ModelConfig, from_tree, to_tree
from utnet.conventions import NUM_JOINTS
from utnet.errors import BAD_TREE, InputError, install_line, shown
from utnet.export.onnx_check import check_onnx
from utnet.io.atomic import check_stand_in
from utnet.onnx_session import open_session
from utnet.threads import usable_threads
from utnet.types import Array, Batch, Prediction, check_shape

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
"""Formats of `utnet export` and their suffixes. OpenVINO also writes a .bin of the same name with the weights."""
SCHEMA_VERSION = 1
RECORD = "utnet"
"""Name of the entry with the `Contents`: ONNX metadata, OpenVINO runtime info, extra file of torch.export."""
TRUST_VARIABLE = "UTNET_TRUST_PT2"

_Run = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
_Shape = tuple[int | None, ...]
_SMALL_BYTES = 32_000_000
"""Size of an .onnx file up to which a second thread costs CPU time and saves none by the clock (`ti`)."""
_MAX_FACES = 1_000_000


@dataclass(frozen=True)
class _Opened:
    """An opened file: the text of its record, what runs it, and shapes by name (None: any size) of 32-bit floats; a
    tensor of another type has no shape. torch.export does not store them."""

    text: str
    run: _Run
    inputs: dict[str, _Shape | None] | None = None
    outputs: dict[str, _Shape | None] | None = None


@dataclass(frozen=True)
class ExportedConfig:
    """The part of a run's `Config` required for inference, with the same names."""

    model: ModelConfig
    crop: CropConfig


@dataclass(frozen=True)
class Contents:
    """Metadata of an exported network.

    Attributes:
        config: network and crop settings.
        inputs: names of the inputs, in order (`utnet.export.writer.INPUTS`, or rgb alone).
        outputs: fields of `types.Prediction`, in order.
        hand_model: "open" or "mano".
        faces: (F, 3) of that hand, counter-clockwise seen from outside.
        utnet: version that wrote the file.
    """

    config: ExportedConfig
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    hand_model: str
    faces: tuple[tuple[int, int, int], ...]
    utnet: str = utnet.__version__

    def to_json(self) -> str:
        return json.dumps({"schema": SCHEMA_VERSION, **to_tree(self)})

    @classmethod
    def from_json(cls, text: str, where: str) -> Contents:
        """Parses the metadata; raises InputError, starting with `where`, if it is missing or of another schema."""
        try:
            tree = json.loads(text)
            version = tree.pop("schema")
        except BAD_TREE as error:
            raise InputError(f"{where}: has no metadata of utnet; write it with `utnet export`") from error
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{where}: version {shown(version)}, but this utnet reads version {SCHEMA_VERSION}; export it again"
            )
        rows = tree.pop("faces", None)
        try:
            faces = np.array(rows).reshape(-1, 3)  # thousands of numbers: not one by one
            if faces.dtype.kind != "i":
                raise ValueError("not integers")
        except ValueError as error:
            raise InputError(f"{where}: faces: expected lists of 3 integers, found {shown(rows)}") from error
        contents = from_tree(cls, {**tree, "faces": []}, where=where)
        return replace(contents, faces=tuple(map(tuple, faces.tolist())))


class ExportedNetwork:
    """An exported network on the CPU, with `usable_threads()` threads; a small .onnx (the bundled `ti`) with one.

    Args:
        path: a file of `utnet export`: .onnx, .xml (OpenVINO) or .pt2 (torch.export).
        precision: "fp32", or "bf16" for OpenVINO in bfloat16 (faster, with errors of millimetres).
        trusted: loading a .pt2 can run arbitrary code, so it is refused unless this is True or UTNET_TRUST_PT2=1 is
            set. The other formats are safe.

    Attributes:
        config: its `model` and `crop`, as in the `Config` of the run.
        hand_model: "open" or "mano", the model of its parameters.
        faces: (F, 3) int64, counter-clockwise seen from outside.
        takes_depth: False if it was exported without depth.
        takes_landmarks: True for a network with prompts.

    Raises:
        InputError: the file is missing, damaged or not of `utnet export`, or a required package is not installed.
    """

    def __init__(self, path: str | Path, *, precision: str = "fp32", trusted: bool = False):
        path = Path(path)
        if path.suffix not in SUFFIXES.values():
            raise InputError(
                f"{path}: not an exported network; expected a file ending in {', '.join(SUFFIXES.values())}"
            )
        if not path.is_file():
            raise InputError(f"{path}: no such file; make it with `utnet export`")
        check_stand_in(path)
        if precision not in ("fp32", "bf16") or (precision == "bf16" and path.suffix != ".xml"):
            raise ValueError(f"precision is {precision!r}; expected 'fp32', or 'bf16' for OpenVINO's .xml, not {path}")
        if path.suffix == ".onnx":
            opened = _open_onnx(path)
        elif path.suffix == ".xml":
            opened = _open_openvino(path, precision)
        else:
            opened = _open_torch(path, trusted=trusted)
        contents = Contents.from_json(opened.text, str(path))
        _check_contents(contents, opened, path)
        self._run = opened.run
        self.path, self.config, self.hand_model = path, contents.config, contents.hand_model
        self.faces = np.array(contents.faces, np.int64)
        self.takes_depth, self.takes_landmarks = "depth_m" in contents.inputs, "landmarks" in contents.inputs

    def __call__(
        self,
        rgb: Array,
        depth_m: Array = None,
        K_px: Array = None,
        depth_ok: Array = None,
        landmarks: Array = None,
    ) -> Prediction:
        """Predicts right hands in square crops, on the CPU. Arrays give arrays, tensors give tensors.

        Args:
            rgb: (B, 3, H, H) float32 in [0, 1].
            depth_m: (B, H, H) metres, 0 where there is no reading; None without depth.
            K_px: (B, 3, 3) intrinsics of the crops, NaN or None if unknown.
            depth_ok: (B,) bool, samples with depth (default: those with a reading in the box).
            landmarks: (B, 21, 6) prompts as `UTNet.forward` takes them, or None.

        Returns:
            Prediction as of `UTNet.forward`, without `coarse`, `joint_map` and `joint_heat`.

        Raises:
            InputError: depth or landmarks are given but the network was exported without.
            ValueError: wrong shapes.
        """
        if not isinstance(rgb, np.ndarray):
            import torch

            given = (rgb, depth_m, K_px, depth_ok, landmarks)
            arrays = (None if value is None else value.detach().cpu().numpy() for value in given)
            return self(*arrays).map(torch.from_numpy)
        num, size = len(rgb), self.config.model.size_px
        check_shape("rgb", rgb, (num, 3, size, size))
        inputs = {"rgb": _floats(rgb)}
        if depth_m is not None and not self.takes_depth:
            raise InputError(f"{self.path}: exported without depth; leave depth out, or export it again with depth")
        if self.takes_depth:  # no readings: no depth
            depth_m = np.zeros((num, size, size)) if depth_m is None else depth_m
            check_shape("depth_m", depth_m, (num, size, size))
            if depth_ok is not None:
                check_shape("depth_ok", depth_ok, (num,))
                depth_m = np.where(depth_ok[:, None, None], depth_m, 0.0)
            K_px = np.full((num, 3, 3), np.nan) if K_px is None else K_px
            check_shape("K_px", K_px, (num, 3, 3))
            inputs |= {"depth_m": _floats(depth_m), "K_px": _floats(K_px)}
        if landmarks is not None and not self.takes_landmarks:
            raise InputError(f"{self.path}: takes no landmarks; leave them out, or export a network with model.prompts")
        if self.takes_landmarks:
            landmarks = np.zeros((num, NUM_JOINTS, 6)) if landmarks is None else landmarks
            check_shape("landmarks", landmarks, (num, NUM_JOINTS, 6))
            inputs["landmarks"] = _floats(landmarks)
        try:
            outputs: dict[str, Any] = dict(self._run(inputs))
        except Exception as error:  # the runtimes' exceptions have no base of their own
            raise InputError(f"{self.path}: cannot be run ({_line(error)}); export it again") from error
        if "root_z_m" not in outputs:
            outputs["root_z_m"] = np.full(num, np.nan, np.float32)
        return Prediction(**outputs)

    def forward_batch(self, batch: Batch, *, use_depth: bool = True, use_landmarks: bool = True) -> Prediction:
        """Predicts a Batch (tensors or arrays) on the CPU, as `UTNet.forward_batch`.

        `use_depth=False` ignores its depth, `use_landmarks=False` its prompts.
        """
        rgb, landmarks = batch.rgb / np.float32(255), batch.landmarks if use_landmarks else None
        if not (use_depth and batch.depth_ok.any()):
            return self(rgb, landmarks=landmarks)
        return self(rgb, batch.depth_m, batch.K_px, batch.depth_ok, landmarks)


def _check_contents(contents: Contents, opened: _Opened, path: Path) -> None:
    """Compares the record with the network beside it: InputError where they are not of one export."""
    size = contents.config.model.size_px
    inputs: dict[str, _Shape] = {"rgb": (None, 3, size, size)}
    if "depth_m" in contents.inputs:
        inputs |= {"depth_m": (None, size, size), "K_px": (None, 3, 3)}
    if "landmarks" in contents.inputs:
        inputs["landmarks"] = (None, NUM_JOINTS, 6)
    # The first axis is the batch.
    outputs: dict[str, _Shape] = {
        "global_orient": (None, 1, 3, 3),
        "hand_pose": (None, 15, 3, 3),
        "betas": (None, 10),
        "cam": (None, 3),
        "cam_t": (None, 3),
        "joints_m": (None, 21, 3),
        "joints_crop": (None, 21, 2),
        "vertices_m": (None, None, 3),
        **({"root_z_m": (None,)} if "root_z_m" in contents.outputs else {}),
        **({"joint_scale_mm": (None, 21), "error_shape": (None, 2)} if "joint_scale_mm" in contents.outputs else {}),
        **({"mask_logit": (None, None, None), "side_logit": (None,)} if "mask_logit" in contents.outputs else {}),
    }
    for kind, recorded, expected, found in (
        ("inputs", contents.inputs, inputs, opened.inputs),
        ("outputs", contents.outputs, outputs, opened.outputs),
    ):
        if list(recorded) != list(expected):
            raise InputError(f"{path}: its record names the {kind} {shown(recorded)}; export it again")
        wrong = [] if found is None else [name for name in expected if not _fits(found.get(name), expected[name])]
        if wrong or (found is not None and found.keys() != expected.keys()):
            raise InputError(
                f"{path}: its {kind} are not those of its record ({', '.join(wrong[:3])}); export it again"
            )
    if contents.hand_model not in ("open", "mano"):
        raise InputError(f"{path}: its record names the hand {shown(contents.hand_model)}; expected open or mano")
    vertices = None if opened.outputs is None else (opened.outputs["vertices_m"] or ())[1]
    top = math.inf if vertices is None else vertices
    flat = [vertex for face in contents.faces for vertex in face]
    if not flat or len(contents.faces) > _MAX_FACES or min(flat) < 0 or max(flat) >= top:
        raise InputError(f"{path}: the faces of its record are not of its {vertices or ''} vertices; export it again")


def _fits(shape: _Shape | None, expected: _Shape) -> bool:
    """Whether a tensor may have that shape; an axis that either leaves open fits."""
    return (
        shape is not None
        and len(shape) == len(expected)
        and all(n is None or m is None or n == m for n, m in zip(shape, expected, strict=True))
    )


def _open_onnx(path: Path) -> _Opened:
    """The file, opened and ready to run; the same for the two below."""
    check_onnx(path)
    try:
        session = open_session(path, threads=usable_threads() if path.stat().st_size > _SMALL_BYTES else 1)
        text = session.get_modelmeta().custom_metadata_map.get(RECORD, "")
    except Exception as error:  # its exceptions have no base of their own
        raise InputError(f"{path}: ONNX Runtime cannot read it ({_line(error)}); export it again") from error
    names = [output.name for output in session.get_outputs()]

    def shapes(values: list) -> dict[str, _Shape | None]:
        return {
            value.name: tuple(n if isinstance(n, int) else None for n in value.shape)
            if value.type == "tensor(float)"
            else None
            for value in values
        }

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return _Opened(text, run, shapes(session.get_inputs()), shapes(session.get_outputs()))


def _open_openvino(path: Path, precision: str) -> _Opened:
    if importlib.util.find_spec("openvino") is None:
        raise InputError(f"{path}: needs OpenVINO; {install_line('openvino')}")
    import openvino

    core = openvino.Core()
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; it contains the weights of {path.name} and must be beside it")
    properties = {
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": usable_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    try:
        model = core.read_model(path, weights)
        text = model.get_rt_info(RECORD).astype(str) if RECORD in model.get_rt_info() else ""
        request = core.compile_model(model, "CPU", properties).create_infer_request()
    except Exception as error:
        raise InputError(f"{path}: OpenVINO cannot read it ({_line(error)}); export it again") from error
    names = [output.get_any_name() for output in model.outputs]

    def shapes(ports: list) -> dict[str, _Shape | None]:
        return {
            port.get_any_name(): tuple(n.get_length() if n.is_static else None for n in port.get_partial_shape())
            if port.get_element_type() == openvino.Type.f32
            else None
            for port in ports
        }

    alone = threading.Lock()  # a request holds one batch at a time

    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        with alone:
            results = request.infer(inputs)
            return {name: results[name].copy() for name in names}  # the next batch overwrites them

    return _Opened(text, run, shapes(model.inputs), shapes(model.outputs))


def _open_torch(path: Path, *, trusted: bool) -> _Opened:
    if not (trusted or os.environ.get(TRUST_VARIABLE) == "1"):
        raise InputError(
            f"{path}: loading a torch.export file can run arbitrary code; if you trust it, set {TRUST_VARIABLE}=1, "
            "else use an .onnx or .xml file"
        )
    if importlib.util.find_spec("torch") is None:
        raise InputError(f"{path}: needs torch; {install_line('train')}")
    import torch

    extra = {f"{RECORD}.json": ""}
    try:
        program = torch.export.load(path, extra_files=extra)
        module = program.module()
    except Exception as error:
        raise InputError(f"{path}: torch cannot read it ({_line(error)}); export it again") from error
    text = extra[f"{RECORD}.json"]
    names = Contents.from_json(text, str(path)).outputs

    @torch.inference_mode()
    def run(inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        results = module(*(torch.from_numpy(array) for array in inputs.values()))
        return {name: result.numpy() for name, result in zip(names, results, strict=True)}

    return _Opened(text, run)


def _floats(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _line(error: Exception) -> str:
    """Last line of an error message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
