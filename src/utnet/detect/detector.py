"""`HandDetector`: pictures to detected hands."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from utnet.conventions import SIDES
from utnet.detect.boxes import contained, covered, overlap
from utnet.detect.detection import Detection
from utnet.detect.landmark import LandmarkNetwork, Landmarks
from utnet.detect.networks import SideBySide
from utnet.detect.palm import PalmDetector, whole
from utnet.detect.regions import Palm, Pyramid, Region, region_of_landmarks, region_of_palm
from utnet.detect.second_pass import run_second_pass
from utnet.detect.ssd import SSDHandDetector
from utnet.detect.tiles import farther, hidden, tiles
from utnet.errors import InputError
from utnet.geometry import box_of, longer_side

_PRESENT = 0.5
"""Lowest presence of a hand; none of 600 random regions of pictures without hands reaches it."""
_CONFIRMED = 0.6
"""Lowest presence of a found hand, in each of its passes: with 0.5, palms of a blurred flower led to a hand. None of
123 hands of photographs and 170 drawn ones needs less."""
_SMALLEST_PX = 14.0
"""Smallest longer side of a found hand, in pixels of the searched picture (at most `_LARGEST_PX`). Beside hands that
were masked out, parts of fingers led to hands of 9 and 11 pixels."""
_SURE_PALM = 0.5
"""Palms above this score are separate hands even where they overlap another hand; weaker candidates are hints."""
_SURE_HINT = 0.85
"""Lowest presence of a hand found by a hint."""
_BOX_SCALE = 1.6
"""Side of the searched region over the longer side of a hand's tight box."""
_BOX_PALM = 0.3
"""Lowest score of a palm that determines the orientation of the region of a user's box."""
_GOOD_FIT = 0.5
"""Presence times overlap above which a palm's hand is accepted for a box, without trying other orientations."""
_SECOND_LOOKS = 2
"""Number of orientations of a box, of four, that get a second pass."""
_ANY_HAND = 0.02
"""Presence that one of two adjacent orientations has for 99 of 100 hands, and for half of the places without a hand:
below it the other two are not tried."""
_TURNS = tuple(k * math.pi / 2 for k in range(4))
_FARTHER = 1.5
"""The palm detector misses hands that fill the picture: without a detection it also runs on the picture with a
margin."""
_APART = 20.0
"""Distance of two passes' landmarks, in percent of the box, above which they are not of the same hand."""
_PALM_JOINTS = (0, 5, 9, 13, 17)
_LARGEST_PX = 2048
"""Larger pictures are shrunk to this size for detection."""
_WEAK_BOX = 0.1
"""Lowest score of the second detector."""
_SURE_BOX = 0.2
"""Lowest score of a box of the second detector that is searched in four orientations."""
_SMALL, _ENLARGED = 0.15, 4.0
"""Boxes of the second detector smaller than this share of the picture are searched by the palm detector, in a square
this many times as large."""
_SAME_HAND = 0.3
"""Mean distance of landmarks, in sizes of the hand, below which two detections are one hand."""
_PART = 0.25
"""A hand inside the box of another with less than this share of its area is a part of it."""
_EXPLAINED = 0.6
"""Boxes of the second detector with more than this share inside a found hand's box are skipped."""
_WITH_ARM = 0.5
"""Intersection over the smaller box above which a large box of the second detector is a found hand's, with its forearm:
of 130 in drawn and real pictures, searched in four orientations, none led to another hand."""
_CONTAINED = 0.65
"""Intersection over the smaller box above which a hint's hand is one that was found already."""


