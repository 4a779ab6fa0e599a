"""Reads files of pretrained weights, and reports which entries were loaded."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from utnet.errors import InputError
from utnet.io.atomic import check_stand_in

_MOST_LISTED = 20


@dataclass(frozen=True)
class Report:
    """Loaded, skipped and new entries; printable.

    Attributes:
        source: the file.
        title: the project.
        loaded: entry of the file -> entry of the network.
        left_out: entry of the file -> why it is left out.
        created: entries of the network that are not in the file and keep their initial values.
        notes: conversions applied.
    """

    source: str
    title: str
    loaded: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    created: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        reasons: dict[str, list[str]] = {}
        for name, reason in self.left_out.items():
            reasons.setdefault(reason, []).append(name)
        lines = [f"{self.source}: {len(self.loaded)} entries loaded ({self.title})"]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  left out, {reason}: {listed(names)}" for reason, names in reasons.items()]
        parts = sorted({name.split(".")[0] if "stem." not in name else name for name in self.created})
        lines += [f"  new, from their own start: {len(self.created)} entries ({', '.join(parts)})"]
        return "\n".join(lines)


def read(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The file's name for messages, and the state dict in it."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file or network; give a checkpoint folder, the name of a bundled network, or downloaded "
            "weights"
        )
    tree: object
    check_stand_in(path)
    try:
        if path.suffix == ".safetensors":
            tree = load_file(path)
        else:  # MAE's files contain argparse's Namespace, a plain container
            with torch.serialization.safe_globals([argparse.Namespace]):
                tree = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged or hostile pickle may raise anything
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = next((line for line in lines if "Unsupported" in line), lines[0]).strip().split(". ")[0]
        raise InputError(f"{path}: cannot be read as weights without executing code ({reason})") from error
    for key in ("state_dict", "model", "teacher"):
        if isinstance(tree, Mapping) and isinstance(tree.get(key), Mapping):
            tree = tree[key]
    if not isinstance(tree, Mapping) or not tree:
        raise InputError(f"{path}: has no state dict; give the weights of ViTPose, DINOv2, MAE or EfficientNet-Lite0")
    odd = [str(name) for name, value in tree.items() if not isinstance(value, Tensor)]
    if odd:
        raise InputError(f"{path}: these entries are not tensors: {listed(odd)}")
    return str(path), {str(name): tensor for name, tensor in tree.items()}


def listed(names: Iterable[str]) -> str:
    """The names separated by commas; of many the first, and the number of others."""
    names = list(names)
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return ", ".join(names[:_MOST_LISTED]) + more
