"""Description of an exported network for programs without UTNet, stored as metadata of the file."""

from __future__ import annotations

import json

from utnet.conventions import JOINT_NAMES

ENTRY = "utnet.description"
"""Name of the ONNX metadata entry, beside `runtime.RECORD`."""

_TEXTS = {
    "rgb": (
        "float32 (B, 3, S, S), S = config.model.size_px of the entry 'utnet': RGB crop, 0 to 1; normalisation is inside"
    ),
    "depth_m": (
        "float32 (B, S, S): metres along z, nearest reading in the crop, 0 where there is none, all 0 "
        "without depth; centring on the hand's distance is inside"
    ),
    "K_px": "float32 (B, 3, 3): intrinsics of the crop in pixels, A @ K of the picture; NaN if not known",
    "landmarks": (
        "float32 (B, 21, 6): x, y in crop units, relative x, y, z in metres (NaN: not known), confidence 0 "
        "to 1; zeros: none"
    ),
    "crop": (
        "square of side config.crop.expand * max(width / config.crop.aspect, height) of the hand's tight "
        "box x0, y0, x1, y1, around its centre; pixel centres are whole numbers: with s = S / side, A = "
        "[[s, 0, (S - 1) / 2 - s * (x0 + x1) / 2], [0, s, (S - 1) / 2 - s * (y0 + y1) / 2], [0, 0, 1]]; "
        "bilinear with anti-aliasing, black outside the picture"
    ),
    "left_hands": (
        "the network takes right hands: mirror picture, depth, box and K (cx -> width - 1 - cx, skew "
        "negated), negate x of the points that come out, and reverse the faces"
    ),
    "joints_m": (
        "(B, 21, 3) metres in the hand's frame: camera axes x right, y down, z forward, origin near the wrist"
    ),
    "vertices_m": "(B, V, 3), the same frame; triangles are 'faces' of the entry 'utnet'",
    "joints_crop": (
        "(B, 21, 2): projections in crop units, 0 at the centre, 0.5 at the outer edge; crop pixel = u * S "
        "+ (S - 1) / 2"
    ),
    "root_z_m": "(B,): distance of the wrist along z in metres, NaN without depth",
    "camera": (
        "t in metres with joints_m + t projecting nearest to the pixels: with (u, v) = K^-1 pixel, least "
        "squares of t_x - u t_z = u Z - X and t_y - v t_z = v Z - Y over the joints; with depth t_z = "
        "root_z_m - Z of joint 0"
    ),
    "parameters": (
        "global_orient (B, 1, 3, 3), hand_pose (B, 15, 3, 3) rotation matrices without mean pose, betas (B, 10)"
    ),
}

_WILOR_SAMPLING = (
    "; config.crop.recipe is 'wilor', as in HaMeR's and WiLoR's demos: the picture (not points or K) is sampled with "
    "1/2 added to both translations of A, rounded to 8 bits, and if side > 2.2 S first blurred by a Gaussian of "
    "sigma (side / S / 2 - 1) / 2 pixels, cut off at 4 sigma, edges repeated, in place of anti-aliasing"
)


def description(names: tuple[str, ...], recipe: str = "utnet") -> str:
    """JSON: the inputs and outputs in `names`, the crop, left hands, the way into the camera, and the joints' names.

    Args:
        names: inputs and outputs of the file.
        recipe: `crop.recipe` of its config.
    """
    always = ("crop", "left_hands", "camera", "parameters")
    texts = {name: text for name, text in _TEXTS.items() if name in (*names, *always)}
    texts["crop"] += _WILOR_SAMPLING if recipe == "wilor" else ""
    return json.dumps({**texts, "joint_names": list(JOINT_NAMES)})
