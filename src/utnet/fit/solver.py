"""Levenberg-Marquardt on one hand's joints, with the derivatives written out; its steps are compiled by numba.

Unknowns (61): the wrist's position (3), a rotation of the hand (3), flexion, abduction and twist of 15 joints (45) and
betas (10). A point of the hand is attached to one of the 16 joints: x = p_j + R_j (offset + dirs betas). Its
derivatives are cross products with the joints' axes; only 25 of the 61 are not zero, those of its own finger.

Everything is in the camera's frame, image points are x / z and y / z, and residuals are in units of their standard
deviations.
"""

from __future__ import annotations

import numpy as np

from utnet.compiled import njit

NUM_UNKNOWNS = 61
_BETAS = 51  # the first of the 10 betas among the unknowns
_LOCAL = 25  # of a finger: wrist 3, turn 3, its angles 9, betas 10

_MAX_TURN_RAD = 0.6
"""Largest step of an angle for which the linearisation holds."""
_TOLERANCE = 1e-4
"""Relative decrease of the cost below which the iteration stops."""

# All in one file: numba's cache does not notice changes in other modules that compiled code calls.
# Plain loops over scalars: array expressions, products and slices take three times as long to compile on the first run.
# The iteration is Python's, since numba optimises what a kernel calls once more with it; kernels that only kernels call
# are compiled without Python's entry. Together the first call compiles for 6 s instead of 9; a fit takes as long.
_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}


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
    H, g = np.zeros((NUM_UNKNOWNS, NUM_UNKNOWNS)), np.zeros(NUM_UNKNOWNS)
    new_H, new_g = np.zeros((NUM_UNKNOWNS, NUM_UNKNOWNS)), np.zeros(NUM_UNKNOWNS)
    step = np.zeros(NUM_UNKNOWNS)
    new_wrist, new_root = np.empty(3), np.empty((3, 3))
    new_angles, new_betas = np.empty((15, 3)), np.empty(betas.size)
    model = (rest, rest_dirs, axes, joint, offset, dirs)
    observed = (seen, bones, surface, limits, rest_pose, pose_precision, shape, outlier * outlier)
    cost = _normal_equations(wrist, root, angles, betas, model, observed, H, g)
    damping, done = 1e-3, 0
    while done < steps and damping < 1e6:
        done += 1
        _solve(H, g, damping, num_free, step)
        _move(wrist, root, angles, betas, step, new_wrist, new_root, new_angles, new_betas)
        new_cost = _normal_equations(new_wrist, new_root, new_angles, new_betas, model, observed, new_H, new_g)
        if not new_cost < cost:  # also true of NaN: a hand behind the camera
            damping *= 5.0
            continue
        gain, cost = cost - new_cost, new_cost
        wrist, root, angles, betas = new_wrist, new_root, new_angles, new_betas
        new_wrist, new_root = np.empty(3), np.empty((3, 3))
        new_angles, new_betas = np.empty((15, 3)), np.empty(betas.size)
        H, new_H, g, new_g = new_H, H, new_g, g
        damping = max(damping * 0.2, 1e-7)
        if gain < _TOLERANCE * cost + 1e-9:
            break
    return wrist, root, angles, betas, cost, H


@njit()
def _move(wrist, root, angles, betas, step, new_wrist, new_root, new_angles, new_betas):
    """Applies one step, shortened where an angle would change by more than `_MAX_TURN_RAD`."""
    largest = 0.0
    for k in range(3, _BETAS):
        largest = max(largest, abs(step[k]))
    share = min(1.0, _MAX_TURN_RAD / (largest + 1e-12))
    for k in range(3):
        new_wrist[k] = wrist[k] + share * step[k]
    _multiply(_rotation(share * step[3], share * step[4], share * step[5]), root, new_root)
    for j in range(15):
        for which in range(3):
            new_angles[j, which] = angles[j, which] + share * step[6 + 3 * j + which]
    for k in range(betas.size):
        new_betas[k] = betas[k] + share * step[_BETAS + k]


