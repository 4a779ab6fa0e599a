"""Images, npz and YAML of data sets, read so that a bad file becomes an InputError that names it."""

from __future__ import annotations

import zlib
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
import yaml

from utnet.errors import InputError
from utnet.io.png import decode_depth_png

_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster where it is there


def read_bytes(path: Path, remedy: str = "check the dataset's folder or extract it again") -> bytes:
    """The file's bytes, or InputError with the path and `remedy`."""
    try:
        with open(path, "rb", buffering=0) as file:  # half the time of `path.read_bytes()`
            return file.readall()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {remedy}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error


def read_image(path: Path, *, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decodes a JPEG or PNG as OpenCV does (colour: B, G, R).

    Raises:
        InputError: missing, cut off, or not an image.
    """
    return decode_image(read_bytes(path), where=str(path), flags=flags)


def decode_image(data: bytes, *, where: str, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """`read_image` of bytes in memory; `where` names them in messages.

    Decoders fill the rest of a file that was cut off with grey, so its end is looked for first.
    """
    if data[:2] == b"\xff\xd8":  # JPEG: an end-of-image marker after the last start-of-scan marker
        end = data.rfind(b"\xff\xd9")
        complete = end >= 0 and data.find(b"\xff\xda", end) < 0
    elif data[:4] == b"\x89PNG":
        complete = b"IEND" in data[-64:]
    else:
        complete = True
    if not complete:
        raise InputError(f"{where}: the image is cut off ({len(data)} bytes); extract or download the file again")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION) if data else None
    if image is None:
        raise InputError(f"{where}: not an image that OpenCV can read; extract or download the file again")
    return image


def decode_rgb(data: bytes, *, where: str) -> np.ndarray:
    """`decode_image` to (H, W, 3) uint8 in the order red, green, blue."""
    return decode_image(data, where=where, flags=cv2.IMREAD_COLOR_RGB)  # in that order at no cost: OpenCV >= 4.11


def read_rgb(path: Path, size_wh: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 in the order red, green, blue; InputError unless it is `size_wh` large."""
    image = decode_rgb(read_bytes(path), where=str(path))
    check_size(path, image, size_wh)
    return image


def read_depth_png(path: Path, unit_m: float, expected: str) -> np.ndarray:
    """(H, W) float32 metres of a 16-bit grey image whose unit is `unit_m`.

    Raises:
        InputError: missing, damaged, or other pixels than the `expected` ones (words for the message).
    """
    data = read_bytes(path)
    depth_m = decode_depth_png(data, unit_m)
    if depth_m is not None:
        return depth_m
    depth = decode_image(data, where=str(path), flags=cv2.IMREAD_UNCHANGED)
    if depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(f"{path}: {depth.dtype} with shape {depth.shape}; expected {expected}")
    return np.multiply(depth, np.float32(unit_m), dtype=np.float32)


def check_size(path: Path, image: np.ndarray, size_wh: tuple[int, int]) -> None:
    """InputError naming the file unless the image has the size that its labels were made for."""
    height, width = image.shape[:2]
    if (width, height) != tuple(size_wh):
        raise InputError(f"{path}: {width}x{height} pixels, expected {size_wh[0]}x{size_wh[1]} as the calibration says")


def read_npz(path: Path, *names: str) -> list[np.ndarray]:
    """Arrays of an npz file by name; nothing pickled is read.

    Raises:
        InputError: missing or damaged file, or a key that it lacks.
    """
    try:
        with np.load(path, allow_pickle=False) as data:
            return [data[name] for name in names]
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the dataset's folder or extract it again") from error
    except KeyError as error:
        raise InputError(f"{path}: {error.args[0]}; not a file of this dataset, or another version of it") from error
    except (OSError, ValueError, EOFError, RuntimeError, BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a readable npz file ({error}); extract or download the file again") from error


class _TupleLoader(_SAFE_LOADER):  # type: ignore[misc, valid-type]
    """Safe YAML that also knows the tuples in DexYCB's calibration; any other Python tag is refused."""


_TupleLoader.add_constructor(
    "tag:yaml.org,2002:python/tuple", lambda loader, node: tuple(loader.construct_sequence(node))
)


def read_yaml(path: Path, *names: str) -> dict:
    """A YAML mapping that has the keys `names`.

    Raises:
        InputError: missing file, not YAML, a tag that would build a Python object, or a missing key.
    """
    data = read_bytes(path)
    try:
        tree = yaml.load(data, Loader=_TupleLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a YAML file that can be read safely: {str(error).splitlines()[0]}") from error
    for name in names:
        if not isinstance(tree, dict) or name not in tree:
            raise InputError(f"{path}: has no key {name!r}; not a file of this dataset, or another version of it")
    return tree
