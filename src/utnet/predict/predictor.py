"""`Predictor`: a picture in, hands in the picture's camera out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np

from utnet.conventions import NUM_JOINTS, SIDES
from utnet.data.transforms import to_right
from utnet.detect import Detection, HandDetector
from utnet.errors import InputError
from utnet.geometry import mirror_params, mirror_points, normalized_distance_percent, project
from utnet.predict.checks import CameraInput, ImageInput, check_box, is_camera
from utnet.predict.confidence import ALONE, error_scale, kind_of, score
from utnet.predict.evidence import evidence_of
from utnet.predict.given_landmarks import box_of_landmarks, checked_landmarks, detector_confidence, with_landmarks
from utnet.predict.hand import Hand
from utnet.predict.hands import Hands
from utnet.predict.methods.base import ReconstructionMethod, RightHandBatch
from utnet.predict.methods.combined import CombinedMethod
from utnet.predict.methods.landmarks import JointLifter, LandmarkMethod
from utnet.predict.methods.network import NetworkMethod
from utnet.predict.methods.resolve import METHODS, Method, resolve_method
from utnet.predict.sides import TrackSides, is_predicted, needs_other_side, other_side, with_likelier_side
from utnet.predict.views import View, for_each, for_hands, open_view
from utnet.types import Sample
from utnet.weights import DEFAULT_NETWORK, shipped_weights

_Look: TypeAlias = tuple[View, Sequence[Detection]]
_Seen: TypeAlias = tuple[View, Detection, np.ndarray | None]
"""A detection with its picture and the depth image used for it."""
_AT_ONCE = 16
"""Number of pictures of a list in memory together."""


class Predictor:
    """Detects hands in pictures, reconstructs their meshes and places them in the picture's camera.

    Calls from several threads at once are safe.

    Args:
        weights: a checkpoint folder such as RUN/best, a file of `utnet export`, or the name of a bundled network, such
            as "ti"; None: the bundled one.
        method: "network" (trained weights), "fit" (a hand model fitted to the detector's landmarks, without weights),
            "both" (the network's hand, fitted to the landmarks) or "auto": "network" if weights are given, else "both"
            with the bundled network, and "fit" without one or with `mano`.
        device: of the network: "auto", "cpu", "cuda", ...
        mano: MANO_RIGHT.pkl or its folder, for "fit" instead of the open hand.
        prompts: pass landmarks to a network trained with prompts.

    Attributes:
        method: "both", "network" or "fit".
        weights: path or bundled name of the network; None for the fit.
        hand_model: "open" or "mano", which decodes the parameters.
        hand: that model of the right hand; left hands are decoded by its mirror image. None for a network exported
            with MANO's hand.

    Raises:
        InputError: no weights for the network, damaged ones, or weights or MANO for a method that does not use them.
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
        self._reconstruct = _resolve(weights, method, device, mano, prompts)
        self.weights = self._reconstruct.weights
        self.method, self.hand, self.hand_model = (
            self._reconstruct.name,
            self._reconstruct.hand,
            self._reconstruct.hand_model,
        )
        lifted_here = self.weights == DEFAULT_NETWORK and self.method == "network"  # the method both lifts by itself
        self._lift = JointLifter() if lifted_here else None
        faces = self._reconstruct.faces
        self._faces = {"right": faces, "left": faces[:, ::-1]}  # mirroring reverses their orientation
        self._detector: HandDetector | None = None
        self._lock = threading.Lock()

    @property
    def detector(self) -> HandDetector:
        """The hand detector, loaded on first use."""
        with self._lock:
            if self._detector is None:
                self._detector = HandDetector()
            return self._detector

    @property
    def takes_landmarks(self) -> bool:
        """Whether `landmarks_px` can be given: a network alone needs to be trained with them."""
        return self._reconstruct.needs_landmarks

    @overload
    def __call__(
        self,
        image: ImageInput,
        depth_m: np.ndarray | None = None,
        K_px: CameraInput | None = None,
        boxes: Sequence[Sequence[float]] | np.ndarray | None = None,
        sides: Sequence[str] | None = None,
        landmarks_px: Sequence[np.ndarray] | None = None,
    ) -> Hands: ...
    @overload
    def __call__(
        self,
        image: list[Any] | tuple[Any, ...],
        depth_m: Sequence[np.ndarray | None] | None = None,
        K_px: CameraInput | Sequence[CameraInput | None] | None = None,
        boxes: Sequence[Any] | None = None,
        sides: Sequence[Sequence[str] | None] | None = None,
        landmarks_px: Sequence[Any] | None = None,
    ) -> list[Hands]: ...
    def __call__(
        self,
        image: Any,
        depth_m: Any = None,
        K_px: Any = None,
        boxes: Any = None,
        sides: Any = None,
        landmarks_px: Any = None,
    ) -> Hands | list[Hands]:
        """Returns the hands of a picture: detected ones, by presence, or one for each box, in their order.

        Args:
            image: a file, (H, W, 3) uint8 RGB, a `Picture` (`utnet.read_picture`) or a Pillow image; or a list or tuple
                of these, for which the other arguments are None or lists with one entry (or None) for each picture
                (or one `K_px` for all). Pictures of a list are processed in batches, with the same result.
            depth_m: (H, W) metres aligned to the image, 0 or NaN: no reading.
            K_px: (3, 3) intrinsics of the image, or fx, fy, cx, cy; None: the picture's own (EXIF), else f = the longer
                side, centred.
            boxes: tight boxes x0, y0, x1, y1 in pixels, at least partly in the picture; None: detect hands.
            sides: "right" or "left" for each box; None: predicted.
            landmarks_px: (21, 2) or (21, 3) for each hand, in place of the detector's: x, y in pixels, OpenPose-21, NaN
                for a missing joint, and its confidence (1, the default: placed by a person; 0.5 or less: another
                program's). Without boxes, these are derived from the landmarks.

        Returns:
            `Hands`, empty if no hand is found; for a list of pictures, a list of them.

        Raises:
            InputError: a picture that cannot be read, an empty box, an invalid camera, depth of another size or unit,
                or depth for a picture that is rotated by EXIF data.
        """
        if not isinstance(image, list | tuple):
            view = open_view(image, K_px, depth_m)
            return self._predict([(view, self._detect(view, boxes, sides, landmarks_px))])[0]
        num = len(image)
        cameras = [K_px] * num if is_camera(K_px) else for_each("K_px", K_px, num)
        given = {"depth_m": depth_m, "boxes": boxes, "sides": sides, "landmarks_px": landmarks_px}
        columns = [for_each(name, value, num) for name, value in given.items()]
        items = list(zip(image, cameras, *columns, strict=True))
        hands: list[Hands] = []
        for start in range(0, num, _AT_ONCE):
            looks = [self._look(i, *items[i]) for i in range(start, min(start + _AT_ONCE, num))]
            hands += self._predict(looks)
        return hands

    def from_detections(
        self,
        image: ImageInput,
        detections: Sequence[Detection],
        depth_m: np.ndarray | None = None,
        K_px: CameraInput | None = None,
        *,
        track_sides: TrackSides | None = None,
    ) -> Hands:
        """Returns one hand for each detection of `detector` or of a tracker, in their order.

        Image, depth and camera are as in `__call__`. With a network that predicts sides, a hand may have another side
        than its detection, unless that has a track or a `side_probability` of 1. If the depth of some of several
        detections is implausible for a hand, these are reconstructed without it.

        Args:
            image: the picture.
            detections: of its hands.
            depth_m: of the picture.
            K_px: of the picture.
            track_sides: of the previous frames; tracks then get the side by all evidence so far, including this frame.
        """
        return self._predict([(open_view(image, K_px, depth_m), detections)], track_sides)[0]

    def _look(self, i: int, image: Any, K_px: Any, depth_m: Any, *given: Any) -> _Look:
        """One of several pictures and its detections; errors contain its name."""
        try:
            view = open_view(image, K_px, depth_m)
            detections = self._detect(view, *given)
            view.depth_of(detections)
            return view, detections
        except InputError as error:
            name = str(image) if isinstance(image, str | Path) else f"picture {i}"
            raise InputError(str(error) if str(error).startswith(name) else f"{name}: {error}") from error

    def _detect(self, view: View, boxes: Any, sides: Sequence[str] | None, landmarks_px: Any) -> list[Detection]:
        """The detector's hands, or those in the boxes, with the given landmarks."""
        given = (
            None if landmarks_px is None else [checked_landmarks(p) for p in for_hands("landmarks_px", landmarks_px)]
        )
        if given is not None and not self._reconstruct.needs_landmarks:
            raise InputError(f"{self.weights}: does not accept landmarks; use the method both, or weights with prompts")
        if given is not None and boxes is None:
            boxes = [box_of_landmarks(points) for points in given]
        if boxes is None:
            if sides is not None:
                raise InputError("sides are given without boxes; give a box for each, or no sides")
            return self.detector(view.rgb)
        detections = self._in_boxes(view.rgb, boxes, sides)
        if given is None:
            return detections
        if len(given) != len(detections):
            raise InputError(f"landmarks of {len(given)} hands for {len(detections)} boxes; give one for each")
        return [with_landmarks(*pair) for pair in zip(detections, given, strict=True)]

    def _predict(self, looks: Sequence[_Look], track_sides: TrackSides | None = None) -> list[Hands]:
        """Reconstructs the hands of several pictures together."""
        each = [
            (view, detection, depth_m)
            for view, detections in looks
            for detection, depth_m in zip(detections, view.depth_of(detections), strict=True)
        ]
        if track_sides is not None:
            each = [(view, track_sides.see(detection), depth_m) for view, detection, depth_m in each]
        hands = self._reconstruct_hands(each, track_sides) if each else []
        made_by = {"method": self.method, "weights": self.weights, "hand_model": self.hand_model}
        results = []
        for view, detections in looks:
            own, hands = hands[: len(detections)], hands[len(detections) :]
            image = view.rgb if view.file is None else view.file
            results.append(
                Hands(own, image=image, size_px=view.size_px, K_px=view.K_px, K_from=view.K_from, made_by=made_by)
            )
        return results

    def _reconstruct_hands(self, seen: Sequence[_Seen], track_sides: TrackSides | None) -> list[Hand]:
        """Returns a hand for each; with a network that predicts sides, of the likelier side."""
        rights = self._run_method(seen)
        found: list[tuple[Detection, RightHandBatch, int]] = [(one[1], rights, i) for i, one in enumerate(seen)]
        if rights.side_logit is not None:
            counts = is_predicted if track_sides is None else track_sides.is_due
            open_ = [i for i, one in enumerate(seen) if counts(one[1])]
            doubtful = [i for i in open_ if needs_other_side(rights.side_logit[i])]
            turned = [
                (view, other_side(detection), depth_m) for view, detection, depth_m in (seen[i] for i in doubtful)
            ]
            others = self._run_method(turned) if turned else None
            row = {i: k for k, i in enumerate(doubtful)}
            for i in open_:
                detection, difference = seen[i][1], np.inf
                if i in row and others is not None and others.side_logit is not None:
                    difference = rights.side_logit[i] - others.side_logit[row[i]]
                decide = with_likelier_side if track_sides is None else track_sides.add
                likelier = decide(detection, difference)
                if others is None or likelier.side == detection.side:
                    found[i] = likelier, rights, i
                else:
                    found[i] = likelier, others, row[i]
        return [
            self._hand(batch, at, detection, depth_m, view.K_px)
            for (detection, batch, at), (view, _, depth_m) in zip(found, seen, strict=True)
        ]

    def _run_method(self, seen: Sequence[_Seen]) -> RightHandBatch:
        samples = [
            to_right(_sample(view.rgb, depth_m, view.K_px, detection), copy=False) for view, detection, depth_m in seen
        ]
        rights = self._reconstruct(samples)
        return rights if self._lift is None else replace(rights, lifted_joints_m=self._lift(samples))

    def _in_boxes(
        self, image_rgb: np.ndarray, boxes: Sequence[Sequence[float]] | np.ndarray, sides: Sequence[str] | None
    ) -> list[Detection]:
        """Returns detections with landmarks in the user's boxes; every method needs them for `presence`."""
        height, width = image_rgb.shape[:2]
        for box in for_hands("boxes", boxes):
            check_box(box, width, height)
        if sides is not None and (len(sides) != len(boxes) or any(side not in SIDES for side in sides)):
            raise InputError(f"{len(sides)} sides for {len(boxes)} boxes: {list(sides)}; give right or left for each")
        corners = np.asarray(boxes, float).reshape(-1, 4)
        found = self.detector.in_boxes(image_rgb, corners.tolist(), sides)
        return [replace(detection, box_px=box) for detection, box in zip(found, corners, strict=True)]

    def _hand(
        self, rights: RightHandBatch, i: int, detection: Detection, depth_m: np.ndarray | None, K: np.ndarray
    ) -> Hand:
        """Returns the i-th reconstructed hand on its own side."""
        joints, vertices, params = rights.joints_cam_m[i], rights.vertices_cam_m[i], rights.params.map(lambda a: a[i])
        if detection.side == "left":  # the only place where predictions are mirrored back
            joints, vertices, params = mirror_points(joints), mirror_points(vertices), mirror_params(params)
        joints_px = project(joints, K)
        known = np.isfinite(detection.joints_px).all(1)
        apart = (
            normalized_distance_percent(detection.joints_px[known], joints_px[known]).mean() if known.any() else None
        )
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
            landmark_error_percent=None if apart is None else float(apart),
            track=detection.track,
        )
        kind = kind_of(self.method, with_depth=depth_m is not None)
        evidence = evidence_of(hand, detection, rights, i, depth_m)
        if hand.joint_error_mm is not None and self.weights == DEFAULT_NETWORK:
            alone = self.method == "network" and not self.takes_landmarks
            model = kind_of(ALONE, with_depth=depth_m is not None) if alone else kind
            error_mm = hand.joint_error_mm * error_scale(model, evidence)
            hand = replace(hand, joint_error_mm=error_mm, error_model=model)
        return replace(hand, score=score(kind, evidence.features()), evidence=evidence)


def _resolve(
    weights: str | Path | None, method: Method, device: str, mano: str | Path | None, prompts: bool
) -> ReconstructionMethod:
    resolved = resolve_method(method, weights, mano)
    if resolved == "fit":
        if weights is not None:
            raise InputError(f"{weights}: the method fit uses no weights; leave them out, or use the method network")
        return LandmarkMethod(mano=mano)
    if mano is not None:
        raise InputError(f"mano {mano}: a network contains its own hand model; use MANO with the method fit")
    found = shipped_weights() if weights is None else weights
    if found is None:
        raise InputError("this version has no bundled weights; give a checkpoint (RUN/best) or use the method fit")
    network = NetworkMethod(found, device=device, prompts=prompts)
    return CombinedMethod(network) if resolved == "both" else network


def _sample(image_rgb: np.ndarray, depth_m: np.ndarray | None, K_px: np.ndarray, detection: Detection) -> Sample:
    """A detection as a Sample, mirrored and cropped like labelled ones."""
    confidence = detection.joint_confidence
    return Sample(
        key=f"box {detection.box_px}",
        rgb=image_rgb,
        K_px=K_px,
        side=detection.side,
        box_px=np.asarray(detection.box_px, float),
        joints_cam_m=np.full((NUM_JOINTS, 3), np.nan),
        joints_2d_conf=detector_confidence(detection) if confidence is None else confidence,
        joints_3d_conf=np.zeros(NUM_JOINTS, np.float32),
        depth_m=depth_m,
        joints_px=detection.joints_px,
        landmarks_m=detection.joints_m,
    )
