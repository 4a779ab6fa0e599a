"""Where a detector puts its landmarks on the hand model, and how surely: by joint and view, as measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

import numpy as np

from utnet.conventions import NUM_JOINTS

PATH = Path(str(files("utnet"))) / "assets" / "fit" / "landmarks.npz"
VIEWS = np.array([0.75, 0.0, -0.75])
"""Cosines between the palm's normal and the line to the camera for which the table holds numbers (palm, side, back)."""
_EXACT_M, _EXACT_BONE_RAD = 0.003, 0.25
_SPREAD, _DEVIATION = 1.08, 0.5
"""What photographs differ in from drawn hands: landmarks spread wider about their middle, and err less. With them the
outlines of meshes fitted to 80 pictures of hands on white lie on the hands' within 1 % of the box on either side and
fingertips within 3 % of a phalanx; without, meshes are 2 % too large and tips 27 % too far (benchmarks/outline.py)."""
_BONE_INFLATION = 3.0
"""Directions of bones in 3D come from the same look as the landmarks in the picture, and err with them: their measured
deviations count as so many times larger, which of 1.4, 2 and 3 fitted drawn hands best."""


@dataclass(frozen=True)
class LandmarkModel:
    """Measured errors of a detector's landmarks at V views (`VIEWS`), on a hand of the mean size.

    Attributes:
        offsets_m: (V, 21, 3) from the model's joints and fingertips to the landmarks, in the rest frame of each joint
            (fingers along -x, palm to -y, thumb to +z). A detector marks the skin that it sees, so they differ by view.
        deviation_m: (V, 21) robust standard deviation of each coordinate in the picture at the hand's distance.
        own_deviation_m: (V, 21) that of the part that does not repeat the error of the finger's landmark before.
        repeated: (21,) the share of that error which a landmark repeats; 0 for the wrist and the fingers' first.
        bone_rad: (V, 20, 2) of the direction of each bone of the relative 3D landmarks: x and y, z; as measured in the
            table, inflated in `mediapipe`.
        spread: how many times wider landmarks lie about their middle than the numbers above put them.
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
        """MediaPipe's on the open hand in photographs: measured by tools/build_landmark_model.py on drawn hands, with
        what outlines of photographed hands say of the difference."""
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
        """The rows of one view (without the axis V), between the measured ones.

        Args:
            facing: cosine between the palm's normal and the line to the camera: 1 where the palm is seen.
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
    """(21,) the landmark before each in its finger; itself for the wrist and the fingers' first."""
    joints = np.arange(NUM_JOINTS)
    return np.where((joints == 0) | (joints % 4 == 1), joints, joints - 1)
