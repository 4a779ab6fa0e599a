"""Checks of the hands in a submission, one hand at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch

from utnet.errors import InputError
from utnet.types import Array

Convert: TypeAlias = Callable[[np.ndarray], np.ndarray]

_SPAN_M = (0.03, 1.0)
"""Range of the longest side of the median hand's bounding box (fist 0.08 m, flat hand 0.2 m), to detect wrong units."""


def as_float64(values: Array) -> np.ndarray:
    """Converts a hand to float64 numpy. Raises TypeError or ValueError if it is not an array of numbers."""
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    return np.asarray(values, np.float64)


class HandCheck:
    """Checks hands in sequence and raises InputError for those that a server would reject or that are implausible.

    Args:
        where: file, for messages.
        what: "joints" or "vertices".
        num_points: number of points per hand.
        per_metre: units per metre, 1 or 1000.
        away: sign of z in front of the camera: 1 in OpenCV's axes, -1 in OpenGL's.
        zeros_ok: hands may be all zeros ("no mesh" in benchmarks).
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
        """Checks a hand and returns it as (num_points, 3) float64 after `convert`.

        Args:
            hand: (num_points, 3).
            name: name for messages; default: its number, from 0.
            convert: conversion to the conventions of the file, which are checked.

        Raises:
            InputError: the hand is invalid.
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
        """Checks the number of hands (None: any but 0) and their size, after the last hand."""
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