@njit()
def pose_joints(wrist, root, angles, betas, rest, rest_dirs, axes):
    """Forward kinematics: positions (16, 3), rotations (16, 3, 3), the joints' axes in the camera frame (15, 3, 3) and
    derivatives of the positions by the betas (16, 3, 10)."""
    num_betas = betas.size
    places, R = np.empty((16, 3)), np.empty((16, 3, 3))
    turned, moves = np.empty((15, 3, 3)), np.zeros((16, 3, num_betas))
    for c in range(3):
        places[0, c] = wrist[c]
        for k in range(3):
            R[0, c, k] = root[c, k]
    bone, bone_dirs, between = np.empty(3), np.empty((3, num_betas)), np.empty((2, 3, 3))
    for j in range(1, 16):
        parent = 0 if j % 3 == 1 else j - 1
        for c in range(3):
            bone[c] = rest[j, c] - rest[parent, c]
            for k in range(num_betas):
                bone_dirs[c, k] = rest_dirs[j, c, k] - rest_dirs[parent, c, k]
                bone[c] += bone_dirs[c, k] * betas[k]
        before = R[parent]
        for c in range(3):
            places[j, c] = places[parent, c] + _dot(before[c], bone)
            for k in range(num_betas):
                moved = before[c, 0] * bone_dirs[0, k] + before[c, 1] * bone_dirs[1, k] + before[c, 2] * bone_dirs[2, k]
                moves[j, c, k] = moves[parent, c, k] + moved
        for turn in range(3):
            which = (1, 0, 2)[turn]  # abduction, then flexion, then twist
            axis, angle = axes[j - 1, which], angles[j - 1, which]
            for c in range(3):
                turned[j - 1, which, c] = _dot(before[c], axis)
            after = R[j] if turn == 2 else between[turn]
            _multiply(before, _rotation(axis[0] * angle, axis[1] * angle, axis[2] * angle), after)
            before = after
    return places, R, turned, moves


@njit()
def _normal_equations(wrist, root, angles, betas, model, observed, H, g):
    """Fills H and g with the robustly weighted sums of J^T J and J^T e, and returns the cost."""
    rest, rest_dirs, axes, joint, offset, dirs = model
    seen, bones, surface, limits, rest_pose, pose_precision, shape, outlier2 = observed
    H.fill(0.0)
    g.fill(0.0)
    posed = pose_joints(wrist, root, angles, betas, rest, rest_dirs, axes)
    cost = _add_priors(angles, betas, limits, rest_pose, pose_precision, shape, H, g)
    num = joint.size
    x, J = np.empty((num, 3)), np.empty((num, 3, _LOCAL))
    for i in range(num):
        _place(posed, betas, joint[i], offset[i], dirs[i], x[i], J[i])
        if not x[i, 2] > 1e-3:
            return np.nan
    block, right = np.zeros((6, _LOCAL, _LOCAL)), np.zeros((6, _LOCAL))  # MANO's fingers and one for the wrist
    row, bone, turn = np.empty(_LOCAL), np.empty(3), np.empty((3, _LOCAL))
    for i in range(21):
        of = (joint[i] - 1) // 3 if i > 0 else 5
        if seen[i, 2] > 0.0:
            before = i - 1 if seen[i, 3] != 0.0 else i
            last = (x[before], J[before], seen[before])
            cost += _add_image_point(x[i], J[i], seen[i], last, outlier2, row, block[of], right[of])
        if i > 0 and bones[i - 1, 4] > 0.0:
            parent = 0 if i % 4 == 1 else i - 1
            for c in range(3):
                bone[c] = x[i, c] - x[parent, c]
                for a in range(_LOCAL):
                    turn[c, a] = J[i, c, a] - J[parent, c, a]
            cost += _add_bone(bone, turn, bones[i - 1], outlier2, row, block[of], right[of])
    for i in range(21, num):
        of = (joint[i] - 1) // 3 if joint[i] > 0 else 5
        cost += _add_reading(x[i], J[i], surface[i - 21], outlier2, row, block[of], right[of])
    for of in range(6):
        _scatter(of, block[of], right[of], H, g)
    return cost


