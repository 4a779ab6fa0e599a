"""Levenberg-Marquardt on one hand's joints, with the derivatives written out; numba compiles them.

Unknowns (61): the wrist's position (3), a rotation of the hand (3), flexion, abduction and twist of 15 joints (45) and
betas (10). A point of the hand is attached to one of the 16 joints: x = p_j + R_j (offset + dirs betas). Its
derivatives are cross products with the joints' axes; only 25 of the 61 are not zero, those of its own finger.

Everything is in the camera's frame, image points are x / z and y / z, and residuals are in units of their standard
deviations.
"""

from __future__ import annotations

import numpy as np

from utnet.fit.solver_steps import BETAS, NUM_LOCAL, NUM_UNKNOWNS, PARENT, normal_equations, pose, solve

_MAX_TURN_RAD = 0.6
"""Largest step of an angle for which the linearisation holds."""
_TOLERANCE = 1e-4
"""Relative decrease of the cost below which the iteration stops."""


def solve_hand(
    wrist,
    root,
    angles,
    betas,
    rest,
    rest_dirs,
    axes,
    joint,
    offset,
    dirs,
    seen,
    bones,
    surface,
    limits,
    rest_pose,
    pose_precision,
    shape,
    num_free,
    steps,
    outlier,
):
    """Fits one hand.

    Args:
        wrist: (3,) initial position of the wrist, camera frame.
        root: (3, 3) initial rotation, hand to camera.
        angles: (15, 3) flexion, abduction, twist in radians.
        betas: (10,).
        rest: (16, 3) rest joints, and rest_dirs (16, 3, 10) their blendshapes.
        axes: (15, 3, 3) unit axes of flexion, abduction and twist, rest frame.
        joint: (P,) joint of each point; the first 21 are the landmarks, the others points of the skin.
        offset: (P, 3) from that joint, rest frame, and dirs (P, 3, 10) their blendshapes.
        seen: (21, 4) x / z and y / z of the landmarks, inverse standard deviation of the part of the error not shared
            with the previous landmark of the finger (0: not visible), and the share of that landmark's error that is
            repeated (0 without one).
        bones: (20, 5) unit direction to each landmark from its parent, and inverse standard deviations of its x and y
            and of its z (both 0: not known).
        surface: (P - 21, 7) measured point, unit normal, inverse standard deviation.
        limits: (3, 15, 3) lower limits, upper limits (rad) and inverse softness of both.
        rest_pose: (45,) expected angles (flexion, abduction, twist of each joint in turn).
        pose_precision: (45, 45) inverse covariance of the angles about them; symmetric.
        shape: (10,) expected betas, with unit variance.
        num_free: 61, or 51 to keep the betas.
        steps: maximum number of steps.
        outlier: scale of Cauchy's loss in standard deviations.

    Returns:
        wrist, root, angles, betas, the cost, and the lower triangle of the (61, 61) normal matrix at the solution.
    """
    problem = Problem(
        (rest, rest_dirs, axes, joint, offset, dirs),
        (seen, bones, surface, limits, rest_pose, pose_precision, shape, outlier * outlier),
    )
    state = np.concatenate([wrist, np.zeros(3), angles.ravel(), betas])
    H, g = np.empty((NUM_UNKNOWNS, NUM_UNKNOWNS)), np.empty(NUM_UNKNOWNS)
    new_H, new_g = np.empty_like(H), np.empty_like(g)
    step, L = np.zeros(NUM_UNKNOWNS), np.zeros((num_free, num_free))
    cost = problem.normal_equations(state, root, H, g)
    damping, done = 1e-3, 0
    while done < steps and damping < 1e6:
        done += 1
        solve(H, g, damping, L, step)
        largest = np.abs(step[3:BETAS]).max()
        new_state = state + min(1.0, _MAX_TURN_RAD / (largest + 1e-12)) * step
        new_cost = problem.normal_equations(new_state, root, new_H, new_g)
        if not new_cost < cost:  # also true of NaN: a hand behind the camera
            damping *= 5.0
            continue
        gain, cost = cost - new_cost, new_cost
        state, root = new_state, problem.root
        state[3:6] = 0.0
        H, new_H, g, new_g = new_H, H, new_g, g
        damping = max(damping * 0.2, 1e-7)
        if gain < _TOLERANCE * cost + 1e-9:
            break
    return state[:3], root, state[6:BETAS].reshape(15, 3), state[BETAS:], cost, H


def pose_joints(wrist, root, angles, betas, rest, rest_dirs, axes):
    """Forward kinematics of arguments as in `solve_hand`: positions (16, 3) and rotations (16, 3, 3), camera frame."""
    chain = _Chain(rest, rest_dirs, axes)
    chain.pose(np.concatenate([wrist, np.zeros(3), np.ravel(angles), betas]), np.ascontiguousarray(root))
    return chain.places, chain.turns[::3].copy()


class _Chain:
    """Joints of a hand, posed.

    Attributes:
        places: (16, 3) positions, camera frame.
        turns: (46, 3, 3) rotations: the wrist's, then each joint's after abduction, flexion and twist.
        turned: (15, 3, 3) axes of flexion, abduction and twist in the camera frame.
        moves: (16, 3, 10) derivatives of the positions by the betas.
    """

    def __init__(self, rest, rest_dirs, axes):
        self._rest = (rest - rest[PARENT], rest_dirs - rest_dirs[PARENT], axes)
        self._rotation, self._bone = np.empty((3, 3)), np.empty(3)
        self.places, self.turns, self.turned = np.empty((16, 3)), np.empty((46, 3, 3)), np.empty((15, 3, 3))
        self.moves = np.zeros(rest_dirs.shape)

    def pose(self, state, root):
        """Poses the hand: state (61,) as the unknowns, with a rotation vector (the step's) that turns root (3, 3)."""
        pose(state, root, *self._rest, self._rotation, self._bone, self.places, self.turns, self.turned, self.moves)


class Problem:
    """What one hand is fitted to, and buffers.

    Args:
        model: rest, rest_dirs, axes, joint, offset, dirs of `solve_hand`.
        observed: its seen, bones, surface, limits, rest_pose, pose_precision, shape and the square of outlier.
    """

    def __init__(self, model, observed):
        *rest, joint, offset, dirs = model
        chain, num = _Chain(*rest), len(joint)
        self._chain, self._observed = chain, observed
        self._posed = chain.places, chain.turns, chain.turned, chain.moves
        self._points = joint, np.where(joint > 0, (joint - 1) // 3, 5), offset, dirs
        self._x, self._J = np.empty((num, 3)), np.zeros((num, 3, NUM_LOCAL))
        self._blocks, self._sums = np.empty((6, NUM_LOCAL, NUM_LOCAL)), np.empty((6, NUM_LOCAL))
        self._buffers = self._x, self._J, self._blocks, self._sums, np.empty(NUM_LOCAL), np.empty(45)

    @property
    def root(self):
        """(3, 3) root with the last state's turn."""
        return self._chain.turns[0].copy()

    def normal_equations(self, state, root, H, g):
        """Writes the robustly weighted sums of J^T J and J^T e into H (61, 61; lower triangle) and g (61,), and returns
        the cost. state (61,) and root (3, 3) are as in `_Chain.pose`."""
        for sums in (self._blocks, self._sums, H, g):
            sums.fill(0.0)
        self._chain.pose(state, root)
        return normal_equations(state, self._posed, self._points, self._observed, self._buffers, H, g)
