"""Objects held in the hand, lying in it or in front of it: textured rods, balls, boxes and cones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from utnet.conventions import JOINT_NAMES
from utnet.synth.forearm import cloth_color, tube_faces
from utnet.synth.surfaces import Material, Part
from utnet.synth.textures import texture_of

_AROUND = 20
_HELD_M = (0.004, 0.042)
"""Range of radii of held objects."""

_KNUCKLES = [JOINT_NAMES.index(f"{finger}_mcp") for finger in ("index", "middle", "ring", "little")]
_MIDDLES = [JOINT_NAMES.index(f"{finger}_pip") for finger in ("index", "middle", "ring", "little")]
_TIPS = [JOINT_NAMES.index(f"{finger}_tip") for finger in ("index", "middle", "ring", "little")]


@dataclass(frozen=True)
class Occluder:
    """An object: its mesh, and its capsule (two ends, a radius) for ambient occlusion."""

    part: Part
    capsule: np.ndarray


@lru_cache(maxsize=16)
def _unit_mesh(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices with |x|, |y|, |z| <= 1 along z, faces, and texture coordinates (u, v in 0..1, 0).

    Rims are doubled, since normals are per vertex.
    """
    if kind == "box":
        grid = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
        vertices: list[np.ndarray] = []
        faces: list[list[int]] = []
        for axis in range(3):
            for sign in (-1.0, 1.0):
                corner = np.insert(grid, axis, sign, axis=1)
                start = 4 * len(vertices)
                order = [0, 1, 2, 3] if (sign > 0) == (axis != 1) else [0, 3, 2, 1]
                vertices.append(corner)
                faces += [[start + order[i] for i in t] for t in ((0, 1, 2), (0, 2, 3))]
        places = np.tile(np.column_stack([(grid + 1) / 2, np.zeros(4)]), (6, 1))
        return np.concatenate(vertices), np.array(faces, np.int32), places
    if kind == "ball":
        angle = np.linspace(0, np.pi, 11)
        radius, z = np.sin(angle), -np.cos(angle)
    else:
        profile = {
            "rod": [(0, -1), (1, -1), (1, -1), (1, 0), (1, 1), (1, 1), (0, 1)],
            "cone": [(0, -1), (0.45, -1), (0.45, -1), (0.72, 0), (1, 1), (1, 1), (0, 1)],
            "bottle": [(0, -1), (1, -1), (1, -1), (1, 0.1), (0.95, 0.35), (0.4, 0.6), (0.36, 1), (0.36, 1), (0, 1)],
            "tool": [(0, -1), (1, -1), (1, -1), (1.1, -0.7), (0.9, -0.1), (0.45, 0), (0.4, 1), (0.4, 1), (0, 1)],
        }[kind]
        radius, z = np.array(profile, float).T
    turn = np.arange(_AROUND) * (2 * np.pi / _AROUND)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    v = np.concatenate([np.column_stack([r * ring, np.full(_AROUND, h)]) for r, h in zip(radius, z, strict=True)])
    around = np.abs(np.linspace(-1, 1, _AROUND, endpoint=False))
    places = np.concatenate([np.column_stack([around, np.full(_AROUND, (h + 1) / 2), 0 * around]) for h in z])
    return v, np.ascontiguousarray(tube_faces(len(z), _AROUND)[:, ::-1]), places


def _object(rng: np.random.Generator, kind: str, centre: np.ndarray, axes: np.ndarray, half_m: np.ndarray) -> Occluder:
    """Creates an object of a random material with its z axis along `axes[:, 2]` and half sizes `half_m`."""
    vertices, faces, places = _unit_mesh(kind)
    dark = cloth_color(rng)
    bright = dark * rng.uniform(1.2, 2.5) if rng.random() < 0.5 else cloth_color(rng)
    texture = texture_of(rng, "plain", "grain", "wood", "print", "print", "scratches", "stripes", "clouds", "checks")
    shiny = rng.random() < 0.5
    material = Material(
        dark, np.minimum(bright, 0.9), texture, rng.uniform(1000, 4000), rng.uniform(0, 3e-4),
        rng.uniform(0.01, 0.07) if shiny else rng.uniform(0, 0.01), rng.uniform(20, 120) if shiny else 8.0,
    )  # fmt: skip
    size = 2 * np.array([max(half_m[0], half_m[1]), half_m[2], 0])
    posed = (vertices * half_m) @ axes.T + centre
    reach = axes[:, 2] * max(half_m[2] - half_m[0], 0)
    capsule = np.concatenate([centre - reach, centre + reach, [min(half_m[0], half_m[1])]])
    return Occluder(Part(posed, faces, places * size, material, num_closed=len(faces)), capsule)


