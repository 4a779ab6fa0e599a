"""Segments a hand with its arm and composites it over another background; independent of labels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from utnet.synth.surfaces import SRGB_TO_LINEAR

MIN_COVERED, MAX_AREA = 0.9, 2.2
"""Smallest fraction of the mesh covered by a segmentation, and its largest area (with the arm) in areas of the mesh."""

_MIN_PX = 100
_BAND = 0.12
"""Half the width of the undecided band along the mesh's outline for GrabCut, over the root of the mesh's area."""
_ROUNDS = 4
_STRAY_SHARE = 0.1
"""Largest fraction of the segmented pixels at the picture's edge that are nearer to a finger than to the wrist."""
_ARM = (0, 1)
"""Joints that may lie at a picture's edge without a finger being cut off: wrist, base of the thumb."""


def cut_out(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray | None:
    """Segments a hand with its arm by GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004).

    Initialised by the mesh: the inside is certain foreground, the outside probable background. Regions connected to the
    inside are kept. Deterministic.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) bool, pixels of the fitted mesh.

    Returns:
        (H, W) float32 alpha in [0, 1], soft over about a pixel, or None if mesh and picture disagree.
    """
    area = int(mask.sum())
    if area < _MIN_PX:
        return None
    mesh, width = mask.astype(np.uint8), int(_BAND * np.sqrt(area)) | 1
    sure = _shrunk(mesh, width)
    if not sure.any():
        return None
    trimap = np.where(_grown(mesh, width) > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[sure > 0] = cv2.GC_FGD
    if not np.isin(trimap, (cv2.GC_BGD, cv2.GC_PR_BGD)).any():  # the hand fills the picture
        return None
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # GrabCut's k-means uses OpenCV's own generator
    cv2.grabCut(np.ascontiguousarray(rgb), trimap, (0, 0, 0, 0), *models, _ROUNDS, cv2.GC_INIT_WITH_MASK)
    cutout = ((trimap == cv2.GC_FGD) | (trimap == cv2.GC_PR_FGD)).astype(np.uint8)
    _, parts = cv2.connectedComponents(cutout, connectivity=4)
    cutout *= np.isin(parts, np.unique(parts[sure > 0])).astype(np.uint8)
    if (cutout & mesh).sum() < MIN_COVERED * area or cutout.sum() > MAX_AREA * area:
        return None
    return np.clip(2 * cv2.GaussianBlur(cutout.astype(np.float32), (0, 0), 0.8) - 0.9, 0, 1)


def leaves_by_the_arm(alpha: np.ndarray, mask: np.ndarray, joints_px: np.ndarray) -> bool:
    """Whether only the arm reaches the picture's edge outside the mesh; next to fingers it would be background.

    Args:
        alpha: (H, W) of `cut_out`.
        mask: (H, W) bool, the mesh.
        joints_px: (21, 2).
    """
    xy = np.argwhere(_edge(alpha.shape) & (alpha > 0.5) & ~mask)[:, ::-1]
    return bool((~np.isin(_nearest(xy, joints_px), _ARM)).sum() <= _STRAY_SHARE * len(xy))


def room(
    box_px: np.ndarray, joints_px: np.ndarray, alpha: np.ndarray, mask: np.ndarray, expand: float
) -> tuple[int, int, int, int]:
    """Pixels missing left, above, right and below for a window of `expand` times the box.

    0 on a side that cuts off fingers: an arm can be extended beyond the edge, fingers cannot.

    Args:
        box_px: (4,) of the hand.
        joints_px: (21, 2).
        alpha: (H, W) of `cut_out`.
        mask: (H, W) bool, the mesh.
        expand: side of the window over the longer side of the box.
    """
    height, width = alpha.shape
    x0, y0, x1, y1 = box_px
    half = max(x1 - x0, y1 - y0) * expand / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    lacks = half - x, half - y, x + half - (width - 1), y + half - (height - 1)
    xy = np.argwhere(mask & (alpha > 0))[:, ::-1]
    fingers = xy[~np.isin(_nearest(xy, joints_px), _ARM)]
    closed = *(fingers == 0).any(0), *(fingers == [width - 1, height - 1]).any(0)
    left, top, right, bottom = (0 if shut else max(int(np.ceil(n)), 0) for n, shut in zip(lacks, closed, strict=True))
    return left, top, right, bottom


def extended(
    rgb: np.ndarray,
    alpha: np.ndarray,
    mask: np.ndarray,
    joints_px: np.ndarray,
    sides: tuple[int, int, int, int],
) -> tuple[np.ndarray, np.ndarray]:
    """Extends a segmented hand to a wider picture, continuing the arm beyond the old edge.

    Args:
        rgb: (H, W, 3) uint8, the hand's picture.
        alpha: (H, W) of `cut_out`.
        mask: (H, W) bool, the mesh.
        joints_px: (21, 2).
        sides: pixels added left, above, right and below.

    Returns:
        The wider picture, with colours at the outline taken from further inside, and its alpha.
    """
    left, top, right, bottom = sides
    size = np.array(alpha.shape[::-1])
    shape = alpha.shape[0] + top + bottom, alpha.shape[1] + left + right
    at = np.stack(np.meshgrid(np.arange(shape[1]) - left, np.arange(shape[0]) - top), -1).astype(np.float32)
    way = _way_out(alpha, mask, joints_px)
    # Trace back along the arm's direction to the old picture, entering through one side and leaving through another.
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.stack([at / way, (at - (size - 1)) / way])
    first = np.nanmax(steps.min(0), axis=-1).clip(0)
    meets = first <= np.nanmin(steps.max(0), axis=-1) + 1e-3
    source = np.clip(at - np.where(meets, first, 0)[..., None] * way, 0, size - 1).astype(np.float32)
    x, y = np.ascontiguousarray(source[..., 0]), np.ascontiguousarray(source[..., 1])
    wide = cv2.remap(_without_rim(rgb, alpha), x, y, cv2.INTER_LINEAR)
    return wide, cv2.remap(alpha, x, y, cv2.INTER_LINEAR) * meets


def before(background: np.ndarray, rgb: np.ndarray, alpha: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: a segmented hand composited over another background in other light.

    Args:
        background: (H, W, 3) linear light.
        rgb: (H, W, 3) uint8.
        alpha: (H, W).
        gain: (H, W, 3) factors on the hand's linear light.
    """
    hand = np.minimum(SRGB_TO_LINEAR[rgb] * gain, 1)
    linear = background + (hand - background) * alpha[..., None]
    return np.rint(linear.clip(0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


def draw_light(rng: np.random.Generator, size_wh: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) random gain: brightness, colour and a gradient across the picture."""
    x, y = np.meshgrid(*(np.linspace(-1, 1, num, dtype=np.float32) for num in size_wh))
    angle, slope = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.35)
    log = rng.normal(0, 0.35) + slope * (x * np.cos(angle) + y * np.sin(angle))
    return np.exp(log[..., None] + rng.normal(0, 0.12, 3)).astype(np.float32)


def _without_rim(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The picture with colours at the outline, where hand and background mix, replaced by those further inside."""
    inner = _shrunk((alpha > 0.5).astype(np.uint8), 3)
    weight = cv2.GaussianBlur(inner.astype(np.float32), (0, 0), 1.2)[..., None]
    spread = cv2.GaussianBlur(rgb * inner[..., None].astype(np.float32), (0, 0), 1.2)
    known = (inner[..., None] == 0) & (weight > 0.01)
    return np.where(known, np.rint(spread / np.maximum(weight, 0.01)), rgb).astype(np.uint8)


def _way_out(alpha: np.ndarray, mask: np.ndarray, joints_px: np.ndarray) -> np.ndarray:
    """(2,) float32 unit vector from the mesh's centre to where the arm leaves the picture; down without an arm."""
    xy = np.argwhere(_edge(alpha.shape) & (alpha > 0.5))[:, ::-1]
    arm = xy[np.isin(_nearest(xy, joints_px), _ARM)]
    way = arm.mean(0) - np.argwhere(mask).mean(0)[::-1] if len(arm) else np.zeros(2)
    length = np.linalg.norm(way)
    return (way / length if length > 1e-6 else np.array([0, 1])).astype(np.float32)


def _edge(shape: Sequence[int]) -> np.ndarray:
    edge = np.ones(shape, bool)
    edge[1:-1, 1:-1] = False
    return edge


def _nearest(xy: np.ndarray, joints_px: np.ndarray) -> np.ndarray:
    """(N,) the joint that is nearest to each pixel."""
    return np.linalg.norm(xy[:, None] - joints_px, axis=2).argmin(1)


def _shrunk(mask: np.ndarray, width: int) -> np.ndarray:
    return cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))


def _grown(mask: np.ndarray, width: int) -> np.ndarray:
    return cv2.dilate(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width)))
