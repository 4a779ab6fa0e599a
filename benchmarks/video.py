"""How quiet and how late smoothed hands are: `python benchmarks/video.py [--video CLIP] [--seconds 6] [--seeds 4]`.

Synthetic hands move from key pose to key pose (`utnet.synth.motion`), landmarks are seen with errors like a detector's,
the hand model is fitted to each frame alone ("raw"), and `HandSmoother` smooths. A video (`--video`) goes through
detector, tracker, fit and smoother; the tracks of at least a second count.

    jitter  mean acceleration of the 21 joints in the camera's frame, mm a frame squared (and m/s^2).
    lag     frames by which the smoothed joints are late: the peak of the cross-correlation against the raw ones, with a
            parabola between frames. "true lag" is against fits to the same landmarks without errors.
    error   mean distance to these: of joints relative to the wrist in mm, and in the picture in px.

Prints a table and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from utnet.fit import HandFitter
from utnet.geometry import box_of, project
from utnet.hand import HandModel
from utnet.placement import default_intrinsics
from utnet.predict import Hand
from utnet.predict.smooth import HandSmoother
from utnet.synth.motion import Motion
from utnet.synth.poses import sample_betas
from utnet.types import HandParams

FPS = 25.0
SIZE = (620, 1080)
"""Of the synthetic hands' picture: about 200 px from wrist to middle knuckle, as in the 325-frame clip."""
KEY_S = {"still": 1000.0, "slow": 2.0, "brisk": 1.0, "fast": 0.5}
"""Seconds from a key pose to the next."""
NOISE_PX, NOISE_M = 1.2, (0.001, 0.001, 0.002)
"""Errors of landmarks in the picture and in metres. MediaPipe's landmarks of the 325-frame clip tremble by 0.6 px in
the median and by 2.5 px in the mean, as their second differences say."""
_WALK_M = 0.04
_MAX_SHIFT = 10


def moving_hand(rng: np.random.Generator, key_s: float, num: int) -> list[HandParams]:
    """A right hand that moves for `num` frames with `key_s` seconds between key poses."""
    num_keys = int(num / FPS / key_s) + 2
    places = np.array([0.0, 0.0, 0.5]) + np.cumsum(rng.normal(0, _WALK_M, (num_keys, 3)), 0)
    places[:, 2] = np.clip(places[:, 2], 0.35, 0.8)
    motion = Motion.sample(rng, betas=sample_betas(rng), centres_m=places, max_tilt_deg=60.0)
    return [motion.at(i / FPS / (key_s * (num_keys - 1))) for i in range(num)]


def decode(params: HandParams, model: HandModel, K_px: np.ndarray) -> list[Hand]:
    """Hands of a batch of parameters, as a predictor gives them."""
    with torch.inference_mode():
        mesh = model.decode(params.map(lambda array: torch.from_numpy(array).float()))
    transl = params.transl_m[:, None]
    joints, vertices = mesh.joints_m.double().numpy() + transl, mesh.vertices_m.double().numpy() + transl
    faces, hands = model.faces.numpy(), []
    for i in range(len(joints)):
        px, own = project(joints[i], K_px), params.map(lambda array, i=i: array[i])
        hands.append(
            Hand("right", 1.0, box_of(px), joints[i], px, vertices[i], faces, own, K_px, "hand_size", "fit", track=0)
        )
    return hands


def synthetic(
    fitter: HandFitter, model: HandModel, rng: np.random.Generator, key_s: float, num: int
) -> tuple[list[Hand], np.ndarray]:
    """Raw fits of one moving hand, and the joints (T, 21, 3) of fits to the same landmarks without errors."""
    K = default_intrinsics(*SIZE)
    fields = [
        np.stack(values) for values in zip(*(vars(p).values() for p in moving_hand(rng, key_s, num)), strict=True)
    ]
    joints = np.stack([hand.joints_cam_m for hand in decode(HandParams(*fields), model, K)])
    seen, relative, cameras = project(joints, K), joints - joints.mean(1, keepdims=True), np.tile(K, (num, 1, 1))
    truth = decode(fitter(seen, relative, cameras), model, K)
    seen, relative = seen + rng.normal(0, NOISE_PX, seen.shape), relative + rng.normal(0, NOISE_M, joints.shape)
    return decode(fitter(seen, relative, cameras), model, K), np.stack([hand.joints_cam_m for hand in truth])


def tracks_of(video: Path) -> tuple[dict[int, list[tuple[float, Hand]]], HandModel | None, float]:
    """Times and raw hands of every track of a video, the model that decodes them, frames a second."""
    from utnet.detect import LandmarkTracker
    from utnet.io.videos import VideoReader
    from utnet.predict import Predictor

    predictor = Predictor(method="fit")
    tracker = LandmarkTracker(predictor.detector)
    tracks: dict[int, list[tuple[float, Hand]]] = {}
    with VideoReader(video) as reader:
        for frame in reader:
            for hand in predictor.from_detections(frame.rgb, tracker(frame.rgb)):
                assert hand.track is not None
                tracks.setdefault(hand.track, []).append((frame.time_s, hand))
        return tracks, predictor.hand, reader.fps


