"""Skin: colour from melanin and blood, and a chart (texture coordinates) of the open hand.

The hand is flattened once: every vertex gets coordinates (x, z) in metres and a palm weight (0: back, 1: palm). The
textures of back and palm (`skin_atlas`) therefore have no seam, and the forearm continues along x. Albedo follows the
Beer-Lambert law: the dermis scatters light, melanin and haemoglobin absorb it with fixed RGB coefficients.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from utnet.hand.arrays import load_open_hand
from utnet.render.raster import vertex_normals
from utnet.synth.poses import AXES


@dataclass(frozen=True)
class Chart:
    """The flattened hand.

    Attributes:
        places: (V, 3) x and z on the chart in metres, and palm weight.
        joints: (16, 2) joints on the chart.
        tips: (5, 2) fingertips on the chart, thumb to little finger.
    """

    places: np.ndarray
    joints: np.ndarray
    tips: np.ndarray


@lru_cache(maxsize=1)
def chart() -> Chart:
    """Returns the chart of the open hand. The thumb is first rotated flat, nail up."""
    hand = load_open_hand()
    vertices, J = hand.v_template.astype(float), hand.J_template.astype(float)
    tips = vertices[hand.tip_vertices]
    bone = tips[0] - J[13]
    bone /= np.linalg.norm(bone)
    across = AXES[12, 0] - bone * (AXES[12, 0] @ bone)  # flexion axis of the thumb
    across /= np.linalg.norm(across)
    flat = np.array([bone[0], 0.0, bone[2]])
    flat /= np.linalg.norm(flat)
    palm = np.array([0.0, -1.0, 0.0])
    source = np.stack([bone, across, np.cross(across, bone)], 1)
    R = np.stack([flat, np.cross(flat, palm), palm], 1) @ source.T

    def turn(points: np.ndarray, share: np.ndarray) -> np.ndarray:
        return points + share[:, None] * ((points - J[13]) @ R.T + J[13] - points)

    thumb = hand.weights[:, 13:].sum(1)
    laid = turn(vertices, thumb)
    normals = vertex_normals(laid, hand.faces)
    share = np.clip(0.5 - normals[:, 1] / 0.8, 0, 1)
    share = share * share * (3 - 2 * share)
    laid_joints = turn(J, (np.arange(16) >= 13).astype(float))
    return Chart(
        places=np.stack([laid[:, 0], laid[:, 2], share], 1).astype(np.float32),
        joints=laid_joints[:, [0, 2]],
        tips=laid[hand.tip_vertices][:, [0, 2]],
    )


def skin_albedo(melanin: float, blood: float) -> np.ndarray:
    """(3,) linear albedo of skin, as in `surfaces.surface_colors`."""
    return DERMIS * np.exp(-melanin * MELANIN - blood * BLOOD) + SURFACE


DERMIS = np.array([0.80, 0.65, 0.51])
MELANIN = np.array([0.77, 1.0, 1.23])
BLOOD = np.array([0.10, 0.78, 0.60])
SURFACE = 0.008


def sample_skin(rng: np.random.Generator, strength: float) -> tuple[float, float]:
    """Draws melanin and blood of a person.

    Strength 1 covers the lightest to the darkest tone of the Monk scale; strength 0 is one medium tone.
    """
    u = rng.random()
    melanin, blood = 0.03 + 2.7 * u**1.7, rng.uniform(0.2, 0.55)
    return 0.55 + strength * (melanin - 0.55), 0.3 + strength * (blood - 0.3)
