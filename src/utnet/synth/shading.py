"""Shading of a scene with shadows, ambient occlusion, relief and highlights.

Ambient light is occluded by fingers, palms and objects, approximated by capsules, with interreflection (Jimenez et al.,
Practical Real-Time Strategies for Accurate Indirect Occlusion, 2016). Relief perturbs the normal (Mikkelsen, Bump
Mapping Unparametrized Surfaces on the GPU, 2010). Subsurface scattering of skin is approximated by wrapped diffuse
light, most for red. Highlights are normalised Blinn-Phong with Schlick's Fresnel term.
"""

from __future__ import annotations

import numba
import numpy as np

from utnet.render.raster import Fragments, rasterize, vertex_normals
from utnet.synth.lights import Lights
from utnet.synth.surfaces import Scene, faces_to_draw

_SHADOW_PX = 128
_TAPS = np.array([[0.0, 0.0], [-0.9, -0.4], [-0.4, 0.9], [0.9, 0.4], [0.4, -0.9]], np.float32)
_WRAP = np.array([0.30, 0.14, 0.09], np.float32)
_SMOOTH_M = np.float32(0.02)
"""Relief is ignored where the depth of neighbouring pixels differs by more than this."""
# Constants are float32 by name, since numba promotes float32 with a literal to float64, which costs a third of the
# time.
_0, _1, _2, _HALF, _EIGHTH, _FIFTH, _TINY = (np.float32(v) for v in (0, 1, 2, 0.5, 0.125, 0.2, 1e-9))
_8, _12 = np.float32(8), np.float32(12)
_BIAS_M, _LEAST_COSINE, _STEEPEST, _NEAREST = (np.float32(v) for v in (0.003, 0.1, 4, 4))
_AWAY, _FAR_RADII, _MOST = (np.float32(v) for v in (0.3, 36, 0.9))


def shade_scene(
    scene: Scene,
    fragments: Fragments,
    K_px: np.ndarray,
    albedo: np.ndarray,
    finish: np.ndarray,
    lights: Lights,
    capsules: np.ndarray,
    middle_m: np.ndarray,
) -> np.ndarray:
    """Computes the light of every pixel of a scene.

    Args:
        scene: the meshes.
        fragments: their rasterisation.
        K_px: (3, 3) intrinsics.
        albedo, finish: (H, W, 3) each, as returned by `surface_colors`.
        lights: the lights.
        capsules: (C, 8) occluders of ambient light: two ends, radius, bone.
        middle_m: (3,) middle of the hand, camera frame.

    Returns:
        (H, W, 3) float32 linear light; undefined where nothing is drawn.
    """
    normals = vertex_normals(scene.vertices_m, scene.faces)
    open_share = np.ones(len(normals), np.float32)
    if lights.occlusion > 0:
        strength = np.float32(lights.occlusion)
        _open_share(scene.vertices_m, normals, scene.bones, capsules.astype(np.float32), strength, open_share)
    out = np.empty_like(albedo)
    R, t, f_px, depth = _shadow_map(scene, lights, middle_m)
    lamp = np.concatenate([lights.lamp_m + middle_m, lights.lamp_rgb, [lights.lamp_m @ lights.lamp_m]])
    _shade(
        fragments.face, fragments.weights, fragments.depth_m, scene.faces, scene.part_of_face, normals, open_share,
        np.linalg.inv(K_px).astype(np.float32), np.float32(K_px[0, 0]), albedo, finish,
        lights.around.astype(np.float32), lights.key.astype(np.float32), lights.key_rgb.astype(np.float32),
        lamp.astype(np.float32), R, t, f_px, depth, np.float32(lights.shadows), np.float32(lights.softness_m), out,
    )  # fmt: skip
    return out


