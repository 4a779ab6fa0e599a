"""Protocols of sources, and functions shared by the readers."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeGuard

import numpy as np

from utnet.errors import InputError, as_input_error
from utnet.types import Sample


class NoSuchHands(InputError):
    """A split of a data set that is there has no hand, or none of the wanted side."""


DEPTH_FACTOR = 4.0
"""Depth at the joints this many times nearer or farther than the labels is another unit, not an occluder."""

MIN_JOINT_Z_M = 0.01
"""A joint nearer to the camera plane than this is not an image point."""


class Source(Protocol):
    """Labelled hands, map-style: reading sample i touches only its own files, so that workers can share a source.

    Attributes:
        name: as `utnet.data.open_source` takes it.
        tips: whose fingertip vertices decode the labels, a key of `conventions.MANO_TIP_VERTICES` (an open hand has its
            own and needs no name).
        counts: numbers by kind, in order: {"frames": 1000, "without a hand": 31, ...}.
    """

    name: str
    tips: str
    counts: dict[str, int]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def key(self, index: int) -> str:
        """The sample's key, without reading its files."""
        ...

    def sequence(self, index: int) -> str:
        """The recording that the sample belongs to, without reading its files."""
        ...


@dataclass(frozen=True)
class BadSample:
    """A sample that could not be read, and why (a message that names the file); `missing`: there is no such file."""

    key: str
    message: str
    missing: bool = False


def bad_sample(key: str, error: Exception) -> BadSample:
    """A sample that raised: with an InputError's own message, or with the kind and first line of anything else."""
    return BadSample(key, str(as_input_error(error, key)), isinstance(error.__cause__, FileNotFoundError))


def read_sample(source: Source, index: int) -> Sample | BadSample:
    """Returns a sample, or a `BadSample` for any exception."""
    try:
        return source[index]
    except Exception as error:
        return bad_sample(key_of(source, index), error)


def key_of(source: Source, index: int) -> str:
    """The sample's key, or its number where even the key cannot be read."""
    try:
        return source.key(index)
    except Exception:
        return f"{source.name}: sample {index}"


class StreamSource(Protocol):
    """Labelled hands that can only be streamed: tars, pipes, URLs, mixtures.

    `stream` yields this part's share of one pass (`epoch`), shuffled by (seed, epoch); the parts together give every
    sample once. A mixture never ends. Keys are unique within the source and do not depend on the number of parts.
    The first `skip` of the share are skipped undecoded, to resume a run.

    A stream that counts passes of its own (a mixture's parts do) also has `passes`: `stream` with the number of the
    pass before each item, so that a sample is jittered in another way each time it comes.
    """

    name: str
    tips: str

    def stream(
        self, *, seed: int, epoch: int, part: int, num_parts: int, skip: int = 0
    ) -> Iterator[Sample | BadSample]: ...


def is_stream(source: Source | StreamSource) -> TypeGuard[StreamSource]:
    """Whether the source is a stream."""
    return hasattr(source, "stream")


def evenly_spaced(num: int, limit: int | None) -> np.ndarray:
    """Indices of at most `limit` of `num` items, first and last included, in order."""
    if limit is not None and limit < 1:
        raise InputError(f"data.limit is {limit}; expected at least 1, or null for the full split")
    if limit is None or limit >= num:
        return np.arange(num)
    return np.unique(np.rint(np.linspace(0, num - 1, limit)).astype(np.int64))


_SHUFFLED = 2**24


def is_endless(num: int) -> bool:
    """Whether a map-style source of `num` items is an endless one, whose items are random already (synthetic hands)."""
    return num > _SHUFFLED


def epoch_order(num: int, *, seed: int, epoch: int) -> Sequence[int] | np.ndarray:
    """Order of the `num` samples of a map-style source in an epoch."""
    return range(num) if is_endless(num) else np.random.default_rng((seed, epoch)).permutation(num)


def hold_out(sizes: dict[str, int], share: float) -> set[str]:
    """Recordings held out for validation, complete ones, so that no validation frame neighbours a training frame.

    Recordings in the order of their names' hashes until they hold `share` of the frames. What would bring them over
    half of the frames is passed over, so most of them stay in training.

    Args:
        sizes: frames (at least one) of each of at least two recordings.
        share: of the frames.
    """
    if len(sizes) < 2:
        raise ValueError(f"recordings {sorted(sizes)}; expected at least two, or none can be held out")
    total, taken, num = sum(sizes.values()), set[str](), 0
    for name in sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if num < share * total and 2 * (num + sizes[name]) <= total:
            taken.add(name)
            num += sizes[name]
    return taken


