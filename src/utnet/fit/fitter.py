"""`HandFitter`: landmarks (and depth) in, hand parameters out, by least squares on a hand model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from utnet.conventions import MANO_PARENTS, NUM_BETAS, NUM_JOINTS
from utnet.fit.angles import pose_to_angles
from utnet.fit.landmarks import View, bone_directions, first_pose, look_at, mean_directions, put_at
from utnet.fit.model import FitModel, check_params
from utnet.fit.priors import angle_prior, expecting
from utnet.fit.solver import NUM_UNKNOWNS, pose_joints, solve_hand
from utnet.fit.surface import Surface, no_surface, read_surface
from utnet.hand import HandModel
from utnet.placement import measure_distance
from utnet.types import HandParams, check_shape

_LANDMARK_M = 0.003
"""Standard deviation of a 2D landmark at the hand's distance."""
_BONE_RAD = 0.25
"""Of a bone's direction by the relative 3D landmarks: their z is rough, and their lengths are not used at all."""
_COARSE, _FINE = (30.0, 25), (3.0, 30)
"""Residuals of more than so many deviations lose their pull, and the most steps: first all landmarks pull, then those
that do not agree with the others let go."""
_DEPTH_ROUNDS = 3
"""Of finding the readings that are the hand's and fitting it to them."""
_MOST_BETA = 2.0
"""In deviations: no picture says more surely that a hand is unlike others."""
_MOST_FRAMES = 10.0
"""As many as the frames of one person count for in its shape: they err alike."""


@dataclass(frozen=True)
class Fits:
    """B fitted hands, numpy float64.

    Attributes:
        params: what `HandModel` decodes, with `transl_m`.
        measured: (B,) bool, the distance comes from depth; otherwise from the hand's size.
        cost: (B,) half the sum of squared residuals in standard deviations, outliers bounded: without depth 10 to 60
            for landmarks that are a hand's, more for those that are not; readings of depth add to it.
    """

    params: HandParams
    measured: np.ndarray
    cost: np.ndarray


@dataclass
class _Hand:
    """One hand while it is fitted, in its view.

    Attributes:
        view: its landmarks and the camera that looks at it, in which all the rest is.
        wrist: (3,) metres.
        root: (3, 3) hand to view.
        angles: (15, 3) flexion, abduction, twist in radians.
        betas: (10,).
        offset: (21, 3) landmarks from their joints, rest frame, metres.
        bones: (20, 3) wanted directions to each landmark from its parent's, the shorter the less sure.
        prior: (5, 15, 3) of `utnet.fit.priors`.
        shape: (10,) expected betas.
        free_betas: they are fitted, too.
        measured: the distance is from depth.
        cost: of the last step.
        normal: (61, 61) normal matrix there, lower triangle.
    """

    view: View
    wrist: np.ndarray
    root: np.ndarray
    angles: np.ndarray
    betas: np.ndarray
    offset: np.ndarray
    bones: np.ndarray
    prior: np.ndarray
    shape: np.ndarray
    free_betas: bool = True
    measured: bool = False
    cost: float = np.inf
    normal: np.ndarray = field(default_factory=lambda: np.zeros((NUM_UNKNOWNS, NUM_UNKNOWNS)))

    def posed(self, model: FitModel) -> tuple[np.ndarray, np.ndarray]:
        """(16, 3) places and (16, 3, 3) rotations of the joints."""
        arrays = model.arrays
        rest = (arrays.J_template, arrays.J_shapedirs, model.axes)
        places, R, *_ = pose_joints(self.wrist, self.root, self.angles, self.betas, *rest)
        return places, R