def _frame(rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
    """(3, 3) columns x, y, z for a given z, with a random rotation about it."""
    z = z / np.linalg.norm(z)
    x = np.cross(z, rng.normal(size=3))
    x /= np.linalg.norm(x)
    return np.stack([x, np.cross(z, x), z], 1)


def held_object(rng: np.random.Generator, vertices_m: np.ndarray, joints_m: np.ndarray, palm: np.ndarray) -> Occluder:
    """Creates an object in the hand, of the size of the space between fingers and palm.

    Args:
        rng: of this object.
        vertices_m: (V, 3) of the hand, camera frame.
        joints_m: (21, 3) OpenPose-21.
        palm: (3,) unit normal of the palm.
    """
    knuckles, middles, tips = (joints_m[i] for i in (_KNUCKLES, _MIDDLES, _TIPS))
    across = knuckles[-1] - knuckles[0]
    across = across / np.linalg.norm(across) + rng.normal(0, 0.15, 3)
    across /= np.linalg.norm(across)
    centre = 0.4 * (knuckles.mean(0) + 0.012 * palm) + 0.25 * middles.mean(0) + 0.35 * tips.mean(0)
    offset = vertices_m - centre
    along = offset @ across
    near = np.abs(along) < 0.05
    squares = (offset * offset).sum(1)[near] - along[near] ** 2
    close = float(np.sqrt(np.partition(squares, len(squares) // 50)[len(squares) // 50]))  # robust minimum
    spread = float(np.linalg.norm(tips - knuckles, axis=1).mean())
    if spread > 0.075:  # open hand: object on the palm
        radius = rng.uniform(0.012, 0.035)
        palm_middle = 0.6 * knuckles.mean(0) + 0.4 * joints_m[0]
        depth = float(np.sort((vertices_m[::4] - palm_middle) @ palm)[int(0.6 * len(vertices_m) / 4)])
        kind = str(rng.choice(["ball", "box", "rod", "tool"]))
        half = radius * (np.ones(3) if kind == "ball" else np.array([1.0, rng.uniform(0.4, 1), rng.uniform(1, 3)]))
        centre = palm_middle + palm * (max(depth, 0.008) + half[:2].max() * 1.02)
        return _object(rng, kind, centre, _frame(rng, across), half)
    radius = float(np.clip(close * rng.uniform(0.92, 1.02), *_HELD_M))
    kind = str(rng.choice(["rod", "rod", "bottle", "tool", "cone", "box", "ball"]))
    if kind == "ball" and radius > 0.015:
        return _object(rng, kind, centre, _frame(rng, across), np.full(3, radius))
    flat = rng.uniform(0.6, 0.75) if kind == "box" else 1.0
    half = np.array([radius * flat, radius * flat, rng.uniform(0.05, 0.14)])
    shift = across * half[2] * rng.uniform(-0.6, 0.6)
    return _object(rng, kind if kind != "ball" else "rod", centre + shift, _frame(rng, across), half)


def pen_between(rng: np.random.Generator, joints_m: np.ndarray) -> Occluder:
    """Creates a pen held between the tips of thumb and index finger, over the index knuckle."""
    grip = 0.5 * (joints_m[JOINT_NAMES.index("thumb_tip")] + joints_m[JOINT_NAMES.index("index_tip")])
    rest = joints_m[JOINT_NAMES.index("index_mcp")] + rng.normal(0, 0.004, 3)
    direction = grip - rest
    direction /= np.linalg.norm(direction) + 1e-9
    length, radius = rng.uniform(0.05, 0.09), rng.uniform(0.0025, 0.006)
    return _object(
        rng, "rod", grip - direction * length * 0.55, _frame(rng, direction), np.array([radius, radius, length])
    )


def front_object(rng: np.random.Generator, joints_m: np.ndarray) -> Occluder:
    """Creates an object between the camera and a part of the hand, leaving most of the hand visible."""
    middle = joints_m.mean(0)
    reach = float(np.linalg.norm(joints_m - middle, axis=1).max())
    target = joints_m[rng.integers(21)] + rng.normal(0, 0.3 * reach, 3)
    closer = rng.uniform(0.75, 0.93)
    nearest = float(joints_m[:, 2].min()) - 0.03
    centre = target * min(closer, nearest / target[2])
    kind = str(rng.choice(["box", "rod", "rod", "ball", "bottle", "cone", "tool"]))
    thin = reach * rng.uniform(0.08, 0.3)
    half = np.array([thin, thin * rng.uniform(0.5, 1.0), thin * (1 if kind == "ball" else rng.uniform(1.0, 6.0))])
    if kind not in ("box", "ball"):
        half[1] = half[0]
    # Moved away from the middle of the hand, so as not to cover it entirely.
    aside = centre[:2] / centre[2] - middle[:2] / middle[2]
    push = max(0.45 * reach / middle[2] - float(np.linalg.norm(aside)), 0.0)
    centre[:2] += aside / (np.linalg.norm(aside) + 1e-9) * push * centre[2]
    return _object(rng, kind, centre, _frame(rng, rng.normal(size=3) * [1, 1, 0.4]), half)
