"""Synthetic hands as a complete data set in the layout of HO3D or H2O3D (names and encodings: `utnet.io.layouts`).

HO3D has right hands, H2O3D two hands per picture. Axes are OpenGL's, labels those of the open hand (`handModel: open`
in every meta file). Evaluation metas contain only the root and a box of each hand; the ground truth of HO3D is in
`evaluation_xyz.json` and `evaluation_verts.json`, as published (that of H2O3D is not).
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from utnet.config import SynthConfig
from utnet.conventions import OPENPOSE_TO_MANO21
from utnet.errors import InputError
from utnet.geometry import box_of, mirror_params, project, rotate_params, unproject
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
from utnet.synth.pair import PairRenderer
from utnet.synth.poses import sample_betas
from utnet.synth.scene import PosedHand, Render, SceneRenderer
from utnet.types import HandParams

_C = layouts.OPENGL_TO_OPENCV


_TWO_HANDS = "h2o3d"

_PAIR_APART_M = (0.09, 0.14)
"""Distance of each palm from the middle between the two hands."""

_PAIR_SPAN_M = 0.5
"""Both hands need this much of the picture's width; they are far enough away for it."""


@dataclass(frozen=True)
class _Shot:
    """One picture. `renders` hold the truth in the camera, `poses` the annotation's hands in OpenGL axes, by side."""

    renders: dict[str, Render]
    poses: dict[str, HandParams]
    K: np.ndarray


@dataclass
class _Truth:
    """Published ground truth of the evaluation split: OpenGL axes, HO3D joint order, one entry per line of the list."""

    joints: list = field(default_factory=list)
    vertices: list = field(default_factory=list)


