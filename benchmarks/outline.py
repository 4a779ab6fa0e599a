"""Outlines of predicted meshes against masks of hands: `python benchmarks/outline.py --pictures DIR`.

    digits  photographs of hands on white paper (DIR/sign_digits_apache2). A mask is cut by GrabCut (Rother et al.,
            SIGGRAPH 2004) in Lab with little weight on lightness, started from Otsu's threshold on the distance from
            the paper's colour; dark colourless pixels (cast shadows) are background. Look at them: --sheet FILE.
    drawn   full-appearance synthetic hands with nothing in front of them; the mask is that of the true mesh.

Each hand that the detector finds is reconstructed by every method. The forearm has no mesh, so mask and mesh are
compared only on the hand's side of a line across the wrist, a tenth of the palm's length from the wrist's landmark,
which is the same for all methods. Columns (means over hands, percent of the longer side of the landmarks' box where
not said otherwise):

    iou        intersection over union
    iou_sure   the same without a rim of 0.7 % of the box on both sides of the mask's outline
    palm, fingers: signed distance of the mesh's outline from the mask's, negative where the mesh ends inside the hand
               (too thin), on the thumb's side and on the little finger's, within 6 %
    tips       how much farther the mask reaches than the mesh along the last phalanx of the four fingers, percent of
               that phalanx (median), and the share of fingers where it is more than half a phalanx

A mask of a 100-pixel photograph is uncertain by about half a pixel, 0.7 % of the box: the mask itself, half a pixel
smaller or larger, has an IoU of 0.92 with what it was, so `iou` cannot say more than that there. Prints a table and one
JSON line.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from methods import METHODS, found
from release_scores import full_appearance
from tqdm import tqdm

from utnet.conventions import PARENTS
from utnet.detect import Detection
from utnet.evaluation.crops import stack_params
from utnet.geometry import longer_side
from utnet.hand import HandModel
from utnet.io.pictures import read_picture
from utnet.predict import Hand, Predictor
from utnet.render.drawing import contact_sheet, label, save_picture
from utnet.render.raster import rasterize
from utnet.synth import SyntheticHands

SEED = 4_100_003
_DIGITS = "sign_digits_apache2/Dataset/*/*.JPG"
_ENLARGE = 4
_DRAWN_PX = 320
_LARGEST_PX = 200
"""A few photographs are as large as the camera made them: their masks would need other numbers."""
_KNUCKLES = (5, 9, 13, 17)
_CUT = 0.1
_FARTHEST = 6.0
_RIM = 0.7
_COLUMNS = ("iou", "iou_sure", "palm_thumb", "palm_little", "fingers_thumb", "fingers_little", "tips", "tips_early")


@dataclass(frozen=True)
class Pictured:
    """A hand with its mask.

    Attributes:
        rgb: (H, W, 3) uint8.
        mask: (n H, n W) bool, the hand, enlarged n times.
        detection: of the hand.
        K_px: (3, 3) of `rgb`, or None.
    """

    rgb: np.ndarray
    mask: np.ndarray
    detection: Detection
    K_px: np.ndarray | None

    @property
    def enlarged(self) -> int:
        return self.mask.shape[0] // self.rgb.shape[0]

    def to_mask(self, points_px: np.ndarray) -> np.ndarray:
        """Pixels of the picture to pixels of the mask: edges stay edges."""
        return (points_px + 0.5) * self.enlarged - 0.5


# ---------------------------------------------------------------------------------------------------------------- masks


def _disc(size: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def mask_on_paper(rgb: np.ndarray) -> np.ndarray:
    """(4 H, 4 W) bool: the hand (with its arm) of a small photograph of a hand on white paper."""
    big = cv2.resize(rgb, None, fx=_ENLARGE, fy=_ENLARGE, interpolation=cv2.INTER_CUBIC)
    lab = cv2.cvtColor(big.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    light = lab[..., 0]
    off = lab - np.median(lab[light > np.percentile(light, 70)], axis=0)  # from the paper's colour
    chroma = cv2.GaussianBlur(np.linalg.norm(off[..., 1:], axis=-1), (0, 0), 1.5)
    _, first = cv2.threshold(np.clip(5 * chroma, 0, 255).astype(np.uint8), 0, 1, cv2.THRESH_OTSU)
    core = cv2.erode(first, _disc(17)) > 0
    if not core.any():
        return np.zeros(light.shape, bool)
    shadow = (light < 0.6 * np.median(light[core])) & (chroma < 0.6 * np.median(chroma[core]))
    trimap = np.where(first > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    trimap[(cv2.dilate(first, _disc(25)) == 0) | shadow] = cv2.GC_BGD
    trimap[core] = cv2.GC_FGD
    colors = np.clip(128 + off * [0.35, 3, 3], 0, 255).astype(np.uint8)
    cv2.setRNGSeed(0)  # k-means in there draws from OpenCV's own generator
    cv2.grabCut(colors, trimap, (0, 0, 0, 0), np.zeros((1, 65)), np.zeros((1, 65)), 3, cv2.GC_INIT_WITH_MASK)
    hand = np.isin(trimap, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    hand = cv2.morphologyEx(cv2.morphologyEx(hand, cv2.MORPH_OPEN, _disc(5)), cv2.MORPH_CLOSE, _disc(5))
    return _without_dark_holes(_largest(hand), light)


def _largest(mask: np.ndarray) -> np.ndarray:
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    return parts == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()


def _without_dark_holes(mask: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Fills holes through which no paper is seen: shadows between fingers."""
    num, parts = cv2.connectedComponents((~mask).astype(np.uint8), connectivity=4)
    edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    paper = np.percentile(light, 90)
    for part in range(1, num):
        if part not in edge and np.median(light[parts == part]) < 0.6 * paper:
            mask = mask | (parts == part)
    return mask


