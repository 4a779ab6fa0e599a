"""Checkpoints: a folder with weights.safetensors and run.json (config, versions, metrics), written atomically.

Bundled networks are checkpoints in assets/weights/NAME with a model card; their weights are stored in half precision
(`tools/release_weights.py`). Functions that take a checkpoint accept NAME for them.

A network with a hand model other than the open hand stores its arrays in the weights file, under `hand.*`. They are
MANO's and stay under MANO's licence: licence holders may use such a checkpoint, but it must not be distributed.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

import utnet
from utnet.config import Config, from_tree, to_tree
from utnet.errors import BAD_TREE, InputError
from utnet.hand import HandModel
from utnet.hand.arrays import HandArrays
from utnet.io.atomic import check_stand_in, fsync_path, write_json
from utnet.model import UTNet
from utnet.model.hamer import import_hamer as import_hamer
from utnet.model.presets import resolve_preset
from utnet.model.wilor import import_wilor as import_wilor
from utnet.weights import DEFAULT_NETWORK as DEFAULT_NETWORK
from utnet.weights import (
    RUN,
    WEIGHTS,
    find_checkpoint,
    recover_interrupted_save,
    shipped_networks,
)
from utnet.weights import name_checkpoint as name_checkpoint
from utnet.weights import shipped_weights as shipped_weights

_HAND = "hand."
_HAND_INDICES = (f"{_HAND}faces", f"{_HAND}tip_vertices")
_HALF = (torch.float16, torch.bfloat16)
_FLOATS = (*_HALF, torch.float32, torch.float64)
_INTEGERS = {"I8": torch.int8, "U8": torch.uint8, "I16": torch.int16, "I32": torch.int32, "I64": torch.int64}
_DTYPES = dict(zip(("F16", "BF16", "F32", "F64"), _FLOATS, strict=True)) | _INTEGERS | {"BOOL": torch.bool}
"""By their names in safetensors."""


def save_checkpoint(
    folder: str | Path,
    model: UTNet,
    config: Config,
    *,
    weights: Mapping[str, Tensor] | None = None,
    extra_files: Mapping[str, Mapping[str, Tensor]] | None = None,
    **info,
) -> None:
    """Writes a checkpoint atomically: readers see the old or the new one, even after a crash of the machine.

    Args:
        folder: its folder; an existing checkpoint is replaced.
        model: the network; its hand model is stored with it unless it is the open hand (see above).
        config: of the whole run, so that the checkpoint needs no other file.
        weights: replaces `model.state_dict()` if the network is sharded (FSDP).
        extra_files: further files of tensors, by name, for example for resuming (`utnet.training.state`).
        **info: JSON entries of run.json, such as `step` and `metrics`.
    """
    folder = Path(folder)
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    state = {**(model.state_dict() if weights is None else weights), **_hand_entries(model.hand)}
    try:
        for file, tensors in {WEIGHTS: state, **(extra_files or {})}.items():
            _save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh / file)
        write_json(fresh / RUN, {**run_info(), "config": to_tree(config), **info})  # and the folder's names with it
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)  # a full disk gets its room back
        raise
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # only now: until here it may be the only complete one
        folder.rename(old)
    fresh.rename(folder)
    fsync_path(folder.parent)  # before the old one is removed
    shutil.rmtree(old, ignore_errors=True)


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """OSError, naming the file, where it cannot be written."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # its only word for a full disk
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error
    fsync_path(path)


