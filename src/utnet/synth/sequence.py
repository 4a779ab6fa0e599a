"""An RGB-D recording that is drawn: one hand that moves before one camera, with noise of its own in each frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from utnet.synth.appearance import Appearance
from utnet.synth.motion import Motion, write_image
from utnet.synth.poses import sample_betas
from utnet.synth.scene import Render, SceneRenderer

_WALK_M = 0.04


def draw_sequence(
    seed: int,
    num: int,
    K_px: np.ndarray,
    size_wh: tuple[int, int],
    *,
    fps: float = 30.0,
    key_s: float = 1.0,
    rigid: bool = False,
    depth_noise_m: float = 0.001,
) -> Iterator[tuple[float, Render]]:
    """Yields times and pictures of a right hand.

    Args:
        seed: of person, place, motion and noise.
        num: of frames.
        K_px: (3, 3) intrinsics.
        size_wh: width and height of the pictures.
        fps: frames a second.
        key_s: seconds from a key pose to the next.
        rigid: the hand moves, but its pose stays.
        depth_noise_m: standard deviation of the depth sensor at 1 m.
    """
    rng = np.random.default_rng(seed)
    renderer = SceneRenderer("right")
    num_keys = int(num / fps / key_s) + 2
    places = np.array([0.0, 0.0, 0.5]) + np.cumsum(rng.normal(0, _WALK_M, (num_keys, 3)), 0)
    places[:, :2] = np.clip(places[:, :2], -0.08, 0.08)
    places[:, 2] = np.clip(places[:, 2], 0.4, 0.7)
    motion = Motion.sample(rng, betas=sample_betas(rng), centres_m=places, max_tilt_deg=45.0)
    if rigid:
        motion.angles_rad[:] = motion.angles_rad[:1]
        motion.orientations[:] = motion.orientations[:1]
    appearance = Appearance.sample(rng)
    for i in range(num):
        params = motion.at(i / fps / (key_s * (num_keys - 1)))
        posed = renderer.decode(params)
        noise = np.random.default_rng((seed, i))
        yield i / fps, renderer.render(posed, K_px, size_wh, appearance, rng=noise, depth_noise_m=depth_noise_m)


def write_recording(folder: Path, frames: Iterator[tuple[float, Render]], K_px: np.ndarray) -> np.ndarray:
    """Writes rgb/000000.png, depth/000000.png (millimetres) and intrinsics.json; returns (T, 21, 3) true joints."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    joints, size = [], (0, 0)
    for i, (_, render) in enumerate(frames):
        write_image(folder / "rgb" / f"{i:06d}.png", render.rgb, cv2.IMWRITE_PNG_COMPRESSION, 1)
        write_image(folder / "depth" / f"{i:06d}.png", np.rint(1000 * render.depth_m).astype(np.uint16))
        joints.append(render.joints_cam_m)
        size = render.rgb.shape[1], render.rgb.shape[0]
    values = (float(K_px[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    camera = dict(zip(("fx", "fy", "ppx", "ppy"), values, strict=True))
    text = json.dumps({"width": size[0], "height": size[1], **camera, "coeffs": [0.0] * 5})
    (folder / "intrinsics.json").write_text(text)
    return np.stack(joints)