def _shadow_map(
    scene: Scene, lights: Lights, middle_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.float32, np.ndarray]:
    """Shadow map of the key light from a distant camera: (R, t, f_px, (S, S) z); (1, 1) if there are no shadows."""
    z = -lights.key
    x = np.array([z[2], 0.0, -z[0]]) if abs(z[1]) < 0.9 else np.array([0.0, -z[2], z[1]])
    x /= np.sqrt(x @ x)
    y = [z[1] * x[2] - z[2] * x[1], z[2] * x[0] - z[0] * x[2], z[0] * x[1] - z[1] * x[0]]
    R = np.stack([x, y, z])
    far, half = 3.0, 0.17
    t = -R @ (middle_m + lights.key * far)
    f_px = _SHADOW_PX / 2 / half * far
    if lights.shadows <= 0 or lights.key_rgb.max() <= 0.03:
        depth = np.zeros((1, 1), np.float32)
    else:
        K = np.array([[f_px, 0, _SHADOW_PX / 2], [0, f_px, _SHADOW_PX / 2], [0, 0, 1]])
        vertices = scene.vertices_m @ R.T.astype(np.float32) + t.astype(np.float32)
        drawn = faces_to_draw(vertices, scene.faces, scene.closed)
        seen = rasterize(vertices, drawn, K, (_SHADOW_PX, _SHADOW_PX))
        depth = seen.depth_m
    return R.astype(np.float32), t.astype(np.float32), np.float32(f_px), depth


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _open_share(vertices, normals, bones, capsules, strength, out):
    """Fraction of ambient light that reaches each vertex; a capsule occludes like a ball at its nearest point."""
    for v in range(vertices.shape[0]):
        px, py, pz = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        nx, ny, nz = normals[v, 0], normals[v, 1], normals[v, 2]
        if nx * px + ny * py + nz * pz > _AWAY * pz:
            continue  # faces away from the camera
        share = _1
        for c in range(capsules.shape[0]):
            bone = int(capsules[c, 7])
            if bone == bones[v] and bone >= 0:
                continue
            ax, ay, az = capsules[c, 0], capsules[c, 1], capsules[c, 2]
            ex, ey, ez = capsules[c, 3] - ax, capsules[c, 4] - ay, capsules[c, 5] - az
            dx, dy, dz = px - ax, py - ay, pz - az
            r = capsules[c, 6]
            start = -(dx * nx + dy * ny + dz * nz)
            if start < 0 and start + ex * nx + ey * ny + ez * nz < 0:
                continue  # entirely behind the surface
            along = (dx * ex + dy * ey + dz * ez) / (ex * ex + ey * ey + ez * ez + _TINY)
            along = min(max(along, _0), _1)
            dx, dy, dz = along * ex - dx, along * ey - dy, along * ez - dz
            square = dx * dx + dy * dy + dz * dz
            facing = dx * nx + dy * ny + dz * nz
            if square > _FAR_RADII * r * r or facing <= 0:
                continue
            hidden = facing / np.sqrt(square) * min(r * r / square, _MOST)
            share *= _1 - strength * hidden
        out[v] = share


@numba.njit(inline="always", fastmath=True, error_model="numpy")
def _lit(x, y, z, cosine, R, t, f_px, depth, softness):
    """Fraction of the key light that reaches a point, by five samples of the shadow map.

    The depth bias grows with the slope, since a surface at grazing angles covers many distances within one pixel.
    """
    size, half = depth.shape[0], np.float32(depth.shape[0]) * _HALF
    lz = R[2, 0] * x + R[2, 1] * y + R[2, 2] * z + t[2]
    px_m = lz / f_px
    u = (R[0, 0] * x + R[0, 1] * y + R[0, 2] * z + t[0]) / px_m + half
    v = (R[1, 0] * x + R[1, 1] * y + R[1, 2] * z + t[1]) / px_m + half
    spread = softness / px_m
    slope = np.sqrt(max(_1 - cosine * cosine, _0)) / max(cosine, _LEAST_COSINE)
    behind = lz - _BIAS_M - (softness + px_m) * (_HALF + min(slope, _STEEPEST))
    lit = _0
    for k in range(5):
        i, j = int(v + _TAPS[k, 0] * spread + _HALF), int(u + _TAPS[k, 1] * spread + _HALF)
        if i < 0 or j < 0 or i >= size or j >= size or depth[i, j] == 0 or depth[i, j] > behind:
            lit += _FIFTH
    return lit


@numba.njit(inline="always", fastmath=True, error_model="numpy")
def _mirrored(nx, ny, nz, vx, vy, vz, lx, ly, lz, shininess):
    """Specular highlight of a light, before multiplication by gloss."""
    hx, hy, hz = lx + vx, ly + vy, lz + vz
    inv = _1 / np.sqrt(hx * hx + hy * hy + hz * hz + _TINY)
    cosine = max((nx * hx + ny * hy + nz * hz) * inv, _0)
    if shininess * (_1 - cosine) > _8:
        return _0
    grazing = _1 - max((vx * hx + vy * hy + vz * hz) * inv, _0)
    square = grazing * grazing
    peak = np.exp(shininess * np.log(cosine))
    return (shininess + _2) * _EIGHTH * peak * (_1 + _12 * square * square * grazing)


@numba.njit(inline="always", fastmath=True, error_model="numpy")
def _slopes(x, y, px_m, face, depth_m, part_of_face, finish):
    """Gradient of the relief to the right and downwards; 0 along outlines."""
    height, width = face.shape
    if x == 0 or y == 0 or x == width - 1 or y == height - 1:
        return _0, _0
    gx, gy = finish[y, x + 1, 0] - finish[y, x - 1, 0], finish[y + 1, x, 0] - finish[y - 1, x, 0]
    if gx == 0 and gy == 0:
        return _0, _0
    a, b, c, d = face[y, x - 1], face[y, x + 1], face[y - 1, x], face[y + 1, x]
    if a < 0 or b < 0 or c < 0 or d < 0:
        return _0, _0
    part = part_of_face[face[y, x]]
    if part_of_face[a] != part or part_of_face[b] != part or part_of_face[c] != part or part_of_face[d] != part:
        return _0, _0
    if abs(depth_m[y, x + 1] - depth_m[y, x - 1]) + abs(depth_m[y + 1, x] - depth_m[y - 1, x]) > _SMOOTH_M:
        return _0, _0
    return gx * _HALF / px_m, gy * _HALF / px_m


