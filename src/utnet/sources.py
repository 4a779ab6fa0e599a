"""The data section of a config -> a source of samples: the endless synthetic hands, or a dataset on disk."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from utnet.config import Config, DataConfig
from utnet.data import SOURCES, open_source, reader_options
from utnet.data.mixture import Mixture
from utnet.data.source import Source, evenly_spaced, is_stream
from utnet.errors import InputError
from utnet.synth import SyntheticHands

_HELD_OUT_SEED = 1_000_003
"""Added to the seed for validation, so that no training picture is ever validated on."""
_NUM_HELD_OUT = 256
_HELD_OUT_SPLIT = ("ho3d", "freihand", "custom")
"""Data sets without an official validation split: `train_fit` and `val` part their training data by recording."""
_OWN_VALIDATION = {("dexycb", "train"), *((name, "train_fit") for name in _HELD_OUT_SPLIT)}
"""Training splits beside which `val` is the validation split."""
_HELD_OUT_PAIRS = [{"train_fit", "val"}] + [
    {a, b} for a in ("train", "train_fit", "val") for b in ("evaluation", "test")
]
_DISJOINT = {
    "dexycb": [{"train", "val"}, {"train", "test"}, {"val", "test"}],
    **dict.fromkeys(_HELD_OUT_SPLIT, _HELD_OUT_PAIRS),
}
"""Pairs of splits that share no sample."""


def open_data(data: DataConfig, config: Config, *, train: bool) -> Any:
    """The source that `data` names: a `Source`, or a `StreamSource` for tars and mixtures.

    Synthetic training hands are endless and jittered; held-out ones are `data.limit` (256) fixed pictures of
    another seed. A mixture draws from its parts by their weights, without end, so it is for training only.

    Raises:
        InputError: an unknown name, folder or split, or an empty split.
    """
    if data.name == "synth":
        if data.root:
            raise InputError(f"the folder {data.root} belongs to no data set; name it, too: --data or data.name")
        seed = config.seed if train else config.seed + _HELD_OUT_SEED
        num = 2**40 if train else data.limit or _NUM_HELD_OUT
        return SyntheticHands(
            seed=seed, size_px=config.model.size_px, num=num, synth=config.synth, crop=config.crop, jitter=train
        )
    if data.name == "mixture":
        if not train:
            raise InputError("a mixture never ends, so nothing is measured on it; name one data set in the val section")
        return Mixture([(open_data(part, config, train=True), part.weight) for part in data.mixture])
    if data.name not in SOURCES:
        raise InputError(f"no dataset is called {data.name!r}; expected synth, mixture or one of {', '.join(SOURCES)}")
    chosen = {f.name: getattr(data, f.name) for f in fields(data) if f.name in reader_options(data.name)}
    return open_source(data.name, data.root, **{key: value for key, value in chosen.items() if value != ""})


def fingerprint(source: Any) -> dict:
    """What tells one split from another: name, size and a hash of up to 1,000 of its keys.

    A mixture's is that of its parts with their shares; of other streams the name and what opening them found.
    """
    if isinstance(source, Mixture):
        shares = source.shares.tolist()
        parts = [fingerprint(part) | {"share": share} for part, share in zip(source.parts, shares, strict=True)]
        return {"name": source.name, "parts": parts}
    if is_stream(source):
        return {"name": source.name, "counts": dict(getattr(source, "counts", {}))}
    keys = "\n".join(source.key(int(i)) for i in evenly_spaced(len(source), 1000))
    return {"name": source.name, "num": len(source), "keys_sha256": hashlib.sha256(keys.encode()).hexdigest()}


def open_validation(config: Config) -> Source:
    """The validation source of a run: `config.val`, else what belongs to its training data.

    Held-out synthetic hands for synthetic ones, the official val split for DexYCB, and `val` for the data sets whose
    `train_fit` split leaves those recordings out.

    Raises:
        InputError: training data whose validation split cannot be told, or would be trained on.
    """
    data, val = config.data, config.val
    if val is None and data.name == "synth":
        val = DataConfig()
    if val is None and (data.name, data.split) in _OWN_VALIDATION:
        val = replace(data, split="val")
    if val is None and data.name in _HELD_OUT_SPLIT:
        raise InputError(
            f"{data.name} has no official validation split: train on data.split=train_fit, which leaves recordings out "
            "for validation, or name a data set in the config's val section"
        )
    if val is None:
        raise InputError(f"{data.name} has no validation split of its own; name one in the config's val section")
    for part in data.mixture or (data,):
        if part.name == val.name and Path(part.root).resolve() == Path(val.root).resolve() and part.name in _DISJOINT:
            _refuse_overlap(part, val)
    source = open_data(val, config, train=False)
    if is_stream(source):
        raise InputError(
            f"{val.name} cannot be validated on: it is only read in passing; name a data set in files, or shards"
        )
    return source


def _refuse_overlap(train: DataConfig, val: DataConfig) -> None:
    """InputError where two splits of one data set share samples: the best of them would be chosen by heart."""
    apart = {train.split, val.split} in _DISJOINT[train.name]
    if train.name == "dexycb" and train.setup != val.setup:
        apart = False
    if train.name == "custom" and {train.split, val.split} == {"train", "val"}:
        # Apart where the lines say what is for validation; else `val` is a part of `train`.
        keys = [set(_keys(open_source("custom", data.root, split=data.split))) for data in (train, val)]
        apart = not keys[0] & keys[1]
    if not apart:
        setups = f" ({train.setup}, {val.setup})" if train.name == "dexycb" else ""
        raise InputError(
            f"training on {train.name} {train.split} and validating on its {val.split}{setups} shares samples; "
            f"train on {'train_fit' if train.name in _HELD_OUT_SPLIT else 'train'} and validate on val"
        )


def _keys(source: Source) -> list[str]:
    return [source.key(i) for i in range(len(source))]
