"""Assignment: the least sum of all, for any shape."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from utnet.detect.assignment import assign


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (1, 1), (4, 4), (2, 7), (7, 2), (9, 8)])
def test_the_sum_is_least(shape):
    rng = np.random.default_rng(sum(shape))
    for scale in (1.0, 4.0):  # with and without ties
        for _ in range(40):
            cost = rng.random(shape) if scale == 1 else np.round(scale * rng.random(shape)) - 1
            pairs = assign(cost)
            assert len(pairs) == min(shape)
            for axis in (0, 1):
                assert len({pair[axis] for pair in pairs}) == len(pairs)
            assert sum(cost[pair] for pair in pairs) == pytest.approx(cost[linear_sum_assignment(cost)].sum())
