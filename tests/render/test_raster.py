"""The rasteriser against the definition of a drawn triangle, pixel by pixel."""

import numpy as np

from utnet.geometry import intrinsics
from utnet.render.raster import NEAR_M, rasterize

SIZE = 40, 30
K = intrinsics(60.0, 55.0, 19.0, 15.0)


def drawn_naively(vertices, faces):
    """Face (-1: none), depth and barycentric weights of the nearest face under the centre of each pixel, and whether
    an edge is so near that rounding decides."""
    px = vertices @ K.T
    px = px[:, :2] / px[:, 2:]
    out, close = {}, np.zeros(SIZE[::-1], bool)
    for y, x in np.ndindex(SIZE[::-1]):
        out[y, x] = (-1, np.inf, np.zeros(3))
        for f, corners in enumerate(faces):
            z = vertices[corners, 2]
            if z.min() < NEAR_M:
                continue
            w = np.linalg.solve(np.vstack([px[corners].T, np.ones(3)]), [x, y, 1.0])
            close[y, x] |= np.abs(w).min() < 1e-4
            weights = w / z / (w / z).sum()
            depth = weights @ z
            if w.min() >= 0 and depth < out[y, x][1]:
                out[y, x] = (f, depth, weights)
    return out, close


def test_triangles_are_drawn_as_defined():
    rng = np.random.default_rng(0)
    vertices = np.column_stack([rng.uniform(-0.2, 0.2, (24, 2)), rng.uniform(0.3, 0.9, 24)])
    vertices[:4, 2] = 0.004, 0.0101, 0.02, -0.3  # behind the near plane, and thousands of pixels outside
    faces = rng.permuted(np.tile(np.arange(24), (14, 1)), axis=1)[:, :3]
    drawn = rasterize(vertices.astype(np.float32), faces, K, SIZE)
    wanted, close = drawn_naively(vertices, faces)
    assert close.mean() < 0.02
    assert len(np.unique(drawn.face)) > 5
    for (y, x), (face, depth, weights) in wanted.items():
        if not close[y, x]:
            assert drawn.face[y, x] == face
            np.testing.assert_allclose(drawn.depth_m[y, x], depth if face >= 0 else 0.0, rtol=1e-3)
            np.testing.assert_allclose(drawn.weights[y, x], weights, atol=2e-3)


def test_faces_with_an_unknown_vertex_are_not_drawn():
    vertices = np.array([[-0.1, -0.1, 0.5], [0.1, -0.1, 0.5], [0.0, 0.1, 0.5], [np.nan, 0.0, 0.4]])
    drawn = rasterize(vertices, np.array([[0, 1, 2], [0, 1, 3]]), K, SIZE)
    assert set(np.unique(drawn.face)) == {-1, 0}
