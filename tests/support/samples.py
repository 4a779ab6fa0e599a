"""Made-up samples with every label."""

from dataclasses import replace

import numpy as np

from utnet.geometry import project
from utnet.types import HandParams, Sample


def sample_at(seed: int = 0, *, side: str = "right", size_wh: tuple[int, int] = (200, 150)) -> Sample:
    """A picture with a soft white dot at joint 7, in front of a plane; only geometry matters."""
    rng = np.random.default_rng(seed)
    width, height = size_wh
    K = np.array([[180.0, 0.5, width / 2 - 3], [0.0, 176.0, height / 2 + 2], [0.0, 0.0, 1.0]])
    joints = np.column_stack([rng.uniform(-0.08, 0.08, (21, 2)), rng.uniform(0.4, 0.6, 21)])
    points = project(joints, K)
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    dot = 250 * np.exp(-((x - points[7, 0]) ** 2 + (y - points[7, 1]) ** 2) / (2 * 3.0**2))
    turn = np.linalg.qr(rng.normal(size=(16, 3, 3)))[0]
    turn *= np.linalg.det(turn)[:, None, None]
    return Sample(
        key=f"test/{seed}",
        rgb=np.repeat(dot[..., None], 3, 2).astype(np.uint8),
        K_px=K,
        side=side,
        box_px=np.concatenate([points.min(0), points.max(0)]),
        joints_cam_m=joints,
        joints_2d_conf=np.ones(21, np.float32),
        joints_3d_conf=np.ones(21, np.float32),
        depth_m=np.where(dot > 100, 0.5, 0.9).astype(np.float32),
        params=HandParams(turn[:1], turn[1:], rng.normal(size=10), joints[0] - [0.01, 0.002, 0.0]),
    )


def with_everything(sample: Sample, *, K_px: bool = True) -> Sample:
    """The sample with labels of its own in the picture, a mesh, a mask, and a joint and a translation unlabelled."""
    joints, points, conf = (
        sample.joints_cam_m.copy(),
        project(sample.joints_cam_m, sample.K_px),
        np.ones(21, np.float32),
    )
    joints[5], points[9], conf[5] = np.nan, np.nan, 0
    return replace(
        sample,
        K_px=sample.K_px if K_px else None,
        joints_cam_m=joints,
        joints_3d_conf=conf,
        joints_px=points,
        joints_2d_conf=np.where(np.arange(21) == 9, 0, 1).astype(np.float32),
        vertices_cam_m=(sample.joints_cam_m + 0.01).astype(np.float32),
        hand_mask=sample.depth_m == np.float32(0.5),
        params=replace(sample.params, transl_m=np.full(3, np.nan)),
    )
