"""Landmarks from a file instead of the detector: our own JSON, COCO-WholeBody's and MediaPipe's.

- Own: {"hands": [{"side": "right", "landmarks_px": [[x, y] or [x, y, confidence], ...], "box_px": [x0, y0, x1, y1]}]},
  21 entries in OpenPose's order, null for a missing joint; side and box are optional. Confidence 1, the default,
  means placed by a person.
- COCO-WholeBody (Jin et al. 2020): a list of annotations, or {"annotations": [...]}, with `lefthand_kpts` and
  `righthand_kpts` of 21 x, y, confidence; or `keypoints` of all 133 points, hands from 91 on, in the same order.
- MediaPipe's hand landmarker: {"hand_landmarks": [[{"x", "y"}, ...]]}, shares of the picture's width and height.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from utnet.conventions import NUM_JOINTS, SIDES
from utnet.data.prompts import DETECTOR_CONFIDENCE, LEAST_PRESENCE
from utnet.detect import Detection
from utnet.errors import BAD_TREE, InputError, first_line, shown
from utnet.predict.checks import as_numbers

if TYPE_CHECKING:
    from utnet.io.recordings import Camera

_REMEDY = "expected landmarks as described in docs/predictions.md"
_WHOLE_BODY = 133
_FIRST_OF = {"left": 91, "right": 112}
_USUAL_ERROR = 0.02
"""Of the detector's landmarks, as a share of the box's longer side."""
_FARTHEST = 10.0
"""Largest distance of a landmark from its hand's box, in longer sides of the box; fits of farther ones fail."""
_BOX_SHARE = 0.08
"""Margin of the landmarks' box, as a share of its longer side: landmarks are inside the hand."""


@dataclass(frozen=True)
class GivenHand:
    """Landmarks of one hand.

    Attributes:
        landmarks_px: (21, 3) x, y in pixels and confidence in [0, 1]; NaN and 0 for a missing joint.
        side: "right", "left", or None if not in the file.
        box_px: (4,) the file's, or None.
    """

    landmarks_px: np.ndarray
    side: str | None = None
    box_px: np.ndarray | None = None

    def rectified(self, lens: Camera) -> GivenHand:
        """Returns the hand in the picture without the lens distortion."""
        points = np.column_stack([lens.rectified_px(self.landmarks_px[:, :2]), self.landmarks_px[:, 2]])
        box = None if self.box_px is None else lens.rectified_box(self.box_px)
        return replace(self, landmarks_px=points, box_px=box)


def read_landmarks(path: str | Path, size_wh: tuple[int, int], picture: Path | None = None) -> list[GivenHand]:
    """Reads the hands of a landmark file for a picture of the given width and height.

    Args:
        path: the file.
        size_wh: width and height of the picture.
        picture: its file, whose name selects its hands in a file of several pictures (COCO-WholeBody).

    Raises:
        InputError: it cannot be read, has none of the three formats, or does not include this picture.
    """
    path = Path(path)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except BAD_TREE as error:
        raise InputError(f"{path}: not JSON ({first_line(error)}); {_REMEDY}") from error
    try:
        hands = list(_hands(_of_picture(tree, picture, path), size_wh))
    except BAD_TREE as error:
        raise InputError(f"{path}: {first_line(error)}; {_REMEDY}") from error
    if not hands:
        raise InputError(f"{path}: contains no hand; {_REMEDY}")
    return hands


def box_of_landmarks(landmarks_px: np.ndarray) -> np.ndarray:
    """(4,) box around the given joints of (21, 3), with a margin.

    Raises:
        InputError: fewer than five joints are given; a box is required.
    """
    points = landmarks_px[landmarks_px[:, 2] > 0, :2]
    if len(points) < 5:
        raise InputError(f"{len(points)} landmarks are too few to find the hand's box by; also give the box")
    low, high = points.min(0), points.max(0)
    margin = _BOX_SHARE * float((high - low).max())
    return np.concatenate([low - margin, high + margin])


def checked_landmarks(landmarks_px: Any) -> np.ndarray:
    """(21, 2) or (21, 3) -> (21, 3); NaN or confidence 0: missing.

    Raises:
        InputError: another shape, no joint, or a confidence outside [0, 1].
    """
    points = as_numbers("landmarks_px", landmarks_px)
    if points.shape not in ((NUM_JOINTS, 2), (NUM_JOINTS, 3)):
        raise InputError(f"landmarks_px has shape {points.shape}; expected (21, 2) or (21, 3) for each hand")
    confidence = points[:, 2] if points.shape[1] == 3 else np.ones(NUM_JOINTS)
    given = np.isfinite(points[:, :2]).all(1) & (confidence > 0)
    if not given.any():
        raise InputError("landmarks_px: no joint of a hand is given; leave that hand out")
    if (confidence[given] > 1).any():
        raise InputError(f"landmarks_px: a confidence is {confidence[given].max():g}; expected 0 to 1")
    points = np.where(given[:, None], points[:, :2], np.nan)
    return np.column_stack([points, np.where(given, confidence, 0.0)])


