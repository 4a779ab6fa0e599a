"""Ten sampled poses, each from the palm and from the thumb: `python examples/sampled_poses.py [OUT.png] [SEED]`."""

import sys

import numpy as np

from utnet.geometry import intrinsics
from utnet.render.drawing import contact_sheet, save_picture
from utnet.render.raster import render_shaded
from utnet.synth.poses import angles_to_pose, sample_angles, sample_betas
from utnet.synth.scene import SceneRenderer
from utnet.types import HandParams

SIZE = 240
PALM_VIEW = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])  # fingers up, palm towards the camera
THUMB_VIEW = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, -1]])  # fingers up, thumb towards the camera


def draw(renderer: SceneRenderer, pose: np.ndarray, betas: np.ndarray, view: np.ndarray) -> np.ndarray:
    """(SIZE, SIZE, 3) uint8."""
    params = HandParams(view[None], pose, betas, transl_m=np.array([0.0, 0.09, 0.55]))
    posed = renderer.decode(params)
    K = intrinsics(2.0 * SIZE, 2.0 * SIZE, (SIZE - 1) / 2, (SIZE - 1) / 2)
    rgb, alpha = render_shaded(
        posed.vertices_m, renderer.hand.faces, K, (SIZE, SIZE), color=(0.87, 0.67, 0.56), supersample=3
    )
    return ((rgb + (1 - alpha)[..., None]) * 255).clip(0, 255).astype(np.uint8)


def main() -> None:
    out = sys.argv[1] if len(sys.argv) > 1 else "sampled_poses.png"
    rng = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    renderer = SceneRenderer("right", forearm=False)
    hands = [(angles_to_pose(sample_angles(rng)), sample_betas(rng)) for _ in range(10)]
    rows = [hands[:5], hands[5:]]
    pictures = [draw(renderer, *hand, view) for row in rows for view in (PALM_VIEW, THUMB_VIEW) for hand in row]
    save_picture(out, contact_sheet(pictures, 5))
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
