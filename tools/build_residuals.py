"""Measures the hand detector on drawn hands and builds `utnet/assets/detector/residuals.npz`.

    python tools/build_residuals.py collect FOLDER [--num 50000]
    python tools/build_residuals.py pack FOLDER

`collect` draws hands in full appearance, seen from the whole sphere, at four picture sizes, and runs `HandDetector` on
each picture. Where the quick look finds the hand it is the full look's answer too (180 hands tried: the same
landmarks). Of the other pictures, which cost four times as much, one in three gets a full look and counts three times.
It writes chunks of 500 hands and, when it is started again, continues after the last one: about 50 ms of one core a
hand. `pack` writes what `utnet.detect.residuals` reads, and prints how
many hands were found, by view.

Arrays of a chunk (N hands, right hands): global_orient (N, 3, 3), hand_pose (N, 15, 3, 3), betas (N, 10),
joints_cam_m (N, 21, 3), K_px (N, 3, 3), size_px (N,), box_px (N, 4) of the true joints; weight (N,) how many hands this
one counts for (0: no full look); of the detection nearest to the hand, NaN where there is none: landmarks_px
(N, 21, 2), landmarks_m (N, 21, 3), presence (N,), right (N,) probability of the side, percent (N,) mean distance of the
landmarks from the joints in percent of the box.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from pathlib import Path

import cv2
import numpy as np

from utnet.config import Config, override
from utnet.detect import HandDetector
from utnet.detect.landmark import Landmarks
from utnet.detect.residuals import PATH, Conditions, DetectorResiduals, measure_residuals
from utnet.geometry import normalized_distance_percent, project, unproject
from utnet.io.atomic import atomic_file
from utnet.synth import SyntheticHands
from utnet.types import Sample

SEED = 9_200_003
"""Of these hands alone: not that of training, validation or any benchmark."""
_SIZES_PX = (128, 176, 240, 320)
_CHUNK = 500
_FULL_EVERY = 3
"""One in so many hands that the quick look does not find gets a full look."""
_NEAR_PERCENT = 25.0
"""A detection farther from the hand (mean distance in percent of its box) is of something else."""


def nearest(hands: list[Landmarks], sample: Sample) -> tuple[Landmarks | None, float]:
    """The detection that is the drawn right hand: the nearest of the right side, else the nearest of the wrong one."""
    px = project(sample.joints_cam_m, sample.K_px)
    rows = sorted(
        (hand.right < 0.5, float(normalized_distance_percent(px, hand.joints_px).mean()), i)
        for i, hand in enumerate(hands)
    )
    rows = [row for row in rows if row[1] < _NEAR_PERCENT]
    return (hands[rows[0][2]], rows[0][1]) if rows else (None, np.nan)


def detect(detector: HandDetector, sample: Sample, *, full: bool) -> tuple[Landmarks | None, float, int]:
    """The hand, how far it is off and what it counts for: of the quick look, where that finds the hand on its side,
    else of the full look."""
    hand, percent = nearest(detector.find(sample.rgb, quick=True), sample)
    if hand is not None and hand.right >= 0.5:
        return hand, percent, 1
    if not full:
        return None, np.nan, 0
    return *nearest(detector.find(sample.rgb), sample), _FULL_EVERY


def measure(detector: HandDetector, sample: Sample, *, full: bool) -> dict[str, np.ndarray]:
    """One hand's row of a chunk."""
    hand, percent, weight = detect(detector, sample, full=full)
    params = sample.params
    assert params is not None
    return {
        "global_orient": params.global_orient[0],
        "hand_pose": params.hand_pose,
        "betas": params.betas,
        "joints_cam_m": sample.joints_cam_m,
        "K_px": sample.K_px,
        "size_px": np.array(sample.rgb.shape[0]),
        "box_px": sample.box_px,
        "landmarks_px": np.full((21, 2), np.nan) if hand is None else hand.joints_px,
        "landmarks_m": np.full((21, 3), np.nan) if hand is None else hand.joints_m,
        "presence": np.array(np.nan if hand is None else hand.presence),
        "right": np.array(np.nan if hand is None else hand.right),
        "percent": np.array(percent),
        "weight": np.array(weight),
    }


