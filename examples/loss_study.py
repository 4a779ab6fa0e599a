"""What the losses do: `python examples/loss_study.py [--work DIR] [--figures DIR] [--quick]` (docs/loss_study.md).

One small network, one fixed set of synthetic hands, the same first weights and the same order of samples for each seed,
the same number of samples seen. What differs from run to run is the loss, the labels, or the batch. Every finished run
is a JSON file in the work folder, so a study that was stopped goes on where it was; runs of other settings, or of other
code than this (`code_hash`), are done anew.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from loss_study_losses import (
    WILOR_PARAMETER_WEIGHTS,
    Loss,
    absolute_joints_m,
    aligned_loss,
    former_loss,
    occluded,
    translated,
    wilor_loss,
    wrong_wrist,
)
from loss_study_report import write_report
from torch import Tensor

import utnet
from utnet.config import Config, CropConfig, ModelConfig, SynthConfig
from utnet.conventions import MM_PER_M
from utnet.data.collate import collate
from utnet.data.transforms import warp
from utnet.evaluation.validation import constant_hand
from utnet.geometry import crop_affine, project
from utnet.io.atomic import write_json
from utnet.metrics import mpjpe_mm, pa_mpjpe_mm
from utnet.model import UTNet
from utnet.rotations import matrix_to_rotation_6d
from utnet.synth import SyntheticHands
from utnet.types import Batch, HandParams, Sample

HANDS_CODE = ("geometry.py", "render/raster.py", "hand", "synth", "data")
"""What the hands come from."""
RUN_CODE = ("losses", "uncertainty.py", "metrics", "model")
"""What else a run comes from."""

SIZE_PX = 32
LEARNING_RATE = {"adamw": 3e-3, "sgd": 8e-3}
"""For sums over a batch of `Budget.batch_size`."""

CONFIG = Config(
    crop=CropConfig(expand=1.5),
    model=ModelConfig(preset="ti", size_px=SIZE_PX, dim=64, num_blocks=1, refiner="none", p_drop=0.0),
)

LOSSES: dict[str, Loss] = {
    "former_m": former_loss(),
    "former_mm": former_loss(units_per_m=1000.0),
    "former_relative": former_loss(relative=True),
    "former_l1": former_loss(squared=False),
    "aligned": aligned_loss(),
    "aligned_mm": aligned_loss(units_per_m=1000.0),
    "aligned_mean": aligned_loss(reduction="batch_mean"),
    "aligned_no_conf": aligned_loss(confidence=False),
    "wilor": wilor_loss(),
}
LABELS = {"clean": lambda batch, rng: batch, "translated": translated, "occluded": occluded, "wrist": wrong_wrist}


@dataclass(frozen=True)
class Budget:
    """How much of everything; the numbers of docs/loss_study.md are the defaults."""

    num_train: int = 2000
    num_val: int = 256
    seeds: tuple[int, ...] = (0, 1, 2)
    samples: int = 6400
    """Seen by each run, whatever its batch."""
    batch_size: int = 16
    other_batch_sizes: tuple[int, ...] = (8, 64)
    num_scores: int = 8
    """Validations over a run, besides the one before it."""
    longer: int = 4
    """One seed of (a) and of (b) goes on for so many times the samples, too."""


QUICK = Budget(
    num_train=24, num_val=8, seeds=(0,), samples=16, batch_size=4, other_batch_sizes=(8,), num_scores=1, longer=2
)


@dataclass(frozen=True)
class Run:
    """One training."""

    loss: str
    labels: str = "clean"
    optimiser: str = "adamw"
    batch_size: int = 16
    seed: int = 0
    longer: int = 1
    """Times the samples of the others."""

    @property
    def name(self) -> str:
        return f"{self.loss}-{self.labels}-{self.optimiser}-b{self.batch_size}-x{self.longer}-s{self.seed}"


def planned(budget: Budget) -> list[Run]:
    """Every run of the study, the most telling first."""
    kinds = [Run(loss) for loss in ("former_m", "aligned", "former_mm", "wilor", "aligned_mm")]
    kinds += [Run(loss, "occluded") for loss in ("former_m", "aligned", "aligned_no_conf")]
    kinds += [Run(loss, "translated") for loss in ("former_m", "aligned")]
    kinds += [Run("aligned", "wrist"), Run("former_relative"), Run("former_l1")]
    kinds = [replace(kind, batch_size=budget.batch_size) for kind in kinds]
    for optimiser in ("sgd", "adamw"):
        for size in (budget.batch_size, *budget.other_batch_sizes):
            kinds += [Run(loss, "clean", optimiser, size) for loss in ("aligned", "aligned_mean")]
    runs = [replace(kind, seed=seed) for kind in dict.fromkeys(kinds) for seed in budget.seeds]
    long = Run("former_m", batch_size=budget.batch_size, seed=budget.seeds[0], longer=budget.longer)
    return [*runs, long, replace(long, loss="aligned")]


# --------------------------------------------------------------------------------------------------------------- data


def code_hash(*parts: str) -> str:
    """Of what is in these files and folders of the package, and of this study's code."""
    package = Path(utnet.__file__).parent
    found = [Path(__file__), Path(__file__).with_name("loss_study_losses.py")]
    for part in parts:
        found += [package / part] if part.endswith(".py") else sorted((package / part).rglob("*.py"))
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in found)).hexdigest()[:16]


