"""Camera intrinsics from the EXIF data of a photograph.

Rules, in order (Exif 2.32, CIPA DC-008; tag names as there):

1. `FocalLengthIn35mmFilm` f35: the angle of view over the diagonal is that of 36 x 24 mm film, so
   f = f35 * diagonal_px / 43.27. Digital zoom is assumed to be included, as phones write it (and exiftool reads it).
2. Otherwise `FocalLength` in mm and `FocalPlaneXResolution`, `FocalPlaneYResolution` in pixels per unit, scaled from
   the recorded size (`PixelXDimension`) to the size of the picture. Required, since the picture may have been resized.
   `DigitalZoomRatio` multiplies it.
3. The principal point, which EXIF does not contain, is the centre of the picture.

The result is None if the aspect ratio differs from the recorded one (the picture was cropped) or if the angle of view
is implausible.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import ExifTags, Image

from utnet.geometry import intrinsics

_FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
"""`FocalPlaneResolutionUnit`: inch (the default), cm, mm, um."""
_FOCAL_LIMITS = (0.3, 50.0)
"""Range of focal lengths in units of the longer side: angles of view from 118 degrees to 1."""
_ASPECT_TOLERANCE = 0.02


def exif_camera(exif: Image.Exif, stored_wh: tuple[int, int], upright_wh: tuple[int, int]) -> np.ndarray | None:
    """Intrinsics (3, 3) of the upright picture, or None if EXIF does not determine them.

    Args:
        exif: EXIF data of the file.
        stored_wh: width and height as stored.
        upright_wh: width and height after the orientation is applied.
    """
    tags = exif.get_ifd(ExifTags.IFD.Exif)
    written_wh = (_number(tags, "ExifImageWidth"), _number(tags, "ExifImageHeight"))
    if all(written_wh) and not _same_aspect(written_wh, stored_wh):
        return None
    focal_px = _from_film(tags, stored_wh) or _from_focal_plane(tags, stored_wh, written_wh)
    if focal_px is None or not all(_FOCAL_LIMITS[0] < f / max(stored_wh) < _FOCAL_LIMITS[1] for f in focal_px):
        return None
    if _turned(exif):
        focal_px = focal_px[::-1]
    width, height = upright_wh
    return intrinsics(*focal_px, (width - 1) / 2, (height - 1) / 2)


def _from_film(tags: dict, stored_wh: tuple[int, int]) -> tuple[float, float] | None:
    f35 = _number(tags, "FocalLengthIn35mmFilm")
    focal = f35 * math.hypot(*stored_wh) / _FILM_DIAGONAL_MM
    return (focal, focal) if focal else None


def _from_focal_plane(
    tags: dict, stored_wh: tuple[int, int], written_wh: tuple[float, float]
) -> tuple[float, float] | None:
    focal_mm = _number(tags, "FocalLength") * max(_number(tags, "DigitalZoomRatio"), 1.0)
    unit_mm = _UNIT_MM.get(int(_number(tags, "FocalPlaneResolutionUnit") or 2))
    per_unit = _number(tags, "FocalPlaneXResolution")
    per_unit_y = _number(tags, "FocalPlaneYResolution") or per_unit
    if not (focal_mm and per_unit and unit_mm and all(written_wh)):
        return None
    scale = [now / then for now, then in zip(stored_wh, written_wh, strict=True)]
    return focal_mm * per_unit / unit_mm * scale[0], focal_mm * per_unit_y / unit_mm * scale[1]


def _same_aspect(written_wh: tuple[float, float], stored_wh: tuple[int, int]) -> bool:
    """Compares aspect ratios; width and height may be swapped, as editors that rotate a picture leave them."""
    written, stored = written_wh[0] / written_wh[1], stored_wh[0] / stored_wh[1]
    return any(abs(ratio - 1) < _ASPECT_TOLERANCE for ratio in (written / stored, 1 / written / stored))


def _turned(exif: Image.Exif) -> bool:
    """Whether the picture is rotated by 90 degrees either way (orientations 5 to 8)."""
    return int(_number(exif, "Orientation")) in (5, 6, 7, 8)


def _number(tags, name: str) -> float:
    """Value of a tag; 0 if it is missing or not a positive finite number (cameras write such values for unknown)."""
    try:
        value = float(tags.get(int(ExifTags.Base[name]), 0))
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return value if math.isfinite(value) and value > 0 else 0.0
