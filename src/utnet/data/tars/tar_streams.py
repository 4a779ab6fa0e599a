"""Tars by path, URL or command, opened by the `webdataset` library: their samples as undecoded members.

The library opens tars and groups members; its decoders, which unpickle, are not used.
"""

from __future__ import annotations

import glob
import lzma
import os
import re
import shlex
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from utnet.data.source import BadSample
from utnet.errors import InputError, install_line

_SCHEMES = ("pipe", "http", "https", "s3", "gs", "hf", "ais", "sftp", "ftps", "scp")
REMEDY = "get the tar again"
MAX_MEMBER_BYTES = 2**26
"""Largest size of a tar member, and of all members of a sample; a picture has a few MB."""
MAX_NAME_BYTES = 2**20
"""Largest long-name header of a tar, which tarfile reads into memory."""
FREE_BYTES, _MAX_RATIO = 2**28, 100
"""A compressed tar is refused if it unpacks to more than this size and more than this multiple of the bytes read."""
_FAULTS = (OSError, EOFError, ValueError, AssertionError, tarfile.TarError, zlib.error, lzma.LZMAError)
"""Errors of the network, the command, the library, tarfile and the decompressors."""


def expand_root(root: str) -> list[str]:
    """Expands a root to absolute paths of local tars, URLs and `pipe:` commands.

    In a command only ranges of numbers, {000..099}, are expanded; other braces are left to the shell.

    Raises:
        InputError: a missing local file, no match, or an unsupported scheme.
    """
    import braceexpand

    try:
        expanded = _numbered(root) if root.startswith("pipe:") else braceexpand.braceexpand(root)
        parts = list(expanded) if root else []
    except ValueError as error:
        raise InputError(f"{root}: the braces do not match ({error}); expected names with {{000..099}}") from error
    urls: list[str] = []
    for part in parts:
        scheme = re.match(r"([a-z][a-z0-9+.-]+):", part)
        if scheme is None or scheme[1] == "file":
            urls += _local(part if scheme is None else re.sub(r"^file:(//)?", "", part))
        elif scheme[1] == "s3":
            urls.append(f"pipe:aws s3 cp {shlex.quote(part)} -")
        elif scheme[1] in _SCHEMES:
            urls.append(part)
        else:
            raise InputError(f"{part}: cannot be opened; expected a path or one of {', '.join(_SCHEMES)}")
    if not urls:
        raise InputError(f"{root or 'data.root'}: names no tar; give a path, a folder, a glob, a URL or pipe:command")
    return urls


def _numbered(command: str) -> Iterator[str]:
    """The command for every number of its ranges {000..099}, zero-padded where the range is."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", command)
    if found is None:
        yield command
        return
    first, last = int(found[1]), int(found[2])
    padded = any(len(text) > 1 and text[0] == "0" for text in found.groups())
    width = max(map(len, found.groups())) if padded else 1
    for number in range(first, last + 1) if first <= last else range(first, last - 1, -1):
        for rest in _numbered(command[found.end() :]):
            yield f"{command[: found.start()]}{number:0{width}d}{rest}"


def _local(path: str) -> list[str]:
    """Absolute paths of local tars, so that no file name is mistaken for a URL or a command."""
    place = Path(os.path.expanduser(path))
    if place.is_file():
        found = [place]
    elif place.is_dir():
        found = sorted(place.glob("*.tar"))
    else:
        found = [Path(name) for name in sorted(glob.glob(str(place)))] if glob.has_magic(str(place)) else []
    if not found:
        missing = "no tar matches" if glob.has_magic(str(place)) or place.is_dir() else "no such file"
        raise InputError(f"{path}: {missing}; give the tars' folder, a glob or names with {{000..099}}")
    return [str(item.absolute()) for item in found]


def names_of(urls: list[str]) -> list[str]:
    """The tars' names in keys: the distinct part of the path, without `.tar`."""
    paths = [re.sub(r"[?#].*$", "", url, flags=re.S) if url.startswith("http") else url for url in urls]
    start = len(os.path.commonprefix(paths).rpartition("/")[0])  # noqa: RUF071 - commands and URLs are no paths
    names = [re.sub(r"\.tar\b.*$", "", path[start:].lstrip("/"), flags=re.S) for path in paths]
    return names if len(set(names)) == len(names) else [f"{number:06d}" for number in range(len(urls))]


