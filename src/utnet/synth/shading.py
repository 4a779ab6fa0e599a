"""Light from surfaces: shading of every pixel of a scene, with shadows, crevices, relief and highlights.

Light from around is dimmed by the fingers, palms and objects that stand round a point, taken as capsules, and
brightened again by what coloured crevices throw back (Jimenez et al., Practical Real-Time Strategies for Accurate
Indirect Occlusion, 2016). Relief turns the normal as in Mikkelsen, Bump Mapping Unparametrized Surfaces on the GPU
(2010). Skin's edge of shadow is soft and red, because light wanders in it: the cosine is wrapped, most for red.
Highlights are Blinn and Phong's, normalised, with Schlick's rise towards grazing views.
"""

from __future__ import annotations

import numba
import numpy as np

from utnet.raster import Fragments, rasterize, vertex_normals
from utnet.synth.lights import Lights
from utnet.synth.surfaces import Scene

_SHADOW_PX = 128
_TAPS = ((0.0, 0.0), (-0.9, -0.4), (-0.4, 0.9), (0.9, 0.4), (0.4, -0.9))
_WRAP = (0.30, 0.14, 0.09)
_SMOOTH_M = 0.02
"""Two neighbours on either side farther apart than this do not tell a surface's relief."""


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
    """Light that comes from every pixel of a scene.

    Args:
        scene: the meshes.
        fragments: a picture of them by the camera K_px (3, 3).
        albedo, finish: (H, W, 3) each, as `surface_colors` gives them.
        lights: what shines.
        capsules: (C, 8) what stands in the way of light from around: two ends, a radius, and whose bone it is.
        middle_m: (3,) the hand's middle, camera frame.

    Returns:
        (H, W, 3) float32 linear light; anything where nothing is drawn.
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
    """Distances from a camera at the key light, far away: (R, t, f_px, (S, S) z); empty where there are no shadows."""
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
        seen = rasterize(scene.vertices_m @ R.T.astype(np.float32) + t, scene.faces, K, (_SHADOW_PX, _SHADOW_PX))
        depth = seen.depth_m
    return R.astype(np.float32), t.astype(np.float32), np.float32(f_px), depth


@numba.njit(cache=True, nogil=True, fastmath=True)
def _open_share(vertices, normals, bones, capsules, strength, out):
    """Share of the light from around that reaches a vertex; capsules hide what a ball in their nearest place would."""
    for v in range(vertices.shape[0]):
        px, py, pz = vertices[v, 0], vertices[v, 1], vertices[v, 2]
        nx, ny, nz = normals[v, 0], normals[v, 1], normals[v, 2]
        if nx * px + ny * py + nz * pz > 0.3 * pz:
            continue  # it looks away from the camera
        share = np.float32(1)
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
                continue  # all of it lies behind the surface
            along = (dx * ex + dy * ey + dz * ez) / (ex * ex + ey * ey + ez * ez + np.float32(1e-9))
            along = min(max(along, np.float32(0)), np.float32(1))
            dx, dy, dz = along * ex - dx, along * ey - dy, along * ez - dz
            square = dx * dx + dy * dy + dz * dz
            facing = dx * nx + dy * ny + dz * nz
            if square > 36 * r * r or facing <= 0:
                continue
            hidden = facing / np.sqrt(square) * min(r * r / square, np.float32(0.9))
            share *= 1 - strength * hidden
        out[v] = share


@numba.njit(inline="always", fastmath=True)
def _lit(x, y, z, cosine, R, t, f_px, depth, softness):
    """Share of the key light that reaches a point: five looks at the shadow map.

    A surface that the light grazes lies at many distances within one pixel of the map, so it must be farther behind
    what hides it.
    """
    size = depth.shape[0]
    lz = R[2, 0] * x + R[2, 1] * y + R[2, 2] * z + t[2]
    px_m = lz / f_px
    u = (R[0, 0] * x + R[0, 1] * y + R[0, 2] * z + t[0]) / px_m + size / 2
    v = (R[1, 0] * x + R[1, 1] * y + R[1, 2] * z + t[1]) / px_m + size / 2
    spread = softness / px_m
    slope = np.sqrt(max(1 - cosine * cosine, 0.0)) / max(cosine, 0.1)
    behind = lz - 0.003 - (softness + px_m) * (0.5 + min(slope, 4.0))
    lit = np.float32(0)
    for k in range(5):
        i, j = int(v + _TAPS[k][0] * spread + 0.5), int(u + _TAPS[k][1] * spread + 0.5)
        if i < 0 or j < 0 or i >= size or j >= size or depth[i, j] == 0 or depth[i, j] > behind:
            lit += np.float32(0.2)
    return lit


@numba.njit(inline="always", fastmath=True)
def _mirrored(nx, ny, nz, vx, vy, vz, lx, ly, lz, shininess):
    """The highlight of a light, without the surface's gloss."""
    hx, hy, hz = lx + vx, ly + vy, lz + vz
    inv = 1 / np.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-9))
    cosine = max((nx * hx + ny * hy + nz * hz) * inv, np.float32(0))
    if shininess * (1 - cosine) > 8:
        return np.float32(0)
    grazing = 1 - max((vx * hx + vy * hy + vz * hz) * inv, np.float32(0))
    square = grazing * grazing
    peak = np.exp(np.float32(shininess * np.log(np.float32(cosine))))
    return np.float32((shininess + 2) * 0.125 * peak * (1 + 12 * square * square * grazing))