class _WithoutInit(TorchFunctionMode):
    """Layers are made with memory as it is found, which no page is taken for: their weights come from a file."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", "") == "torch.nn.init" or func in (torch.Tensor.uniform_, torch.Tensor.normal_):
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def load_checkpoint(folder: str | Path, *, device: str = "cpu") -> tuple[UTNet, Config]:
    """Loads a network, in eval mode and single precision with its hand model, and the config of its run.

    Args:
        folder: a checkpoint folder, or the name of a bundled network.
        device: for the network.

    Raises:
        InputError: the folder, one of its files or an entry is missing, damaged or from another version.
    """
    folder = _checkpoint_folder(folder)
    check_stand_in(folder / WEIGHTS)
    config = read_config(folder)
    state = _read_weights(folder / WEIGHTS)
    hand = _pop_hand(state, str(folder / WEIGHTS))
    try:
        preset = resolve_preset(config.model)
        least = 8 * preset.num_blocks * preset.dim**2  # parameters of the blocks alone
        if sum(tensor.numel() for tensor in state.values()) < least:
            raise InputError(f"model.dim {preset.dim}, model.num_blocks {preset.num_blocks}: the weights are fewer")
        with _WithoutInit():
            model = UTNet(config.model, hand)
    except InputError as error:
        raise InputError(f"{folder / RUN}: {error}") from error
    expected = model.state_dict()
    wrong = sorted(set(state) ^ set(expected)) or sorted(k for k in state if state[k].shape != expected[k].shape)
    if wrong:
        listed = ", ".join(wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        raise InputError(
            f"{folder / WEIGHTS}: {len(wrong)} entries do not fit preset {config.model.preset!r}: {listed}"
        )
    model.load_state_dict(state, assign=True)
    return model.to(device).eval(), config


def read_config(folder: str | Path) -> Config:
    """The config of a checkpoint's run, without its weights; arguments and errors as for `load_checkpoint`."""
    path = _checkpoint_folder(folder) / RUN
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))["config"]
    except BAD_TREE as error:
        raise InputError(f"{path}: not the run.json of a checkpoint ({type(error).__name__})") from error
    try:
        return from_tree(Config, tree, where=str(path))
    except InputError as error:  # a number beyond its limits does not name the file
        text = str(error)
        raise InputError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def _checkpoint_folder(folder: str | Path) -> Path:
    """The folder with both files of a checkpoint; InputError if one is missing."""
    folder = find_checkpoint(folder)
    folder = recover_interrupted_save(folder.parent if folder.name == WEIGHTS else folder)
    for name in (WEIGHTS, RUN):
        if not (folder / name).is_file():
            better = folder / "best" if (folder / "best" / name).is_file() else "RUN/best"
            named = "".join(f" or {network}" for network in shipped_networks())
            raise InputError(f"{folder / name}: no such file; give a checkpoint folder such as {better}{named}")
    return folder


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The entries of a weights file, in single precision; whole numbers are refused, but for a hand's indices."""
    state = _read_entries(path)
    for name, tensor in state.items():
        if name in _HAND_INDICES or (name.endswith(".num_batches_tracked") and tensor.dtype == torch.int64):
            continue
        if tensor.dtype not in _FLOATS:
            raise InputError(f"{path}: {name} is of type {tensor.dtype}; expected 32- or 16-bit floats")
        if not is_finite(tensor):
            raise InputError(f"{path}: {name} holds NaN or inf; the file is damaged")
    # Bundled weights are stored in half precision; networks compute in single.
    return {name: tensor.float() if tensor.dtype in _HALF else tensor for name, tensor in state.items()}


def is_finite(tensor: Tensor) -> bool:
    """Whether no number of a tensor is NaN or inf: by its extremes, 20 times as fast as each by itself."""
    return tensor.numel() == 0 or bool(torch.stack(tensor.aminmax()).isfinite().all())


def _read_entries(path: Path) -> dict[str, Tensor]:
    """The entries of a safetensors file, each read into memory of its own.

    safetensors maps the file, whose memory is not aligned as torch's is: kernels then differ in the last bit from those
    of the network that was saved. Copies from there would take the memory twice.
    """
    try:
        with safe_open(path, "pt"):  # compares the header with the size of the file
            pass
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            start, state = file.tell(), {}
            header.pop("__metadata__", None)
            for name, entry in header.items():
                if entry["dtype"] not in _DTYPES:
                    raise InputError(f"{path}: {name} is of type {entry['dtype']}; expected 32- or 16-bit floats")
                state[name] = tensor = torch.empty(entry["shape"], dtype=_DTYPES[entry["dtype"]])
                file.seek(start + entry["data_offsets"][0])
                if tensor.numel() and file.readinto(tensor.view(-1).view(torch.uint8).numpy().data) != tensor.nbytes:
                    raise OSError("it became shorter")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    return state


def _hand_entries(hand: HandModel) -> dict[str, Tensor]:
    """Arrays of a hand model by name; empty for the open hand, which is bundled."""
    if hand.name == "open":
        return {}
    arrays = {f.name: getattr(hand, f.name) for f in fields(HandArrays)}
    return {_HAND + name: tensor for name, tensor in arrays.items() if tensor is not None}


def _pop_hand(state: dict[str, Tensor], where: str) -> HandModel:
    """Removes the hand model's entries from `state` and returns the hand model; the open hand if there are none."""
    arrays = {name.removeprefix(_HAND): state.pop(name).numpy() for name in list(state) if name.startswith(_HAND)}
    if not arrays:
        return HandModel.open()
    try:
        return HandModel(HandArrays(**arrays).check(where), name="mano")
    except TypeError as error:
        raise InputError(f"{where}: its hand.* entries are not those of a hand model ({error})") from error


def run_info() -> dict:
    """Command line, versions and, in a checkout, the commit of this process."""
    return {
        "command": sys.argv,
        "commit": _commit(),
        "versions": {
            "utnet": utnet.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def pick_device(name: str) -> torch.device:
    """Returns the device of a name of torch, or a GPU if available for "auto"; InputError if it is not available."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}; try 'auto'") from error
    return device
