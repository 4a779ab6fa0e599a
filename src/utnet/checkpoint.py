"""Checkpoints: a folder with weights.safetensors and run.json (config, versions, metrics), written atomically.

Networks that ship with the package are checkpoints, too, in assets/weights/NAME with a model card; their weights are
stored in half precision (`tools/release_weights.py`). Wherever a checkpoint is asked for, NAME stands for that one.

A network with another hand than the open one carries that hand's arrays in its weights file, under `hand.*`. They are
MANO's and stay under MANO's licence: such a checkpoint may be kept and used by whoever holds the licence, not shipped.
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
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import utnet
from utnet.config import Config, from_tree, to_tree
from utnet.errors import InputError
from utnet.hand import HandModel
from utnet.hand.arrays import HandArrays
from utnet.io.atomic import put_on_disk, write_json
from utnet.model import UTNet
from utnet.model.hamer import import_hamer as import_hamer
from utnet.model.presets import resolve_preset
from utnet.model.wilor import import_wilor as import_wilor

WEIGHTS, RUN = "weights.safetensors", "run.json"
_HAND = "hand."
_HAND_INDICES = (f"{_HAND}faces", f"{_HAND}tip_vertices")
_HALF = (torch.float16, torch.bfloat16)
_FLOATS = (*_HALF, torch.float32, torch.float64)

DEFAULT_NETWORK = "ti"
"""Of the networks that ship, the one that is taken where none is named."""
_SHIPPED = Path(str(files("utnet"))) / "assets" / "weights"


def save_checkpoint(
    folder: str | Path,
    model: UTNet,
    config: Config,
    *,
    weights: Mapping[str, Tensor] | None = None,
    beside: Mapping[str, Mapping[str, Tensor]] | None = None,
    **info,
) -> None:
    """Writes a checkpoint; a reader sees the old one or the new one, never a part, even after the machine went down.

    Args:
        folder: its place; an older checkpoint there is replaced.
        model: the network; a hand of another kind than the open one is kept with it (see above).
        config: the whole run's, so that the checkpoint needs no other file.
        weights: what stands for `model.state_dict()`, where the network holds only parts of it (FSDP).
        beside: further files of tensors by their names, such as what resuming needs (`utnet.training.state`).
        **info: anything JSON, such as `step` and `metrics`.
    """
    folder = Path(folder)
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    state = {**(model.state_dict() if weights is None else weights), **_hand_entries(model.hand)}
    try:
        for file, tensors in {WEIGHTS: state, **(beside or {})}.items():
            _save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, fresh / file)
        write_json(fresh / RUN, {**run_info(), "config": to_tree(config), **info})  # and the folder's names with it
    except OSError:
        shutil.rmtree(fresh, ignore_errors=True)  # a full disk gets its room back
        raise
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # only now: until here it may be the one whole checkpoint
        folder.rename(old)
    fresh.rename(folder)
    put_on_disk(folder.parent)  # before the older one goes
    shutil.rmtree(old, ignore_errors=True)


def _save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """OSError, naming the file, where it cannot be written."""
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # its only word for a full disk
        code = re.search(r"os error (\d+)", str(error))
        number = int(code[1]) if code else errno.EIO
        raise OSError(number, os.strerror(number), str(path)) from error
    put_on_disk(path)


def load_checkpoint(folder: str | Path, *, device: str = "cpu") -> tuple[UTNet, Config]:
    """The network in eval mode and single precision, with the hand that it was saved with, and the config of its run.

    Args:
        folder: a checkpoint's folder, or the name of a network that ships with the package.
        device: for the network.

    Raises:
        InputError: the folder, one of its files or an entry is missing, damaged or of another version.
    """
    folder = find_checkpoint(folder)
    folder = whole_folder(folder.parent if folder.name == WEIGHTS else folder)
    for name in (WEIGHTS, RUN):
        if not (folder / name).is_file():
            better = folder / "best" if (folder / "best" / name).is_file() else "RUN/best"
            named = "".join(f" or {network}" for network in shipped_networks())
            raise InputError(f"{folder / name}: no such file; give a checkpoint folder such as {better}{named}")
    try:
        tree = json.loads((folder / RUN).read_text(encoding="utf-8"))["config"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{folder / RUN}: not the run.json of a checkpoint ({type(error).__name__})") from error
    try:
        config = from_tree(Config, tree, where=str(folder / RUN))
    except InputError as error:  # a number beyond its limits does not name the file
        text = str(error)
        raise InputError(text if text.startswith(str(folder)) else f"{folder / RUN}: {text}") from error
    state = _read_weights(folder / WEIGHTS)
    hand = _pop_hand(state, str(folder / WEIGHTS))
    try:
        preset = resolve_preset(config.model)
        least = 8 * preset.depth * preset.dim**2  # parameters of the blocks alone: nothing that large is made in vain
        if sum(tensor.numel() for tensor in state.values()) < least:
            raise InputError(f"model.dim and model.depth are {preset.dim} and {preset.depth}, the weights are fewer")
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
    model.load_state_dict(state)
    return model.to(device).eval(), config


def _read_weights(path: Path) -> dict[str, Tensor]:
    """The entries of a weights file, in single precision; whole numbers are refused, but for a hand's indices."""
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
    for name, tensor in state.items():
        if name in _HAND_INDICES or (name.endswith(".num_batches_tracked") and tensor.dtype == torch.int64):
            continue
        if tensor.dtype not in _FLOATS:
            raise InputError(f"{path}: {name} is of type {tensor.dtype}; expected 32- or 16-bit floats")
        if not tensor.isfinite().all():
            raise InputError(f"{path}: {name} holds NaN or inf; the file is damaged")
    # What ships is stored in half precision; networks compute in single.
    return {name: tensor.float() if tensor.dtype in _HALF else tensor for name, tensor in state.items()}


