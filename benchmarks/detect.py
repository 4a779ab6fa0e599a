"""Hands found and missed, their sides, false alarms and CPU time: `python benchmarks/detect.py [--real DIR]`.

Drawn pictures with a hand, two folded ones, long ones, small hands, boxes in turned pictures; real ones counted
by eye. A hand is found where joints are within a fifth of its box (drawn), or a box is at the same place
(real). `--stages` prints what each network costs instead, in pictures of 640x480 and 1920x1080 with two drawn hands.
On a busy machine only CPU times mean something.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np
from detect_pictures import (
    Picture,
    Truth,
    drawn_hands,
    folded_hands,
    landscapes,
    panorama,
    real_pictures,
    sign_digits,
    small,
    tall,
    turned,
)

from utnet.detect import Detection, HandDetector, LandmarkTracker
from utnet.detect.detection import SIDE_DOUBT_BELOW
from utnet.detect.landmark import LandmarkNetwork
from utnet.detect.palm import PalmDetector
from utnet.detect.regions import region_of_landmarks
from utnet.detect.ssd import SSDHandDetector
from utnet.geometry import normalized_distance_percent
from utnet.predict import Hand, Predictor
from utnet.synth import SyntheticHands


def measure(name: str, call: Callable[[], object], *, repeats: int = 30) -> None:
    call()
    cpu, wall = [], []
    for _ in range(repeats):
        started = time.process_time(), time.perf_counter()
        call()
        cpu.append(time.process_time() - started[0])
        wall.append(time.perf_counter() - started[1])
    print(f"{name:42s} {np.median(cpu) * 1e3:7.1f} CPU {np.median(wall) * 1e3:7.1f} wall")


def measure_picture(hands: np.ndarray, size_wh: tuple[int, int], threads: int | None) -> None:
    """Every stage on a grey picture with the drawn hands."""
    width, height = size_wh
    detector = HandDetector(threads=threads)
    palm, landmark, second = (cls() for cls in (PalmDetector, LandmarkNetwork, SSDHandDetector))
    picture = np.full((height, width, 3), 128, np.uint8)
    large = cv2.resize(hands, None, fx=height / 480, fy=height / 480)
    picture[: large.shape[0], : large.shape[1]] = large
    found = detector(picture)
    region = region_of_landmarks(found[0].joints_px)
    print(f"{width}x{height}, {len(found)} hands")
    measure("  palm detector, whole picture", lambda: palm(picture))
    measure("  landmark network, one region", lambda: landmark(picture, region))
    measure("  second detector", lambda: second(picture))
    measure("  HandDetector", lambda: detector(picture))
    measure("  HandDetector, quick look", lambda: detector.find(picture, quick=True))
    tracker = LandmarkTracker(detector)
    measure("  LandmarkTracker, 30 frames", lambda: [tracker(picture) for _ in range(30)], repeats=3)


def is_hand(truth: Truth, detection: Detection) -> bool:
    """Whether a detection is a known hand: joints within a fifth of the box, or a box at the same place."""
    if truth.joints_px is not None:
        return float(normalized_distance_percent(truth.joints_px, detection.joints_px).mean()) < 20
    size, found = (float((box[2:] - box[:2]).max()) for box in (truth.box_px, detection.box_px))
    apart = (truth.box_px[:2] + truth.box_px[2:] - detection.box_px[:2] - detection.box_px[2:]) / 2
    return bool(np.abs(apart).max() < 0.25 * size and 0.5 < found / size < 2)


def count(name: str, pictures: Iterable[Picture], detector: HandDetector) -> None:
    """A row: pictures, hands, found, wrong side, wrong side of those without doubt, extra, CPU ms a picture."""
    counts = np.zeros(5, int)
    spent = []
    for picture in pictures:
        started = time.process_time()
        left = detector(picture.rgb)
        spent.append(time.process_time() - started)
        for truth in picture.hands:
            near = [detection for detection in left if is_hand(truth, detection)]
            best = min(near, key=lambda detection: detection.side != truth.side, default=None)
            counts[0] += 1
            if best is not None:
                wrong = truth.side is not None and best.side != truth.side
                counts[1:4] += [1, wrong, wrong and not best.doubts]
                left = [detection for detection in left if detection is not best]
        counts[4] += len(left)
    hands, found, wrong, certain, extra = counts
    print(
        f"{name:18s} {len(spent):5d} pictures {hands:5d} hands {found:5d} found {wrong:4d} wrong side "
        f"({certain} without doubt) {extra:4d} extra {1e3 * np.mean(spent):6.0f} ms",
        flush=True,
    )


InBox = Callable[[np.ndarray, list[float]], Detection | Hand]


def by_detector(detector: HandDetector) -> InBox:
    return lambda rgb, box: detector.in_boxes(rgb, [box])[0]


def by_network() -> InBox:
    predictor = Predictor(method="network")
    return lambda rgb, box: predictor(rgb, boxes=[box])[0]


def count_boxes(name: str, pictures: list[Picture], detector: HandDetector, in_box: InBox, num_angles: int) -> None:
    """Sides of hands in boxes, of pictures turned to `num_angles` angles, of those that are found unboxed; and how
    often a side is right by its stated probability."""
    rows = []
    for picture in pictures:
        (truth,) = picture.hands
        unboxed = [detection for detection in detector(picture.rgb) if is_hand(truth, detection)]
        if not unboxed:
            continue
        for k in range(num_angles):
            view = turned(picture, k * 360 / num_angles)
            hand = in_box(view.rgb, view.hands[0].box_px.tolist())
            rows.append((k, hand.side == truth.side, unboxed[0].side == truth.side, hand.side_probability))
    angle, ok, before, probability = np.array(rows, float).T
    by_angle = [ok[angle == k].mean() for k in range(num_angles)]
    print(
        f"{name}, boxes at {num_angles} angles: side right {ok.mean():.3f} (worst angle {min(by_angle):.3f}; unboxed "
        f"{before.mean():.3f}; without doubt {ok[probability >= SIDE_DOUBT_BELOW].mean():.3f}), {len(rows)} boxes"
    )
    for low, high in ((0.5, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 1.0)):
        here = (probability >= low) & (probability < high)
        if here.any():
            print(f"  stated {probability[here].mean():.3f}: right {ok[here].mean():.3f} of {here.sum()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--stages", action="store_true", help="times of the stages only")
    parser.add_argument("--num", type=int, default=50, help="drawn pictures")
    parser.add_argument("--seed", type=int, default=4_100_007)
    parser.add_argument("--angles", type=int, default=24)
    parser.add_argument("--real", type=Path, help="the folder of real pictures (shared/real)")
    parser.add_argument("--panorama", type=Path, help="pano_6000x1000.jpg (shared/cases)")
    parser.add_argument("--digits-every", type=int, default=20)
    args = parser.parse_args()
    if args.stages:
        source = SyntheticHands(seed=0, size_px=256, jitter=False)
        hands = np.concatenate([source[9].rgb, source[20].rgb], 1)
        for size_wh in ((640, 480), (1920, 1080)):
            measure_picture(hands, size_wh, args.threads)
        return
    detector = HandDetector(threads=args.threads)
    if args.real:
        count("real", real_pictures(args.real), detector)
        count("landscapes", landscapes(args.real), detector)
        count("sign digits", sign_digits(args.real, args.digits_every), detector)
    if args.panorama:
        count("panorama", [panorama(args.panorama)], detector)
    drawn = list(drawn_hands(args.num, args.seed))
    count("drawn", drawn, detector)
    count("folded", folded_hands(args.num, args.seed), detector)
    count("tall", [tall(*pair) for pair in zip(drawn[:10:2], drawn[1:10:2], strict=True)], detector)
    rng = np.random.default_rng(args.seed)
    for hand_px in (30, 50, 90):
        count(f"small, {hand_px} px", [small(picture, hand_px, rng) for picture in drawn[:20]], detector)
    for name, in_box in (("detector", by_detector(detector)), ("with the network", by_network())):
        count_boxes(name, drawn, detector, in_box, args.angles)


if __name__ == "__main__":
    main()