def write_ho3d(
    out: str | Path,
    *,
    num: int,
    seed: int = 0,
    synth_config: SynthConfig | None = None,
    split: str | None = None,
    version: str = "v3",
    progress: bool = True,
) -> None:
    """Writes the data set; the same arguments give the same bytes.

    Args:
        out: the folder to create, written atomically.
        num: total number of pictures.
        seed: random seed.
        synth_config: distances, views and shapes of the hands.
        split: "train" or "evaluation" for all frames; None gives a third, at least one, to evaluation.
        version: "v2" (PNG pictures), "v3" (JPEG) or "h2o3d" (H2O3D, both hands in every picture).
        progress: show a progress bar.

    Raises:
        InputError: `out` is not empty, or `num`, `split` or `version` is out of range.
    """
    check_request(num, seed, split, layouts.HO3D_SPLITS)
    if version not in layouts.HO3D_RGB_SUFFIXES:
        raise InputError(f"HO3D has no version {version!r}; expected one of {', '.join(layouts.HO3D_RGB_SUFFIXES)}")
    config = synth_config or SynthConfig()
    num_evaluation = {"train": 0, "evaluation": num}.get(split or "", -(-num // 3))
    counts = {"train": num - num_evaluation, "evaluation": num_evaluation}
    two_hands = version == _TWO_HANDS
    renderer = PairRenderer(forearm=config.forearm) if two_hands else SceneRenderer("right", forearm=config.forearm)
    truth = _Truth()
    with (
        atomic_dir(out) as root,
        tqdm(total=num, desc="HO3D layout", unit="frame", disable=None if progress else True) as bar,
    ):
        for kind, name in enumerate(layouts.HO3D_SPLITS):
            (root / name).mkdir()
            frames: list[str] = []
            for place, num_frames in enumerate(_lengths(counts[name])):
                rng = np.random.default_rng((seed, 12 if two_hands else 11, kind, place))
                sequence = f"SYN{'TE'[kind]}{place:03d}"
                for folder in ("rgb", "depth", "meta"):
                    (root / name / sequence / folder).mkdir(parents=True)
                for number, shot in enumerate(_shoot(renderer, rng, num_frames, config)):
                    frames.append(f"{sequence}/{number:04d}")
                    _write_frame(root, name, frames[-1], layouts.HO3D_RGB_SUFFIXES[version], shot, truth)
                    bar.update()
            (root / layouts.ho3d_list(name)).write_text("".join(f"{frame}\n" for frame in frames), encoding="utf-8")
        if not two_hands:
            (root / layouts.HO3D_XYZ).write_text(json.dumps(truth.joints), encoding="utf-8")
            (root / layouts.HO3D_VERTS).write_text(json.dumps(truth.vertices), encoding="utf-8")


def _lengths(num: int) -> list[int]:
    """Number of frames of each sequence of a split; there are always several sequences."""
    if not num:
        return []
    return spread(num, -(-num // min(max(2, num // 8), 12)))


def _shoot(
    renderer: SceneRenderer | PairRenderer, rng: np.random.Generator, num_frames: int, config: SynthConfig
) -> Iterator[_Shot]:
    """Yields pictures of the moving hand, or both hands, of one person."""
    K = sample_camera(rng, config.fov_deg, layouts.HO3D_SIZE_WH)
    keys = num_keys(num_frames)
    motions = _pair(rng, K, keys, config) if isinstance(renderer, PairRenderer) else _single(rng, K, keys, config)
    look = look_of(Appearance.sample(rng), Appearance.sample(rng))
    options: dict[str, Any] = {"rng": rng, "depth_noise_m": config.depth_noise_m}
    for time in times(num_frames):
        hands = {side: motion.at(time) for side, motion in motions.items()}
        if isinstance(renderer, PairRenderer):
            hands["left"] = mirror_params(hands["left"])
            turned = {side: _turn(renderer.hands[side], hand) for side, hand in hands.items()}
            posed = {side: shown for side, (_, shown) in turned.items()}
            renders = renderer.render(posed, K, layouts.HO3D_SIZE_WH, look, **options)
        else:
            turned = {side: _turn(renderer, hand) for side, hand in hands.items()}
            renders = {"right": renderer.render(turned["right"][1], K, layouts.HO3D_SIZE_WH, look, **options)}
        yield _Shot(renders, {side: annotated for side, (annotated, _) in turned.items()}, K)


def _turn(renderer: SceneRenderer, hand: HandParams) -> tuple[HandParams, PosedHand]:
    """Returns the annotation of a hand in OpenGL axes, and the hand decoded from it in the camera frame."""
    wrist = renderer.decode(hand).joints_m[0].astype(np.float64)
    annotated = rotate_params(hand, _C, wrist)
    return annotated, renderer.decode(rotate_params(annotated, _C, _C @ wrist))  # C is its own inverse


def _single(rng: np.random.Generator, K: np.ndarray, keys: int, config: SynthConfig) -> dict[str, Motion]:
    width, height = layouts.HO3D_SIZE_WH
    z = np.clip(rng.uniform(*config.distance_m) + rng.uniform(-0.08, 0.08, keys), *config.distance_m)
    pixel = rng.uniform([0.3 * width, 0.3 * height], [0.7 * width, 0.7 * height], (keys, 2))
    betas, centres = sample_betas(rng, config.betas_std), unproject(pixel, z, K)
    return {"right": Motion.sample(rng, betas=betas, centres_m=centres, max_tilt_deg=config.max_tilt_deg)}


def _pair(rng: np.random.Generator, K: np.ndarray, keys: int, config: SynthConfig) -> dict[str, Motion]:
    """Motions of two hands of one shape, the right hand on the right of the picture.

    The left hand is given as the mirrored right hand, since `Motion` is of right hands.
    """
    width, height = layouts.HO3D_SIZE_WH
    far_enough = max(rng.uniform(*config.distance_m), _PAIR_SPAN_M * K[0, 0] / width)
    z = np.clip(far_enough + rng.uniform(-0.05, 0.05, keys), *config.distance_m)
    pixel = rng.uniform([0.45 * width, 0.4 * height], [0.55 * width, 0.6 * height], (keys, 2))
    middle, betas = unproject(pixel, z, K), sample_betas(rng, config.betas_std)
    motions = {}
    for side, sign in (("right", 1.0), ("left", -1.0)):
        offset = np.stack([sign * rng.uniform(*_PAIR_APART_M, keys), *rng.uniform(-0.04, 0.04, (2, keys))], 1)
        centres = (middle + offset) * [sign, 1.0, 1.0]
        motions[side] = Motion.sample(rng, betas=betas, centres_m=centres, max_tilt_deg=config.max_tilt_deg)
    return motions


def _write_frame(root: Path, split: str, frame: str, suffix: str, shot: _Shot, truth: _Truth) -> None:
    """Writes picture, depth and meta of one frame; ground truth withheld in evaluation is added to `truth`."""
    picture, K = next(iter(shot.renders.values())), shot.K
    options = (cv2.IMWRITE_JPEG_QUALITY, 95) if suffix == ".jpg" else (cv2.IMWRITE_PNG_COMPRESSION, 1)
    write_image(root / layouts.ho3d_file(split, frame, "rgb", suffix), picture.rgb, *options)
    depth = layouts.ho3d_depth_encode(picture.depth_m)
    write_image(root / layouts.ho3d_file(split, frame, "depth", ".png"), depth, cv2.IMWRITE_PNG_COMPRESSION, 1)
    meta = {
        "camMat": K,
        "objName": "none",
        "objLabel": 0,
        layouts.HO3D_NOT_ANNOTATED: np.zeros((3, 1)),
        "objTrans": np.zeros(3),
        "objCorners3D": np.zeros((8, 3)),
        "objCorners3DRest": np.zeros((8, 3)),
        layouts.HO3D_HAND_MODEL_KEY: layouts.OPEN_HAND,
    }
    two_hands = len(shot.poses) == 2
    for side, pose in shot.poses.items():
        keys, render = layouts.ho3d_keys(side, two_hands=two_hands), shot.renders[side]
        joints = (render.joints_cam_m.astype(np.float64) @ _C)[list(OPENPOSE_TO_MANO21)]
        if split == "train":
            rotations = np.concatenate([pose.global_orient, pose.hand_pose])
            meta |= {
                keys["pose"]: matrix_to_axis_angle(rotations).ravel(),
                keys["transl"]: np.asarray(pose.transl_m),
                "handBeta": np.asarray(pose.betas),
                keys["joints"]: joints,
            }
            if two_hands:
                meta |= {keys["joints_ok"]: np.ones(21), keys["pose_ok"]: np.ones(48)}
        else:
            box = box_of(project(render.joints_cam_m.astype(np.float64), K))
            whole = np.concatenate([np.floor(box[:2]), np.ceil(box[2:])])
            meta |= {keys["joints"]: joints[0], keys["box"]: [int(v) for v in whole]}
        if split == "evaluation" and not two_hands:
            truth.joints.append(np.round(joints, 6).tolist())
            truth.vertices.append(np.round(render.vertices_cam_m.astype(np.float64) @ _C, 6).tolist())
    (root / layouts.ho3d_file(split, frame, "meta", ".pkl")).write_bytes(pickle_for_all(meta))


def pickle_for_all(tree: dict) -> bytes:
    """Pickles plain values and numpy arrays (protocol 2), readable by numpy 1, numpy 2 and Python 2.

    The module name of numpy 2 is replaced by that of numpy 1, which both can import.
    """
    return pickle.dumps(tree, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
