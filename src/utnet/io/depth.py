"""Depth images of sensors, in metres."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from utnet.errors import InputError
from utnet.io.limits import check_megapixels
from utnet.io.npy import map_npy
from utnet.io.npz import read_npz_all
from utnet.io.pictures import open_image

DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".exr", ".npy", ".npz")


def read_depth(path: str | Path, scale: float | None = None) -> np.ndarray:
    """(H, W) float32 metres along z, 0 where there is no reading.

    Args:
        path: a PNG or TIFF with one channel of 16 bits, a TIFF or EXR of floats, a .npy file, or an .npz with one array
            or one that is called depth. Values that are not finite are no readings.
        scale: metres per unit, for every format; None: integers are millimetres, floats metres.

    Raises:
        InputError: no such file, not a depth image, or a negative distance.
    """
    if scale is not None and not scale > 0:
        raise InputError(f"--depth-scale is {scale}; expected metres per unit, such as 0.001 for millimetres")
    stored = read_stored_depth(path)
    unit_m = scale if scale is not None else 0.001 if stored.dtype.kind in "iu" else 1.0
    depth = np.nan_to_num(stored.astype(np.float32) * np.float32(unit_m), nan=0.0, posinf=0.0, neginf=0.0)
    if (depth < 0).any():
        raise InputError(f"{path}: holds distances below 0; expected metres along the camera's axis, 0 for no reading")
    return depth


def read_stored_depth(path: str | Path) -> np.ndarray:
    """(H, W) numbers of a depth image as they are stored, integers or floats; errors as for `read_depth`."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        return _read_numpy(path)
    return _read_exr(path) if suffix == ".exr" else _read_image(path)


def _read_numpy(path: Path) -> np.ndarray:
    depth = map_npy(path) if path.suffix.lower() == ".npy" else _from_npz(path)  # the header alone
    if depth.ndim != 2 or depth.dtype.kind not in "fiu":
        raise InputError(f"{path}: expected one array of (H, W) numbers")
    check_megapixels(path, depth.shape[1], depth.shape[0])
    return np.array(depth)


def _from_npz(path: Path) -> np.ndarray:
    arrays = read_npz_all(path)
    names = [name for name in arrays if name.lower() == "depth"] or list(arrays)
    if len(names) != 1:
        raise InputError(f"{path}: holds {', '.join(names) or 'nothing'}; call the depth image depth")
    return arrays[names[0]]


def _read_image(path: Path) -> np.ndarray:
    with open_image(path) as image:
        if image.mode == "F":
            return np.array(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.int32)
        raise InputError(f"{path}: a picture of colours ({image.mode}); expected one channel of 16 bits, or floats")


def _read_exr(path: Path) -> np.ndarray:
    """The first channel: R or Y (Record3D and others repeat depth in R, G and B)."""
    import av  # most calls read no EXR
    from av.error import FFmpegError

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            check_megapixels(path, stream.width, stream.height)
            frame = next(container.decode(stream))
            check_megapixels(path, frame.width, frame.height)
            if frame.format.name.startswith("gray"):
                return frame.to_ndarray(format="grayf32le").astype(np.float32)
            return np.ascontiguousarray(frame.to_ndarray(format="gbrpf32le")[..., 0], np.float32)
    except InputError:
        raise
    except (FFmpegError, StopIteration, IndexError, AttributeError, ValueError) as error:
        raise InputError(f"{path}: not an EXR image that can be read ({error})") from error
