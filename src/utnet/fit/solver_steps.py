"""One step of the fit's solver: the pose, the normal equations with their derivatives written out, and their solution.

All in one file: numba's cache does not notice changes in other modules that compiled code calls. What the first run
compiles is kept small, since every statement costs a millisecond or more:

- plain loops over scalars, indices in place of slices and tuples, no remainders;
- buffers from the caller: numba compiles its `zeros`, `fill`, `max` and `**` before their first use;
- helpers that are called once are inlined before types are inferred: LLVM would optimise them by themselves, and again
  with the kernel that calls them.
"""

from __future__ import annotations

import numpy as np

from utnet.compiled import njit

NUM_UNKNOWNS = 61
BETAS = 51  # the first of the 10 betas among the unknowns
NUM_LOCAL = 25  # of a finger: wrist 3, turn 3, its angles 9, betas 10

_COLUMNS = np.array(
    [[*range(6), *range(start, start + 9), *range(BETAS, NUM_UNKNOWNS)] for start in (6, 15, 24, 33, 42, 42)]
)
"""(6, 25) unknowns of each finger's block, MANO's order; the last is the wrist's, whose angles are zero."""
PARENT = np.array([0, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14])
"""(16,) MANO's parent of each joint."""
_BEFORE = np.array([i if i % 4 != 1 else 1 for i in range(21)]) - 1
"""(21,) previous landmark of the finger; of the wrist none."""

_INNER = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
_INLINED = {"inline": "always"}


@njit()
def pose(state, root, rest_bones, bone_dirs, axes, rotation, bone, places, turns, turned, moves):
    """Writes what `_Chain` describes; rest_bones (16, 3) and bone_dirs (16, 3, 10) are from each joint's parent."""
    _rotation(state[3], state[4], state[5], rotation)
    for c in range(3):
        places[0, c] = state[c]
        for k in range(3):
            turns[0, c, k] = rotation[c, 0] * root[0, k] + rotation[c, 1] * root[1, k] + rotation[c, 2] * root[2, k]
    for j in range(1, 16):
        parent = PARENT[j]
        before = 3 * parent
        for c in range(3):
            bone[c] = rest_bones[j, c]
            for k in range(moves.shape[2]):
                bone[c] += bone_dirs[j, c, k] * state[BETAS + k]
        for c in range(3):
            r0 = turns[before, c, 0]
            r1 = turns[before, c, 1]
            r2 = turns[before, c, 2]
            places[j, c] = places[parent, c] + (r0 * bone[0] + r1 * bone[1] + r2 * bone[2])
            for k in range(moves.shape[2]):
                moved = r0 * bone_dirs[j, 0, k] + r1 * bone_dirs[j, 1, k] + r2 * bone_dirs[j, 2, k]
                moves[j, c, k] = moves[parent, c, k] + moved
        for turn in range(3):
            which = 1 - turn if turn < 2 else 2  # abduction, then flexion, then twist
            ax = axes[j - 1, which, 0]
            ay = axes[j - 1, which, 1]
            az = axes[j - 1, which, 2]
            angle = state[3 + 3 * j + which]
            _rotation(ax * angle, ay * angle, az * angle, rotation)
            after = 3 * j - 2 + turn
            for c in range(3):
                r0 = turns[before, c, 0]
                r1 = turns[before, c, 1]
                r2 = turns[before, c, 2]
                turned[j - 1, which, c] = r0 * ax + r1 * ay + r2 * az
                for k in range(3):
                    turns[after, c, k] = r0 * rotation[0, k] + r1 * rotation[1, k] + r2 * rotation[2, k]
            before = after


@njit()
def normal_equations(state, posed, points, observed, buffers, H, g):
    """`Problem.normal_equations` of a posed hand; H, g, blocks and sums are zero before."""
    joint, finger, offset, dirs = points
    seen, bones, surface, limits, rest_pose, pose_precision, shape, outlier2 = observed
    x, J, blocks, sums, row, off = buffers
    cost = _add_priors(state, limits, rest_pose, pose_precision, shape, off, H, g)
    for i in range(joint.size):
        _place(state, posed, joint[i], finger[i], offset, dirs, i, x, J)
        if not x[i, 2] > 1e-3:
            return np.nan
    for i in range(21):
        if seen[i, 2] > 0.0:
            cost += _add_image_point(x, J, seen, i, outlier2, row, blocks, sums, finger[i])
        if i > 0 and bones[i - 1, 4] > 0.0:
            cost += _add_bone(x, J, bones, i, outlier2, row, blocks, sums, finger[i])
    for i in range(21, joint.size):
        cost += _add_reading(x, J, surface, i, outlier2, row, blocks, sums, finger[i])
    for of in range(6):
        for a in range(NUM_LOCAL):
            to = _COLUMNS[of, a]
            g[to] += sums[of, a]
            for b in range(a + 1):
                H[to, _COLUMNS[of, b]] += blocks[of, a, b]
    return cost


