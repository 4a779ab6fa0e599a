"""Does the network say how far the hand is? `python benchmarks/depth_shift.py [--minutes 10] [--weights RUN/last]`.

Held-out scenes are drawn twice, the second time 10 cm farther: the same hand, look and seed, and the box cut anew, as
for a new picture. The predicted wrist must move by 10 cm and the pose must stay. Three distances are compared: the
network's `root_z_m`, the mesh measured by the depth under it (`utnet.predict`), and the one guessed from the hand's
size (RGB). Prints a table and one JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import json
from dataclasses import replace

import numpy as np
import torch
from short_training import HELD_OUT_SEED, arguments, predictions, root_relative_error_mm, trained

from utnet.config import Config
from utnet.geometry import crop_to_px
from utnet.model import UTNet
from utnet.placement import measure_distance, solve_translation
from utnet.synth import SyntheticHands
from utnet.types import Batch, Prediction

SHIFT_M = 0.10
_ROWS = {
    "root": "root_z_m of the network",
    "mesh": "mesh measured by depth",
    "size": "guessed from size (RGB)",
}


class Farther(SyntheticHands):
    """The same scenes, the hand and what is behind it `SHIFT_M` farther."""

    def _sample_view(self, rng: np.random.Generator):
        params, K = super()._sample_view(rng)
        return replace(params, transl_m=params.transl_m + [0.0, 0.0, SHIFT_M]), K


def wrist_z_mm(prediction: Prediction, batch: Batch, faces: np.ndarray, *, measured: bool) -> list[float]:
    """The wrist's distance as `utnet.predict` finds it, sample by sample."""
    found = []
    for i in range(len(batch)):
        joints, vertices = (t[i].double().numpy() for t in (prediction.joints_m, prediction.vertices_m))
        K = batch.K_px[i].double().numpy()
        pixels = crop_to_px(prediction.joints_crop[i].double().numpy(), batch.rgb.shape[-1])
        transl = solve_translation(joints, pixels, K)
        if measured:
            transl = measure_distance(vertices, faces, joints, transl, batch.depth_m[i].numpy(), K)
        found.append(float(joints[0, 2] + transl[2]) * 1000)
    return found


def measure(model: UTNet, source: SyntheticHands, config: Config) -> dict[str, np.ndarray]:
    """Everything that is compared, one row a sample: distances in mm, joints relative to the wrist in mm, errors."""
    faces = model.hand.faces.numpy()
    rows: dict[str, list] = {name: [] for name in ("truth", "root", "mesh", "size", "joints", "error")}
    for batch, out in predictions(model, source, config, use_depth=True):
        rows["truth"] += (batch.joints_3d[:, 0, 2].double() * 1000).tolist()
        rows["root"] += (out.root_z_m.double() * 1000).tolist()
        rows["mesh"] += wrist_z_mm(out, batch, faces, measured=True)
        rows["joints"] += ((out.joints_m - out.joints_m[:, :1]) * 1000).tolist()
        rows["error"] += root_relative_error_mm(out, batch).mean(1).tolist()
    for batch, out in predictions(model, source, config, use_depth=False):
        rows["size"] += wrist_z_mm(out, batch, faces, measured=False)
    return {name: np.array(values) for name, values in rows.items()}


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    model, config, about = trained(args)
    options = {"seed": HELD_OUT_SEED, "size_px": config.model.size_px, "num": args.num}
    options |= {"synth": config.synth, "crop": config.crop, "jitter": False}
    near, far = (measure(model, kind(**options), config) for kind in (SyntheticHands, Farther))
    median = {}
    print(f"{args.num} held-out hands, {1000 * SHIFT_M:.0f} mm farther; medians in mm")
    print(f"{'distance of the wrist':28s}{'moved by':>10s}{'|off|':>8s}{'90 % below':>12s}{'|error| before':>16s}")
    for name, title in _ROWS.items():
        moved, error = far[name] - near[name], np.abs(near[name] - near["truth"])
        off = np.abs(moved - 1000 * SHIFT_M)
        median[name] = {"moved_mm": np.median(moved), "off_mm": np.median(off), "error_mm": np.median(error)}
        numbers = f"{np.median(moved):10.1f}{np.median(off):8.1f}{np.quantile(off, 0.9):12.1f}{np.median(error):16.1f}"
        print(f"{title:28s}{numbers}")
    change = np.linalg.norm(far["joints"] - near["joints"], axis=-1).mean(1)
    errors = near["error"].mean(), far["error"].mean()
    print(f"pose: joints relative to the wrist change by {np.median(change):.1f} mm (median of the hands' means)")
    print(f"      MPJPE {errors[0]:.1f} mm before, {errors[1]:.1f} mm after (RGB-D)")
    rounded = {name: {key: round(float(v), 2) for key, v in row.items()} for name, row in median.items()}
    pose = {"pose_change_mm": round(float(np.median(change)), 2), "mpjpe_mm": [round(float(e), 2) for e in errors]}
    print(json.dumps({"benchmark": "depth_shift", "num": args.num, **about, **rounded, **pose}))


if __name__ == "__main__":
    main()