@numba.njit(inline="always", fastmath=True)
def _slopes(x, y, px_m, face, depth_m, part_of_face, finish):
    """Rise of the relief to the right and downwards; 0 along outlines."""
    height, width = face.shape
    if x == 0 or y == 0 or x == width - 1 or y == height - 1:
        return np.float32(0), np.float32(0)
    gx, gy = finish[y, x + 1, 0] - finish[y, x - 1, 0], finish[y + 1, x, 0] - finish[y - 1, x, 0]
    if gx == 0 and gy == 0:
        return np.float32(0), np.float32(0)
    a, b, c, d = face[y, x - 1], face[y, x + 1], face[y - 1, x], face[y + 1, x]
    if a < 0 or b < 0 or c < 0 or d < 0:
        return np.float32(0), np.float32(0)
    part = part_of_face[face[y, x]]
    if part_of_face[a] != part or part_of_face[b] != part or part_of_face[c] != part or part_of_face[d] != part:
        return np.float32(0), np.float32(0)
    if abs(depth_m[y, x + 1] - depth_m[y, x - 1]) + abs(depth_m[y + 1, x] - depth_m[y - 1, x]) > _SMOOTH_M:
        return np.float32(0), np.float32(0)
    return np.float32(gx * 0.5 / px_m), np.float32(gy * 0.5 / px_m)


@numba.njit(inline="always", fastmath=True)
def _from_around(k, around, x, y, z):
    """Light from around in a direction, E(n)."""
    e = around[k, 0] + around[k, 1] * x + around[k, 2] * y + around[k, 3] * z
    e += around[k, 4] * x * x + around[k, 5] * y * y + around[k, 6] * z * z
    return max(e + around[k, 7] * x * y + around[k, 8] * x * z + around[k, 9] * y * z, np.float32(0))


@numba.njit(cache=True, nogil=True, fastmath=True)
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
            nx, ny, nz, share = np.float32(0), np.float32(0), np.float32(0), np.float32(0)
            for k in range(3):
                vertex, w = faces[f, k], weights[y, x, k]
                nx += w * normals[vertex, 0]
                ny += w * normals[vertex, 1]
                nz += w * normals[vertex, 2]
                share += w * open_share[vertex]
            z = depth_m[y, x]
            px = (inverse_K[0, 0] * x + inverse_K[0, 1] * y + inverse_K[0, 2]) * z
            py = (inverse_K[1, 1] * y + inverse_K[1, 2]) * z
            inv = 1 / np.sqrt(px * px + py * py + z * z)
            vx, vy, vz = -px * inv, -py * inv, -z * inv
            inv = 1 / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-12))
            if nx * vx + ny * vy + nz * vz < 0:
                inv = -inv  # the inside of a sleeve is seen from its back
            nx, ny, nz = nx * inv, ny * inv, nz * inv
            gx, gy = _slopes(x, y, z / f_px, face, depth_m, part_of_face, finish)
            if gx != 0 or gy != 0:
                # The height's gradient on the screen, laid onto the surface's plane.
                along = gx * nx + gy * ny
                nx, ny, nz = nx - gx + along * nx, ny - gy + along * ny, nz + along * nz
                inv = 1 / np.sqrt(nx * nx + ny * ny + nz * nz)
                nx, ny, nz = nx * inv, ny * inv, nz * inv
            cosine = nx * key[0] + ny * key[1] + nz * key[2]
            lit = np.float32(1)
            if shadow_depth.shape[0] > 1 and cosine > -_WRAP[0]:
                lit = 1 - shadows * (1 - _lit(px, py, z, cosine, R, t, shadow_f, shadow_depth, softness))
            gloss, shininess = finish[y, x, 1], finish[y, x, 2]
            near, lamp_cosine = np.float32(0), np.float32(0)
            shine_key, shine_lamp = np.float32(0), np.float32(0)
            if gloss > 0 and cosine > 0:
                shine_key = _mirrored(nx, ny, nz, vx, vy, vz, key[0], key[1], key[2], shininess) * lit
            if lamp[3] > 0:
                lx, ly, lz = lamp[0] - px, lamp[1] - py, lamp[2] - z
                square = lx * lx + ly * ly + lz * lz
                inv = 1 / np.sqrt(square)
                lx, ly, lz = lx * inv, ly * inv, lz * inv
                near = min(lamp[6] / square, np.float32(4)) * share
                lamp_cosine = nx * lx + ny * ly + nz * lz
                if gloss > 0 and lamp_cosine > 0:
                    shine_lamp = _mirrored(nx, ny, nz, vx, vy, vz, lx, ly, lz, shininess) * near
            facing = max(nx * vx + ny * vy + nz * vz, np.float32(0))
            rx, ry, rz = 2 * facing * nx - vx, 2 * facing * ny - vy, 2 * facing * nz - vz
            sheen = share * (1 + 8 * (1 - facing) ** 4)
            for k in range(3):
                color, wrap = albedo[y, x, k], np.float32(_WRAP[k])
                light = _from_around(k, around, nx, ny, nz) * share / (1 - color * (1 - share))
                light += key_rgb[k] * lit * max((cosine + wrap) / (1 + wrap), np.float32(0))
                light += lamp[3 + k] * near * max((lamp_cosine + wrap) / (1 + wrap), np.float32(0))
                shine = key_rgb[k] * shine_key + lamp[3 + k] * shine_lamp
                shine += _from_around(k, around, rx, ry, rz) * sheen
                out[y, x, k] = color * light + gloss * shine
