"""What a user gave that the pictures contradict: said on stderr, and done all the same."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utnet.detect import HandDetector
from utnet.errors import InputError
from utnet.io.pictures import picture_size, read_picture
from utnet.predict.inputs import Input

_WIDE, _NARROW = 0.3, 20.0
"""Focal lengths in longer sides of the picture: views of 118 degrees and of 3."""
_REFUSED = (0.1, 200.0)
"""Beyond these the camera is refused (`predict.checks`)."""
_OTHER_SIZE = 1.15
"""Principal points off the middle by this factor, the same in x and y, are rather those of another resolution."""
_PANORAMA = 3.0
"""Longer over shorter side from which a picture is rather several pictures side by side."""
_SURE = 0.8


def camera_doubts(inputs: Sequence[Input], K_px: np.ndarray | None) -> list[str]:
    """What speaks against a camera of the pictures, given (3, 3) or, without one, guessed; by the pictures' sizes."""
    sizes: dict[tuple[int, int], str] = {}
    for item in inputs:
        if item.kind == "picture":
            try:
                sizes.setdefault(picture_size(str(item.source)), item.label)
            except (InputError, OSError, SyntaxError, ValueError):  # named when it is read
                continue
    lines = [
        f"{label}: {size[0]} x {size[1]} px is a panorama: hands may be missed, distances are rough; cut it in parts"
        for size, label in sizes.items()
        if max(size) > _PANORAMA * min(size)
    ]
    if K_px is None:
        return lines
    if len(sizes) > 1:
        listed = ", ".join(f"{width} x {height}" for width, height in list(sizes)[:3])
        lines.append(f"--K is used for pictures of {len(sizes)} sizes ({listed}), and belongs to one of them at most")
    for size, label in sizes.items():
        lines += [f"{label}: {text}" for text in _camera_doubts(K_px, size)]
    return lines


def _camera_doubts(K_px: np.ndarray, size_wh: tuple[int, int]) -> list[str]:
    (width, height), (fx, cx, cy) = size_wh, (K_px[0, 0], K_px[0, 2], K_px[1, 2])
    across, down = (2 * cx + 1) / width, (2 * cy + 1) / height
    if abs(across - down) < 0.05 * down and not 1 / _OTHER_SIZE < across < _OTHER_SIZE:
        return [
            f"the centre {cx:g}, {cy:g} of --K is that of a picture of {2 * cx + 1:.0f} x {2 * cy + 1:.0f} px, and "
            f"this one has {width} x {height}; if so, multiply K by {1 / across:.4g}"
        ]
    if not (-0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5):
        return [f"the centre {cx:g}, {cy:g} of --K lies outside the {width} x {height} px; is it of this picture?"]
    share = fx / max(size_wh)
    if _REFUSED[0] < share < _WIDE or _NARROW < share < _REFUSED[1]:
        degrees = 2 * np.degrees(np.arctan(0.5 / share))
        return [f"--K says a field of view of {degrees:.0f} degrees; is it of this picture's size, in pixels?"]
    return []


def side_doubts(
    detector: HandDetector, item: Input, boxes: Sequence[Sequence[float]], sides: Sequence[str]
) -> list[str]:
    """Which boxes of a picture rather hold the other hand than the user says."""
    found = detector.in_boxes(read_picture(str(item.source)).rgb, boxes)
    return [
        f"box {number}: looks like a {hand.side} hand, not a {side} one; is --side in the order of the boxes?"
        for number, (hand, side) in enumerate(zip(found, sides, strict=True), start=1)
        if hand.side != side and hand.side_probability > _SURE
    ]
