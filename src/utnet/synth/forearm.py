"""Forearm: bent at the wrist, bare or with a sleeve, a watch or a bracelet."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from utnet.rotations import axis_angle_to_matrix
from utnet.synth.skin import chart
from utnet.synth.surfaces import Material, Part, Skin
from utnet.synth.textures import texture_of

_RINGS_M = np.array([0.0, 0.008, 0.02, 0.035, 0.055, 0.08, 0.12, 0.17, 0.23, 0.30])
"""Distances of the forearm's rings from the edge of the wrist; the first is the edge itself."""
_BEND_M = 0.05
"""Length over which the bend of the wrist is distributed."""
_SLEEVE_M = np.array([0.0, 0.0, 0.004, 0.012, 0.03, 0.05, 0.075, 0.105, 0.14, 0.18, 0.23, 0.28])
_CUFF = np.array([0.2, 1.0, 1.1, 1.0, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0])
_NUM_AROUND = 28


def wrist_loop(faces: np.ndarray) -> np.ndarray:
    """Vertex indices of the open edge at the wrist as a loop, in the direction of its faces."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    forward = {(a, b) for a, b in edges.tolist()}
    follow = {a: b for a, b in forward if (b, a) not in forward}
    loop = [next(iter(sorted(follow)))]
    while len(loop) < len(follow):
        loop.append(follow[loop[-1]])
    return np.array(loop)


@lru_cache(maxsize=16)
def tube_faces(num_rings: int, num_around: int) -> np.ndarray:
    """(F, 3) faces between consecutive rings of vertices, facing outwards if the first is the edge of the wrist."""
    faces = []
    for near, far in pairwise(np.arange(num_rings * num_around).reshape(num_rings, num_around)):
        a, b, c, d = near, np.roll(near, -1), far, np.roll(far, -1)
        faces += [np.stack([b, a, c], 1), np.stack([b, c, d], 1)]
    return np.concatenate(faces).astype(np.int32)


class Arm:
    """Forearm of the open hand of one side. Its first ring is the edge of the wrist, so the mesh is connected."""

    def __init__(self, faces: np.ndarray, num_vertices: int, side: str):
        self.loop = wrist_loop(faces)
        self.sign = 1.0 if side == "right" else -1.0
        num = len(self.loop)
        tube = tube_faces(len(_RINGS_M), num)
        ids = np.concatenate([self.loop, num_vertices + np.arange((len(_RINGS_M) - 1) * num)])
        self.faces = ids[tube].astype(np.int32)
        places = chart().places[self.loop]
        shifted = [places + [d, 0.0, 0.0] for d in _RINGS_M[1:]]
        self.places = np.concatenate(shifted).astype(np.float32)
        at = np.arange(_NUM_AROUND) * (num / _NUM_AROUND)
        near = at.astype(int)
        self._even = np.zeros((_NUM_AROUND, num))  # resamples the edge evenly
        self._even[np.arange(_NUM_AROUND), near] = 1 - (at - near)
        self._even[np.arange(_NUM_AROUND), (near + 1) % num] += at - near

    def path(self, vertices_m: np.ndarray, R: np.ndarray, bend_rad: np.ndarray, along_m: np.ndarray):
        """Centres and rotations of rings along the arm.

        Args:
            vertices_m: (V, 3) of the hand, camera frame.
            R: (3, 3) hand to camera.
            bend_rad: (2,) rotation of the arm relative to the hand about the hand's y and z.
            along_m: (N,) distances from the edge of the wrist.

        Returns:
            (N, 3) centres and (N, 3, 3) rotations.
        """
        axis = R[:, 1] * bend_rad[0] + R[:, 2] * bend_rad[1]
        away = self.sign * R[:, 0]
        vectors = axis * np.minimum(along_m / _BEND_M, 1.0)[:, None]
        turned = axis_angle_to_matrix(vectors)
        # Integral of the direction along the bend, by the midpoint rule.
        middle = axis_angle_to_matrix(vectors / 2)
        bent = np.minimum(along_m, _BEND_M)[:, None] * (middle @ away)
        straight = np.maximum(along_m - _BEND_M, 0)[:, None] * (turned @ away)
        return vertices_m[self.loop].mean(0) + bent + straight, turned

    def even(self, edge: np.ndarray) -> np.ndarray:
        """(28, 3) evenly spaced points on the edge of the wrist, given its (N, 3) vertices."""
        return self._even @ edge

    def skin_vertices(self, vertices_m: np.ndarray, R: np.ndarray, bend_rad: np.ndarray) -> np.ndarray:
        """(N, 3) vertices of the rings after the edge; the arm becomes thicker towards the elbow."""
        edge = vertices_m[self.loop]
        spokes = edge - edge.mean(0)
        centres, turns = self.path(vertices_m, R, bend_rad, _RINGS_M[1:])
        rings = (spokes @ turns.transpose(0, 2, 1)) * _growth(_RINGS_M[1:])[:, None, None] + centres[:, None]
        return rings.reshape(-1, 3).astype(np.float32)

    def tube(
        self,
        hand: tuple[np.ndarray, np.ndarray],
        bend_rad: np.ndarray,
        along_m: np.ndarray,
        gap_m: np.ndarray,
        folds: np.ndarray,
        surface: Skin | Material,
    ) -> Part:
        """A tube around the arm: rings at `along_m` (N,), `gap_m` (N,) off the skin, with folds (N, 28)."""
        vertices, R = hand
        edge = vertices[self.loop] - vertices[self.loop].mean(0)
        centres, turns = self.path(vertices, R, bend_rad, along_m)
        spokes = self.even(edge)
        length = np.sqrt((spokes * spokes).sum(1))
        reach = _growth(along_m)[:, None] + gap_m[:, None] * (1 + folds) / length
        rings = (spokes @ turns.transpose(0, 2, 1)) * reach[..., None] + centres[:, None]
        places = np.zeros((len(along_m), _NUM_AROUND, 3))
        places[..., 0] = along_m[:, None]
        places[..., 1] = np.arange(_NUM_AROUND) * (0.18 / _NUM_AROUND)
        faces = tube_faces(len(along_m), _NUM_AROUND)
        return Part(rings.reshape(-1, 3), faces, places.reshape(-1, 3), surface)


def _growth(along_m: np.ndarray) -> np.ndarray:
    """Thickness of the arm relative to the wrist."""
    return 1 + 1.5 * np.minimum(along_m, 0.2) * (1 - 0.6 * np.exp(-along_m / 0.03))


def sample_bend(rng: np.random.Generator, arm: Arm, R: np.ndarray) -> np.ndarray:
    """(2,) random bend of the wrist: deviation and flexion in radians.

    If the rotation R (3, 3) of the hand lets the arm point at the camera, it is the most sideways of a few bends.
    """
    bends = np.clip(rng.normal(0, [0.16, 0.4], (4, 2)), [-0.4, -1.0], [0.4, 1.0])
    angle = np.linalg.norm(bends, axis=1) + 1e-9
    sideways = np.sin(angle) / angle
    z = arm.sign * (R[2, 0] * np.cos(angle) + sideways * (R[2, 1] * bends[:, 1] - R[2, 2] * bends[:, 0]))
    return bends[0] if z[0] > -0.7 else bends[int(z.argmax())]


def sleeve(rng: np.random.Generator, arm: Arm, hand: tuple[np.ndarray, np.ndarray], bend_rad: np.ndarray) -> Part:
    """A sleeve that starts between the wrist and the middle of the forearm; `hand` is its vertices and R."""
    start = rng.choice([rng.uniform(-0.004, 0.02), rng.uniform(0.02, 0.15)])
    gap = rng.uniform(0.003, 0.011)
    along = np.maximum(start + _SLEEVE_M, 0.0)
    phases, rounds = rng.uniform(0, 2 * np.pi, (2, len(along), 1)), rng.integers(1, 4, (len(along), 1))
    turns = np.linspace(0, 2 * np.pi, _NUM_AROUND, endpoint=False)
    folds = rng.uniform(0.05, 0.4) * (np.sin(rounds * turns + phases[0]) + 0.5 * np.sin(phases[1]))
    folds[:4] *= 0.3
    kind = texture_of(rng, "plain", "weave", "stripes", "checks", "knit", "clouds")
    dark = cloth_color(rng)
    bright = dark * rng.uniform(1.1, 1.8) if rng.random() < 0.65 else cloth_color(rng)
    cloth = Material(
        dark, np.minimum(bright, 0.9), kind, rng.uniform(1200, 3500), rng.uniform(0, 6e-4), rng.uniform(0, 0.008), 8.0
    )
    return arm.tube(hand, bend_rad, along, gap * _CUFF, folds, cloth)


def worn(rng: np.random.Generator, arm: Arm, hand: tuple[np.ndarray, np.ndarray], bend_rad: np.ndarray) -> list[Part]:
    """A bracelet or a watch behind the wrist."""
    start, width, thick = rng.uniform(0.008, 0.03), rng.uniform(0.004, 0.022), rng.uniform(0.0015, 0.004)
    along = start + width * np.array([0.0, 0.0, 0.1, 0.5, 0.9, 1.0, 1.0])
    gap = thick * np.array([0.0, 0.7, 1.0, 1.0, 1.0, 0.7, 0.0])
    color = rng.choice([cloth_color(rng), np.array([0.6, 0.6, 0.62]), np.array([0.65, 0.45, 0.15])])
    kind = texture_of(rng, "plain", "grain", "stripes", "scratches")
    material = Material(color * 0.7, color, kind, 3000.0, 1e-4, rng.uniform(0.01, 0.15), rng.uniform(20, 80))
    folds = np.zeros((len(along), _NUM_AROUND))
    if width > 0.014 and rng.random() < 0.7:  # a watch: its face lies on the back of the arm
        vertices, R = hand
        edge = vertices[arm.loop] - vertices[arm.loop].mean(0)
        up = arm.even(edge) @ R[:, 1]
        folds += 1.5 * (up > 0.8 * up.max())
    return [arm.tube(hand, bend_rad, along, gap, folds, material)]


def cloth_color(rng: np.random.Generator) -> np.ndarray:
    """(3,) linear colour of clothes and objects: mostly greys, blues and dull colours, some bright."""
    value, chroma = rng.uniform(0.02, 0.75), rng.beta(1.0, 2.0)
    tint = rng.dirichlet([1.2, 1.0, 1.4]) * 3
    return np.clip(value * (1 + chroma * (tint - 1)), 0.01, 0.9)
