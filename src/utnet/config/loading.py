"""Strict reading and writing of YAML: an unknown key, a wrong type or a missing file is an `InputError` with the file,
the key and the nearest valid one."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import TypeVar

import yaml

from utnet.errors import InputError, first_line, shown
from utnet.io.safe_yaml import MAX_BYTES, parse_yaml

Section = TypeVar("Section")


_BUNDLED = Path(__file__).parents[1] / "configs"


def bundled_configs() -> list[str]:
    """Returns the names of the bundled configs, such as "dexycb_s0_rgbd"."""
    return sorted(path.stem for path in _BUNDLED.glob("*.yaml"))


def find_config(path: str | Path) -> Path:
    """Returns the file of a config.

    Args:
        path: a YAML file, or the name of a bundled config without folder and suffix. An existing file takes precedence.

    Raises:
        InputError: neither; the message contains the nearest bundled name, or all of them.
    """
    path = Path(path)
    names = bundled_configs()
    if path.is_file():
        return path
    if str(path) in names:
        return _BUNDLED / f"{path}.yaml"
    near = difflib.get_close_matches(path.stem, names, n=1)
    hint = (
        f"; did you mean {near[0]}, which ships with utnet?" if near else f"; the names that ship: {', '.join(names)}"
    )
    raise InputError(f"{path}: no such config file{hint}")


def read_yaml(path: str | Path) -> object:
    """Returns the content of a YAML file, {} for an empty one.

    Args:
        path: as for `find_config`.

    Raises:
        InputError: no such file, or not YAML.
    """
    path = find_config(path)
    try:
        with path.open("rb") as file:
            tree = parse_yaml(file.read(MAX_BYTES + 1).decode(), where=str(path))
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not a YAML file: {first_line(error)}") from error
    return {} if tree is None else tree


def to_yaml(config) -> str:
    """All fields of a config dataclass as YAML, defaults included."""
    return yaml.safe_dump(to_tree(config), sort_keys=False)


def require(name: str, ok: bool, value, expected: str) -> None:
    if not ok:
        raise InputError(f"{name} is {shown(value)}; expected {expected}")


def require_range(section: str, config, low: float, high: float, *names: str) -> None:
    """InputError unless each of these fields is a number from `low` to `high`, or None."""
    for name in names:
        value = getattr(config, name)
        require(f"{section}.{name}", value is None or low <= value <= high, value, f"{low:g} to {high:g}")


def override(config: Section, changes: Sequence[str]) -> Section:
    """The config with some changed values.

    Args:
        config: a run.
        changes: such as "train.lr=1e-4"; values are parsed as YAML.

    Raises:
        InputError: not KEY=VALUE, an unknown key or a wrong type.
    """
    tree = to_tree(config)
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"--set {shown(change)}: expected KEY=VALUE, such as train.lr=1e-4")
        *parents, last = path.split(".")
        branch = tree
        for name in parents:
            if not isinstance(branch.get(name), dict):
                branch[name] = {}
            branch = branch[name]
        branch[last] = parse_yaml(value, where=f"--set {shown(change)}", what="the value is not YAML")
    return from_tree(type(config), tree, where="--set")


def to_tree(config) -> dict:
    """Plain dicts, lists and scalars of a config dataclass."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(asdict(config))


def from_tree(cls: type, tree: object, *, where: str = "config"):
    """Builds the dataclass `cls` from plain YAML values, strictly.

    A class method `with_defaults(tree, where)`, if any, fills in defaults that depend on other keys. A class attribute
    `RENAMED`, if any, maps keys of earlier files to today's.

    Raises:
        InputError: unknown or missing key, wrong type or value; the message starts with `where` and the dotted key.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{where}: expected a mapping of {cls.__name__} keys, found {shown(tree)}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    for old, new in getattr(cls, "RENAMED", {}).items():
        if old in tree:
            if tree.get(new) is not None:
                raise InputError(f"{where}: {old} is the earlier name of {new}; give {new} only")
            tree = {**tree, new: tree[old]}
            del tree[old]
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(str(key)[:80], known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
            raise InputError(f"{where}: unknown key {shown(key)}{hint}")
    complete = getattr(cls, "with_defaults", None)
    values: dict = complete(tree, where) if complete else tree
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in values.items()}
    missing = [f.name for f in fields(cls) if f.default is MISSING is f.default_factory and f.name not in values]
    if missing:
        raise InputError(f"{where}: missing keys: {', '.join(missing)}")
    try:
        return cls(**values)
    except InputError as error:  # by the class's own checks, which begin with the section's name
        parent, _, section = where.rpartition(": ")
        if parent and str(error).startswith(f"{section}."):
            where = parent
        raise InputError(f"{where}: {error}") from error


def _convert(hint, value, where: str):
    """`value` as the annotated type; only int to float and list to tuple are converted."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (hint,) = (a for a in args if a is not type(None))
        return _convert(hint, value, where)
    if is_dataclass(hint):
        return from_tree(typing.cast(type, hint), value, where=where)
    if origin is tuple and args[-1] is Ellipsis:
        if not isinstance(value, list):
            raise InputError(f"{where}: expected a list, found {shown(value)}")
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(args):
            raise InputError(f"{where}: expected a list of {len(args)} values, found {shown(value)}")
        return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:  # an integer of hundreds of digits
            raise InputError(f"{where}: {shown(value)} is too large") from error
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 (no dot) as text
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{where}: expected {hint.__name__}, found {shown(value)}")
    return value
