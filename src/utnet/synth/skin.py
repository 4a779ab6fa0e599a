"""Skin: its colour from melanin and blood, and the chart that tells where on the open hand something lies.

The hand is laid flat once: every vertex gets a place (x, z) on a chart in metres and a share of palm (0: back,
1: palm). What is painted on back and palm (`skin_atlas`) has no seam, then, and the forearm goes on along x.
Albedo follows Beer and Lambert: light is scattered by the dermis and absorbed by melanin and haemoglobin, whose
absorption in red, green and blue is fixed.
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
    """The hand laid flat.

    Attributes:
        places: (V, 3) x and z on the chart in metres, share of palm.
        joints: (16, 2) the joints' places.
        tips: (5, 2) the fingertips' places, thumb to little finger.
    """

    places: np.ndarray
    joints: np.ndarray
    tips: np.ndarray


@lru_cache(maxsize=1)
def chart() -> Chart:
    """The open hand's chart. The thumb is turned flat first, its nail up."""
    hand = load_open_hand()
    vertices, J = hand.v_template.astype(float), hand.J_template.astype(float)
    tips = vertices[hand.tip_vertices]
    bone = tips[0] - J[13]
    bone /= np.linalg.norm(bone)
    across = AXES[12, 0] - bone * (AXES[12, 0] @ bone)  # the thumb bends about it
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
    """(3,) linear albedo of a patch of skin; `surfaces.surface_colors` does the same at every pixel."""
    return DERMIS * np.exp(-melanin * MELANIN - blood * BLOOD) + SURFACE


DERMIS = np.array([0.80, 0.65, 0.51])
MELANIN = np.array([0.77, 1.0, 1.23])
BLOOD = np.array([0.10, 0.78, 0.60])
SURFACE = 0.008


def sample_skin(rng: np.random.Generator, strength: float) -> tuple[float, float]:
    """Melanin and blood of a person: from the lightest to the darkest tone of the Monk scale at strength 1.

    Strength 0 is one medium tone.
    """
    u = rng.random()
    melanin, blood = 0.03 + 2.7 * u**1.7, rng.uniform(0.2, 0.55)
    return 0.55 + strength * (melanin - 0.55), 0.3 + strength * (blood - 0.3)
