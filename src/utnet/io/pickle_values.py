"""Values allowed in pickles: `safe_pickle` builds them instead of calling what the file names."""

from __future__ import annotations

import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

Builder: TypeAlias = Callable[[tuple, Any], Any]
"""`builder(args, state)` -> value: arguments of the call in the pickle, and the state set afterwards or None. Both are
plain values; exceptions become an InputError that names the file."""

Allow: TypeAlias = Mapping[tuple[str, str], Builder]
"""(module, name), exactly as the file spells them, to the builder that replaces that callable."""

MAX_KEYS = 5_000
"""Largest number of keys of a dictionary or set: for keys of equal hashes time grows with the square."""


class Name:
    """An allowed callable that the file names: its name and its builder, never the callable itself."""

    __slots__ = ("build", "text")

    def __init__(self, text: str, build: Builder):
        self.text, self.build = text, build


def check_size(num_keys: int) -> None:
    if num_keys > MAX_KEYS:
        raise pickle.UnpicklingError(f"more than {MAX_KEYS} keys of one dictionary or set")


def check_key(key: Any, depth: int = 0) -> Any:
    """The key of a dict or a member of a set: a scalar, or a tuple of scalars. Anything else is not plain data."""
    if type(key) is tuple and depth < 2:
        return tuple(check_key(item, depth + 1) for item in key)
    if type(key) not in SCALARS:
        raise pickle.UnpicklingError(f"a {type(key).__name__} as a key")
    return key


SCALARS = frozenset((str, bytes, int, float, bool, type(None)))


def _only_a_name(args: tuple, state: Any) -> Any:
    raise ValueError("may be referenced, not called")


def _bytes(value: Any) -> bytes:
    """A buffer: bytes, or Python 2's 8-bit string read as latin1."""
    return value.encode("latin1") if isinstance(value, str) else bytes(memoryview(value))


def _encode(args: tuple, state: Any) -> bytes:
    text, encoding = args
    if encoding not in ("latin1", "latin-1"):
        raise ValueError("an encoding other than latin1")
    return text.encode("latin1")


def _empty_bytes(args: tuple, state: Any) -> bytes:
    if args:
        raise ValueError("bytes() with arguments")
    return b""


def _dtype(args: tuple, state: Any) -> np.dtype:
    """Booleans, numbers, fixed-width text and Python objects; no records, no subarrays, no dates."""
    code = args[0]
    if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?([biufc][1-9]\d?|[SU][1-9]\d{0,8}|O[48]?)", code):
        raise ValueError("an element type other than numbers, text and objects")
    order: Any = state[1] if state is not None else "="
    if state is not None and (order not in ("<", ">", "=", "|") or any(item is not None for item in state[2:5])):
        raise ValueError("a structured element type")
    kind = np.dtype("O" if code.lstrip("<>=|").startswith("O") else code)
    return kind if order == "|" else kind.newbyteorder(order)


def _filled(shape: Any, dtype: Any, contents: Any, fortran: bool) -> np.ndarray:
    """An array whose contents have exactly the size that its shape and element type require, in native byte order."""
    order: Any = "F" if fortran else "C"
    if type(shape) is not tuple or len(shape) > 32 or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("an array's shape is not a tuple of sizes")
    size = math.prod(shape)
    if dtype.hasobject:
        if type(contents) is not list or len(contents) != size:
            raise ValueError(f"an array of shape {shape} needs {size} objects")
        flat = np.empty(size, object)
        for index, item in enumerate(contents):
            flat[index] = item
        return flat.reshape(shape, order=order)
    buffer = _bytes(contents)
    if len(buffer) != size * dtype.itemsize:
        raise ValueError(f"an array of shape {shape} needs {size * dtype.itemsize} bytes, there are {len(buffer)}")
    return np.ndarray(shape, dtype, buffer, order=order).astype(dtype.newbyteorder("="))


def _reconstruct(args: tuple, state: Any) -> np.ndarray:
    """`numpy.core.multiarray._reconstruct(ndarray, (0,), b'b')`, then (version, shape, dtype, fortran, contents)."""
    if not isinstance(args[0], Name) or args[0].text != "numpy.ndarray":
        raise ValueError("an array class other than numpy.ndarray")
    _, shape, dtype, fortran, contents = state
    return _filled(shape, dtype, contents, bool(fortran))


def _scalar(args: tuple, state: Any) -> Any:
    dtype, contents = args
    if dtype.hasobject:
        raise ValueError("a scalar of Python objects")
    return _filled((), dtype, contents, False)[()]


def _frombuffer(args: tuple, state: Any) -> np.ndarray:
    """Protocol 5: (buffer, dtype, shape, order)."""
    contents, dtype, shape, order = args
    if dtype.hasobject:
        raise ValueError("a buffer of Python objects")
    return _filled(shape, dtype, contents, order == "F")


def _set(kind: type) -> Builder:
    def build(args: tuple, state: Any) -> Any:
        if len(args) > 1 or (args and type(args[0]) is not list):
            raise ValueError("a set of something other than a list")
        check_size(len(args[0]) if args else 0)
        return kind(check_key(item) for item in (args[0] if args else ()))

    return build


def _ordered_dict(args: tuple, state: Any) -> OrderedDict:
    pairs = [] if not args else args[0]
    check_size(len(pairs))
    return OrderedDict([*((check_key(key), value) for key, value in pairs), *(state or {}).items()])


ALWAYS: Allow = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
    ("numpy", "ndarray"): _only_a_name,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encode,
    **{(builtins, name): build
       for builtins in ("__builtin__", "builtins")
       for name, build in {"bytes": _empty_bytes, "object": _only_a_name, "set": _set(set),
                           "frozenset": _set(frozenset)}.items()},
    ("copy_reg", "_reconstructor"): _only_a_name,
    ("copyreg", "_reconstructor"): _only_a_name,
    ("collections", "OrderedDict"): _ordered_dict,
}  # fmt: skip
