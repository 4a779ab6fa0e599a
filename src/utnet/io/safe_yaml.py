"""YAML of plain values with limits of size, for configs and calibrations of data sets."""

from __future__ import annotations

from typing import Any

import yaml

from utnet.errors import InputError, first_line, shown

MAX_BYTES, MAX_VALUES = 2**18, 20_000
"""Limits of a file; the largest config here has 5 kB and 150 values, DexYCB's files a few hundred."""

_PLAIN = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, if available, is ten times faster


class _Loader(_PLAIN):  # type: ignore[misc, valid-type]
    """Safe YAML in which duplicate keys are an error, with the Python tuples of DexYCB's calibration."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.YAMLError(f"the key {shown(key.value)} is given twice in one mapping")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node, deep=True))
)


def parse_yaml(text: str | bytes, *, where: str, what: str = "not a YAML file") -> Any:
    """The content of YAML text, None for an empty one.

    Raises:
        InputError: not YAML, a tag of a Python object, duplicate keys, or more than `MAX_VALUES` values (those of an
            alias each time). The message begins with `where`.
    """
    if len(text) > MAX_BYTES:
        raise InputError(f"{where}: {len(text)} bytes of YAML, at most {MAX_BYTES} are read")
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            if _num_values(node, {}) > MAX_VALUES:
                raise InputError(f"{where}: holds more than {MAX_VALUES} values, aliases counted where they are used")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except InputError:
        raise
    except yaml.MarkedYAMLError as error:
        at = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise InputError(f"{where}: {what}: {at}{_problem(error)}; correct it") from error
    except Exception as error:  # a tag on the wrong value (!!int foo), an invalid date, deep nesting
        raise InputError(f"{where}: {what}: {first_line(error)}") from error


def _problem(error: yaml.MarkedYAMLError) -> str:
    lines = (error.problem or str(error)).splitlines()
    return lines[0][:200] if lines else "not readable"


def _num_values(node: yaml.Node, seen: dict[int, int]) -> int:
    """Number of scalars and collections below a node, those of an alias counted each time; stops above the limit."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in seen:
        if not seen[id(node)]:
            raise yaml.YAMLError("a value that contains itself")
        return seen[id(node)]
    seen[id(node)] = 0
    pairs = isinstance(node, yaml.MappingNode)
    parts = [part for pair in node.value for part in pair] if pairs else node.value
    seen[id(node)] = num = min(1 + sum(_num_values(part, seen) for part in parts), MAX_VALUES + 1)
    return num