def make_samples(seed: int, num: int) -> list[Sample]:
    """Crops of hands seen on one side, turned upright (within 20 degrees): an easy set that minutes can teach."""
    crop_config = CropConfig(expand=2.0, scale_jitter=0.0, shift_jitter=0.0, rotation_jitter_deg=0.0)
    source = SyntheticHands(seed=seed, size_px=3 * SIZE_PX // 2, synth=SynthConfig(max_tilt_deg=45.0), crop=crop_config)
    samples: list[Sample] = []
    index = 0
    while len(samples) < num:
        sample, rng = source[index], np.random.default_rng((seed, index, 1))
        index += 1
        if sample.params.global_orient[0, 2, 1] > 0:  # the palm's normal and the viewing axis: one side of the hand
            wrist, middle = project(sample.joints_cam_m[[0, 9]], sample.K_px)
            angle = -math.pi / 2 - math.atan2(*(middle - wrist)[::-1]) + math.radians(rng.uniform(-20, 20))
            expand, shift = CONFIG.crop.expand * math.exp(rng.uniform(-0.14, 0.14)), rng.uniform(-0.06, 0.06, 2)
            A = crop_affine(sample.box_px, SIZE_PX, expand=expand, rotation_rad=angle, shift=tuple(shift))
            samples.append(warp(sample, A, SIZE_PX))
    return samples


def load_data(work: Path, budget: Budget) -> tuple[Batch, Batch]:
    """Training and held-out hands; drawn once, then read from the work folder."""
    batches = []
    for seed, num in ((11, budget.num_train), (12, budget.num_val)):
        path = work / f"hands_{seed}_{num}_{code_hash(*HANDS_CODE)}.npz"
        if not path.exists():
            batch = collate(make_samples(seed, num))
            arrays = {k: v.numpy() for k, v in vars(batch).items() if isinstance(v, Tensor)}
            arrays |= {f"params.{k}": v.numpy() for k, v in vars(batch.params).items()}
            np.savez(path.with_suffix(".part.npz"), **arrays)  # type: ignore[arg-type]
            path.with_suffix(".part.npz").replace(path)
        with np.load(path) as file:
            tensors = {k: torch.from_numpy(file[k]) for k in file}
        params = HandParams(**{k.removeprefix("params."): v for k, v in tensors.items() if k.startswith("params.")})
        rest = {k: v for k, v in tensors.items() if not k.startswith("params.")}
        batches.append(Batch(**rest, params=params, keys=tuple(f"{seed}/{i}" for i in range(num))))
    return batches[0], batches[1]


def take(batch: Batch, index: np.ndarray) -> Batch:
    """The samples of these numbers."""
    rows = torch.from_numpy(np.asarray(index))
    return replace(batch.map(lambda tensor: tensor[rows]), keys=tuple(batch.keys[i] for i in index))


def batches(train: Batch, run: Run, budget: Budget):
    """The run's batches: one order of samples a seed, cut into batches of any size."""
    rng, queue = np.random.default_rng((run.seed, 2)), np.empty(0, int)
    for _ in range(run.longer * budget.samples // run.batch_size):
        while len(queue) < run.batch_size:
            queue = np.concatenate([queue, rng.permutation(len(train))])
        yield take(train, queue[: run.batch_size])
        queue = queue[run.batch_size :]


# ----------------------------------------------------------------------------------------------------------- training


def new_model(train: Batch, seed: int) -> UTNet:
    """The network before training: it answers the mean pose of the training hands."""
    torch.manual_seed(seed)
    model = UTNet(CONFIG.model).train()
    pose = torch.cat([train.params.global_orient, train.params.hand_pose], 1)
    model.hand_tokens.mean_pose.copy_(matrix_to_rotation_6d(pose).mean(0))
    return model


def new_optimiser(model: UTNet, run: Run, budget: Budget) -> tuple[torch.optim.Optimizer, float]:
    """No clipping: it would hide what a loss's size does. SGD's rate for means is that for sums times the usual batch,
    so that both make the same steps there."""
    if run.optimiser == "adamw":
        return torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99)), LEARNING_RATE["adamw"]
    lr = LEARNING_RATE["sgd"] * (budget.batch_size if run.loss == "aligned_mean" else 1)
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), lr


