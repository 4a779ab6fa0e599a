"""Trains the landmark lifter (`utnet.fit.lifter`) on sampled poses; nothing is drawn.

    python tools/train_lifter.py FOLDER [--samples 30000000]     # starts, or resumes, in FOLDER
    python tools/train_lifter.py FOLDER --score                  # the newest weights on hands of another seed

A pool of poses (`utnet.synth.gestures.sample_pose`, fingers parted where they touch) is sampled once into FOLDER. Each
training hand takes a pose of the pool, its free angles moved by 3 degrees, with a new person, a new root orientation
(the whole sphere) and distance (0.2 to 1.5 m), and the landmarks that the detector would give it
(`utnet.detect.residuals`, plus 1 % of the palm's length). The detector errs less on photographs than on drawn hands, so
of what a residual has beyond the mean of hands alike a random share from a quarter to all is taken. Of one hand in
eight all relative 3D landmarks are dropped, of one in eight single landmarks are.

Loss: the negative log likelihood of the joints relative to the wrist under a mixture of K hands, each joint an
isotropic Laplace distribution whose scale is an output too. A quarter of each joint's log likelihood counts, since the
errors of one hand's joints go together. The joints are those of the predicted pose on the true person's bones, so that
what is not known of the size does not hide what is known of the pose. Betas by their squared error, angles of the
hypothesis that explains the hand by theirs, both with small weights.

AdamW, batches of 2,048, bfloat16, learning rate 2e-3 with a cosine to 1 % over all samples, running mean of the weights
(0.999 a step), which is what FOLDER/lifter.safetensors holds, as float16, every 100 steps. About 9,000 hands a second
of one core: 30 million take an hour. Copy the file to src/utnet/assets/lifter/ to ship it.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import copy
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from utnet.conventions import MANO21_TO_OPENPOSE, NUM_BETAS, NUM_JOINTS
from utnet.detect.residuals import Conditions, DetectorResiduals, palm_length, turn_to_view
from utnet.fit.lifter import (
    FREE,
    NUM_FEATURES,
    NUM_FREE,
    NUM_HYPOTHESES,
    NUM_OUTPUTS,
    LandmarkLifter,
    split_outputs,
    to_features,
)
from utnet.hand.anatomy import JOINT_LIMITS_RAD, anatomical_axes
from utnet.hand.arrays import load_open_hand
from utnet.io.atomic import atomic_file
from utnet.synth.gestures import sample_pose

SEED = 9_300_011
POOL, BATCH, EVERY = 400_000, 2048, 100
WIDTH, BLOCKS = 384, 2
_SHARE = 0.25
"""Of the joints' log likelihoods."""
_CHAINS = np.array([[13, 14, 15], [1, 2, 3], [4, 5, 6], [10, 11, 12], [7, 8, 9]])
"""MANO's joints of thumb to little finger."""


Vectors = list[torch.Tensor]
"""Coordinates x, y and z, apart."""


