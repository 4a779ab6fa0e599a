"""Checks of hands that go into a submission or come out of one, a hand at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch

from utnet.errors import InputError
from utnet.types import Array

Convert: TypeAlias = Callable[[np.ndarray], np.ndarray]

_SPAN_M = (0.03, 1.0)
"""The longer side of the median hand's bounding box: a fist is 0.08 m, a flat hand 0.2 m. Millimetres are far off."""


def as_float64(values: Array) -> np.ndarray:
    """One hand as float64 numpy; tensors come to the CPU. TypeError or ValueError where it is no array of numbers."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, np.float64)


class HandCheck:
    """Sees every hand of one kind and refuses what a server refuses or what cannot be meant.

    Args:
        where: file, for messages.
        what: "joints" or "vertices".
        num_points: of a hand.
        per_metre: units of the numbers in a metre, 1 or 1000.
        away: sign of z before the camera: 1 in OpenCV's axes, -1 in OpenGL's.
        zeros_ok: hands may all be zeros: benchmarks take that for "no mesh".
    """

    def __init__(
        self, where: object, what: str, *, num_points: int, per_metre: float, away: int, zeros_ok: bool = False
    ):
        self.where, self.what, self.num_points = where, what, num_points
        self.per_metre, self.away, self.zeros_ok = per_metre, away, zeros_ok
        self.num_zero = 0
        self._spans: list[float] = []

    def __len__(self) -> int:
        return len(self._spans)

    def see(self, hand: Array, name: object = None, *, convert: Convert | None = None) -> np.ndarray:
        """The hand as (num_points, 3) float64 after `convert`; InputError that names it where it is not acceptable.

        Args:
            hand: (num_points, 3).
            name: what to call it; None counts from 0.
            convert: from the caller's conventions to the file's, which are the ones checked.
        """
        where = f"{self.where}: {self.what} of sample {len(self) if name is None else name}"
        try:
            points = as_float64(hand)
        except (TypeError, ValueError) as error:
            raise InputError(f"{where} are no array of numbers ({error}); write the file again") from error
        if points.shape != (self.num_points, 3):
            raise InputError(
                f"{where} have shape {points.shape}, the benchmark expects ({self.num_points}, 3)"
                + ("; only a MANO mesh has scores there" if self.what == "vertices" else "")
            )
        if convert is not None:
            points = convert(points)
        if not np.isfinite(points).all():
            raise InputError(f"{where} are NaN or inf; predict that sample again")
        if (points[:, 2] * self.away < 0).all():
            axes = "OpenCV's axes (y down, z forward)" if self.away > 0 else "OpenGL's axes (y up, z backwards)"
            raise InputError(f"{where} lie behind the camera, the benchmark uses {axes}; turn y and z")
        span = float(np.ptp(points, axis=0).max())
        self.num_zero += not points.any()
        self._spans.append(span)
        return points

    def finish(self, num: int | None) -> None:
        """After the last hand: their number (None: any but 0), and their size."""
        if len(self) != num and (num is not None or not len(self)):
            wanted = "at least one" if num is None else str(num)
            raise InputError(f"{self.where}: {self.what} of {len(self)} samples, expected {wanted}; predict the split")
        if self.zeros_ok and self.num_zero == len(self):
            return
        span, (low, high) = float(np.median(self._spans)), _SPAN_M
        if not low <= span / self.per_metre <= high:
            unit = "metres" if self.per_metre == 1 else "millimetres"
            raise InputError(
                f"{self.where}: the median hand ({self.what}) is {span:g} {unit} long, a hand is 0.05 to 0.3 metres; "
                f"the benchmark expects {unit}"
            )
