"""The outline of a mask as residuals for the solver: skin on the mesh's outline against planes through the camera."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from utnet.fit.surface import Surface, attach, no_surface
from utnet.geometry import unproject
from utnet.hand.arrays import HandArrays
from utnet.render.raster import rasterize

_FINE = 4
"""Pixels of the drawn mesh per cell of the mask, in each direction."""
_MAX_POINTS = 120
_SIGMA_M = 0.0015
"""Standard deviation of the mask's outline, including the mismatch between the model's mesh and this person's hand."""
_INDEPENDENT = 60
"""Upper bound of the effective number of points: errors of neighbours are correlated."""
_SEARCH = 1.25
"""Distance in cells within which the mask's outline is searched, along the normal of the mesh's outline."""
_STEPS = 21
_BORDER = 1.5
"""Distance in cells from the picture's border within which the mask has no outline."""
_SAMPLES = 2
"""Samples of the mesh per cell and axis for `mask_iou`."""


@dataclass(frozen=True)
class HandMask:
    """A mask of the visible hand.

    Attributes:
        logit: (h, w) finite, above 0 on the hand.
        K_px: (3, 3) intrinsics of a camera whose pixels are the mask's cells, in the axes of the picture's.
        known: (4,) x0, y0, x1, y1 of the picture in cells. Outside of it the mask is not known, and on its border a
            hand that leaves the picture has no outline. Default: everything is known.
    """

    logit: np.ndarray
    K_px: np.ndarray
    known: np.ndarray = field(default_factory=lambda: np.array([-np.inf, -np.inf, np.inf, np.inf]))

    def is_known(self, points: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """(...,) bool: whether points (..., 2) in cells lie in the picture, at least `margin` from its border."""
        return np.all((points > self.known[:2] + margin) & (points < self.known[2:] - margin), axis=-1)


def read_outline(
    vertices_cam_m: np.ndarray,
    hand: HandArrays,
    mask: HandMask,
    *,
    look: np.ndarray,
    posed: tuple[np.ndarray, np.ndarray],
    betas: np.ndarray,
) -> Surface:
    """Selects points on the mesh's outline with the mask's outline near them.

    A reading is a plane through the camera that contains the mask's outline there. Where nothing within `_SEARCH` of
    the mesh's outline is an edge of the mask, from the hand outwards, there is no reading: behind an object, between
    fingers that the mask does not separate.

    Args:
        vertices_cam_m: (V, 3) the mesh.
        hand: the model's arrays.
        mask: of the visible hand.
        look: (3, 3) rotation, camera to view.
        posed: the joints' positions (16, 3) and rotations (16, 3, 3) in the view.
        betas: (10,).
    """
    height, width = _FINE * mask.logit.shape[0], _FINE * mask.logit.shape[1]
    middle = (_FINE - 1) / 2
    K = np.array([[_FINE, 0, middle], [0, _FINE, middle], [0, 0, 1]]) @ mask.K_px
    drawn = rasterize(vertices_cam_m, hand.faces, K, (width, height))
    points, normals = _outline(drawn.mask)
    if len(points) == 0:
        return no_surface()
    fine = cv2.resize(np.asarray(mask.logit, np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    along = np.linspace(-_SEARCH * _FINE, _SEARCH * _FINE, _STEPS)
    off, found = _nearest_edge(fine, points, normals, along)
    found &= mask.is_known((points - middle) / _FINE, _BORDER)
    points, normals, off = points[found], normals[found], off[found]
    if len(points) == 0:
        return no_surface()
    x, y = points.T
    corners, share = hand.faces[drawn.face[y, x]], drawn.weights[y, x]
    ones = np.ones(len(points))
    skin = unproject(points.astype(float), ones, K) * drawn.depth_m[y, x, None]
    joint, offset, dirs = attach(hand, corners, share, skin @ look.T, posed, betas)
    # Skin is taken at the centre of the last pixel inside, half a pixel before the outline.
    edge = points + (off - 0.5)[:, None] * normals
    tangent = np.stack([-normals[:, 1], normals[:, 0]], 1)
    plane = np.cross(unproject(edge + tangent, ones, K), unproject(edge, ones, K))
    plane /= np.linalg.norm(plane, axis=1, keepdims=True)
    deviation = _SIGMA_M * np.sqrt(max(1.0, len(points) / _INDEPENDENT))
    readings = np.concatenate([np.zeros((len(points), 3)), plane @ look.T, np.full((len(points), 1), 1 / deviation)], 1)
    return Surface(joint, offset, dirs, readings)


def mask_iou(vertices_cam_m: np.ndarray, faces: np.ndarray, mask: HandMask) -> float:
    """Intersection over union of a mesh and a mask: of the shares of their cells, by minimum and maximum."""
    height, width = mask.logit.shape
    to_fine = np.array([[_SAMPLES, 0, (_SAMPLES - 1) / 2], [0, _SAMPLES, (_SAMPLES - 1) / 2], [0, 0, 1]])
    drawn = rasterize(vertices_cam_m, faces, to_fine @ mask.K_px, (_SAMPLES * width, _SAMPLES * height)).mask
    known = mask.is_known(np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1))
    mesh = known * drawn.reshape(height, _SAMPLES, width, _SAMPLES).mean((1, 3))
    hand = known / (1 + np.exp(-np.asarray(mask.logit, float)))
    return float(np.minimum(mesh, hand).sum() / max(np.maximum(mesh, hand).sum(), 1e-6))


def _outline(inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """At most `_MAX_POINTS` pixels (N, 2) int on the inner side of a mask's outline, not at the picture's border, and
    the outline's unit normals (N, 2), outwards."""
    height, width = inside.shape
    lines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    if not lines:
        return np.zeros((0, 2), int), np.zeros((0, 2))
    points = np.concatenate(lines)[:, 0]
    x, y = points.T
    smooth = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 1.5)
    normals = -np.stack([cv2.Sobel(smooth, cv2.CV_32F, *axis)[y, x] for axis in ((1, 0), (0, 1))], 1).astype(float)
    length = np.linalg.norm(normals, axis=1)
    good = (x > 0) & (y > 0) & (x < width - 1) & (y < height - 1) & (length > 0.05) & inside[y, x]
    kept = np.flatnonzero(good)
    kept = kept[np.linspace(0, len(kept) - 1, min(len(kept), _MAX_POINTS)).astype(int)]
    return points[kept], normals[kept] / length[kept, None]


def _nearest_edge(
    logit: np.ndarray, points: np.ndarray, normals: np.ndarray, along: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distance along each normal of the nearest change of `logit` from above 0 to below it, and whether there is one
    within `along`."""
    at = (points[:, None] + along[:, None] * normals[:, None]).astype(np.float32)
    values = cv2.remap(logit, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    before, after = values[:, :-1], values[:, 1:]
    leaves = (before > 0) & (after <= 0)
    share = before / np.where(leaves, before - after, 1.0)
    place = np.where(leaves, along[:-1] + share * (along[1] - along[0]), np.inf)
    nearest = np.abs(place).argmin(1)
    return place[np.arange(len(points)), nearest], np.any(leaves, axis=1)