class Block(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm, self.first, self.last = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.last(nn.functional.silu(self.first(self.norm(x))))


class LifterNetwork(nn.Module):
    """What `LandmarkLifter` computes in numpy."""

    def __init__(self, width: int, blocks: int = BLOCKS):
        super().__init__()
        self.first = nn.Linear(NUM_FEATURES, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, NUM_OUTPUTS)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        x = self.first(features)
        for block in self.blocks:
            x = block(x)
        return self.last(self.norm(x))


class Chains:
    """Joints of the open hand from free angles, batched and differentiable: vectors are turned about fixed axes from
    the fingertip inwards, coordinate by coordinate, which is ten times faster than small matrices."""

    def __init__(self) -> None:
        arrays = load_open_hand()
        order = list(MANO21_TO_OPENPOSE)
        rest = np.concatenate([arrays.J_template, arrays.v_template[arrays.tip_vertices]])[order]
        dirs = np.concatenate([arrays.J_shapedirs, arrays.shapedirs[arrays.tip_vertices]])[order]
        self._rest, self._dirs = torch.tensor(rest).float(), torch.tensor(dirs).float()
        axes = anatomical_axes(arrays)[_CHAINS - 1]  # (5, 3 levels, flexion abduction twist, 3)
        self._axes = torch.tensor(axes).float()
        column = np.full((15, 3), NUM_FREE)
        column[FREE] = np.arange(NUM_FREE)
        self._column = torch.tensor(column[_CHAINS - 1])  # the column of zeros for angles that are fixed

    def rest(self, betas: torch.Tensor) -> torch.Tensor:
        """(B, 21, 3) joints at rest of (B, 10) betas, from the wrist."""
        rest = self._rest + torch.einsum("jak,bk->bja", self._dirs, betas)
        return rest - rest[:, :1]

    def __call__(self, angles: torch.Tensor, rest: torch.Tensor) -> Vectors:
        """(N, 22) radians and (N, 21, 3) joints at rest -> the 20 joints after the wrist in the hand's frame, from the
        wrist: three (N, 20)."""
        turned = torch.cat([angles, torch.zeros_like(angles[:, :1])], 1)[:, self._column.flatten()]
        sin, cos = (each.unflatten(1, (5, 3, 3)) for each in (turned.sin(), turned.cos()))
        fingers = rest[:, 1:].unflatten(1, (5, 4)).unbind(-1)
        bones = [values[..., 1:] - values[..., :-1] for values in fingers]  # three of (N, 5, 3)
        arms = [bone[..., :0] for bone in bones]
        for level in (2, 1, 0):
            here = [bone[..., level : level + 1] for bone in bones]
            arms = [torch.cat([bone, bone + arm], -1) for bone, arm in zip(here, arms, strict=True)]
            for which in (2, 0, 1):  # twist first, abduction last
                if (self._column[:, level, which] < NUM_FREE).any():
                    turn = sin[:, :, level, which, None], cos[:, :, level, which, None]
                    arms = _turn(arms, self._axes[:, level, which], *turn)
        starts = [values[..., :1] for values in fingers]
        return [torch.cat([at, at + arm], -1).flatten(1) for at, arm in zip(starts, arms, strict=True)]


def _turn(vectors: Vectors, axis: torch.Tensor, sin: torch.Tensor, cos: torch.Tensor) -> Vectors:
    """Rodrigues' formula on three (N, 5, M) about axes (5, 3)."""
    (x, y, z), (a, b, c) = vectors, (axis[:, k, None] for k in range(3))
    along = (a * x + b * y + c * z) * (1 - cos)
    return [
        x * cos + (b * z - c * y) * sin + a * along,
        y * cos + (c * x - a * z) * sin + b * along,
        z * cos + (a * y - b * x) * sin + c * along,
    ]


def turned_by(six: torch.Tensor, vectors: Vectors) -> Vectors:
    """Three (N, M) by the rotations whose first two columns, made orthonormal, are (N, 6)."""
    first = nn.functional.normalize(six[:, :3], dim=1)
    second = six[:, 3:] - (first * six[:, 3:]).sum(1, keepdim=True) * first
    second = nn.functional.normalize(second, dim=1)
    third = torch.linalg.cross(first, second)
    x, y, z = vectors
    return [x * first[:, k : k + 1] + y * second[:, k : k + 1] + z * third[:, k : k + 1] for k in range(3)]


class Hands:
    """Batches of sampled hands and their landmarks, by (seed, step)."""

    def __init__(self, pool: np.ndarray, seed: int):
        self._pool, self._seed = pool, seed
        self._chains, self._residuals = Chains(), DetectorResiduals.load()
        self._calm = calm(self._residuals)
        limits = JOINT_LIMITS_RAD[FREE]
        self._lower, self._upper = limits[:, 0], limits[:, 1]

    def __call__(self, step: int, num: int) -> dict[str, torch.Tensor]:
        """features (B, 148), angles (B, 22), betas (B, 10), rest (B, 21, 3), and joints (B, 21, 3) from the wrist with
        the axes of the upright view."""
        rng = np.random.default_rng((self._seed, step))
        angles = self._pool[rng.integers(len(self._pool), size=num)] + rng.normal(0, np.deg2rad(3.0), (num, NUM_FREE))
        angles = np.clip(angles, self._lower, self._upper)
        betas = np.clip(rng.normal(size=(num, NUM_BETAS)), -2.5, 2.5)
        rest = self._chains.rest(torch.from_numpy(betas).float())
        joints = torch.stack(self._chains(torch.from_numpy(angles).float(), rest), -1).numpy().astype(float)
        joints = np.concatenate([np.zeros((num, 1, 3)), joints], 1)
        joints = joints @ _random_rotations(rng, num).swapaxes(1, 2)
        distance = np.exp(rng.uniform(np.log(0.2), np.log(1.5), num))
        place = np.zeros((num, 3))
        place[:, 2] = distance + np.maximum(0.08 - joints[..., 2].min(1) - distance, 0)  # all before the camera
        _, view = turn_to_view(joints - joints.mean(1, keepdims=True) * [1, 1, 0] + place[:, None])
        points, relative, seen, there = self._landmarks(rng, view)
        features, upright = to_features(points, relative, seen, there)
        truth = (view - view[:, :1]) @ upright.swapaxes(1, 2)
        arrays = {"features": features, "angles": angles, "betas": betas, "joints": truth}
        return {**{name: torch.from_numpy(a).float() for name, a in arrays.items()}, "rest": rest}

    def _landmarks(self, rng: np.random.Generator, view: np.ndarray) -> tuple[np.ndarray, ...]:
        """Points (B, 21, 2), relative landmarks (B, 21, 3) and which of them are there, of joints in the view."""
        num = len(view)
        palm, middle = palm_length(view)[:, None, None], view.mean(1, keepdims=True)
        conditions, seed = Conditions.of(view), rng.integers(2**63)
        pairs = [table.sample(np.random.default_rng(seed), conditions) for table in (self._calm, self._residuals)]
        share = rng.uniform(0.25, 1.0, (num, 1, 1))
        points, relative = (
            (1 - share) * low + share * high for low, high in zip(*(pair[:2] for pair in pairs), strict=True)
        )
        points = points + rng.normal(0, 0.01, points.shape)
        relative = relative + rng.normal(0, 0.01, relative.shape)
        points = view[..., :2] / view[..., 2:] + points * palm / middle[..., 2:]
        relative = (view - middle) / palm + relative
        kind = rng.random(num)
        lost = (rng.random((num, NUM_JOINTS)) < 0.2) & (kind < 0.125)[:, None]
        flat_only = (kind > 0.875)[:, None] | ((rng.random((num, NUM_JOINTS)) < 0.3) & (kind > 0.85)[:, None])
        return points, relative, ~lost, ~lost & ~flat_only


def calm(table: DetectorResiduals) -> DetectorResiduals:
    """The same table with each vector replaced by the mean of those of hands alike."""
    means = table.means()
    return replace(table, points=means[..., :2], joints=means[..., 2:])


def _random_rotations(rng: np.random.Generator, num: int) -> np.ndarray:
    """(N, 3, 3) uniform (of unit quaternions)."""
    q = rng.normal(size=(num, 4))
    x, y, z, w = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, -1) for row in rows], -2)


