"""Predicted hands drawn over their picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, get_args

import cv2
import numpy as np

from utnet.errors import InputError, shown
from utnet.geometry import project, unproject
from utnet.predict.formats import Style
from utnet.predict.hand import Hand
from utnet.render.drawing import draw_skeleton_, outline_mesh, overlay_mesh_

if TYPE_CHECKING:
    from utnet.io.recordings import Camera

SIDE_COLORS = {"right": (0.62, 0.76, 0.95), "left": (0.66, 0.92, 0.72)}
"""Right hands are blue, left ones green: distinct from skin colours."""


LINE_COLORS = {"right": (70, 150, 255), "left": (60, 220, 110)}
"""Colours of lines and names, of the same hues."""
_LABEL_PX = 14
"""Smallest height of a label."""


def draw_hands(
    image_rgb: np.ndarray, hands: Sequence[Hand], style: Style = "mesh", *, lens: Camera | None = None
) -> np.ndarray:
    """Draws hands on a copy of (H, W, 3) uint8, far ones first, each named by its side.

    Args:
        image_rgb: the picture.
        hands: of this picture.
        style: "mesh" with the skeleton on top, "outline" (a thin line around the mesh, the hand stays visible) or
            "skeleton".
        lens: camera of a picture with lens distortion; hands are in the rectified picture.

    Raises:
        InputError: unknown style.
    """
    if style not in get_args(Style):
        raise InputError(f"style is {shown(style)}; expected one of {', '.join(get_args(Style))}")
    if lens is not None:
        hands = [through_lens(hand, lens) for hand in hands]
    out = np.array(image_rgb, order="C")
    far_first = sorted(hands, key=lambda h: -float(h.joints_cam_m[:, 2].mean()))
    for hand in far_first if style != "skeleton" else ():
        color = SIDE_COLORS[hand.side]
        if style == "mesh":
            overlay_mesh_(out, hand.vertices_cam_m, hand.faces, hand.K_px, color=color)
        else:
            line = LINE_COLORS[hand.side]
            width = max(1, round(float(np.ptp(hand.joints_px, axis=0).max()) / 250))
            out = outline_mesh(out, hand.vertices_cam_m, hand.faces, hand.K_px, color=line, thickness=width)
    for hand in hands if style != "outline" else ():
        draw_skeleton_(out, hand.joints_px)
    for hand in hands:
        _name_side(out, hand)
    return out


def through_lens(hand: Hand, camera: Camera) -> Hand:
    """Returns a hand to draw on the recorded picture, with lens distortion.

    Joints and vertices project to their distorted positions at unchanged distances. For drawing only.

    Args:
        hand: in the camera without distortion.
        camera: with distortion.
    """
    if not camera.is_distorted:
        return hand
    z_m = hand.vertices_cam_m[:, 2]
    vertices_px = camera.distorted_px(project(hand.vertices_cam_m, hand.K_px))
    return replace(
        hand,
        joints_px=camera.distorted_px(hand.joints_px),
        vertices_cam_m=unproject(vertices_px, z_m, hand.K_px),
    )


def _name_side(out: np.ndarray, hand: Hand) -> None:
    """Writes "right" or "left" beside the wrist, away from the fingers, in place."""
    joints = hand.joints_px
    extent = float(np.ptp(joints, axis=0).max())
    height = min(max(extent / 10, _LABEL_PX), max(_LABEL_PX, 0.05 * max(out.shape)))
    if extent < 2 * height:  # too small: the label would hide it
        return
    scale, thickness = height / 30, max(1, round(height / 14))
    (width, _), _ = cv2.getTextSize(hand.side, cv2.FONT_HERSHEY_SIMPLEX, scale, thickness)
    away = joints[0] - joints[9]
    place = joints[0] + away / max(float(np.linalg.norm(away)), 1.0) * 1.5 * height - [width / 2, -height / 3]
    limits = np.array([out.shape[1] - width - 2, out.shape[0] - 4])
    x, y = np.rint(np.clip(place, [2, height], np.maximum(limits, [2, height]))).astype(int).tolist()
    # An outline of the same letters moved by a pixel: OpenCV 5 makes letters of another thickness wider.
    around = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]
    for dx, dy in [*around, (0, 0)]:
        color = LINE_COLORS[hand.side] if (dx, dy) == (0, 0) else (20, 20, 20)
        place_px = (x + dx, y + dy)
        cv2.putText(out, hand.side, place_px, cv2.FONT_HERSHEY_SIMPLEX, scale, color, thickness, cv2.LINE_AA)
