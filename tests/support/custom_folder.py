"""A user's own data set on disk."""

import json
from pathlib import Path

import cv2
import numpy as np

from utnet.rotations import matrix_to_axis_angle


def write(folder: Path, lines: list[dict | str]) -> Path:
    """A folder of these lines; the pictures that they name exist (grey) unless something lies there already."""
    folder.mkdir(exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "hands.jsonl").write_text("".join(text + "\n" for text in texts))
    for line in lines:
        if isinstance(line, dict) and isinstance(line.get("image"), str) and ".." not in line["image"]:
            path = folder / line["image"].lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                cv2.imwrite(str(path), np.full((60, 80, 3), 90, np.uint8))
    return folder


def labelled(sample, folder: Path, number: int, transl=True) -> dict:
    """A synthetic sample as a line with everything that it has."""
    cv2.imwrite(str(folder / f"{number}.png"), sample.rgb[..., ::-1])
    cv2.imwrite(str(folder / f"d{number}.png"), np.rint(sample.depth_m / 0.0005).astype(np.uint16))
    params = {
        "global_orient": matrix_to_axis_angle(sample.params.global_orient)[0].tolist(),
        "hand_pose": matrix_to_axis_angle(sample.params.hand_pose).ravel().tolist(),
        "betas": np.asarray(sample.params.betas).tolist(),
    } | ({"transl": sample.params.transl_m.tolist()} if transl else {})
    return {
        "image": f"{number}.png", "side": sample.side, "K": sample.K_px.tolist(), "params": params,
        "joints_3d": sample.joints_cam_m.tolist(), "hand_model": "open", "depth": f"d{number}.png",
        "depth_scale": 0.0005, "sequence": f"s{number}",
    }  # fmt: skip
