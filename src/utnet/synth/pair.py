"""Both hands of a person in one picture, each with exact labels; they may hide one another."""

from __future__ import annotations

import cv2
import numpy as np

from utnet.conventions import SIDES
from utnet.render.raster import interpolate, rasterize
from utnet.synth.appearance import Appearance, background, finish
from utnet.synth.scene import Posed, Render, SceneRenderer, sensor_depth


class PairRenderer:
    """Draws a right and a left open hand with their forearms.

    Attributes:
        hands: the renderer of each side; they decode parameters.
    """

    def __init__(self, *, forearm: bool = True):
        self.hands = {side: SceneRenderer(side, forearm=forearm) for side in SIDES}

    def render(
        self,
        posed: dict[str, Posed],
        K_px: np.ndarray,
        size_wh: tuple[int, int],
        appearance: Appearance,
        *,
        rng: np.random.Generator,
        depth_noise_m: float = 0.001,
    ) -> dict[str, Render]:
        """Draws the two.

        Args:
            posed: each side's hand in the camera's frame.
            K_px: (3, 3) of the picture to make.
            size_wh: its width and height.
            appearance: skin (of both), light, background.
            rng: noise of this frame and how the forearms bend.
            depth_noise_m: as `SceneRenderer.render` takes it.

        Returns:
            What is true of each side, with one and the same picture and depth; masks are of what is seen.
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