def with_landmarks(detection: Detection, given: np.ndarray) -> Detection:
    """Replaces landmarks of a detection by (21, 3) given ones.

    Where a person moved a joint (confidence 1), the detector was wrong about the finger: its other landmarks there lose
    confidence, in proportion to how far the joint was moved.

    Raises:
        InputError: a landmark is far from the box, or all of them are at one point.
    """
    mine = given[:, 2] > 0
    longer = max(detection.box_px[2] - detection.box_px[0], detection.box_px[3] - detection.box_px[1])
    points = given[mine, :2]
    far = np.maximum(detection.box_px[:2] - points, points - detection.box_px[2:]).max()
    if far > _FARTHEST * longer:
        raise InputError(f"landmarks_px: one is {far:.4g} px away from its box; give pixels of the picture")
    if len(points) > 2 and not np.ptp(points, axis=0).any():
        raise InputError(f"landmarks_px: {len(points)} joints of a hand are at one point; leave out the unknown ones")
    moved = np.linalg.norm(given[:, :2] - detection.joints_px, axis=1) / longer
    moved = np.where((given[:, 2] == 1) & np.isfinite(moved), moved, 0.0)
    finger = np.repeat(moved[1:].reshape(5, 4).max(1), 4)
    finger[::4] = 0.0  # the knuckle belongs to the palm
    doubt = 1 + np.concatenate([[0.0], finger]) / _USUAL_ERROR
    return replace(
        detection,
        joints_px=np.where(mine[:, None], given[:, :2], detection.joints_px),
        joint_confidence=np.where(mine, given[:, 2], detector_confidence(detection) / doubt),
    )


def detector_confidence(detection: Detection) -> np.ndarray:
    """(21,) of the detector's landmarks, as in training."""
    known = np.isfinite(detection.joints_px).all(1)
    return np.where(known, DETECTOR_CONFIDENCE * np.clip(detection.score, LEAST_PRESENCE, 1.0), 0.0)


def _of_picture(tree: Any, picture: Path | None, path: Path) -> Any:
    """Selects the annotations of one picture from a COCO file of several; other files are unchanged."""
    if isinstance(tree, dict) and ("hands" in tree or "hand_landmarks" in tree):
        return tree
    images, annotations = (tree.get("images", []), tree["annotations"]) if isinstance(tree, dict) else ([], tree)
    if len({annotation.get("image_id") for annotation in annotations} | {image["id"] for image in images}) < 2:
        return tree
    name = "" if picture is None else picture.name
    same_name = [image for image in images if Path(image["file_name"]).name == name]
    exact = [image for image in same_name if Path(image["file_name"]) == picture]
    chosen = exact or same_name
    if len(chosen) != 1:
        raise InputError(
            f"{path}: contains several pictures, {len(chosen)} of them named {name!r}; keep those of one picture"
        )
    return [annotation for annotation in annotations if annotation["image_id"] == chosen[0]["id"]]


def _hands(tree: Any, size_wh: tuple[int, int]) -> Iterator[GivenHand]:
    if isinstance(tree, dict) and "hands" in tree:
        for hand in tree["hands"]:
            yield _own(hand)
    elif isinstance(tree, dict) and "hand_landmarks" in tree:
        for points in tree["hand_landmarks"]:
            shares = np.array([[point["x"], point["y"]] for point in points], float)
            pixels = shares * size_wh - 0.5  # 0 and 1 are the outer edges of the picture
            yield GivenHand(checked_landmarks(np.column_stack([pixels, np.full(len(pixels), DETECTOR_CONFIDENCE)])))
    else:
        annotations = tree["annotations"] if isinstance(tree, dict) else tree
        for annotation in annotations:
            yield from _whole_body(annotation)


def _own(hand: dict) -> GivenHand:
    points = np.full((len(hand["landmarks_px"]), 3), np.nan)
    for i, point in enumerate(hand["landmarks_px"]):
        if point is not None:
            points[i] = [*point, 1.0] if len(point) == 2 else point
    side, box = hand.get("side"), hand.get("box_px")
    if side not in (None, *SIDES):
        raise ValueError(f"side is {shown(side)}, not right or left")
    return GivenHand(checked_landmarks(points), side, None if box is None else np.array(box, float).reshape(4))


def _whole_body(annotation: dict) -> Iterator[GivenHand]:
    whole = annotation.get("keypoints")
    for side, first in _FIRST_OF.items():
        numbers = annotation.get(f"{side}hand_kpts")
        if numbers is None and whole is not None and len(whole) == 3 * _WHOLE_BODY:
            numbers = whole[3 * first : 3 * (first + NUM_JOINTS)]
        if numbers is None:
            continue
        points = np.array(numbers, float).reshape(NUM_JOINTS, 3)
        if (points[:, 2] > 0).any():
            # Another program's scores have no common scale: use a detector's confidence.
            points[:, 2] = np.clip(points[:, 2], 0.0, 1.0) * DETECTOR_CONFIDENCE
            yield GivenHand(checked_landmarks(points), side)
