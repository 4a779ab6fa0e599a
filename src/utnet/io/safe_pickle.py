"""Restricted unpickler for untrusted files.

A pickle is a program that calls Python callables by name. This reader imports and calls nothing while it reads. Names
are looked up in an allow-list and refused if they are missing; calls become inert records. After the whole file is read
the records are converted to values by functions of this project (`Builder`), which check their arguments. numpy arrays
and scalars, bytes, sets and ordered dictionaries are always allowed; readers of a format add more through `allow`.

Used for MANO model files, HO3D's `meta/*.pkl` and the `data.pyd` of training tars.
"""

from __future__ import annotations

import io
import pickle
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from utnet.errors import InputError, shown
from utnet.io.atomic import check_stand_in
from utnet.io.pickle_values import ALWAYS, SCALARS, Allow, Name, check_key, check_size

MAX_BYTES = 256 * 2**20
"""Maximum size of a pickle; a MANO file has 4 MB, HO3D's meta files a few kB."""

MAX_STEPS, MAX_SECONDS, MAX_VALUES = 2_000_000, 5.0, 2_000_000
"""Limits: opcodes of a pickle, CPU time to read and build it, and its values, repeated ones counted each time (nested
references make few opcodes fill any memory)."""

_MAX_TEXT = 200  # of what a refusal quotes


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
    try:
        check_stand_in(path)
        if path.stat().st_size > MAX_BYTES:
            raise InputError(f"{path}: {path.stat().st_size} bytes is too large for a pickle that is read safely")
        data = path.read_bytes()
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        name = str(path) if str(path).isprintable() else shown(str(path))
        raise InputError(f"{name}: cannot be read ({error}); check the path") from error
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
        tree = _Reader(data, where, {**ALWAYS, **allow} if allow else ALWAYS, encoding).load()
        if keys is not None and type(tree) is dict:
            tree = {key: tree[key] for key in keys if key in tree}
        if _num_values(tree, {}) > MAX_VALUES:
            raise InputError(f"{where}: holds more than {MAX_VALUES} values, too many for labels; do not trust it")
        return _Builder(where)(tree)
    except InputError:
        raise
    except Exception as error:  # a broken pickle can raise anything
        detail = f"{type(error).__name__} {error}".strip()[:_MAX_TEXT]
        raise InputError(f"{where}: truncated or not a pickle of plain data ({detail}); get the file again") from error


# ------------------------------------------------------------------------------------------------------------- reading


class _Record:
    """An object to be built: the recorded call and state, unprocessed until the whole file is read."""

    __slots__ = ("args", "name", "state")

    def __init__(self, name: Name, args: tuple):
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

    def load(self) -> Any:
        """The parent's loop, with a limit on opcodes and time."""
        self.metastack: list[list] = []
        self.stack = []
        self.append = self.stack.append
        self._unframer = unframer = pickle._Unframer(self._file_read, self._file_readline)  # type: ignore[attr-defined]
        self.read, self.readline = unframer.read, unframer.readline
        self.readinto, self.proto = unframer.readinto, 0
        end = time.thread_time() + MAX_SECONDS
        for step in range(MAX_STEPS):
            code = self.read(1)
            if not code:
                raise EOFError
            if step % 1024 == 0 and time.thread_time() > end:
                break
            try:
                self.dispatch[code[0]](self)
            except pickle._Stop as stop:  # type: ignore[attr-defined]
                return stop.value
        raise InputError(f"{self.where}: a pickle with too many parts for plain labels; do not trust it")

    def find_class(self, module: str, name: str) -> Name:
        if (module, name) not in self.allow:
            called = f"{module}.{name}"[:_MAX_TEXT]
            raise InputError(
                f"{self.where}: refused: the pickle contains {called!r}; nothing was run, do not trust this file"
            )
        return Name(f"{module}.{name}", self.allow[module, name])

    def load_inst(self) -> None:  # old-style classes of Python 2: always refused
        module, name = self.readline()[:-1].decode("ascii"), self.readline()[:-1].decode("ascii")
        self.find_class(module, name)
        raise pickle.UnpicklingError("an old-style instance")

    def load_reduce(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if type(name) is not Name or type(args) is not tuple:
            raise pickle.UnpicklingError("a call of something that is not callable")
        if name.text.endswith("._reconstructor"):  # protocols 0 and 1: _reconstructor(cls, object, None)
            name, args = args[0], ()
            if type(name) is not Name:
                raise pickle.UnpicklingError("a reconstruction of something that is not a class")
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
            raise pickle.UnpicklingError("items for something that is not a dictionary")
        check_size(len(target) + len(items) // 2)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[check_key(key)] = value

    def load_append(self) -> None:
        value = self.stack.pop()
        self._items_of(list).append(value)

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._items_of(list).extend(items)

    def load_additems(self) -> None:
        items = self.pop_mark()
        check_size(len(self.stack[-1]) + len(items) if type(self.stack[-1]) is set else 0)
        self._items_of(set).update(check_key(item) for item in items)

    def load_frozenset(self) -> None:
        items = self.pop_mark()
        check_size(len(items))
        self.append(frozenset(check_key(item) for item in items))

    def _items_of(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise pickle.UnpicklingError(f"items for something that is not a {kind.__name__}")
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


# ------------------------------------------------------------------------------------------------------------- building


def _num_values(value: Any, seen: dict[int, int]) -> int:
    """Number of recorded values, repeated ones counted each time; stops above the limit."""
    if type(value) is dict:
        parts: Any = value.values()
    elif type(value) in (list, tuple):
        parts = value
    elif type(value) is _Record:
        parts = (*value.args, value.state)
    else:
        return 1
    if id(value) not in seen:
        seen[id(value)] = 0  # one that contains itself: `_Builder` reports it
        seen[id(value)] = min(1 + sum(_num_values(part, seen) for part in parts), MAX_VALUES + 1)
    return seen[id(value)]


class _Builder:
    """Builds values from the recorded objects, each once, from the inside out."""

    def __init__(self, where: str):
        self.where, self._end = where, time.thread_time() + MAX_SECONDS
        self.done: dict[int, Any] = {}  # by id: a value that occurs twice in the file is one value, and is built once

    def __call__(self, value: Any, *, as_argument: bool = False) -> Any:
        if type(value) in SCALARS:
            return value
        if type(value) is Name:
            if as_argument:
                return value
            raise pickle.UnpicklingError(f"a bare reference to {value.text}")
        if time.thread_time() > self._end:
            raise pickle.UnpicklingError("values that take too long to build")
        if id(value) not in self.done:
            self.done[id(value)] = self  # marks a value under construction
            self.done[id(value)] = self._build(value)
        if self.done[id(value)] is self:
            raise pickle.UnpicklingError("a value that contains itself")
        return self.done[id(value)]

    def _build(self, value: Any) -> Any:
        if type(value) is dict:
            return {key: item if type(item) in SCALARS else self(item) for key, item in value.items()}
        if type(value) in (list, tuple):
            return type(value)([item if type(item) in SCALARS else self(item) for item in value])
        if type(value) in (set, frozenset):
            return value
        if type(value) is not _Record:
            raise pickle.UnpicklingError(f"a {type(value).__name__}")
        args = tuple([item if type(item) in SCALARS else self(item, as_argument=True) for item in value.args])
        state = self(value.state)
        try:
            return value.name.build(args, state)
        except (ValueError, TypeError, KeyError, IndexError) as error:
            detail = f"{type(error).__name__}: {error}"[:_MAX_TEXT]
            raise InputError(
                f"{self.where}: {value.name.text} is not as expected ({detail}); download the file again"
            ) from error
