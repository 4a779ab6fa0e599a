"""Backgrounds: procedural rooms, tables, gardens and clutter, or the user's photographs."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from utnet.errors import InputError
from utnet.io.files import check_pixels, read_bytes
from utnet.synth.skin import sample_skin, skin_albedo
from utnet.synth.surfaces import SRGB_TO_LINEAR
from utnet.synth.textures import KINDS, textures, tiling_clouds

_NUM_SCENES, _SCENE_PX = 48, 256
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_PHOTO_PX = 320
"""Shorter side of loaded photographs."""


class Backgrounds:
    """Source of background pictures.

    Attributes:
        photos: the files in the user's folder, sorted; empty for procedural scenes.
    """

    def __init__(self, folder: str = "", *, option: str = "synth.backgrounds"):
        self.photos: tuple[Path, ...] = ()
        if folder:
            root = Path(folder)
            if not root.is_dir():
                raise InputError(f"{option} is {folder!r}; no such folder; expected one with photographs")
            self.photos = tuple(sorted(p for p in root.rglob("*") if p.suffix.lower() in _SUFFIXES))
            if not self.photos:
                raise InputError(f"{folder}: no photographs ({', '.join(_SUFFIXES)}) for {option}")

    def draw(
        self, rng: np.random.Generator, size_wh: tuple[int, int], *, variety: float, distractors: float, defocus: float
    ) -> np.ndarray:
        """Draws a background: (H, W, 3) float32 linear light.

        Args:
            rng: of this picture.
            size_wh: width and height.
            variety: 0 for uniform grey, 1 for a randomly rotated, scaled and coloured scene or photograph.
            distractors: strength of skin-coloured distractors.
            defocus: strength of defocus blur.
        """
        grey = rng.uniform(60, 190)
        sigma = defocus * max(size_wh) / 224 * np.exp(rng.uniform(np.log(0.3), np.log(6.0)))
        # Wide blurs are computed on a smaller picture.
        step = 4 if sigma > 4.5 else 2 if sigma > 1.6 else 1
        scene = self._scene(rng, (-(-size_wh[0] // step), -(-size_wh[1] // step)))
        if variety < 1:
            scene = cv2.addWeighted(scene, variety, np.full_like(scene, grey), 1 - variety, 0)
        if rng.random() < 0.5 * distractors:
            _add_distractors(rng, scene)
        if sigma > 0.35:
            scene = cv2.GaussianBlur(scene, (0, 0), sigma / step)
        if step > 1:
            scene = cv2.resize(scene, size_wh, interpolation=cv2.INTER_LINEAR)
        gain = np.exp(variety * rng.normal(0, 0.3)) * np.exp(variety * rng.normal(0, 0.1, 3))
        linear = SRGB_TO_LINEAR[:, None] * (gain**2.2).astype(np.float32)
        return cv2.LUT(scene, np.minimum(linear, 1)[None])

    def _scene(self, rng: np.random.Generator, size_wh: tuple[int, int]) -> np.ndarray:
        if self.photos:
            source = read_photo(self.photos[int(rng.integers(len(self.photos)))])
        else:
            source = scenes()[int(rng.integers(_NUM_SCENES))]
        height, width = source.shape[:2]
        side = min(height, width) * rng.uniform(0.45, 1.0)
        angle = rng.normal(0, 0.25) + rng.choice([0.0, 0.0, np.pi / 2, -np.pi / 2])
        turn = side / max(size_wh) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if rng.random() < 0.5:
            turn[:, 0] *= -1
        room = np.array([width - side, height - side])
        centre = [width / 2, height / 2] + rng.uniform(-0.5, 0.5, 2) * room
        affine = np.concatenate([turn, (centre - turn @ [size_wh[0] / 2, size_wh[1] / 2])[:, None]], 1)
        return cv2.warpAffine(
            source, affine, size_wh, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REFLECT
        )


def _add_distractors(rng: np.random.Generator, scene: np.ndarray) -> None:
    """Draws skin-coloured ovals and rods, in place, so that a hand cannot be found by colour alone."""
    height, width = scene.shape[:2]
    color = (skin_albedo(*sample_skin(rng, 1.0)) * rng.uniform(0.3, 1.2)).clip(0, 1) ** (1 / 2.2) * 255
    for _ in range(rng.integers(1, 5)):
        x, y = rng.uniform(0, 1, 2) * [width, height]
        size, angle = rng.uniform(0.03, 0.22) * width, rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(0.5, 6) * size * np.array([np.cos(angle), np.sin(angle)])
        for layer in range(3):  # brighter towards the light, in three steps that the blur smooths
            shift, shrink = layer * 0.1 * size, 1 - 0.22 * layer
            start = (int(x - shift), int(y - shift))
            end = (int(x + reach[0] - shift), int(y + reach[1] - shift))
            shade = tuple((color * (0.7 + 0.18 * layer)).clip(0, 255).tolist())
            cv2.line(scene, start, end, shade, max(1, int(size * shrink)), cv2.LINE_AA)


@lru_cache(maxsize=128)
def read_photo(path: Path) -> np.ndarray:
    """Reads a photograph as (H, W, 3) uint8 with shorter side `_PHOTO_PX`.

    Raises:
        InputError: the file is not a picture.
    """
    data = read_bytes(path)
    check_pixels(data, str(path))
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_REDUCED_COLOR_2)
    if bgr is None:
        raise InputError(f"{path}: not a readable picture; replace or remove it (synth.backgrounds)")
    scale = _PHOTO_PX / min(bgr.shape[:2])
    size = (round(bgr.shape[1] * scale), round(bgr.shape[0] * scale))
    return np.ascontiguousarray(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)[..., ::-1])


@lru_cache(maxsize=1)
def scenes() -> np.ndarray:
    """(48, 256, 256, 3) uint8 procedural scenes, made once from a fixed seed."""
    rng = np.random.default_rng(20260105)
    painters = (_room, _table, _garden, _clutter, _wall, _lights, _person, _shelf)
    return np.stack([_finish(rng, painters[k % len(painters)](rng)) for k in range(_NUM_SCENES)])


def _finish(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """Applies uneven light and slight blur to a scene."""
    light = 0.65 + 0.7 * cv2.resize(tiling_clouds(rng, (2, 3)), (_SCENE_PX, _SCENE_PX))
    out = np.clip(picture * light[..., None], 0, 1)
    out = 0.75 * out + 0.25 * out.mean(2, keepdims=True)  # air and lens take some of the colour
    return (cv2.GaussianBlur(out, (0, 0), rng.uniform(0.4, 1.2)) * 255).astype(np.uint8)


def _color(rng: np.random.Generator, low: float = 0.08, high: float = 0.95) -> np.ndarray:
    """(3,) a random colour of objects, mostly of low saturation."""
    hue, saturation, value = rng.uniform(0, 1), rng.beta(1.0, 4.0), rng.uniform(low, high)
    wheel = np.clip(np.abs((hue * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation * (1 - wheel))


def _material(rng: np.random.Generator, depth: float = 0.35) -> np.ndarray:
    """(256, 256, 3) texture of a random material."""
    grey = textures()[rng.integers(len(KINDS) * 4)].astype(np.float32)[..., None] / 255
    return _color(rng) * (1 - depth + 2 * depth * (grey - 0.3))


def _box(rng: np.random.Generator, picture: np.ndarray, corners: tuple, shadow: bool = True) -> None:
    """Draws a rectangle of a random material with a shadow, in place."""
    x0, y0, x1, y1 = (int(np.clip(v, 0, _SCENE_PX)) for v in corners)
    if x1 - x0 < 2 or y1 - y0 < 2:
        return
    if shadow:
        dx, dy = rng.integers(-6, 7, 2)
        picture[max(y0 + dy, 0) : max(y1 + dy, 0), max(x0 + dx, 0) : max(x1 + dx, 0)] *= 0.6
    face = np.linspace(1, rng.uniform(0.6, 1.0), x1 - x0)[None, :, None]
    picture[y0:y1, x0:x1] = _material(rng)[y0:y1, x0:x1] * face


def _room(rng: np.random.Generator) -> np.ndarray:
    wall, floor, at = _color(rng, 0.4), _material(rng), int(rng.integers(130, 230))
    out = np.tile(wall.astype(np.float32), (_SCENE_PX, _SCENE_PX, 1)) * np.linspace(1.1, 0.8, _SCENE_PX)[:, None, None]
    out[at:] = floor[at:]
    for _ in range(rng.integers(2, 6)):
        x, w, h = rng.integers(-30, 250), rng.integers(20, 110), rng.integers(30, 150)
        _box(rng, out, (x, at - h + rng.integers(0, 30), x + w, at + rng.integers(0, 30)))
    if rng.random() < 0.5:  # a window
        x, y, w, h = *rng.integers(0, 180, 2), *rng.integers(30, 90, 2)
        out[y : y + h, x : x + w] = _color(rng, 0.9, 1.0) * 1.1
        out[y : y + h, x + w // 2 : x + w // 2 + 3] = wall
    return out


def _table(rng: np.random.Generator) -> np.ndarray:
    out = _material(rng, 0.25).copy()
    for _ in range(rng.integers(0, 7)):
        x, y, w, h = *rng.integers(-20, 250, 2), *rng.integers(10, 120, 2)
        if rng.random() < 0.6:
            layer = out.copy()
            _box(rng, layer, (x, y, x + w, y + h))
            turn = cv2.getRotationMatrix2D((float(x + w / 2), float(y + h / 2)), rng.uniform(-60, 60), 1.0)
            mask = cv2.warpAffine(np.zeros((256, 256), np.float32), turn, (256, 256), borderValue=0)
            cv2.rectangle(mask, (int(x), int(y)), (int(x + w), int(y + h)), 1.0, -1)
            mask = cv2.warpAffine(mask, turn, (256, 256))[..., None]
            out = out * (1 - mask) + cv2.warpAffine(layer, turn, (256, 256)) * mask
        else:
            color = tuple(_color(rng).tolist())
            cv2.ellipse(out, (int(x), int(y)), (int(w / 2) + 2, int(w / 2.2) + 2), 0, 0, 360, color, -1, cv2.LINE_AA)
            inner = tuple((np.array(color) * 0.8).tolist())
            cv2.ellipse(out, (int(x), int(y)), (int(w / 2.6) + 1, int(w / 2.9) + 1), 0, 0, 360, inner, -1, cv2.LINE_AA)
    return out


def _garden(rng: np.random.Generator) -> np.ndarray:
    field = tiling_clouds(rng, (2, 4, 8, 16, 32, 64, 128), 0.75)[..., None]
    fine = tiling_clouds(rng, (16, 32, 64, 128), 0.9)[..., None]
    greens = np.array([0.25, 0.4, 0.12]) * rng.uniform(0.5, 1.4, 3)
    out = greens * (0.4 + 1.4 * fine) * (1 - field) + _color(rng) * field * (0.5 + fine)
    sky = int(rng.integers(0, 140))
    edge = sky + 30 * (tiling_clouds(rng, (4, 8, 16))[0] - 0.5)
    mask = 1 / (1 + np.exp((np.arange(_SCENE_PX)[:, None] - edge) / 2))
    return out * (1 - mask[..., None]) + np.array([0.75, 0.85, 0.95]) * rng.uniform(0.8, 1.1) * mask[..., None]


def _clutter(rng: np.random.Generator) -> np.ndarray:
    out = _material(rng).copy()
    for _ in range(rng.integers(12, 40)):
        x, y, w, h = *rng.integers(-20, 250, 2), *rng.integers(8, 80, 2)
        if rng.random() < 0.6:
            _box(rng, out, (x, y, x + w, y + h))
        else:
            color, turn = tuple(_color(rng).tolist()), float(rng.uniform(0, 180))
            axes = (int(w / 2), int(h / 2))
            cv2.ellipse(out, (int(x), int(y)), axes, turn, 0, 360, color, -1, cv2.LINE_AA)
    return out


def _wall(rng: np.random.Generator) -> np.ndarray:
    slope = rng.normal(0, 0.3, 2)
    y, x = np.meshgrid(np.linspace(-1, 1, _SCENE_PX), np.linspace(-1, 1, _SCENE_PX), indexing="ij")
    return (_material(rng, 0.08) * 0.4 + 0.6 * _color(rng, 0.3)) * (1 + slope[0] * x + slope[1] * y)[..., None]


def _lights(rng: np.random.Generator) -> np.ndarray:
    out = np.zeros((_SCENE_PX, _SCENE_PX, 3), np.float32) + _color(rng, 0.02, 0.25) * (
        0.5 + tiling_clouds(rng, (2, 4, 8))[..., None]
    )
    for _ in range(rng.integers(8, 40)):
        spot = np.zeros_like(out)
        x, y = (int(v) for v in rng.integers(0, _SCENE_PX, 2))
        cv2.circle(spot, (x, y), int(rng.integers(3, 18)), tuple(_color(rng, 0.4, 1.0).tolist()), -1, cv2.LINE_AA)
        out += spot * rng.uniform(0.3, 0.9)
    return out


def _person(rng: np.random.Generator) -> np.ndarray:
    out = _room(rng)
    skin = np.clip(skin_albedo(*sample_skin(rng, 1.0)), 0, 1) ** (1 / 2.2)
    x, y, size = int(rng.integers(60, 200)), int(rng.integers(50, 140)), int(rng.integers(28, 60))
    hair = tuple((_color(rng, 0.03, 0.4)).tolist())
    cloth = _material(rng)
    mask = np.zeros((_SCENE_PX, _SCENE_PX), np.float32)
    cv2.ellipse(mask, (x, y + 3 * size), (int(2.1 * size), 2 * size), 0, 0, 360, 1.0, -1, cv2.LINE_AA)
    out = out * (1 - mask[..., None]) + cloth * mask[..., None]
    cv2.ellipse(out, (x, y - size // 5), (int(size * 0.95), int(size * 1.2)), 0, 0, 360, hair, -1, cv2.LINE_AA)
    cv2.rectangle(out, (x - size // 3, y), (x + size // 3, y + int(1.5 * size)), tuple((skin * 0.8).tolist()), -1)
    cv2.ellipse(out, (x, y), (int(size * 0.75), size), 0, 0, 360, tuple(skin.tolist()), -1, cv2.LINE_AA)
    for side in (-1, 1):
        cv2.circle(out, (x + side * size // 3, y - size // 6), max(2, size // 10), hair, -1, cv2.LINE_AA)
    return out


def _shelf(rng: np.random.Generator) -> np.ndarray:
    out = _material(rng, 0.15).copy() * 0.6
    top = 0
    while top < _SCENE_PX:
        height, x = int(rng.integers(40, 90)), 0
        while x < _SCENE_PX:
            width = int(rng.integers(5, 30))
            if rng.random() < 0.85:
                _box(rng, out, (x, top + int(rng.integers(2, height // 2)), x + width, top + height - 6), False)
            x += width + 1
        top += height
    return out