def collect(folder: Path, num: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    cv2.setNumThreads(1)
    synth = override(Config(), ["synth.appearance=full"]).synth
    sources = [SyntheticHands(seed=SEED, size_px=size, synth=synth) for size in _SIZES_PX]
    detector = HandDetector(threads=1)
    for first in range(0, num, _CHUNK):
        path = folder / f"chunk_{first:06d}.npz"
        if path.exists():
            continue
        rows = [
            measure(detector, sources[i % len(sources)][i], full=i % _FULL_EVERY == 0)
            for i in range(first, min(first + _CHUNK, num))
        ]
        columns = {name: np.stack([row[name] for row in rows]).astype(np.float32) for name in rows[0]}
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **columns)
        found = np.average(np.isfinite(columns["percent"]), weights=columns["weight"])
        print(f"{path.name}: {found:.3f} found", flush=True)


def pack(folder: Path, keep: int) -> None:
    paths = sorted(folder.glob("chunk_*.npz"))
    if not paths:
        raise SystemExit(f"{folder}: no chunk_*.npz; collect first")
    chunks = [dict(np.load(path)) for path in paths]
    hands = {name: np.concatenate([chunk[name] for chunk in chunks]).astype(float) for name in chunks[0]}
    hands = {name: np.repeat(values, hands["weight"].astype(int), 0) for name, values in hands.items()}
    hands["percent"][~(hands["percent"] < _NEAR_PERCENT)] = np.nan
    print_found(hands)
    good = np.isfinite(hands["percent"]) & (hands["right"] >= 0.5)
    hands = {name: values[good] for name, values in hands.items()}
    rays = unproject(hands["landmarks_px"], np.ones((good.sum(), 21)), hands["K_px"])
    points, joints, conditions = measure_residuals(rays, hands["landmarks_m"], hands["joints_cam_m"])
    measured = DetectorResiduals(points, joints, hands["presence"], conditions, np.zeros((105, 105)))
    covariance = np.cov(measured.canonical().T)
    kept = np.sort(np.random.default_rng(SEED).permutation(len(points))[:keep])
    DetectorResiduals(
        points[kept],
        joints[kept],
        hands["presence"][kept],
        Conditions(conditions.frame[kept], conditions.bends[kept]),
        covariance,
    ).save(PATH)
    spread = np.sqrt(np.mean(points**2, axis=(0, 2)) * 2), np.sqrt(np.mean(joints**2, axis=(0, 2)) * 3)
    print(f"{len(kept)} of {len(points)} vectors, {PATH.stat().st_size / 1e6:.2f} MB")
    print("root mean square by joint, percent of the palm's length, in the picture and in 3D:")
    for row in spread:
        print(" ".join(f"{100 * value:5.1f}" for value in row))


def print_found(hands: dict[str, np.ndarray]) -> None:
    """How many hands are found, on which side, by the angle between the palm's normal and the line to the camera."""
    middle = hands["joints_cam_m"].mean(1)
    away = middle / np.linalg.norm(middle, axis=1, keepdims=True)
    angle = np.degrees(np.arccos(np.clip((hands["global_orient"][:, :, 1] * away).sum(1), -1, 1)))
    found = np.isfinite(hands["percent"])
    print(f"{'view [deg]':12s}{'hands':>8s}{'found':>8s}{'wrong side':>12s}{'off [% of box]':>16s}")
    for low, high in ((0, 30), (30, 60), (60, 90), (90, 120), (120, 150), (150, 181), (0, 181)):
        some = (angle >= low) & (angle < high)
        wrong = (hands["right"][some & found] < 0.5).mean()
        off = np.median(hands["percent"][some & found])
        print(f"{low:3d} to {high:3d}  {some.sum():8d}{found[some].mean():8.3f}{wrong:12.3f}{off:16.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("collect", "pack"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num", type=int, default=50_000)
    parser.add_argument("--keep", type=int, default=12_000, help="vectors that ship")
    args = parser.parse_args()
    if args.step == "collect":
        collect(args.folder, args.num)
    else:
        pack(args.folder, args.keep)


if __name__ == "__main__":
    main()
