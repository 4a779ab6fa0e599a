"""The data section of a config -> a source of samples: the endless synthetic hands, or a dataset on disk; and which
samples two sources share."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from utnet.config import HELD_OUT_SPLIT, Config, CropConfig, DataConfig, ModelConfig, default_validation
from utnet.data import SOURCES, open_source, reader_options, unknown_source
from utnet.data.mixture import Mixture
from utnet.data.source import Source, evenly_spaced, is_endless, is_stream
from utnet.errors import InputError
from utnet.synth import SyntheticHands
from utnet.types import Sample

_HELD_OUT_SEED = 1_000_003
"""Added to the seed for validation, so that no training picture is ever validated on."""
_NUM_HELD_OUT = 256
_NUM_COMPARED = 128
"""Hands of each replayed data set that are scored, unless its section has a limit."""
_HELD_OUT_PAIRS = [{"train_fit", "val"}] + [
    {a, b} for a in ("train", "train_fit", "val") for b in ("evaluation", "test")
]
_DISJOINT = {
    "dexycb": [{"train", "val"}, {"train", "test"}, {"val", "test"}],
    **dict.fromkeys(HELD_OUT_SPLIT, _HELD_OUT_PAIRS),
}
"""Pairs of splits that share no sample."""
_LOOKED_FOR = 1000
"""Keys of a source that are looked for in another one."""
_READ = 8
"""Samples of the same key that are read, to see whether they are the same hand."""


def open_data(data: DataConfig, config: Config, *, train: bool) -> Any:
    """The source that `data` names: a `Source`, or a `StreamSource` for tars and mixtures.

    Synthetic training hands are endless and jittered; held-out ones are `data.limit` (256) fixed pictures of
    another seed. A mixture draws from its parts by their weights, without end, so it is for training only.

    Raises:
        InputError: an unknown name, folder or split, or an empty split.
    """
    if data.name == "synth":
        if data.root:
            raise InputError(f"data.root is {data.root} but data.name is not set; for example data.name=dexycb")
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
        raise InputError(unknown_source(data.name, ("synth", "mixture", *SOURCES)))
    if not data.root:
        raise InputError(f"no folder is given for {data.name}: data.root (for validation val.root) names it")
    chosen = {f.name: getattr(data, f.name) for f in fields(data) if f.name in reader_options(data.name)}
    return open_source(data.name, data.root, **{key: value for key, value in chosen.items() if value != ""})


def open_training(config: Config) -> Any:
    """The source that a run trains on: `config.data`, mixed with `config.replay`; errors as of `open_data`."""
    if config.replay is None:
        return open_data(config.data, config, train=True)
    parts = []
    for data in (config.data, config.replay):
        members = data.mixture or (data,)
        share = data.weight / sum(part.weight for part in members)
        parts += [(open_data(part, config, train=True), share * part.weight) for part in members]
    return Mixture(parts)


def fingerprint(source: Any) -> dict:
    """Identity of a split: name, size and a hash of up to 1,000 of its keys.

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
    """The validation source of a run: `config.val`, else what belongs to its training data (`default_validation`).

    Raises:
        InputError: training data without a default validation split, or a split that is trained on.
    """
    data, val = config.data, config.val or default_validation(config.data)
    replayed = () if config.replay is None else config.replay.mixture or (config.replay,)
    for part in (*(data.mixture or (data,)), *replayed):
        if part.name == val.name and Path(part.root).resolve() == Path(val.root).resolve() and part.name in _DISJOINT:
            _refuse_overlap(part, val)
    source = open_data(val, config, train=False)
    if is_stream(source):
        raise InputError(
            f"{val.name} cannot be validated on: it is only read in passing; name a data set in files, or shards"
        )
    return source


def open_compared(config: Config, model: ModelConfig, crop: CropConfig) -> list[Source]:
    """Validation data of a run and of its replay, on which the networks before and after it are compared.

    Replayed data without a validation split are left out.

    Args:
        config: of the run.
        model: of the network to score, whose input size synthetic hands are drawn in.
        crop: its crops.
    """
    assert config.replay is not None
    datasets = [config.val or default_validation(config.data)]
    for part in config.replay.mixture or (config.replay,):
        try:
            validation = default_validation(part)
        except InputError:
            continue
        datasets.append(replace(validation, limit=part.limit or _NUM_COMPARED))
    crops = replace(config, crop=crop, model=model)
    return [open_data(data, crops, train=False) for data in datasets]


def moved_data(config: Config) -> list[str]:
    """Keys of a config that name folders which do not exist, as "data.root=FOLDER"."""
    named = {"data": config.data, "val": config.val, "replay": config.replay}
    parts = {
        f"{name}.mixture[{i}]" if data.mixture else name: part
        for name, data in named.items()
        if data is not None
        for i, part in enumerate(data.mixture or (data,))
    }
    local = {key: part.root for key, part in parts.items() if part.name != "tars" and part.root}
    return [f"{key}.root={root}" for key, root in local.items() if not Path(root).exists()]


