"""Candidate hands of pictures and videos: crops, labels and agreement scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from utnet.apps.label.agreement import Limits, QualityScores
from utnet.apps.label.measure import inside, observe, second_difference
from utnet.conventions import NUM_JOINTS
from utnet.data.shards.write_shards import ShardOptions, cut
from utnet.detect import Detection, LandmarkTracker
from utnet.geometry import longer_side, normalized_distance_percent
from utnet.io.pictures import read_picture
from utnet.io.videos import VideoReader
from utnet.predict import Hand, Predictor
from utnet.predict.formats.custom import custom_line
from utnet.types import Sample

WINDOW = ShardOptions()
"""Crop of a hand: wide enough for every jittered crop, integer pixels; those above 384 px are shrunk."""
DIGITS_PX = 3


@dataclass(frozen=True)
class HandCandidate:
    """A candidate hand.

    Attributes:
        name: unique name of its picture's file.
        sample: the crop around it and its labels.
        quality: its agreement scores.
    """

    name: str
    sample: Sample
    quality: QualityScores

    @property
    def jpeg(self) -> bytes:
        """The crop's file."""
        return jpeg(self.sample.rgb)

    @property
    def line(self) -> dict:
        """Labels as a line of `hands.jsonl` without "image", "sequence" and "split"."""
        return line_of(self.sample)


def in_picture(path: Path, name: str, predictor: Predictor, limits: Limits) -> list[HandCandidate]:
    """The hands of a picture file.

    Raises:
        InputError: it cannot be read.
    """
    picture = read_picture(path)
    detections = predictor.detector(picture.rgb)
    hands = predictor.from_detections(picture.rgb, detections, None, picture.K_px)
    return [
        _candidate(f"{name}_{i}", picture.rgb, hands, detections, i, predictor, limits) for i in range(len(detections))
    ]


@dataclass
class FrameCount:
    """Number of processed frames of a video, and why some are missing, or None."""

    frames: int = 0
    incomplete: str | None = None


def in_video(
    path: Path, name: str, predictor: Predictor, limits: Limits, *, every: int, count: FrameCount
) -> Iterator[HandCandidate]:
    """The hands of every n-th frame of a video; its neighbouring frames give the jitter.

    Raises:
        InputError: its first frame cannot be decoded.
    """
    tracker = LandmarkTracker(predictor.detector)
    seen: dict[int, dict[int | None, Hand]] = {}  # by frame and track
    marks: dict[int, dict[int | None, np.ndarray]] = {}
    waiting: list[tuple[int | None, HandCandidate]] = []
    with VideoReader(path) as frames:
        for frame in frames:
            detections = tracker(frame.rgb)
            phase, at = frame.index % every, frame.index
            if phase not in (0, 1, every - 1):
                continue
            hands = predictor.from_detections(frame.rgb, detections)
            seen[at] = {hand.track: hand for hand in hands}
            marks[at] = {detection.track: detection.joints_px for detection in detections}
            for track, found in waiting:  # of the previous frame
                yield _with_jitter(found, track, at - 1, seen, marks)
            waiting = []
            if phase == 0:
                count.frames += 1
                for i, detection in enumerate(detections):
                    found = _candidate(f"{name}_{at:06d}_{i}", frame.rgb, hands, detections, i, predictor, limits)
                    waiting.append((detection.track, found))
            for old in [index for index in seen if index < at - 1]:
                del seen[old], marks[old]
        count.incomplete = frames.incomplete
    for _, found in waiting:  # of the last frame, which has no successor
        yield replace(found, quality=replace(found.quality, jitter=np.inf, jitter_mm=np.inf))


def _with_jitter(
    found: HandCandidate,
    track: int | None,
    at: int,
    seen: dict[int, dict[int | None, Hand]],
    marks: dict[int, dict[int | None, np.ndarray]],
) -> HandCandidate:
    """Adds the second differences around the frame `at`."""
    percent = mm = np.inf
    around = [at - 1, at, at + 1]
    if all(track in seen.get(index, {}) for index in around):
        px = [marks[index][track] for index in around]
        metres = [seen[index][track].joints_cam_m for index in around]
        percent = second_difference(px[0], px[1], px[2]) / longer_side(px[1]) * 100
        mm = second_difference(*(joints - joints[:1] for joints in metres)) * 1000
    return replace(found, quality=replace(found.quality, jitter=percent, jitter_mm=mm))


def _candidate(
    name: str,
    rgb: np.ndarray,
    hands: Sequence[Hand],
    detections: Sequence[Detection],
    index: int,
    predictor: Predictor,
    limits: Limits,
) -> HandCandidate:
    hand, joints_px = hands[index], detections[index].joints_px
    agrees = inside(joints_px, rgb.shape) & (normalized_distance_percent(joints_px, hand.joints_px) <= limits.joint)
    quality = observe(predictor.detector, rgb, detections, hands, index)
    sample = cut(fitted_sample(name, rgb, hand, agrees.astype(np.float32)), WINDOW)
    return HandCandidate(name, sample, quality)


def fitted_sample(name: str, rgb: np.ndarray, hand: Hand, conf_2d: np.ndarray) -> Sample:
    """A fitted hand as a labelled sample of the full picture; (21,) `conf_2d`: joints confirmed by the landmarks.

    The image points are those of the fit, consistent with its 3D joints and parameters (landmarks are up to 13 mm from
    the model's joints). All joints are labelled in 3D, since losses need the wrist.
    """
    return Sample(
        key=name,
        rgb=rgb,
        K_px=hand.K_px,
        side=hand.side,
        box_px=hand.box_px,
        joints_cam_m=hand.joints_cam_m,
        joints_2d_conf=conf_2d,
        joints_3d_conf=np.ones(NUM_JOINTS, np.float32),
        params=hand.params,
        hand_model=hand.hand_model,
        joints_px=hand.joints_px,
    )


def line_of(sample: Sample) -> dict:
    """The labels of a fitted hand in the format of docs/custom_data.md."""
    assert sample.joints_px is not None
    landmarks = {"joints_2d": rounded(sample.joints_px, DIGITS_PX), "joints_2d_conf": sample.joints_2d_conf.tolist()}
    return {**custom_line(sample), **landmarks}


def jpeg(rgb: np.ndarray) -> bytes:
    """Encodes a picture as JPEG."""
    ok, encoded = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, WINDOW.jpeg_quality])
    if not ok:
        raise RuntimeError(f"OpenCV cannot encode {rgb.shape} as JPEG")
    return encoded.tobytes()


def rounded(array: np.ndarray, digits: int) -> list:
    return np.round(np.asarray(array, float), digits).tolist()
