"""Reading of pictures: orientation, grey, transparency, 16 bits, CMYK, damage, limits of size."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError, features
from PIL.ExifTags import Base

from utnet.errors import InputError
from utnet.io.atomic import check_stand_in
from utnet.io.deep import is_deep, read_deep, to_8_bits
from utnet.io.exif import exif_camera
from utnet.io.jpeg import decode_jpeg
from utnet.io.kinds import is_camera_raw, picture_format
from utnet.io.limits import MAX_MEGAPIXELS, check_megapixels

PICTURE_SUFFIXES = (
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".heic", ".heif", ".avif",
)  # fmt: skip
"""Suffixes of pictures in folders. The format is detected by content (`io.kinds`)."""

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
"""Pillow's names of the decoders that may run, beside pi-heif's."""

_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda rgb: cv2.flip(rgb, 1),
    3: lambda rgb: cv2.rotate(rgb, cv2.ROTATE_180),
    4: lambda rgb: cv2.flip(rgb, 0),
    5: cv2.transpose,
    6: lambda rgb: cv2.rotate(rgb, cv2.ROTATE_90_CLOCKWISE),
    7: lambda rgb: cv2.rotate(cv2.transpose(rgb), cv2.ROTATE_180),
    8: lambda rgb: cv2.rotate(rgb, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""Transformation of stored pixels to an upright picture, by EXIF orientation."""

_STRIPE = 256  # rows

_OPENING = threading.Lock()
"""`warnings.catch_warnings` is not thread-safe."""


@dataclass(frozen=True)
class Picture:
    """An upright picture.

    Attributes:
        rgb: (H, W, 3) uint8, upright.
        K_px: (3, 3) intrinsics of the upright picture from its EXIF data, or None (`io.exif`).
        turned: whether the stored pixels were rotated or mirrored by the EXIF orientation.
    """

    rgb: np.ndarray
    K_px: np.ndarray | None
    turned: bool = False


def read_picture(path: str | Path) -> Picture:
    """Reads the first picture of a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or (with the extra `heif`) HEIC file.

    Its EXIF orientation is applied. Grey, palettes and CMYK are converted to RGB, transparency is blended with
    white, and 10 to 16 bits per channel and floats are scaled to 8 bits. Colour profiles are not applied.

    Raises:
        InputError: missing, empty or truncated file, no picture, more than `MAX_MEGAPIXELS` (checked before decoding),
            values that are not colours, a camera raw file, or HEIC without the extra.
    """
    path = Path(path)
    _check_file(path)
    if is_deep(path):
        return _read_deep(path)
    picture = _read_jpeg(path)
    if picture is not None:
        return picture
    with open_image(path) as image:
        return picture_from_pil(image, path)


def picture_from_pil(image: Image.Image, name: str | Path = "the picture") -> Picture:
    """Returns a Pillow image as `read_picture` returns a file.

    Args:
        image: of any mode that holds colours.
        name: for messages.

    Raises:
        InputError: more than `MAX_MEGAPIXELS`, or values that are not colours.
    """
    check_megapixels(name, *image.size)
    return _upright(_as_rgb(name, image), image.getexif())


def _upright(rgb: np.ndarray, exif: Image.Exif) -> Picture:
    """A picture as stored, turned by its EXIF orientation, with its camera."""
    height, width = rgb.shape[:2]
    orientation = exif.get(Base.Orientation, 1)
    if orientation in _UPRIGHT:
        rgb = _UPRIGHT[orientation](rgb)
    return Picture(rgb, exif_camera(exif, (width, height), rgb.shape[1::-1]), orientation not in (0, 1))


def _read_jpeg(path: Path) -> Picture | None:
    """Reads a grey or colour JPEG file by OpenCV; None for other and damaged files (Pillow raises their errors)."""
    if picture_format(path) != "JPEG":
        return None
    with suppress(OSError, SyntaxError, ValueError), _open(path) as header:
        check_megapixels(path, *header.size)
        rgb = decode_jpeg(path.read_bytes()) if header.mode in ("L", "RGB") else None
        if rgb is not None and rgb.shape[1::-1] == header.size:
            return _upright(rgb, header.getexif())
    return None


