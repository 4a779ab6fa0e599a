"""Shared by the writers of data sets: smooth hand motion, cameras, appearance of a person."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from utnet.errors import InputError
from utnet.geometry import intrinsics
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from utnet.synth.appearance import Appearance
from utnet.synth.poses import PALM_M, angles_to_pose, sample_angles, sample_orientation
from utnet.types import HandParams

_TURN_DEG = 20.0
"""Standard deviation of the rotation between two key poses, about each axis."""


@dataclass(frozen=True)
class Motion:
    """Motion of a right hand through K key poses. Interpolated angles stay within the joint limits (intervals).

    Attributes:
        angles_rad: (K, 15, 3) angles as in `poses`.
        orientations: (K, 3, 3) hand to camera (or to the rig of several cameras).
        centres_m: (K, 3) middle of the palm.
        betas: (10,).
    """

    angles_rad: np.ndarray
    orientations: np.ndarray
    centres_m: np.ndarray
    betas: np.ndarray

    @classmethod
    def sample(
        cls, rng: np.random.Generator, *, betas: np.ndarray, centres_m: np.ndarray, max_tilt_deg: float
    ) -> Motion:
        """Draws random key poses at (K, 3) positions, oriented as in `sample_orientation`."""
        orientations = [sample_orientation(rng, max_tilt_deg)]
        least = np.cos(np.deg2rad(min(max_tilt_deg, 90.0)))
        while len(orientations) < len(centres_m):
            turned = orientations[-1] @ axis_angle_to_matrix(rng.normal(0, np.deg2rad(_TURN_DEG), 3))
            if abs(turned[2, 1]) >= least - 1e-9:
                orientations.append(turned)
        angles = np.stack([sample_angles(rng) for _ in centres_m])
        return cls(angles, np.stack(orientations), centres_m, betas)

    def at(self, time: float) -> HandParams:
        """Returns the hand at `time` in [0, 1], with smooth steps between key poses."""
        place = time * (len(self.angles_rad) - 1)
        k = min(int(place), len(self.angles_rad) - 2)
        s = place - k
        s = s * s * (3 - 2 * s)
        turn = matrix_to_axis_angle(self.orientations[k].T @ self.orientations[k + 1])
        R = self.orientations[k] @ axis_angle_to_matrix(s * turn)
        centre = (1 - s) * self.centres_m[k] + s * self.centres_m[k + 1]
        return HandParams(
            global_orient=R[None],
            hand_pose=angles_to_pose((1 - s) * self.angles_rad[k] + s * self.angles_rad[k + 1]),
            betas=self.betas,
            transl_m=centre - R @ PALM_M,
        )


def num_keys(num_frames: int) -> int:
    """Number of key poses of a sequence: one per 12 frames."""
    return 2 + num_frames // 12


def times(num_frames: int) -> np.ndarray:
    """Times of the frames of a sequence, in [0, 1]."""
    return np.linspace(0, 1, num_frames) if num_frames > 1 else np.zeros(1)


def spread(total: int, parts: int) -> list[int]:
    """Distributes `total` over `parts` as evenly as possible, larger parts first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def sample_camera(rng: np.random.Generator, fov_deg: tuple[float, float], size_wh: tuple[int, int]) -> np.ndarray:
    """Draws intrinsics (3, 3): fx and fy differ slightly, and the principal point is off-centre."""
    width, height = size_wh
    f = width / 2 / np.tan(np.deg2rad(rng.uniform(*fov_deg)) / 2)
    fy = f * (1 + rng.normal(0, 0.002))
    return intrinsics(f, fy, (width - 1) / 2 + rng.normal(0, 6), (height - 1) / 2 + rng.normal(0, 6))


def look_of(person: Appearance, place: Appearance, R: np.ndarray | None = None) -> Appearance:
    """Combines the skin and light of `person` with the background and lens of `place`.

    Args:
        person: skin and light (in the axes of the rig if R is given).
        place: background, lens and noise.
        R: (3, 3) rig to camera, or None if they are the same.
    """
    light = person.light if R is None else R @ person.light
    return replace(
        place,
        skin_rgb=person.skin_rgb,
        mottle=person.mottle,
        light=light,
        ambient=person.ambient,
        exposure=person.exposure,
    )


def write_image(path: Path, image: np.ndarray, *options: int) -> None:
    """Writes an RGB or grey picture; `options` are flags of OpenCV."""
    bgr = image[..., ::-1] if image.ndim == 3 else image
    ok, data = cv2.imencode(path.suffix, np.ascontiguousarray(bgr), list(options))
    if not ok:
        raise RuntimeError(f"{path}: OpenCV cannot encode {image.dtype} {image.shape}")
    path.write_bytes(data.tobytes())


def check_request(num: int, seed: int, split: str | None, splits: tuple[str, ...]) -> None:
    """Raises InputError unless `num` and `seed` are in range and `split` is None or one of `splits`."""
    if num < 1:
        raise InputError(f"--num is {num}; expected at least 1")
    if seed < 0:
        raise InputError(f"--seed is {seed}; expected 0 or more")
    if split is not None and split not in splits:
        raise InputError(f"--split is {split!r}; expected one of {', '.join(splits)}, or none for all of them")
