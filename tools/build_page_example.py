"""Makes src/utnet/assets/page/example.jpg again, the picture behind the page's example button: synthetic, so that it is
nobody's."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utnet.config import SynthConfig
from utnet.geometry import intrinsics
from utnet.synth.full import FullRenderer
from utnet.synth.gestures import sample_pose
from utnet.synth.poses import angles_to_pose, sample_betas, sample_orientation
from utnet.synth.scene import PosedHand
from utnet.types import HandParams

_SEED = 7
"""A hand in good light that hides none of its fingers."""
_SIZE_WH = (480, 600)
_PLACE_M = (0.0, 0.0, 0.42)


def example_picture() -> np.ndarray:
    """(600, 960, 3) uint8: a right hand, and the same in a mirror, which is a left one. Always the same picture."""
    rng = np.random.default_rng(_SEED)
    params = HandParams(
        global_orient=sample_orientation(rng, 35)[None],
        hand_pose=angles_to_pose(sample_pose(rng, gestures=1.0, contact=False)),
        betas=sample_betas(rng, 0.7),
        transl_m=np.zeros(3),
    )
    renderer = FullRenderer(SynthConfig(appearance="full"))
    posed = renderer.decode(params)
    shift = (np.array(_PLACE_M) - posed.joints_m.mean(0)).astype(np.float32)
    posed = PosedHand(posed.vertices_m + shift, posed.joints_m + shift, posed.R)
    width, height = _SIZE_WH
    K = intrinsics(800, 800, (width - 1) / 2, (height - 1) / 2)
    half = renderer.render(posed, K, _SIZE_WH, (_SEED,)).rgb
    return np.concatenate([half, half[:, ::-1]], 1)


if __name__ == "__main__":
    out = Path(__file__).parents[1] / "src" / "utnet" / "assets" / "page" / "example.jpg"
    if not cv2.imwrite(str(out), example_picture()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90]):
        raise OSError(f"{out}: not written")