def _read_deep(path: Path) -> Picture:
    orientation = 1
    with suppress(UnidentifiedImageError, OSError), _open(path, must=False) as header:
        check_megapixels(path, *header.size)
        orientation = header.getexif().get(Base.Orientation, 1)
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    return _upright(read_deep(path), exif)


def picture_size(path: str | Path) -> tuple[int, int]:
    """Width and height of the upright picture, from the header; InputError as `read_picture`'s, OSError for damage."""
    path = Path(path)
    _check_file(path)
    with _open(path) as image:
        sideways = image.getexif().get(Base.Orientation, 1) in (5, 6, 7, 8)
        return image.size[::-1] if sideways else image.size


def is_animation(path: Path) -> bool:
    """Whether a GIF has several frames and is therefore read as a video."""
    try:
        with _open(path) as image:
            return image.format == "GIF" and getattr(image, "n_frames", 1) > 1
    except (InputError, OSError, SyntaxError, ValueError, EOFError):
        return False


def is_depth_image(path: Path) -> bool:
    """Whether a PNG or TIFF holds one channel of 16 bits, as depth images do, by its header."""
    try:
        with _open(path) as image:
            return image.mode == "I" or image.mode.startswith("I;16")
    except (InputError, OSError, SyntaxError, ValueError):
        return False


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """Context with the decoded first image of a file; errors as for `read_picture`."""
    try:
        _check_file(path)
        with _open(path) as image:
            check_megapixels(path, *image.size)
            image.load()
            yield image
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read it; change its permissions") from error
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, RuntimeError) as error:  # Pillow's for damaged content
        raise InputError(f"{path}: damaged or cut short ({error}); copy it again") from error


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: {'a folder, not a picture' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy it again")
    if is_camera_raw(path):
        raise InputError(f"{path}: a camera's raw file; develop it to JPEG first")


def _open(path: Path, *, must: bool = True) -> Image.Image:
    """Opens a file by its header; if not `must`, other files raise UnidentifiedImageError instead of InputError.

    Pillow's own limit is replaced by `MAX_MEGAPIXELS`, whose message names the remedy.
    """
    kind = picture_format(path)
    if kind == "HEIF":
        _register_heif(path)
    if kind == "AVIF" and not features.check("avif"):
        raise InputError(f"{path}: this Pillow has no AVIF decoder; pip install -U pillow, or save it as JPEG")
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=("HEIF",) if kind == "HEIF" else _FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path}: {str(error).split(' exceeds')[0].lower()}; at most {MAX_MEGAPIXELS} megapixels are read; "
            "make it smaller first"
        ) from error
    except RuntimeError as error:  # of the AVIF decoder
        raise InputError(f"{path}: a damaged {kind} picture; copy it again") from error
    except UnidentifiedImageError as error:
        if not must:
            raise
        if kind is not None:
            raise InputError(f"{path}: a damaged {kind} picture; copy it again") from error
        check_stand_in(path)
        raise InputError(
            f"{path}: not a picture (JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC or AVIF); save it as JPEG"
        ) from error


def _register_heif(path: Path) -> None:
    """Registers HEIC with Pillow."""
    try:
        import pi_heif
    except ImportError as error:
        raise InputError(f"{path}: a HEIC picture; pip install 'utnet[heif]' to read it, or save it as JPEG") from error
    pi_heif.register_heif_opener(thumbnails=False)


def _as_rgb(path: str | Path, image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of any of Pillow's modes that is a picture."""
    if image.mode == "F" and np.max(np.asarray(image)) > 1.001:
        raise InputError(f"{path}: one channel of floats above 1, not colours; give depth by --depth")
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):  # Pillow clips these where it should scale them
        return np.repeat(to_8_bits(Path(path), np.asarray(image))[..., None], 3, 2)
    if image.has_transparency_data:
        return _on_white(image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _on_white(image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of a picture with transparency, converted in stripes to save half a gigabyte."""
    width, height = image.size
    out = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIPE):
        part = image.crop((0, top, width, min(top + _STRIPE, height))).convert("RGBA")
        blended = Image.alpha_composite(Image.new("RGBA", part.size, "white"), part)
        out[top : top + _STRIPE] = np.asarray(blended.convert("RGB"))
    return out
