"""Checkpoints, runs to resume, exported networks, other projects' weights, and the files that come beside pictures."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from fuzz.base import base, copy
from fuzz.mutate import bytes_of, text_of, tree_of
from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import Config, CropConfig, DataConfig, LossConfig, ModelConfig, TrainConfig
from utnet.evaluation.protocol import read_boxes
from utnet.export.runtime import ExportedNetwork
from utnet.export.writer import export_network
from utnet.model import UTNet
from utnet.model.wilor import import_wilor
from utnet.predict.given_landmarks import read_landmarks
from utnet.predict.reading import read_predictions
from utnet.training.loop import train

Rng = np.random.Generator
CONFIG = Config(
    val=DataConfig(limit=2),
    model=ModelConfig(size_px=64, num_blocks=1, refiner="none"),
    loss=LossConfig(use_aux_loss=False),
    train=TrainConfig(steps=2, batch_size=2, num_workers=0, eval_every=100, save_every=1, pictures=0),
)


def checkpoint() -> Path:
    return base("checkpoint", lambda path: save_checkpoint(path, UTNet(CONFIG.model), CONFIG))


def _damage_tensors(rng: Rng, path: Path) -> None:
    if rng.random() < 0.4:
        path.write_bytes(bytes_of(rng, path.read_bytes()))
        return
    state = load_file(path)
    for name in rng.choice(list(state), 2).tolist():
        kind = int(rng.integers(0, 6))
        if kind == 0:
            state.pop(name, None)
        elif kind == 1:
            state[f"{name}x"] = state.get(name, torch.zeros(1))
        elif kind == 2:
            state[name] = torch.zeros(tuple(rng.integers(0, 5, int(rng.integers(0, 4))).tolist()))
        elif kind == 3:
            dtypes = [torch.int64, torch.int8, torch.bool, torch.float64, torch.bfloat16, torch.float8_e4m3fn]
            state[name] = torch.zeros(3).to(dtypes[int(rng.integers(len(dtypes)))])
        elif state.get(name) is not None and state[name].is_floating_point():
            state[name] = torch.full_like(state[name], float(rng.choice([np.nan, np.inf, 1e38])))
    save_file({name: tensor.clone().contiguous() for name, tensor in state.items()}, path)


def make_checkpoint(rng: Rng, folder: Path) -> Path:
    root = copy(checkpoint(), folder)
    _damage_folder(rng, root)
    return root


def make_last(rng: Rng, folder: Path) -> Path:
    root = copy(base("run", lambda path: train(CONFIG, path, progress=False)), folder)
    _damage_folder(rng, root / "last")
    return root


def _damage_folder(rng: Rng, root: Path) -> None:
    files = sorted(root.iterdir())
    path = files[int(rng.integers(len(files)))]
    if path.suffix == ".json":
        tree = json.loads(path.read_text())
        part = "progress" if "progress" in tree and rng.random() < 0.8 else "config"
        path.write_text(json.dumps(tree | {part: tree_of(rng, tree[part])}))
        if rng.random() < 0.2:
            path.write_bytes(bytes_of(rng, path.read_bytes()))
    else:
        _damage_tensors(rng, path)


def resume(root: Path) -> None:
    longer = replace(CONFIG, train=replace(CONFIG.train, steps=3))
    with suppress(FloatingPointError):  # a moment of 1e38 is a number: the run diverges, and says so
        train(longer, root, resume=True, progress=False)


def _write_onnx(path: Path) -> None:
    path.mkdir()
    torch.manual_seed(0)
    export_network(UTNet(CONFIG.model).eval(), path / "hand.onnx", crop=CropConfig())


def make_exported(rng: Rng, folder: Path) -> Path:
    path = copy(base("exported", _write_onnx), folder) / "hand.onnx"
    data, kind = path.read_bytes(), rng.random()
    if kind < 0.6:  # its record: the length of the text stays, or protobuf would not find the next field
        found = re.search(rb'\{"schema.*?\}(?=[^"]*$|\x12|\x0a|r|:)', data, re.DOTALL)
        begin = data.index(b'{"schema')
        end = found.end() if found else begin + 200
        text = bytearray(data[begin:end])
        for at in rng.integers(0, min(len(text), 900), int(rng.integers(1, 4))).tolist():
            text[at] = int(rng.choice(list(b'0123456789-"[]{}, a\xff')))
        data = data[:begin] + bytes(text) + data[end:]
    elif kind < 0.9:
        data = bytes_of(rng, data)
    path.write_bytes(data)
    return path


def run_exported(path: Path) -> None:
    network = ExportedNetwork(path)
    size = network.config.model.size_px
    depth = {"depth_m": torch.zeros(1, size, size)} if network.takes_depth else {}
    out = network(torch.zeros(1, 3, size, size), **depth)
    if not 0 <= network.faces.min() <= network.faces.max() < out.vertices_m.shape[1]:
        raise AssertionError("faces outside the vertices")


def make_wilor(rng: Rng, folder: Path) -> Path:
    names = [
        "backbone.blocks.{}.norm1.weight",
        "backbone.pos_embed",
        "refine_net.deconv.first_conv.0.weight",
        "mano.faces_tensor",
    ]
    numbers = ["0", "31", "32", "99999999", "9" * 5000, "-1", "x"]
    state: dict[str, Any] = {
        str(rng.choice(names)).format(rng.choice(numbers)): torch.zeros(tuple(rng.integers(0, 4, 2).tolist()))
        for _ in range(int(rng.integers(1, 9)))
    }
    path = folder / "wilor.ckpt"
    torch.save({"state_dict": state} if rng.random() < 0.8 else [state], path)
    if rng.random() < 0.4:
        path.write_bytes(bytes_of(rng, path.read_bytes()))
    return path


_POINTS = [[10.0 + j, 20.0 - j, 0.9] for j in range(21)]
_BESIDE: list[tuple[Any, Any]] = [
    ({"hands": [{"landmarks_px": _POINTS, "side": "right", "box_px": [0, 0, 40, 40]}]}, read_landmarks),
    ({"annotations": [{"keypoints": [1.0, 2.0, 1.0] * 17, "righthand_kpts": [5.0, 6.0, 0.5] * 21}]}, read_landmarks),
    ({"a": [0, 0, 10, 10], "b": [1, 2, 3, 4]}, read_boxes),
    ({"schema": "utnet-hands", "version": 3, "made_by": {}, "images": [{"file": "a", "hands": [{"side": "right"}]}],
      "videos": [{"file": "v", "frames": [{"index": 0, "hands": []}]}], "problems": []}, read_predictions),
]  # fmt: skip


def make_beside(rng: Rng, folder: Path) -> tuple[int, Path]:
    number = int(rng.integers(len(_BESIDE)))
    path = folder / "beside.json"
    path.write_bytes(text_of(rng, _BESIDE[number][0]) if rng.random() < 0.9 else bytes_of(rng, b"[" * 100_000))
    return number, path


def read_beside(made: tuple[int, Path]) -> None:
    number, path = made
    read = _BESIDE[number][1]
    read(path, (64, 48)) if read is read_landmarks else read(path)


KINDS = {
    "checkpoint": (make_checkpoint, lambda root: load_checkpoint(root)),
    "resume": (make_last, resume),
    "exported": (make_exported, run_exported),
    "wilor": (make_wilor, import_wilor),
    "beside": (make_beside, read_beside),
}
