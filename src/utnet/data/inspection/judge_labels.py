"""Detection of labels in other conventions than UTNet's, from all labels of a set: joint order, side, units, axes,
camera, boxes, turned pictures.

Findings require a contradiction: labels that are only unusual (a hand at the edge, a wide lens, a crop with an
off-centre principal point) pass.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from utnet.conventions import MM_PER_M
from utnet.data.custom.custom_line import is_at_camera
from utnet.data.inspection import convert
from utnet.data.inspection.labels import Finding, Labels, apart, extent, in_box, inside, known, largest, middle, share
from utnet.geometry import project
from utnet.hand.proportions import OPENPOSE, bends_as_right, find_joint_order, fits_better, is_wrong_order, order_error

FEW = 0.05
"""Smallest share of the hands that is reported: conventions are wrong in a set or a part of it; less is noise."""

_MOST = 0.5
"""Smallest share of hands without a known joint order that is reported; fewer are noise."""

_UNIT_PX = 1.5
"""If no image point of a hand exceeds this, the points are relative to the picture size, not pixels."""

_AGREES, _DISAGREES = 0.06, 0.1
"""Median distance of 2D labels from projected joints, in box sides: they agree below the first, disagree above the
second."""

_CENTRE_OFF, _CENTRE_SPREAD = 0.12, 0.05
"""Limits for K of another picture size: the principal point is off centre by one factor in x, y and all pictures."""

_LEAST_SIDES = 3
"""Smallest number of hands of the other side that is reported; single hands may bend their fingers backwards."""

_SURER = 0.2
"""Difference of a detector's mean scores that determines how rotated pictures were labelled."""

_NARROWEST, _WIDEST = 60.0, 0.2
"""Limits of focal lengths in longer sides of the picture: crops reach 20, lenses other than fisheye 0.3."""


def judge_labels(labels: Labels) -> Iterator[Finding]:
    """Findings, worst first. Consequences of a finding are not reported separately."""
    if not len(labels):
        return
    scale = list(_scale_of_points(labels))
    yield from scale
    turned = list(_turned(labels)) if not scale else []
    yield from turned
    if not scale and not turned:
        swapped = list(_swapped(labels))
        yield from swapped
        yield from _boxes(labels) if not swapped else ()
    frame = list(_frame(labels))
    yield from frame
    order = list(_order(labels))
    yield from order
    if not (order or frame):
        yield from _side(labels)
    yield from _focal_length(labels)
    if not (scale or turned or frame or order):
        yield from _camera(labels)


def turn_note(labels: Labels) -> str:
    """Note about pictures with an EXIF orientation whose labels fit both ways, or ""."""
    num = int((labels.turn > 1).sum())
    if not num or any(_turned(labels)) or labels.turn_scores[0] > labels.turn_scores[1] + _SURER:
        return ""
    return (
        f"pictures of {num} hands have an EXIF orientation, which is ignored: labels must be in stored pixels (look at "
        "`utnet data preview`)"
    )


# ------------------------------------------------------------------------------------------------------- 2D labels


def _scale_of_points(labels: Labels) -> Iterator[Finding]:
    large = labels.size_wh.min(1) > 4 * _UNIT_PX
    with np.errstate(invalid="ignore"):
        unit = large & (largest(labels.points_px) <= _UNIT_PX)
    if share(unit, known(labels.points_px)) > FEW:
        signed = float(np.nanmin(labels.points_px[unit])) < -0.5
        x, y = ("(x+1)/2*W-0.5", "(y+1)/2*H-0.5") if signed else ("x*W-0.5", "y*H-0.5")
        text = f"joints_2d of {unit.sum()} of {len(labels)} hands are in {'-1..1' if signed else '0..1'}, not in pixels"
        line = convert.change_points(labels.source, x, y, picture_size=True)
        yield Finding(text, "multiply x by the picture's width and y by its height", line)
    with np.errstate(invalid="ignore"):
        unit = large & (labels.box_px[:, 2:] <= _UNIT_PX).all(1) & (largest(labels.image_px) > _UNIT_PX)
    if unit.mean() > FEW:
        line = convert.change_box(labels.source, "[a*W-0.5, b*H-0.5, c*W-0.5, d*H-0.5]", picture_size=True)
        yield Finding(
            f"box of {unit.sum()} of {len(labels)} hands is in 0..1, not in pixels",
            "multiply x by the picture's width and y by its height",
            line,
        )