@njit(**_INLINED)
def _place(state, posed, j, finger, offset, dirs, i, x, J):
    """Writes point i, attached to joint j, into x, camera frame, and its derivatives (3, 25) into J; what no state
    changes there is zero before."""
    places, turns, turned, moves = posed
    arm0 = offset[i, 0]
    arm1 = offset[i, 1]
    arm2 = offset[i, 2]
    for k in range(moves.shape[2]):
        beta = state[BETAS + k]
        arm0 += dirs[i, 0, k] * beta
        arm1 += dirs[i, 1, k] * beta
        arm2 += dirs[i, 2, k] * beta
    for c in range(3):
        r0 = turns[3 * j, c, 0]
        r1 = turns[3 * j, c, 1]
        r2 = turns[3 * j, c, 2]
        x[i, c] = places[j, c] + (r0 * arm0 + r1 * arm1 + r2 * arm2)
        J[i, c, c] = 1.0
        for k in range(moves.shape[2]):
            J[i, c, 15 + k] = moves[j, c, k] + (r0 * dirs[i, 0, k] + r1 * dirs[i, 1, k] + r2 * dirs[i, 2, k])
    a0 = x[i, 0] - places[0, 0]
    a1 = x[i, 1] - places[0, 1]
    a2 = x[i, 2] - places[0, 2]
    J[i, 0, 4] = a2
    J[i, 0, 5] = -a1
    J[i, 1, 3] = -a2
    J[i, 1, 5] = a0
    J[i, 2, 3] = a1
    J[i, 2, 4] = -a0
    first = 3 * finger + 1  # after j for points of the wrist
    for k in range(first, j + 1):
        a0 = x[i, 0] - places[k, 0]
        a1 = x[i, 1] - places[k, 1]
        a2 = x[i, 2] - places[k, 2]
        for which in range(3):
            b0 = turned[k - 1, which, 0]
            b1 = turned[k - 1, which, 1]
            b2 = turned[k - 1, which, 2]
            column = 6 + 3 * (k - first) + which
            J[i, 0, column] = b1 * a2 - b2 * a1
            J[i, 1, column] = b2 * a0 - b0 * a2
            J[i, 2, column] = b0 * a1 - b1 * a0


@njit(**_INLINED)
def _add_image_point(x, J, seen, i, outlier2, row, blocks, sums, finger):
    """Residual of a landmark in the picture, less the repeated share of the previous landmark's."""
    repeated = seen[i, 3]
    last = _BEFORE[i] if repeated != 0.0 else i
    inv_z = 1.0 / x[i, 2]
    inv_last = 1.0 / x[last, 2]
    squared = 0.0
    for c in range(2):
        error = x[i, c] * inv_z - seen[i, c] - repeated * (x[last, c] * inv_last - seen[last, c])
        squared += (error * seen[i, 2]) * (error * seen[i, 2])
    weight = seen[i, 2] * np.sqrt(1.0 / (1.0 + squared / outlier2))
    for c in range(2):
        u = x[i, c] * inv_z
        v = x[last, c] * inv_last
        for a in range(NUM_LOCAL):
            row[a] = (J[i, c, a] - u * J[i, 2, a]) * (inv_z * weight)
            if repeated != 0.0:
                row[a] -= (J[last, c, a] - v * J[last, 2, a]) * (inv_last * weight * repeated)
        error = u - seen[i, c] - repeated * (v - seen[last, c])
        _accumulate(row, error * weight, blocks, sums, finger)
    return 0.5 * outlier2 * np.log1p(squared / outlier2)


@njit(**_INLINED)
def _add_bone(x, J, bones, i, outlier2, row, blocks, sums, finger):
    """Residual of the direction of the bone that ends at landmark i, independent of its length."""
    last = _BEFORE[i]
    b0 = x[i, 0] - x[last, 0]
    b1 = x[i, 1] - x[last, 1]
    b2 = x[i, 2] - x[last, 2]
    length = np.sqrt(b0 * b0 + b1 * b1 + b2 * b2)
    squared = 0.0
    for c in range(3):
        error = ((x[i, c] - x[last, c]) / length - bones[i - 1, c]) * bones[i - 1, 3 if c < 2 else 4]
        squared += error * error
    share = np.sqrt(1.0 / (1.0 + squared / outlier2))
    for c in range(3):
        unit = (x[i, c] - x[last, c]) / length
        weight = bones[i - 1, 3 if c < 2 else 4] * share
        for a in range(NUM_LOCAL):
            d0 = J[i, 0, a] - J[last, 0, a]
            d1 = J[i, 1, a] - J[last, 1, a]
            d2 = J[i, 2, a] - J[last, 2, a]
            along = (b0 * d0 + b1 * d1 + b2 * d2) / length
            row[a] = (J[i, c, a] - J[last, c, a] - unit * along) * (weight / length)
        _accumulate(row, (unit - bones[i - 1, c]) * weight, blocks, sums, finger)
    return 0.5 * outlier2 * np.log1p(squared / outlier2)


