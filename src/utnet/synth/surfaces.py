"""Meshes with surface materials, merged into one scene, and the surface properties of every pixel."""

from __future__ import annotations

from dataclasses import dataclass, field

import numba
import numpy as np

from utnet.render.raster import NEAR_M, Fragments
from utnet.synth.skin import BLOOD, DERMIS, MELANIN, SURFACE
from utnet.synth.skin_atlas import ATLAS_MM, NUM_LEVELS, atlases, chart_origin
from utnet.synth.textures import TEXTURE_PX, textures

SRGB_TO_LINEAR = ((np.arange(256) / 255) ** 2.2).astype(np.float32)


@dataclass(frozen=True)
class Skin:
    """Skin of a person. Amounts are factors on the channels of the atlas, 0 is none.

    Attributes:
        melanin, blood: as in `skin.skin_albedo`.
        variation: of the palm's and the knuckles' colour and the mottling.
        nails, veins, creases, freckles, relief: amounts.
        polish: (3,) linear colour of nail polish, or None.
        gloss: specular reflectance at normal incidence; shininess: its exponent.
        atlas: index of the texture.
    """

    melanin: float
    blood: float
    variation: float = 0.0
    nails: float = 0.0
    veins: float = 0.0
    creases: float = 0.0
    freckles: float = 0.0
    relief: float = 0.0
    polish: np.ndarray | None = None
    gloss: float = 0.0
    shininess: float = 20.0
    atlas: int = 0

    def row(self) -> list[float]:
        polish = (-1.0, 0.0, 0.0) if self.polish is None else self.polish
        amounts = [self.variation, self.nails, self.veins, self.creases, self.freckles, self.relief]
        return [0.0, self.atlas, self.gloss, self.shininess, self.melanin, self.blood, *amounts, *polish]