def train_one(run: Run, train: Batch, val: Batch, budget: Budget) -> dict:
    """Trains one network; its curves and scores as plain numbers. A run that stops being finite ends as "diverged"."""
    start, loss = time.monotonic(), LOSSES[run.loss]
    train = LABELS[run.labels](train, np.random.default_rng((run.seed, 3)))
    model = new_model(train, run.seed)
    optimiser, lr = new_optimiser(model, run, budget)
    num_steps = run.longer * budget.samples // run.batch_size
    marks = {round(num_steps * i / budget.num_scores) for i in range(1, budget.num_scores + 1)}
    curve: list[dict] = []
    scores = [{"samples": 0, **score(model, val)}]
    diverged = False
    for step, batch in enumerate(batches(train, run, budget), 1):
        warm_up = min(1.0, 20 * step / num_steps)
        for group in optimiser.param_groups:
            group["lr"] = lr * warm_up * 0.5 * (1 + math.cos(math.pi * (step - 1) / num_steps))
        prediction = model.forward_batch(batch, with_vertices=False)
        terms = loss(prediction, batch)
        optimiser.zero_grad(set_to_none=True)
        terms["total_loss"].backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients).item()
        size = math.sqrt(sum(g.numel() for g in gradients))
        curve.append({k: v.item() for k, v in terms.items()} | errors(prediction, batch) | {"grad_rms": norm / size})
        if not math.isfinite(norm):
            diverged = True
            break
        optimiser.step()
        if step in marks:
            scores.append({"samples": step * run.batch_size, **score(model, val)})
    columns = {key: [row[key] for row in curve] for key in curve[0]}
    seconds = time.monotonic() - start
    return {"run": asdict(run), "diverged": diverged, "curve": columns, "scores": scores, "seconds": seconds}


@torch.no_grad()
def errors(prediction, batch: Batch) -> dict[str, float]:
    """Mean absolute coordinate errors on a batch in one currency, whatever the loss: what the network got wrong."""
    points = batch.joints_3d[..., :3]
    absolute = absolute_joints_m(prediction, batch.K_px, SIZE_PX) - points
    relative = prediction.joints_m - prediction.joints_m[:, :1] - (points - points[:, :1])
    in_2d = prediction.joints_crop - batch.joints_2d[..., :2]
    named = {"mean_2d": in_2d, "mean_absolute_m": absolute, "mean_relative_m": relative}
    return {name: error.abs().mean().item() for name, error in named.items()}