@njit(**_INNER)
def _place(posed, betas, j, offset, dirs, x, J):
    """Writes a point attached to joint `j` into x (3,), camera frame, and its derivatives into J (3, 25)."""
    places, R, turned, moves = posed
    J.fill(0.0)
    arm = np.empty(3)
    for c in range(3):
        arm[c] = offset[c]
        for k in range(betas.size):
            arm[c] += dirs[c, k] * betas[k]
    for c in range(3):
        x[c] = places[j, c] + _dot(R[j, c], arm)
        J[c, c] = 1.0
        for k in range(betas.size):
            own = R[j, c, 0] * dirs[0, k] + R[j, c, 1] * dirs[1, k] + R[j, c, 2] * dirs[2, k]
            J[c, 15 + k] = moves[j, c, k] + own
    a0, a1, a2 = x[0] - places[0, 0], x[1] - places[0, 1], x[2] - places[0, 2]
    J[0, 4], J[0, 5], J[1, 3], J[1, 5], J[2, 3], J[2, 4] = a2, -a1, -a2, a0, a1, -a0
    if j == 0:
        return
    first = 3 * ((j - 1) // 3) + 1
    for k in range(first, j + 1):
        a0, a1, a2 = x[0] - places[k, 0], x[1] - places[k, 1], x[2] - places[k, 2]
        for which in range(3):
            axis, column = turned[k - 1, which], 6 + 3 * (k - first) + which
            J[0, column] = axis[1] * a2 - axis[2] * a1
            J[1, column] = axis[2] * a0 - axis[0] * a2
            J[2, column] = axis[0] * a1 - axis[1] * a0


@njit(**_INNER)
def _add_image_point(x, J, seen, last, outlier2, row, block, right):
    """Residual of a landmark in the picture, less the repeated share of the previous landmark's."""
    before, J_before, seen_before = last
    inv_z, inv_before, weight, repeated = 1.0 / x[2], 1.0 / before[2], seen[2], seen[3]
    squared = 0.0
    for c in range(2):
        error = x[c] * inv_z - seen[c] - repeated * (before[c] * inv_before - seen_before[c])
        squared += (error * weight) ** 2
    share, cost = _cauchy(squared, outlier2)
    weight *= share
    for c in range(2):
        u, v = x[c] * inv_z, before[c] * inv_before
        for a in range(_LOCAL):
            row[a] = (J[c, a] - u * J[2, a]) * (inv_z * weight)
            if repeated != 0.0:
                row[a] -= (J_before[c, a] - v * J_before[2, a]) * (inv_before * weight * repeated)
        error = u - seen[c] - repeated * (v - seen_before[c])
        _accumulate(row, error * weight, block, right)
    return cost


@njit(**_INNER)
def _add_bone(bone, J, wanted, outlier2, row, block, right):
    """Residual of a bone's direction, independent of its length."""
    length = np.sqrt(_dot(bone, bone))
    squared = 0.0
    for c in range(3):
        squared += ((bone[c] / length - wanted[c]) * wanted[3 if c < 2 else 4]) ** 2
    share, cost = _cauchy(squared, outlier2)
    for c in range(3):
        weight = wanted[3 if c < 2 else 4] * share
        for a in range(_LOCAL):
            along = (bone[0] * J[0, a] + bone[1] * J[1, a] + bone[2] * J[2, a]) / length
            row[a] = (J[c, a] - bone[c] / length * along) * (weight / length)
        _accumulate(row, (bone[c] / length - wanted[c]) * weight, block, right)
    return cost


@njit(**_INNER)
def _add_reading(x, J, reading, outlier2, row, block, right):
    """Distance of the skin from a depth reading along the skin's normal."""
    normal, weight = reading[3:6], reading[6]
    error = (_dot(normal, x) - _dot(normal, reading)) * weight
    squared = error * error
    share, cost = _cauchy(squared, outlier2)
    for a in range(_LOCAL):
        row[a] = (normal[0] * J[0, a] + normal[1] * J[1, a] + normal[2] * J[2, a]) * (weight * share)
    _accumulate(row, error * share, block, right)
    return cost


@njit(**_INNER)
def _cauchy(squared, outlier2):
    """Factor of rows and residuals for Cauchy's loss, and the loss."""
    return np.sqrt(1.0 / (1.0 + squared / outlier2)), 0.5 * outlier2 * np.log1p(squared / outlier2)


@njit(**_INNER)
def _accumulate(row, error, block, right):
    for a in range(_LOCAL):
        if row[a] != 0.0:
            right[a] += row[a] * error
            for b in range(a + 1):
                block[a, b] += row[a] * row[b]


@njit(**_INNER)
def _scatter(finger, block, right, H, g):
    """Adds a finger's block (lower triangle; MANO's order, 5: the wrist, without angles) to H."""
    start = 6 + 9 * min(finger, 4)
    for a in range(_LOCAL):
        to = a if a < 6 else (start + a - 6 if a < 15 else _BETAS + a - 15)
        g[to] += right[a]
        for b in range(a + 1):
            H[to, b if b < 6 else (start + b - 6 if b < 15 else _BETAS + b - 15)] += block[a, b]


@njit(**_INNER)
def _add_priors(angles, betas, limits, rest_pose, pose_precision, shape, H, g):
    cost = 0.0
    off = np.empty(45)
    for j in range(15):
        for which in range(3):
            angle, at = angles[j, which], 3 * j + which
            off[at] = angle - rest_pose[at]
            weight = limits[2, j, which]
            over = (max(angle - limits[1, j, which], 0.0) + min(angle - limits[0, j, which], 0.0)) * weight
            if over != 0.0:
                cost += 0.5 * over * over
                g[6 + at] += over * weight
                H[6 + at, 6 + at] += weight * weight
    for i in range(45):
        pull = 0.0
        for k in range(45):
            pull += pose_precision[i, k] * off[k]
        for k in range(i + 1):
            H[6 + i, 6 + k] += pose_precision[i, k]
        cost += 0.5 * off[i] * pull
        g[6 + i] += pull
    for k in range(betas.size):
        error = betas[k] - shape[k]
        cost += 0.5 * error * error
        g[_BETAS + k] += error
        H[_BETAS + k, _BETAS + k] += 1.0
    return cost


@njit()
def _solve(H, g, damping, num_free, step):
    """step = -(H + damping diag H)^-1 g over the first unknowns, 0 for the others (Cholesky; H's lower triangle)."""
    L = np.zeros((num_free, num_free))
    step.fill(0.0)
    for i in range(num_free):
        for j in range(i + 1):
            total = H[i, j] if i != j else H[i, i] * (1.0 + damping) + 1e-9
            for k in range(j):
                total -= L[i, k] * L[j, k]
            L[i, j] = np.sqrt(max(total, 1e-12)) if i == j else total / L[j, j]
    for i in range(num_free):
        total = -g[i]
        for k in range(i):
            total -= L[i, k] * step[k]
        step[i] = total / L[i, i]
    for i in range(num_free - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, num_free):
            total -= L[k, i] * step[k]
        step[i] = total / L[i, i]


@njit(**_INNER)
def _rotation(x, y, z):
    """(3, 3) of a rotation vector: Rodrigues' formula, finite at 0."""
    squared = x * x + y * y + z * z
    angle = np.sqrt(squared)
    s = np.sin(angle) / angle if angle > 1e-8 else 1.0
    t = (1.0 - np.cos(angle)) / squared if angle > 1e-4 else 0.5
    R = np.empty((3, 3))
    R[0, 0], R[0, 1], R[0, 2] = 1.0 - t * (y * y + z * z), t * x * y - s * z, t * x * z + s * y
    R[1, 0], R[1, 1], R[1, 2] = t * x * y + s * z, 1.0 - t * (x * x + z * z), t * y * z - s * x
    R[2, 0], R[2, 1], R[2, 2] = t * x * z - s * y, t * y * z + s * x, 1.0 - t * (x * x + y * y)
    return R


@njit(**_INNER)
def _multiply(A, B, out):
    for i in range(3):
        for j in range(3):
            out[i, j] = A[i, 0] * B[0, j] + A[i, 1] * B[1, j] + A[i, 2] * B[2, j]


@njit(**_INNER)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
