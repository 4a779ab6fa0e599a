"""Synthetic hands as a complete data set in DexYCB's layout (names and numbering: `utnet.io.layouts`).

Labels are those of the open hand: pose coefficients have an identity basis and no mean pose, and the metadata contains
`hand_model: open`. There are no objects: `pose_y` is zero, as in official labels of objects out of view.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import yaml
from tqdm import tqdm

from utnet.config import SynthConfig
from utnet.conventions import SIDES
from utnet.geometry import mirror_params, project
from utnet.io import layouts
from utnet.io.atomic import atomic_dir
from utnet.rotations import axis_angle_to_matrix, matrix_to_axis_angle
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

_NUM_CAMERAS = len(layouts.DEXYCB_SERIALS)
_MASTER = 2
"""The camera whose frame is the world frame."""

_WIDE_CONE_DEG = 75.0
"""Maximum angle between cameras and the axis of the rig for hands in any orientation."""

_OUT_OF_VIEW_M = 100.0

_ABSENT_OBJECT = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_SPLIT_CYCLE = ("train", "val", "test", "train")


@dataclass(frozen=True)
class _Sequence:
    """One of the 1,000 sequences: subject, index, side and number of frames."""

    subject: int
    index: int
    side: str
    num_frames: int


@dataclass(frozen=True)
class _Tree:
    """Shared by all sequences: folder, seed, config, K of the cameras, renderer of each side."""

    root: Path
    seed: int
    config: SynthConfig
    cameras: list[np.ndarray]
    renderers: dict[str, SceneRenderer]


@dataclass(frozen=True)
class _Rig:
    """Eight cameras around the origin; the z axis points away from them.

    Attributes:
        R: (8, 3, 3) rig to camera.
        t_m: (8, 3), `X_cam = R X_rig + t`.
    """

    R: np.ndarray
    t_m: np.ndarray

    def to_world(self, camera: int) -> np.ndarray:
        """(3, 4) camera to world (the master camera)."""
        R = self.R[_MASTER] @ self.R[camera].T
        return np.concatenate([R, (self.t_m[_MASTER] - R @ self.t_m[camera])[:, None]], 1)


def write_dexycb(
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
        num: number of pictures with a hand. There are eight cameras, so if `num` is not a multiple of eight the hand is
            out of view of the last cameras at the last moment, labelled as in the official data.
        seed: random seed.
        synth_config: distances, views and shapes of the hands.
        split: "train", "val" or "test" of s0 for all frames; None gives half to train and a quarter to the others.
        progress: show a progress bar.

    Raises:
        InputError: `out` is not empty, or `num` or `split` is out of range.
    """
    check_request(num, seed, split, layouts.DEXYCB_SPLITS)
    config = synth_config or SynthConfig()
    plan = _plan(-(-num // _NUM_CAMERAS), split)
    with atomic_dir(out) as root:
        cameras = _write_calibration(root, seed, config)
        renderers = {side: SceneRenderer(side, forearm=config.forearm) for side in SIDES}
        tree = _Tree(root, seed, config, cameras, renderers)
        with tqdm(total=num, desc="DexYCB layout", unit="frame", disable=None if progress else True) as bar:
            left = num
            for sequence in plan:
                for _ in _write_sequence(tree, sequence, left):
                    bar.update()
                left -= min(left, sequence.num_frames * _NUM_CAMERAS)
        _write_empty_sequences(root, plan)


def _plan(moments: int, split: str | None) -> list[_Sequence]:
    """Distributes moments over short sequences, and these over splits, subjects and sides."""
    per_sequence = min(max(1, moments // 8), 4)
    num_sequences = min(-(-moments // per_sequence), 40 if split == "val" else 160)  # val has 40 places, test 160
    plan, taken = [], dict.fromkeys(layouts.DEXYCB_SPLITS, 0)
    for place, num_frames in enumerate(spread(moments, num_sequences)):
        kind = split or _SPLIT_CYCLE[place % len(_SPLIT_CYCLE)]
        subjects, _, indices = layouts.dexycb_split("s0", kind)
        n = taken[kind]
        taken[kind] += 1
        round_, subject = n // len(subjects), 3 * n % len(subjects)
        # Coprime steps (3 with 2, 8, 10; 7 with 20, 80) visit every sequence once and cover all setups early.
        index = indices[(7 * round_ + 11 * subject) % len(indices)]
        side = "left" if (n + round_) % 2 else "right"
        plan.append(_Sequence(subjects[subject], index, side, num_frames))
    return plan


def _sequence_name(subject: int, index: int) -> str:
    """Returns `subject/sequence`; names sort in the order of their index."""
    day = layouts.DEXYCB_SUBJECTS[subject][:8]
    return f"{layouts.DEXYCB_SUBJECTS[subject]}/{day}_{100000 + index:06d}"


def _mano_name(subject: int, side: str) -> str:
    return f"{layouts.DEXYCB_SUBJECTS[subject]}_{side}"


def _write_yaml(path: Path, tree: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(tree, Dumper=_DUMPER, sort_keys=True), encoding="utf-8")


def _write_calibration(root: Path, seed: int, config: SynthConfig) -> list[np.ndarray]:
    """Writes intrinsics of cameras, extrinsics of rigs and betas of hands; returns K of the cameras."""
    rng = np.random.default_rng((seed, 1))
    cameras = [sample_camera(rng, config.fov_deg, layouts.DEXYCB_SIZE_WH) for _ in range(_NUM_CAMERAS)]
    for K, serial in zip(cameras, layouts.DEXYCB_SERIALS, strict=True):
        numbers = {"fx": float(K[0, 0]), "fy": float(K[1, 1]), "ppx": float(K[0, 2]), "ppy": float(K[1, 2])}
        extrinsics = {"rotation": np.eye(3).ravel().tolist(), "translation": [0.0, 0.0, 0.0]}
        tree = {"color": numbers, "depth": dict(numbers), "extrinsics": extrinsics}
        _write_yaml(layouts.dexycb_intrinsics(root, serial), tree)
    for subject in range(len(layouts.DEXYCB_SUBJECTS)):
        rig = _sample_rig(np.random.default_rng((seed, 2, subject)), config)
        poses = {serial: rig.to_world(c).ravel().tolist() for c, serial in enumerate(layouts.DEXYCB_SERIALS)}
        poses["apriltag"] = np.eye(3, 4).ravel().tolist()
        path = layouts.dexycb_extrinsics(root, layouts.DEXYCB_SUBJECTS[subject])
        _write_yaml(path, {"master": layouts.DEXYCB_SERIALS[_MASTER], "extrinsics": poses})
        betas = _betas(seed, subject, config)
        for side in ("right", "left"):
            tree = {"betas": betas.tolist(), layouts.HAND_MODEL_KEY: layouts.OPEN_HAND}
            _write_yaml(layouts.dexycb_mano(root, _mano_name(subject, side)), tree)
    return cameras


def _betas(seed: int, subject: int, config: SynthConfig) -> np.ndarray:
    return sample_betas(np.random.default_rng((seed, 3, subject)), config.betas_std)


def _tilt_deg(config: SynthConfig) -> tuple[float, float]:
    """Maximum tilt of hands and of cameras relative to the axis of the rig: half the configured tilt each."""
    if config.max_tilt_deg >= 90:
        return 180.0, _WIDE_CONE_DEG
    return config.max_tilt_deg / 2, config.max_tilt_deg / 2


def _sample_rig(rng: np.random.Generator, config: SynthConfig) -> _Rig:
    """Draws cameras within a cone, pointing roughly at the origin."""
    cone = np.deg2rad(_tilt_deg(config)[1])
    near, far = config.distance_m
    near = max(near, min(0.5, far))  # keeps a hand around the origin in view
    rotations, offsets = [], []
    for camera in range(_NUM_CAMERAS):
        away = np.arccos(1 - (1 - np.cos(cone)) * rng.random())  # uniform over the spherical cap
        around = 2 * np.pi * (camera + rng.uniform(-0.3, 0.3)) / _NUM_CAMERAS
        place = np.array([np.sin(away) * np.cos(around), np.sin(away) * np.sin(around), -np.cos(away)])
        place = place * rng.uniform(near, far)
        z = rng.normal(0, 0.02, 3) - place
        z = z / np.linalg.norm(z)
        roll = rng.normal(0, np.deg2rad(15))
        x = np.cross([np.sin(roll), np.cos(roll), 0.0], z)
        x = x / np.linalg.norm(x)
        R = np.stack([x, np.cross(z, x), z])
        rotations.append(R)
        offsets.append(-R @ place)
    return _Rig(np.stack(rotations), np.stack(offsets))


def _move(params: HandParams, R: np.ndarray, t_m: np.ndarray, wrist_m: np.ndarray) -> HandParams:
    """Transforms a hand by X' = R X + t: R' = R R_root, t' = R (J0 + t_hand) + t - J0."""
    return HandParams(
        global_orient=R @ params.global_orient,
        hand_pose=params.hand_pose,
        betas=params.betas,
        transl_m=R @ wrist_m + t_m - (wrist_m - params.transl_m),
    )


def _pose_m(params: HandParams) -> np.ndarray:
    """(51,) float32: 3 global axis-angle, 45 pose axis-angle (identity basis), 3 translation."""
    rotations = np.concatenate([params.global_orient, params.hand_pose])
    return np.concatenate([matrix_to_axis_angle(rotations).ravel(), params.transl_m]).astype(np.float32)


def _params_of(pose_m: np.ndarray, betas: np.ndarray) -> HandParams:
    """Inverse of `_pose_m`, so that pictures show the hand of the rounded float32 labels."""
    rotations = axis_angle_to_matrix(pose_m[:48].astype(np.float64).reshape(16, 3))
    return HandParams(rotations[:1], rotations[1:], betas, pose_m[48:].astype(np.float64))


def _write_sequence(tree: _Tree, sequence: _Sequence, left: int) -> Iterator[None]:
    """Writes a sequence and yields after every picture with a hand, at most `left` times."""
    seed, config, subject = tree.seed, tree.config, sequence.subject
    rng = np.random.default_rng((seed, 4, subject, sequence.index))
    rig = _sample_rig(np.random.default_rng((seed, 2, subject)), config)
    person = Appearance.sample(np.random.default_rng((seed, 5, subject)))
    places = [Appearance.sample(rng) for _ in tree.cameras]
    centres = rng.uniform(-0.05, 0.05, (num_keys(sequence.num_frames), 3))
    betas = _betas(seed, subject, config)
    motion = Motion.sample(rng, betas=betas, centres_m=centres, max_tilt_deg=_tilt_deg(config)[0])
    renderer = tree.renderers[sequence.side]
    folder = tree.root / _sequence_name(subject, sequence.index)
    poses_world = []
    for frame, time in enumerate(times(sequence.num_frames)):
        hand = motion.at(time)
        hand = hand if sequence.side == "right" else mirror_params(hand)
        wrist = renderer.decode(hand).joints_m[0].astype(np.float64)
        poses_world.append(_pose_m(_move(hand, rig.R[_MASTER], rig.t_m[_MASTER], wrist)))
        for camera, K in enumerate(tree.cameras):
            present = frame * _NUM_CAMERAS + camera < left
            pose = _pose_m(_move(hand, rig.R[camera], rig.t_m[camera], wrist))
            params = _params_of(pose, betas)
            shown = params if present else replace(params, transl_m=params.transl_m + [_OUT_OF_VIEW_M, 0.0, 0.0])
            look = look_of(person, places[camera], rig.R[camera])
            noise = config.depth_noise_m
            render = renderer.render(
                renderer.decode(shown), K, layouts.DEXYCB_SIZE_WH, look, rng=rng, depth_noise_m=noise
            )
            _write_frame(folder / layouts.DEXYCB_SERIALS[camera], frame, render, K, pose if present else None)
            if present:
                yield
    _write_meta(folder, sequence, _pose_file(np.stack(poses_world)))


def _write_frame(folder: Path, frame: int, render: Render, K: np.ndarray, pose_m: np.ndarray | None) -> None:
    """Writes picture, depth and labels of one camera; `pose_m` is None if the hand is out of view."""
    folder.mkdir(parents=True, exist_ok=True)
    write_image(folder / layouts.dexycb_color(frame), render.rgb, cv2.IMWRITE_JPEG_QUALITY, 95)
    write_image(folder / layouts.dexycb_depth(frame), layouts.depth_mm_encode(render.depth_m))
    none = layouts.DEXYCB_NO_HAND
    joints, joints_px = np.full((1, 21, 3), none, np.float32), np.full((1, 21, 2), none, np.float32)
    if pose_m is not None:
        joints[0], joints_px[0] = render.joints_cam_m, project(render.joints_cam_m.astype(np.float64), K)
    np.savez_compressed(
        folder / layouts.dexycb_labels(frame),
        seg=np.where(render.mask, layouts.DEXYCB_HAND_SEG, 0).astype(np.uint8),
        pose_y=np.zeros((1, 3, 4), np.float32),
        pose_m=np.zeros((1, 51), np.float32) if pose_m is None else pose_m[None],
        joint_3d=joints,
        joint_2d=joints_px,
    )


def _write_meta(folder: Path, sequence: _Sequence, pose_file: bytes) -> None:
    """Writes `meta.yml` and `pose.npz` of a sequence."""
    tree = {
        "serials": list(layouts.DEXYCB_SERIALS),
        "num_frames": sequence.num_frames,
        "extrinsics": layouts.DEXYCB_SUBJECTS[sequence.subject],
        "ycb_ids": [1],
        "ycb_grasp_ind": 0,
        "mano_sides": [sequence.side],
        "mano_calib": [_mano_name(sequence.subject, sequence.side)],
        layouts.HAND_MODEL_KEY: layouts.OPEN_HAND,
    }
    _write_yaml(folder / "meta.yml", tree)
    (folder / "pose.npz").write_bytes(pose_file)


def _pose_file(poses_world: np.ndarray) -> bytes:
    """Returns `pose.npz` of a sequence: (F, 51) hands in the world frame, and an absent object."""
    num = len(poses_world)
    objects = np.tile(np.array(_ABSENT_OBJECT, np.float32), (num, 1, 1))
    file = io.BytesIO()
    np.savez_compressed(file, pose_y=objects, pose_m=poses_world.reshape(num, 1, 51).astype(np.float32))
    return file.getvalue()


def _write_empty_sequences(root: Path, plan: list[_Sequence]) -> None:
    """Writes the remaining of the 100 sequences per subject, required by the official toolkit, without frames."""
    written = {(sequence.subject, sequence.index) for sequence in plan}
    empty = _pose_file(np.zeros((0, 51)))
    for subject in range(len(layouts.DEXYCB_SUBJECTS)):
        for index in range(layouts.DEXYCB_NUM_SEQUENCES):
            if (subject, index) not in written:
                sequence = _Sequence(subject, index, SIDES[index % 2], 0)
                _write_meta(root / _sequence_name(subject, index), sequence, empty)