def _turned(labels: Labels) -> Iterator[Finding]:
    """Labels in pixels of the upright picture, where the stored picture is turned."""
    turned, side = labels.turn > 1, labels.turn >= 5
    if not turned.any():
        return
    stored, upright = labels.turn_scores
    wrong = upright > stored + _SURER
    if side.any():  # the upright picture has other sides
        size, points = labels.size_wh[side], labels.image_px[side]
        wrong |= inside(points, size[:, ::-1]) > inside(points, size) + 0.02
    if wrong:
        yield Finding(
            f"labels of {turned.sum()} of {len(labels)} hands are in pixels of the upright picture, but EXIF data turn "
            "the stored one, and UTNet uses stored pixels",
            "store the pictures upright",
            convert.upright_pictures(labels.source),
        )


def _swapped(labels: Labels) -> Iterator[Finding]:
    own = known(labels.points_px)
    if not own.any():
        return
    points, size, box = labels.points_px[own], labels.size_wh[own], labels.box_px[own]
    now, swapped = (inside(p, size) for p in (points, points[..., ::-1]))
    held, swapped_held = (in_box(p, box).mean() for p in (points, points[..., ::-1]))
    if (swapped > 0.98 and now < 0.9) or (swapped_held > 0.9 and held < 0.5):
        yield Finding(
            f"joints_2d of {own.sum()} of {len(labels)} hands have x and y swapped (row, column)",
            "give [x, y]: the column first",
            convert.change_points(labels.source, "y", "x"),
        )


_BOX_READINGS = (
    ("x, y, width, height", "[a, b, a+c, b+d]", lambda a, b, c, d: (a, b, a + c, b + d)),
    ("centre x, centre y, width, height", "[a-c/2, b-d/2, a+c/2, b+d/2]",
     lambda a, b, c, d: (a - c / 2, b - d / 2, a + c / 2, b + d / 2)),
    ("y0, x0, y1, x1", "[b, a, d, c]", lambda a, b, c, d: (b, a, d, c)),
)  # fmt: skip


def _boxes(labels: Labels) -> Iterator[Finding]:
    points = labels.image_px
    with np.errstate(invalid="ignore"):  # boxes end at the picture's edge
        seen = ((points > -1) & (points < labels.size_wh[:, None])).all(-1, keepdims=True)
    points = np.where(seen, points, np.nan)
    held = in_box(points, labels.box_px)
    wrong = held < 0.5
    if share(wrong, np.isfinite(held)) <= FEW:
        return
    text, change = "do not hold their joints", ""
    for name, expression, read in _BOX_READINGS:
        other = in_box(points[wrong], np.stack(read(*labels.box_px[wrong].T), axis=1))
        if np.nanmedian(other) > 0.9:
            text, change = f"do not hold their joints; they look like {name}", expression
            break
    line = convert.change_box(labels.source, change) if change else ""
    yield Finding(
        f"boxes of {wrong.sum()} of {len(labels)} hands {text}", "give box as [x0, y0, x1, y1] in pixels", line
    )


# ------------------------------------------------------------------------------------------------------- 3D labels


