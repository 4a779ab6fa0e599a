"""Pairs of rows and columns of least total cost."""

from __future__ import annotations

import numpy as np


def assign(cost: np.ndarray) -> list[tuple[int, int]]:
    """The min(M, N) pairs (row, column) of an (M, N) matrix of finite costs, each row and column in one pair at most,
    with the least sum; by rows.

    Source: shortest augmenting paths with potentials (Jonker and Volgenant 1987), one row after another.
    """
    if cost.shape[0] > cost.shape[1]:
        return sorted((row, column) for column, row in assign(cost.T))
    rows, columns = cost.shape
    of_row, of_column = np.zeros(rows), np.zeros(columns)  # potentials: reduced costs stay at 0 or above
    owner = np.full(columns, -1)
    for row in range(rows):
        distance, before = np.full(columns, np.inf), np.full(columns, -1)
        done = np.zeros(columns, bool)
        last, at, reached = -1, row, 0.0  # the path's last column, that column's row, and the path's length
        while True:
            through = reached + cost[at] - of_row[at] - of_column
            shorter = ~done & (through < distance)
            distance[shorter], before[shorter] = through[shorter], last
            last = int(np.argmin(np.where(done, np.inf, distance)))
            reached, done[last] = distance[last], True
            if owner[last] < 0:
                break
            at = owner[last]
        passed = np.flatnonzero(done)
        of_row[row] += reached
        owned = passed[owner[passed] >= 0]
        of_row[owner[owned]] += reached - distance[owned]
        of_column[passed] -= reached - distance[passed]
        while last >= 0:
            owner[last] = row if before[last] < 0 else owner[before[last]]
            last = before[last]
    return sorted((int(owner[column]), int(column)) for column in np.flatnonzero(owner >= 0))
