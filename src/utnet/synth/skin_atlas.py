"""Textures of the open hand's chart: nails, creases, knuckles, veins, tendons, freckles, the paler palm.

Lines and positions are in metres on the chart (`skin.chart`). Each of a few hands has two textures: back and palm.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from utnet.synth.skin import chart

CHANNELS = ("melanin", "blood", "nail", "vein", "crease", "relief", "mottle", "freckle")
"""Channels of the atlas, uint8. Neutral values: melanin 128, blood 64, relief and mottle 128. freckle: on nails the
white of lunula and free edge."""

ATLAS_MM = 0.5
_X0, _Z0, _WIDTH, _HEIGHT = -0.205, -0.085, 800, 360
NUM_ATLASES, NUM_LEVELS = 4, 3

_FINGERS = {"thumb": (13, 14, 15), "index": (1, 2, 3), "middle": (4, 5, 6), "ring": (10, 11, 12), "little": (7, 8, 9)}
_HALF_WIDTH_M = {"thumb": 0.0095, "index": 0.0078, "middle": 0.0080, "ring": 0.0075, "little": 0.0066}
# Lines of the palm on the chart (metres), from the sides of the thumb and the little finger.
_PALM_LINES = (
    ((-0.060, -0.047), (-0.068, -0.028), (-0.076, -0.008), (-0.086, 0.010)),
    ((-0.072, 0.036), (-0.066, 0.018), (-0.057, -0.006), (-0.043, -0.032)),
    ((-0.073, 0.036), (-0.061, 0.021), (-0.045, 0.010), (-0.026, 0.004), (-0.008, 0.009)),
)


@lru_cache(maxsize=1)
def atlases() -> tuple[np.ndarray, ...]:
    """Levels of detail, each (NUM_ATLASES, 2, H, W, 8) uint8, every level at half the size of the previous one.

    Made once from a fixed seed, so that a picture depends only on its own seed.
    """
    rng = np.random.default_rng(20260103)
    full = np.stack([np.stack([_back(rng), _palm(rng)]) for _ in range(NUM_ATLASES)])
    levels = [full]
    for _ in range(NUM_LEVELS - 1):
        height, width = (n // 2 for n in levels[-1].shape[2:4])
        pictures = levels[-1].reshape(-1, *levels[-1].shape[2:])
        half = [
            np.concatenate(
                [cv2.resize(p[..., k : k + 4], (width, height), interpolation=cv2.INTER_AREA) for k in (0, 4)], -1
            )
            for p in pictures
        ]
        levels.append(np.stack(half).reshape(NUM_ATLASES, 2, height, width, len(CHANNELS)))
    return tuple(levels)


def chart_origin() -> np.ndarray:
    """(2,) float32: x and z of the first texel, metres."""
    return np.array([_X0, _Z0], np.float32)


def _px(points: np.ndarray) -> np.ndarray:
    """Chart coordinates (metres) to pixels of the atlas."""
    return (np.asarray(points, float) - [_X0, _Z0]) / (ATLAS_MM / 1000)


def _clouds(rng: np.random.Generator, cells: tuple[int, ...]) -> np.ndarray:
    """(H, W) float32 multi-scale noise with standard deviation about 1; `cells` across the height."""
    out = np.zeros((_HEIGHT, _WIDTH), np.float32)
    for n in cells:
        grid = rng.normal(size=(n, n * _WIDTH // _HEIGHT)).astype(np.float32)
        out += cv2.resize(grid, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_CUBIC)
    return out / max(float(out.std()), 1e-6)


def _strokes(lines: list[tuple[np.ndarray, float, float]], blur_px: float) -> np.ndarray:
    """(H, W) float32 in [0, 1]: lines as (chart points, width in mm, strength), blurred."""
    layer = np.zeros((_HEIGHT, _WIDTH), np.uint8)
    for points, width_mm, strength in sorted(lines, key=lambda line: line[2]):  # strong ones over faint ones
        path = np.rint(_px(_smooth(points)) * 8).astype(np.int32)
        cv2.polylines(layer, [path], False, 255 * strength, max(1, round(width_mm / ATLAS_MM)), cv2.LINE_AA, 3)
    return cv2.GaussianBlur(layer.astype(np.float32) / 255, (0, 0), blur_px)


def _smooth(points: np.ndarray) -> np.ndarray:
    """Smooths a polyline by two steps of Chaikin's corner cutting."""
    for _ in range(2):
        points = np.asarray(points, float)
        cut = np.stack([0.75 * points[:-1] + 0.25 * points[1:], 0.25 * points[:-1] + 0.75 * points[1:]], 1)
        points = np.concatenate([points[:1], cut.reshape(-1, 2), points[-1:]])
    return points


