"""Every hand of some pictures as each method sees it: python examples/compare_on_pictures.py PICTURES...

Four columns a hand on one sheet: its part of the picture, the fit (--method fit), the network alone, and both. Of
videos every so-many frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np

from utnet import Predictor
from utnet.io.pictures import read_picture
from utnet.io.videos import VideoReader
from utnet.predict import Hand
from utnet.predict.inputs import find_inputs
from utnet.render.drawing import contact_sheet, draw_skeleton, label, overlay_mesh, save_picture

CELL_PX, WIDER = 240, 1.9


def pictures(words: list[str], every: int) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pictures."""
    for found in find_inputs(words):
        if found.kind == "video":
            with VideoReader(found.source) as video:
                for i, frame in enumerate(islice(video, 0, None, every)):
                    yield f"{found.name} {i * every}", frame.rgb
        else:
            yield found.name, read_picture(found.source).rgb


def window(hand: Hand) -> np.ndarray:
    """(2, 3) float32: the affine map of a square round the hand to a cell."""
    x0, y0, x1, y1 = hand.box_px
    scale = CELL_PX / (WIDER * max(x1 - x0, y1 - y0))
    return np.array(
        [[scale, 0, CELL_PX / 2 - scale * (x0 + x1) / 2], [0, scale, CELL_PX / 2 - scale * (y0 + y1) / 2]], np.float32
    )


def cell(image_rgb: np.ndarray, where: np.ndarray, hand: Hand | None = None) -> np.ndarray:
    """The square, with the hand drawn at the cell's size."""
    picture = cv2.warpAffine(image_rgb, where, (CELL_PX, CELL_PX), flags=cv2.INTER_AREA)
    if hand is None:
        return picture
    K = np.concatenate([where, [[0, 0, 1]]]) @ hand.K_px
    points = hand.joints_px @ where[:, :2].T + where[:, 2]
    return draw_skeleton(overlay_mesh(picture, hand.vertices_cam_m, hand.faces, K), points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="+", help="files, folders or globs")
    parser.add_argument("--weights", default="ti", help="a network that ships, or a checkpoint")
    parser.add_argument("--every", type=int, default=40, help="frames of a video from one to the next")
    parser.add_argument("--columns", type=int, default=2, help="hands beside each other")
    parser.add_argument("--out", default="compared.png")
    args = parser.parse_args()
    ways = [
        Predictor(method="fit"),
        Predictor(args.weights, method="network"),
        Predictor(args.weights, method="both"),
    ]
    cells = []
    for name, image in pictures(args.pictures, args.every):
        detections = ways[0].detector(image)
        for hands in zip(*(way.from_detections(image, detections) for way in ways), strict=True):
            where = window(hands[0])
            cells.append(label(cell(image, where), f"{name} {hands[0].side}"[-32:]))
            cells += [label(cell(image, where, hand), hand.method) for hand in hands]
    if not cells:
        parser.exit(1, "no hands were found\n")
    save_picture(args.out, contact_sheet(cells, columns=4 * args.columns))
    print(f"{args.out}: {len(cells) // 4} hands")


if __name__ == "__main__":
    main()
