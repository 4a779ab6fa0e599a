"""Damage: bytes changed at random, values of JSON and YAML trees changed for unlikely ones."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import numpy as np

UNLIKELY: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**400, -(10**400), 0.5, 1e300, -1e300, 1e-300, float("nan"), float("inf"),
    "", "a", "right", "\0", "\ud800", "x" * 5000, "../../etc/passwd", "C:\\x.png", [], {}, [[]], [None] * 21,
    [1e9] * 3, {"a": 1}, [[1, 2], [3]], "2020-02-30", "!!int foo",
]  # fmt: skip


def bytes_of(rng: np.random.Generator, data: bytes) -> bytes:
    """A damaged copy: cut short, changed, moved, repeated or filled bytes, one to four times."""
    for _ in range(int(rng.integers(1, 5))):
        data = _once(rng, data)
    return data


def _once(rng: np.random.Generator, data: bytes) -> bytes:
    size = len(data)
    if size < 2:
        return data + rng.bytes(8)
    head = rng.random() < 0.5  # headers are where most of a file's claims are
    place = int(rng.integers(0, min(size, 300) if head else size))
    length = int(rng.integers(1, 1 + min(size - place, int(rng.choice([1, 4, 64, 4096])))))
    kind = int(rng.integers(0, 7))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + data[place + length :]
    if kind == 2:
        return data[:place] + data[place : place + length] * int(rng.integers(2, 20)) + data[place + length :]
    if kind == 3:
        fill = bytes([int(rng.choice([0, 255, 127, 128]))]) * length
        return data[:place] + fill + data[place + length :]
    if kind == 4:
        return data[:place] + rng.bytes(length) + data[place + length :]
    if kind == 5:
        return data + rng.bytes(length)
    changed = bytearray(data)
    for at in rng.integers(0, min(size, 300) if head else size, int(rng.integers(1, 9))).tolist():
        changed[at] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def tree_of(rng: np.random.Generator, tree: Any) -> Any:
    """A copy in which one to three values, keys or lengths are others."""
    tree = json.loads(json.dumps(tree))
    for _ in range(int(rng.integers(1, 4))):
        nodes = _nodes(tree)
        if not nodes:
            break
        node = nodes[int(rng.integers(len(nodes)))]
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        if not places:
            continue
        place, kind = places[int(rng.integers(len(places)))], int(rng.integers(0, 6))
        if kind == 0:
            del node[place]
        elif kind == 1 and isinstance(node, dict):
            node[place + "s"] = node.pop(place)
        elif kind == 1:
            node.append(node[place])
        elif kind == 2:
            node[place] = _nested(int(rng.choice([3, 50, 400])))
        else:
            node[place] = deepcopy(UNLIKELY[int(rng.integers(len(UNLIKELY)))])
    return tree


def _nested(levels: int) -> list:
    deep: list = []
    for _ in range(levels):
        deep = [deep]
    return deep


def _nodes(tree: Any) -> list[Any]:
    found, waiting = [], [tree]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict | list):
            found.append(item)
            waiting += item.values() if isinstance(item, dict) else item
    return found


def text_of(rng: np.random.Generator, tree: Any) -> bytes:
    """A changed tree as JSON, whose text is damaged now and then."""
    text = json.dumps(tree_of(rng, tree)).encode()
    return bytes_of(rng, text) if rng.random() < 0.25 else text