def _blob(canvas: np.ndarray, centre: np.ndarray, size_m: float, amount: float) -> None:
    """Adds a soft spot to the canvas, in place."""
    x, y = _px(centre)
    s = size_m / (ATLAS_MM / 1000)
    xs, ys = np.arange(_WIDTH) - x, np.arange(_HEIGHT) - y
    canvas += amount * np.exp(-0.5 * (ys[:, None] / s) ** 2) * np.exp(-0.5 * (xs / s) ** 2)


def _across(finger: str, level: int, along_m: float, half_m: float, bow_m: float) -> np.ndarray:
    """Three points of a line across a finger, at `along_m` from the joint of that level towards the tip."""
    layout = chart()
    joints = layout.joints[list(_FINGERS[finger])]
    ends = np.concatenate([joints, layout.tips[list(_FINGERS).index(finger)][None]])
    along = ends[level + 1] - ends[level]
    along /= np.linalg.norm(along)
    side, centre = np.array([-along[1], along[0]]), ends[level] + along * along_m
    return np.stack([centre - side * half_m, centre + along * bow_m, centre + side * half_m])


def _stack(**channels: np.ndarray) -> np.ndarray:
    planes = [np.clip(np.rint(channels[name]), 0, 255).astype(np.uint8) for name in CHANNELS]
    return np.stack(planes, -1)


def _back(rng: np.random.Generator) -> np.ndarray:
    layout = chart()
    melanin, blood = np.full((2, _HEIGHT, _WIDTH), 1.0, np.float32)
    nails, white = np.zeros((2, _HEIGHT, _WIDTH), np.float32)
    wrinkles = []
    for number, (finger, joints) in enumerate(_FINGERS.items()):
        half = _HALF_WIDTH_M[finger]
        for level, joint in enumerate(joints):
            knuckle = (0.006, 0.0055, 0.004)[level]
            _blob(blood, layout.joints[joint], knuckle, rng.uniform(0.25, 0.7))
            _blob(melanin, layout.joints[joint], knuckle, rng.uniform(0.1, 0.35))
            num = (0, 6, 4)[level] if finger != "thumb" else (0, 3, 5)[level]
            for k in range(num):
                place = (k - num / 2 + rng.uniform(0.2, 0.8)) * 0.0019
                bow = rng.uniform(-0.0014, 0.0014)
                line = _across(finger, level, place, half * rng.uniform(0.45, 0.85), bow)
                wrinkles.append((line, 0.6, rng.uniform(0.35, 0.9)))
        _blob(blood, layout.tips[number], 0.007, rng.uniform(0.2, 0.5))
        _paint_nail(rng, number, nails, white)
    for _ in range(160):  # fine lines over the back, mostly across
        at = rng.uniform([-0.09, -0.045], [0.05, 0.045])
        step = rng.normal(0, 1, 2) * [0.0015, 0.004]
        wrinkles.append((np.stack([at - step, at, at + step]), 0.5, rng.uniform(0.05, 0.2)))
    relief = 0.22 * _clouds(rng, (120, 200)) + _tendons(rng)
    return _stack(
        melanin=128 * melanin,
        blood=64 * blood,
        nail=255 * nails,
        vein=255 * _veins(rng),
        crease=255 * _strokes(wrinkles, 0.8),
        relief=128 + 60 * relief,
        mottle=128 + 40 * _clouds(rng, (4, 9, 24)),
        freckle=255 * np.where(nails > 0, white, 0.8 * np.clip(_clouds(rng, (90, 150)) - 2.0, 0, 1)),
    )


def _paint_nail(rng: np.random.Generator, number: int, nails: np.ndarray, white: np.ndarray) -> None:
    """Paints a nail, in place: a rounded square with a pale lunula and a white free edge."""
    layout, finger = chart(), list(_FINGERS)[number]
    tip = layout.tips[number]
    along = tip - layout.joints[_FINGERS[finger][2]]
    along /= np.linalg.norm(along)
    half_w = _HALF_WIDTH_M[finger] * 0.68
    half_l = half_w * 1.15
    centre = tip - along * (half_l * 0.86)
    xs, ys = np.meshgrid(np.arange(_WIDTH), np.arange(_HEIGHT))
    offset = (np.stack([xs, ys], -1) * (ATLAS_MM / 1000) + [_X0, _Z0] - centre).astype(np.float32)
    t, s = offset @ along / half_l, offset @ np.array([-along[1], along[0]]) / half_w
    inside = np.clip((1 - (np.abs(t) ** 2.6 + np.abs(s) ** 2.6)) * 4, 0, 1)
    moon = np.clip(1 - ((t + 1.0) ** 2 / 0.16 + s**2 / 0.35), 0, 1)
    edge = np.clip((t - rng.uniform(0.62, 0.85)) * 8, 0, 1)
    np.maximum(nails, inside, out=nails)
    np.maximum(white, inside * np.maximum(0.45 * moon, 0.8 * edge), out=white)


