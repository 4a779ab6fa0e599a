"""Small inputs that would take the machine: each once, as the list of a former campaign has them."""

from __future__ import annotations

import io
import pickle
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from support.tiff_files import tiff
from utnet.config import Config
from utnet.data import open_source
from utnet.errors import InputError
from utnet.io.files import read_image
from utnet.io.npz import read_members
from utnet.io.pictures import read_picture
from utnet.io.safe_pickle import parse_pickle
from utnet.model.wilor import import_wilor

Rng = np.random.Generator


def _png(path: Path, width: int, height: int, color: int, channels: int) -> Path:
    """A PNG of zeros, packed a row at a time."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    packer, row = zlib.compressobj(1), bytes(1 + width * channels)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, color, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    return path


def make_tiff(rng: Rng, folder: Path) -> Path:
    (folder / "a.tif").write_bytes(tiff(20_000, 20_000))
    return folder / "a.tif"


def _read_both(path: Path) -> None:
    with suppress(InputError):
        read_picture(path)
    read_image(path)


def _packed(data: bytes) -> bytes:
    """A part of a deflate stream that refers to nothing before it, so that it may be repeated."""
    packer = zlib.compressobj(9, wbits=-15)
    return packer.compress(data) + packer.flush(zlib.Z_FULL_FLUSH)


def _write_gzip(path: Path, parts: Iterable[bytes]) -> None:
    """One gzip stream of `_packed` parts; its checksum is wrong, and comes last."""
    end = zlib.compressobj(wbits=-15).flush()
    path.write_bytes(b"\x1f\x8b\x08" + bytes(6) + b"\xff" + b"".join(parts) + _packed(bytes(1024)) + end + bytes(8))


def make_tar(rng: Rng, folder: Path) -> Path:
    """2 GB of zeros in 2 MB."""
    info, block = tarfile.TarInfo("000.jpg"), bytes(10 * 2**20)
    info.size = 200 * len(block)
    _write_gzip(folder / "a.tar", [_packed(info.tobuf()), *200 * [_packed(block)]])
    return folder


def make_tar_of_many(rng: Rng, folder: Path) -> Path:
    block, parts = bytes(5 * 2**20), []
    packed = _packed(block)
    for number in range(400):
        info = tarfile.TarInfo(f"{number:04}.jpg")
        info.size = len(block)
        parts += [_packed(info.tobuf()), packed]
    _write_gzip(folder / "a.tar", parts)
    return folder


def make_tar_of_a_long_name(rng: Rng, folder: Path) -> Path:
    info, block = tarfile.TarInfo("././@LongLink"), bytes(10 * 2**20)
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 200 * len(block)
    _write_gzip(folder / "a.tar", [_packed(info.tobuf()), *200 * [_packed(block)]])
    return folder


def make_npz(rng: Rng, folder: Path) -> Path:
    """A member of 3.2 GB that was never written: its header claims it, and zeros are packed as one long run."""
    header, path = io.BytesIO(), folder / "a.npz"
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (400 * 2**20,)})
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("seg.npy", "w") as file,
    ):
        file.write(header.getvalue())
        for _ in range(400):
            file.write(bytes(2**20))
    return path


def _repeated(levels: int) -> bytes:
    text = b"\x80\x04K\x01"
    for level in range(levels):
        text += b"\x940(" + 10 * (b"h" + bytes([level])) + b"l"
    return text + b"."


def _pickle(data: bytes) -> tuple[Any, Any]:
    return lambda rng, folder: data, lambda made: parse_pickle(made, where="data.pyd")


def _config(text: str) -> tuple[Any, Any]:
    def make(rng: Rng, folder: Path) -> Path:
        (folder / "run.yaml").write_text(text)
        return folder / "run.yaml"

    return make, Config.load


def make_wilor(rng: Rng, folder: Path) -> Path:
    torch.save({"state_dict": {"backbone.blocks.99999999.norm1.weight": torch.zeros(1)}}, folder / "w.ckpt")
    return folder / "w.ckpt"


def _stream(root: Path) -> None:
    for _ in open_source("tars", root).stream(seed=0, epoch=0, part=0, num_parts=1):
        pass


_ANCHORS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{y}: &{y} [{','.join([f'*{x}'] * 9)}]\n" for x, y in zip("abcdefghi", "bcdefghij", strict=True)
)

KINDS = {
    "bomb_png": (lambda rng, folder: _png(folder / "a.png", 30_000, 30_000, 2, 3), _read_both),
    "bomb_alpha": (lambda rng, folder: _png(folder / "a.png", 11_900, 9_900, 6, 4), _read_both),
    "bomb_tiff": (make_tiff, _read_both),
    "bomb_tar": (make_tar, _stream),
    "bomb_tar_many": (make_tar_of_many, _stream),
    "bomb_tar_name": (make_tar_of_a_long_name, _stream),
    "bomb_npz": (make_npz, lambda path: read_members(path, "seg")),
    "bomb_lists": _pickle(_repeated(7)),
    "bomb_deep_lists": _pickle(_repeated(60)),
    "bomb_hashes": _pickle(pickle.dumps({i * (2**61 - 1) + 1: 0 for i in range(40_000)}, 2)),
    "bomb_dicts": _pickle(b"\x80\x02" + b"}" * 40_000_000 + b"."),
    "bomb_marks": _pickle(b"\x80\x02" + b"(" * 40_000_000 + b"."),
    "bomb_anchors": _config(_ANCHORS + "seed: *j\n"),
    "bomb_keys": _config("".join(f"k{i}: 1\n" for i in range(30_000))),
    "bomb_nesting": _config("train: " + "[" * 100_000),
    "bomb_blocks": (make_wilor, import_wilor),
}
