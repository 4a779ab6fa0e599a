"""Default validation data for a run's training data."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from utnet.errors import InputError

if TYPE_CHECKING:
    from utnet.config.schema import DataConfig

HELD_OUT_SPLIT = ("ho3d", "freihand", "custom")
"""Data sets without an official validation split: `train_fit` and `val` divide their training data by recording."""

_OWN = {("dexycb", "train"), ("custom", "train"), *((name, "train_fit") for name in HELD_OUT_SPLIT)}
"""Training splits beside which `val` is the validation split. Own data whose lines name no `val` have only train_fit;
`data.sources.open_validation` reports that."""

_NAME_ONE = "name one: --set val.name=dexycb val.root=FOLDER val.split=val, or a val section like that in the config"


def default_validation(data: DataConfig) -> DataConfig:
    """Held-out synthetic hands for synthetic ones, the official val split for DexYCB, and `val` for data sets with a
    `train_fit` split.

    Raises:
        InputError: there is no default for these training data.
    """
    if data.name == "synth":
        return type(data)()
    if (data.name, data.split) in _OWN:
        return replace(data, split="val")
    if data.name in HELD_OUT_SPLIT:
        raise InputError(
            f"{data.name} has no official validation split: train on data.split=train_fit, which leaves recordings out "
            f"for validation, or {_NAME_ONE}"
        )
    split = f" {data.split}" if data.name == "dexycb" else ""
    raise InputError(f"{data.name}{split} has no validation split of its own; {_NAME_ONE}")
