"""What a source of samples is, and the file reading that the readers share. Bad files become InputErrors here."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Protocol
from zipfile import BadZipFile

import cv2
import numpy as np
import yaml

from utnet.errors import InputError
from utnet.geometry import box_of, project
from utnet.types import Sample

DEPTH_FACTOR = 4.0
"""Depth at the joints this many times nearer or farther than the labels is another unit, not an occluder."""

_SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's is ten times faster where it is there

MIN_JOINT_Z_M = 0.01
"""A joint nearer to the camera plane than this is not an image point."""


class Source(Protocol):
    """Labelled hands, map-style: reading sample i touches only its own files, so that workers can share a source."""

    name: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def key(self, index: int) -> str:
        """The sample's key, without reading its files."""
        ...

    def sequence(self, index: int) -> str:
        """The recording that the sample belongs to, without reading its files."""
        ...


def evenly_spaced(num: int, limit: int | None) -> np.ndarray:
    """Indices of at most `limit` of `num` items, first and last included, in order."""
    if limit is not None and limit < 1:
        raise InputError(f"data.limit is {limit}; expected at least 1, or null for the whole split")
    if limit is None or limit >= num:
        return np.arange(num)
    return np.unique(np.rint(np.linspace(0, num - 1, limit)).astype(np.int64))


# --------------------------------------------------------------------------------------------------------------- files


def read_bytes(path: Path, remedy: str = "check the dataset's folder or extract it again") -> bytes:
    """The file's bytes, or InputError with the path and `remedy`."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; {remedy}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from error


def read_image(path: Path, *, flags: int = cv2.IMREAD_COLOR) -> np.ndarray:
    """Decodes a JPEG or PNG as OpenCV does (colour: B, G, R).

    Decoders fill the rest of a file that was cut off with grey, so its end is looked for first.

    Raises:
        InputError: missing, cut off, or not an image.
    """
    data = read_bytes(path)
    if data[:2] == b"\xff\xd8":  # JPEG: an end-of-image marker after the last start-of-scan marker
        complete = data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    elif data[:4] == b"\x89PNG":
        complete = b"IEND" in data[-64:]
    else:
        complete = True
    if not complete:
        raise InputError(f"{path}: the image is cut off ({len(data)} bytes); extract or download the file again")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION) if data else None
    if image is None:
        raise InputError(f"{path}: not an image that OpenCV can read; extract or download the file again")
    return image


def read_rgb(path: Path, size_wh: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 in the order red, green, blue; InputError unless it is `size_wh` large."""
    image = read_image(path)
    check_size(path, image, size_wh)
    return np.ascontiguousarray(image[..., ::-1])


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
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error) as error:
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


# -------------------------------------------------------------------------------------------------------------- labels


def ground_truth_box(
    joints_cam_m: np.ndarray, K_px: np.ndarray, size_wh: tuple[int, int], where: str = "labels"
) -> np.ndarray:
    """Tight box (x0, y0, x1, y1) of the projected joints that lie before the camera.

    This is the ground-truth-box protocol: crops of these sources do not depend on a detector. The box is clipped to
    the picture's edges, as a detector's would be, unless nothing would be left of it.
    """
    ahead = joints_cam_m[:, 2] > MIN_JOINT_Z_M
    if not ahead.any():
        raise InputError(f"{where}: every joint lies behind the camera; the labels are not of this layout")
    box = box_of(project(joints_cam_m[ahead], K_px))
    if not (box[2:] > box[:2]).all():
        raise InputError(f"{where}: all joints lie on one pixel; the labels are not of this layout")
    edge = np.array([size_wh[0] - 0.5, size_wh[1] - 0.5] * 2)
    clipped = np.clip(box, -0.5, edge)
    return clipped if (clipped[2:] - clipped[:2] >= 2.0).all() else box


def check_depth(sample: Sample, path: Path, expected: str) -> None:
    """Compares the depth at the joints with their labels, so that a wrong unit does not pass for a far-off hand.

    The medians over the joints inside the picture are compared; a few occluders or holes do not move them, and where
    fewer than a quarter of the joints have a reading nothing is said.

    Args:
        sample: a whole image with depth.
        path: the depth file, for the message.
        expected: the layout's encoding, for the message.

    Raises:
        InputError: the depth is `DEPTH_FACTOR` times too near or too far.
    """
    labelled = (sample.joints_3d_conf > 0) & (sample.joints_cam_m[:, 2] > MIN_JOINT_Z_M)
    joints = sample.joints_cam_m[labelled]
    if sample.depth_m is None or not len(joints):
        return
    x, y = np.rint(project(joints, sample.K_px)).T
    height, width = sample.depth_m.shape
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    read = sample.depth_m[y[inside].astype(int), x[inside].astype(int)]
    if np.count_nonzero(read) < max(1, len(joints) // 4):
        return
    seen, labelled_z = float(np.median(read[read > 0])), float(np.median(joints[inside][read > 0, 2]))
    if not labelled_z / DEPTH_FACTOR < seen < labelled_z * DEPTH_FACTOR:
        raise InputError(
            f"{path}: depth says that the hand is {seen:.3g} m away, the labels say {labelled_z:.3g} m; "
            f"expected {expected}: convert the file to that unit"
        )
