"""A predicted hand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utnet.errors import InputError
from utnet.predict.confidence import Evidence, interval_factor
from utnet.types import HandParams

if TYPE_CHECKING:
    import trimesh

    from utnet.predict.formats import Style


@dataclass(frozen=True)
class Hand:
    """A predicted hand in the full picture's camera (OpenCV axes, metres), numpy.

    Attributes:
        side: "right" or "left".
        score: in [0, 1], calibrated probability that this mesh is right: joints within 12 mm of the true ones after
            the best similarity, right side and position (`utnet.predict.confidence`).
        box_px: (4,) tight box x0, y0, x1, y1.
        joints_cam_m: (21, 3) OpenPose-21.
        joints_px: (21, 2) projected by `K_px`.
        vertices_cam_m: (V, 3).
        faces: (F, 3), counter-clockwise seen from outside.
        params: of the hand model of that side; `joints_cam_m = joints + transl_m`.
        K_px: (3, 3) camera used: the user's, the picture's own (EXIF), or the stated default.
        distance_source: "sensor" if measured by depth, "hand_size" if derived from the size of the hand.
        method: reconstruction method: "both", "network" or "fit".
        presence: in [0, 1], the detector's probability of a hand.
        side_probability: in [0, 1], probability that `side` is correct, by the detector and, if it predicts sides, the
            network; 1 if given by the user.
        shape_source: source of the size and proportions (`betas`): "network", "landmarks", "depth", "frames" (of a
            track), "given" or "mean" (the model's average hand).
        joint_error_mm: (21,) expected error of each joint relative to the wrist, calibrated for the bundled network, or
            None if not available.
        valid: whether the hand was detected in this frame, not interpolated between others.
        hand_model: "open" or "mano", which decodes `params`.
        landmark_error_percent: mean distance of `joints_px` from the detector's landmarks, in percent of their box: 2
            to 4 for a good fit (landmarks differ from joints). Before smoothing; None without landmarks.
        track: number of the hand in a video, None in a single picture.
        evidence: inputs of `score`.
        error_model: name of the calibrated constants of `joint_error_mm` (`utnet.predict.confidence`); None for weights
            without such.
    """

    side: str
    score: float
    box_px: np.ndarray
    joints_cam_m: np.ndarray
    joints_px: np.ndarray
    vertices_cam_m: np.ndarray
    faces: np.ndarray
    params: HandParams
    K_px: np.ndarray
    distance_source: str
    method: str
    presence: float = 1.0
    side_probability: float = 1.0
    shape_source: str = "mean"
    joint_error_mm: np.ndarray | None = None
    valid: bool = True
    hand_model: str = "open"
    landmark_error_percent: float | None = None
    track: int | None = None
    evidence: Evidence | None = None
    error_model: str | None = None

    @property
    def T_cam_wrist(self) -> np.ndarray:
        """(4, 4) pose of the wrist in the camera, metres: x_cam = T x_wrist. The wrist's axes are those of that side's
        hand model at rest (MANO's)."""
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = self.params.global_orient[0], self.joints_cam_m[0]
        return T

    @property
    def joints_wrist_m(self) -> np.ndarray:
        """(21, 3) joints in the frame of the wrist (`T_cam_wrist`), whose origin is joint 0."""
        return (self.joints_cam_m - self.joints_cam_m[0]) @ self.params.global_orient[0]

    def joint_interval_mm(self, probability: float = 0.9) -> np.ndarray:
        """Returns the radius around each joint, relative to the wrist, that contains the true joint.

        Args:
            probability: 0.5 or 0.9, as calibrated on drawn hands.

        Returns:
            (21,) mm: `joint_error_mm` times a factor (docs/predictions.md); 0 for the wrist.

        Raises:
            InputError: the hand has no `joint_error_mm`, or another probability.
        """
        if self.joint_error_mm is None:
            raise InputError(
                f"a hand of method {self.method} has no joint_error_mm; use the method both or network, with "
                "weights that predict errors"
            )
        return self.joint_error_mm * interval_factor(self.error_model, probability)

    def mesh(self) -> trimesh.Trimesh:
        """Returns the mesh: vertices in metres in the picture's camera frame (OpenCV axes)."""
        import trimesh

        return trimesh.Trimesh(self.vertices_cam_m, self.faces, process=False)

    def draw(self, image_rgb: np.ndarray, style: Style = "mesh") -> np.ndarray:
        """Returns a copy of its picture, (H, W, 3) uint8 RGB, with the hand drawn.

        Args:
            image_rgb: (H, W, 3) uint8.
            style: "mesh" with the skeleton, "outline" (the hand stays visible) or "skeleton".
        """
        from utnet.predict.drawing import draw_hands

        return draw_hands(image_rgb, [self], style)

    def save(self, path: str | Path, image_rgb: np.ndarray | None = None) -> None:
        """Writes the hand to a file, by its suffix.

        Args:
            path: .glb, .obj or .ply (the mesh), .json (`to_dict`), .npz (arrays), or .jpg or .png (`draw`).
            image_rgb: (H, W, 3) uint8 picture, for .jpg and .png.

        Raises:
            InputError: another suffix, no such folder, or no picture for .jpg and .png.
        """
        from utnet.predict.saving import save_hand

        save_hand(path, self, image_rgb)

    def to_hamer(self, size_px: tuple[int, int], mano: str | Path | None = None) -> dict:
        """Returns the hand as HaMeR's and WiLoR's dictionary, numpy (fields: `utnet.predict.formats.hamer`).

        Args:
            size_px: width and height of the picture.
            mano: folder of your MANO_RIGHT.pkl, to which a hand of the open model is fitted (0.1 s per hand).

        Raises:
            InputError: a hand of the open model without `mano`: its parameters and vertices are not MANO's.
        """
        from utnet.predict.formats.hamer import hand_to_hamer, load_right

        return hand_to_hamer(self, size_px, None if mano is None else load_right(mano))

    def to_openxr(self) -> dict:
        """Returns the 26 joints of OpenXR and WebXR with poses, radii and flags (`utnet.predict.formats.openxr`)."""
        from utnet.predict.formats.openxr import to_openxr

        return to_openxr(self)

    def to_dict(self) -> dict:
        """Returns the fields of docs/predictions.md, as in predictions.json."""
        from utnet.predict.files import hand_record

        return hand_record(self)
