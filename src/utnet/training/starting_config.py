"""The config of a run that starts from a network: `utnet train CONFIG --from NETWORK`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path

from utnet.checkpoint import find_checkpoint, read_config
from utnet.config import Config, ModelConfig, from_tree, override, to_tree
from utnet.config.loading import read_yaml
from utnet.model.presets import resolve_preset

_CHOICES = {"p_drop", "checkpoint_blocks", "mano"}
"""Keys of `model` that do not belong to the weights."""
_HEADS = ("uncertainty", "prompts", "evidence")
"""Switches of `model` for parts that a run can add to a network."""
_FIXED = {f"model.{field.name}" for field in fields(ModelConfig)} - {f"model.{name}" for name in _CHOICES}
_OPEN = ("model.p_drop", "crop.expand", "crop.aspect", "crop.recipe")
_LOSSES = {
    "uncertainty": ("loss.w_uncertainty",),
    "evidence": ("loss.w_mask", "loss.w_side", "augment.mirror_p"),
}
"""Keys that the parts of `_HEADS` need."""
_MAPS = ("loss.w_joint_map", "loss.w_joint_heat")
"""Losses of joint maps, 0 for a network without them."""


def load_config(path: str | Path, changes: Sequence[str] = (), *, init_from: str = "") -> tuple[Config, list[str]]:
    """Loads a config; what it leaves open is set as in the network that the run starts from.

    The network's preset, sizes, stem and heads, and how its crops are cut, replace the defaults. Where the config sets
    them itself:

    - crop keys and `model.p_drop` keep the config's value;
    - keys that the weights fix keep it too if `train.init_from` is in the same file (a contradiction there is an error
      when the weights are loaded), and give way if the network is named on the command line, so that any config can be
      fine-tuned from any network;
    - `changes` always win.

    Args:
        path: a YAML file or the name of a bundled config.
        changes: "KEY=VALUE" as for `config.override`.
        init_from: as `train.init_from`, which it replaces; "" for that of the config or of `changes`.

    Returns:
        The config, and lines that state what was taken from the network and what differs from it. Nothing is taken and
        there are no lines for a run from random or from another project's weights.

    Raises:
        InputError: an unknown config, key, value or network.
    """
    config = Config.load(path)
    changes = [*changes, *([f"train.init_from={init_from}"] if init_from else [])]
    set_keys = {change.partition("=")[0] for change in changes}
    wanted = override(config, [change for change in changes if change.startswith("train.init_from=")]).train.init_from
    if not wanted or not find_checkpoint(wanted).is_dir():
        return override(config, changes), []
    own, on_command_line = _keys(read_yaml(path)), "train.init_from" in set_keys
    config, taken, kept = start_from(config, wanted, own, weights_win=on_command_line, skipped=set_keys)
    lines = [f"settings of {wanted}: {', '.join(taken)}"] if taken else []
    lines += [f"{path} has settings of its own, kept: {', '.join(kept)}"] if kept else []
    return override(config, changes), lines


def start_from(
    config: Config,
    network: str | Path,
    own: Collection[str],
    *,
    weights_win: bool = False,
    skipped: Collection[str] = (),
) -> tuple[Config, list[str], list[str]]:
    """Sets what a config leaves open as in the network that its run starts from.

    Args:
        config: of the run.
        network: a checkpoint folder, or the name of a bundled network.
        own: keys ("section.key") that the config sets itself, which are kept.
        weights_win: keys that the weights fix are replaced even if they are in `own`.
        skipped: keys that are neither replaced nor reported.

    Returns:
        The config; what was replaced; what was kept although the network has another value.
    """
    of = read_config(network)
    theirs_tree, tree = to_tree(of), to_tree(config)
    absent = () if resolve_preset(of.model).joint_maps else _MAPS
    theirs_tree["loss"] |= {key.partition(".")[2]: 0.0 for key in absent}
    taken, kept = [], []
    for key in (*sorted(_FIXED), *_OPEN, *_needed(theirs_tree), *absent):
        ours, theirs = _get(tree, key), _get(theirs_tree, key)
        fixed = key in (*_FIXED, *absent) and not (key[6:] in _HEADS and ours)
        if key in skipped or ours == theirs:
            continue
        if key in own and not (fixed and weights_win):
            kept.append(f"{key} {ours} (there {theirs})")
            continue
        section, _, name = key.partition(".")
        tree[section][name] = theirs
        taken.append(f"{key} {theirs}" + (f" (not {ours})" if key in own else ""))
    return from_tree(Config, tree, where=f"the config for {network}"), taken, kept


def own_keys(config: Config) -> set[str]:
    """ "section.key" of what a config without a file sets itself: of `model` all but what is null, and heads that are
    off; of what the heads need, all but 0."""
    values = {field.name: getattr(config.model, field.name) for field in fields(ModelConfig)}
    own = {f"model.{key}" for key, value in values.items() if value is not None and (value or key not in _HEADS)}
    tree = to_tree(config)
    return own | {key for keys in _LOSSES.values() for key in keys if _get(tree, key)}


def _needed(network: dict) -> list[str]:
    """Keys outside of `model` that the network's heads need."""
    return [key for head, keys in _LOSSES.items() if network["model"][head] for key in keys]


def _keys(tree: object) -> set[str]:
    """ "section.key" of all that a file sets."""
    sections = tree.items() if isinstance(tree, dict) else ()
    return {f"{name}.{key}" for name, section in sections if isinstance(section, dict) for key in section}


def _get(tree: dict, key: str):
    section, _, name = key.partition(".")
    return tree[section][name]
