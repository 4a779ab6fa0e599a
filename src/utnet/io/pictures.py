"""Pictures as users have them: turned, grey, transparent, 16-bit, printed in CMYK, damaged, far too large."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base

from utnet.errors import InputError
from utnet.io.exif import exif_camera

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""Names by which a folder's pictures are known. What a file is, its content says."""

MAX_MEGAPIXELS = 120
"""Telephones take 108. A picture of 120 needs about a gigabyte while it is decoded."""

_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
"""Pillow's names of the decoders that may run."""
Image.init()  # or it knows only some of them

_OPENING = threading.Lock()
"""`warnings.catch_warnings` is not safe beside other threads."""


@dataclass(frozen=True)
class Picture:
    """A picture as it is meant to be seen.

    Attributes:
        rgb: (H, W, 3) uint8, upright.
        K_px: (3, 3) intrinsics that its EXIF data tell, of the upright picture, or None (`media.exif`).
        turned: its EXIF data say that the stored pixels lie on their side, upside down or mirrored; `rgb` does not.
    """

    rgb: np.ndarray
    K_px: np.ndarray | None
    turned: bool = False


def read_picture(path: str | Path) -> Picture:
    """The first picture of a JPEG, PNG, WebP, TIFF or BMP file.

    It is turned as its EXIF orientation says. Grey becomes RGB, palettes and CMYK are converted, what is transparent
    stands on white, 16 bits a channel become their upper 8. Colour profiles are not applied.

    Raises:
        InputError: no such file, an empty one, no picture, one that is cut short, of more than `MAX_MEGAPIXELS` (which
            its header tells, before anything is decoded) or of numbers that are no colours (32-bit, float).
    """
    path = Path(path)
    with open_image(path) as image:
        upright = ImageOps.exif_transpose(image)
        turned = image.getexif().get(Base.Orientation, 1) not in (0, 1)
        return Picture(_as_rgb(path, upright), exif_camera(image.getexif(), image.size, upright.size), turned)


@contextmanager
def open_image(path: Path) -> Iterator[Image.Image]:
    """The decoded first image of a file, for the block; errors as `read_picture` says."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: {'a folder, not a picture' if path.is_dir() else 'no such file'}")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes); copy it again")
        with _open(path) as image:
            check_megapixels(path, *image.size)
            image.load()
            yield image
    except PermissionError as error:
        raise InputError(f"{path}: may not be read; change its permissions") from error
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # what Pillow raises for damaged content
        raise InputError(f"{path}: damaged or cut short ({error}); copy it again") from error


def check_megapixels(path: Path, width: int, height: int, *, most: float = MAX_MEGAPIXELS) -> None:
    """InputError for a picture, or frames of a video, too large to decode."""
    if width * height > most * 1e6:
        raise InputError(
            f"{path}: {width} x {height} px are {width * height / 1e6:.0f} megapixels, the most are {most}; "
            "make it smaller first"
        )


def _open(path: Path) -> Image.Image:
    """The file's header. Pillow's own limit is replaced by `MAX_MEGAPIXELS`, whose message names the remedy."""
    try:
        with _OPENING, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(path, formats=_FORMATS)
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{path}: {str(error).split(' exceeds')[0].lower()}, the most are {MAX_MEGAPIXELS} megapixels; "
            "make it smaller first"
        ) from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a picture (JPEG, PNG, WebP, TIFF or BMP)") from error


def _as_rgb(path: Path, image: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 of any of Pillow's modes that is a picture."""
    if image.mode == "F" or (image.mode == "I" and np.max(np.asarray(image)) > 65535):
        raise InputError(f"{path}: holds numbers of 32 bits, not colours; save the picture with 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):  # Pillow clips these where it should scale them
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], 3, 2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))