@dataclass(frozen=True)
class Material:
    """Cloth, wood, plastic: two colours mixed by a procedural texture.

    Attributes:
        dark, bright: (3,) linear colours where the texture is dark and where it is bright.
        texture: index into `textures.textures`.
        texels_m: texels per metre.
        bump_m: height difference of bright and dark texels.
        gloss, shininess: as in `Skin`.
    """

    dark: np.ndarray
    bright: np.ndarray
    texture: int = 0
    texels_m: float = 1000.0
    bump_m: float = 0.0
    gloss: float = 0.0
    shininess: float = 20.0

    def row(self) -> list[float]:
        return [
            1.0, self.texture, self.gloss, self.shininess, *self.dark, *self.bright, self.texels_m, self.bump_m,
            0.0, 0.0, 0.0,
        ]  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One mesh of a scene.

    Attributes:
        vertices_m: (V, 3) camera frame.
        faces: (F, 3) counter-clockwise seen from outside.
        places: (V, 3) texture coordinates in metres, and palm weight.
        surface: its material.
        bones: (V,) index of the capsule that a vertex belongs to (it is not occluded by it), -1 for none.
        num_closed: number of leading faces that are visible only from outside if the whole part is in front of the
            camera.
    """

    vertices_m: np.ndarray
    faces: np.ndarray
    places: np.ndarray
    surface: Skin | Material
    bones: np.ndarray | None = None
    num_closed: int = 0


@dataclass(frozen=True)
class Scene:
    """All parts as one mesh. `part_of_face`: part of each face; `closed`: faces visible only from outside."""

    vertices_m: np.ndarray
    faces: np.ndarray
    places: np.ndarray
    bones: np.ndarray
    part_of_face: np.ndarray
    closed: np.ndarray
    surfaces: np.ndarray = field(repr=False)

    @classmethod
    def of(cls, parts: list[Part]) -> Scene:
        """Merges parts, in order."""
        firsts = np.cumsum([0] + [len(part.vertices_m) for part in parts[:-1]])
        bones = [np.full(len(p.vertices_m), -1, np.int32) if p.bones is None else p.bones for p in parts]
        # Faces in front of the near plane are missing, so the inside of such a part is visible.
        closed = [0 if p.vertices_m[:, 2].min() < NEAR_M else p.num_closed for p in parts]
        return cls(
            vertices_m=np.concatenate([part.vertices_m for part in parts]).astype(np.float32),
            faces=np.concatenate([p.faces + np.int32(k) for p, k in zip(parts, firsts, strict=True)]).astype(np.int32),
            places=np.concatenate([part.places for part in parts]).astype(np.float32),
            bones=np.concatenate(bones).astype(np.int32),
            part_of_face=np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.faces) for part in parts]),
            closed=np.concatenate([np.arange(len(p.faces)) < num for p, num in zip(parts, closed, strict=True)]),
            surfaces=np.array([part.surface.row() for part in parts], np.float32),
        )


def faces_to_draw(vertices_m: np.ndarray, faces: np.ndarray, closed: np.ndarray) -> np.ndarray:
    """Back-face culling of closed meshes: returns (F, 3) faces with culled faces collapsed to a point.

    Args:
        vertices_m: (V, 3) float32, camera frame.
        faces: (F, 3) int32.
        closed: (F,) bool, faces visible only from outside.
    """
    out = faces.copy()
    _fold_away(vertices_m, faces, closed, out)
    return out


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _fold_away(vertices, faces, closed, out):
    for f in range(faces.shape[0]):
        if not closed[f]:
            continue
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        x, y, z = vertices[a, 0], vertices[a, 1], vertices[a, 2]
        ux, uy, uz = vertices[b, 0] - x, vertices[b, 1] - y, vertices[b, 2] - z
        vx, vy, vz = vertices[c, 0] - x, vertices[c, 1] - y, vertices[c, 2] - z
        if (uy * vz - uz * vy) * x + (uz * vx - ux * vz) * y + (ux * vy - uy * vx) * z >= 0:
            out[f, 1] = out[f, 2] = a


def surface_colors(scene: Scene, fragments: Fragments, px_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Surface properties of every pixel.

    Args:
        scene: the meshes.
        fragments: their rasterisation.
        px_m: size of a pixel at the hand, for the level of detail.

    Returns:
        (H, W, 3) linear albedo and (H, W, 3) relief height in metres, gloss, shininess; undefined where nothing is
        drawn.
    """
    level = int(np.clip(np.round(np.log2(max(px_m / (ATLAS_MM / 1000), 1e-6)) - 0.3), 0, NUM_LEVELS - 1))
    shape = (*fragments.face.shape, 3)
    albedo, finish = np.empty(shape, np.float32), np.empty(shape, np.float32)
    _surface_colors(
        fragments.face, fragments.weights, scene.faces, scene.places, scene.part_of_face, scene.surfaces,
        atlases()[level], chart_origin(), np.float32(1000 / ATLAS_MM / 2**level), textures(), albedo, finish,
    )  # fmt: skip
    return albedo, finish