def _refuse_overlap(train: DataConfig, val: DataConfig) -> None:
    """InputError if two splits of one data set share samples, on which validation would be biased."""
    apart = {train.split, val.split} in _DISJOINT[train.name]
    if train.name == "dexycb" and train.setup != val.setup:
        apart = False
    if train.name == "custom" and {train.split, val.split} == {"train", "val"}:
        # Disjoint if the lines have a split; otherwise `val` is a part of `train`.
        keys = [set(_keys(open_source("custom", data.root, split=data.split))) for data in (train, val)]
        apart = not keys[0] & keys[1]
    if not apart:
        setups = f" ({train.setup}, {val.setup})" if train.name == "dexycb" else ""
        raise InputError(
            f"training on {train.name} {train.split} and validating on its {val.split}{setups} shares samples; "
            f"train on {'train_fit' if train.name in HELD_OUT_SPLIT else 'train'} and validate on val"
        )


def _keys(source: Source) -> list[str]:
    return [source.key(i) for i in range(len(source))]


# ------------------------------------------------------------------------------------------------- samples in both


def shared_keys(train: Any, other: Source) -> list[str]:
    """Keys of samples of `other` that are also in `train`, in whatever form (a data set, and shards of it).

    Up to 1,000 keys of `other`, evenly spaced, are looked for. Two folders may have files of the same names, so some
    samples of one key are read, and their labelled joints decide.

    Args:
        train: any source; of one that is read in passing nothing is known, and of a mixture its other parts.
        other: map-style.

    Returns:
        Their keys.
    """
    if isinstance(train, Mixture):
        return sorted({key for part in train.parts for key in shared_keys(part, other)})
    if is_stream(train) or is_endless(len(train)):
        return []
    wanted = {other.key(int(i)): int(i) for i in evenly_spaced(len(other), _LOOKED_FOR)}
    both = {key: i for i in range(len(train)) if (key := train.key(i)) in wanted}
    tried = [list(both)[int(i)] for i in evenly_spaced(len(both), _READ)]
    return list(both) if any(_is_same(train, both[key], other, wanted[key]) for key in tried) else []


def _is_same(train: Source, i: int, other: Source, j: int) -> bool:
    """Whether two samples show one hand, by its labelled joints, of which shards keep nine digits."""
    try:
        a, b = _joints(train[i]), _joints(other[j])
    except InputError:
        return False
    return bool(np.isfinite(a).any()) and np.allclose(a, b, rtol=0.0, atol=1e-6, equal_nan=True)


def _joints(sample: Sample) -> np.ndarray:
    return np.where(sample.joints_3d_conf[:, None] > 0, sample.joints_cam_m, np.nan)


def check_apart(train: Any, validation: Source) -> None:
    """InputError if the training data contain samples of the validation data under another name or in other files."""
    shared = shared_keys(train, validation)
    if shared:
        raise InputError(
            f"training on {describe(train)} and validating on {describe(validation)} shares samples, such as "
            f"{shared[0]}; validate on others (val.name, val.root, val.split)"
        )


def training_note(config: Config, source: Source) -> str:
    """A note on scores on `source`: that the network of the run `config` was trained on these samples, or that this is
    unknown; "" if it was not."""
    if isinstance(source, SyntheticHands):
        return ""  # of a seed that no training uses
    data = config.data
    if {data.name, config.replay.name if config.replay else "synth"} == {"synth"}:
        return ""  # endless hands of seeds of their own
    unknown = f"whether it was trained on these samples is not known: {data.name} of its config "
    try:
        train = open_training(config)
    except InputError:
        return f"{unknown}({data.root or 'a mixture'}) cannot be opened here"
    shared = shared_keys(train, source)
    if shared:
        num = min(len(source), _LOOKED_FOR)
        return (
            f"it was TRAINED on {len(shared)} of the {num} samples that were looked for, such as {shared[0]}: these "
            "scores do not apply to other pictures"
        )
    streams = [part.name for part in _parts(train) if is_stream(part)]
    return f"{unknown}holds {streams[0]}, which are only read in passing" if streams else ""


def describe(source: Any) -> str:
    """A source in a few words: name, split and number of samples."""
    return " and ".join(map(_described, _parts(source)))


def _parts(source: Any) -> Iterator[Any]:
    """The parts of a mixture, or the source itself."""
    yield from source.parts if isinstance(source, Mixture) else (source,)


def _described(source: Any) -> str:
    words = f"{source.name} {getattr(source, 'split', '')}".strip()
    if is_stream(source):
        return f"{words} (read in passing)"
    return f"{words} (endless)" if is_endless(len(source)) else f"{words} ({counted(len(source), 'sample')})"


def counted(num: int, noun: str) -> str:
    """ "1 sample", "2 samples"."""
    return f"{num:,} {noun}{'' if num == 1 else 's'}"
