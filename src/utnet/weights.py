"""Where weights are: the networks that ship, by their names, and folders of checkpoints.

A bundled network is a checkpoint in assets/weights/NAME (weights.safetensors and run.json, for training on), the same
network as a file that runs without torch (network.onnx), and a model card. `tools/release_weights.py` writes them.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from utnet.errors import InputError

WEIGHTS, RUN, NETWORK = "weights.safetensors", "run.json", "network.onnx"

DEFAULT_NETWORK = "ti"
"""The bundled network that is used by default."""
SHIPPED_FOLDER = Path(str(files("utnet"))) / "assets" / "weights"
"""Folder of the bundled networks."""


def shipped_networks() -> tuple[str, ...]:
    """Names of the bundled networks."""
    return tuple(
        sorted(path.parent.name for path in SHIPPED_FOLDER.glob(f"*/{WEIGHTS}") if (path.parent / RUN).is_file())
    )


def shipped_weights(name: str = DEFAULT_NETWORK) -> Path | None:
    """Folder of a bundled network, or None if there is none of that name."""
    return SHIPPED_FOLDER / name if name in shipped_networks() else None


def find_checkpoint(weights: str | Path) -> Path:
    """Resolves a checkpoint: a bundled network by its name, or a folder.

    Raises:
        InputError: the name of a bundled network is also a local path.
    """
    shipped = shipped_weights(str(weights))
    if shipped is None:
        return Path(weights)
    if Path(weights).exists():  # "./ti" equals "ti" as a Path, so only the absolute path differs
        here = Path(weights).resolve()
        raise InputError(f"{weights}: both a bundled network and a local path; use {here} for the local one")
    return shipped


def name_checkpoint(weights: str | Path) -> str:
    """Name of a checkpoint for reports: that of a bundled network (its folder depends on the machine), or the path."""
    path = Path(weights)
    return path.name if path == shipped_weights(path.name) else str(weights)


def recover_interrupted_save(folder: str | Path) -> Path:
    """Returns the checkpoint folder, or its backup if a save was interrupted between the two renames."""
    folder = Path(folder)
    folder = folder if folder.name else folder.resolve()  # "." and ""
    old = folder.with_name(folder.name + ".old")
    return old if not (folder / WEIGHTS).is_file() and (old / WEIGHTS).is_file() else folder
