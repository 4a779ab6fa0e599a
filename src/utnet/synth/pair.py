"""Rendering of both hands of a person in one picture, with exact labels; they may occlude each other."""

from __future__ import annotations

import cv2
import numpy as np

from utnet.conventions import SIDES
from utnet.render.raster import interpolate, rasterize
from utnet.synth.appearance import Appearance, background, finish
from utnet.synth.scene import PosedHand, Render, SceneRenderer, sensor_depth


class PairRenderer:
    """Renders a right and a left open hand with their forearms.

    Attributes:
        hands: renderer of each side, for decoding parameters.
    """

    def __init__(self, *, forearm: bool = True):
        self.hands = {side: SceneRenderer(side, forearm=forearm) for side in SIDES}

    def render(
        self,
        posed: dict[str, PosedHand],
        K_px: np.ndarray,
        size_wh: tuple[int, int],
        appearance: Appearance,
        *,
        rng: np.random.Generator,
        depth_noise_m: float = 0.001,
    ) -> dict[str, Render]:
        """Renders both hands.

        Args:
            posed: hand of each side in the camera frame.
            K_px: (3, 3) intrinsics of the picture.
            size_wh: its width and height.
            appearance: skin (of both), light, background.
            rng: for noise and the bend of the forearms.
            depth_noise_m: as in `SceneRenderer.render`.

        Returns:
            A Render per side, with the same picture and depth; masks cover the visible part of each hand.
        """
        right, left = (self.hands[side].surface(posed[side], appearance, rng) for side in SIDES)
        mesh, colors = (np.concatenate(pair) for pair in zip(right, left, strict=True))
        first_left = len(self.hands["right"].faces)
        faces = np.concatenate([self.hands["right"].faces, self.hands["left"].faces + np.int32(len(right[0]))])
        fragments = rasterize(mesh, faces, K_px, size_wh)
        rgb = interpolate(fragments, faces, colors)
        cv2.copyTo(background(appearance, size_wh), (~fragments.mask).view(np.uint8), rgb)
        rgb = finish(appearance, rgb, rng)
        hands_m = float(np.mean([posed[side].joints_m[:, 2].mean() for side in SIDES]))
        depth_m = sensor_depth(fragments, K_px, hands_m, appearance, rng=rng, noise_m=depth_noise_m)
        renders = {}
        for side, start in zip(SIDES, (0, first_left), strict=True):
            stop = start + self.hands[side].num_hand_faces
            mask = fragments.mask & (fragments.face >= start) & (fragments.face < stop)
            renders[side] = Render(rgb, depth_m, mask, posed[side].joints_m, posed[side].vertices_m)
        return renders
