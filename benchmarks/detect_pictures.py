"""Pictures with known hands for benchmarks/detect.py: drawn ones, and real ones counted by eye."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from utnet.config import FactorsConfig, SynthConfig
from utnet.geometry import box_of, intrinsics, mirror_params, project, unproject
from utnet.io.pictures import read_picture
from utnet.synth.appearance import Appearance
from utnet.synth.full import FullRenderer
from utnet.synth.gestures import sample_pose
from utnet.synth.motion import sample_camera
from utnet.synth.pair import PairRenderer
from utnet.synth.poses import PALM_M, angles_to_pose, sample_betas, sample_orientation
from utnet.types import HandParams

SIZE_WH = (640, 480)


@dataclass(frozen=True)
class Truth:
    """A hand that is in a picture.

    Attributes:
        side: "right", "left", or None where nobody can tell.
        box_px: (4,) x0, y0, x1, y1; of real hands by eye, good to a fifth of the box.
        joints_px: (21, 2) of a drawn hand, None for a real one.
    """

    side: str | None
    box_px: np.ndarray
    joints_px: np.ndarray | None = None


@dataclass(frozen=True)
class Picture:
    """(H, W, 3) uint8 and the hands in it."""

    name: str
    rgb: np.ndarray
    hands: list[Truth]


def drawn_hands(num: int, seed: int) -> Iterator[Picture]:
    """Pictures of 640x480 in full appearance with one hand each, right and left in turns, at 0.35 to 1 m."""
    synth = SynthConfig(appearance="full", factors=FactorsConfig(second_hand=0.0))
    renderer = FullRenderer(synth)
    for index in range(num):
        rng = np.random.default_rng((seed, index))
        K = sample_camera(rng, synth.fov_deg, SIZE_WH)
        R = sample_orientation(rng)
        pose = angles_to_pose(sample_pose(rng, gestures=1.0, contact=True))
        middle = unproject(rng.uniform(0.3, 0.7, (1, 2)) * SIZE_WH, np.array([rng.uniform(*synth.distance_m)]), K)[0]
        params = HandParams(R[None], pose, sample_betas(rng, synth.betas_std), middle - R @ PALM_M)
        render = renderer.render(renderer.decode(params), K, SIZE_WH, (seed, index, 1))
        joints = project(render.joints_cam_m.astype(float), K)
        rgb, side = render.rgb, "right"
        if index % 2:
            rgb, joints, side = np.ascontiguousarray(rgb[:, ::-1]), joints * [-1, 1] + [SIZE_WH[0] - 1, 0], "left"
        yield Picture(f"drawn {index}", rgb, [Truth(side, box_of(joints), joints)])


def folded_hands(num: int, seed: int) -> Iterator[Picture]:
    """Pictures of 640x480 with a right and a left hand folded into each other: they cross at 3 to 8 cm, one 2 to 5 cm
    before the other."""
    renderer, K = PairRenderer(), intrinsics(600.0, 600.0, 319.5, 239.5)
    facing = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])  # fingers up, right palm to the camera
    for index in range(num):
        rng = np.random.default_rng((seed, index))
        z, front = rng.uniform(0.35, 0.6), rng.choice([-1, 1])
        posed = {}
        for sign, side in ((1, "right"), (-1, "left")):
            angles = np.zeros((15, 3))
            angles[:12, 0], angles[12:, 0] = rng.uniform(0.05, 0.6), rng.uniform(0.0, 0.4)
            tilt = rng.uniform(np.pi / 8, np.pi / 3)
            turn = _roll(-tilt) @ (_flip() if rng.random() < 0.4 else np.eye(3))
            R = turn @ facing
            x = rng.uniform(0.015, 0.04)
            centre = np.array([x, rng.uniform(-0.02, 0.02), z + 0.5 * sign * front * rng.uniform(0.02, 0.05)])
            params = HandParams(R[None], angles_to_pose(angles), np.zeros(10), centre - R @ PALM_M)
            posed[side] = renderer.hands[side].decode(params if side == "right" else mirror_params(params))
        drawn = renderer.render(posed, K, SIZE_WH, Appearance.sample(rng), rng=rng)
        truths = []
        for side, render in drawn.items():
            joints = project(render.joints_cam_m.astype(float), K)
            truths.append(Truth(side, box_of(joints), joints))
        yield Picture(f"folded {index}", drawn["right"].rgb, truths)


def _roll(angle: float) -> np.ndarray:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])


def _flip() -> np.ndarray:
    """The back of the hand to the camera, fingers still up."""
    return np.diag([-1.0, 1.0, -1.0])


def turned(picture: Picture, angle_deg: float) -> Picture:
    """The picture turned clockwise about the middle of its hand, in a square that keeps all of it."""
    height, width = picture.rgb.shape[:2]
    side = int(np.ceil(np.hypot(width, height)))
    M = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -angle_deg, 1.0)
    M[:, 2] += (side - np.array([width, height])) / 2
    rgb = cv2.warpAffine(picture.rgb, M, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    hands = []
    for hand in picture.hands:
        assert hand.joints_px is not None
        joints = hand.joints_px @ M[:, :2].T + M[:, 2]
        hands.append(Truth(hand.side, box_of(joints), joints))
    return Picture(f"{picture.name} turned {angle_deg:.0f}", rgb, hands)


def small(picture: Picture, hand_px: float, rng: np.random.Generator, *, size_wh: tuple[int, int] = SIZE_WH) -> Picture:
    """The picture shrunk until its hand is so long, somewhere in a smooth grey one."""
    (hand,) = picture.hands
    assert hand.joints_px is not None
    scale = hand_px / float((hand.box_px[2:] - hand.box_px[:2]).max())
    if scale >= 1:
        return picture
    part = cv2.resize(picture.rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    ramp = np.linspace(*rng.uniform(60, 200, 2), size_wh[0])[None, :, None] + rng.normal(
        0, 4, (size_wh[1], size_wh[0], 3)
    )
    rgb = np.clip(ramp, 0, 255).astype(np.uint8)
    height, width = min(part.shape[0], size_wh[1]), min(part.shape[1], size_wh[0])
    x, y = (int(rng.integers(0, most + 1)) for most in (size_wh[0] - width, size_wh[1] - height))
    rgb[y : y + height, x : x + width] = part[:height, :width]
    joints = (hand.joints_px + 0.5) * scale - 0.5 + [x, y]
    return Picture(f"{picture.name} of {hand_px:.0f} px", rgb, [Truth(hand.side, box_of(joints), joints)])


REAL = {
    "hamer_mit_example_data/test1.jpg": [
        ("right", 265, 160, 380, 335),
        ("left", 128, 480, 240, 548),
        ("right", 410, 285, 495, 415),
        ("right", 368, 360, 470, 465),
    ],
    "hamer_mit_example_data/test2.jpg": [("right", 237, 40, 380, 205), ("left", 335, 262, 520, 485)],
    "hamer_mit_example_data/test3.jpg": [("right", 355, 225, 580, 530), ("left", 350, 215, 590, 420)],
    "hamer_mit_example_data/test4.jpg": [("right", 240, 340, 670, 690), ("right", 500, 740, 1040, 1330)],
    "hamer_mit_example_data/test5.jpg": [("right", 400, 500, 590, 905), ("left", 590, 470, 790, 890)],
    "mediapipe_samples_apache2/gesture_recognizer_hand_thumb_up.jpg": [("left", 170, 75, 380, 375)],
    "mediapipe_samples_apache2/hand_landmarker_test_image.jpg": [
        ("right", 135, 75, 330, 385),
        ("right", 65, 58, 190, 320),
    ],
    "mediapipe_samples_apache2/hand_landmarker_thumbs-up.png": [("right", 780, 280, 1230, 1020)],
    "mediapipe_samples_apache2/hand_victory.jpg": [("right", 750, 450, 2060, 3300)],
    "tfjs_models_apache2/hands.jpg": [("left", 60, 5, 335, 370), ("left", 385, 10, 665, 370)],
    "keypointfusion_mit_rgbd/box.png": [("right", 796, 452, 974, 579)],
}
"""Pictures of shared/real with side and box of each hand, counted by eye. The sign digits show one hand each, the
landscapes none."""


def real_pictures(folder: Path) -> Iterator[Picture]:
    """The photographs with hands."""
    for name, rows in REAL.items():
        hands = [Truth(side, np.array(box, float)) for side, *box in rows]
        yield Picture(name, read_picture(folder / name).rgb, hands)


def sign_digits(folder: Path, every: int) -> Iterator[Picture]:
    """Every n-th of the 2,062 pictures of sign digits: one hand in the middle, its side unknown."""
    for path in sorted((folder / "sign_digits_apache2" / "Dataset").glob("*/*.*"))[::every]:
        rgb = read_picture(path).rgb
        height, width = rgb.shape[:2]
        box = np.array([0.15 * width, 0.15 * height, 0.85 * width, 0.85 * height])
        yield Picture(path.name, rgb, [Truth(None, box)])


def landscapes(folder: Path) -> Iterator[Picture]:
    """Photographs without hands."""
    for path in sorted((folder / "lomiri_wallpapers_cc").glob("*.jpg")):
        yield Picture(path.name, read_picture(path).rgb, [])


def panorama(path: Path) -> Picture:
    """Six left hands of 250 x 340 px in 6000 x 1000 px: thrice the picture hands.jpg, 720 x 382 px."""
    hands = []
    for x in (300, 2600, 5000):
        for x0, y0, x1, y1 in ((60, 5, 335, 370), (385, 10, 665, 370)):
            hands.append(Truth("left", np.array([x + x0, 300 + y0, x + x1, 300 + y1], float)))
    return Picture(path.name, read_picture(path).rgb, hands)


def tall(hand: Picture, picture: Picture) -> Picture:
    """Two drawn hands in 800 x 5000 px: near the top and near the bottom."""
    rgb = np.full((5000, 800, 3), 128, np.uint8)
    hands = []
    for part, y in ((hand, 300), (picture, 4000)):
        height, width = part.rgb.shape[:2]
        rgb[y : y + height, 80 : 80 + width] = part.rgb
        for truth in part.hands:
            assert truth.joints_px is not None
            joints = truth.joints_px + [80, y]
            hands.append(Truth(truth.side, box_of(joints), joints))
    return Picture("tall", rgb, hands)
