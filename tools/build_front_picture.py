"""Makes docs/figures/hands.jpg, the picture of README.md: python tools/build_front_picture.py --pictures DIR

Photographs above, the output of `Predictor` below. DIR contains the folders that NOTICE names the sources of; they are
not part of the project. Run it again when detector, network or fit change, and look at the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2

from utnet import Predictor
from utnet.geometry import intrinsics
from utnet.io.depth import read_depth
from utnet.io.pictures import read_picture
from utnet.predict.drawing import draw_hands
from utnet.render.drawing import contact_sheet, save_picture

SIZE_PX = 240
PHOTOGRAPHS = (  # file; left, top and side of the square that is shown, in pixels
    ("mediapipe_samples_apache2/hand_victory.jpg", (25, 250, 2950)),
    ("mediapipe_samples_apache2/gesture_recognizer_hand_thumb_up.jpg", (60, 20, 481)),
    ("tfjs_models_apache2/hands.jpg", (0, 0, 366)),
    ("keypointfusion_mit_rgbd/box.png", (720, 340, 340)),
)
DEPTH = {"keypointfusion_mit_rgbd/box.png": ("keypointfusion_mit_rgbd/box_d.png", (906.96, 906.79, 956.75, 547.23))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", default="docs/figures/hands.jpg")
    args = parser.parse_args()
    predictor = Predictor()
    shown, drawn = [], []
    for name, (left, top, side) in PHOTOGRAPHS:
        picture = read_picture(args.pictures / name)
        if name in DEPTH:
            depth, K = DEPTH[name]
            hands = predictor(picture, depth_m=read_depth(args.pictures / depth), K_px=intrinsics(*K))
        else:
            hands = predictor(picture)
        for rgb, column in ((picture.rgb, shown), (draw_hands(picture.rgb, hands), drawn)):
            square = rgb[top : top + side, left : left + side]
            column.append(cv2.resize(square, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA))
    save_picture(args.out, contact_sheet(shown + drawn, columns=len(shown)))
    print(args.out)


if __name__ == "__main__":
    main()
