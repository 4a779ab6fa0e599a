"""CPU rasteriser: visible face and depth of each pixel, and interpolation of vertex values.

A z-buffer compiled by numba, single-threaded (data workers run in parallel). Pixel (0, 0) is centred at 0.0, depth is z
in metres, and interpolation is perspective-correct.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from utnet.compiled import njit

NEAR_M = 0.01
"""Near plane: faces with a vertex nearer than this are not drawn."""
_ON_EDGE_PX = 1e-9
"""Rounding error of an edge: a pixel on the edge of two faces belongs to both."""


@dataclass(frozen=True)
class Fragments:
    """Rasterised mesh, by pixel.

    Attributes:
        face: (H, W) int32 index of the nearest face, -1 for none.
        depth_m: (H, W) float32 z of the surface, 0 for none.
        weights: (H, W, 3) float32 perspective-correct barycentric weights of the face's vertices.
    """

    face: np.ndarray
    depth_m: np.ndarray
    weights: np.ndarray

    @property
    def mask(self) -> np.ndarray:
        """(H, W) bool, True where the mesh is drawn."""
        return self.face >= 0


def rasterize(vertices_cam_m: np.ndarray, faces: np.ndarray, K_px: np.ndarray, size_wh: tuple[int, int]) -> Fragments:
    """Rasterises a mesh, both sides of every face.

    Args:
        vertices_cam_m: (V, 3) camera frame.
        faces: (F, 3) int.
        K_px: (3, 3) intrinsics of the picture, skew included.
        size_wh: width and height in pixels.
    """
    width, height = size_wh
    homogeneous = np.asarray(vertices_cam_m, np.float32) @ np.asarray(K_px, np.float32).T
    face = np.full((height, width), -1, np.int32)
    inverse_depth = np.zeros((height, width), np.float32)
    weights = np.zeros((height, width, 3), np.float32)
    faces = np.ascontiguousarray(faces, np.int32)
    _fill(_projected(homogeneous), faces, face, inverse_depth, weights)
    depth = np.divide(1.0, inverse_depth, out=np.zeros_like(inverse_depth), where=inverse_depth > 0)
    return Fragments(face, depth, weights)


def interpolate(fragments: Fragments, faces: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Interpolates vertex values: (V, C) -> (H, W, C) float32, 0 where nothing is drawn."""
    out = np.zeros((*fragments.face.shape, values.shape[1]), np.float32)
    values, faces = np.ascontiguousarray(values, np.float32), np.ascontiguousarray(faces, np.int32)
    _interpolate(fragments.face, fragments.weights, faces, values, out)
    return out