def smooth(frames: list[tuple[float, Hand]], fps: float, model: HandModel | None) -> tuple[list[Hand], float]:
    """A track smoothed, and milliseconds of processor time a frame."""
    smoother = HandSmoother(fps, hand=model)
    start = time.process_time()
    out = [smoother([hand], time_s)[0] for time_s, hand in frames]
    return out, 1000 * (time.process_time() - start) / len(frames)


def jitter_mm(joints_m: np.ndarray) -> float:
    """Mean acceleration of (T, 21, 3) joints, mm a frame squared."""
    return 1000 * float(np.linalg.norm(np.diff(joints_m, 2, axis=0), axis=-1).mean())


def lag_frames(late: np.ndarray, early: np.ndarray) -> float:
    """By how many frames `late` comes after `early`, (T, 21, 3) both, by their normalised cross-correlation."""

    def correlation(shift: int) -> float:
        if shift < 0:
            a, b = late[:shift], early[-shift:]
        else:
            a, b = late[shift:], early[: len(early) - shift]
        a, b = a - a.mean(0), b - b.mean(0)
        return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))

    shifts = range(-_MAX_SHIFT, _MAX_SHIFT + 1)
    values = [correlation(shift) for shift in shifts]
    best = min(max(int(np.argmax(values)), 1), len(values) - 2)
    left, middle, right = values[best - 1 : best + 2]
    return shifts[best] + 0.5 * (left - right) / (left - 2 * middle + right)


def joints_of(hands: list[Hand]) -> np.ndarray:
    return np.stack([hand.joints_cam_m for hand in hands])


def error_mm(joints_m: np.ndarray, truth: np.ndarray) -> float:
    """Mean error of (T, 21, 3) joints relative to the wrist."""
    difference = joints_m - truth
    return 1000 * float(np.linalg.norm(difference - difference[:, :1], axis=-1).mean())


def compare(raw: list[Hand], out: list[Hand], truth: np.ndarray | None = None) -> dict[str, float]:
    """The numbers of one track; those of the truth only where it is known."""
    a, b = joints_of(raw), joints_of(out)
    row = {"jitter_raw": jitter_mm(a), "jitter": jitter_mm(b)}
    if truth is None or jitter_mm(truth) > 1e-3:  # a still hand has no lag
        row["lag"] = lag_frames(b, a)
    if truth is not None:
        if "lag" in row:
            row["true_lag"] = lag_frames(b, truth)
        K = raw[0].K_px
        row |= {"jitter_true": jitter_mm(truth), "error_raw": error_mm(a, truth), "error": error_mm(b, truth)}
        row |= {
            f"px_{name}": float(np.linalg.norm(project(x, K) - project(truth, K), axis=-1).mean())
            for name, x in (("raw", a), ("smooth", b))
        }
    return row


_COLUMNS = {
    "jitter_raw": "raw", "jitter": "smooth", "ratio": "ratio", "m_s2": "m/s^2", "jitter_true": "true", "lag": "lag",
    "true_lag": "true lag", "error_raw": "raw mm", "error": "mm", "px_raw": "raw px", "px_smooth": "px",
}  # fmt: skip


def show(name: str, row: dict[str, float], fps: float) -> None:
    """One line of the table."""
    row = row | {"ratio": row["jitter"] / row["jitter_raw"], "m_s2": row["jitter"] * fps**2 / 1000}
    print(f"{name:22s}" + "".join(f"{row[key]:9.2f}" if key in row else f"{'-':>9s}" for key in _COLUMNS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--video", type=Path, help="a video with hands, measured as well")
    parser.add_argument("--seconds", type=float, default=6.0, help="of each synthetic motion")
    parser.add_argument("--seeds", type=int, default=4, help="synthetic hands of each speed")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model, result, spent = HandModel.open(), {}, []
    fitter = HandFitter(model)
    print(f"{'':22s}{'jitter, mm/frame^2':>45s}{'frames':>18s}{'error':>36s}")
    print(f"{'':22s}" + "".join(f"{title:>9s}" for title in _COLUMNS.values()))
    for name, key_s in KEY_S.items():
        rows = []
        for seed in range(args.seeds):
            num = int(args.seconds * FPS)
            raw, truth = synthetic(fitter, model, np.random.default_rng(seed), key_s, num)
            out, ms = smooth([(i / FPS, hand) for i, hand in enumerate(raw)], FPS, model)
            spent.append(ms)
            rows.append(compare(raw, out, truth))
        result[name] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
        show(f"{name} ({args.seeds} hands)", result[name], FPS)
    if args.video:
        tracks, hand, fps = tracks_of(args.video)
        for number, frames in tracks.items():
            if len(frames) >= fps:
                out, _ = smooth(frames, fps, hand)
                title = f"{args.video.name[:12]} track {number}"
                result[title] = compare([raw for _, raw in frames], out)
                show(title, result[title], fps)
    print(f"{np.median(spent):.2f} ms of processor time a hand a frame, decoding included")
    rounded = {name: {key: round(value, 3) for key, value in row.items()} for name, row in result.items()}
    print(json.dumps({"benchmark": "video", "ms_per_hand": round(float(np.median(spent)), 2), **rounded}))


if __name__ == "__main__":
    main()
