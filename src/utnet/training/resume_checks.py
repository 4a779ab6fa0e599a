"""Validation of a run's last/ before it is resumed: damaged contents are errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utnet.errors import InputError, shown

REMEDY = "to begin a new run with its best weights give another folder and train.init_from=RUN/best"


def progress_fault(tree: dict) -> str:
    """The first field of a progress that `Run.save` cannot have written, or ""."""
    counts, numbers = ("step", "samples", "scored", "num_sums"), ("seconds", "busy", "share")
    for name in (*counts, *numbers):
        kinds = (int,) if name in counts else (int, float)
        if type(tree[name]) not in kinds or not 0 <= tree[name] < 2**62:
            return f"{name} is {shown(tree[name])}"
    if tree["lowest"] is not None and (type(tree["lowest"]) is not float or not math.isfinite(tree["lowest"])):
        return f"lowest is {shown(tree['lowest'])}"
    sums = tree["sums"]
    if not isinstance(sums, dict) or not all(type(value) is float for value in sums.values()):  # weight 0 may be inf
        return f"sums is {shown(sums)}"
    for name in ("scores", "best"):
        if not isinstance(tree[name], dict) or (tree[name] and not {"num", "num_expected"} <= tree[name].keys()):
            return f"{name} is {shown(tree[name])}"
    if not isinstance(tree["loaders"], list) or not tree["loaders"]:
        return "loaders is not a list of places in the data"
    return next((f"loaders holds {shown(item)}" for item in tree["loaders"] if not _is_loader(item)), "")


def _is_loader(item: Any) -> bool:
    """Whether a value is the {"position", "bad"} of a process."""

    def count(value: Any) -> bool:
        return type(value) is int and 0 <= value < 2**62

    if not isinstance(item, dict) or set(item) != {"position", "bad"} or not isinstance(item["position"], dict):
        return False
    position, bad = item["position"], item["bad"]
    places = position.get("places")
    return (
        set(position) == {"drawn", "turn", "places"}
        and isinstance(places, dict)
        and set(places) == set(map(str, range(len(places))))
        and all(isinstance(place, list) and len(place) == 2 and all(map(count, place)) for place in places.values())
        and count(position["drawn"])
        and count(position["turn"])
        and position["turn"] < max(1, len(places))
        and isinstance(bad, dict)
        and all(isinstance(message, str) for message in bad.values())
    )


def check_entries(tensors: dict[str, Tensor], parameters: Mapping[str, Tensor], *, mean: bool, where: Path) -> None:
    """InputError unless the tensors are the moments of these parameters, their running mean and random states."""
    expected: dict[str, torch.Size] = {}
    for name, parameter in parameters.items():
        keys = [f"optimiser/{key}/{name}" for key in ("exp_avg", "exp_avg_sq", "step")]
        if any(key in tensors for key in keys):  # a parameter without a gradient so far has none
            expected |= dict(zip(keys, (parameter.shape, parameter.shape, torch.Size()), strict=True))
        if mean:
            expected[f"mean/{name}"] = parameter.shape
    found = {name for name in tensors if not name.startswith("random/")}
    wrong = sorted(found ^ set(expected)) or sorted(name for name in found if tensors[name].shape != expected[name])
    if wrong:
        listed = ", ".join(map(shown, wrong[:3])) + (", ..." if len(wrong) > 3 else "")
        raise InputError(f"{where}: {len(wrong)} entries do not fit the network: {listed}; {REMEDY}")
    for name in sorted(found):
        if tensors[name].dtype not in (torch.float32, torch.float64) or not tensors[name].isfinite().all():
            raise InputError(f"{where}: {name} is not of finite 32-bit floats; {REMEDY}")
