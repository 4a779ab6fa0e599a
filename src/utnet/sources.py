"""The data section of a config -> a source of samples: the endless synthetic hands, or a dataset on disk."""

from __future__ import annotations

import hashlib
from dataclasses import fields, replace

from utnet.config import Config, DataConfig
from utnet.data import SOURCES, open_source, reader_options
from utnet.data.source import Source, evenly_spaced
from utnet.errors import InputError
from utnet.synth import SyntheticHands

_HELD_OUT_SEED = 1_000_003
"""Added to the seed for validation, so that no training picture is ever validated on."""
_NUM_HELD_OUT = 256


def open_data(data: DataConfig, config: Config, *, train: bool) -> Source:
    """The source that `data` names.

    Synthetic training hands are endless and jittered; held-out ones are `data.limit` (256) fixed pictures of
    another seed.

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
    if data.name not in SOURCES:
        raise InputError(f"no dataset is called {data.name!r}; expected synth, mixture or one of {', '.join(SOURCES)}")
    chosen = {f.name: getattr(data, f.name) for f in fields(data) if f.name in reader_options(data.name)}
    return open_source(data.name, data.root, **{key: value for key, value in chosen.items() if value != ""})


def fingerprint(source: Source) -> dict:
    """What tells one split from another: name, size and a hash of up to 1,000 of its keys."""
    keys = "\n".join(source.key(int(i)) for i in evenly_spaced(len(source), 1000))
    return {"name": source.name, "num": len(source), "keys_sha256": hashlib.sha256(keys.encode()).hexdigest()}


def open_validation(config: Config) -> Source:
    """The validation source of a run: `config.val`, else what belongs to its training data.

    Held-out synthetic hands for synthetic ones, the official val split for DexYCB.

    Raises:
        InputError: a data set without a validation split of its own.
    """
    val = config.val
    if val is None:
        if config.data.name not in ("synth", "dexycb"):
            raise InputError(
                f"{config.data.name} has no validation split of its own; name one in the config's val section"
            )
        val = DataConfig() if config.data.name == "synth" else replace(config.data, split="val")
    return open_data(val, config, train=False)
