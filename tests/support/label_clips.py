"""Pictures and a detector for the labelling of pictures."""

import json

import cv2
import numpy as np

from utnet.conventions import SIDES
from utnet.detect import Detection
from utnet.detect.landmark import Landmarks
from utnet.geometry import box_of, mirror_points, project
from utnet.synth import SyntheticHands

SEEN = SyntheticHands(seed=0, size_px=256, jitter=False)[9]
"""A drawn right hand that the detector finds."""


def seen(side="right", shift=0.0, score=1.0, scale=1.0):
    """What a detector would say that sees a drawn hand as it is: picture and detection."""
    sample = SEEN
    joints = (project(sample.joints_cam_m, sample.K_px) - 128) * scale + 128 + [shift, 0]
    rgb, metres = sample.rgb, sample.joints_cam_m - sample.joints_cam_m.mean(0)
    if side == "left":
        rgb, metres = np.ascontiguousarray(rgb[:, ::-1]), mirror_points(metres)
        joints = np.stack([255 - joints[:, 0], joints[:, 1]], 1)
    return rgb, Detection(side, score, box_of(joints), joints, metres)


class Drawn:
    """Instead of the detector: it sees the drawn hand where the picture has it, and in its mirror image."""

    def __init__(self, **_):
        self.seen = {side: seen(side) for side in SIDES}

    def __call__(self, image_rgb):
        return [hand for rgb, hand in self.seen.values() if self._same(image_rgb, rgb)]

    def _same(self, a, b):
        return a.shape == b.shape and np.abs(a.astype(int) - b).mean() < 12

    def _as_landmarks(self, hand):
        return Landmarks(hand.joints_px, hand.joints_m, hand.score, float(hand.side == "right"))

    def find(self, image_rgb, *, quick=False, known=()):
        return [self._as_landmarks(hand) for hand in self(image_rgb)]

    def follow(self, image_rgb, joints_px):
        return next(iter(self.find(image_rgb)), None)


def pictures(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        cv2.imwrite(str(folder / name), seen("left" if "left" in name else "right")[0][..., ::-1])
    return folder


def read(out):
    return [json.loads(line) for line in (out / "hands.jsonl").read_text().splitlines()]
