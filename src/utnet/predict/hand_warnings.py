"""Warnings about the hands of a picture that should be checked."""

from __future__ import annotations

import numpy as np

from utnet.detect.detection import SIDE_DOUBT_BELOW
from utnet.predict.checks import REACH_M
from utnet.predict.hand import Hand
from utnet.predict.hands import Hands

_LEAST_PRESENCE, _LEAST_SCORE = 0.5, 0.5
_PALMS_M = (0.045, 0.15)
"""Plausible distances from the wrist to the middle knuckle."""


def hand_warnings(hands: Hands, *, boxed: bool, camera_guessed: bool) -> list[str]:
    """Returns a line for each doubtful property of the hands of a picture.

    Args:
        hands: of the picture.
        boxed: whether the boxes are the user's.
        camera_guessed: whether the camera is neither given nor in the EXIF data.
    """
    lines = []
    if camera_guessed and any(hand.distance_source == "sensor" for hand in hands):
        lines.append(guessed_camera(hands.K_px))
    for number, hand in enumerate(hands, start=1):
        name = f"{'box' if boxed else 'hand'} {number}"
        lines += [f"{name}: {doubt}" for doubt in _doubts(hand, boxed=boxed)]
    return lines


def guessed_camera(K_px: np.ndarray) -> str:
    """The warning for depth without intrinsics."""
    return (
        f"depth without a camera: sizes and places follow from a guessed focal length of {K_px[0, 0]:.0f} px; give --K"
    )


def _doubts(hand: Hand, *, boxed: bool) -> list[str]:
    lines, z_m = [], float(hand.joints_cam_m[:, 2].mean())
    if boxed and hand.presence < _LEAST_PRESENCE:
        lines.append(f"probably no hand (presence {hand.presence:.2f}); look at the overlay before you use it")
    if boxed and z_m > REACH_M[1]:
        lines.append(f"its hand would be {z_m:.0f} m away; is it tight around the hand, in pixels?")
    if hand.side_probability < SIDE_DOUBT_BELOW:
        remedy = "--side" if boxed else "--box and --side"
        lines.append(
            f"probably a {hand.side} hand, but uncertain ({hand.side_probability:.2f}); if it is not, give {remedy}"
        )
    seen_px, drawn_px = np.ptp(hand.box_px.reshape(2, 2), axis=0).max(), np.ptp(hand.joints_px, axis=0).max()
    palm_m = float(np.linalg.norm(hand.joints_cam_m[9] - hand.joints_cam_m[0])) * seen_px / drawn_px
    if hand.distance_source == "sensor" and not _PALMS_M[0] < palm_m < _PALMS_M[1]:
        lines.append(
            f"at a distance of {z_m:.2f} m by depth, its palm would be {100 * palm_m:.0f} cm long; check --depth-scale "
            "and --K"
        )
    if not lines and hand.score < _LEAST_SCORE:
        lines.append(f"probably wrong (score {hand.score:.2f}); look at the overlay before you use it")
    return lines
