"""Arrays of a hand model (open hand or MANO) and their mirror image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files

import numpy as np

from utnet.conventions import MANO_PARENTS, NUM_BETAS, NUM_MANO_JOINTS
from utnet.errors import InputError
from utnet.types import check_shape


@dataclass(frozen=True)
class HandArrays:
    """A linear-blend-skinned hand in its rest pose, numpy, metres, MANO joint order.

    Attributes:
        v_template: (V, 3) rest vertices.
        shapedirs: (V, 3, 10) vertex offsets of one unit of each beta.
        J_template: (16, 3) rest joints.
        J_shapedirs: (16, 3, 10) joint offsets of one unit of each beta.
        weights: (V, 16) skinning weights, rows sum to 1.
        faces: (F, 3) int, counter-clockwise seen from outside.
        tip_vertices: (5,) vertex index of each fingertip, thumb to little finger.
        posedirs: (V, 3, 135) pose correctives on `R - I` of joints 1-15, row-major, or None.
        pose_mean: (45,) axis-angle added to every pose (zeros: none).
        pose_basis: (45, 45) rows are the principal pose components, or None.
    """

    v_template: np.ndarray
    shapedirs: np.ndarray
    J_template: np.ndarray
    J_shapedirs: np.ndarray
    weights: np.ndarray
    faces: np.ndarray
    tip_vertices: np.ndarray
    posedirs: np.ndarray | None = None
    pose_mean: np.ndarray | None = None
    pose_basis: np.ndarray | None = None

    def check(self, where: str) -> HandArrays:
        """Returns itself; raises InputError, naming `where` and the array, if a shape or an index is wrong."""
        num_vertices = len(self.v_template)
        try:
            check_shape("v_template", self.v_template, (None, 3))
            check_shape("shapedirs", self.shapedirs, (num_vertices, 3, NUM_BETAS))
            check_shape("J_template", self.J_template, (NUM_MANO_JOINTS, 3))
            check_shape("J_shapedirs", self.J_shapedirs, (NUM_MANO_JOINTS, 3, NUM_BETAS))
            check_shape("weights", self.weights, (num_vertices, NUM_MANO_JOINTS))
            check_shape("faces", self.faces, (None, 3))
            check_shape("tip_vertices", self.tip_vertices, (5,))
            if self.posedirs is not None:
                check_shape("posedirs", self.posedirs, (num_vertices, 3, 135))
        except ValueError as error:
            raise InputError(f"{where}: {error}; not a hand model in MANO's layout") from error
        for name in ("faces", "tip_vertices"):
            index = getattr(self, name)
            if index.dtype.kind not in "iu" or not index.size:
                raise InputError(f"{where}: {name} are {index.dtype} of shape {index.shape}, not numbers of vertices")
            if index.min() < 0 or index.max() >= num_vertices:
                raise InputError(f"{where}: {name} points outside the {num_vertices} vertices")
        return self

    def mirrored(self) -> HandArrays:
        """Returns the other hand: everything mirrored at x = 0, with faces flipped."""
        flip = np.array([-1.0, 1.0, 1.0])
        feature = np.tile((flip[:, None] * flip).ravel(), 15)  # sign of each entry of S (R - I) S
        vector = np.tile([1.0, -1.0, -1.0], 15)  # sign of each entry of a mirrored axis-angle
        return replace(
            self,
            v_template=self.v_template * flip,
            shapedirs=self.shapedirs * flip[:, None],
            J_template=self.J_template * flip,
            J_shapedirs=self.J_shapedirs * flip[:, None],
            faces=self.faces[:, ::-1],
            posedirs=None if self.posedirs is None else self.posedirs * flip[:, None] * feature,
            pose_mean=None if self.pose_mean is None else self.pose_mean * vector,
            pose_basis=None if self.pose_basis is None else self.pose_basis * vector,
        )


def load_open_hand() -> HandArrays:
    """Loads the bundled right open hand (Apache-2.0 / CC0; see NOTICE)."""
    path = files("utnet") / "assets" / "open_hand" / "open_hand_right.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        if tuple(data["parents"]) != MANO_PARENTS:
            raise InputError(f"{path}: the joints are not in MANO's order")
        names = ("v_template", "shapedirs", "J_template", "J_shapedirs", "weights", "faces", "tip_vertices")
        return HandArrays(**{name: data[name] for name in names}).check(str(path))
