"""What an ONNX file may hold, checked before a runtime opens it: operators of the ONNX standard and weights in the
file itself (or in the one file beside it that `utnet export` writes).

ONNX Runtime refuses other external files and unknown operators, too, but it may be built or configured
otherwise. The file is read as protobuf fields (https://protobuf.dev/programming-guides/encoding; field numbers of
onnx.proto, https://github.com/onnx/onnx), so that the package `onnx` is not needed to run a network.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from utnet.errors import InputError, shown

_MAX_FIELDS, _MAX_NESTING = 1_000_000, 8
_STANDARD = (b"", b"ai.onnx")

_MODEL_GRAPH, _MODEL_OPSET, _MODEL_TRAINING, _MODEL_FUNCTIONS = 7, 8, 20, 25
_OPSET_DOMAIN = 1
_GRAPH_NODE, _GRAPH_TENSOR, _GRAPH_SPARSE = 1, 5, 15
_NODE_OP, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS, _ATTRIBUTE_SPARSE = (5, 10), (6, 11), (22, 23)
_TENSOR_EXTERNAL, _ENTRY_KEY, _ENTRY_VALUE = 13, 1, 2


def check_onnx(path: Path) -> None:
    """Returns where the file is one of standard operators and its own weights.

    Raises:
        InputError: no protobuf, an operator of another domain, functions of its own, or weights in another file.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed with its last view
        _Check(path).model(memoryview(data))
    except (OSError, ValueError, IndexError) as error:  # an empty or cut off file
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not an ONNX file ({error or type(error).__name__}); export it again") from error


class _Check:
    def __init__(self, path: Path):
        self._path, self._num_fields = path, 0

    def model(self, data: memoryview) -> None:
        for number, value in self._fields(data):
            if number == _MODEL_GRAPH:
                self._graph(value, 0)
            elif number == _MODEL_OPSET:
                for field, domain in self._fields(value):
                    if field == _OPSET_DOMAIN and bytes(domain[:64]) not in _STANDARD:
                        self._refuse(f"operators of {shown(bytes(domain[:64]))}")
            elif number in (_MODEL_FUNCTIONS, _MODEL_TRAINING):
                self._refuse("functions of its own")

    def _graph(self, data: memoryview, nesting: int) -> None:
        if nesting > _MAX_NESTING:
            self._refuse("graphs in graphs")
        for number, value in self._fields(data):
            if number == _GRAPH_NODE:
                self._node(value, nesting)
            elif number == _GRAPH_TENSOR:
                self._tensor(value)
            elif number == _GRAPH_SPARSE:
                self._sparse(value)

    def _node(self, data: memoryview, nesting: int) -> None:
        for number, value in self._fields(data):
            if number == _NODE_DOMAIN and bytes(value[:64]) not in _STANDARD:
                self._refuse(f"an operator of {shown(bytes(value[:64]))}")
            if number == _NODE_ATTRIBUTE:
                for kind, item in self._fields(value):
                    if kind in _ATTRIBUTE_GRAPHS:
                        self._graph(item, nesting + 1)
                    elif kind in _ATTRIBUTE_TENSORS:
                        self._tensor(item)
                    elif kind in _ATTRIBUTE_SPARSE:
                        self._sparse(item)

    def _sparse(self, data: memoryview) -> None:
        for number, value in self._fields(data):
            if number in (1, 2):  # values and indices
                self._tensor(value)

    def _tensor(self, data: memoryview) -> None:
        beside = self._path.with_name(self._path.name + ".data")
        for number, value in self._fields(data):
            if number == _TENSOR_EXTERNAL:
                entry = {kind: bytes(text[:1024]) for kind, text in self._fields(value)}
                ours = entry.get(_ENTRY_VALUE) == beside.name.encode() and not beside.is_symlink()
                if entry.get(_ENTRY_KEY) == b"location" and not ours:
                    self._refuse(f"weights in the file {shown(entry.get(_ENTRY_VALUE))}")

    def _refuse(self, what: str) -> None:
        raise InputError(f"{self._path}: refused, it names {what}, which no file of `utnet export` does")

    def _fields(self, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """Number and bytes of every field of a message that has a length; numbers are passed over."""
        place, end = 0, len(data)
        while place < end:
            self._num_fields += 1
            if self._num_fields > _MAX_FIELDS:
                self._refuse("too many parts")
            tag, place = _varint(data, place)
            wire = tag & 7
            if wire == 2:
                length, place = _varint(data, place)
                if length > end - place:
                    raise ValueError("cut off")
                yield tag >> 3, data[place : place + length]
                place += length
            elif wire == 0:
                _, place = _varint(data, place)
            elif wire in (1, 5):
                place += 8 if wire == 1 else 4
            else:
                raise ValueError("not protobuf")
        if place != end:
            raise ValueError("cut off")


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    number = 0
    for shift in range(0, 70, 7):
        byte = data[place]
        place += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, place
    raise ValueError("not protobuf")
