"""Drawings of single cases: crop, ground-truth skeleton (dashed), predicted skeleton (solid) and mesh."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utnet.config import CropConfig
from utnet.conventions import PARENTS
from utnet.data.collate import collate
from utnet.data.source import Source
from utnet.errors import InputError
from utnet.evaluation.crops import Crop, CropBatch, CropDataset
from utnet.evaluation.passes import forward
from utnet.evaluation.placing import PlacedHands, place
from utnet.evaluation.protocol import GROUND_TRUTH, INPUTS
from utnet.evaluation.rows import Row
from utnet.evaluation.scoring import Boxes
from utnet.geometry import project
from utnet.model import UTNet
from utnet.render.drawing import contact_sheet, elide, label, overlay_mesh
from utnet.types import Sample

SHOWN_PX = 224
PREDICTED, TRUE = (230, 159, 0), (255, 255, 255)
"""Orange and white with dark edges are distinguishable for colour-blind readers and on any background."""
_EDGE = (20, 20, 20)
_COLUMNS = 3


def pick_cases(row: Row, num: int = 6) -> dict[str, list[int]]:
    """Indices of the hands with the largest MPJPE and of those around the median."""
    order = np.argsort(row.metrics["mpjpe_mm"], kind="stable")
    num = min(num, len(order))
    middle = max(0, (len(order) - num) // 2)
    return {"worst": order[::-1][:num].tolist(), "median": order[middle : middle + num].tolist()}


def case_sheet(
    model: UTNet,
    source: Source,
    crop: CropConfig,
    rows: Sequence[Row],
    keys: Sequence[str],
    *,
    boxes: Boxes | None = None,
) -> np.ndarray:
    """Draws one line per case: RGB skeleton, RGB-D skeleton, RGB-D mesh (without depth: RGB mesh).

    Args:
        model: the network.
        source: the samples.
        crop: how crops are cut.
        rows: with the same boxes, at most one with depth and one without.
        keys: keys of the samples to draw, all in the first row.
        boxes: as in `scoring.score_source`.
    """
    index = {source.key(i): i for i in range(len(source))}
    name = rows[0].protocol.boxes
    crops = CropDataset(source, model.config.size_px, crop, None if name == GROUND_TRUTH else (boxes or {})[name])
    chosen = [item for key in keys if isinstance(item := crops[index[key]], Crop)]
    part = CropBatch(collate([each.sample for each in chosen]), chosen, {})
    panels: list[np.ndarray] = []
    model.eval()
    placed = {use: place(forward(model, part, use_depth=use), part, model.hand, use_depth=use) for use in _uses(rows)}
    for i, each in enumerate(chosen):
        panels += _line(rows, each.sample, {use: _one(p, i) for use, p in placed.items()}, model, each.side)
    return contact_sheet(panels, 2 * _COLUMNS if len(keys) > 1 else _COLUMNS)


def _uses(rows: Sequence[Row]) -> list[bool]:
    return list(dict.fromkeys(row.protocol.depth for row in rows))


def _one(placed: PlacedHands, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return placed.joints_m[i], placed.vertices_m[i], placed.transl_m[i, 0]


def _line(rows: Sequence[Row], sample: Sample, hands: dict, model: UTNet, side: str) -> list[np.ndarray]:
    """Draws the three panels of a case."""
    picture, K = enlarged_crop(sample)
    true = sample.joints_cam_m.astype(np.float64)
    panels, last = [], None
    for row in rows:
        joints, vertices, transl = hands[row.protocol.depth]
        at = int(np.flatnonzero(row.keys == sample.key)[0])
        error, aligned = row.metrics["mpjpe_mm"][at], row.metrics["pa_mpjpe_mm"][at]
        drawn = draw_bones(picture, project(true, K), TRUE, dashed=True)
        drawn = draw_bones(drawn, project(joints + transl, K), PREDICTED)
        panels.append(label(drawn, f"{INPUTS[row.protocol.input]}: {error:.1f} mm, PA {aligned:.1f} mm"))
        last = (row, vertices + transl)
    row, mesh = last  # type: ignore[misc]
    meshed = overlay_mesh(picture, mesh, model.hand.faces.cpu().numpy(), K)
    panels.append(label(meshed, elide(f"{sample.key} ({side})", SHOWN_PX - 8)))
    if len(panels) < _COLUMNS:
        panels.insert(0, label(picture, "picture"))
    return panels


def draw_bones(
    rgb: np.ndarray, joints_px: np.ndarray, color: tuple[int, int, int], *, dashed: bool = False
) -> np.ndarray:
    """Draws the bones of (21, 2) joints in one colour with a dark edge, solid or dashed, on a copy."""
    out = np.ascontiguousarray(rgb).copy()
    shift, points = 4, np.clip(joints_px, -1e4, 1e4)
    lines: list[tuple[np.ndarray, np.ndarray]] = []
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            lines += _dashes(points[parent], points[joint]) if dashed else [(points[parent], points[joint])]
    for width, paint in ((3, _EDGE), (1, color)):
        for start, end in lines:
            a, b = (tuple(np.rint(p * 2**shift).astype(int).tolist()) for p in (start, end))
            cv2.line(out, a, b, paint, width, cv2.LINE_AA, shift)
        for x, y in points:
            at = (round(x * 2**shift), round(y * 2**shift))
            cv2.circle(out, at, (1 + width) * 2 ** (shift - 1), paint, -1, cv2.LINE_AA, shift)
    return out


def _dashes(start: np.ndarray, end: np.ndarray, dash_px: float = 5.0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Segments of a dashed line, including both ends."""
    num = 2 * max(1, round(float(np.linalg.norm(end - start)) / (2 * dash_px))) + 1
    at = np.linspace(0, 1, num + 1)
    return [(start + (end - start) * at[k], start + (end - start) * at[k + 1]) for k in range(0, num, 2)]


def enlarged_crop(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """Returns the crop at `SHOWN_PX` and its camera (3, 3)."""
    size = sample.rgb.shape[0]
    factor = SHOWN_PX / size
    scale = np.array([[factor, 0, (factor - 1) / 2], [0, factor, (factor - 1) / 2], [0, 0, 1]])
    K = sample.K_px
    if K is None:
        raise InputError(f"{sample.key}: the camera is unknown, but required to draw hands")
    return cv2.resize(sample.rgb, (SHOWN_PX, SHOWN_PX), interpolation=cv2.INTER_CUBIC), scale @ K