# ---------------------------------------------------------------------------------------------------------------- hands


def digits(pictures: Path, predictor: Predictor, num: int) -> Iterator[Pictured]:
    """About `num` photographs, spread evenly over the people, each with exactly one hand found."""
    paths = sorted(pictures.glob(_DIGITS), key=lambda path: int(path.stem.removeprefix("IMG_")))
    for path in paths[:: max(1, len(paths) // num)]:
        picture = read_picture(path)
        if max(picture.rgb.shape) > _LARGEST_PX:
            continue
        detections = predictor.detector(picture.rgb)
        if len(detections) == 1:
            yield Pictured(picture.rgb, mask_on_paper(picture.rgb), detections[0], picture.K_px)


def drawn(predictor: Predictor, num: int) -> Iterator[Pictured]:
    """Those of `num` drawn hands that are found. Nothing is before them and they wear nothing."""
    synth = full_appearance()
    bare = dict.fromkeys(("held", "occluder", "second_hand", "sleeve", "worn"), 0.0)
    hands = SyntheticHands(
        seed=SEED,
        size_px=_DRAWN_PX,
        num=num,
        synth=replace(synth, factors=replace(synth.factors, **bare)),
        jitter=False,
    )
    model = HandModel.open()
    for index in range(num):
        sample = hands[index]
        detection = found(predictor, sample)
        if detection is not None:
            mesh = model.decode(stack_params([sample.params])).vertices_m[0].numpy() + sample.params.transl_m
            mask = rasterize(mesh, model.faces.numpy(), sample.K_px, (_DRAWN_PX, _DRAWN_PX)).mask
            yield Pictured(sample.rgb, mask, detection, sample.K_px)


# ------------------------------------------------------------------------------------------------------------- measures


def silhouette(pictured: Pictured, hand: Hand) -> np.ndarray:
    """(h, w) bool, the mesh as large as the mask."""
    n = pictured.enlarged
    enlarge = np.array([[n, 0, (n - 1) / 2], [0, n, (n - 1) / 2], [0, 0, 1]])
    height, width = pictured.mask.shape
    return rasterize(hand.vertices_cam_m, hand.faces, enlarge @ hand.K_px, (width, height)).mask


def before_wrist(pictured: Pictured) -> np.ndarray:
    """(h, w) bool, the hand's side of the line across the wrist."""
    joints = pictured.to_mask(pictured.detection.joints_px)
    palm = joints[list(_KNUCKLES)].mean(0) - joints[0]
    y, x = np.mgrid[: pictured.mask.shape[0], : pictured.mask.shape[1]]
    return (x - joints[0, 0]) * palm[0] + (y - joints[0, 1]) * palm[1] > _CUT * (palm @ palm)


def measures(pictured: Pictured, hand: Hand) -> dict[str, float]:
    """One hand's row; NaN where there is nothing to measure."""
    mesh, kept = silhouette(pictured, hand), before_wrist(pictured)
    mask, size = pictured.mask, longer_side(pictured.to_mask(pictured.detection.joints_px))
    joints = pictured.to_mask(hand.joints_px)
    apart = signed_distance(mask)
    sure = kept & (np.abs(apart) > _RIM / 100 * size)
    row = {
        name: float((mesh & mask & where).sum() / ((mesh | mask) & where).sum())
        for name, where in (("iou", kept), ("iou_sure", sure))
    }
    short = tips(mesh, mask, joints, size)
    row |= {
        "tips": float(np.median(short)) if short else np.nan,
        "tips_early": float(np.mean([s > 50 for s in short])) if short else np.nan,
    }
    return row | margins(mesh, apart, kept, joints, size)


def signed_distance(mask: np.ndarray) -> np.ndarray:
    """(h, w) pixels from the mask's outline, which runs between pixels; negative inside."""
    inside, outside = (cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 5) for m in (mask, ~mask))
    return np.where(mask, 0.5 - inside, outside - 0.5)


def margins(mesh: np.ndarray, apart: np.ndarray, kept: np.ndarray, joints: np.ndarray, size: float) -> dict[str, float]:
    """Signed distances of the mesh's outline from the mask's by part and side, percent of `size`; `apart` is
    `signed_distance` of the mask."""
    border = np.zeros_like(mesh)
    border[2:-2, 2:-2] = True
    edge = mesh & ~cv2.erode(mesh.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & kept & border
    points = np.argwhere(edge)[:, ::-1].astype(float)
    value = 100 * (apart[edge] + 0.5) / size  # the outline's pixels are the mesh's own
    start, bone = joints[list(PARENTS[1:])], joints[1:] - joints[list(PARENTS[1:])]
    along = ((points[:, None] - start) * bone).sum(-1) / ((bone**2).sum(-1) + 1e-9)
    offset = points[:, None] - start - np.clip(along, 0, 1)[..., None] * bone
    nearest = np.linalg.norm(offset, axis=-1).argmin(1)
    off = offset[np.arange(len(points)), nearest]
    across = joints[5] - joints[17]
    thumb_side = off @ across > 0
    palm = np.isin(nearest, [0, 4, 8, 12, 16])
    counted = np.abs(value) < _FARTHEST
    result = {}
    for part, of in (("palm", palm), ("fingers", ~palm)):
        for side, on_side in (("thumb", thumb_side), ("little", ~thumb_side)):
            which = counted & of & on_side
            result[f"{part}_{side}"] = float(value[which].mean()) if which.any() else np.nan
    return result


def tips(mesh: np.ndarray, mask: np.ndarray, joints: np.ndarray, size: float) -> list[float]:
    """How much farther the mask reaches than the mesh beyond the last joint of each finger that sticks out, percent
    of the last phalanx."""
    result = []
    for tip in (8, 12, 16, 20):
        phalanx = joints[tip] - joints[tip - 1]
        length = float(np.linalg.norm(phalanx))
        if length < 0.06 * size:  # seen along the finger
            continue
        mesh_end, mask_end = (_reach(m, joints[tip - 1], phalanx) for m in (mesh, mask))
        if mesh_end < 1.6 and 0 < mask_end < 2.5:
            result.append(100 * (mask_end - mesh_end))
    return result


def _reach(mask: np.ndarray, start: np.ndarray, phalanx: np.ndarray) -> float:
    """Phalanges from the joint to where the ray through the tip leaves the mask; 3 if it does not."""
    share = np.linspace(0, 3, 1 + int(6 * np.linalg.norm(phalanx)))
    x, y = np.rint(start + share[:, None] * phalanx).astype(int).T
    inside = (x >= 0) & (y >= 0) & (x < mask.shape[1]) & (y < mask.shape[0])
    inside[inside] = mask[y[inside], x[inside]]
    return 3.0 if inside.all() else float(share[inside.argmin()])


# ----------------------------------------------------------------------------------------------------------------- main


def picture_of(pictured: Pictured, hand: Hand, row: dict[str, float]) -> np.ndarray:
    """The mask's outline red, the mesh's cyan; what is behind the wrist is dark."""
    size = pictured.mask.shape[::-1]
    out = cv2.resize(pictured.rgb, size, interpolation=cv2.INTER_CUBIC)
    out[~before_wrist(pictured)] //= 2
    for mask, color in ((pictured.mask, (255, 0, 0)), (silhouette(pictured, hand), (0, 220, 255))):
        lines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, lines, -1, color, 1)
    return label(cv2.resize(out, (400, 400), interpolation=cv2.INTER_AREA), f"{hand.method} IoU {row['iou']:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="?", help="a checkpoint, or a network that ships")
    parser.add_argument("--pictures", type=Path, required=True, help="folder that holds sign_digits_apache2")
    parser.add_argument("--num", type=int, default=150, help="of digits, and of drawn hands")
    parser.add_argument("--sheet", type=Path, help="also write a sheet of some hands by the last method")
    args = parser.parse_args()
    torch.set_num_threads(1)
    ways = [Predictor(None if name == "fit" else args.weights, method=name) for name in METHODS]
    sets = {"digits": digits(args.pictures, ways[0], args.num), "drawn": drawn(ways[0], args.num)}
    cells, result = [], {}
    print(f"{'':24s}" + "".join(f"{name:>15s}" for name in _COLUMNS))
    for name, hands in sets.items():
        rows = defaultdict(list)
        for i, pictured in enumerate(tqdm(hands, desc=name, unit="hand", disable=None)):
            for way in ways:
                (hand,) = way.from_detections(pictured.rgb, [pictured.detection], K_px=pictured.K_px)
                rows[way.method].append(measures(pictured, hand))
            if args.sheet and i % max(1, args.num // 20) == 0:
                cells.append(picture_of(pictured, hand, rows[way.method][-1]))
        for method, values in rows.items():
            means = {key: float(np.nanmean([row[key] for row in values])) for key in _COLUMNS}
            print(f"{name} ({len(values)}) {method:12s}".ljust(24) + "".join(f"{means[key]:15.3f}" for key in _COLUMNS))
            result[f"{name} {method}"] = {key: round(mean, 4) for key, mean in means.items()} | {"num": len(values)}
    if args.sheet:
        save_picture(args.sheet, contact_sheet(cells, columns=8))
    print(json.dumps({"benchmark": "outline", "num": args.num, "rows": result}))


if __name__ == "__main__":
    main()
