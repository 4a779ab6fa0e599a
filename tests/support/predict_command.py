"""`utnet predict` as a user types it, on plain pictures and videos in which a stand-in for the detector sees a hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from utnet.cli.main import main
from utnet.detect import Detection
from utnet.geometry import box_of, intrinsics, project
from utnet.hand import HandModel
from utnet.io.videos import VideoWriter

REAL = Path(__file__).parents[2].parent / "shared" / "real"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no real pictures here")
WIDTH, HEIGHT = 160, 120
K = intrinsics(160, 160, 79.5, 59.5)  # the default of that size


def hand_at(z_m=0.5, x_m=0.0):
    """A flat right hand, and what a detector sees of it."""
    eye = torch.eye(3).expand(1, 16, 3, 3)
    mesh = HandModel.open()(eye[:, :1], eye[:, 1:], torch.zeros(1, 10))
    joints = mesh.joints_m[0].double().numpy()
    joints = joints - joints.mean(0)
    joints_px = project(joints + [x_m, 0.0, z_m], K)
    return Detection("right", 0.9, box_of(joints_px), joints_px, joints)


class FakeDetector:
    """Sees a hand in pictures whose first pixel is not black, at a place that the second pixel tells."""

    calls = 0
    at_call = None  # (number, function): what happens while that picture is looked at

    def __call__(self, image_rgb):
        FakeDetector.calls += 1
        if FakeDetector.at_call and FakeDetector.calls == FakeDetector.at_call[0]:
            FakeDetector.at_call[1]()
        if not image_rgb[0, 0].any():
            return []
        return [hand_at(x_m=float(image_rgb[0, 1, 0]) / 2000)]


class FakeTracker:
    """The same hand through a video, as it jitters."""

    def __init__(self, detector, *, patience):
        self._detector, self._rng = detector, np.random.default_rng(0)

    def __call__(self, image_rgb):
        return [
            Detection(d.side, d.score, d.box_px, d.joints_px + self._rng.normal(0, 0.5, (21, 2)), d.joints_m, 3)
            for d in self._detector(image_rgb)
        ]


def picture(path, place=100, hand=True, **options):
    """A plain picture, with a hand for the fake detector or without."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    pixels[0, :2] = [[255, 0, 0], [place, 0, 0]] if hand else 0
    Image.fromarray(pixels).save(path, **options)
    return path


def video(path, frames=10, hand=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, 25.0) as writer:
        for i in range(frames):
            pixels = np.full((HEIGHT, WIDTH, 3), 200 if hand else 0, np.uint8)
            writer.write(pixels, i / 25)
    return path


def predict(*words):
    """Runs `utnet predict ...`; its exit code."""
    try:
        main(["predict", *map(str, words)])
    except SystemExit as exit_:
        return exit_.code
    return 0


def fails(capsys, *words):
    """The error line of a call that must end with exit code 2."""
    capsys.readouterr()  # of earlier calls
    assert predict(*words) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("utnet: "), lines
    return lines[0]


def read(out):
    return json.loads((out / "predictions.json").read_text())
