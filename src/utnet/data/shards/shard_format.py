"""Encoding of one sample as tar members of a shard, and decoding.

Members of sample KEY (a number of eight digits): `KEY.jpg` the picture, `KEY.json` the labels, and optionally
`KEY.depth` (below), `KEY.mask.png` (hand 255) and `KEY.vertices.npy` (float32, metres, camera frame).

The JSON contains every field of `Sample` by name; NaN is null. Depth is lossless in its unit (1 mm by default). It is
stored as differences to the pixel above, most of which fit a byte: half the size of raw uint16. A PNG of level 1 is at
most a third smaller and takes 40 times as long (a noisy 440 px square: 1.8 ms against 0.04 ms).
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping

import cv2
import numba
import numpy as np

from utnet.errors import BAD_TREE, InputError, shown
from utnet.io.files import decode_image, decode_rgb
from utnet.io.npy import parse_npy
from utnet.types import HandParams, Sample

SAMPLE_FORMAT = "utnet-sample-1"
"""Value of "format" in the JSON of a sample, which distinguishes shards from other tars."""

MEMBERS = ("jpg", "json", "depth", "mask.png", "vertices.npy")
"""Endings of a sample's members, in the order in which they are stored."""

_DEPTH_HEADER = struct.Struct("<4sIIfI")
"""Magic, height, width, metres per unit, number of pixels whose difference does not fit a byte."""
_DEPTH_MAGIC = b"UTD1"
_DAMAGED = "get the shard again, or write the set again"


def encode_sample(sample: Sample, *, tips: str, jpeg_quality: int, depth_unit_m: float) -> dict[str, bytes]:
    """The members of a sample, by ending, in the order of `MEMBERS`.

    Args:
        sample: to be stored unchanged.
        tips: fingertip vertices of its source (`conventions.MANO_TIP_VERTICES`).
        jpeg_quality: 0-100.
        depth_unit_m: unit to which depth is rounded; 65,535 units or more become 0 (no reading).
    """
    members = {
        "jpg": _encode_image(".jpg", sample.rgb[..., ::-1], cv2.IMWRITE_JPEG_QUALITY, jpeg_quality),
        "json": b"",  # keeps its place
    }
    if sample.depth_m is not None:
        members["depth"] = encode_depth(sample.depth_m, depth_unit_m)
    if sample.hand_mask is not None:
        members["mask.png"] = _encode_image(".png", sample.hand_mask.astype(np.uint8) * 255)
    if sample.vertices_cam_m is not None:
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(sample.vertices_cam_m, np.float32), allow_pickle=False)
        members["vertices.npy"] = buffer.getvalue()
    labels = {**_labels(sample, tips), "members": list(members)}
    members["json"] = json.dumps(labels, separators=(",", ":"), allow_nan=False).encode()
    return members


def decode_sample(members: Mapping[str, bytes], *, where: str, with_depth: bool = True) -> Sample:
    """Inverse of `encode_sample`, up to JPEG's loss.

    Args:
        members: by ending.
        where: shard and sample, for messages.
        with_depth: False skips depth.

    Raises:
        InputError: a member that is missing, damaged or of another size.
    """
    tree = read_labels(members.get("json", b""), where)
    listed = tree.get("members")
    if not isinstance(listed, list):
        raise InputError(f"{where}: members is {shown(listed)}, not a list; {_DAMAGED}")
    missing = {"jpg", *map(str, listed)} - members.keys()
    if missing:
        raise InputError(f"{where}: has no {', '.join(sorted(missing))}; {_DAMAGED}")
    rgb = decode_rgb(members["jpg"], where=f"{where}.jpg")
    if tree.get("size_wh") != [rgb.shape[1], rgb.shape[0]]:
        raise InputError(f"{where}.jpg: {rgb.shape[1]}x{rgb.shape[0]} pixels, not the size in the labels; {_DAMAGED}")
    try:
        params = tree["params"]
        return Sample(
            key=tree["key"],
            rgb=rgb,
            K_px=_array(tree["K_px"]),
            side=tree["side"],
            box_px=np.array(tree["box_px"], np.float64),
            joints_cam_m=np.array(tree["joints_cam_m"], np.float64),
            joints_2d_conf=np.array(tree["joints_2d_conf"], np.float32),
            joints_3d_conf=np.array(tree["joints_3d_conf"], np.float32),
            depth_m=decode_depth(members["depth"], f"{where}.depth") if with_depth and "depth" in members else None,
            params=None if params is None else HandParams(**{name: _array(params[name]) for name in _PARAMS}),
            betas_ok=tree["betas_ok"],
            hand_model=tree["hand_model"],
            sequence=tree["sequence"],
            joints_px=_array(tree["joints_px"]),
            vertices_cam_m=_decode_vertices(members.get("vertices.npy"), where),
            hand_mask=_decode_mask(members.get("mask.png"), where),
        )
    except InputError:
        raise
    except (EOFError, *BAD_TREE) as error:
        detail = str(error)[:200]
        raise InputError(f"{where}: labels and members do not make a sample ({detail}); {_DAMAGED}") from error


