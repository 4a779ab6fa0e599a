"""Errors of the detector's landmarks against the joints of a hand, measured on drawn hands; numpy only.

`residuals.npz` (made by `tools/build_residuals.py`) contains residual vectors: the errors of all 21 landmarks of one
hand, in the picture and in relative 3D. Errors within a hand are correlated (a finger confused with its neighbour,
collapsed knuckles on the back of a hand), so a hand is given the vector of one measured hand with a similar view and
similar bends instead of independent noise.

A residual is expressed in the view: the camera rotated, without roll, until its axis meets the middle of the hand.

- In the picture: x / z and y / z of the landmark minus those of the joint, times the hand's distance over its palm's
  length: errors at the hand in palm lengths.
- In relative 3D: landmarks minus joints, each about their mean. The network's metres are those of an average hand
  whatever the hand's size, so landmarks are divided by `PALM_M` and joints by the hand's own palm length.

Hands are right hands; mirror the joints of left ones (`geometry.mirror_points`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from utnet.conventions import NUM_JOINTS
from utnet.detect.networks import ASSETS
from utnet.errors import InputError
from utnet.rotations import rotation_to_z
from utnet.types import check_shape

PATH = ASSETS / "residuals.npz"
PALM_M = 0.09
"""Unit of the relative 3D residuals, about the palm length of the average hand."""
STEP = 0.01
"""Quantisation step of the stored residuals, in palm lengths; they are bounded by 1.27."""
_KNUCKLES = (5, 9, 13, 17)
_VIEW_WIDTH, _BEND_WIDTH = 0.25, 0.9
"""Units of the nearest-neighbour metric: for view directions (unit vectors in the palm's frame) and for the total bends
of a finger (rad)."""


@dataclass(frozen=True)
class Conditions:
    """View and pose of B hands, on which their residuals depend.

    Attributes:
        frame: (B, 3, 3) the palm's axes in the view as columns: wrist to knuckles, little to index knuckle, normal.
        bends: (B, 5) sum of the angles between consecutive bones of thumb to little finger, radians.
    """

    frame: np.ndarray
    bends: np.ndarray

    @classmethod
    def of(cls, joints_m: np.ndarray) -> Conditions:
        """Of joints (B, 21, 3) with the view's axes."""
        forward = _unit(joints_m[:, _KNUCKLES].mean(1) - joints_m[:, 0])
        normal = _unit(np.cross(forward, joints_m[:, 5] - joints_m[:, 17]))
        frame = np.stack([forward, np.cross(normal, forward), normal], -1)
        chains = joints_m[:, 1:].reshape(-1, 5, 4, 3)
        wrist = np.broadcast_to(joints_m[:, None, None, 0], (len(joints_m), 5, 1, 3))
        bones = _unit(np.diff(np.concatenate([wrist, chains], 2), axis=2))
        return cls(frame, np.arccos(np.clip((bones[:, :, 1:] * bones[:, :, :-1]).sum(-1), -1, 1)).sum(-1))

    def features(self) -> np.ndarray:
        """(B, 8) features: near hands have similar residuals up to a rotation in the picture."""
        return np.concatenate([self.frame[:, 2] / _VIEW_WIDTH, self.bends / _BEND_WIDTH], 1)


@dataclass(frozen=True)
class DetectorResiduals:
    """N measured residual vectors, float32.

    Attributes:
        points: (N, 21, 2) in the picture, palm lengths.
        joints: (N, 21, 3) relative 3D, palm lengths.
        presence: (N,) in [0, 1], the landmark network's.
        conditions: of the measured hands.
        covariance: (105, 105) of all measured hands' vectors (of which these are a part), `canonical`.
    """

    points: np.ndarray
    joints: np.ndarray
    presence: np.ndarray
    conditions: Conditions
    covariance: np.ndarray

    @classmethod
    def load(cls, path: Path = PATH) -> DetectorResiduals:
        """Loads the bundled table.

        Raises:
            InputError: the file is missing.
        """
        if not path.is_file():
            raise InputError(f"{path}: is missing; install utnet again, or make it with tools/build_residuals.py")
        with np.load(path, allow_pickle=False) as data:
            vectors = data["vectors"].astype(np.float32) * np.float32(STEP)
            frame, bends, presence, covariance = (
                data[name].astype(np.float32) for name in ("frame", "bends", "presence", "covariance")
            )
        return cls(vectors[..., :2], vectors[..., 2:], presence, Conditions(frame, bends), covariance)

    def save(self, path: Path) -> None:
        """Writes a file for `load`: vectors as int8, the rest in half precision."""
        vectors = np.concatenate([self.points, self.joints], -1)
        with path.open("wb") as file:
            np.savez_compressed(
                file,
                vectors=np.clip(np.rint(vectors / STEP), -127, 127).astype(np.int8),
                frame=self.conditions.frame.astype(np.float16),
                bends=self.conditions.bends.astype(np.float16),
                presence=self.presence.astype(np.float16),
                covariance=self.covariance.astype(np.float16),
            )

    def __len__(self) -> int:
        return len(self.presence)

    @cached_property
    def _features(self) -> np.ndarray:
        return self.conditions.features()

    def canonical(self) -> np.ndarray:
        """(N, 105) residual vectors with the palm upright in the picture, points before joints."""
        upright = np.broadcast_to(np.eye(3), self.conditions.frame.shape)
        points, joints = _turned(self.points, self.joints, self.conditions.frame, upright)
        return np.concatenate([points.reshape(-1, 42), joints.reshape(-1, 63)], 1)

    def sample(
        self, rng: np.random.Generator, hands: Conditions, *, candidates: int = 1024
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """A measured vector for each of B hands: the nearest in view and bends of `candidates` random ones, rotated in
        the picture like the hand.

        Returns:
            points (B, 21, 2) and joints (B, 21, 3) in palm lengths, presence (B,).
        """
        drawn = rng.choice(len(self), min(candidates, len(self)), replace=False)
        table, wanted = self._features[drawn], hands.features()
        nearest = drawn[((table * table).sum(1) - 2 * wanted.astype(table.dtype) @ table.T).argmin(1)]
        points, joints = _turned(
            self.points[nearest], self.joints[nearest], self.conditions.frame[nearest], hands.frame
        )
        return points, joints, self.presence[nearest]

    def moments(self, hand: Conditions, *, neighbours: int = 200) -> tuple[np.ndarray, np.ndarray]:
        """Mean (21, 5) and covariance (21, 5, 5) of the residuals of the hands nearest to one hand (B = 1), rotated in
        the picture like it: x, y in the picture, then x, y, z in relative 3D, in palm lengths."""
        table, wanted = self._features, hand.features()
        near = np.argsort(((table - wanted) ** 2).sum(1), kind="stable")[:neighbours]
        frame = np.broadcast_to(hand.frame, (len(near), 3, 3))
        pair = _turned(self.points[near], self.joints[near], self.conditions.frame[near], frame)
        vectors = np.concatenate(pair, -1)
        mean = vectors.mean(0)
        off = vectors - mean
        return mean, np.einsum("nja,njb->jab", off, off) / (len(near) - 1)

    def means(self, *, neighbours: int = 50) -> np.ndarray:
        """(N, 21, 5) mean residuals of the hands nearest to each measured one (itself included), rotated in the picture
        like it: the systematic part of the residuals."""
        features = self.conditions.features().astype(np.float32)
        squares, means = (features * features).sum(1), np.empty((len(self), NUM_JOINTS, 5), np.float32)
        for i, one in enumerate(features):
            near = np.argpartition(squares - 2 * features @ one, neighbours - 1)[:neighbours]
            frame = np.broadcast_to(self.conditions.frame[i], (neighbours, 3, 3))
            pair = _turned(self.points[near], self.joints[near], self.conditions.frame[near], frame)
            means[i] = np.concatenate(pair, -1).mean(0)
        return means

    def observe(
        self, rng: np.random.Generator, joints_cam_m: np.ndarray, *, candidates: int = 1024
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Simulates the detector's landmarks.

        Args:
            rng: for the choice of residuals.
            joints_cam_m: (B, 21, 3) true joints of right hands in the camera.
            candidates: as in `sample`.

        Returns:
            rays (B, 21, 3) towards the landmarks in the camera, z = 1 (`geometry.project` them with K_px), relative 3D
            landmarks (B, 21, 3) in metres with the axes of `detect.Detection.joints_m`, presence (B,).
        """
        look, joints = turn_to_view(joints_cam_m)
        points, relative, presence = self.sample(rng, Conditions.of(joints), candidates=candidates)
        middle, palm = joints.mean(1, keepdims=True), palm_length(joints)[:, None, None]
        seen = joints[..., :2] / joints[..., 2:] + points * palm / middle[..., 2:]
        rays = np.concatenate([seen, np.ones_like(seen[..., :1])], -1) @ look
        return rays / rays[..., 2:], ((joints - middle) / palm + relative) * PALM_M, presence


def measure_residuals(
    rays: np.ndarray, landmarks_m: np.ndarray, joints_cam_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Conditions]:
    """Residuals of B detected right hands, the inverse of `DetectorResiduals.observe`.

    Args:
        rays: (B, 21, 3) towards the landmarks in the camera, z > 0.
        landmarks_m: (B, 21, 3) relative 3D landmarks.
        joints_cam_m: (B, 21, 3) true joints in the camera.

    Returns:
        points (B, 21, 2), joints (B, 21, 3) in palm lengths, and the hands' conditions.
    """
    for name, array in (("rays", rays), ("landmarks_m", landmarks_m)):
        check_shape(name, array, (len(joints_cam_m), NUM_JOINTS, 3))
    look, joints = turn_to_view(joints_cam_m)
    seen = rays @ look.swapaxes(1, 2)
    middle, palm = joints.mean(1, keepdims=True), palm_length(joints)[:, None, None]
    points = (seen[..., :2] / seen[..., 2:] - joints[..., :2] / joints[..., 2:]) * middle[..., 2:] / palm
    relative = (landmarks_m - landmarks_m.mean(1, keepdims=True)) / PALM_M - (joints - middle) / palm
    return points, relative, Conditions.of(joints)


def turn_to_view(joints_cam_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, 3, 3) rotations from the camera to the views of (B, 21, 3) joints, and the joints in the views."""
    look = rotation_to_z(_unit((joints_cam_m / joints_cam_m[..., 2:]).mean(1)))
    return look, joints_cam_m @ look.swapaxes(1, 2)


def palm_length(joints_m: np.ndarray) -> np.ndarray:
    """(B,) mean distance from the wrist to the four knuckles of (B, 21, 3) joints."""
    return np.linalg.norm(joints_m[:, _KNUCKLES] - joints_m[:, :1], axis=-1).mean(1)


def _turned(
    points: np.ndarray, joints: np.ndarray, source: np.ndarray, target: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Residuals rotated about the viewing axis to align the palm frames `source` (B, 3, 3) with `target`."""
    between = target @ source.swapaxes(1, 2)
    angle = np.arctan2(between[:, 1, 0] - between[:, 0, 1], between[:, 0, 0] + between[:, 1, 1])
    turn = np.zeros((len(points), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 1, 0] = np.sin(angle)
    turn[:, 0, 1], turn[:, 2, 2] = -turn[:, 1, 0], 1.0
    back = turn.swapaxes(1, 2)
    return points @ back[:, :2, :2], joints @ back


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