def members_of(url: str, name: str) -> Iterator[dict[str, Any] | BadSample]:
    """The samples of one tar: `__key__` and undecoded members by ending. A damaged tar ends in a `BadSample`."""
    wds = webdataset_library()
    faults: list[Exception] = []

    def keep(error: Exception) -> bool:
        faults.append(error)
        return True

    def files() -> Iterator[dict[str, Any]]:
        try:
            for name, data in _files(tail):
                yield {"fname": name, "data": data, "__url__": url}
        except _FAULTS as error:  # caught here, so that the preceding sample is still returned
            faults.append(error)

    tail, read, whole = _Tail(), 0, False
    try:
        tail.open(wds.gopen(url))
        for item in wds.tariterators.group_by_keys(files(), handler=keep):
            read += 1
            yield item
        whole = True
        tail.close()
        if not faults and not tail.ended:
            faults.append(EOFError("no end mark, cut off"))
    except _FAULTS as error:
        faults.append(error)
    finally:
        if not whole:
            tail.give_up()
    if faults:
        first = str(faults[0].args[0] if faults[0].args else "").partition(" @ ")[0].partition("\n")[0]
        detail = f"{type(faults[0]).__name__}: {first[:200]}"
        yield BadSample(name, f"{url}: cannot be read to its end ({detail}), {read} samples were; {REMEDY}")


def _files(tail: _Tail) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files of a tar, without webdataset's own metadata.

    Raises:
        ValueError: a file, a sample or the tar exceeds the limits. Sizes are checked before reading, because a gigabyte
            may be compressed into a megabyte.
    """
    sample, size = "", 0
    with tarfile.open(fileobj=tail, mode="r|*", tarinfo=_BoundedTarInfo) as tar:  # type: ignore[call-overload]
        for member in tar:
            name = member.name[:80]
            of_sample = member.name.rpartition("/")[2].partition(".")[0]
            sample, size = of_sample, member.size + (size if of_sample == sample else 0)
            if size > MAX_MEMBER_BYTES:
                raise ValueError(f"{name} has {size} bytes, at most {MAX_MEMBER_BYTES} are read")
            if member.offset > max(FREE_BYTES, _MAX_RATIO * tail.num_read):
                raise ValueError(f"{name} is at byte {member.offset} of {tail.num_read} packed ones")
            if member.isreg() and not re.match(r"__[^/]*__($|/)", member.name):
                yield member.name, tar.extractfile(member).read()  # type: ignore[union-attr]
            tar.members = []  # tarfile keeps every member that it has seen


class _BoundedTarInfo(tarfile.TarInfo):
    """A member; ReadError for long-name and pax headers above `MAX_NAME_BYTES`."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        kinds = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE)
        if self.type in (*kinds, tarfile.SOLARIS_XHDTYPE) and self.size > MAX_NAME_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


class _Tail:
    """A file that records if its last bytes are zeros: a complete tar ends with zeros, a truncated one does not."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._plain: bool | None = None
        self.ended, self.num_read = False, 0

    def open(self, stream: Any) -> None:
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        # For a command, reads its output directly: the library discards the remaining output of a failed command.
        data = getattr(self._stream, "stream", self._stream).read(size)
        self.num_read += len(data)
        if self._plain is None:
            self._plain = data[257:262] == b"ustar"  # else compressed: its decoder notices
        if data:
            self.ended = not self._plain or data[-512:] == bytes(512)
        return data

    def close(self) -> None:
        while self.read(2**16):
            pass
        self._stream.close()

    def give_up(self) -> None:
        try:
            if self._stream is not None:
                self._stream.close()
        except OSError:  # raised by the stopped command
            pass


def webdataset_library() -> Any:
    try:
        import webdataset
    except ImportError as error:
        raise InputError(f"tars need the webdataset library; {install_line('train')}") from error
    return webdataset