def _palm(rng: np.random.Generator) -> np.ndarray:
    layout = chart()
    xs = (np.arange(_WIDTH) * (ATLAS_MM / 1000) + _X0).astype(np.float32)
    hand = 1 / (1 + np.exp((xs - 0.004) / 0.006))  # the pale skin of the palm ends at the wrist
    melanin = np.tile(1 - 0.72 * hand, (_HEIGHT, 1)).astype(np.float32)
    blood = np.tile(1 + 0.35 * hand, (_HEIGHT, 1)).astype(np.float32)
    for place, size, amount in (
        ((-0.03, 0.025), 0.014, 0.4),
        ((-0.03, -0.03), 0.014, 0.4),
        ((-0.082, -0.01), 0.012, 0.3),
    ):
        _blob(blood, np.array(place), size, amount * rng.uniform(0.5, 1.5))
    lines = []
    for number, finger in enumerate(_FINGERS):
        _blob(blood, layout.tips[number], 0.008, rng.uniform(0.4, 1.1))
        half = _HALF_WIDTH_M[finger]
        folds = ((1, 0.0), (1, 0.0022), (2, 0.0)) if finger != "thumb" else ((1, 0.0), (2, 0.0), (2, 0.002))
        for level, along in folds:
            lines.append((_across(finger, level, along + rng.normal(0, 4e-4), half, rng.normal(0, 6e-4)), 0.8, 0.9))
        if finger != "thumb":  # base of the finger, half-way to the middle joint
            root = 0.5 * float(np.linalg.norm(layout.joints[_FINGERS[finger][1]] - layout.joints[_FINGERS[finger][0]]))
            lines.append((_across(finger, 0, root, half, 0.0), 0.9, 0.8))
    for line in _PALM_LINES:
        lines.append((np.array(line) + rng.normal(0, 0.002, (len(line), 2)), 1.0, rng.uniform(0.7, 1.0)))
    for x in (0.002, 0.009):
        bend = rng.normal(0, 0.001, 3)
        lines.append((np.stack([x + bend, [-0.026, 0.0, 0.028]], 1), 0.9, rng.uniform(0.4, 0.9)))
    for _ in range(220):
        at = rng.uniform([-0.17, -0.045], [0.0, 0.05])
        step = rng.normal(0, 0.0035, 2)
        lines.append((np.stack([at - step, at + rng.normal(0, 5e-4, 2), at + step]), 0.5, rng.uniform(0.08, 0.3)))
    creases = _strokes(lines, 0.8)
    return _stack(
        melanin=128 * (melanin + 0.3 * creases * hand),
        blood=64 * blood,
        nail=np.zeros_like(blood),
        vein=255 * 0.7 * _veins(rng) * (1 - hand),
        crease=255 * creases,
        relief=128 + 60 * 0.25 * _clouds(rng, (120, 200)),
        mottle=128 + 42 * _clouds(rng, (6, 14, 40)),
        freckle=np.zeros_like(blood),
    )


def _veins(rng: np.random.Generator) -> np.ndarray:
    """(H, W) network of veins from between the knuckles over the back into the forearm."""
    knuckles = chart().joints[[1, 4, 10, 7]]
    starts = (knuckles[:-1] + knuckles[1:]) / 2 + [0.008, 0.0]
    lines, joints = [], []
    for start in starts:
        path = [start]
        while path[-1][0] < 0.19:
            path.append(path[-1] + [rng.uniform(0.01, 0.024), rng.normal(-0.12 * path[-1][1], 0.0045)])
        joints += path[2:6]
        lines.append((np.array(path), rng.uniform(1.6, 2.8), rng.uniform(0.6, 1.0)))
    for _ in range(5):
        a, b = (joints[k] for k in rng.choice(len(joints), 2, replace=False))
        if 0.008 < np.linalg.norm(a - b) < 0.04:
            lines.append((np.stack([a, (a + b) / 2 + rng.normal(0, 0.003, 2), b]), 1.4, 0.6))
    return _strokes(lines, 1.6)


def _tendons(rng: np.random.Generator) -> np.ndarray:
    """(H, W) ridges from the knuckles towards the wrist."""
    lines = []
    for joint in (1, 4, 10, 7):
        knuckle = chart().joints[joint]
        end = np.array([-0.012, 0.3 * knuckle[1]])
        lines.append((np.stack([knuckle, (knuckle + end) / 2, end]), 2.5, rng.uniform(0.5, 1.0)))
    return 2.2 * _strokes(lines, 3.5)
