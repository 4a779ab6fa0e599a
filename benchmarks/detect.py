"""What finding hands costs, by stage: `python benchmarks/detect.py [--threads N]`.

Two drawn hands in a picture of 640x480 and in one of 1920x1080. Medians of process CPU time and of wall time in ms;
on a busy machine only the CPU time means something.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import cv2
import numpy as np

from utnet.detect import HandDetector, HandTracker
from utnet.detect.landmark import LandmarkNetwork
from utnet.detect.palm import PalmDetector
from utnet.detect.regions import region_of_landmarks
from utnet.detect.second import SecondDetector
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
    palm, landmark, second = (cls(threads=threads) for cls in (PalmDetector, LandmarkNetwork, SecondDetector))
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
    tracker = HandTracker(detector)
    measure("  HandTracker, 30 frames", lambda: [tracker(picture) for _ in range(30)], repeats=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=None)
    threads = parser.parse_args().threads
    source = SyntheticHands(seed=0, size_px=256, jitter=False)
    hands = np.concatenate([source[9].rgb, source[20].rgb], 1)
    for size_wh in ((640, 480), (1920, 1080)):
        measure_picture(hands, size_wh, threads)


if __name__ == "__main__":
    main()
