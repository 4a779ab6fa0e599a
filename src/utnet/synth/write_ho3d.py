"""Synthetic hands as a complete tree in HO3D's layout (names and encodings: `utnet.layouts`).

Right hands, OpenGL axes, labels of the open hand (`handModel: open` in every meta). Evaluation metas hold the root and
a box only; the truth is in `evaluation_xyz.json` and `evaluation_verts.json`, as it is published.
"""

from __future__ import annotations

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from utnet import layouts
from utnet.config import SynthConfig
from utnet.conventions import OPENPOSE_TO_MANO21
from utnet.errors import InputError
from utnet.geometry import box_of, matrix_to_axis_angle, project, rotate_params, unproject
from utnet.synth.appearance import Appearance
from utnet.synth.motion import (
    Motion,
    check_request,
    look_of,
    num_keys,
    sample_camera,
    spread,
    times,
    whole_folder,
    write_image,
)
from utnet.synth.poses import sample_betas
from utnet.synth.scene import Render, SceneRenderer
from utnet.types import HandParams

_C = layouts.OPENGL_TO_OPENCV


@dataclass
class _Truth:
    """What evaluation publishes beside the frames: OpenGL axes, HO3D joint order, one entry a line of the list."""

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
    """Writes a tree; the same arguments give the same bytes.

    Args:
        out: the folder to make; it appears when it is complete.
        num: pictures in all.
        seed: of everything random.
        synth_config: distances, views and shapes of the hands.
        split: "train" or "evaluation" puts all into that split; None gives evaluation a third, at least one.
        version: "v2" writes PNG pictures, "v3" JPEG ones.
        progress: show a bar.

    Raises:
        InputError: `out` is not empty, or `num`, `split` or `version` is out of range.
    """
    check_request(num, seed, split, layouts.HO3D_SPLITS)
    if version not in layouts.HO3D_RGB_SUFFIXES:
        raise InputError(f"HO3D has no version {version!r}; expected one of {', '.join(layouts.HO3D_RGB_SUFFIXES)}")
    config = synth_config or SynthConfig()
    num_evaluation = {"train": 0, "evaluation": num}.get(split or "", -(-num // 3))
    counts = {"train": num - num_evaluation, "evaluation": num_evaluation}
    renderer, truth = SceneRenderer("right", forearm=config.forearm), _Truth()
    with whole_folder(out) as root, tqdm(total=num, desc="HO3D layout", unit="frame", disable=not progress) as bar:
        for kind, name in enumerate(layouts.HO3D_SPLITS):
            (root / name).mkdir()
            frames: list[str] = []
            for place, num_frames in enumerate(_lengths(counts[name])):
                rng = np.random.default_rng((seed, 11, kind, place))
                sequence = f"SYN{'TE'[kind]}{place:03d}"
                for folder in ("rgb", "depth", "meta"):
                    (root / name / sequence / folder).mkdir(parents=True)
                shots = _shoot(renderer, rng, num_frames, config)
                for number, (render, pose, K) in enumerate(shots):
                    frames.append(f"{sequence}/{number:04d}")
                    _write_frame(root, name, frames[-1], layouts.HO3D_RGB_SUFFIXES[version], render, pose, K, truth)
                    bar.update()
            (root / layouts.ho3d_list(name)).write_text("".join(f"{frame}\n" for frame in frames), encoding="utf-8")
        (root / layouts.HO3D_XYZ).write_text(json.dumps(truth.joints), encoding="utf-8")
        (root / layouts.HO3D_VERTS).write_text(json.dumps(truth.vertices), encoding="utf-8")


def _lengths(num: int) -> list[int]:
    """Frames of each of a split's sequences: few long ones for many frames, but always several."""
    if not num:
        return []
    return spread(num, -(-num // min(max(2, num // 8), 12)))


def _shoot(renderer: SceneRenderer, rng: np.random.Generator, num_frames: int, config: SynthConfig):
    """Pictures of one person's moving hand: (render, annotation's hand in OpenGL axes, K) a frame."""
    width, height = layouts.HO3D_SIZE_WH
    K = sample_camera(rng, config.fov_deg, layouts.HO3D_SIZE_WH)
    keys = num_keys(num_frames)
    z = np.clip(rng.uniform(*config.distance_m) + rng.uniform(-0.08, 0.08, keys), *config.distance_m)
    pixel = rng.uniform([0.3 * width, 0.3 * height], [0.7 * width, 0.7 * height], (keys, 2))
    motion = Motion.sample(
        rng,
        betas=sample_betas(rng, config.betas_std),
        centres_m=unproject(pixel, z, K),
        max_tilt_deg=config.max_tilt_deg,
    )
    look = look_of(Appearance.sample(rng), Appearance.sample(rng))
    for time in times(num_frames):
        hand = motion.at(time)
        wrist = renderer.decode(hand).joints_m[0].astype(np.float64)
        annotated = rotate_params(hand, _C, wrist)
        shown = rotate_params(annotated, _C, _C @ wrist)  # C is its own inverse
        render = renderer.render(
            renderer.decode(shown), K, layouts.HO3D_SIZE_WH, look, rng=rng, depth_noise_m=config.depth_noise_m
        )
        yield render, annotated, K


def _write_frame(
    root: Path, split: str, frame: str, suffix: str, render: Render, pose: HandParams, K: np.ndarray, truth: _Truth
) -> None:
    """Picture, depth and meta of one frame; what evaluation withholds goes into `truth`."""
    options = (cv2.IMWRITE_JPEG_QUALITY, 95) if suffix == ".jpg" else (cv2.IMWRITE_PNG_COMPRESSION, 1)
    write_image(root / layouts.ho3d_file(split, frame, "rgb", suffix), render.rgb, *options)
    depth = layouts.ho3d_depth_encode(render.depth_m)
    write_image(root / layouts.ho3d_file(split, frame, "depth", ".png"), depth, cv2.IMWRITE_PNG_COMPRESSION, 1)
    joints = (render.joints_cam_m.astype(np.float64) @ _C)[list(OPENPOSE_TO_MANO21)]
    meta = {
        "camMat": K,
        "objName": "none",
        "objLabel": 0,
        "objRot": np.zeros((3, 1)),
        "objTrans": np.zeros(3),
        "objCorners3D": np.zeros((8, 3)),
        "objCorners3DRest": np.zeros((8, 3)),
        layouts.HO3D_HAND_MODEL_KEY: layouts.OPEN_HAND,
    }
    if split == "train":
        rotations = np.concatenate([pose.global_orient, pose.hand_pose])
        meta |= {
            "handPose": matrix_to_axis_angle(rotations).ravel(),
            "handTrans": np.asarray(pose.transl_m),
            "handBeta": np.asarray(pose.betas),
            "handJoints3D": joints,
        }
    else:
        box = box_of(project(render.joints_cam_m.astype(np.float64), K))
        whole = np.concatenate([np.floor(box[:2]), np.ceil(box[2:])])
        meta |= {"handJoints3D": joints[0], "handBoundingBox": [int(v) for v in whole]}
        truth.joints.append(np.round(joints, 6).tolist())
        truth.vertices.append(np.round(render.vertices_cam_m.astype(np.float64) @ _C, 6).tolist())
    (root / layouts.ho3d_file(split, frame, "meta", ".pkl")).write_bytes(pickle_for_all(meta))


def pickle_for_all(tree: dict) -> bytes:
    """A protocol 2 pickle of plain values and numpy arrays that numpy 1, numpy 2 and Python 2 can all read.

    numpy 2 names its reconstruction by a module that numpy 1 does not have; both know the older name.
    """
    return pickle.dumps(tree, protocol=2).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
