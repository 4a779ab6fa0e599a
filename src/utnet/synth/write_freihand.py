"""Synthetic hands as a complete data set in FreiHAND's layout (names and numbering: `utnet.io.layouts`).

Right hands in 224x224 crops with labels and meshes of the open hand, as recorded in `hand_model.json`. Mano rows
contain its axis-angle pose without mean. Evaluation annotations are included, as in newer releases.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from utnet.config import SynthConfig
from utnet.geometry import box_of, crop_affine, crop_camera, project, unproject
from utnet.io import layouts
from utnet.io.atomic import atomic_dir
from utnet.rotations import matrix_to_axis_angle
from utnet.synth.appearance import Appearance
from utnet.synth.motion import (
    Motion,
    check_request,
    look_of,
    num_keys,
    sample_camera,
    spread,
    times,
    write_image,
)
from utnet.synth.poses import sample_betas
from utnet.synth.scene import Render, SceneRenderer
from utnet.types import HandParams

_SPLITS = ("train", "evaluation")
_CAMERA_WH = (640, 480)  # size of the uncropped picture
_GREEN = np.array([0.25, 1.1, 0.35])
_EXPAND = (1.6, 2.4)  # side of a crop relative to the box of the hand
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 95)


@dataclass(frozen=True)
class _Shot:
    """One hand with several backgrounds: pictures and common labels."""

    renders: list[Render]
    K_px: np.ndarray
    hand: HandParams


def write_freihand(
    out: str | Path,
    *,
    num: int,
    seed: int = 0,
    synth_config: SynthConfig | None = None,
    split: str | None = None,
    progress: bool = True,
) -> None:
    """Writes the data set; the same arguments give the same bytes.

    Args:
        out: the folder to create, written atomically.
        num: total number of labelled hands. Training has four pictures per hand, with different backgrounds.
        seed: random seed.
        synth_config: distances, views and shapes of the hands.
        split: "train" or "evaluation" for all hands; None gives a third, at least one, to evaluation.
        progress: show a progress bar.

    Raises:
        InputError: `out` is not empty, or `num` or `split` is out of range.
    """
    check_request(num, seed, split, _SPLITS)
    config = synth_config or SynthConfig()
    num_evaluation = {"train": 0, "evaluation": num}.get(split or "", -(-num // 3))
    counts = {"training": num - num_evaluation, "evaluation": num_evaluation}
    renderer = SceneRenderer("right", forearm=config.forearm)
    with (
        atomic_dir(out) as root,
        tqdm(total=num, desc="FreiHAND layout", unit="hand", disable=None if progress else True) as bar,
    ):
        about = {layouts.HAND_MODEL_KEY: layouts.OPEN_HAND}
        (root / layouts.FREIHAND_HAND_MODEL).write_text(json.dumps(about) + "\n", encoding="utf-8")
        for kind, which in enumerate(layouts.FREIHAND_SETS):
            if not counts[which]:
                continue
            labels: dict[str, list] = {name: [] for name in ("K", "mano", "scale", "verts", "xyz")}
            (root / which / "rgb").mkdir(parents=True)
            if which == "training":
                (root / which / "mask").mkdir()
            for place, num_hands in enumerate(_lengths(counts[which])):
                rng = np.random.default_rng((seed, 21, kind, place))
                for shot in _shoot(renderer, rng, num_hands, config, 1 if which == "evaluation" else 4):
                    _write_pictures(root, which, len(labels["K"]), counts[which], shot)
                    _add_labels(labels, shot)
                    bar.update()
            for name, rows in labels.items():
                (root / layouts.freihand_json(which, name)).write_text(json.dumps(rows), encoding="utf-8")


def _lengths(num: int) -> list[int]:
    """Number of hands of each recording; recordings have consecutive numbers, as in the official set."""
    return spread(num, -(-num // min(max(2, num // 8), 12)))


def _shoot(
    renderer: SceneRenderer, rng: np.random.Generator, num_hands: int, config: SynthConfig, num_backgrounds: int
) -> Iterator[_Shot]:
    """Yields the moving hand of one person, each with `num_backgrounds` backgrounds, the first one green."""
    width, height = _CAMERA_WH
    K_full = sample_camera(rng, config.fov_deg, _CAMERA_WH)
    keys = num_keys(num_hands)
    z = np.clip(rng.uniform(*config.distance_m) + rng.uniform(-0.08, 0.08, keys), *config.distance_m)
    pixel = rng.uniform([0.3 * width, 0.3 * height], [0.7 * width, 0.7 * height], (keys, 2))
    motion = Motion.sample(
        rng,
        betas=sample_betas(rng, config.betas_std),
        centres_m=unproject(pixel, z, K_full),
        max_tilt_deg=config.max_tilt_deg,
    )
    person = Appearance.sample(rng)
    size_wh = layouts.FREIHAND_SIZE_WH
    for time in times(num_hands):
        hand = motion.at(time)
        posed = renderer.decode(hand)
        box = box_of(project(posed.joints_m.astype(np.float64), K_full))
        shift = tuple(rng.uniform(-0.05, 0.05, 2))
        K, _ = crop_camera(crop_affine(box, size_wh[0], expand=rng.uniform(*_EXPAND), shift=shift), K_full)
        noise, renders = int(rng.integers(2**31)), []
        for version in range(num_backgrounds):
            look = look_of(person, Appearance.sample(rng))
            if version == 0:
                look = replace(look, tint=_GREEN)
            # One seed per hand, so that the forearm is the same for all backgrounds.
            renders.append(renderer.render(posed, K, size_wh, look, rng=np.random.default_rng((noise,))))
        yield _Shot(renders, K, hand)


def _write_pictures(root: Path, which: str, row: int, num_rows: int, shot: _Shot) -> None:
    for version, render in enumerate(shot.renders):
        write_image(root / layouts.freihand_rgb(which, row + num_rows * version), render.rgb, *_JPEG)
    if which == "training":
        mask = np.where(shot.renders[0].mask, 255, 0).astype(np.uint8)
        write_image(root / layouts.freihand_mask(row), mask, *_JPEG)


def _add_labels(labels: dict[str, list], shot: _Shot) -> None:
    """Appends one row per file. The mano row ends with uv_root and scale (`model.py`, recover_root)."""
    joints, mesh = (
        array.astype(np.float64) for array in (shot.renders[0].joints_cam_m, shot.renders[0].vertices_cam_m)
    )
    root, bone = joints[layouts.FREIHAND_ROOT_JOINT], joints[layouts.FREIHAND_ROOT_JOINT + 1]
    scale = (shot.K_px[0, 0] + shot.K_px[1, 1]) / 2 / root[2]
    rotations = np.concatenate([shot.hand.global_orient, shot.hand.hand_pose])
    uv_root = root[:2] * scale + shot.K_px[:2, 2]
    row = np.concatenate([matrix_to_axis_angle(rotations).ravel(), shot.hand.betas, uv_root, [scale]])
    labels["K"].append(shot.K_px.tolist())
    labels["mano"].append([row.tolist()])
    labels["scale"].append(float(np.linalg.norm(root - bone)))
    labels["verts"].append(np.round(mesh, 6).tolist())
    labels["xyz"].append(np.round(joints, 6).tolist())
