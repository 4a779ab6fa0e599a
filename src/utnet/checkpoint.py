"""Checkpoints: a folder with weights.safetensors and run.json (config, versions, metrics), written atomically."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import utnet
from utnet.config import Config, from_tree, to_tree
from utnet.errors import InputError
from utnet.model import UTNet
from utnet.storage import write_json

WEIGHTS, RUN = "weights.safetensors", "run.json"


def save_checkpoint(folder: str | Path, model: UTNet, config: Config, **info) -> None:
    """Writes a checkpoint; a reader sees the old one or the new one, never a part.

    Args:
        folder: its place; an older checkpoint there is replaced.
        model: the network.
        config: the whole run's, so that the checkpoint needs no other file.
        **info: anything JSON, such as `step` and `metrics`.
    """
    folder = Path(folder)
    fresh, old = folder.with_name(folder.name + ".new"), folder.with_name(folder.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, fresh / WEIGHTS)
    write_json(fresh / RUN, {**run_info(), "config": to_tree(config), **info})
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # only now: until here it may be the one whole checkpoint
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(folder: str | Path, *, device: str = "cpu") -> tuple[UTNet, Config]:
    """The network in eval mode and the config of its run.

    Raises:
        InputError: the folder, one of its files or an entry is missing, damaged or of another version.
    """
    folder = Path(folder)
    if folder.name == WEIGHTS:
        folder = folder.parent
    if not (folder / WEIGHTS).is_file() and folder.with_name(folder.name + ".old").is_dir():
        folder = folder.with_name(folder.name + ".old")  # the writer was stopped between its two renames
    for name in (WEIGHTS, RUN):
        if not (folder / name).is_file():
            better = folder / "best" if (folder / "best" / name).is_file() else "RUN/best"
            raise InputError(f"{folder / name}: no such file; give a checkpoint folder such as {better}")
    try:
        tree = json.loads((folder / RUN).read_text(encoding="utf-8"))["config"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / RUN}: not the run.json of a checkpoint ({error!r})") from error
    config = from_tree(Config, tree, where=str(folder / RUN))
    try:
        model = UTNet(config.model)
    except InputError as error:
        raise InputError(f"{folder / RUN}: {error}") from error
    try:
        state = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{folder / WEIGHTS}: not a readable safetensors file ({error})") from error
    expected = model.state_dict()
    wrong = sorted(set(state) ^ set(expected)) or sorted(k for k in state if state[k].shape != expected[k].shape)
    if wrong:
        listed = ", ".join(wrong[:5]) + (", ..." if len(wrong) > 5 else "")
        raise InputError(
            f"{folder / WEIGHTS}: {len(wrong)} entries do not fit preset {config.model.preset!r}: {listed}"
        )
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise InputError(f"{folder / WEIGHTS}: {broken[0]} holds NaN or inf; the file is damaged")
    model.load_state_dict(state)
    return model.to(device).eval(), config


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