@numba.njit(inline="always", fastmath=True, error_model="numpy")
def _from_around(k, around, x, y, z):
    """Ambient irradiance E(n) for a normal."""
    e = around[k, 0] + around[k, 1] * x + around[k, 2] * y + around[k, 3] * z
    e += around[k, 4] * x * x + around[k, 5] * y * y + around[k, 6] * z * z
    return max(e + around[k, 7] * x * y + around[k, 8] * x * z + around[k, 9] * y * z, _0)


@numba.njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _shade(
    face, weights, depth_m, faces, part_of_face, normals, open_share, inverse_K, f_px, albedo, finish,
    around, key, key_rgb, lamp, R, t, shadow_f, shadow_depth, shadows, softness, out,
):  # fmt: skip
    height, width = face.shape
    for y in range(height):
        for x in range(width):
            f = face[y, x]
            if f < 0:
                continue
            nx, ny, nz, share = _0, _0, _0, _0
            for k in range(3):
                vertex, w = faces[f, k], weights[y, x, k]
                nx += w * normals[vertex, 0]
                ny += w * normals[vertex, 1]
                nz += w * normals[vertex, 2]
                share += w * open_share[vertex]
            z = depth_m[y, x]
            column, row = np.float32(x), np.float32(y)
            px = (inverse_K[0, 0] * column + inverse_K[0, 1] * row + inverse_K[0, 2]) * z
            py = (inverse_K[1, 1] * row + inverse_K[1, 2]) * z
            inv = _1 / np.sqrt(px * px + py * py + z * z)
            vx, vy, vz = -px * inv, -py * inv, -z * inv
            inv = _1 / np.sqrt(nx * nx + ny * ny + nz * nz + _TINY)
            if nx * vx + ny * vy + nz * vz < 0:
                inv = -inv  # the inside of a sleeve has inverted normals
            nx, ny, nz = nx * inv, ny * inv, nz * inv
            gx, gy = _slopes(x, y, z / f_px, face, depth_m, part_of_face, finish)
            if gx != 0 or gy != 0:
                # Projects the screen-space gradient onto the surface.
                along = gx * nx + gy * ny
                nx, ny, nz = nx - gx + along * nx, ny - gy + along * ny, nz + along * nz
                inv = _1 / np.sqrt(nx * nx + ny * ny + nz * nz)
                nx, ny, nz = nx * inv, ny * inv, nz * inv
            cosine = nx * key[0] + ny * key[1] + nz * key[2]
            lit = _1
            if shadow_depth.shape[0] > 1 and cosine > -_WRAP[0]:
                lit = _1 - shadows * (_1 - _lit(px, py, z, cosine, R, t, shadow_f, shadow_depth, softness))
            gloss, shininess = finish[y, x, 1], finish[y, x, 2]
            near, lamp_cosine, shine_key, shine_lamp = _0, _0, _0, _0
            if gloss > 0 and cosine > 0:
                shine_key = _mirrored(nx, ny, nz, vx, vy, vz, key[0], key[1], key[2], shininess) * lit
            if lamp[3] > 0:
                lx, ly, lz = lamp[0] - px, lamp[1] - py, lamp[2] - z
                square = lx * lx + ly * ly + lz * lz
                inv = _1 / np.sqrt(square)
                lx, ly, lz = lx * inv, ly * inv, lz * inv
                near = min(lamp[6] / square, _NEAREST) * share
                lamp_cosine = nx * lx + ny * ly + nz * lz
                if gloss > 0 and lamp_cosine > 0:
                    shine_lamp = _mirrored(nx, ny, nz, vx, vy, vz, lx, ly, lz, shininess) * near
            facing = max(nx * vx + ny * vy + nz * vz, _0)
            rx, ry, rz = _2 * facing * nx - vx, _2 * facing * ny - vy, _2 * facing * nz - vz
            edge = (_1 - facing) * (_1 - facing)
            sheen = share * (_1 + _8 * edge * edge)
            for k in range(3):
                color, wrap = albedo[y, x, k], _WRAP[k]
                light = _from_around(k, around, nx, ny, nz) * share / (_1 - color * (_1 - share))
                light += key_rgb[k] * lit * max((cosine + wrap) / (_1 + wrap), _0)
                light += lamp[3 + k] * near * max((lamp_cosine + wrap) / (_1 + wrap), _0)
                shine = key_rgb[k] * shine_key + lamp[3 + k] * shine_lamp
                shine += _from_around(k, around, rx, ry, rz) * sheen
                out[y, x, k] = color * light + gloss * shine
