"""Offsets of a detector's landmarks from the hand model's joints and their deviations, measured by joint and view."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from utnet.conventions import NUM_JOINTS

PATH = Path(str(files("utnet"))) / "assets" / "fit" / "landmarks.npz"
VIEWS = np.array([0.75, 0.0, -0.75])
"""Cosines between the palm's normal and the line to the camera at the rows of the table (palm, side, back)."""
_EXACT_M, _EXACT_BONE_RAD = 0.003, 0.25
_SPREAD, _DEVIATION = 1.08, 0.5
"""Corrections of the table for photographs: landmarks are spread wider about their middle and have smaller errors than
on drawn hands. With them outlines of meshes fitted to 80 pictures of hands on white match within 1 % of the box and
fingertips within 3 % of a phalanx; without, meshes are 2 % too large and tips 27 % too far (benchmarks/outline.py)."""
_BONE_INFLATION = 3.0
"""Factor on the measured deviations of 3D bone directions, whose errors are correlated with those of the landmarks in
the picture (the best of 1.4, 2 and 3 on drawn hands)."""


@dataclass(frozen=True)
class LandmarkModel:
    """Measured errors of a detector's landmarks at V views (`VIEWS`), on a hand of the mean size.

    Attributes:
        offsets_m: (V, 21, 3) from the model's joints and fingertips to the landmarks, in the rest frame of each joint
            (fingers along -x, palm to -y, thumb to +z). A detector marks the visible skin, so they differ by view.
        deviation_m: (V, 21) robust standard deviation of each coordinate in the picture at the hand's distance.
        own_deviation_m: (V, 21) that of the part not shared with the previous landmark of the finger.
        repeated: (21,) the share of the previous landmark's error that is repeated; 0 for the wrist and the fingers'
            first.
        bone_rad: (V, 20, 2) standard deviations of the bone directions of the relative 3D landmarks, in x and y and in
            z; as measured in the table, inflated in `mediapipe`.
        spread: scale of the landmarks about their middle relative to the numbers above.
    """

    offsets_m: np.ndarray
    deviation_m: np.ndarray
    own_deviation_m: np.ndarray
    repeated: np.ndarray
    bone_rad: np.ndarray
    spread: float = 1.0

    @classmethod
    def exact(cls) -> LandmarkModel:
        """Landmarks that are the model's own joints, 3 mm and 0.25 rad off whatever the view, independently."""
        flat = np.full((len(VIEWS), NUM_JOINTS), _EXACT_M)
        bones = np.full((len(VIEWS), NUM_JOINTS - 1, 2), _EXACT_BONE_RAD)
        return cls(np.zeros((len(VIEWS), NUM_JOINTS, 3)), flat, flat, np.zeros(NUM_JOINTS), bones)

    @classmethod
    def mediapipe(cls) -> LandmarkModel:
        """MediaPipe's on the open hand in photographs: measured on drawn hands by tools/build_landmark_model.py and
        corrected by outlines of photographed hands."""
        with PATH.open("rb") as file, np.load(file, allow_pickle=False) as data:
            measured = cls(*(data[name].astype(float) for name in _FIELDS))
        return replace(
            measured,
            deviation_m=_DEVIATION * measured.deviation_m,
            own_deviation_m=_DEVIATION * measured.own_deviation_m,
            bone_rad=_BONE_INFLATION * measured.bone_rad,
            spread=_SPREAD,
        )

    def save(self) -> None:
        """Writes the table that ships."""
        PATH.parent.mkdir(parents=True, exist_ok=True)
        with PATH.open("wb") as file:
            np.savez(file, **{name: getattr(self, name).astype(np.float32) for name in _FIELDS})  # type: ignore[arg-type]

    def at(self, facing: float) -> LandmarkModel:
        """The numbers of one view (without the axis V), interpolated between the measured ones.

        Args:
            facing: cosine between the palm's normal and the line to the camera: 1 where the palm faces it.
        """
        place = np.interp(-facing, -VIEWS, np.arange(len(VIEWS)))
        low = min(int(place), len(VIEWS) - 2)
        share = place - low

        def between(table: np.ndarray) -> np.ndarray:
            return (1 - share) * table[low] + share * table[low + 1]

        return LandmarkModel(
            between(self.offsets_m),
            between(self.deviation_m),
            between(self.own_deviation_m),
            self.repeated,
            between(self.bone_rad),
            self.spread,
        )


_FIELDS = ("offsets_m", "deviation_m", "own_deviation_m", "repeated", "bone_rad")


def parents_in_finger() -> np.ndarray:
    """(21,) the previous landmark of each in its finger; itself for the wrist and the fingers' first."""
    joints = np.arange(NUM_JOINTS)
    return np.where((joints == 0) | (joints % 4 == 1), joints, joints - 1)
