"""Hands as annotations of COCO-WholeBody (Jin et al. 2020): `lefthand_kpts` and `righthand_kpts`, 21 x, y, v each.

One annotation is one hand, since persons are unknown: the body's 17 keypoints and the other hand are 0. v is 2 for a
joint inside the picture and 0 outside; occlusion is not considered. Pixel (0, 0) is centred at 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import utnet
from utnet.conventions import NUM_JOINTS, SIDES
from utnet.io.atomic import write_json
from utnet.predict.formats import PredictedFrame

_BODY = 17
_CATEGORY = {"id": 1, "name": "person", "supercategory": "person"}


@contextmanager
def open_writer(path: Path) -> Iterator[CocoWriter]:
    """Opens the JSON, written at the end of the block."""
    writer = CocoWriter()
    yield writer
    write_json(path, writer.tree())


class CocoWriter:
    """Collects images and annotations."""

    def __init__(self) -> None:
        self._images, self._annotations = list[dict](), list[dict]()

    def add(self, frame: PredictedFrame) -> None:
        """Appends a picture and its hands."""
        of_video = {"frame_index": frame.index, "time_s": round(frame.time_s, 6)} if frame.is_video else {}
        self.add_image(frame.file, frame.size_px, of_video)
        for hand in frame.hands:
            box = hand.box_px
            score = {"score": round(hand.score, 4), "valid": hand.valid, "track_id": hand.track}
            self.add_hand(hand.side, hand.joints_px, np.ones(NUM_JOINTS, bool), box, score)

    def add_image(self, file: str, size_px: tuple[int, int], fields: Mapping[str, Any]) -> None:
        """Appends a picture, to which the following hands belong."""
        width, height = size_px
        head = {"id": len(self._images) + 1, "file_name": file, "width": width, "height": height}
        self._images.append({**head, **fields})

    def add_hand(
        self, side: str, joints_px: np.ndarray, labelled: np.ndarray, box_px: np.ndarray, fields: Mapping[str, Any]
    ) -> None:
        """Appends a hand of the last picture.

        Args:
            side: "right" or "left".
            joints_px: (21, 2).
            labelled: (21,) bool, which of them are known.
            box_px: (4,) x0, y0, x1, y1.
            fields: further keys of the annotation.
        """
        image = self._images[-1]
        inside = labelled & ((joints_px > -0.5) & (joints_px < [image["width"] - 0.5, image["height"] - 0.5])).all(1)
        points = np.column_stack([np.where(inside[:, None], joints_px, 0.0), np.where(inside, 2, 0)])
        box = [*box_px[:2], *(box_px[2:] - box_px[:2])]
        bbox = [round(float(value), 2) for value in box]
        annotation: dict[str, Any] = {
            "id": len(self._annotations) + 1,
            "image_id": image["id"],
            "category_id": 1,
            "iscrowd": 0,
            "bbox": bbox,
            "area": round(bbox[2] * bbox[3], 2),
            "keypoints": [0] * (3 * _BODY),
            "num_keypoints": 0,
        }
        for other in SIDES:
            own = other == side
            annotation[f"{other}hand_box"] = bbox if own else [0.0] * 4
            annotation[f"{other}hand_kpts"] = np.round(points, 3).ravel().tolist() if own else [0.0] * (3 * NUM_JOINTS)
            annotation[f"{other}hand_valid"] = own
        self._annotations.append({**annotation, **fields})

    def tree(self) -> dict[str, Any]:
        """Returns the contents of the JSON."""
        about = {"description": f"hands by UTNet {utnet.__version__}"}
        head = {"info": about, "categories": [_CATEGORY]}
        return {**head, "images": self._images, "annotations": self._annotations}


def custom_to_coco(root: str | Path, path: str | Path) -> int:
    """Writes a data set in the layout of docs/custom_data.md (as of `utnet label`) as COCO-WholeBody.

    Args:
        root: its folder.
        path: the JSON to write; `file_name` of its images is relative to `root`.

    Returns:
        The number of hands.

    Raises:
        InputError: a line or a picture cannot be read.
    """
    from utnet.data import open_source
    from utnet.geometry import project

    writer, last = CocoWriter(), None
    root = Path(root)
    lines = (root / "hands.jsonl").read_text(encoding="utf-8").splitlines() if root.is_dir() else []
    splits = {json.loads(line).get("split") or "train" for line in lines if line.strip()} or {"train"}
    for split in sorted(splits):
        source = open_source("custom", str(root), split=split)
        for i in range(len(source)):
            sample = source[i]
            image = sample.key.rpartition(":")[0]
            if image != last:
                writer.add_image(image, (sample.rgb.shape[1], sample.rgb.shape[0]), {"split": split})
                last = image
            joints = sample.joints_px
            if joints is None:
                joints = project(sample.joints_cam_m, sample.K_px)
            known = np.isfinite(joints).all(1) & (sample.joints_2d_conf > 0)
            writer.add_hand(sample.side, np.nan_to_num(joints), known, sample.box_px, {})
    write_json(path, writer.tree())
    return len(writer.tree()["annotations"])
