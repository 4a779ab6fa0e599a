"""`HandFitter`: landmarks (and depth) in, hand parameters out, by least squares on a hand model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from utnet.conventions import MANO_PARENTS, NUM_BETAS, NUM_JOINTS
from utnet.fit.angles import pose_to_angles
from utnet.fit.checks import (
    check_betas,
    check_deviation_scale,
    check_inputs,
    check_masks,
    check_params,
    finite_depth,
)
from utnet.fit.fitted_hand import Fits, FittedHand
from utnet.fit.landmarks import (
    View,
    bone_directions,
    disbelief,
    first_pose,
    look_at,
    put_at,
    weighted_bones,
    weighted_directions,
    weighted_points,
)
from utnet.fit.model import FitModel
from utnet.fit.outline import HandMask, read_outline
from utnet.fit.priors import (
    USUAL_ERROR_RAD,
    angle_limits,
    betas_precision,
    expected_errors_rad,
    expected_prior,
    rest_prior,
)
from utnet.fit.solver import NUM_UNKNOWNS, solve_hand
from utnet.fit.surface import Surface, no_surface, read_surface
from utnet.hand import AnyHandModel, NumpyHandModel
from utnet.placement import measure_distance
from utnet.types import HandParams, check_shape

_EXPECTED_BONE_RAD = np.array([0.16, 0.2])
"""Standard deviations of bone directions, in x and y and in z, of an expected hand without expected errors. Narrower
ones are better on drawn hands, wider ones on outlines of photographed hands (docs/results.md)."""
_WITH_MASK = 0.6
"""Factor of these deviations for a hand with a mask, whose outline corrects the expected hand where it is off."""
_COARSE, _FINE = (30.0, 25), (3.0, 30)
"""Scale of Cauchy's loss in standard deviations and maximum number of steps: first with nearly all landmarks as
inliers, then with outliers rejected."""
_DEPTH_ROUNDS = 3
"""Iterations of selecting the hand's depth readings and fitting the hand to them."""
_OUTLINE_ROUNDS = 2
"""Iterations of selecting points on the outline and fitting the hand to them."""
_NOT_FITTED = 1e6
"""Cost of a hand that could not be fitted and has its initial placement; fitted hands have at most some thousands."""
_MOST_BETA = 2.0
"""Bound of expected betas, in standard deviations of the shape prior."""
_MOST_FRAMES = 10.0
"""Upper bound of the weight of one person's depth frames against the shape prior: their errors are correlated."""
_BONES_OF_JOINTS = np.array([*range(5, 8), *range(9, 12), *range(17, 20), *range(13, 16), *range(1, 4)])
"""(15,) index of the bone, of the 20, that each of MANO's joints rotates."""


