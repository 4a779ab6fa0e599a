"""Landmarks of unequal sureness: those that a person placed are followed, others give way."""

import numpy as np
import pytest

from support.fitting import decode, scene
from utnet.fit import HandFitter
from utnet.geometry import project
from utnet.predict.methods.landmarks import deviation_scale


@pytest.fixture(scope="module")
def fitter():
    return HandFitter(landmarks="joints")


def test_equal_deviations_change_nothing(fitter):
    _, _, seen = scene(3, seed=5, fitter=fitter)
    one, other = fitter.fit(*seen), fitter.fit(*seen, deviation_scale=np.ones((3, 21)))
    for name in ("global_orient", "hand_pose", "betas", "transl_m"):
        assert (getattr(one.params, name) == getattr(other.params, name)).all()


def test_a_finger_goes_where_a_person_puts_its_tip(fitter):
    """The detector has a whole finger wrong; one joint is put right."""
    num = 6
    _, joints, (points, relative, K) = scene(num, seed=6, fitter=fitter)
    wrong = points.copy()
    wrong[:, 6:9] += [25.0, -15.0]
    wrong[:, 8] = points[:, 8]
    scale = np.ones((num, 21))
    scale[:, 6:8], scale[:, 8] = 10.0, 0.4

    def error_px(**given):
        found, _ = decode(fitter, fitter.fit(wrong, relative, K, **given).params)
        return np.linalg.norm([project(a, k) - project(b, k) for a, b, k in zip(found, joints, K, strict=True)], axis=2)

    with_scale, without = error_px(deviation_scale=scale), error_px()
    assert np.median(with_scale[:, 8]) < 2
    assert with_scale[:, 6:8].mean() < 0.6 * without[:, 6:8].mean()
    others = [0, *range(1, 6), *range(9, 21)]
    assert with_scale[:, others].mean() < without[:, others].mean()


def test_wrong_deviations_are_refused(fitter):
    _, _, seen = scene(1, fitter=fitter)
    for scale in (np.ones((1, 20)), np.zeros((1, 21)), np.full((1, 21), np.nan)):
        with pytest.raises(ValueError, match="deviation_scale"):
            fitter.fit(*seen, deviation_scale=scale)


def test_deviations_follow_confidences():
    assert (deviation_scale(np.full(21, 0.3)) == 1).all()
    confidence = np.full(21, 0.4)
    confidence[[4, 8]] = 1.0, 0.1
    scale = deviation_scale(confidence)
    assert scale[4] < 1
    assert scale[8] == pytest.approx(4)
    assert (np.delete(scale, [4, 8]) == 1).all()
    assert (deviation_scale(np.ones(21)) < 1).all()
    confidence[12] = 0.0  # missing
    assert deviation_scale(confidence)[12] == 1
    assert (deviation_scale(np.zeros(21)) == 1).all()