def _order(labels: Labels) -> Iterator[Finding]:
    """Joint order and side: from 3D joints hand by hand, from 2D labels without 3D joints by all hands together."""
    error = order_error(labels.joints_m)
    in_3d, wrong = np.isfinite(error), is_wrong_order(error)
    only_2d = known(labels.points_px) & ~in_3d
    keys, num, order = [], 0, OPENPOSE
    if share(wrong, in_3d) > FEW:
        found = find_joint_order(labels.joints_m[wrong])
        if found is None and share(wrong, in_3d) < _MOST:
            return  # single noisy hands
        if found is None:
            remedy = "list wrist, then thumb to little finger, each from the palm to its tip"
            text = f"joints_3d of {wrong.sum()} of {len(labels)} hands: the bone lengths are not those of a hand"
            yield Finding(f"{text} in any known order", remedy)
            return
        if found is not OPENPOSE:
            keys, num, order = ["joints_3d"], int(wrong.sum()), found
    if only_2d.any():
        points = labels.points_px[only_2d]
        if order is OPENPOSE:
            order = find_joint_order(points) or OPENPOSE
            fits = order is not OPENPOSE
        else:
            fits = fits_better(points, order)
        keys, num = (keys + ["joints_2d"], num + int(only_2d.sum())) if fits else (keys, num)
    if keys:
        yield Finding(
            f"{' and '.join(keys)} of {num} of {len(labels)} hands are not in OpenPose-21's order but, by their bones, "
            f"in this one: {order.name}",
            f"take joints[[{','.join(map(str, order.to_openpose))}]]",
            convert.reorder(labels.source, keys, order.to_openpose),
        )


def _side(labels: Labels) -> Iterator[Finding]:
    bend = bends_as_right(labels.joints_m.astype(float))
    decided = np.isfinite(bend)
    wrong = decided & ((bend > 0) == labels.left)
    part = share(wrong, decided)
    if wrong.sum() < _LEAST_SIDES or part <= 2 * FEW:
        return
    all_wrong = part > 0.9
    text = f"side of {wrong.sum()} of {decided.sum()} hands with bent fingers is that of the other hand, by the bend"
    remedy = "swap right and left" if all_wrong else "give every hand its own side"
    remedy += ", or undo the mirroring of the 3D joints (x must point to the picture's right)"
    yield Finding(text, remedy, convert.other_side(labels.source) if all_wrong else "")


def _frame(labels: Labels) -> Iterator[Finding]:
    """Origin and axes."""
    has_camera = np.isfinite(labels.K_px[:, 0, 0])
    with np.errstate(invalid="ignore"):
        centre = middle(labels.joints_m)
        near = has_camera & is_at_camera(labels.joints_m)
        behind = has_camera & (centre[:, 2] < 0) & ~near
    judged = has_camera & np.isfinite(centre[:, 2])
    if share(near, judged) > FEW:
        yield Finding(
            f"joints_3d of {near.sum()} of {len(labels)} hands are relative to the hand, not to the camera of K",
            "add the wrist's position in the camera, or leave K out (joints without K may have any origin)",
            convert.convert_line(labels.source, "h.pop('K', 0)"),
        )
    elif share(behind, judged) > FEW:
        yield Finding(
            f"joints_3d of {behind.sum()} of {len(labels)} hands lie behind the camera: OpenGL axes (y up, z backward)",
            "negate y and z",
            convert.change_joints(labels.source, (1, -1, -1)),
        )
    else:
        yield from _axes(labels)


_AXES = (
    ("PyTorch3D's axes (x left, y up)", (-1, -1, 1)),
    ("y pointing up", (1, -1, 1)),
    ("x pointing left", (-1, 1, 1)),
)