def shipped_networks() -> tuple[str, ...]:
    """Names of the networks that come with the package."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob(f"*/{WEIGHTS}") if (path.parent / RUN).is_file()))


def shipped_weights(name: str = DEFAULT_NETWORK) -> Path | None:
    """The folder of a network that comes with the package, or None where none of that name does."""
    return _SHIPPED / name if name in shipped_networks() else None


def find_checkpoint(weights: str | Path) -> Path:
    """A checkpoint's folder: the one that is given, or that of a shipped network which goes by this name.

    Raises:
        InputError: a name that is a file or folder here, too.
    """
    shipped = shipped_weights(str(weights))
    if shipped is None:
        return Path(weights)
    if Path(weights).exists():  # "./ti" is the same path as "ti", so only the whole path tells them apart
        here = Path(weights).resolve()
        raise InputError(f"{weights}: is the name of a network that ships, and exists here, too; for yours give {here}")
    return shipped


def name_checkpoint(weights: str | Path) -> str:
    """What a checkpoint is called in what is written: the name of a shipped one (its folder is this machine's), else
    its path."""
    path = Path(weights)
    return path.name if path == shipped_weights(path.name) else str(weights)


def whole_folder(folder: str | Path) -> Path:
    """The checkpoint's folder, or where the one before it stands if the writer was stopped between its two renames."""
    folder = Path(folder)
    folder = folder if folder.name else folder.resolve()  # "." and ""
    old = folder.with_name(folder.name + ".old")
    return old if not (folder / WEIGHTS).is_file() and (old / WEIGHTS).is_file() else folder


def _hand_entries(hand: HandModel) -> dict[str, Tensor]:
    """A hand's arrays by name, as the network computes with them; nothing for the open hand, which is shipped."""
    if hand.name == "open":
        return {}
    arrays = {f.name: getattr(hand, f.name) for f in fields(HandArrays)}
    return {_HAND + name: tensor for name, tensor in arrays.items() if tensor is not None}


def _pop_hand(state: dict[str, Tensor], where: str) -> HandModel:
    """The hand of a checkpoint, its entries taken out of `state`: the open hand where it holds none."""
    arrays = {name.removeprefix(_HAND): state.pop(name).numpy() for name in list(state) if name.startswith(_HAND)}
    if not arrays:
        return HandModel.open()
    try:
        return HandModel(HandArrays(**arrays).check(where), name="mano")
    except TypeError as error:
        raise InputError(f"{where}: its hand.* entries are not those of a hand model ({error})") from error


def run_info() -> dict:
    """Command, versions and, in a checkout, the commit of this process."""
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
    """ "auto" (a GPU if there is one), or any name that torch knows; InputError where it is not to be had."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}; try 'auto'") from error
    return device
