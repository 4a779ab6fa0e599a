"""Restricted unpickler for untrusted files.

A pickle is a program that calls Python callables by name. This reader imports and calls nothing while it reads. Names
are looked up in an allow-list and refused if they are missing; calls become inert records. After the whole file is read
the records are converted to values by functions of this project (`Builder`), which check their arguments. numpy arrays
and scalars, bytes, sets and ordered dictionaries are always allowed; readers of a format add more through `allow`.

Used for MANO model files, HO3D's `meta/*.pkl` and the `data.pyd` of training tars.
"""

from __future__ import annotations

import io
import math
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from utnet.errors import InputError
from utnet.io.atomic import check_stand_in

Builder: TypeAlias = Callable[[tuple, Any], Any]
"""`builder(args, state)` -> value, with the arguments of the call in the pickle and the state set afterwards (or None),
both as plain values. Its exceptions are converted to an InputError that names the file."""

Allow: TypeAlias = Mapping[tuple[str, str], Builder]
"""(module, name), as spelled in the file, to the builder that replaces the callable."""

MAX_BYTES = 256 * 2**20
"""Maximum size of a pickle; a MANO file has 4 MB, HO3D's meta files a few kB."""

_MAX_TEXT = 200  # maximum length of quoted text in messages


def load_pickle(
    path: str | Path, *, allow: Allow | None = None, encoding: str = "latin1", keys: Collection[str] | None = None
) -> Any:
    """Reads a pickle file as plain Python values and numpy arrays.

    Args:
        path: the file.
        allow: allowed names beyond numpy arrays and scalars, bytes, sets and ordered dictionaries.
        encoding: of Python 2's 8-bit strings; "latin1" keeps numpy's buffers intact.
        keys: keys to build if the file contains a dictionary; other values are dropped after their names are checked.
            None builds all.

    Raises:
        InputError: the file is missing, too large, truncated, not a pickle, or contains a name that is not allowed
            (given in the message, such as "os.system").
    """
    path = Path(path)
    check_stand_in(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes is too large for a pickle that is read safely")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    return parse_pickle(data, where=str(path), allow=allow, encoding=encoding, keys=keys)


def parse_pickle(
    data: bytes,
    *,
    where: str,
    allow: Allow | None = None,
    encoding: str = "latin1",
    keys: Collection[str] | None = None,
) -> Any:
    """`load_pickle` for bytes in memory; `where` names them in messages."""
    if len(data) > MAX_BYTES:
        raise InputError(f"{where}: {len(data)} bytes is too large for a pickle that is read safely")
    try:
        tree = _Reader(data, where, {**_ALWAYS, **allow} if allow else _ALWAYS, encoding).load()
        if keys is not None and type(tree) is dict:
            tree = {key: tree[key] for key in keys if key in tree}
        return _ValueBuilder(where)(tree)
    except InputError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        detail = f"{type(error).__name__} {error}".strip()[:_MAX_TEXT]
        raise InputError(f"{where}: truncated or not a pickle of plain data ({detail}); get the file again") from error


# ------------------------------------------------------------------------------------------------------------- reading


class _Name:
    """An allowed callable in the file: only its name and its builder, never the callable itself."""

    __slots__ = ("build", "text")

    def __init__(self, text: str, build: Builder):
        self.text, self.build = text, build


class _Record:
    """An object to be built: the recorded call and state, unprocessed until the whole file is read."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: _Name, args: tuple):
        self.name, self.args = name, args
        self.state: Any = None


def _opcodes(plain: str, **replaced: Callable) -> dict[int, Callable]:
    """The unpickler's opcode table restricted to `plain` opcodes, with others `replaced`."""
    codes = {name: getattr(pickle, name)[0] for name in (*plain.split(), *replaced)}
    return {code: replaced.get(name) or pickle._Unpickler.dispatch[code] for name, code in codes.items()}


class _Reader(pickle._Unpickler):
    """The unpickler with all opcodes that call, build or import replaced by ones that record.

    It derives from the pure-Python unpickler (private, but present since Python 3.0), whose opcode table can be
    replaced and whose memo is a dict; the C unpickler allocates any size given in the file.
    """

    stack: list[Any]  # the parent's, declared for the type checker
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    readline: Callable[[], bytes]

    def __init__(self, data: bytes, where: str, allow: Allow, encoding: str):
        super().__init__(io.BytesIO(data), encoding=encoding)
        self.where, self.allow = where, allow

    def find_class(self, module: str, name: str) -> _Name:
        if (module, name) not in self.allow:
            called = f"{module}.{name}"[:_MAX_TEXT]
            raise InputError(
                f"{self.where}: refused: the pickle contains {called!r}; nothing was run, do not trust this file"
            )
        return _Name(f"{module}.{name}", self.allow[module, name])

    def load_inst(self) -> None:  # old-style classes of Python 2: always refused
        module, name = self.readline()[:-1].decode("ascii"), self.readline()[:-1].decode("ascii")
        self.find_class(module, name)
        raise pickle.UnpicklingError("an old-style instance")

    def load_reduce(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if type(name) is not _Name or type(args) is not tuple:
            raise pickle.UnpicklingError("a call of something that is no callable")
        if name.text.endswith("._reconstructor"):  # protocols 0 and 1: _reconstructor(cls, object, None)
            name, args = args[0], ()
            if type(name) is not _Name:
                raise pickle.UnpicklingError("a reconstruction of something that is no class")
        self.append(_Record(name, args))

    def load_newobj_ex(self) -> None:
        if self.stack.pop():
            raise pickle.UnpicklingError("keyword arguments")
        self.load_reduce()

    def load_build(self) -> None:
        state, record = self.stack.pop(), self.stack[-1]
        if type(record) is not _Record or record.state is not None:
            raise pickle.UnpicklingError("a state for something that takes none")
        record.state = state

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set_items(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set_items([key, value])

    def load_setitems(self) -> None:
        self._set_items(self.pop_mark())

    def _set_items(self, items: list) -> None:
        target = self.stack[-1]
        if type(target) is _Record and target.name.text.endswith(".OrderedDict"):
            target.state = target.state or {}
            target = target.state
        if type(target) is not dict:
            raise pickle.UnpicklingError("items for something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_check_key(key)] = value

    def load_append(self) -> None:
        value = self.stack.pop()
        self._items_of(list).append(value)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._items_of(list).extend(items)

    def load_additems(self) -> None:
        items = self.pop_mark()
        self._items_of(set).update(_check_key(item) for item in items)

    def load_frozenset(self) -> None:
        self.append(frozenset(_check_key(item) for item in self.pop_mark()))

    def _items_of(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise pickle.UnpicklingError(f"items for something that is no {kind.__name__}")
        return self.stack[-1]

    dispatch = _opcodes(
        plain="PROTO FRAME STOP MARK POP POP_MARK DUP GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE NONE "
        "NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING "
        "SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 TUPLE "
        "TUPLE1 TUPLE2 TUPLE3 EMPTY_TUPLE EMPTY_LIST LIST EMPTY_DICT EMPTY_SET GLOBAL STACK_GLOBAL",
        INST=load_inst,
        REDUCE=load_reduce,
        NEWOBJ=load_reduce,
        NEWOBJ_EX=load_newobj_ex,
        BUILD=load_build,
        BYTEARRAY8=pickle._Unpickler.dispatch[pickle.BINBYTES8[0]],  # the original allocates before it reads
        DICT=load_dict,
        SETITEM=load_setitem,
        SETITEMS=load_setitems,
        APPEND=load_append,
        APPENDS=load_appends,
        ADDITEMS=load_additems,
        FROZENSET=load_frozenset,
    )
    """Opcode to function. Refused, since absent: OBJ, PERSID, BINPERSID, EXT1-4, NEXT_BUFFER, READONLY_BUFFER."""


def _check_key(key: Any, depth: int = 0) -> Any:
    """Checks the key of a dict or the member of a set: a scalar or a tuple of scalars."""
    if type(key) is tuple and depth < 2:
        return tuple(_check_key(item, depth + 1) for item in key)
    if type(key) not in _SCALARS:
        raise pickle.UnpicklingError(f"a {type(key).__name__} as a key")
    return key


_SCALARS = frozenset((str, bytes, int, float, bool, type(None)))


# ------------------------------------------------------------------------------------------------------ building values


class _ValueBuilder:
    """Converts records of the reader to values, each once, from the inside out."""

    def __init__(self, where: str):
        self.where = where
        self.done: dict[int, Any] = {}  # by id: shared values are built once

    def __call__(self, value: Any, *, as_argument: bool = False) -> Any:
        if type(value) in _SCALARS:
            return value
        if type(value) is _Name:
            if as_argument:
                return value
            raise pickle.UnpicklingError(f"a bare reference to {value.text}")
        if id(value) not in self.done:
            self.done[id(value)] = self  # marks a value under construction
            self.done[id(value)] = self._build(value)
        if self.done[id(value)] is self:
            raise pickle.UnpicklingError("a value that contains itself")
        return self.done[id(value)]

    def _build(self, value: Any) -> Any:
        if type(value) is dict:
            return {key: item if type(item) in _SCALARS else self(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)([item if type(item) in _SCALARS else self(item) for item in value])
        if type(value) in (set, frozenset):
            return value
        if type(value) is not _Record:
            raise pickle.UnpicklingError(f"a {type(value).__name__}")
        args = tuple([item if type(item) in _SCALARS else self(item, as_argument=True) for item in value.args])
        state = self(value.state)
        try:
            return value.name.build(args, state)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            detail = f"{type(error).__name__}: {error}"[:_MAX_TEXT]
            raise InputError(
                f"{self.where}: {value.name.text} is not as expected ({detail}); download the file again"
            ) from error


# -------------------------------------------------------------------------------------------- builders, always allowed


def _only_a_name(args: tuple, state: Any) -> Any:
    raise ValueError("may be referenced, not called")


def _bytes(value: Any) -> bytes:
    """Converts a buffer to bytes: bytes, or a Python 2 string decoded as latin1."""
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
    """Booleans, numbers, fixed-width text and Python objects; no structured types, subarrays or dates."""
    code = args[0]
    if not isinstance(code, str) or not re.fullmatch(r"[<>=|]?([biufc][1-9]\d?|[SU][1-9]\d{0,8}|O[48]?)", code):
        raise ValueError("an element type other than numbers, text and objects")
    order: Any = state[1] if state is not None else "="
    if state is not None and (order not in ("<", ">", "=", "|") or any(item is not None for item in state[2:5])):
        raise ValueError("a structured element type")
    kind = np.dtype("O" if code.lstrip("<>=|").startswith("O") else code)
    return kind if order == "|" else kind.newbyteorder(order)


def _filled(shape: Any, dtype: Any, contents: Any, fortran: bool) -> np.ndarray:
    """Builds an array in native byte order; the contents must have exactly the size of its shape and dtype."""
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
    if not isinstance(args[0], _Name) or args[0].text != "numpy.ndarray":
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
        return kind(_check_key(item) for item in (args[0] if args else ()))

    return build


def _ordered_dict(args: tuple, state: Any) -> OrderedDict:
    pairs = [] if not args else args[0]
    return OrderedDict([*((_check_key(key), value) for key, value in pairs), *(state or {}).items()])


_ALWAYS: Allow = {
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
