"""`Predictor`: a picture in, hands in the picture's camera out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from utnet.checkpoint import shipped_weights
from utnet.conventions import SIDES
from utnet.data.prompts import DETECTOR_CONFIDENCE, LEAST_PRESENCE
from utnet.data.transforms import to_right
from utnet.detect import Detection, HandDetector
from utnet.errors import InputError
from utnet.geometry import apart_percent, mirror_params, mirror_points, project
from utnet.io.pictures import Picture, read_picture
from utnet.predict.checks import check_box, checked_depth, checked_image, choose_camera, depth_in_reach
from utnet.predict.confidence import kind_of, score
from utnet.predict.evidence import evidence_of
from utnet.predict.fitting import BothLifter, FitLifter
from utnet.predict.given_landmarks import box_of_landmarks, checked_landmarks
from utnet.predict.hand import Hand
from utnet.predict.lifting import Lifter, RightHands
from utnet.predict.method import METHODS, Method, choose
from utnet.predict.network import NetworkLifter
from utnet.types import Sample


class Predictor:
    """Hands from pictures: found, lifted to meshes and placed in the picture's camera.

    Calls from several threads at once are safe.

    Args:
        weights: a checkpoint folder such as RUN/best, a file of `utnet export`, or the name of a network that ships
            with the package, such as "ti"; None: that one, where it ships.
        method: "network" (trained weights), "fit" (a hand model fitted to the detector's landmarks; it needs none),
            "both" (the network's hand, fitted to the landmarks) or "auto": the network alone where weights are named,
            else both with the one that ships, and the fit where none does or MANO is to be fitted.
        device: of the network: "auto", "cpu", "cuda", ...
        mano: the folder of your MANO_RIGHT.pkl, which `fit` then fits instead of the open hand.
        prompts: give the landmarks to a network that was trained with them.

    Attributes:
        method: "both", "network" or "fit".
        weights: where the network's are from, a path or a shipped network's name; None for the fit.
        hand_model: "open" or "mano", which decodes the parameters.
        hand: that model of the right hand; left hands are decoded by its mirror image. None for a network that was
            exported with MANO's numbers, which no longer stand by themselves.

    Raises:
        InputError: no weights for the network, damaged ones, or weights or MANO for a method that does not take them.
    """

    def __init__(
        self,
        weights: str | Path | None = None,
        *,
        method: Method = "auto",
        device: str = "auto",
        mano: str | Path | None = None,
        prompts: bool = True,
    ):
        if method not in METHODS:
            raise InputError(f"method is {method!r}; expected {', '.join(METHODS[:-1])} or {METHODS[-1]}")
        self._lift = _lifter(weights, method, device, mano, prompts)
        self.weights = self._lift.weights
        self.method, self.hand, self.hand_model = self._lift.name, self._lift.hand, self._lift.hand_model
        faces = self._lift.faces
        self._faces = {"right": faces, "left": faces[:, ::-1]}  # mirrored faces turn over
        self._detector: HandDetector | None = None
        self._lock = threading.Lock()

    @property
    def detector(self) -> HandDetector:
        """The hand detector, loaded on first use."""
        with self._lock:
            if self._detector is None:
                self._detector = HandDetector()
            return self._detector

    def __call__(
        self,
        image: np.ndarray | Picture | str | Path,
        depth_m: np.ndarray | None = None,
        K_px: np.ndarray | None = None,
        boxes: Sequence[Sequence[float]] | np.ndarray | None = None,
        sides: Sequence[str] | None = None,
        landmarks_px: Sequence[np.ndarray] | None = None,
    ) -> list[Hand]:
        """The hands of a picture: those that the detector finds, best first, or one for each box, in the boxes' order.

        Args:
            image: a file, a `Picture` of `utnet.io.pictures.read_picture`, or (H, W, 3) uint8 RGB.
            depth_m: (H, W) metres aligned to the image, 0 or NaN where there is no reading.
            K_px: (3, 3) intrinsics of the image; None: the picture's own (EXIF), and where there are none, or of an
                array, f = the longer side, centred.
            boxes: tight boxes x0, y0, x1, y1 in pixels, at least partly in the picture; None: detect hands.
            sides: "right" or "left" for each box; None: as the landmarks say.
            landmarks_px: (21, 2) or (21, 3) for each hand: x, y in pixels, OpenPose-21, NaN for a joint that is not
                given, and its confidence (1, the default: a person placed it; another program's 0.5 or less). They take
                the place of the detector's. Without boxes these are drawn round them.

        Returns:
            An empty list where no hand is found.

        Raises:
            InputError: a file that cannot be read, an empty box, a camera that is none, depth of another size or unit,
                or depth for a picture that EXIF data turn.
        """
        picture = read_picture(image) if isinstance(image, str | Path) else image
        rgb, K = _seen_by(picture, K_px, with_depth=depth_m is not None)
        given = None if landmarks_px is None else [checked_landmarks(points) for points in landmarks_px]
        if given is not None and boxes is None:
            boxes = np.stack([box_of_landmarks(points) for points in given])
        if boxes is None:
            if sides is not None:
                raise InputError("sides are given without boxes; give a box for each, or neither")
            detections = self.detector(rgb)
        else:
            detections = self._in_boxes(rgb, boxes, sides)
        if given is not None:
            if not self._lift.needs_landmarks:
                raise InputError(f"{self.weights}: takes no landmarks; take the method both, or weights with prompts")
            if len(given) != len(detections):
                raise InputError(f"landmarks of {len(given)} hands for {len(detections)} boxes; give one for each")
            detections = [_with_landmarks(*pair) for pair in zip(detections, given, strict=True)]
        return self._lifted(rgb, detections, depth_m, K)

    def from_detections(
        self,
        image: np.ndarray | Picture,
        detections: Sequence[Detection],
        depth_m: np.ndarray | None = None,
        K_px: np.ndarray | None = None,
    ) -> list[Hand]:
        """One hand for each detection, in their order: of `detector`, or of a tracker through a video.

        Image, depth and camera are as in `__call__`. Where depth puts some of several detections out of a hand's reach,
        these are lifted without it.
        """
        rgb, K = _seen_by(image, K_px, with_depth=depth_m is not None)
        return self._lifted(rgb, detections, depth_m, K)

    def _lifted(
        self, rgb: np.ndarray, detections: Sequence[Detection], depth_m: np.ndarray | None, K: np.ndarray
    ) -> list[Hand]:
        if depth_m is not None:
            depth_m = checked_depth(depth_m, rgb.shape)
        if not detections:
            return []
        depths: list[np.ndarray | None] = [depth_m] * len(detections)
        if depth_m is not None:
            in_reach = depth_in_reach(depth_m, np.array([detection.box_px for detection in detections]))
            depths = [depth_m if ok else None for ok in in_reach]
        pairs = zip(depths, detections, strict=True)
        rights = self._lift([to_right(_sample(rgb, depth, K, detection)) for depth, detection in pairs])
        return [self._hand(rights, i, detection, depths[i], K) for i, detection in enumerate(detections)]

    def _in_boxes(
        self, image_rgb: np.ndarray, boxes: Sequence[Sequence[float]] | np.ndarray, sides: Sequence[str] | None
    ) -> list[Detection]:
        """The user's boxes as detections, with the landmarks in them: whatever the method, they tell whether there is a
        hand."""
        height, width = image_rgb.shape[:2]
        for box in boxes:
            check_box(box, width, height)
        if sides is not None and (len(sides) != len(boxes) or not set(sides) <= set(SIDES)):
            raise InputError(f"{len(sides)} sides for {len(boxes)} boxes: {list(sides)}; give right or left for each")
        corners = np.asarray(boxes, float).reshape(-1, 4)
        found = self.detector.in_boxes(image_rgb, corners.tolist(), sides)
        return [replace(detection, box_px=box) for detection, box in zip(found, corners, strict=True)]

    def _hand(
        self, rights: RightHands, i: int, detection: Detection, depth_m: np.ndarray | None, K: np.ndarray
    ) -> Hand:
        """The i-th of the lifted hands on its own side."""
        joints, vertices, params = rights.joints_cam_m[i], rights.vertices_cam_m[i], rights.params.map(lambda a: a[i])
        if detection.side == "left":  # the one place where predictions are mirrored back
            joints, vertices, params = mirror_points(joints), mirror_points(vertices), mirror_params(params)
        joints_px = project(joints, K)
        known = np.isfinite(detection.joints_px).all(1)
        apart = apart_percent(detection.joints_px[known], joints_px[known]).mean() if known.any() else None
        hand = Hand(
            side=detection.side,
            score=0.0,
            box_px=np.asarray(detection.box_px, float),
            joints_cam_m=joints,
            joints_px=joints_px,
            vertices_cam_m=vertices,
            faces=self._faces[detection.side],
            params=params,
            K_px=K,
            distance_source="sensor" if rights.measured[i] else "hand_size",
            method=self.method,
            presence=float(detection.score),
            side_probability=float(detection.side_probability),
            shape_source=rights.shape_source[i],
            joint_error_mm=None if rights.joint_error_mm is None else rights.joint_error_mm[i],
            hand_model=self.hand_model,
            landmarks_percent=None if apart is None else float(apart),
            track=detection.track,
        )
        kind = kind_of(self.method, with_depth=depth_m is not None)
        evidence = evidence_of(hand, detection, rights, i, depth_m)
        return replace(hand, score=score(kind, evidence.features()), evidence=evidence)


def _lifter(weights: str | Path | None, method: Method, device: str, mano: str | Path | None, prompts: bool) -> Lifter:
    way = choose(method, weights, mano)
    if way == "fit":
        if weights is not None:
            raise InputError(f"{weights}: the method fit takes no weights; leave them out, or take the method network")
        return FitLifter(mano=mano)
    if mano is not None:
        raise InputError(f"mano {mano}: a network has a hand of its own; MANO goes with the method fit")
    found = shipped_weights() if weights is None else weights
    if found is None:
        raise InputError("no weights ship with this version; give a checkpoint (weights RUN/best), or the method fit")
    network = NetworkLifter(found, device=device, prompts=prompts)
    return BothLifter(network) if way == "both" else network


def _seen_by(
    image: np.ndarray | Picture, K_px: np.ndarray | None, *, with_depth: bool
) -> tuple[np.ndarray, np.ndarray]:
    """A picture's pixels, and its camera: the given one, else its own, else the default."""
    if not isinstance(image, Picture):
        return checked_image(image), choose_camera(image, K_px)[0]
    if with_depth and image.turned:
        raise InputError("EXIF data turn this picture, and depth has no such mark; save it upright first")
    return checked_image(image.rgb), choose_camera(image.rgb, K_px, image.K_px)[0]


def _with_landmarks(detection: Detection, given: np.ndarray) -> Detection:
    """A detection with (21, 3) given landmarks in place of those that the detector found."""
    mine = given[:, 2] > 0
    return replace(
        detection,
        joints_px=np.where(mine[:, None], given[:, :2], detection.joints_px),
        joint_confidence=np.where(mine, given[:, 2], _detector_confidence(detection)),
    )


def _detector_confidence(detection: Detection) -> np.ndarray:
    """(21,) of the detector's landmarks, as in training."""
    known = np.isfinite(detection.joints_px).all(1)
    return np.where(known, DETECTOR_CONFIDENCE * np.clip(detection.score, LEAST_PRESENCE, 1.0), 0.0)


def _sample(image_rgb: np.ndarray, depth_m: np.ndarray | None, K_px: np.ndarray, detection: Detection) -> Sample:
    """A detection as a Sample: it goes through the same mirror and the same crop as labelled ones."""
    known = np.isfinite(detection.joints_px).all(1).astype(np.float32)
    confidence = detection.joint_confidence
    return Sample(
        key=f"box {detection.box_px}",
        rgb=image_rgb,
        K_px=K_px,
        side=detection.side,
        box_px=np.asarray(detection.box_px, float),
        joints_cam_m=detection.joints_m,
        joints_2d_conf=_detector_confidence(detection) if confidence is None else confidence,
        joints_3d_conf=known,
        depth_m=depth_m,
        joints_px=detection.joints_px,
    )
