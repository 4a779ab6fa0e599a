"""Your own hands as a folder that UTNet trains on: `python examples/custom_hands.py OUT_FOLDER`.

Copy `write_hands` and give it your arrays; `made_up_recordings` only stands in for them. The format is described in
docs/custom_data.md.
"""

import json
import sys
from pathlib import Path

import cv2
import numpy as np


def write_hands(folder: Path, hands: list[dict]) -> None:
    """Writes pictures, depth and `hands.jsonl`.

    Each hand is a dict: rgb (H, W, 3) uint8 and side "right" or "left"; and what you have of depth_m (H, W) metres (0:
    no reading), K (3, 3), joints_m (21, 3) in the camera (x right, y down, z forward; NaN: not labelled), joints_px
    (21, 2), box (4,) x0, y0, x1, y1 in pixels, recording (a name: validation holds out whole recordings).
    """
    (folder / "images").mkdir(parents=True)
    (folder / "depth").mkdir()
    lines = []
    for number, hand in enumerate(hands):
        line = {"image": f"images/{number:06d}.png", "side": hand["side"]}
        cv2.imwrite(str(folder / line["image"]), hand["rgb"][..., ::-1])
        if "depth_m" in hand:
            line |= {"depth": f"depth/{number:06d}.png", "depth_scale": 0.001}
            units = np.rint(hand["depth_m"] / line["depth_scale"])
            units[(units < 0) | (units > 65535)] = 0  # what does not fit is no reading
            cv2.imwrite(str(folder / line["depth"]), units.astype(np.uint16))
        if "K" in hand:
            line["K"] = np.asarray(hand["K"], float).tolist()
        if "joints_m" in hand:
            line["joints_3d"] = rows_or_null(hand["joints_m"])
        if "joints_px" in hand:
            line["joints_2d"] = rows_or_null(hand["joints_px"])
        if "box" in hand:
            line["box"] = np.asarray(hand["box"], float).tolist()
        if "recording" in hand:
            line["sequence"] = hand["recording"]
        lines.append(json.dumps(line) + "\n")
    (folder / "hands.jsonl").write_text("".join(lines), encoding="utf-8")


def rows_or_null(points: np.ndarray) -> list:
    """Rows as lists, None (null) for a joint that is not labelled."""
    return [row.tolist() if np.isfinite(row).all() else None for row in np.asarray(points, float)]


def made_up_recordings(num: int) -> list[dict]:
    """Rendered pictures of a right hand instead of yours, every second one without depth and camera."""
    from utnet.geometry import project
    from utnet.synth import SyntheticHands

    hands = []
    source = SyntheticHands(seed=1, size_px=256, num=num, jitter=False)
    for number in range(num):
        sample = source[number]
        hand = {"rgb": sample.rgb, "side": "right", "recording": f"person{number % 3}"}
        if number % 2 == 0:
            hand |= {"depth_m": sample.depth_m, "K": sample.K_px, "joints_m": sample.joints_cam_m}
        else:
            joints_px = project(sample.joints_cam_m, sample.K_px)
            joints_px[20] = np.nan  # the annotator could not see the little finger's tip
            hand["joints_px"] = joints_px
        hands.append(hand)
    return hands


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "my_hands")
    if folder.exists():
        sys.exit(f"{folder}: exists already; give a new folder")
    write_hands(folder, made_up_recordings(6))

    from utnet.data import open_source

    for split in ("train_fit", "val"):
        source = open_source("custom", folder, split=split)
        for index in range(len(source)):
            sample = source[index]
            print(f"{split}: {sample.key}, box {np.rint(sample.box_px).astype(int).tolist()}, {sample.sequence}")
    print(f"next: utnet data check custom --root {folder}, then as in docs/custom_data.md")


if __name__ == "__main__":
    main()
