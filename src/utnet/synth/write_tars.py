"""Synthetic hands as training tars in the WebDataset layout of HaMeR and WiLoR (`hamer/datasets/image_dataset.py`).

Each sample is a picture `KEY.jpg` and `KEY.data.pyd`, a pickled list with one dict per hand, right or left. The
official keys contain neither hand model nor camera, so `extra_info` has `hand_model: open` and `K` (3, 3).
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from utnet.config import SynthConfig
from utnet.conventions import SIDES
from utnet.geometry import box_of, mirror_camera, mirror_params, mirror_points, project, unproject
from utnet.io import layouts
from utnet.io.atomic import atomic_dir
from utnet.rotations import matrix_to_axis_angle
from utnet.synth.appearance import Appearance
from utnet.synth.motion import check_request, sample_camera
from utnet.synth.poses import PALM_M, angles_to_pose, sample_angles, sample_betas, sample_orientation
from utnet.synth.scene import SceneRenderer
from utnet.synth.write_ho3d import pickle_for_all
from utnet.types import HandParams

_SIZE_WH = (480, 360)
_PADDING = 2.0
"""Padding of boxes, which HaMeR crops without further padding."""


def write_tars(
    out: str | Path,
    *,
    num: int,
    seed: int = 0,
    per_tar: int = 1000,
    synth_config: SynthConfig | None = None,
    progress: bool = True,
) -> None:
    """Writes `out/000000.tar` and so on; the same arguments give the same bytes.

    Every fifth picture has a second label: a copy of the first with 2D labels only (like data sets without 3D labels).

    Args:
        out: the folder to create, written atomically.
        num: total number of pictures; every other one shows a left hand.
        seed: random seed.
        per_tar: number of pictures per tar.
        synth_config: distances, views and shapes of the hands.
        progress: show a progress bar.

    Raises:
        InputError: `out` is not empty, or `num` or `seed` is out of range.
    """
    check_request(num, seed, None, ())
    config = synth_config or SynthConfig()
    renderer = SceneRenderer("right", forearm=config.forearm)
    with (
        atomic_dir(out) as root,
        tqdm(total=num, desc="training tars", unit="picture", disable=None if progress else True) as bar,
    ):
        for first in range(0, num, per_tar):
            with tarfile.open(root / f"{first // per_tar:06d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
                for index in range(first, min(first + per_tar, num)):
                    rgb, hands = _picture(renderer, np.random.default_rng((seed, 21, index)), SIDES[index % 2], config)
                    if index % 5 == 4:
                        hands.append(_only_2d(hands[0]))
                    ok, jpeg = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])
                    assert ok
                    _add(tar, f"{index:08d}.jpg", jpeg.tobytes())
                    _add(tar, f"{index:08d}.data.pyd", pickle_for_all(hands))
                    bar.update()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _picture(renderer: SceneRenderer, rng: np.random.Generator, side: str, config: SynthConfig):
    """Draws a picture (H, W, 3) of a hand, and its label; a left hand is a mirrored right hand."""
    K = sample_camera(rng, config.fov_deg, _SIZE_WH)
    R = sample_orientation(rng, config.max_tilt_deg)
    pixel = rng.uniform(0.3, 0.7, (1, 2)) * _SIZE_WH
    centre = unproject(pixel, np.array([rng.uniform(*config.distance_m)]), K)[0]
    pose, betas = angles_to_pose(sample_angles(rng)), sample_betas(rng, config.betas_std)
    params = HandParams(R[None], pose, betas, centre - R @ PALM_M)
    render = renderer.render(
        renderer.decode(params), K, _SIZE_WH, Appearance.sample(rng), rng=rng, depth_noise_m=config.depth_noise_m
    )
    rgb, joints = render.rgb, render.joints_cam_m.astype(np.float64)
    if side == "left":
        width = _SIZE_WH[0]
        rgb, joints, params, K = rgb[:, ::-1], mirror_points(joints), mirror_params(params), mirror_camera(K, width)
    return np.ascontiguousarray(rgb), [_label(joints, params, K, side)]


def _label(joints_cam_m: np.ndarray, params: HandParams, K: np.ndarray, side: str) -> dict:
    points = project(joints_cam_m, K)
    x0, y0, x1, y1 = box_of(points)
    rotations = np.concatenate([params.global_orient, params.hand_pose])
    ones = np.ones((len(points), 1))
    return {
        "keypoints_2d": np.concatenate([points, ones], 1).astype(np.float32),
        "keypoints_3d": np.concatenate([joints_cam_m, ones], 1).astype(np.float32),
        "center": np.array([(x0 + x1) / 2, (y0 + y1) / 2], np.float32),
        "scale": np.full(2, max(x1 - x0, y1 - y0) * _PADDING / 200, np.float32),
        "hand_pose": matrix_to_axis_angle(rotations).reshape(48).astype(np.float32),
        "betas": np.asarray(params.betas, np.float32),
        "right": np.array(float(side == "right")),
        "has_hand_pose": np.array(1.0),
        "has_betas": np.array(1.0),
        "extra_info": {layouts.HAND_MODEL_KEY: layouts.OPEN_HAND, "K": K},
    }


def _only_2d(hand: dict) -> dict:
    """The label of a hand with 2D labels only; one joint is not labelled."""
    points = hand["keypoints_2d"].copy()
    points[7] = 0.0
    return hand | {
        "keypoints_2d": points,
        "keypoints_3d": np.zeros_like(hand["keypoints_3d"]),
        "hand_pose": np.zeros_like(hand["hand_pose"]),
        "betas": np.zeros_like(hand["betas"]),
        "has_hand_pose": np.array(0.0),
        "has_betas": np.array(0.0),
    }
