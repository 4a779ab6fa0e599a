"""Protocol of a score: the settings that change the result, reported with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utnet.errors import BAD_TREE, InputError, first_line, shown

INPUTS = {"rgb": "RGB", "rgbd": "RGB-D"}
JOINTS = {"own": "own 21", "benchmark": "benchmark's tips"}
GROUND_TRUTH, MIDDLE = "ground-truth", "middle of the picture"


@dataclass(frozen=True)
class Protocol:
    """Settings of a row of scores.

    Attributes:
        depth: the network uses the depth image, and the distance of the hand is measured from it.
        boxes: "ground-truth" (labelled or published), "middle of the picture" (FreiHAND without labels), or the name of
            a file with boxes of a detector.
        joints: "own": the 21 joints of the network's hand; "benchmark": fingertips are vertices of its MANO mesh, as in
            the benchmark.
        flips: always "none". There is no flip averaging: a flipped right hand is a left hand, which the network (for
            right hands; left ones are mirrored) is not trained on.
    """

    depth: bool
    boxes: str = GROUND_TRUTH
    joints: str = "own"
    flips: str = "none"

    @property
    def input(self) -> str:
        """ "rgb" or "rgbd"."""
        return "rgbd" if self.depth else "rgb"

    @property
    def label(self) -> str:
        """One line with all settings."""
        boxes = self.boxes if self.boxes in (GROUND_TRUTH, MIDDLE) else f"detected ({self.boxes})"
        depth = "with" if self.depth else "without"
        return f"boxes: {boxes}; joints: {JOINTS[self.joints]}; depth: {depth}; flips: {self.flips}"

    @property
    def short(self) -> str:
        """Short label for legends: the input and settings that differ from the default."""
        unusual = [] if self.boxes == GROUND_TRUTH else [f"boxes of {self.boxes}"]
        unusual += [] if self.joints == "own" else [JOINTS[self.joints]]
        return ", ".join([INPUTS[self.input], *unusual])

    def to_tree(self) -> dict[str, Any]:
        return asdict(self)


def read_boxes(path: str | Path) -> dict[str, np.ndarray]:
    """Reads boxes of a detector: JSON, sample key -> [x0, y0, x1, y1] in pixels of the full picture, or null.

    Raises:
        InputError: the file is missing or an entry is not a box.
    """
    try:
        tree = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); give a JSON file of boxes by sample key"
        ) from error
    except BAD_TREE as error:
        raise InputError(f"{path}: not JSON ({first_line(error)}); expected boxes by sample key") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path}: expected {{sample key: [x0, y0, x1, y1], ...}} in pixels of the full picture")
    boxes = {}
    for key, value in tree.items():
        if value is None:
            continue
        try:
            box = np.asarray(value, np.float64)
        except BAD_TREE:
            box = np.empty(0)
        if box.shape != (4,) or not np.isfinite(box).all() or not (box[2:] > box[:2]).all():
            key, value = shown(key), shown(value)
            raise InputError(f"{path}: {key} is {value}, expected [x0, y0, x1, y1] with x0 < x1 and y0 < y1, or null")
        boxes[key] = box
    return boxes