def make_pool(path: Path, num: int) -> np.ndarray:
    """(N, 22) free angles, sampled once."""
    if not path.exists():
        rng = np.random.default_rng(SEED)
        poses = np.stack([sample_pose(rng, gestures=1.0, contact=True)[FREE] for _ in range(num)])
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            np.save(file, poses.astype(np.float32))
    return np.load(path)


def loss_of(outputs: torch.Tensor, hands: dict[str, torch.Tensor], chains: Chains) -> tuple[torch.Tensor, dict]:
    """The loss and what is printed: mean error (mm) of the likeliest and of the best hypothesis."""
    betas, logits, six, free, log_scale = split_outputs(outputs)
    limits = torch.tensor(JOINT_LIMITS_RAD[FREE]).float()
    angles = limits.mean(1) + 0.5 * (limits[:, 1] - limits[:, 0]) * free
    rest = hands["rest"].repeat_interleave(NUM_HYPOTHESES, 0)
    joints = turned_by(six.flatten(0, 1), chains(angles.flatten(0, 1), rest))
    truth = hands["joints"][:, 1:].repeat_interleave(NUM_HYPOTHESES, 0).unbind(-1)
    squared = sum((100 * (a - b)).square() for a, b in zip(joints, truth, strict=True))
    distance = (squared + 0.01).sqrt().unflatten(0, (-1, NUM_HYPOTHESES))  # cm; 1 mm counts as nothing
    log_scale = log_scale.clamp(-4, 3)
    nll = _SHARE * (3 * log_scale + distance * torch.exp(-log_scale)).sum(-1)
    each = torch.log_softmax(logits, 1) - nll
    share = torch.softmax(each.detach(), 1)
    off_angles = (angles - hands["angles"][:, None]).square().sum(-1)
    betas_off = (betas - hands["betas"]).square().mean()
    loss = -torch.logsumexp(each, 1).mean() + 0.3 * (share * off_angles).sum(1).mean() + 0.3 * betas_off
    mean = 10 * distance.detach().mean(-1)
    first = mean.gather(1, logits.argmax(1, keepdim=True)).mean()
    return loss, {"likeliest": first, "best": mean.min(1).values.mean(), "betas": betas_off.detach()}


