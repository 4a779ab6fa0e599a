"""Seeded source of labelled synthetic hands, rendered directly as crops."""

from __future__ import annotations

import numpy as np

from utnet.config import CropConfig, SynthConfig
from utnet.geometry import box_of, crop_affine, crop_camera, jittered_crop_affine, project, rotate_params, unproject
from utnet.io import layouts
from utnet.synth.appearance import Appearance
from utnet.synth.full import FullRenderer
from utnet.synth.gestures import sample_pose
from utnet.synth.motion import sample_camera
from utnet.synth.poses import PALM_M, angles_to_pose, sample_angles, sample_betas, sample_orientation
from utnet.synth.scene import PosedHand, Render, SceneRenderer
from utnet.types import HandParams, Sample

_SIZE_WH = layouts.DEXYCB_SIZE_WH
"""Picture size of the virtual camera, as in the data sets."""
_LOOK, _ABSENCE = 1, 2
"""Random streams of full appearance, separate from that of the hand."""


class SyntheticHands:
    """Map-style source of right-hand crops: item i depends only on (seed, i).

    A crop of a virtual 640x480 camera is rendered directly at crop resolution, with the same affine and camera as
    `utnet.data.transforms.crop`.

    Attributes:
        size_px: side of the crops.
    """

    name, tips = "synth", ""

    def __init__(
        self,
        *,
        seed: int = 0,
        size_px: int = 128,
        num: int = 2**40,
        synth: SynthConfig | None = None,
        crop: CropConfig | None = None,
        jitter: bool = True,
    ):
        self.seed, self.size_px, self._num, self._jitter = seed, size_px, num, jitter
        self.synth, self.crop = synth or SynthConfig(), crop or CropConfig()
        self.counts = {"samples": num}
        self._renderer: FullRenderer | SceneRenderer
        if self.synth.appearance == "full":
            self._renderer = FullRenderer(self.synth)
        else:
            self._renderer = SceneRenderer("right", forearm=self.synth.forearm)

    def __len__(self) -> int:
        return self._num

    def key(self, index: int) -> str:
        return f"synth/{self.seed}/{index}"

    def sequence(self, index: int) -> str:
        """The key: every item is a separate scene."""
        return self.key(index)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self._num:
            raise IndexError(index)
        rng = np.random.default_rng((self.seed, index))
        params, K_full = self._sample_view(rng)
        posed = self._renderer.decode(params)
        box = box_of(project(posed.joints_m, K_full))
        if self._jitter:
            A = jittered_crop_affine(box, self.size_px, self.crop, rng)
        else:
            A = crop_affine(box, self.size_px, expand=self.crop.expand, aspect=self.crop.aspect)
        K, R = crop_camera(A, K_full)
        params = rotate_params(params, R, posed.joints_m[0].astype(float))
        render = self._render(posed.turned(R), K, rng, index)
        return Sample(
            key=self.key(index),
            rgb=render.rgb,
            K_px=K,
            side="right",
            box_px=box_of(project(render.joints_cam_m, K)),
            joints_cam_m=render.joints_cam_m,
            joints_2d_conf=np.ones(21, np.float32),
            joints_3d_conf=np.ones(21, np.float32),
            depth_m=None if self._lacks_depth(index) else render.depth_m,
            params=params,
            hand_model="open",
            is_crop=True,
        )

    def _render(self, posed: PosedHand, K: np.ndarray, rng: np.random.Generator, index: int) -> Render:
        size_wh = (self.size_px, self.size_px)
        if isinstance(self._renderer, FullRenderer):
            return self._renderer.render(posed, K, size_wh, (self.seed, index, _LOOK))
        look, noise = Appearance.sample(rng), self.synth.depth_noise_m
        return self._renderer.render(posed, K, size_wh, look, rng=rng, depth_noise_m=noise)

    def _lacks_depth(self, index: int) -> bool:
        missing = self.synth.factors.depth_missing
        return missing > 0 and np.random.default_rng((self.seed, index, _ABSENCE)).random() < missing

    def _sample_angles(self, rng: np.random.Generator) -> np.ndarray:
        if self.synth.appearance == "plain":
            return sample_angles(rng)
        factors = self.synth.factors
        return sample_pose(rng, gestures=factors.gestures, contact=factors.contact > 0)

    def _sample_view(self, rng: np.random.Generator) -> tuple[HandParams, np.ndarray]:
        """Draws a hand in the view of a random camera: parameters in the camera frame and K (640x480)."""
        synth = self.synth
        K = sample_camera(rng, synth.fov_deg, _SIZE_WH)
        z = rng.uniform(*synth.distance_m)
        pixel = rng.uniform(0.25, 0.75, 2) * _SIZE_WH
        R = sample_orientation(rng, synth.max_tilt_deg)
        centre = unproject(pixel[None], np.array([z]), K)[0]
        return HandParams(
            global_orient=R[None],
            hand_pose=angles_to_pose(self._sample_angles(rng)),
            betas=sample_betas(rng, synth.betas_std),
            transl_m=centre - R @ PALM_M,
        ), K
