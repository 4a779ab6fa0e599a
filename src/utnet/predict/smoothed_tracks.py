"""Tracks of a recording: one shape per person, smoothing without lag, short losses bridged.

All frames are smoothed forwards and backwards by the filters of `smooth`; the mean of both has no delay. Distances
measured by depth are not filtered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from utnet.predict.hand import Hand
from utnet.predict.smooth import OneEuro, Smoothing, TrackFilter, palm_of, posed_anew
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle

if TYPE_CHECKING:
    from utnet.hand import NumpyHandModel

BRIDGE_S = 0.3
"""Longest loss that is bridged."""
SMOOTHING = Smoothing(rotations=OneEuro(0.5, 2.0))
"""Stronger for rotations than live, since both directions together have no lag (`benchmarks/recordings.py`)."""
_Key = tuple[int, str]


@dataclass(frozen=True)
class SeenFrame:
    """Hands detected in a frame.

    Attributes:
        index: of the frame.
        time_s: of the frame.
        hands: each with its `track`; vertices are dropped (`without_mesh`).
        T_world_cam: (4, 4) pose of the camera, or None.
    """

    index: int
    time_s: float
    hands: tuple[Hand, ...]
    T_world_cam: np.ndarray | None = None


@dataclass(frozen=True)
class _State:
    """A hand at a time: (16, 3, 3) rotations, (3,) direction, distance, and its remaining fields."""

    rotations: np.ndarray
    bearing: np.ndarray
    log_sizes: np.ndarray
    range_m: float
    measured: bool
    hand: Hand


def without_mesh(hand: Hand) -> Hand:
    """Returns the hand without its vertices, which take most of the memory."""
    return replace(hand, vertices_cam_m=np.zeros((0, 3)), evidence=None)


def decoded_again(hand: Hand, model: NumpyHandModel | None) -> Hand:
    """Returns the hand of `without_mesh` with its vertices; unchanged without a model.

    Args:
        hand: the detected hand.
        model: the right hand model.
    """
    if model is None:
        return hand
    palm, rotations = palm_of(hand), np.concatenate([hand.params.global_orient, hand.params.hand_pose])
    of_side = model if hand.side == model.side else model.mirrored()
    return posed_anew(hand, of_side, rotations, hand.params.betas, lambda _: palm, shape_source=hand.shape_source)


class SmoothedTracks:
    """Smoothed hands of a recording; `hands(i)` decodes those of frame i.

    Args:
        frames: all frames, in order.
        model: the right hand model that decodes the parameters; left hands use its mirror image.
        smoothing: the filters.
        bridge_s: losses up to this long are filled, with `valid` False.

    Attributes:
        shapes: (10,) betas of each track.
    """

    def __init__(
        self,
        frames: Sequence[SeenFrame],
        model: NumpyHandModel,
        *,
        smoothing: Smoothing = SMOOTHING,
        bridge_s: float = BRIDGE_S,
    ):
        mirrored = model.mirrored()
        self._models = {model.side: model, mirrored.side: mirrored}
        tracks: dict[_Key, list[int]] = {}
        for i, frame in enumerate(frames):
            for hand in frame.hands:
                if hand.track is None:
                    raise ValueError("a hand has no track number; smoothing needs tracked hands")
                tracks.setdefault((hand.track, hand.side), []).append(i)
        self.shapes = shapes_of(frames)
        self._states: list[list[_State]] = [[] for _ in frames]
        for key, places in tracks.items():
            times = np.array([frames[i].time_s for i in places])
            cuts = np.flatnonzero(np.diff(times) > bridge_s) + 1
            for part in np.split(np.array(places), cuts):
                self._smooth_part(frames, key, part, smoothing)

    def hands(self, i: int) -> list[Hand]:
        """Returns the smoothed hands of frame i, ordered by track, including bridged ones."""
        return [self._decode(state) for state in sorted(self._states[i], key=lambda s: (s.hand.track, s.hand.side))]

    def _smooth_part(self, frames: Sequence[SeenFrame], key: _Key, places: np.ndarray, smoothing: Smoothing) -> None:
        hands = [next(h for h in frames[i].hands if (h.track, h.side) == key) for i in places]
        times = [frames[i].time_s for i in places]
        forwards = _filtered(hands, times, smoothing)
        backwards = _filtered(hands[::-1], [-time for time in times[::-1]], smoothing)[::-1]
        states = [_between(a, b, 0.5) for a, b in zip(forwards, backwards, strict=True)]
        for n, (i, state) in enumerate(zip(places, states, strict=True)):
            self._states[i].append(state)
            if n + 1 < len(places):
                for j in range(i + 1, places[n + 1]):
                    share = (frames[j].time_s - times[n]) / (times[n + 1] - times[n])
                    self._states[j].append(_bridged(state, states[n + 1], share))

    def _decode(self, state: _State) -> Hand:
        def palm_cam_m(size_m: float) -> np.ndarray:
            return state.bearing * (state.range_m if state.measured else size_m * float(np.exp(state.log_sizes[0])))

        hand, track = state.hand, state.hand.track
        assert track is not None
        source = hand.shape_source if hand.shape_source == "mean" else "frames"
        model = self._models[hand.side]
        return posed_anew(hand, model, state.rotations, self.shapes[track], palm_cam_m, shape_source=source)


def shapes_of(frames: Sequence[SeenFrame]) -> Mapping[int, np.ndarray]:
    """(10,) betas of each track, the mean over its frames with depth (over all if it has none).

    If no frame contains two hands of one side, all are assumed to be of one person and share one shape.
    """
    one_person = all(len({hand.side for hand in frame.hands}) == len(frame.hands) for frame in frames)
    rows: dict[int, list[Hand]] = {}
    for frame in frames:
        for hand in frame.hands:
            assert hand.track is not None
            rows.setdefault(0 if one_person else hand.track, []).append(hand)
    shapes = {}
    for number, hands in rows.items():
        measured = [hand for hand in hands if hand.distance_source == "sensor"]
        shapes[number] = np.mean([hand.params.betas for hand in measured or hands], 0)
    tracks = {hand.track for frame in frames for hand in frame.hands if hand.track is not None}
    return {track: shapes[0 if one_person else track] for track in tracks}


def _filtered(hands: Sequence[Hand], times_s: Sequence[float], smoothing: Smoothing) -> list[_State]:
    """The states of one pass over a track."""
    states = []
    track = TrackFilter(hands[0], times_s[0])
    for n, (hand, time_s) in enumerate(zip(hands, times_s, strict=True)):
        if n:
            track.follow(hand, time_s, smoothing)
        states.append(
            _State(
                track.rotations.value, track.bearing.value, track.distance.value, track.range_m, track.measured, hand
            )
        )
    return states


def _between(a: _State, b: _State, share: float) -> _State:
    """Interpolates between the states a and b; other fields are those of a."""
    turn = matrix_to_axis_angle(a.rotations.swapaxes(-1, -2) @ b.rotations)
    bearing = (1 - share) * a.bearing + share * b.bearing
    return replace(
        a,
        rotations=a.rotations @ axis_angle_to_matrix(share * turn),
        bearing=bearing / np.linalg.norm(bearing),
        log_sizes=(1 - share) * a.log_sizes + share * b.log_sizes,
        range_m=(1 - share) * a.range_m + share * b.range_m,
    )


def _bridged(a: _State, b: _State, share: float) -> _State:
    """An interpolated state, with its box; scores are the lower ones of both ends."""
    first, last = a.hand, b.hand
    hand = replace(
        first,
        valid=False,
        box_px=(1 - share) * first.box_px + share * last.box_px,
        score=min(first.score, last.score),
        presence=min(first.presence, last.presence),
        landmark_error_percent=None,
    )
    return replace(_between(a, b, share), hand=hand, measured=a.measured and b.measured)
