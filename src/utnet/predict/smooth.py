"""Temporal smoothing: a One Euro filter on each track's rotations and position, one shape per track.

Casiez, Roussel and Vogel, "1 Euro Filter" (CHI 2012): an exponential mean whose cutoff grows with speed, which reduces
jitter of a still hand without lag of a fast one. The channels are chosen to have nearly independent errors:

    rotations   each of MANO's 16 joints on SO(3): steps along the geodesic, speeds are angular velocities.
    bearing     the direction from the camera to the middle of the palm (the wrist's depends on the rotation).
    distance    its logarithm, in sizes of the hand: without depth, errors of size and distance are proportional.
                A distance measured by depth is not filtered.
    shape       the mean over the track.

The filter is equivariant to rotations about the camera.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from utnet.conventions import JOINT_NAMES, PARENTS
from utnet.geometry import project
from utnet.hand import AnyHandModel, NumpyHandModel
from utnet.predict.hand import Hand
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from utnet.types import HandParams

_Binary = Callable[[np.ndarray, np.ndarray], np.ndarray]

_PALM = [JOINT_NAMES.index(name) for name in ("wrist", "index_mcp", "middle_mcp", "ring_mcp", "little_mcp")]
_PARENTS = list(PARENTS[1:])
_GAP_S, _GAP_FRAMES = 0.25, 2.5
"""The filter of a track is reset after a gap longer than both."""


_SPEED_CUTOFF_HZ = 1.0
"""Cutoff of the exponential mean of velocities (the paper's value)."""


@dataclass(frozen=True)
class OneEuro:
    """Parameters of a One Euro filter.

    Attributes:
        min_cutoff_hz: cutoff at rest; lower means less jitter and more lag. Infinity disables the filter.
        beta: slope of the cutoff over speed, Hz per unit per second.
    """

    min_cutoff_hz: float
    beta: float


@dataclass(frozen=True)
class Smoothing:
    """The filter of each channel, tuned on synthetic motion with the detector's errors (`benchmarks/video.py`).

    Attributes:
        rotations: of each of the 16 joints, radians.
        bearing: of the direction to the middle of the palm, radians.
        distance: of the logarithm of its distance in sizes of the hand.
    """

    rotations: OneEuro = OneEuro(1.0, 8.0)
    bearing: OneEuro = OneEuro(1.0, 160.0)
    distance: OneEuro = OneEuro(0.7, 20.0)


class HandSmoother:
    """Smooths the hands of a video, frame by frame; tracks are independent.

    Args:
        fps: approximate frames per second; the filters use the given times.
        hand: the right hand model that decodes the parameters (None: the open hand); left hands use its mirror image.
        smoothing: the filters.

    Raises:
        ValueError: fps is not above 0.
    """

    def __init__(self, fps: float, *, hand: AnyHandModel | None = None, smoothing: Smoothing | None = None):
        if not fps > 0:
            raise ValueError(f"fps is {fps}; expected frames per second above 0")
        right = NumpyHandModel.open() if hand is None else NumpyHandModel.of(hand)
        self._models = {right.side: right, (left := right.mirrored()).side: left}
        self._smoothing = smoothing or Smoothing()
        self._gap_s = max(_GAP_S, _GAP_FRAMES / fps)
        self._tracks: dict[tuple[int, str], TrackFilter] = {}
        self._last_s = -np.inf

    def __call__(self, hands: Sequence[Hand], time_s: float) -> list[Hand]:
        """Returns the smoothed hands of the next frame, in the same order.

        Args:
            hands: of one picture, each with its own `track`. If a track changes its side, its filter is reset.
            time_s: time of the frame, increasing.

        Raises:
            ValueError: a time that is not later than the last, a hand without a track or two of one track, a hand of
                another hand model.
        """
        if not time_s > self._last_s:
            raise ValueError(f"time_s is {time_s} after {self._last_s}; expected increasing times")
        keys = [self._key(hand) for hand in hands]
        if len(set(keys)) < len(keys):
            raise ValueError(f"tracks {[hand.track for hand in hands]} of one picture; expected each hand once")
        self._last_s = time_s
        self._tracks = {key: track for key, track in self._tracks.items() if time_s - track.time_s <= self._gap_s}
        for key, hand in zip(keys, hands, strict=True):
            if key in self._tracks:
                self._tracks[key].follow(hand, time_s, self._smoothing)
            else:
                self._tracks[key] = TrackFilter(hand, time_s)
        return [self._decode(hand, self._tracks[key]) for key, hand in zip(keys, hands, strict=True)]

    def _key(self, hand: Hand) -> tuple[int, str]:
        if hand.track is None:
            raise ValueError("a hand has no track number; smoothing needs tracked hands")
        if hand.hand_model != self._models[hand.side].name:
            raise ValueError(f"a hand of the {hand.hand_model} model; the smoother has {self._models[hand.side].name}")
        return hand.track, hand.side

    def _decode(self, hand: Hand, track: TrackFilter) -> Hand:
        """Decodes the hand from the track's parameters."""
        source = "frames" if hand.shape_source != "mean" and track.num_frames > 1 else hand.shape_source
        return posed_anew(
            hand, self._models[hand.side], track.rotations.value, track.betas, track.palm_cam_m, shape_source=source
        )


def posed_anew(
    hand: Hand,
    model: NumpyHandModel,
    rotations: np.ndarray,
    betas: np.ndarray,
    palm_cam_m: Callable[[float], np.ndarray],
    *,
    shape_source: str,
) -> Hand:
    """Returns the hand decoded from other parameters.

    Args:
        hand: its remaining fields.
        model: of its side.
        rotations: (16, 3, 3), the root joint first.
        betas: (10,).
        palm_cam_m: maps the total length of the bones to the middle of the palm (3,).
        shape_source: source of the betas.
    """
    mesh = model(rotations[None, :1], rotations[None, 1:], betas[None])
    joints, vertices = (points[0].astype(float) for points in (mesh.joints_m, mesh.vertices_m))
    transl = palm_cam_m(_size_m(joints)) - joints[_PALM].mean(0)
    return replace(
        hand,
        joints_cam_m=joints + transl,
        joints_px=project(joints + transl, hand.K_px),
        vertices_cam_m=vertices + transl,
        params=HandParams(rotations[:1], rotations[1:], betas, transl),
        shape_source=shape_source,
    )


class TrackFilter:
    """Filter state of one hand.

    Attributes:
        time_s: time of its last frame.
        rotations: channel of (16, 3, 3), the root joint first.
        betas: (10,) mean over the frames.
        num_frames: number of frames.
        bearing: channel of (3,) the direction from the camera to the palm.
        distance: channel of (1,) the logarithm of the palm's distance in sizes of the hand.
        range_m: the palm's distance in the last frame.
        measured: whether it was measured by depth.
    """

    def __init__(self, hand: Hand, time_s: float):
        self.time_s, self.betas, self.num_frames = time_s, hand.params.betas, 1
        bearing, self.range_m, log_sizes = _place(hand)
        self.rotations = _Channel(_rotations(hand), _between, _turned)
        self.bearing = _Channel(bearing, np.subtract, lambda b, v: _unit(b + v))
        self.distance = _Channel(log_sizes, np.subtract, np.add)
        self.measured = hand.distance_source == "sensor"

    def follow(self, hand: Hand, time_s: float, smoothing: Smoothing) -> None:
        """Updates the state by the hand of the next frame."""
        dt_s, self.time_s = time_s - self.time_s, time_s
        self.num_frames += 1
        self.betas = self.betas + (hand.params.betas - self.betas) / self.num_frames
        bearing, self.range_m, log_sizes = _place(hand)
        self.rotations.follow(_rotations(hand), dt_s, smoothing.rotations)
        self.bearing.follow(bearing, dt_s, smoothing.bearing)
        self.distance.follow(log_sizes, dt_s, smoothing.distance)
        self.measured = hand.distance_source == "sensor"

    def palm_cam_m(self, size_m: float) -> np.ndarray:
        """(3,) middle of the palm of a hand of a size."""
        range_m = self.range_m if self.measured else size_m * np.exp(self.distance.value)
        return self.bearing.value * range_m


class _Channel:
    """One filtered quantity of one track on its manifold.

    Attributes:
        value: the filtered value.

    Args:
        first: its first value.
        minus: (a, b) -> the tangent vector (..., n) from b to a (logarithm).
        plus: (b, v) -> the point reached from b by the tangent vector v (exponential).
    """

    def __init__(self, first: np.ndarray, minus: _Binary, plus: _Binary):
        self.value = self._raw = first
        self._minus, self._plus = minus, plus
        self._velocity = np.zeros_like(minus(first, first))

    def follow(self, raw: np.ndarray, dt_s: float, one_euro: OneEuro) -> None:
        """Updates the value by the next raw one, `dt_s` after the last."""
        error, step = self._minus(raw, np.stack([self.value, self._raw]))
        self._velocity += _weight(_SPEED_CUTOFF_HZ, dt_s) * (step / dt_s - self._velocity)
        speed = np.linalg.norm(self._velocity, axis=-1, keepdims=True)
        weight = _weight(one_euro.min_cutoff_hz + one_euro.beta * speed, dt_s)
        self.value, self._raw = self._plus(self.value, weight * error), raw


def _weight(cutoff_hz, dt_s: float):
    """Weight of the new value in an exponential mean: 1 / (1 + tau / dt) with tau = 1 / (2 pi cutoff)."""
    return 1 / (1 + 1 / (2 * np.pi * cutoff_hz * dt_s))


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(..., 3) shortest rotation vectors from rotations b to a, in the frame of b: b exp(v) = a."""
    return matrix_to_axis_angle(b.swapaxes(-1, -2) @ a)


def _turned(b: np.ndarray, v: np.ndarray) -> np.ndarray:
    return b @ axis_angle_to_matrix(v)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / np.linalg.norm(v)


def _rotations(hand: Hand) -> np.ndarray:
    """(16, 3, 3), MANO order."""
    return np.concatenate([hand.params.global_orient, hand.params.hand_pose])


def palm_of(hand: Hand) -> np.ndarray:
    """(3,) the middle of the palm in the camera."""
    return hand.joints_cam_m[_PALM].mean(0)


def _place(hand: Hand) -> tuple[np.ndarray, float, np.ndarray]:
    """The palm's direction (3,) from the camera, its distance, and the logarithm (1,) of that in sizes of the hand."""
    palm = palm_of(hand)
    range_m = float(np.linalg.norm(palm))
    return palm / range_m, range_m, np.log([range_m / _size_m(hand.joints_cam_m)])


def _size_m(joints_m: np.ndarray) -> float:
    """Total length of all bones of (21, 3) joints, a pose-invariant size."""
    return float(np.linalg.norm(joints_m[1:] - joints_m[_PARENTS], axis=1).sum())