@torch.no_grad()
def score(model: UTNet, val: Batch) -> dict[str, float | None]:
    """Held-out errors: MPJPE relative to the wrist, after Procrustes, of absolute positions (mm), in the image (px).
    None where an answer of the network is not finite."""
    model.eval()
    parts = [take(val, part) for part in np.array_split(np.arange(len(val)), -(-len(val) // 64))]
    predictions = [model.forward_batch(part, with_vertices=False) for part in parts]
    model.train()
    joints = torch.cat([p.joints_m for p in predictions])
    absolute = torch.cat([absolute_joints_m(p, b.K_px, SIZE_PX) for p, b in zip(predictions, parts, strict=True)])
    in_image = torch.cat([p.joints_crop for p in predictions]) - val.joints_2d[..., :2]
    truth = val.joints_3d[..., :3]
    if not (joints.isfinite().all() and absolute.isfinite().all() and in_image.isfinite().all()):
        return dict.fromkeys(("mpjpe_mm", "pa_mpjpe_mm", "absolute_mm", "image_px"))
    return {
        "mpjpe_mm": mpjpe_mm(joints, truth).mean().item(),
        "pa_mpjpe_mm": pa_mpjpe_mm(joints, truth).mean().item(),
        "absolute_mm": (absolute - truth).norm(dim=-1).mean().item() * MM_PER_M,
        "image_px": in_image.norm(dim=-1).mean().item() * SIZE_PX,
    }


# ------------------------------------------------------------------------------------------------ values, no training


def measure_values(train: Batch, budget: Budget) -> dict:
    """What the terms are worth on the untrained networks: by batch size, under moved labels, (b) against (c)."""
    losses = {name: LOSSES[name] for name in ("former_m", "aligned", "aligned_mean")}
    by_batch: list[dict] = []
    by_shift: list[dict] = []
    equal: list[dict] = []
    for seed in budget.seeds:
        model = new_model(train, seed)
        size = min(256, len(train))
        order = np.random.default_rng((seed, 2)).permutation(len(train))[:size]
        batch = take(train, order)
        with torch.no_grad():
            prediction = model.forward_batch(batch, with_vertices=False)
        for num in (n for n in (4, 16, 64, 256) if n <= size):
            few = replace(prediction, coarse=None, joint_map=None, joint_heat=None, root_z_m=None)
            few = few.map(lambda tensor, num=num: tensor[:num])
            for name, loss in losses.items():
                terms = loss(few, take(batch, np.arange(num)))
                values = {key: terms[key].item() for key in ("loss_2d", "loss_3d_joint")}
                by_batch.append({"seed": seed, "loss": name, "batch_size": num, **values})
        for reach_m in (0.0, 0.01, 0.1, 1.0):
            moved = translated(batch, np.random.default_rng((seed, 4)), reach_m=reach_m)
            for name, loss in losses.items():
                value = loss(prediction, moved)["loss_3d_joint"].item()
                by_shift.append({"seed": seed, "loss": name, "reach_m": reach_m, "loss_3d_joint": value})
        equal.append({"seed": seed, **compare_all_terms(model, take(batch, np.arange(min(16, size))))})
    return {"by_batch": by_batch, "by_shift": by_shift, "equal": equal}


def compare_all_terms(model: UTNet, batch: Batch) -> dict[str, float]:
    """(b) against (c) with all of WiLoR's five terms: largest relative differences of a term and of the gradient."""
    weights = {f"w_{name}": weight for name, weight in WILOR_PARAMETER_WEIGHTS.items()}
    results = []
    for loss in (aligned_loss(weights=weights), wilor_loss(**WILOR_PARAMETER_WEIGHTS)):
        model.zero_grad(set_to_none=True)
        terms = loss(model.forward_batch(batch, with_vertices=False), batch)
        terms["total_loss"].backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((terms, gradient))
    (ours, gradient), (theirs, gradient_c) = results
    term = max(abs(ours[name].item() / theirs[name].item() - 1) for name in theirs)
    return {"terms": term, "gradient": ((gradient - gradient_c).norm() / gradient_c.norm()).item()}


# --------------------------------------------------------------------------------------------------------------- main


def study(work: Path, figures: Path, budget: Budget, *, progress: bool = True) -> dict:
    """Runs what is not in `work` yet, then writes the figures and `work`/tables.md; returns all results."""
    runs_folder = work / "runs"
    runs_folder.mkdir(parents=True, exist_ok=True)
    settings = json.loads(json.dumps({**asdict(budget), "lr": LEARNING_RATE}))
    made_by = {"settings": settings, "code": code_hash(*HANDS_CODE, *RUN_CODE)}
    train, val = load_data(work, budget)
    results, todo = [], planned(budget)
    for number, run in enumerate(todo, 1):
        path = runs_folder / f"{run.name}.json"
        saved = json.loads(path.read_text()) if path.exists() else {}
        if {key: saved.get(key) for key in made_by} != made_by:
            saved = {**made_by, **train_one(run, train, val, budget)}
            write_json(path, saved)
        results.append(saved)
        if progress:
            last = saved["scores"][-1]
            mm = "diverged" if saved["diverged"] or last["mpjpe_mm"] is None else f"{last['mpjpe_mm']:.1f} mm"
            print(f"{number}/{len(todo)} {run.name}: {mm}, {saved['seconds']:.0f} s", flush=True)
    constant = constant_hand(val.joints_3d[..., :3].double())
    everything = {"runs": results, "values": measure_values(train, budget), "constant": constant}
    write_report(everything, settings, work / "tables.md", figures)
    return everything


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/loss_study"), help="hands, runs, tables.md")
    parser.add_argument("--figures", type=Path, help="folder of the figures (default: WORK/figures)")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything, to see that it works")
    args = parser.parse_args()
    torch.set_num_threads(1)
    study(args.work, args.figures or args.work / "figures", QUICK if args.quick else Budget())
    print((args.work / "tables.md").read_text())


if __name__ == "__main__":
    main()