def read_labels(data: bytes, where: str) -> dict:
    """The JSON of a sample; InputError if it is not of this format."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}.json: missing or not JSON ({error}); {_DAMAGED}") from error
    if not isinstance(tree, dict) or tree.get("format") != SAMPLE_FORMAT:
        raise InputError(f"{where}.json: not a sample that this version reads ({SAMPLE_FORMAT})")
    return tree


# --------------------------------------------------------------------------------------------------------------- labels

_PARAMS = ("global_orient", "hand_pose", "betas", "transl_m")


def _labels(sample: Sample, tips: str) -> dict:
    params = sample.params
    return {
        "format": SAMPLE_FORMAT,
        "key": sample.key,
        "side": sample.side,
        "sequence": sample.sequence,
        "hand_model": sample.hand_model,
        "tips": tips,
        "betas_ok": bool(sample.betas_ok),
        "size_wh": [sample.rgb.shape[1], sample.rgb.shape[0]],
        "K_px": _numbers(sample.K_px),
        "box_px": _numbers(sample.box_px),
        "joints_cam_m": _numbers(sample.joints_cam_m),
        "joints_2d_conf": _numbers(sample.joints_2d_conf),
        "joints_3d_conf": _numbers(sample.joints_3d_conf),
        "joints_px": _numbers(sample.joints_px),
        "params": None if params is None else {name: _numbers(getattr(params, name)) for name in _PARAMS},
    }


def _numbers(array: np.ndarray | None) -> list | None:
    """Nested lists of nine digits (all that float32 holds; of a metre, a nanometre); not finite: null."""
    if array is None:
        return None
    flat = [float(f"{value:.9g}") if np.isfinite(value) else None for value in np.ravel(array).tolist()]
    return np.array(flat, object).reshape(np.shape(array)).tolist()


def _array(tree: list | None) -> np.ndarray | None:
    """Nested lists to float64, null to NaN."""
    return None if tree is None else np.array(tree, np.float64)


def _encode_image(suffix: str, image: np.ndarray, *options: int) -> bytes:
    ok, data = cv2.imencode(suffix, np.ascontiguousarray(image), list(options))
    if not ok:
        raise RuntimeError(f"OpenCV cannot encode {image.dtype} {image.shape} as {suffix}")
    return data.tobytes()


def _decode_mask(data: bytes | None, where: str) -> np.ndarray | None:
    if data is None:
        return None
    return decode_image(data, where=f"{where}.mask.png", flags=cv2.IMREAD_GRAYSCALE) > 127


def _decode_vertices(data: bytes | None, where: str) -> np.ndarray | None:
    return None if data is None else parse_npy(data, where=f"{where}.vertices.npy")


# ---------------------------------------------------------------------------------------------------------------- depth


def encode_depth(depth_m: np.ndarray, unit_m: float) -> bytes:
    """(H, W) metres -> header, first row (uint16), the exceptions' places (uint32 from row 1 on) and differences
    (uint16), differences of every other pixel to the one above (int8); little-endian, differences modulo 65536."""
    units = np.rint(np.asarray(depth_m, np.float64) / np.float64(unit_m))
    units = np.where((units > 0) & (units <= 65535), units, 0).astype(np.int32)
    steps = np.diff(units, axis=0).ravel()
    places = np.flatnonzero((steps < -128) | (steps > 127))
    exceptions = steps[places].astype(np.uint16)
    steps[places] = 0
    header = _DEPTH_HEADER.pack(_DEPTH_MAGIC, *units.shape, unit_m, len(places))
    parts = (units[0].astype("<u2"), places.astype("<u4"), exceptions.astype("<u2"), steps.astype(np.int8))
    return header + b"".join(part.tobytes() for part in parts)


def decode_depth(data: bytes, where: str) -> np.ndarray:
    """(H, W) float32 metres; InputError where the bytes are not what `encode_depth` wrote."""
    if len(data) < _DEPTH_HEADER.size or data[:4] != _DEPTH_MAGIC:
        raise InputError(f"{where}: not depth of this format; {_DAMAGED}")
    _, height, width, unit_m, num = _DEPTH_HEADER.unpack_from(data)
    first, places = _DEPTH_HEADER.size, _DEPTH_HEADER.size + 2 * width
    exceptions = places + 4 * num
    steps = exceptions + 2 * num
    if not 0 < unit_m < 1:
        raise InputError(f"{where}: depth in steps of {unit_m} m; {_DAMAGED}")
    if height < 1 or len(data) != steps + (height - 1) * width:
        raise InputError(f"{where}: {len(data)} bytes do not make {width}x{height} pixels; {_DAMAGED}")
    units = np.empty((height, width), np.uint16)
    units[0] = np.frombuffer(data, "<u2", width, first)
    rest = units[1:].reshape(-1)
    rest[:] = np.frombuffer(data, np.int8, (height - 1) * width, steps)
    if num:
        index = np.frombuffer(data, "<u4", num, places)
        if index.max() >= len(rest):
            raise InputError(f"{where}: names pixels outside the picture; {_DAMAGED}")
        rest[index] = np.frombuffer(data, "<u2", num, exceptions)
    depth_m = np.empty((height, width), np.float32)
    _add_up(units, np.float32(unit_m), depth_m)
    return depth_m


@numba.njit(cache=True)
def _add_up(units, unit_m, depth_m):
    """Running sums down the columns (uint16, which wraps round as the differences do), in metres."""
    height, width = units.shape
    for x in range(width):
        depth_m[0, x] = np.float32(units[0, x]) * unit_m
    for y in range(1, height):
        for x in range(width):
            value = np.uint16(units[y, x] + units[y - 1, x])
            units[y, x] = value
            depth_m[y, x] = np.float32(value) * unit_m