def train(folder: Path, samples: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    chains, hands = Chains(), Hands(make_pool(folder / "pool.npy", POOL), SEED)
    torch.manual_seed(SEED)
    network = LifterNetwork(WIDTH)
    mean = copy.deepcopy(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-4, betas=(0.9, 0.98))
    step, steps = 0, math.ceil(samples / BATCH)
    if (folder / "state.pt").exists():
        state = torch.load(folder / "state.pt", weights_only=True)
        network.load_state_dict(state["network"])
        mean.load_state_dict(state["mean"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    begun, told = time.process_time(), []
    while step < steps:
        rate = 2e-3 * min(1, (step + 1) / 200) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = hands(step, BATCH)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = network(batch["features"])
        loss, scores = loss_of(outputs.float(), batch, chains)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        step += 1
        decay = min(0.999, (1 + step) / (10 + step))
        with torch.no_grad():
            for a, b in zip(mean.parameters(), network.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        told.append([loss.item(), *(value.item() for value in scores.values())])
        if step % EVERY == 0 or step == steps:
            row = dict(zip(("loss", *scores), np.mean(told, 0).round(3).tolist(), strict=True))
            print(f"{step * BATCH / 1e6:.2f} M, {time.process_time() - begun:.0f} s, lr {rate:.1e}: {row}", flush=True)
            told = []
            save(folder, network, mean, optimizer, step)


def save(folder: Path, network: nn.Module, mean: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    states = {"network": network.state_dict(), "mean": mean.state_dict(), "optimizer": optimizer.state_dict()}
    with atomic_file(folder / "state.pt") as temporary:
        torch.save({**states, "step": step}, temporary)
    with atomic_file(folder / "lifter.safetensors") as temporary:
        save_file({name: value.half().contiguous() for name, value in mean.state_dict().items()}, temporary)


def score(folder: Path) -> None:
    """Prints the errors of the shipped form on hands of another seed."""
    chains, hands = Chains(), Hands(make_pool(folder / "pool.npy", POOL), SEED + 1)
    batch = hands(0, 8192)
    outputs = LandmarkLifter(folder / "lifter.safetensors")._forward(batch["features"].double().numpy())
    loss, scores = loss_of(torch.from_numpy(outputs).float(), batch, chains)
    print({"loss": round(loss.item(), 3), **{name: round(value.item(), 3) for name, value in scores.items()}})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--samples", type=int, default=30_000_000)
    parser.add_argument("--score", action="store_true", help="score the weights in FOLDER instead of training")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.score:
        score(args.folder)
    else:
        train(args.folder, args.samples)


if __name__ == "__main__":
    main()
