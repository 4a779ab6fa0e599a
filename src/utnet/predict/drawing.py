"""Predicted hands drawn over their picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from utnet.predict.hand import Hand
from utnet.render.drawing import draw_skeleton, overlay_mesh

SIDE_COLORS = {"right": (0.62, 0.76, 0.95), "left": (0.66, 0.92, 0.72)}
"""Right hands are blue, left ones green: distinct from skin colours."""


def draw_hands(image_rgb: np.ndarray, hands: Sequence[Hand]) -> np.ndarray:
    """A copy of (H, W, 3) uint8 with every hand's mesh, far ones first, and its skeleton on top."""
    out = image_rgb.copy()
    for hand in sorted(hands, key=lambda h: -float(h.joints_cam_m[:, 2].mean())):
        out = overlay_mesh(out, hand.vertices_cam_m, hand.faces, hand.K_px, color=SIDE_COLORS[hand.side])
    for hand in hands:
        out = draw_skeleton(out, hand.joints_px)
    return out