class HandDetector:
    """Detects hands: MediaPipe's palm detector and landmark network, and a second detector for hands without a palm.

    The palm detector runs on the picture (and on tiles of a large one). Its palms and the second detector's boxes are
    candidate regions, which the landmark network accepts or rejects in two passes: in the region, and in the tighter
    region of its own landmarks. Calls from several threads at once are safe.

    Args:
        threads: in which the networks run side by side, each call in one; None: `utnet.threads.usable_threads()`, at
            most 4.

    Raises:
        InputError: a network's file is missing.
    """

    def __init__(self, *, threads: int | None = None):
        self._palms, self._landmarks = PalmDetector(), LandmarkNetwork()
        self._second = SSDHandDetector(threshold=_WEAK_BOX)
        self._calls = SideBySide(threads)

    def __call__(self, image_rgb: np.ndarray) -> list[Detection]:
        """Returns the hands of an (H, W, 3) uint8 RGB picture, best first; empty without hands.

        Raises:
            ValueError: a picture of another shape or type.
        """
        return [as_detection(hand) for hand in self.find(image_rgb)]

    def find(
        self, image_rgb: np.ndarray | Pyramid, *, quick: bool = False, known: Sequence[Landmarks] = ()
    ) -> list[Landmarks]:
        """The hands of `__call__` as `Landmarks`.

        Args:
            image_rgb: (H, W, 3) uint8.
            quick: only palms of the picture, without tiles and hints.
            known: hands of the picture, such as tracked ones, which are neither searched nor returned.
        """
        picture = Pyramid.of(image_rgb)
        height, width = picture.rgb.shape[:2]
        scale = min(1.0, _LARGEST_PX / max(height, width))
        if scale == 1:
            return _best_first(self._find(picture, quick, tiles(width, height), list(known))[len(known) :])
        size = max(round(width * scale), 1), max(round(height * scale), 1)
        x, y = size[0] / width, size[1] / height
        hands = self._find(Pyramid(picture.resized(size)), quick, (), [hand.resized(x, y) for hand in known])
        hands = [*known, *(hand.resized(1 / x, 1 / y) for hand in hands[len(known) :])]
        if not quick:
            self._search(picture, tiles(width, height), hands, known)
        return _best_first(hands[len(known) :])

    def _find(
        self, picture: Pyramid, quick: bool, squares: Iterable[Region], found: list[Landmarks]
    ) -> list[Landmarks]:
        """`found` with the other hands of a picture of at most `_LARGEST_PX`: of palms in the picture and in squares of
        it, then of palms after hiding these, then of hints (weak palms, the second detector's boxes, a hand that fills
        the picture)."""
        if quick:
            self._search(picture, [whole(picture.rgb)], found)
            return found
        second, known = self._calls.start(self._second, picture), list(found)
        weak = self._search(picture, [whole(picture.rgb)], found)
        height, width = picture.rgb.shape[:2]
        self._search(picture, squares, found, known)
        rest = Pyramid(hidden(picture.rgb, found)) if found else picture
        if found:
            self._add_hidden(rest, found)
        else:
            weak += self._search(picture, [farther(picture.rgb, _FARTHER)], found)
        for palm in weak:
            if not any(_accounts(hand, palm) for hand in found):
                self._add_hints(rest, [region_of_palm(palm)], found)
        for box, score in zip(*second(), strict=True):
            hands = [box_of(hand.joints_px) for hand in found]
            if any(covered(box, one) >= _EXPLAINED for one in hands):
                continue
            if (box[2:] - box[:2]).max() < _SMALL * max(height, width):
                self._search(rest, _turned(box, _ENLARGED)[:1], found)
            elif score >= _SURE_BOX and not any(contained(box, one) >= _WITH_ARM for one in hands):
                self._add_hints(rest, _turned(box), found)
        if not found:  # a hand that fills the picture is too large for both detectors
            self._add_hints(picture, _turned(np.array([0, 0, width, height]) - 0.5, 1.0), found)
        return found

    def _search(
        self, picture: Pyramid, squares: Iterable[Region], found: list[Landmarks], known: Sequence[Landmarks] = ()
    ) -> list[Palm]:
        """Adds the hands of confident palms in the squares to `found`; returns the other palms. Palms whose middle is
        in the box of a `known` hand are left out."""
        boxes = [box_of(hand.joints_px) for hand in known]
        seen = self._calls.map(lambda square: self._palms(picture, square), squares)
        palms = [palm for each in seen for palm in each]
        palms = [palm for palm in palms if not any(_inside(palm.box_px.reshape(2, 2).mean(0), box) for box in boxes)]
        sure = [palm for palm in palms if palm.score >= _SURE_PALM and not any(_accounts(hand, palm) for hand in found)]
        # Palms of different hands run side by side; those of one hand, in overlapping squares, one after another.
        apart = [palm for i, palm in enumerate(sure) if not any(_same_palm(palm, other) for other in sure[:i])]
        looks = self._calls.map(lambda palm: self.in_region(picture, region_of_palm(palm)), apart)
        firsts = {id(palm): hand for palm, hand in zip(apart, looks, strict=True)}
        for palm in sure:
            if not any(_accounts(hand, palm) for hand in found):
                self._add_palm(picture, palm, found, firsts)
        return [palm for palm in palms if palm.score < _SURE_PALM]

    def in_boxes(
        self, image_rgb: np.ndarray, boxes: Sequence[Sequence[float]], sides: Sequence[str] | None = None
    ) -> list[Detection]:
        """Returns one hand for each box, in their order, whatever its score (the presence of a hand).

        Args:
            image_rgb: (H, W, 3) uint8.
            boxes: tight boxes x0, y0, x1, y1 in pixels.
            sides: "right" or "left" for each box; None: predicted.

        Raises:
            InputError: an empty box, or sides that are not one for each box.
            ValueError: a picture of another shape or type.
        """
        picture = Pyramid.of(image_rgb)
        corners = np.asarray(boxes, float).reshape(-1, 4)
        for box in corners:
            if not (np.isfinite(box).all() and (box[:2] < box[2:]).all()):
                raise InputError(
                    f"box {box.tolist()} is empty or not finite; give x0,y0,x1,y1 in pixels, x0 < x1, y0 < y1"
                )
        if sides is not None and (len(sides) != len(boxes) or not set(sides) <= set(SIDES)):
            raise InputError(f"sides {list(sides)} for {len(boxes)} boxes; give right or left for each box")
        pairs = zip(corners, sides or (None,) * len(boxes), strict=True)
        return [as_detection(self._in_box(picture, box, side), side=side) for box, side in pairs]

    def follow(self, picture: np.ndarray | Pyramid, joints_px: np.ndarray) -> Landmarks | None:
        """Returns the hand near the landmarks (21, 2) of the previous frame, or None."""
        hand = self._landmarks(picture, region_of_landmarks(joints_px))
        return hand if hand.presence >= _PRESENT else None

    def in_region(self, picture: np.ndarray | Pyramid, region: Region) -> Landmarks | None:
        """Returns the hand in a region after a second pass in the region of its own landmarks, and a third if the two
        disagree; None without a hand, or if they still disagree."""
        return self._confirmed(picture, self._landmarks(picture, region))

    def _confirmed(self, picture: np.ndarray | Pyramid, first: Landmarks) -> Landmarks | None:
        """`in_region` from its first pass on."""
        if first.presence < _CONFIRMED:
            return None
        for _ in range(2):
            hand = run_second_pass(self._landmarks, picture, first)
            if hand.presence < _CONFIRMED or longer_side(hand.joints_px) < _SMALLEST_PX:
                return None
            if hand.agreement is not None and hand.agreement <= _APART:
                return hand
            first = hand
        return None

    def _firsts(self, picture: Pyramid, regions: Sequence[Region]) -> list[Landmarks]:
        return self._calls.map(lambda region: self._landmarks(picture, region), regions)

    def _in_box(self, picture: Pyramid, box: np.ndarray, side: str | None = None) -> Landmarks:
        """The most likely hand in a box, always with a second pass: in a region upside down the side is reversed. Palms
        in the box give the orientation; if none leads to a hand, four orientations are tried."""
        regions = [region_of_palm(palm) for palm in self._palms(picture, _turned(box)[0]) if palm.score >= _BOX_PALM]
        firsts = [self._landmarks(picture, region) for region in regions]
        hands = [self._seen_in_box(picture, box, side, first) for first in firsts]
        if max((_fit(hand, box, side) for hand in hands), default=0.0) < _GOOD_FIT:
            firsts = self._firsts(picture, _turned(box))
            firsts.sort(key=lambda hand: -_fit(hand, box, side))
            hands += [self._seen_in_box(picture, box, side, first) for first in firsts[:_SECOND_LOOKS]]
        return max(hands, key=lambda hand: _fit(hand, box, side))

    def _seen_in_box(self, picture: Pyramid, box: np.ndarray, side: str | None, first: Landmarks) -> Landmarks:
        """The hand of a second pass; if that leaves the box, the first one's landmarks are kept."""
        hand = run_second_pass(self._landmarks, picture, first)
        if _fit(hand, box, side) < 0.5 * _fit(first, box, side):
            return replace(first, right=hand.right, agreement=hand.agreement)
        return hand

    def _add_palm(
        self, picture: Pyramid, palm: Palm, found: list[Landmarks], firsts: dict[int, Landmarks | None]
    ) -> None:
        """Adds the hand of a palm; `firsts` has it by the palm's id where it is known. With clasped hands the landmarks
        may drift to the other hand; then slightly rotated regions are tried."""
        region = region_of_palm(palm)
        for turn in (0.0, math.pi / 6, -math.pi / 6):
            if turn == 0 and id(palm) in firsts:
                hand = firsts[id(palm)]
            else:
                hand = self.in_region(picture, replace(region, angle_rad=region.angle_rad + turn))
            if hand and _accounts(hand, palm) and not any(_repeats(hand, other) for other in found):
                found.append(hand)
                return

    def _add_hidden(self, rest: Pyramid, found: list[Landmarks]) -> None:
        """Adds hands next to, behind and inside found ones: palms of the picture in which these are hidden, since in
        the original picture their landmarks would drift to the found hand."""
        palms = [palm for palm in self._palms(rest) if palm.score >= _SURE_PALM]
        hands = self._calls.map(lambda palm: self.in_region(rest, region_of_palm(palm)), palms)
        for palm, hand in zip(palms, hands, strict=True):
            if hand and _accounts(hand, palm) and not any(_hides(other, hand) for other in found):
                found.append(hand)

    def _add_hints(self, picture: Pyramid, regions: Sequence[Region], found: list[Landmarks]) -> None:
        """Adds hands of uncertain regions (one place in one to four orientations), the likeliest first. A first pass
        inside a found hand has no second one."""
        firsts = self._firsts(picture, regions[:2])
        if any(first.presence >= _ANY_HAND for first in firsts):
            firsts += self._firsts(picture, regions[2:])
        others = [first for first in firsts if not any(_hides(other, first) for other in found)]
        others = sorted(others, key=lambda first: -first.presence)[:_SECOND_LOOKS]
        looks = self._calls.map(lambda first: self._confirmed(picture, first), others)
        for hand in sorted((hand for hand in looks if hand), key=lambda hand: -hand.presence):
            if hand.presence >= _SURE_HINT and not any(_hides(other, hand) for other in found):
                found.append(hand)


