"""Names and conventions used throughout: joints, parents, permutations, frames and units. Standard library only.

Units are metres, pixels and radians, given in names (`joints_m`, `f_px`); millimetres only in metrics and printed
tables.

Frames
    hand    the hand model's own frame, before translation: `joints_m`, `vertices_m`.
    camera  OpenCV axes (x right, y down, z forward): `joints_cam_m = joints_m + transl_m`.
    pixels  pixel (0, 0) is centred at 0.0, so an image W wide spans [-0.5, W - 0.5].
    crop    units of the crop's width, 0 at its centre: a square crop spans [-0.5, 0.5] (`joints_crop`).

Joints are in OpenPose's order of 21 ("OpenPose-21"): the wrist, then each finger from the palm to its tip.
"""

FINGERS = ("thumb", "index", "middle", "ring", "little")

JOINT_NAMES = (
    "wrist",
    "thumb_cmc", "thumb_mcp", "thumb_ip", "thumb_tip",
    "index_mcp", "index_pip", "index_dip", "index_tip",
    "middle_mcp", "middle_pip", "middle_dip", "middle_tip",
    "ring_mcp", "ring_pip", "ring_dip", "ring_tip",
    "little_mcp", "little_pip", "little_dip", "little_tip",
)  # fmt: skip
"""OpenPose-21. `JOINT_NAMES.index("middle_mcp") == 9`."""

PARENTS = (-1, 0, 1, 2, 3, 0, 5, 6, 7, 0, 9, 10, 11, 0, 13, 14, 15, 0, 17, 18, 19)
"""Parent of each of the 21 joints; the wrist has none."""

TIPS = (4, 8, 12, 16, 20)
"""The fingertips among the 21 joints, thumb to little finger."""

NUM_JOINTS = len(JOINT_NAMES)
NUM_BETAS = 10

MANO_JOINT_NAMES = (
    "wrist",
    "index_mcp", "index_pip", "index_dip",
    "middle_mcp", "middle_pip", "middle_dip",
    "little_mcp", "little_pip", "little_dip",
    "ring_mcp", "ring_pip", "ring_dip",
    "thumb_cmc", "thumb_mcp", "thumb_ip",
)  # fmt: skip
"""The 16 articulated joints in MANO's order (the little finger comes before the ring finger)."""

MANO_PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
"""Parent of each of the 16 MANO joints (`kintree_table[0]` of the file, with -1 for the root)."""

NUM_MANO_JOINTS = len(MANO_JOINT_NAMES)

MANO21_NAMES = MANO_JOINT_NAMES + tuple(f"{finger}_tip" for finger in FINGERS)
"""MANO's 16 joints followed by five fingertips, thumb first: the order of HO3D's files."""

MANO21_TO_OPENPOSE = tuple(MANO21_NAMES.index(name) for name in JOINT_NAMES)
"""`joints_openpose = joints_mano21[MANO21_TO_OPENPOSE]`."""

OPENPOSE_TO_MANO21 = tuple(JOINT_NAMES.index(name) for name in MANO21_NAMES)
"""`joints_mano21 = joints_openpose[OPENPOSE_TO_MANO21]`."""

MANO_TIP_VERTICES = {
    "smplx": (744, 320, 443, 554, 671),
    "freihand": (744, 320, 443, 555, 672),
    "ho3d": (744, 333, 444, 555, 672),
    "manopth": (745, 317, 444, 556, 673),
}
"""Fingertip vertices (thumb to little) on MANO's 778-vertex mesh, by source."""

MANOPTH_LEFT_TIP_VERTICES = (745, 317, 445, 556, 673)
"""Those of manopth (and DexYCB) for the left hand: the middle fingertip differs."""

SIDES = ("right", "left")

NOMINAL_FOCAL = 5000.0 / 256.0
"""Focal length in crop widths of the camera inside the crop (WiLoR: 5000 px at 256)."""

MM_PER_M = 1000.0