_DERMIS, _MELANIN, _BLOOD = (a.astype(np.float32) for a in (DERMIS, MELANIN, BLOOD))
_SURFACE = np.float32(SURFACE)
_VEIN_RGB = np.array([0.20, 0.12, 0.04], np.float32)
"""Absorption of a vein."""
_CREASE_M, _VEIN_M, _RELIEF_M, _NAIL_M = (np.float32(v) for v in (4e-4, 5e-4, 4e-4, 2e-4))
"""Depth of a full crease, height of a full vein, of the relief's brightest places and of a nail's rim."""
# Constants are float32 by name, since numba promotes float32 with a literal to float64.
_1, _2, _HALF, _QUARTER, _255TH, _128TH, _64TH = (np.float32(v) for v in (1, 2, 0.5, 0.25, 1 / 255, 1 / 128, 1 / 64))
_WRAP_TEXELS = np.float32(65536)
_MOTTLE_MELANIN, _MOTTLE_BLOOD, _VEIN_BLOOD = (np.float32(v) for v in (0.14, 0.45, 0.3))
_NAIL_PALE, _NAIL_BLOOD, _NAIL_GLOSS, _MIXED = (np.float32(v) for v in (0.4, 0.12, 1.2, 0.004))


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _surface_colors(
    face, weights, faces, places, part_of_face, surfaces, atlas, origin, per_m, textures, albedo, finish
):
    height, width = face.shape
    rows, columns = atlas.shape[2], atlas.shape[3]
    c = np.zeros(8, np.float32)
    for y in range(height):
        for x in range(width):
            f = face[y, x]
            if f < 0:
                continue
            u, v, palm = np.float32(0), np.float32(0), np.float32(0)
            for k in range(3):
                place, w = places[faces[f, k]], weights[y, x, k]
                u += w * place[0]
                v += w * place[1]
                palm += w * place[2]
            s = surfaces[part_of_face[f]]
            finish[y, x, 1], finish[y, x, 2] = s[2], s[3]
            if s[0] > _HALF:
                i = int(v * s[10] + _WRAP_TEXELS) & (TEXTURE_PX - 1)
                j = int(u * s[10] + _WRAP_TEXELS) & (TEXTURE_PX - 1)
                t = np.float32(textures[int(s[1]), i, j]) * _255TH
                for k in range(3):
                    albedo[y, x, k] = s[4 + k] + t * (s[7 + k] - s[4 + k])
                finish[y, x, 0] = t * s[11]
                continue
            i = int((v - origin[1]) * per_m)
            j = int((u - origin[0]) * per_m)
            j = j if j < columns else 2 * columns - 1 - j  # beyond the chart: mirrored
            i, j = min(max(i, 0), rows - 1), min(max(j, 0), columns - 1)
            side = 1 if palm > _HALF else 0
            for k in range(8):
                c[k] = atlas[int(s[1]), side, i, j, k]
            other = min(palm, _1 - palm)
            if other > _MIXED:  # blend of back and palm along the edge of the hand
                for k in range(8):
                    c[k] += other * (np.float32(atlas[int(s[1]), 1 - side, i, j, k]) - c[k])
            mottle = (c[6] * _128TH - _1) * s[6]
            nail = c[2] * _255TH * s[7]
            vein, crease = c[3] * _255TH * s[8], c[4] * _255TH * s[9]
            spot = c[7] * _255TH
            melanin = s[4] * (_1 + (c[0] * _128TH - _1) * s[6] + _MOTTLE_MELANIN * mottle) + _QUARTER * crease
            blood = s[5] * (_1 + (c[1] * _64TH - _1) * s[6] + _MOTTLE_BLOOD * mottle) * (_1 - _VEIN_BLOOD * vein)
            blood += _QUARTER * crease
            melanin *= _1 - nail * _NAIL_PALE * (_1 + spot)
            blood += nail * (_NAIL_BLOOD - (blood + _NAIL_BLOOD) * spot)
            if c[2] == 0:
                melanin += spot * s[10]
            melanin, blood = max(melanin, np.float32(0)), max(blood, np.float32(0))
            for k in range(3):
                value = _DERMIS[k] * np.exp(-melanin * _MELANIN[k] - blood * _BLOOD[k]) + _SURFACE
                value *= _1 - vein * _VEIN_RGB[k]
                if s[12] >= 0:
                    value += nail * (s[12 + k] - value)
                albedo[y, x, k] = value
            relief = (c[5] * _128TH - _1) * s[11] * (_1 - nail)
            finish[y, x, 0] = _RELIEF_M * relief + _VEIN_M * vein - _CREASE_M * crease + _NAIL_M * nail
            finish[y, x, 1] = s[2] * (_1 + _NAIL_GLOSS * nail)
            finish[y, x, 2] = s[3] * (_1 + _2 * nail)