def _axes(labels: Labels) -> Iterator[Finding]:
    """The axes of the 3D joints and the picture size of K, from the 2D labels."""
    both = known(labels.points_px) & known(labels.projected_px)
    if not both.any():
        return
    points, K, joints = labels.points_px[both], labels.K_px[both], labels.joints_m[both]
    side = np.maximum(extent(points), 1.0)
    as_it_is = labels.projected_px[both]
    if not apart(as_it_is, points, side) > _DISAGREES:
        return
    for name, factors in _AXES:
        with np.errstate(all="ignore"):
            other = project(joints * np.array(factors, float), K)
        if apart(other, points, side) < _AGREES:
            text = f"joints_3d of {both.sum()} of {len(labels)} hands have {name}: so they would fit joints_2d"
            line = convert.change_joints(labels.source, factors)
            yield Finding(text, "give the camera's axes: x right, y down, z forward", line)
            return
    factor = float(np.nanmedian((points + 0.5) / (as_it_is + 0.5)))
    if apart(factor * (as_it_is + 0.5) - 0.5, points, side) < _AGREES:
        yield _other_size(labels, both, factor, "joints_2d")


# ---------------------------------------------------------------------------------------------------------- camera


def _camera(labels: Labels) -> Iterator[Finding]:
    """K of a picture of another size, unless other evidence (2D labels, depth) confirms K."""
    given = np.isfinite(labels.K_px[:, 0, 0]) & ~labels.depth_agrees & ~known(labels.points_px)
    if given.sum() < 2:
        return
    size, K = labels.size_wh[given], labels.K_px[given]
    ratio = (2 * K[:, :2, 2] + 1) / size
    centre = np.median(ratio, axis=0)
    spread = np.ptp(np.percentile(ratio, [5, 95], axis=0), axis=0)
    factor = float(centre.mean())
    same = (spread < _CENTRE_SPREAD * factor).all() and np.ptp(centre) < _CENTRE_SPREAD * factor
    if not same or abs(np.log(max(factor, 1e-3))) < np.log1p(_CENTRE_OFF):
        return
    points = labels.projected_px[given]
    if factor > 1:
        contradicts = inside(points, size) < 0.85
    else:  # K of a smaller picture projects all hands into one corner
        contradicts = given.sum() >= 4 and inside(points, factor * size) > 0.98
    if contradicts:
        yield _other_size(labels, given, 1 / factor, "the principal point")


def _other_size(labels: Labels, which: np.ndarray, factor: float, evidence: str) -> Finding:
    """K must be multiplied by `factor`."""
    what = f"K of {which.sum()} of {len(labels)} hands is that of a picture {1 / factor:.3g} times as large"
    return Finding(
        f"{what}, by {evidence}",
        f"multiply its first two rows by {factor:.4g}",
        convert.change_camera(labels.source, f"{factor:.6g}", f"{factor:.6g}"),
    )


def _focal_length(labels: Labels) -> Iterator[Finding]:
    focal = labels.K_px[:, 0, 0]
    given = np.isfinite(focal)
    with np.errstate(invalid="ignore"):
        sides = focal / labels.size_wh.max(1)
        normalised = given & (focal < 20) & (labels.K_px[:, 0, 2] <= 1.5) & (labels.size_wh.min(1) > 20)
        absurd = given & ((sides < _WIDEST) | (sides > _NARROWEST)) & ~normalised
    if share(normalised, given) > FEW:
        yield Finding(
            f"K of {normalised.sum()} of {len(labels)} hands is in shares of the picture, not in pixels",
            "multiply its first row by the width and its second by the height",
            convert.change_camera(labels.source, "W", "H", picture_size=True),
        )
    if share(absurd, given) > FEW:
        degrees = 2 * np.degrees(np.arctan(0.5 / np.median(sides[absurd])))
        yield Finding(
            f"K of {absurd.sum()} of {len(labels)} hands gives a field of view of {degrees:.0f} degrees",
            "give the focal length in pixels of this picture (not in mm, and not of another picture)",
        )


def hand_unit(size_mm: float) -> tuple[str, float] | None:
    """The unit that joints seem to be in, and the factor to metres, by a palm's length of 90 mm; None for metres."""
    for name, factor in (("millimetres", 1 / MM_PER_M), ("centimetres", 0.01)):
        if 0.5 < size_mm * factor / 90 < 2:
            return name, factor
    return None