def vertex_normals(vertices_m: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(V, 3) unit normals, area-weighted over adjacent faces; outwards for counter-clockwise faces."""
    vertices, faces = np.asarray(vertices_m, np.float32), np.asarray(faces)
    a, b, c = vertices[faces.T]
    (ux, uy, uz), (vx, vy, vz) = (b - a).T, (c - a).T
    doubled = (uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)
    corners = faces.T.ravel()
    sums = [np.bincount(corners, np.tile(each, 3), len(vertices)) for each in doubled]
    normals = np.stack(sums, 1)
    return (normals / (np.linalg.norm(normals, axis=1, keepdims=True) + 1e-20)).astype(np.float32)


def render_shaded(
    vertices_cam_m: np.ndarray,
    faces: np.ndarray,
    K_px: np.ndarray,
    size_wh: tuple[int, int],
    *,
    color: tuple[float, float, float] = (0.65, 0.74, 0.86),
) -> tuple[np.ndarray, np.ndarray]:
    """Renders a mesh lit from the camera, for overlays.

    Returns:
        rgb (H, W, 3) float32 in [0, 1], multiplied by coverage, and coverage (H, W) float32, anti-aliased.
    """
    light, alpha = render_light(vertices_cam_m, faces, K_px, size_wh)
    return light[..., None] * np.asarray(color, np.float32), alpha


def render_light(
    vertices_cam_m: np.ndarray, faces: np.ndarray, K_px: np.ndarray, size_wh: tuple[int, int], density: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Renders the brightness of a mesh lit from the camera, with `density` samples a pixel along each axis.

    Returns:
        Brightness in [0, 1], multiplied by coverage, and coverage, both (H, W) float32.
    """
    width, height = (max(1, round(density * side)) for side in size_wh)
    sx, sy = width / size_wh[0], height / size_wh[1]
    to_samples = np.array([[sx, 0, (sx - 1) / 2], [0, sy, (sy - 1) / 2], [0, 0, 1]])
    homogeneous = np.asarray(vertices_cam_m, np.float32) @ np.asarray(to_samples @ K_px, np.float32).T
    faces = np.ascontiguousarray(faces, np.int32)
    face, inverse_depth = np.full((height, width), -1, np.int32), np.zeros((height, width), np.float32)
    points = _projected(homogeneous)
    _fill(points, faces, face, inverse_depth, np.zeros((0, 0, 3), np.float32))
    n = 2 if density == 2 else 1  # with fewer samples than two a pixel, these are shaded one by one
    light, alpha = np.zeros((2, height // n, width // n), np.float32)
    planes, known = np.empty((len(faces), 3, 3)), np.zeros(len(faces), bool)
    _light(points, faces, face, vertex_normals(vertices_cam_m, faces), planes, known, n, light, alpha)
    if light.shape[::-1] == tuple(size_wh):
        return light, alpha
    # Linear interpolation: averages over areas take ten times as long.
    return cv2.resize(light, size_wh), cv2.resize(alpha, size_wh)


def blend(
    rgb: np.ndarray, light: np.ndarray, alpha: np.ndarray, color: tuple[float, float, float], opacity: float
) -> None:
    """Lays the output of `render_light` over a picture (H, W, 3) uint8 in place, in a colour in [0, 1]."""
    _blend(rgb, light, alpha, np.asarray(color, np.float32) * np.float32(255 * opacity), np.float32(opacity))


def _projected(homogeneous: np.ndarray) -> np.ndarray:
    """(V, 3) x, y and 1 / z (0: nearer than `NEAR_M`, or not finite)."""
    points = np.zeros(homogeneous.shape)
    z = homogeneous[:, 2].astype(np.float64)
    drawn = (z >= NEAR_M) & np.isfinite(homogeneous).all(1)
    inverse = np.divide(1.0, z, out=np.zeros_like(z), where=drawn)
    np.multiply(homogeneous[:, :2], inverse[:, None], out=points[:, :2], where=drawn[:, None])
    points[:, 2] = inverse
    return points


# Kernels that the first run compiles: written as in `utnet.fit.solver_steps`.
@njit(fastmath=True)
def _fill(points, faces, face_out, inverse_depth, weights_out):
    """weights_out may be empty: not needed."""
    with_weights = weights_out.size > 0
    right = face_out.shape[1] - 1.0
    end_of_rows = face_out.shape[0] - 1.0
    for f in range(faces.shape[0]):
        a = faces[f, 0]
        b = faces[f, 1]
        c = faces[f, 2]
        ia = points[a, 2]
        ib = points[b, 2]
        ic = points[c, 2]
        if ia * ib * ic == 0.0:
            continue
        xa = points[a, 0]
        ya = points[a, 1]
        xb = points[b, 0]
        yb = points[b, 1]
        xc = points[c, 0]
        yc = points[c, 1]
        top = ya if ya < yb else yb
        top = yc if yc < top else top
        top = top if top > 0.0 else 0.0
        bottom = ya if ya > yb else yb
        bottom = yc if yc > bottom else bottom
        bottom = bottom if bottom < end_of_rows else end_of_rows
        if top > bottom:  # compared as floats: distant vertices overflow as integers
            continue
        area = (xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)
        if -1e-12 < area < 1e-12:
            continue
        # Barycentric weights of a and b, and 1/z, are linear in the picture: slope_a x + offset_a.
        slope_a = (yb - yc) / area
        slope_b = (yc - ya) / area
        step = slope_a * (ia - ic) + slope_b * (ib - ic)
        row = int(top)
        if row < top:
            row += 1
        for y in range(row, int(bottom) + 1):
            offset_a = (xb * (yc - y) - xc * (yb - y)) / area
            offset_b = (xc * (ya - y) - xa * (yc - y)) / area
            first = 0.0
            last = right
            for corner in range(3):  # the part of the row where the corner's weight is not negative
                slope = slope_a
                offset = offset_a
                if corner == 1:
                    slope = slope_b
                    offset = offset_b
                elif corner == 2:
                    slope = -slope_a - slope_b
                    offset = 1.0 - offset_a - offset_b
                if slope > 0.0:
                    end = -offset / slope - _ON_EDGE_PX
                    if end > first:
                        first = end if end < last else last + 1.0
                elif slope < 0.0:
                    end = -offset / slope + _ON_EDGE_PX
                    if end < last:
                        last = end if end > first else first - 1.0
                elif offset < 0.0:
                    last = first - 1.0
            start = int(first)
            if start < first:
                start += 1
            base = ic + offset_a * (ia - ic) + offset_b * (ib - ic)
            for x in range(start, int(last) + 1):
                inverse = base + step * x
                if inverse > inverse_depth[y, x]:
                    inverse_depth[y, x] = inverse
                    face_out[y, x] = f
                    if with_weights:
                        wa = offset_a + slope_a * x
                        wb = offset_b + slope_b * x
                        weights_out[y, x, 0] = wa * ia / inverse
                        weights_out[y, x, 1] = wb * ib / inverse
                        weights_out[y, x, 2] = (1.0 - wa - wb) * ic / inverse


@njit(fastmath=True)
def _interpolate(face, weights, faces, values, out):
    height, width = face.shape
    for y in range(height):
        for x in range(width):
            f = face[y, x]
            if f < 0:
                continue
            for k in range(3):
                v, w = faces[f, k], weights[y, x, k]
                for channel in range(values.shape[1]):
                    out[y, x, channel] += w * values[v, channel]


@njit(fastmath=True)
def _light(points, faces, face, normals, planes, known, n, light, alpha):
    """Headlight shading: brightest where the surface faces the camera; means of n x n samples. The normal at a sample
    is that of its point on the face: a linear function of the sample, times z, whose length does not matter.

    planes (F, 3, 3) is a buffer: what x, y and 1 add to the normal of each face; known (F,) is False before.
    """
    for row in range(light.shape[0]):
        for column in range(light.shape[1]):
            count = 0
            total = 0.0
            for y in range(n * row, n * row + n):
                for x in range(n * column, n * column + n):
                    f = face[y, x]
                    if f < 0:
                        continue
                    if not known[f]:
                        known[f] = True
                        _normal_plane(points, faces, f, normals, planes)
                    nx = planes[f, 0, 0] * x + planes[f, 1, 0] * y + planes[f, 2, 0]
                    ny = planes[f, 0, 1] * x + planes[f, 1, 1] * y + planes[f, 2, 1]
                    nz = planes[f, 0, 2] * x + planes[f, 1, 2] * y + planes[f, 2, 2]
                    count += 1
                    total += (nz if nz > 0.0 else -nz) / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-12)
            if count > 0:
                light[row, column] = (0.35 * count + 0.65 * total) / (n * n)
                alpha[row, column] = count / (n * n)


@njit(inline="always")
def _normal_plane(points, faces, f, normals, planes):
    """Barycentric weights over z are linear in the picture, and so is their sum of the corners' normals."""
    a = faces[f, 0]
    b = faces[f, 1]
    c = faces[f, 2]
    ia = points[a, 2]
    ib = points[b, 2]
    ic = points[c, 2]
    xa = points[a, 0]
    ya = points[a, 1]
    xb = points[b, 0]
    yb = points[b, 1]
    xc = points[c, 0]
    yc = points[c, 1]
    scale = 1.0 / (ia * ((xb - xa) * (yc - ya) - (yb - ya) * (xc - xa)))  # with a depth: lengths near 1
    for k in range(3):
        na = normals[a, k] * ia * scale
        nb = normals[b, k] * ib * scale
        nc = normals[c, k] * ic * scale
        planes[f, 0, k] = na * (yb - yc) + nb * (yc - ya) + nc * (ya - yb)
        planes[f, 1, k] = na * (xc - xb) + nb * (xa - xc) + nc * (xb - xa)
        planes[f, 2, k] = na * (xb * yc - xc * yb) + nb * (xc * ya - xa * yc) + nc * (xa * yb - xb * ya)


@njit(fastmath=True)
def _blend(rgb, light, alpha, color, opacity):
    for y in range(alpha.shape[0]):
        for x in range(alpha.shape[1]):
            if alpha[y, x] > 0.0:
                kept = 1.0 - opacity * alpha[y, x]
                for channel in range(3):
                    value = rgb[y, x, channel] * kept + light[y, x] * color[channel]
                    rgb[y, x, channel] = np.uint8(255.0 if value > 255.0 else value if value > 0.0 else 0.0)