@njit(**_INLINED)
def _add_reading(x, J, surface, i, outlier2, row, blocks, sums, finger):
    """Distance of the skin from a depth reading along the skin's normal."""
    s = i - 21
    n0 = surface[s, 3]
    n1 = surface[s, 4]
    n2 = surface[s, 5]
    weight = surface[s, 6]
    along = n0 * x[i, 0] + n1 * x[i, 1] + n2 * x[i, 2]
    error = (along - (n0 * surface[s, 0] + n1 * surface[s, 1] + n2 * surface[s, 2])) * weight
    squared = error * error
    share = np.sqrt(1.0 / (1.0 + squared / outlier2))
    for a in range(NUM_LOCAL):
        row[a] = (n0 * J[i, 0, a] + n1 * J[i, 1, a] + n2 * J[i, 2, a]) * (weight * share)
    _accumulate(row, error * share, blocks, sums, finger)
    return 0.5 * outlier2 * np.log1p(squared / outlier2)


@njit(**_INNER)
def _accumulate(row, error, blocks, sums, finger):
    for a in range(NUM_LOCAL):
        if row[a] != 0.0:
            sums[finger, a] += row[a] * error
            for b in range(a + 1):
                blocks[finger, a, b] += row[a] * row[b]


@njit(**_INLINED)
def _add_priors(state, limits, rest_pose, pose_precision, shape, off, H, g):
    cost = 0.0
    for j in range(15):
        for which in range(3):
            at = 3 * j + which
            angle = state[6 + at]
            off[at] = angle - rest_pose[at]
            over = 0.0
            if angle > limits[1, j, which]:
                over = (angle - limits[1, j, which]) * limits[2, j, which]
            elif angle < limits[0, j, which]:
                over = (angle - limits[0, j, which]) * limits[2, j, which]
            if over != 0.0:
                cost += 0.5 * over * over
                g[6 + at] += over * limits[2, j, which]
                H[6 + at, 6 + at] += limits[2, j, which] * limits[2, j, which]
    for i in range(45):
        pull = 0.0
        for k in range(45):
            pull += pose_precision[i, k] * off[k]
        for k in range(i + 1):
            H[6 + i, 6 + k] += pose_precision[i, k]
        cost += 0.5 * off[i] * pull
        g[6 + i] += pull
    for k in range(shape.size):
        error = state[BETAS + k] - shape[k]
        cost += 0.5 * error * error
        g[BETAS + k] += error
        H[BETAS + k, BETAS + k] += 1.0
    return cost


@njit()
def solve(H, g, damping, L, step):
    """step = -(H + damping diag H)^-1 g over the first unknowns, as many as L (N, N; overwritten) has; the others of
    step are left (Cholesky; H's lower triangle)."""
    num = L.shape[0]
    for i in range(num):
        for j in range(i):
            total = H[i, j]
            for k in range(j):
                total -= L[i, k] * L[j, k]
            L[i, j] = total / L[j, j]
        total = H[i, i] * (1.0 + damping) + 1e-9
        for k in range(i):
            total -= L[i, k] * L[i, k]
        L[i, i] = np.sqrt(total if total > 1e-12 else 1e-12)
    for i in range(num):
        total = -g[i]
        for k in range(i):
            total -= L[i, k] * step[k]
        step[i] = total / L[i, i]
    for i in range(num):
        i = num - 1 - i
        total = step[i]
        for k in range(i + 1, num):
            total -= L[k, i] * step[k]
        step[i] = total / L[i, i]


@njit(**_INNER)
def _rotation(x, y, z, R):
    """Writes the (3, 3) of a rotation vector: Rodrigues' formula, finite at 0."""
    squared = x * x + y * y + z * z
    angle = np.sqrt(squared)
    s = np.sin(angle) / angle if angle > 1e-8 else 1.0
    t = (1.0 - np.cos(angle)) / squared if angle > 1e-4 else 0.5
    R[0, 0] = 1.0 - t * (y * y + z * z)
    R[0, 1] = t * x * y - s * z
    R[0, 2] = t * x * z + s * y
    R[1, 0] = t * x * y + s * z
    R[1, 1] = 1.0 - t * (x * x + z * z)
    R[1, 2] = t * y * z - s * x
    R[2, 0] = t * x * z - s * y
    R[2, 1] = t * y * z + s * x
    R[2, 2] = 1.0 - t * (x * x + y * y)
