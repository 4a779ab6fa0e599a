"""`Predictor`: a picture and boxes in, hands in the picture's camera out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from utnet.checkpoint import load_checkpoint, pick_device
from utnet.conventions import NUM_JOINTS
from utnet.data.loader import collate
from utnet.data.transforms import crop, to_right
from utnet.errors import InputError
from utnet.geometry import crop_to_px, mirror_params, mirror_points, project
from utnet.predict.camera import default_intrinsics, measure_distance, solve_translation
from utnet.types import HandParams, Sample

_DEPTH_LIMITS_M = (0.1, 10.0)
"""A hand nearer or farther than this is depth in another unit."""
_SMALLEST_BOX_PX = 4.0


@dataclass(frozen=True)
class Hand:
    """A predicted hand in the full picture's camera (OpenCV axes, metres), numpy.

    Attributes:
        side: "right" or "left".
        score: confidence of the box, 1 where the user gave it.
        box_px: (4,) x0, y0, x1, y1.
        joints_cam_m: (21, 3) OpenPose-21.
        joints_px: (21, 2) projected by `K_px`.
        vertices_cam_m: (V, 3).
        faces: (F, 3), counter-clockwise seen from outside.
        params: of the hand model of that side; `joints_cam_m = joints + transl_m`.
        K_px: (3, 3) camera used: the user's, or the stated default.
        distance_from: "depth" where the distance was measured, "size" where it is guessed from the hand's size.
    """

    side: str
    score: float
    box_px: np.ndarray
    joints_cam_m: np.ndarray
    joints_px: np.ndarray
    vertices_cam_m: np.ndarray
    faces: np.ndarray
    params: HandParams
    K_px: np.ndarray
    distance_from: str


class Predictor:
    """Hands from pictures with a trained network.

    Args:
        weights: a checkpoint folder such as RUN/best.
        device: "auto", "cpu", "cuda", ...
    """

    def __init__(self, weights: str | Path, *, device: str = "auto"):
        self.model, self.config = load_checkpoint(weights, device=str(pick_device(device)))
        faces = self.model.hand.faces.cpu().numpy()
        self._faces = {"right": faces, "left": faces[:, ::-1]}  # mirrored faces turn over

    def __call__(
        self,
        image_rgb: np.ndarray,
        depth_m: np.ndarray | None = None,
        K_px: np.ndarray | None = None,
        boxes: Sequence[Sequence[float]] | None = None,
        sides: Sequence[str] | None = None,
    ) -> list[Hand]:
        """One hand a box, in the boxes' order.

        Args:
            image_rgb: (H, W, 3) uint8.
            depth_m: (H, W) metres aligned to the image, 0 where there is no reading.
            K_px: (3, 3) intrinsics of the image; None: f = the longer side, centred.
            boxes: tight boxes x0, y0, x1, y1 in pixels.
            sides: "right" or "left" for each box (default: right).

        Raises:
            InputError: no box, an empty one, depth of another size or unit.
        """
        if boxes is None or len(boxes) == 0:
            raise InputError("no box was given; give the hand's tight box x0,y0,x1,y1 in pixels")
        sides = sides or ["right"] * len(boxes)
        if len(sides) != len(boxes):
            raise InputError(f"{len(sides)} sides for {len(boxes)} boxes; give one for each")
        height, width = image_rgb.shape[:2]
        K = default_intrinsics(width, height) if K_px is None else _checked_camera(K_px, max(width, height))
        for box in boxes:
            _check_box(box, width, height)
        if depth_m is not None:
            depth_m = np.nan_to_num(np.asarray(depth_m, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
            check_depth_unit(depth_m, image_rgb.shape[:2], boxes)
        samples = [
            to_right(_unlabelled(image_rgb, depth_m, K, box, side, i))
            for i, (box, side) in enumerate(zip(boxes, sides, strict=True))
        ]
        crops = [crop(sample, self.config.model.size_px, self.config.crop) for sample in samples]
        batch = collate(crops).to(next(self.model.parameters()).device)
        with torch.inference_mode():
            out = self.model.forward_batch(batch, use_depth=depth_m is not None).map(lambda t: t.float().cpu())
        return [self._place(out, i, samples[i], crops[i], side, K) for i, side in enumerate(sides)]

    def _place(self, out, i: int, full: Sample, cropped: Sample, side: str, K: np.ndarray) -> Hand:
        """The i-th prediction out of its crop into the camera of the picture, and mirrored back for left hands."""
        joints, vertices = out.joints_m[i].double().numpy(), out.vertices_m[i].double().numpy()
        joints_px = crop_to_px(out.joints_crop[i].double().numpy(), cropped.rgb.shape[0])
        # The fixed crop does not turn the picture, so the crop's camera frame is the picture's.
        assert cropped.K_px is not None  # the user's, or the default
        transl = solve_translation(joints, joints_px, cropped.K_px)
        measured = transl
        if cropped.depth_m is not None:
            faces = self._faces["right"]
            measured = measure_distance(vertices, faces, joints, transl, cropped.depth_m, cropped.K_px)
        params = HandParams(
            global_orient=out.global_orient[i].double().numpy(),
            hand_pose=out.hand_pose[i].double().numpy(),
            betas=out.betas[i].double().numpy(),
            transl_m=measured,
        )
        joints, vertices, box = joints + measured, vertices + measured, full.box_px
        if side == "left":  # the one place where predictions are mirrored back
            joints, vertices, params = mirror_points(joints), mirror_points(vertices), mirror_params(params)
            width = full.rgb.shape[1]
            box = np.array([width - 1 - box[2], box[1], width - 1 - box[0], box[3]])
        return Hand(
            side=side,
            score=1.0,
            box_px=box,
            joints_cam_m=joints,
            joints_px=project(joints, K),
            vertices_cam_m=vertices,
            faces=self._faces[side],
            params=params,
            K_px=K,
            distance_from="size" if measured is transl else "depth",
        )


def check_depth_unit(depth_m: np.ndarray, shape: tuple[int, int], boxes: Sequence[Sequence[float]]) -> None:
    """InputError unless the depth has the image's size and puts what is in each box within a hand's reach."""
    if depth_m.shape != tuple(shape):
        raise InputError(
            f"depth is {depth_m.shape[1]}x{depth_m.shape[0]}, the image {shape[1]}x{shape[0]}: "
            "give depth aligned to the image"
        )
    for box in boxes:
        x0, y0, x1, y1 = (int(v) for v in np.clip(np.rint(box), 0, 1e6))
        inside = depth_m[y0 : y1 + 1, x0 : x1 + 1]
        if not (inside > 0).any():
            raise InputError(f"depth has no reading inside the box {list(box)}; leave depth out for this picture")
        median = float(np.median(inside[inside > 0]))
        if not _DEPTH_LIMITS_M[0] < median < _DEPTH_LIMITS_M[1]:
            raise InputError(
                f"depth says that the hand is {median:.4g} m away; expected 0.1 to 10 m: "
                "check the unit (a 16-bit PNG usually holds millimetres: --depth-scale 0.001)"
            )


def _check_box(box: Sequence[float], width: int, height: int) -> None:
    corners = np.asarray(box, float)
    if not (
        corners.shape == (4,) and np.isfinite(corners).all() and corners[0] < corners[2] and corners[1] < corners[3]
    ):
        raise InputError(f"box {corners.tolist()} is empty or not finite; give x0,y0,x1,y1 with x0 < x1 and y0 < y1")
    if (corners[2:] - corners[:2] < _SMALLEST_BOX_PX).any() or np.ptp(corners) > 4 * max(width, height):
        raise InputError(f"box {corners.tolist()} cannot hold a hand in an image of {width}x{height} px; give pixels")
    if corners[2] < 0 or corners[3] < 0 or corners[0] >= width or corners[1] >= height:
        raise InputError(f"box {corners.tolist()} lies outside the image of {width}x{height} px")


def _checked_camera(K_px: np.ndarray, size_px: int) -> np.ndarray:
    K = np.asarray(K_px, float)
    if not (K.shape == (3, 3) and np.isfinite(K).all() and K[0, 0] > 0 and K[1, 1] > 0 and (K[2] == [0, 0, 1]).all()):
        raise InputError(f"K {K.tolist()} is not a camera matrix; give fx,fy,cx,cy in pixels with fx and fy above 0")
    if not 0.1 * size_px < K[0, 0] < 200 * size_px:
        raise InputError(f"K says a focal length of {K[0, 0]:g} px for a picture of {size_px} px; give K in pixels")
    return K


def _unlabelled(image_rgb, depth_m, K_px, box, side: str, number: int) -> Sample:
    """A Sample of a picture without labels: it goes through the same mirror and the same crop as labelled ones."""
    nothing = np.zeros(NUM_JOINTS, np.float32)
    return Sample(
        key=f"box {number}",
        rgb=image_rgb,
        K_px=K_px,
        side=side,
        box_px=np.asarray(box, float),
        joints_cam_m=np.zeros((NUM_JOINTS, 3)),
        joints_2d_conf=nothing,
        joints_3d_conf=nothing,
        depth_m=depth_m,
    )