class HandFitter:
    """Fits a right hand model to landmarks. Left hands come mirrored (x -> W - 1 - x, `geometry.mirror_camera`).

    Least squares over the wrist's position, orientation, 45 joint angles and 10 betas. Residuals: landmarks in the
    picture and bone directions of the relative 3D landmarks, weighted by measured errors per joint and view
    (`LandmarkModel`, Cauchy's loss); soft anatomical limits; a Gaussian of joint angles; betas of unit variance; with
    depth the readings under the mesh; with a mask its outline. One picture without depth does not determine the betas
    (fitted freely, those of drawn hands correlate with the true ones by 0.0 to 0.2), so they stay at the model's mean
    and the distance comes from the mean hand's size: a hand 10 % larger is placed 10 % too near, a focal length 10 %
    too long places it 10 % too far.

    Args:
        hand: a right `HandModel` or `NumpyHandModel`, open or MANO (default: the open hand).
        landmarks: "mediapipe": the landmarks are MediaPipe's, which are not the open hand's joints
            (`LandmarkModel.mediapipe`; offsets are not known for MANO, whose joints are taken as they are). "joints":
            they are the model's own 21 joints.
    """

    def __init__(self, hand: AnyHandModel | None = None, *, landmarks: str = "mediapipe"):
        self.model = FitModel(NumpyHandModel.open() if hand is None else hand, landmarks)
        self.hand = self.model.hand
        self._limits, self._rest = angle_limits(), rest_prior()

    def __call__(self, joints_px: np.ndarray, joints_m: np.ndarray, K_px: np.ndarray, **given: Any) -> HandParams:
        """The `params` of `fit`: hand parameters with a leading axis B and `transl_m`, numpy float64."""
        return self.fit(joints_px, joints_m, K_px, **given).params

    def fit(
        self,
        joints_px: np.ndarray,
        joints_m: np.ndarray,
        K_px: np.ndarray,
        *,
        depth_m: Sequence[np.ndarray | None] | None = None,
        betas: np.ndarray | None = None,
        betas_from: str = "given",
        start: HandParams | None = None,
        expected: HandParams | None = None,
        expected_error_mm: np.ndarray | None = None,
        deviation_scale: np.ndarray | None = None,
        masks: Sequence[HandMask | None] | None = None,
    ) -> Fits:
        """Fits B hands independently.

        Args:
            joints_px: (B, 21, 2) landmarks of B >= 1 hands in the picture, NaN where not visible.
            joints_m: (B, 21, 3) relative landmarks in metres (any origin and scale), axes as the picture's, of a camera
                turned towards the hand, as networks on crops predict them; NaN where missing.
            K_px: (B, 3, 3) intrinsics; unequal focal lengths, an off-centre principal point and skew are supported.
            depth_m: for each hand an (H, W) float depth image of the same camera (0, NaN or inf: no reading), or None.
            betas: (10,) or (B, 10) known shape of the person (`shared_betas`), kept fixed.
            betas_from: their `Fits.shape_source`: "given", or "frames" for those of `shared_betas`.
            start: (B, ...) initial parameters, for example of the previous frame.
            expected: (B, ...) parameters of another method, for example a network, used as a prior of bone directions
                (averaged with the 3D landmarks'), joint angles and, with depth, betas (within two standard deviations
                of the mean). Their translation is ignored.
            expected_error_mm: (B, 21) expected error of these joints relative to the wrist, the width of the prior.
                None: 6 degrees of flexion, 4 of abduction and twist, 0.16 rad of bone direction (0.2 in depth); with
                a mask 0.6 of these.
            deviation_scale: (B, 21) deviation of each landmark in units of the detector's: more than 1 for one that is
                less sure, below 1 for a model joint that a person placed. None: 1.
            masks: for each hand a mask of its visible part, whose outline the mesh's outline is fitted to, or None.

        Raises:
            ValueError: wrong shapes, numbers that are not finite or not in their units, K with a focal length of less
                than a pixel, fewer than three landmarks of a palm, or landmarks of no hand in front of the camera.
        """
        hands = self._solved(
            joints_px, joints_m, K_px, depth_m, betas=betas, start=start, expected=expected,
            expected_error_mm=expected_error_mm, deviation_scale=deviation_scale, masks=masks,
        )  # fmt: skip
        parts = [self._params(hand) for hand in hands]
        params = HandParams(*(np.stack([getattr(p, name) for p in parts]) for name in _PARAMS))
        sources = np.array([betas_from if hand.shape_source == "given" else hand.shape_source for hand in hands], str)
        measured, cost = (np.array([getattr(hand, name) for hand in hands]) for name in ("measured", "cost"))
        return Fits(params, measured.astype(bool), cost.astype(float), sources)

    def shared_betas(
        self,
        joints_px: np.ndarray,
        joints_m: np.ndarray,
        K_px: np.ndarray,
        *,
        depth_m: Sequence[np.ndarray | None] | None = None,
    ) -> np.ndarray:
        """(10,) one shape for a person seen in B pictures: the fits' betas, weighted by their precision.

        Errors of frames are correlated, so frames with depth count as ten at most against the prior. Frames without
        depth are used only if none has depth, and count as one together: their betas are dominated by the bias of the
        landmarks, which does not average out.
        """
        hands = self._solved(joints_px, joints_m, K_px, depth_m, free_betas=depth_m is None)
        measured = [hand for hand in hands if hand.measured]
        hands, num = (measured, min(len(measured), _MOST_FRAMES)) if measured else (hands, 1.0)
        known = np.stack([betas_precision(hand.normal) for hand in hands])  # prior included
        said = np.mean([P @ hand.betas for P, hand in zip(known, hands, strict=True)], axis=0)
        return np.linalg.solve(np.eye(NUM_BETAS) + num * (known.mean(0) - np.eye(NUM_BETAS)), num * said)

    def _solved(
        self, joints_px, joints_m, K_px, depth_m, *, betas=None, start=None, expected=None, expected_error_mm=None,
        deviation_scale=None, masks=None, free_betas=False,
    ) -> list[FittedHand]:  # fmt: skip
        num = len(joints_px)
        check_inputs(joints_px, joints_m, K_px, depth_m)
        for name, params in (("start", start), ("expected", expected)):
            if params is not None:
                check_params(name, params, num)
        if expected_error_mm is not None:
            check_shape("expected_error_mm", expected_error_mm, (num, NUM_JOINTS))
            expected_error_mm = np.asarray(expected_error_mm, float)
            if not (np.isfinite(expected_error_mm) & (expected_error_mm >= 0)).all():
                raise ValueError("expected_error_mm: expected finite millimetres, 0 or more")
        scale = check_deviation_scale(deviation_scale, num)
        betas, masks = check_betas(betas, num), check_masks(masks, num)
        hands = []
        for i in range(num):
            landmarks = (np.asarray(array[i], float) for array in (joints_px, joints_m, K_px))
            view = look_at(*landmarks, spread=self.model.landmarks.spread, scale=scale[i])
            hand = self._begin(view, None if betas is None else betas[i])
            hand.free_betas = free_betas and betas is None
            hand.mask = masks[i]
            initial, starts = replace(hand, cost=_NOT_FITTED), [hand]
            if expected is not None:
                error = None if expected_error_mm is None else expected_error_mm[i]
                starts.append(self._expecting(hand, _ith(expected, i), error))
            else:
                starts.append(self._mirrored(hand))
            if start is not None:
                starts.append(self._resume(hand, _ith(start, i)))
            hand = self._cheapest(starts)
            self._fit_outline(hand)
            if depth_m is not None and depth_m[i] is not None:
                self._fit_depth(hand, finite_depth(depth_m[i]), np.asarray(K_px[i], float))
            hands.append(hand if hand.is_in_front else _in_front(initial))
        return hands

    # ---------------------------------------------------------------------------------------------------- one hand

    def _begin(self, view: View, betas: np.ndarray | None) -> FittedHand:
        known = np.zeros(NUM_BETAS) if betas is None else betas.copy()
        place = first_pose(view, self._landmarks_at_rest(), self._limits, self._rest.mean.reshape(15, 3))
        source = "mean" if betas is None else "given"
        return FittedHand(view, *place, known, self._rest, known, shape_source=source)

    def _mirrored(self, hand: FittedHand) -> FittedHand:
        """The same hand with mirrored depths as its start: under weak perspective the two project alike."""
        view = replace(hand.view, joints_m=hand.view.joints_m * [1.0, 1.0, -1.0])
        rest = self._landmarks_at_rest()
        wrist, root, angles = first_pose(view, rest, self._limits, self._rest.mean.reshape(15, 3))
        return replace(hand, wrist=wrist, root=root, angles=angles)

    def _landmarks_at_rest(self) -> np.ndarray:
        """(21, 3), as seen from the side."""
        return self.model.joints_rest + self.model.landmarks.at(0.0).offsets_m

    def _resume(self, hand: FittedHand, params: HandParams) -> FittedHand:
        """The same hand with given initial parameters (one hand, camera frame)."""
        look = hand.view.look
        betas = params.betas.copy() if hand.free_betas else hand.betas
        wrist = look @ (params.transl_m + self.model.rest_wrist(params.betas))
        angles = pose_to_angles(self.model.with_mean(params.hand_pose, 1.0), self.model.axes)
        return replace(hand, wrist=wrist, root=look @ params.global_orient[0], angles=angles, betas=betas)

    def _expecting(self, hand: FittedHand, params: HandParams, error_mm: np.ndarray | None) -> FittedHand:
        """The same hand started from another method's, whose pose, bones and shape become the prior of both starts."""
        other, view = self._resume(hand, params), hand.view
        shape = hand.shape if hand.shape_source == "given" else np.clip(params.betas, -_MOST_BETA, _MOST_BETA)
        (places, R), of = other.posed(self.model), self.model.joint
        offset = self.model.offset(self.model.landmarks.at(other.facing))
        points = places[of] + np.einsum("nab,nb->na", R[of], offset + self.model.dirs @ other.betas) - other.wrist
        other.wrist = put_at(points, view.points, view.seen)
        directions = bone_directions(points, np.ones(NUM_JOINTS, bool))
        share = disbelief(directions, view)
        if error_mm is None:
            share = share * (1.0 if hand.mask is None else _WITH_MASK)
            turned = USUAL_ERROR_RAD * share[_BONES_OF_JOINTS]
            deviation = share[:, None] * _EXPECTED_BONE_RAD
        else:
            deviation = np.tile((share * expected_errors_rad(error_mm, points))[:, None], 2)
            turned = deviation[_BONES_OF_JOINTS, 0]
        prior = expected_prior(other.angles, self._rest, turned)
        for one in (hand, other):
            one.bones = weighted_directions(directions, deviation)
            one.prior, one.shape = prior, shape
        return other

    def _cheapest(self, starts: list[FittedHand]) -> FittedHand:
        """The start with the lowest final cost. Landmarks have the same weights for all; a hand behind the camera (cost
        NaN) is never chosen."""
        z_m = starts[0].wrist[2]
        for hand in starts:
            for stage in (_COARSE, _FINE):
                self._solve(hand, no_surface(), stage, z_m=z_m)
        hand = min(starts, key=lambda hand: hand.cost if np.isfinite(hand.cost) else np.inf)
        if not self.model.rigid_tips:
            self._move_tips(hand)
        self._solve(hand, no_surface(), _FINE)
        return hand

    def _fit_outline(self, hand: FittedHand) -> None:
        """Fits the hand to the outline of its mask, too."""
        for _ in range(_OUTLINE_ROUNDS if hand.mask is not None else 0):
            vertices = self._mesh(hand)
            self._solve(hand, self._outline(hand, vertices), _FINE)

    def _mesh(self, hand: FittedHand) -> np.ndarray:
        """(V, 3) in the camera."""
        params = self._params(hand)
        return self.model.decode(params)[1] + params.transl_m

    def _outline(self, hand: FittedHand, vertices: np.ndarray) -> Surface:
        """Readings of the outline of the hand's mask; none without a mask."""
        if hand.mask is None:
            return no_surface()
        posed = hand.posed(self.model)
        return read_outline(vertices, self.model.arrays, hand.mask, look=hand.view.look, posed=posed, betas=hand.betas)

    def _fit_depth(self, hand: FittedHand, depth_m: np.ndarray, K_px: np.ndarray) -> None:
        """Measures the distance, then fits the hand to the readings under the mesh."""
        params = self._params(hand)
        joints, vertices = self.model.decode(params)
        faces = self.model.arrays.faces
        transl = measure_distance(vertices, faces, joints, params.transl_m, depth_m, K_px)
        if transl is params.transl_m:
            return
        hand.measured = True
        if hand.shape_source == "mean":
            hand.shape_source, hand.free_betas = "depth", True
        hand.wrist = hand.view.look @ (transl + self.model.rest_wrist(hand.betas))
        for _ in range(_DEPTH_ROUNDS):
            vertices = self._mesh(hand)
            posed = hand.posed(self.model)
            surface = read_surface(
                vertices, self.model.arrays, depth_m, K_px, look=hand.view.look, posed=posed, betas=hand.betas
            )
            if len(surface.joint) == 0:  # the landmarks alone would move it back to the distance of its size
                return
            self._solve(hand, surface.joined(self._outline(hand, vertices)), _FINE)

    def _solve(self, hand: FittedHand, surface: Surface, stage: tuple[float, int], *, z_m: float | None = None) -> None:
        """Runs the solver. `z_m`: distance at which landmark deviations are projected (default: the hand's)."""
        outlier, steps = stage
        seen = self.model.landmarks.at(hand.facing)
        arrays, placed = self.model.arrays, hand.view.scale < 1
        # A detector marks skin; a person places the joint itself.
        offset = self.model.offset(seen) + hand.tips - np.where(placed[:, None], seen.offsets_m, 0.0)
        *found, hand.cost, hand.normal = solve_hand(
            hand.wrist,
            hand.root,
            hand.angles,
            hand.betas,
            arrays.J_template,
            arrays.J_shapedirs,
            self.model.axes,
            np.concatenate([self.model.joint, surface.joint]),
            np.concatenate([offset, surface.offset]),
            np.concatenate([self.model.dirs, surface.dirs]),
            weighted_points(hand.view, seen, hand.wrist[2] if z_m is None else z_m),
            weighted_bones(hand.view, seen, hand.bones),
            surface.readings,
            self._limits,
            hand.prior.mean,
            hand.prior.precision,
            hand.shape,
            NUM_UNKNOWNS if hand.free_betas else NUM_UNKNOWNS - NUM_BETAS,
            steps,
            outlier,
        )
        hand.wrist, hand.root, hand.angles, hand.betas = found

    def _move_tips(self, hand: FittedHand) -> None:
        """Updates the fingertips for this pose: MANO's are vertices with blended skinning and pose correctives."""
        joints, _ = self.model.decode(self._params(hand))
        places, R = hand.posed(self.model)
        tips = np.flatnonzero(np.isin(np.arange(NUM_JOINTS), (4, 8, 12, 16, 20)))
        of = self.model.joint[tips]
        at = (joints[tips] - joints[0]) @ hand.view.look.T + hand.wrist
        local = np.einsum("nba,nb->na", R[of], at - places[of])
        seen = self.model.landmarks.at(hand.facing)
        own = self.model.offset(seen)[tips] - seen.offsets_m[tips]
        hand.tips[tips] = local - self.model.dirs[tips] @ hand.betas - own

    # ------------------------------------------------------------------------------------------------- in and out

    def _params(self, hand: FittedHand) -> HandParams:
        """One hand in the camera frame."""
        look, R = hand.view.look, hand.posed(self.model)[1]
        pose = R[list(MANO_PARENTS[1:])].transpose(0, 2, 1) @ R[1:]
        return HandParams(
            global_orient=(look.T @ hand.root)[None],
            hand_pose=self.model.with_mean(pose, -1.0),
            betas=hand.betas.copy(),
            transl_m=look.T @ hand.wrist - self.model.rest_wrist(hand.betas),
        )


def _in_front(initial: FittedHand) -> FittedHand:
    """The initial placement of a hand whose landmarks led it behind the camera.

    Raises:
        ValueError: it is not in front of the camera either.
    """
    if not initial.is_in_front:
        raise ValueError("the landmarks are not of a hand in front of the camera; check landmarks and K")
    return initial


def _ith(params: HandParams, i: int) -> HandParams:
    return params.map(lambda array: np.asarray(array[i], float))


_PARAMS = ("global_orient", "hand_pose", "betas", "transl_m")
