"""Warnings about options of `utnet predict` that are implausible for the pictures. The options are used anyway."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utnet.detect import HandDetector
from utnet.io.pictures import picture_size, read_picture
from utnet.predict.inputs import Input

_WIDE, _NARROW = 0.3, 20.0
"""Plausible focal lengths as multiples of the longer side: fields of view of 118 and 3 degrees."""
_REFUSED = (0.1, 200.0)
"""Beyond these the camera is refused (`predict.checks`)."""
_OTHER_SIZE = 1.15
"""Factor of the principal point to the centre, equal in x and y, above which it belongs to another resolution."""
_PANORAMA = 3.0
"""Ratio of the sides from which a picture is a panorama."""
_SURE = 0.8


def camera_warnings(inputs: Sequence[Input], K_px: np.ndarray | None) -> list[str]:
    """Warnings about panoramas, and about intrinsics that do not match the sizes of pictures and videos.

    Args:
        inputs: of the call.
        K_px: (3, 3) intrinsics given by the user, or None. Videos are opened only to compare them with it.
    """
    sizes: dict[tuple[int, int], str] = {}
    for item in inputs:
        if item.kind == "picture" or (item.kind == "video" and K_px is not None):
            try:
                sizes.setdefault(_size(item), item.label)
            except Exception:  # reported when the input is read
                continue
    lines = [
        f"{label}: {size[0]} x {size[1]} px is a panorama: hands may be missed, distances are rough; cut it into parts"
        for size, label in sizes.items()
        if max(size) > _PANORAMA * min(size)
    ]
    if K_px is None:
        return lines
    if len(sizes) > 1:
        listed = ", ".join(f"{width} x {height}" for width, height in list(sizes)[:3])
        lines.append(f"--K is used for inputs of {len(sizes)} sizes ({listed}), but fits one size only; run each alone")
    for size, label in sizes.items():
        lines += [f"{label}: {text}" for text in _camera_faults(K_px, size)]
    return lines


def _size(item: Input) -> tuple[int, int]:
    """Width and height, upright."""
    if item.kind == "picture":
        return picture_size(str(item.source))
    from utnet.io.videos import VideoReader

    with VideoReader(item.source) as reader:
        height, width = next(iter(reader)).rgb.shape[:2]
    return width, height


def _camera_faults(K_px: np.ndarray, size_wh: tuple[int, int]) -> list[str]:
    (width, height), (fx, cx, cy) = size_wh, (K_px[0, 0], K_px[0, 2], K_px[1, 2])
    across, down = (2 * cx + 1) / width, (2 * cy + 1) / height
    if abs(across - down) < 0.05 * down and not 1 / _OTHER_SIZE < across < _OTHER_SIZE:
        return [
            f"the centre {cx:g}, {cy:g} of --K belongs to {2 * cx + 1:.0f} x {2 * cy + 1:.0f} px, but this picture "
            f"has {width} x {height}; if it was calibrated at that size, multiply all four numbers by {1 / across:.4g}"
        ]
    if not (-0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5):
        return [f"the centre {cx:g}, {cy:g} of --K lies outside the {width} x {height} px; give K of this size"]
    share = fx / max(size_wh)
    if _REFUSED[0] < share < _WIDE or _NARROW < share < _REFUSED[1]:
        degrees = 2 * np.degrees(np.arctan(0.5 / share))
        return [f"--K implies a field of view of {degrees:.0f} degrees; give the focal length in pixels of this size"]
    return []


def side_warnings(
    detector: HandDetector, item: Input, boxes: Sequence[Sequence[float]], sides: Sequence[str]
) -> list[str]:
    """Warnings about boxes whose predicted side differs from their `--side`."""
    found = detector.in_boxes(read_picture(str(item.source)).rgb, boxes)
    return [
        f"box {number}: looks like a {hand.side} hand, not a {side} one; check --side, and whose hand it is"
        for number, (hand, side) in enumerate(zip(found, sides, strict=True), start=1)
        if hand.side != side and hand.side_probability > _SURE
    ]
