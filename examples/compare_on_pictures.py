"""Every hand of some pictures as each method sees it: python examples/compare_on_pictures.py PICTURES...

Four columns a hand on one sheet: its part of the picture, the fit (--method fit), the network alone, and both, each
with its score. With --outline thin outlines show where meshes leave the hand. Of videos every so-many frames.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import islice

import cv2
import numpy as np

from utnet import Predictor
from utnet.io.pictures import Picture, read_picture
from utnet.io.videos import VideoReader
from utnet.predict import Hand
from utnet.predict.inputs import find_inputs
from utnet.render.drawing import contact_sheet, draw_skeleton, label, outline_mesh, overlay_mesh, save_picture

CELL_PX, WIDER = 240, 1.9


def pictures(words: list[str], every: int) -> Iterator[tuple[str, Picture]]:
    """Names and pictures, photographs with their own cameras."""
    for found in find_inputs(words):
        if found.kind == "video":
            with VideoReader(found.source) as video:
                for i, frame in enumerate(islice(video, 0, None, every)):
                    yield f"{found.name} {i * every}", Picture(frame.rgb, None)
        else:
            yield found.name, read_picture(found.source)


def window(hand: Hand) -> np.ndarray:
    """(2, 3) float32: the affine map of a square round the hand to a cell."""
    x0, y0, x1, y1 = hand.box_px
    scale = CELL_PX / (WIDER * max(x1 - x0, y1 - y0))
    return np.array(
        [[scale, 0, CELL_PX / 2 - scale * (x0 + x1) / 2], [0, scale, CELL_PX / 2 - scale * (y0 + y1) / 2]], np.float32
    )


def cell(image_rgb: np.ndarray, where: np.ndarray, hand: Hand | None = None, *, outline: bool = False) -> np.ndarray:
    """The square, with the hand drawn at the cell's size."""
    picture = cv2.warpAffine(image_rgb, where, (CELL_PX, CELL_PX), flags=cv2.INTER_AREA)
    if hand is None:
        return picture
    K = np.concatenate([where, [[0, 0, 1]]]) @ hand.K_px
    if outline:
        return outline_mesh(picture, hand.vertices_cam_m, hand.faces, K)
    points = hand.joints_px @ where[:, :2].T + where[:, 2]
    return draw_skeleton(overlay_mesh(picture, hand.vertices_cam_m, hand.faces, K), points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pictures", nargs="+", help="files, folders or globs")
    parser.add_argument("--weights", default="ti", help="a network that ships, or a checkpoint")
    parser.add_argument("--every", type=int, default=40, help="frames of a video from one to the next")
    parser.add_argument("--columns", type=int, default=2, help="hands beside each other")
    parser.add_argument("--outline", action="store_true", help="draw outlines instead of meshes and skeletons")
    parser.add_argument("--out", default="compared.png")
    args = parser.parse_args()
    ways = [
        Predictor(method="fit"),
        Predictor(args.weights, method="network"),
        Predictor(args.weights, method="both"),
    ]
    cells = []
    for name, picture in pictures(args.pictures, args.every):
        detections = ways[0].detector(picture.rgb)
        for hands in zip(*(way.from_detections(picture, detections) for way in ways), strict=True):
            where = window(hands[0])
            cells.append(label(cell(picture.rgb, where), f"{name} {hands[0].side}"[-32:]))
            for hand in hands:
                drawn = cell(picture.rgb, where, hand, outline=args.outline)
                cells.append(label(drawn, f"{hand.method} {hand.score:.2f}"))
    if not cells:
        parser.exit(1, "no hands were found\n")
    save_picture(args.out, contact_sheet(cells, columns=4 * args.columns))
    print(f"{args.out}: {len(cells) // 4} hands")


if __name__ == "__main__":
    main()
