"""Plain rendering: a posed hand, a camera and an appearance -> picture, metric depth, mask and exact labels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

from utnet.hand import NumpyHandModel
from utnet.render.raster import Fragments, interpolate, rasterize, vertex_normals
from utnet.rotations import axis_angle_to_matrix
from utnet.synth.appearance import Appearance, background, finish, shade, white_noise
from utnet.synth.forearm import wrist_loop
from utnet.types import HandParams

_FOREARM_RINGS_M = (0.02, 0.05, 0.11, 0.2)
"""Distances of the forearm's rings from the edge of the wrist."""


@dataclass(frozen=True)
class Render:
    """A rendered picture and its ground truth.

    Attributes:
        rgb: (H, W, 3) uint8.
        depth_m: (H, W) float32, 0 where there is no reading.
        mask: (H, W) bool, visible hand without forearm.
        joints_cam_m: (21, 3) camera frame.
        vertices_cam_m: (V, 3) camera frame, without the forearm.
    """

    rgb: np.ndarray
    depth_m: np.ndarray
    mask: np.ndarray
    joints_cam_m: np.ndarray
    vertices_cam_m: np.ndarray


@dataclass(frozen=True)
class PosedHand:
    """A decoded hand in the camera frame.

    Attributes:
        vertices_m: (V, 3) float32.
        joints_m: (21, 3) float32.
        R: (3, 3) float32, hand to camera.
    """

    vertices_m: np.ndarray
    joints_m: np.ndarray
    R: np.ndarray

    def turned(self, R: np.ndarray) -> PosedHand:
        """Returns the same hand in a camera rotated by R (old camera to new camera)."""
        R = R.astype(np.float32)
        return PosedHand(self.vertices_m @ R.T, self.joints_m @ R.T, R @ self.R)


class SceneRenderer:
    """Renders one open hand, right or left, with a forearm."""

    def __init__(self, side: str = "right", *, forearm: bool = True):
        self.hand = NumpyHandModel.open(side)
        self.num_hand_faces = len(self.hand.faces)
        hand_faces = self.hand.faces
        self._loop = wrist_loop(hand_faces)
        self._forearm = forearm
        faces = _tube_faces(self._loop, self.hand.num_vertices) if forearm else np.empty((0, 3), np.int64)
        self.faces = np.concatenate([hand_faces, faces]).astype(np.int32)

    def decode(self, params: HandParams) -> PosedHand:
        """Decodes the parameters of one hand (numpy, no batch axis) in the camera frame."""
        mesh = self.hand.decode(params.map(lambda array: array[None]))
        shift, R = params.transl_m.astype(np.float32), params.global_orient[0].astype(np.float32)
        return PosedHand(mesh.vertices_m[0] + shift, mesh.joints_m[0] + shift, R)

    def render(
        self,
        posed: PosedHand,
        K_px: np.ndarray,
        size_wh: tuple[int, int],
        appearance: Appearance,
        *,
        rng: np.random.Generator,
        depth_noise_m: float = 0.001,
    ) -> Render:
        """Renders the hand.

        Args:
            posed: the hand in the camera frame.
            K_px: (3, 3) intrinsics of the picture.
            size_wh: its width and height.
            appearance: skin, light, background.
            rng: for noise and the bend of the forearm.
            depth_noise_m: standard deviation of depth noise at 1 m (it grows with the square of the distance).
        """
        mesh, colors = self.surface(posed, appearance, rng)
        fragments = rasterize(mesh, self.faces, K_px, size_wh)
        rgb = interpolate(fragments, self.faces, colors)
        cv2.copyTo(background(appearance, size_wh), (~fragments.mask).view(np.uint8), rgb)
        return Render(
            rgb=finish(appearance, rgb, rng),
            depth_m=sensor_depth(
                fragments, K_px, float(posed.joints_m[:, 2].mean()), appearance, rng=rng, noise_m=depth_noise_m
            ),
            mask=fragments.mask & (fragments.face < self.num_hand_faces),
            joints_cam_m=posed.joints_m,
            vertices_cam_m=posed.vertices_m,
        )

    def surface(
        self, posed: PosedHand, appearance: Appearance, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(N, 3) vertices of hand and forearm in the camera frame, and their (N, 3) shaded colours."""
        mesh = posed.vertices_m
        if self._forearm:
            mesh = np.concatenate([mesh, self._forearm_vertices(posed, rng.normal(0, 0.25, 2))])
        on_skin = (mesh - posed.joints_m[0]) @ posed.R
        return mesh, shade(appearance, on_skin, vertex_normals(mesh, self.faces))

    def _forearm_vertices(self, posed: PosedHand, bend: np.ndarray) -> np.ndarray:
        """Rings behind the edge of the wrist, widening and rotated by `bend` (rad, about the hand's y and z)."""
        edge, R = posed.vertices_m[self._loop], posed.R
        centre = edge.mean(0)
        away = R[:, 0] if self.hand.side == "right" else -R[:, 0]  # fingers point along -x on a right hand
        axis = R[:, 1] * bend[0] + R[:, 2] * bend[1]
        rings, position, previous = [], centre, 0.0
        for distance in _FOREARM_RINGS_M:
            share = min(distance / _FOREARM_RINGS_M[1], 1.0)
            turn = axis_angle_to_matrix(axis.astype(float) * share).astype(np.float32)
            position = position + turn @ away * np.float32(distance - previous)
            previous = distance
            rings.append((edge - centre) @ turn.T * np.float32(1 + 1.2 * distance) + position)
        return np.concatenate([*rings, position[None]]).astype(np.float32)


def sensor_depth(
    fragments: Fragments,
    K_px: np.ndarray,
    hand_m: float,
    appearance: Appearance,
    *,
    rng: np.random.Generator,
    noise_m: float,
) -> np.ndarray:
    """Depth of the hand in front of a tilted plane, with noise proportional to the squared distance."""
    height, width = fragments.face.shape
    inverse = np.linalg.inv(K_px)
    x = (np.arange(width) * inverse[0, 0] + inverse[0, 2]).astype(np.float32)
    y = (np.arange(height) * inverse[1, 1] + inverse[1, 2]).astype(np.float32)
    slope_x, slope_y = appearance.background_tilt
    # n . (X - X0) = 0 for the plane through (0, 0, d): z = d / (1 - slope . (x, y))
    plane = (hand_m + 0.1 + appearance.background_m) / np.maximum(1 - slope_x * x - slope_y * y[:, None], 0.2)
    depth = np.where(fragments.mask, fragments.depth_m, plane.astype(np.float32))
    depth += white_noise(rng, depth.shape) * (depth * depth * np.float32(noise_m))
    return np.rint(depth * 1000) * np.float32(0.001)  # sensors report whole millimetres


def _tube_faces(loop: np.ndarray, first_new: int) -> np.ndarray:
    """Faces of rings of len(loop) vertices behind the loop, closed by a last vertex and facing outwards."""
    num = len(loop)
    rings = [loop] + [first_new + k * num + np.arange(num) for k in range(len(_FOREARM_RINGS_M))]
    faces = []
    for near, far in pairwise(rings):
        a, b, c, d = near, np.roll(near, -1), far, np.roll(far, -1)
        faces += [np.stack([b, a, c], 1), np.stack([b, c, d], 1)]
    last = rings[-1]
    faces.append(np.stack([np.roll(last, -1), last, np.full(num, first_new + len(_FOREARM_RINGS_M) * num)], 1))
    return np.concatenate(faces)
