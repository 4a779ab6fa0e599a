"""The outline of a mask in the fit."""

from dataclasses import replace

import numpy as np
import pytest

from support.fitting import K, error_mm, scene
from utnet.fit import HandFitter
from utnet.fit.outline import HandMask, read_outline
from utnet.geometry import box_of, project
from utnet.render.raster import rasterize
from utnet.types import HandParams

CELLS, FINE = 24, 4


@pytest.fixture(scope="module")
def fitter():
    return HandFitter(landmarks="joints")


def mask_of(fitter, params, i, moved_cells=(0.0, 0.0), hidden=None):
    """The mask of a hand's mesh as a network gives it, in a crop 1.5 times its box; `hidden`: a slice of columns."""
    one = params.map(lambda array: array[i])
    joints, vertices = fitter.model.decode(one)
    box = box_of(project(joints + one.transl_m, K))
    side = 1.5 * (box[2:] - box[:2]).max()
    scale, corner = CELLS / side, (box[:2] + box[2:]) / 2 - side / 2
    to_cells = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]], [0, 0, 1]]) @ K
    fine = np.array([[FINE, 0, (FINE - 1) / 2], [0, FINE, (FINE - 1) / 2], [0, 0, 1]]) @ to_cells
    drawn = rasterize(vertices + one.transl_m, fitter.model.arrays.faces, fine, (CELLS * FINE, CELLS * FINE)).mask
    drawn = np.roll(drawn, np.round(np.multiply(moved_cells, FINE)).astype(int), (1, 0))
    share = drawn.reshape(CELLS, FINE, CELLS, FINE).mean((1, 3)).clip(0.02, 0.98)
    if hidden is not None:
        share[:, hidden] = 0.02
    return HandMask(np.log(share / (1 - share)), to_cells)


def readings_of(fitter, params, i, mask):
    one = params.map(lambda array: array[i])
    vertices = fitter.model.decode(one)[1] + one.transl_m
    posed = (one.transl_m + np.zeros((16, 3)), np.tile(np.eye(3), (16, 1, 1)))
    return read_outline(
        vertices, fitter.model.arrays, mask, look=np.eye(3), posed=posed, betas=one.betas
    ), vertices  # fmt: skip


def test_the_outline_of_the_hand_itself_is_where_it_is(fitter):
    """Distances of the skin from the planes of its own mask are a fraction of a cell; of a moved mask they are more."""
    params = scene(6)[0]
    for i in range(6):
        own, moved = (
            readings_of(fitter, params, i, mask_of(fitter, params, i, moved_cells=by))[0] for by in ((0, 0), (0.5, 0))
        )
        assert len(own.joint) > 60
        at = [surface.offset + params.transl_m[i] for surface in (own, moved)]
        off = [np.abs((s.readings[:, 3:6] * x).sum(1)) for s, x in zip((own, moved), at, strict=True)]
        assert np.median(off[0]) < 0.5 * np.median(off[1])
        np.testing.assert_allclose(np.linalg.norm(own.readings[:, 3:6], axis=1), 1.0)
        assert not own.readings[:, :3].any()


def test_a_mask_improves_landmarks_that_are_off(fitter):
    """Whole fingers moved aside in the picture, as a detector's errors are."""
    params, joints, (px, xyz, K_px) = scene(10)
    rng = np.random.default_rng(0)
    shift = np.repeat(rng.normal(0, 5.0, (10, 6, 2)), [1, 4, 4, 4, 4, 4], axis=1)
    masks = [mask_of(fitter, params, i) for i in range(10)]
    given = {"betas": params.betas, "expected": params}
    alone, masked = (fitter(px + shift, xyz, K_px, masks=m, **given) for m in (None, masks))
    assert error_mm(fitter, masked, joints).mean() < 0.75 * error_mm(fitter, alone, joints).mean()


def test_hands_are_fitted_one_by_one(fitter):
    params, _, (px, xyz, K_px) = scene(3)
    masks = [mask_of(fitter, params, 0), None, mask_of(fitter, params, 2)]
    together = fitter(px, xyz, K_px, masks=masks)
    for i in range(3):
        alone = fitter(px[i : i + 1], xyz[i : i + 1], K_px[i : i + 1], masks=masks[i : i + 1])
        for name in ("global_orient", "hand_pose", "transl_m"):
            np.testing.assert_allclose(getattr(alone, name)[0], getattr(together, name)[i], atol=1e-9)


def test_an_object_in_front_does_not_pull_what_it_hides(fitter):
    """Fingers that the object hides, farther than two cells from its edge, stay where the landmarks are."""
    params, joints, (px, xyz, K_px) = scene(6)
    half = [mask_of(fitter, params, i, hidden=slice(0, CELLS // 2)) for i in range(6)]
    given = {"betas": params.betas, "expected": params}
    off = error_mm(fitter, fitter(px, xyz, K_px, masks=half, **given), joints)
    cells = np.stack([project(joints[i], mask.K_px)[:, 0] for i, mask in enumerate(half)])
    deep = cells < CELLS // 2 - 2.5
    assert deep.sum() > 15
    assert off[deep].mean() < 1.5


def test_an_empty_mask_changes_nothing(fitter):
    params, _, (px, xyz, K_px) = scene(2)
    other = scene(2, seed=9)[0]
    given = {"expected": HandParams(params.global_orient, other.hand_pose, params.betas, params.transl_m)}
    nothing = [HandMask(np.full((CELLS, CELLS), -9.0), mask_of(fitter, params, i).K_px) for i in range(2)]
    without, empty = (fitter(px, xyz, K_px, masks=m, **given) for m in (None, nothing))
    for name in HandParams.__dataclass_fields__:
        np.testing.assert_allclose(getattr(without, name), getattr(empty, name), atol=1e-9)


def test_the_picture_s_border_is_no_outline(fitter):
    """Outside of the picture crops are black, so masks end at its border."""
    params = scene(6)[0]
    for i, column in ((0, 8), (2, 10), (5, 12)):
        mask = mask_of(fitter, params, i, hidden=slice(0, column))
        cut = replace(mask, known=np.array([column - 0.5, -np.inf, np.inf, np.inf]))
        outside = []
        for each in (mask, cut):
            surface = readings_of(fitter, params, i, each)[0]
            cells = project(surface.offset + params.transl_m[i], mask.K_px)[:, 0]
            outside.append((cells < column - 0.25).sum())
        assert outside[0] > 0
        assert outside[1] == 0


BAD_MASKS = {
    "count": None,
    "another type": {},
    "shape": {"logit": np.ones(CELLS)},
    "inf": {"logit": np.full((CELLS, CELLS), np.inf)},
    "bool": {"logit": np.ones((CELLS, CELLS), bool)},
    "list": {"logit": [[1.0]]},
    "too many cells": {"logit": np.ones((1, 2000))},
    "no camera": {"K_px": np.full((3, 3), np.nan)},
    "a camera of another shape": {"K_px": np.eye(4)},
    "known": {"known": np.full(4, np.nan)},
}


@pytest.mark.parametrize("wrong", BAD_MASKS)
def test_bad_masks_are_refused(fitter, wrong):
    params, _, landmarks = scene(2)
    masks = [mask_of(fitter, params, i) for i in range(2)]
    if wrong == "count":
        masks = masks[:1]
    elif wrong == "another type":
        masks[0] = masks[0].logit
    else:
        masks[0] = replace(masks[0], **BAD_MASKS[wrong])
    with pytest.raises(ValueError, match="masks"):
        fitter(*landmarks, masks=masks)
