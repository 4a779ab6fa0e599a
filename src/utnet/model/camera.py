"""The camera inside a crop: perspective, of the nominal focal length, in crop units (`utnet.conventions`)."""

from __future__ import annotations

import torch
from torch import Tensor

from utnet.conventions import NOMINAL_FOCAL


def crop_camera_translation(cam: Tensor) -> Tensor:
    """(B, 3) s, tx, ty -> (B, 3) translation in the crop's camera, metres: (tx, ty, 2 f / s), f in crop widths."""
    return torch.stack([cam[:, 1], cam[:, 2], 2 * NOMINAL_FOCAL / (cam[:, 0] + 1e-9)], -1)


def project_crop(points_m: Tensor, cam_t: Tensor) -> Tensor:
    """(B, N, 3) hand frame and (B, 3) translation -> (B, N, 2) crop units, by the nominal perspective camera."""
    points = points_m + cam_t[:, None]
    return NOMINAL_FOCAL * points[..., :2] / points[..., 2:]