class HandFitter:
    """Fits a right hand model to landmarks. Left hands come mirrored (x -> W - 1 - x, `geometry.mirror_camera`).

    Least squares over the wrist's place, orientation, 45 joint angles and 10 betas: landmarks in the picture (3 mm at
    the hand's distance, Cauchy's loss), directions of bones by the relative 3D landmarks (0.25 rad), soft anatomical
    limits, a wide pull to a relaxed pose, last joints that bend with the middle ones, betas of variance one, and with
    depth the readings under the mesh. Without depth the distance comes from the hand's size, which a picture hardly
    says: a hand 10 % larger than the fit's is put 10 % too near, and a focal length 10 % too long puts it 10 % too far.

    Args:
        hand: a right `HandModel`, open or MANO (default: the open hand).
        landmarks: "mediapipe": the landmarks are MediaPipe's, which are not the open hand's joints
            (`MEDIAPIPE_OFFSETS_M`; not known for MANO, whose joints are taken as they are). "joints": they are the
            model's own 21 joints.
    """

    def __init__(self, hand: HandModel | None = None, *, landmarks: str = "mediapipe"):
        self.model = FitModel(HandModel.open() if hand is None else hand, landmarks)
        self.hand = self.model.hand
        self._prior = angle_prior()

    def __call__(self, joints_px: np.ndarray, joints_m: np.ndarray, K_px: np.ndarray, **given: Any) -> HandParams:
        """`fit` without the rest: hand parameters with a leading axis B and `transl_m`, numpy float64."""
        return self.fit(joints_px, joints_m, K_px, **given).params

    def fit(
        self,
        joints_px: np.ndarray,
        joints_m: np.ndarray,
        K_px: np.ndarray,
        *,
        depth_m: Sequence[np.ndarray | None] | None = None,
        betas: np.ndarray | None = None,
        start: HandParams | None = None,
        expected: HandParams | None = None,
    ) -> Fits:
        """Fits B hands, each for itself.

        Args:
            joints_px: (B, 21, 2) landmarks in the picture, NaN for those that are not seen.
            joints_m: (B, 21, 3) relative landmarks in metres (any origin and scale), axes as the picture's, of a camera
                that looks at the hand, as networks on crops give them; NaN where there are none.
            K_px: (B, 3, 3) intrinsics; unequal focal lengths, an off-centre principal point and skew are honoured.
            depth_m: of each hand an (H, W) depth image of the same camera (0: no reading), or None.
            betas: (10,) or (B, 10) the person's shape where it is known (`shared_betas`); it is then kept.
            start: (B, ...) parameters to begin with, such as the frame's before.
            expected: (B, ...) parameters that somebody else says, such as a network: bones are drawn to between them
                and the 3D landmarks, the less the two agree the less; fingers to their pose instead of a relaxed one
                (15 degrees of flexion, 8 across and about the bone); betas to theirs, within two deviations of the
                average. Where they are is of no account.

        Raises:
            ValueError: wrong shapes, numbers that are not finite, or fewer than three landmarks of a palm.
        """
        hands = self._solved(joints_px, joints_m, K_px, depth_m, betas=betas, start=start, expected=expected)
        parts = [self._params(hand) for hand in hands]
        params = HandParams(*(np.stack([getattr(p, name) for p in parts]) for name in _PARAMS))
        return Fits(params, np.array([h.measured for h in hands], bool), np.array([h.cost for h in hands], float))

    def shared_betas(
        self,
        joints_px: np.ndarray,
        joints_m: np.ndarray,
        K_px: np.ndarray,
        *,
        depth_m: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """(10,) the one shape of a person seen B times: each fit's betas, weighed by how much its picture says of them.

        Frames err alike, so however many there are they count as ten at the most against the prior.
        """
        hands = self._solved(joints_px, joints_m, K_px, depth_m)
        known = np.stack([_betas_precision(hand.normal) for hand in hands])  # prior included
        num = min(len(hands), _MOST_FRAMES)
        said = np.mean([P @ hand.betas for P, hand in zip(known, hands, strict=True)], axis=0)
        return np.linalg.solve(np.eye(NUM_BETAS) + num * (known.mean(0) - np.eye(NUM_BETAS)), num * said)

    def _solved(self, joints_px, joints_m, K_px, depth_m, *, betas=None, start=None, expected=None) -> list[_Hand]:
        num = len(joints_px)
        check_shape("joints_px", joints_px, (num, NUM_JOINTS, 2))
        check_shape("joints_m", joints_m, (num, NUM_JOINTS, 3))
        check_shape("K_px", K_px, (num, 3, 3))
        if depth_m is not None and len(depth_m) != num:
            raise ValueError(f"{len(depth_m)} depth images for {num} hands; give one (or None) for each")
        for name, params in (("start", start), ("expected", expected)):
            if params is not None:
                check_params(name, params, num)
        if betas is not None:
            betas = np.broadcast_to(np.asarray(betas, float), (num, NUM_BETAS))
        hands = []
        for i in range(num):
            view = look_at(np.asarray(joints_px[i], float), np.asarray(joints_m[i], float), np.asarray(K_px[i], float))
            hand = self._begin(view, None if betas is None else betas[i])
            if expected is not None:
                hand = self._expecting(hand, _ith(expected, i))
            if start is not None:
                hand = self._better(hand, self._resume(hand, _ith(start, i)))
            self._fit_landmarks(hand)
            if depth_m is not None and depth_m[i] is not None:
                self._fit_depth(hand, np.asarray(depth_m[i]), np.asarray(K_px[i], float))
            hands.append(hand)
        return hands

    # ---------------------------------------------------------------------------------------------------- one hand

    def _begin(self, view: View, betas: np.ndarray | None) -> _Hand:
        wrist, root, angles = first_pose(view, self.model.rest, self._prior)
        known = np.zeros(NUM_BETAS) if betas is None else betas.copy()
        return _Hand(
            view=view,
            wrist=wrist,
            root=root,
            angles=angles,
            betas=known,
            offset=self.model.offset.copy(),
            bones=bone_directions(view.joints_m, view.joints_ok),
            prior=self._prior,
            shape=known,
            free_betas=betas is None,
        )

    def _resume(self, hand: _Hand, params: HandParams) -> _Hand:
        """The same hand, begun from given parameters (one hand, camera frame)."""
        look = hand.view.look
        betas = params.betas.copy() if hand.free_betas else hand.betas
        wrist = look @ (params.transl_m + self.model.rest_wrist(params.betas))
        angles = pose_to_angles(self.model.with_mean(params.hand_pose, 1.0), self.model.axes)
        return replace(hand, wrist=wrist, root=look @ params.global_orient[0], angles=angles, betas=betas)

    def _expecting(self, hand: _Hand, params: HandParams) -> _Hand:
        """The same hand with somebody else's fingers and shape for rest, and bones between his and the landmarks'."""
        told, view = self._resume(hand, params), hand.view
        if hand.free_betas:
            told.betas = np.clip(told.betas, -_MOST_BETA, _MOST_BETA)
        (places, R), of = told.posed(self.model), self.model.joint
        points = places[of] + np.einsum("nab,nb->na", R[of], told.offset + self.model.dirs @ told.betas)
        points -= told.wrist
        told.wrist = put_at(points, view.points, view.seen)
        bones = mean_directions(hand.bones, bone_directions(points, np.ones(NUM_JOINTS, bool)))
        prior = expecting(self._prior, told.angles)
        for one in (hand, told):
            one.bones, one.prior, one.shape = bones, prior, told.betas
        return self._better(hand, told)

    def _better(self, one: _Hand, other: _Hand) -> _Hand:
        """The one that costs less as it stands: a hand that moved fast is begun anew. Landmarks weigh the same for
        both, and a hand behind the camera, whose cost is NaN, is never the other."""
        for hand in (one, other):
            self._solve(hand, no_surface(), (_FINE[0], 0), z_m=one.wrist[2])
        return other if other.cost < one.cost else one

    def _fit_landmarks(self, hand: _Hand) -> None:
        for stage in (_COARSE, _FINE):
            self._solve(hand, no_surface(), stage)
        if not self.model.rigid_tips:
            self._move_tips(hand)
            self._solve(hand, no_surface(), _FINE)

    def _fit_depth(self, hand: _Hand, depth_m: np.ndarray, K_px: np.ndarray) -> None:
        """Measures the distance, then lets the readings under the mesh pull."""
        params = self._params(hand)
        joints, vertices = self.model.decode(params)
        faces = self.model.arrays.faces
        transl = measure_distance(vertices, faces, joints, params.transl_m, depth_m, K_px)
        if transl is params.transl_m:
            return
        hand.measured = True
        hand.wrist = hand.view.look @ (transl + self.model.rest_wrist(hand.betas))
        for _ in range(_DEPTH_ROUNDS):
            params = self._params(hand)
            vertices = self.model.decode(params)[1] + params.transl_m
            posed = hand.posed(self.model)
            surface = read_surface(
                vertices, self.model.arrays, depth_m, K_px, look=hand.view.look, posed=posed, betas=hand.betas
            )
            if len(surface.joint) == 0:  # the landmarks alone would pull the hand back to where its size puts it
                return
            self._solve(hand, surface, _FINE)

    def _solve(self, hand: _Hand, surface: Surface, stage: tuple[float, int], *, z_m: float | None = None) -> None:
        """Some steps. `z_m`: the distance at which landmarks are 3 mm off, the hand's if not given."""
        view, (outlier, steps) = hand.view, stage
        weight = (hand.wrist[2] if z_m is None else z_m) / _LANDMARK_M
        sure = np.linalg.norm(hand.bones, axis=1)
        directions = hand.bones / np.where(sure > 0, sure, 1.0)[:, None]
        num_free = NUM_UNKNOWNS if hand.free_betas else NUM_UNKNOWNS - NUM_BETAS
        *found, hand.cost, hand.normal = solve_hand(
            hand.wrist,
            hand.root,
            hand.angles,
            hand.betas,
            self.model.arrays.J_template,
            self.model.arrays.J_shapedirs,
            self.model.axes,
            np.concatenate([self.model.joint, surface.joint]),
            np.concatenate([hand.offset, surface.offset]),
            np.concatenate([self.model.dirs, surface.dirs]),
            np.column_stack([view.points, view.seen * weight]),
            np.column_stack([directions, sure / _BONE_RAD]),
            surface.readings,
            hand.prior,
            hand.shape,
            num_free,
            steps,
            outlier,
        )
        hand.wrist, hand.root, hand.angles, hand.betas = found

    def _move_tips(self, hand: _Hand) -> None:
        """Puts the fingertips where the model has them in this pose: MANO's are blended and corrected vertices."""
        joints, _ = self.model.decode(self._params(hand))
        places, R = hand.posed(self.model)
        tips = np.flatnonzero(np.isin(np.arange(NUM_JOINTS), (4, 8, 12, 16, 20)))
        of = self.model.joint[tips]
        at = (joints[tips] - joints[0]) @ hand.view.look.T + hand.wrist
        local = np.einsum("nba,nb->na", R[of], at - places[of])
        hand.offset[tips] = local - self.model.dirs[tips] @ hand.betas + self.model.shift[tips]

    # ------------------------------------------------------------------------------------------------- in and out

    def _params(self, hand: _Hand) -> HandParams:
        """One hand out of its view."""
        look, R = hand.view.look, hand.posed(self.model)[1]
        pose = R[list(MANO_PARENTS[1:])].transpose(0, 2, 1) @ R[1:]
        return HandParams(
            global_orient=(look.T @ hand.root)[None],
            hand_pose=self.model.with_mean(pose, -1.0),
            betas=hand.betas.copy(),
            transl_m=look.T @ hand.wrist - self.model.rest_wrist(hand.betas),
        )


def _ith(params: HandParams, i: int) -> HandParams:
    return params.map(lambda array: np.asarray(array[i], float))


_PARAMS = ("global_orient", "hand_pose", "betas", "transl_m")


def _betas_precision(normal: np.ndarray) -> np.ndarray:
    """(10, 10) how well one picture and the prior determine the betas, all other unknowns free (Schur's complement of
    the normal matrix, of which the lower triangle is given)."""
    full = np.tril(normal) + np.tril(normal, -1).T
    others = NUM_UNKNOWNS - NUM_BETAS
    a, b, d = full[:others, :others], full[others:, :others], full[others:, others:]
    return d - b @ np.linalg.solve(a + 1e-9 * np.eye(others), b.T)
