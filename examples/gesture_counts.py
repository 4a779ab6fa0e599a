"""How often each gesture occurs in the hands of `utnet bulk predict`: a table, and a bar chart.

    python examples/gesture_counts.py PLACE --out gestures.png

PLACE is a folder or a URL (s3://...), read by pandas. Which fingers are straight gives the gesture: a fingertip is then
farther from the wrist than the finger's middle joint, the thumb's farther from the little finger's knuckle.
"""

from __future__ import annotations

import argparse

import matplotlib
import numpy as np
import pandas

matplotlib.use("Agg")

GESTURES = {
    "00000": "fist",
    "10000": "thumb up",
    "01000": "pointing",
    "11000": "gun",
    "01100": "victory",
    "11100": "three",
    "01110": "three",
    "01111": "four",
    "11111": "open hand",
    "01001": "horns",
    "11001": "horns",
    "10001": "call me",
}
"""By the straight fingers, thumb to little finger."""
PINCH_M = 0.025
"""Thumb and index finger touch where their tips are nearer than this."""


def straight_fingers(joints_m: np.ndarray) -> np.ndarray:
    """Returns (N, 5) bool, thumb to little finger, of (N, 21, 3) joints in metres (OpenPose order)."""

    def distance(a: int, b: int) -> np.ndarray:
        return np.linalg.norm(joints_m[:, a] - joints_m[:, b], axis=-1)

    thumb = distance(4, 17) > 1.1 * distance(3, 17)
    fingers = [distance(first + 3, 0) > 1.05 * distance(first + 1, 0) for first in (5, 9, 13, 17)]
    return np.stack([thumb, *fingers], axis=1)


def gestures_of(joints_m: np.ndarray) -> list[str]:
    """Returns the name of each hand's gesture, or "other"."""
    names = [GESTURES.get("".join("01"[int(is_on)] for is_on in row), "other") for row in straight_fingers(joints_m)]
    pinch = np.linalg.norm(joints_m[:, 4] - joints_m[:, 8], axis=-1) < PINCH_M
    return [
        "pinch" if near and name in ("other", "open hand") else name for name, near in zip(names, pinch, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("place")
    parser.add_argument("--out", default="gestures.png")
    parser.add_argument("--min-score", type=float, default=0.5, help="leave out hands that are less probably right")
    options = parser.parse_args()
    hands = pandas.read_parquet(f"{options.place}/hands", columns=["side", "score", "joints_wrist_m"])
    hands = hands[hands["score"] >= options.min_score]
    joints_m = np.stack(hands["joints_wrist_m"].to_list()).reshape(-1, 21, 3)
    counts = hands.assign(gesture=gestures_of(joints_m)).groupby(["gesture", "side"]).size().unstack(fill_value=0)
    counts = counts.loc[counts.sum(axis=1).sort_values(ascending=False).index]
    print(counts)
    colors = {"right": "#4477aa", "left": "#ee7733"}
    axes = counts.plot.barh(stacked=True, figsize=(7, 0.4 * len(counts) + 1.2), color=colors)
    axes.invert_yaxis()
    axes.set(xlabel="hands", ylabel="")
    axes.figure.tight_layout()
    axes.figure.savefig(options.out, dpi=120)


if __name__ == "__main__":
    main()