def as_detection(
    hand: Landmarks, *, side: str | None = None, side_probability: float = 1.0, track: int | None = None
) -> Detection:
    """Converts landmarks to a detection, with the predicted side, or a given one and its probability."""
    if side is None:
        side, side_probability = "right" if hand.right >= 0.5 else "left", max(hand.right, 1 - hand.right)
    return Detection(
        side=side,
        score=hand.presence,
        box_px=box_of(hand.joints_px),
        joints_px=hand.joints_px,
        joints_m=hand.joints_m,
        track=track,
        side_probability=side_probability,
        agreement=hand.agreement,
    )


def same_hand(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two sets of landmarks (21, 2) are of one hand: their distance is small for their size."""
    size = min(float(np.sqrt(np.prod(np.ptp(joints, 0)))) for joints in (a, b))
    return float(np.linalg.norm(a - b, axis=1).mean()) < _SAME_HAND * size


def _accounts(hand: Landmarks, palm: Palm) -> bool:
    """Whether a hand is the hand of a palm: its own palm's middle lies in the palm's box."""
    return _inside(hand.joints_px[list(_PALM_JOINTS)].mean(0), palm.box_px)


def _same_palm(palm: Palm, other: Palm) -> bool:
    """Whether two palms may be of one hand: the middle of one lies in the other's box."""
    middle, other_middle = (each.box_px.reshape(2, 2).mean(0) for each in (palm, other))
    return _inside(middle, other.box_px) or _inside(other_middle, palm.box_px)


def _inside(point: np.ndarray, box: np.ndarray) -> bool:
    return bool((box[:2] < point).all() and (point < box[2:]).all())


def _repeats(hand: Landmarks, other: Landmarks) -> bool:
    """Whether a hand duplicates a found one or is a part of it (a fingertip can resemble a fist)."""
    box, found = box_of(hand.joints_px), box_of(other.joints_px)
    part = np.prod(np.ptp(hand.joints_px, 0)) < _PART * np.prod(np.ptp(other.joints_px, 0))
    return same_hand(hand.joints_px, other.joints_px) or bool(part and covered(box, found) > 0.5)


def _hides(found: Landmarks, hand: Landmarks) -> bool:
    """Whether a hint's hand may be a found one: most of one's box lies in the other's."""
    return contained(box_of(hand.joints_px), box_of(found.joints_px)) >= _CONTAINED


def _fit(hand: Landmarks, box: np.ndarray, side: str | None) -> float:
    """How well a hand matches a box given by the user: presence times overlap, less for the other side."""
    likely = {"right": hand.right, "left": 1 - hand.right, None: 1.0}[side]
    return hand.presence * overlap(box_of(hand.joints_px), box) * likely


def _turned(box: np.ndarray, scale: float = _BOX_SCALE) -> list[Region]:
    """Regions around a tight box in four orientations."""
    x, y = (float(v) for v in (box[:2] + box[2:]) / 2)
    side = float((box[2:] - box[:2]).max()) * scale
    return [Region(x, y, side, angle) for angle in _TURNS]


def _best_first(hands: Sequence[Landmarks]) -> list[Landmarks]:
    return sorted(hands, key=lambda hand: -hand.presence)