def ground_truth_box(
    joints_cam_m: np.ndarray, K_px: np.ndarray, size_wh: tuple[int, int], where: str = "labels"
) -> np.ndarray:
    """Tight box (x0, y0, x1, y1) of the projected joints that lie before the camera.

    This is the ground-truth-box protocol: crops of these sources do not depend on a detector. The box is clipped to
    the picture's edges, as a detector's would be, unless nothing would be left of it.
    """
    points = _image_points(joints_cam_m, K_px)
    ahead = [point for point, z in zip(points, joints_cam_m[:, 2].tolist(), strict=True) if z > MIN_JOINT_Z_M]
    if not ahead:
        raise InputError(f"{where}: every joint lies behind the camera; the labels are not of this layout")
    columns, rows = zip(*ahead, strict=True)
    box = np.array([min(columns), min(rows), max(columns), max(rows)])
    if not (box[2] > box[0] and box[3] > box[1]):
        raise InputError(f"{where}: all joints lie on one pixel; the labels are not of this layout")
    return clip_box(box, size_wh)


def _image_points(joints_cam_m: np.ndarray, K_px: np.ndarray) -> list[tuple[float, float]]:
    """`geometry.project` in plain numbers: for one hand, numpy's calls take longer than their arithmetic."""
    (fx, skew, cx), (_, fy, cy) = K_px[:2].tolist()
    joints = ((x, y, z or math.nan) for x, y, z in joints_cam_m.tolist())
    return [((fx * x + skew * y) / z + cx, fy * y / z + cy) for x, y, z in joints]


def clip_box(box_px: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """The box within the picture's edges, or as it is where that would leave less than two pixels of it."""
    x0, y0, x1, y1 = box_px.tolist()  # plain numbers: numpy takes ten times as long for four of them
    right, bottom = size_wh[0] - 0.5, size_wh[1] - 0.5
    x0, x1 = min(max(x0, -0.5), right), min(max(x1, -0.5), right)
    y0, y1 = min(max(y0, -0.5), bottom), min(max(y1, -0.5), bottom)
    return np.array([x0, y0, x1, y1]) if x1 - x0 >= 2.0 and y1 - y0 >= 2.0 else box_px


def _middle(values: list[float]) -> float:
    """The (upper) median."""
    return sorted(values)[len(values) // 2]


def check_depth(sample: Sample, path: Path, expected: str) -> None:
    """Checks the depth at the joints against their labels, to detect a wrong unit.

    Compares the medians over the joints inside the picture, which a few occluders or holes do not change. Samples in
    which fewer than a quarter of the joints have a reading are not checked.

    Args:
        sample: a full image with depth.
        path: the depth file, for the message.
        expected: the layout's encoding, for the message.

    Raises:
        InputError: the depth is `DEPTH_FACTOR` times too near or too far.
    """
    if sample.depth_m is None or sample.K_px is None:
        return
    height, width = sample.depth_m.shape
    points, z_labelled = _image_points(sample.joints_cam_m, sample.K_px), sample.joints_cam_m[:, 2].tolist()
    num, read, z_there = 0, [], []
    for (column, row), z, conf in zip(points, z_labelled, sample.joints_3d_conf.tolist(), strict=True):
        if conf > 0 and z > MIN_JOINT_Z_M:
            num += 1
            if -0.5 <= column < width - 0.5 and -0.5 <= row < height - 0.5:
                reading = sample.depth_m.item(round(row), round(column))
                if reading > 0:
                    read.append(reading)
                    z_there.append(z)
    if len(read) < max(1, num // 4):
        return
    seen, labelled_z = _middle(read), _middle(z_there)
    if not labelled_z / DEPTH_FACTOR < seen < labelled_z * DEPTH_FACTOR:
        raise InputError(
            f"{path}: the hand is at {seen:.3g} m in the depth image, but at {labelled_z:.3g} m in the labels; "
            f"expected {expected}: convert the file to that unit"
        )
