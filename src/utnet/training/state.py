"""The initial network of a run (`make_model`), and its state in last/, from which it is resumed exactly.

- run.json: `Progress`, plain numbers.
- training.safetensors: `optimiser/KEY/PARAMETER` (AdamW's moments and step), `mean/PARAMETER` (the running mean of the
  weights, with `train.ema`), `random/cpu/RANK` and `random/cuda/RANK` (states of torch's random numbers).

Entries are full tensors by the parameters' names, so a run can be resumed with another number of processes, or with DDP
instead of FSDP; with the same number it is bit-equal.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from utnet.checkpoint import (
    RUN,
    find_checkpoint,
    is_finite,
    load_checkpoint,
    recover_interrupted_save,
    save_checkpoint,
)
from utnet.config import Config, ModelConfig, TrainConfig
from utnet.data.loader import Loader
from utnet.distributed import ProcessInfo, copy_sharded_, full_tensor, is_sharded
from utnet.errors import InputError
from utnet.model import UTNet
from utnet.model.presets import resolve_preset
from utnet.training.ema import EMA
from utnet.training.pretrained import backbone_parameters, load_backbone
from utnet.training.resume_checks import REMEDY, check_entries, progress_fault

TRAINING = "training.safetensors"
_PARTS = ("uncertainty", "prompts", "evidence")
"""Switches of `model` for parts that can be added to a trained network: they have no effect at first."""


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        step: completed steps.
        seconds: training time, over all resumed parts.
        samples: training samples of all processes since the last row of the log.
        busy: seconds of training for these, without checkpoints and validations.
        share: completed share of the run.
        scored: step of the last validation.
        lowest: the best selection score, or None.
        scores: of the last validation.
        best: scores of the best validation.
        sums: sums of the loss terms since the last row of the log.
        num_sums: number of summed steps.
        loaders: `Loader.position` and `Loader.bad` of every process.
    """

    step: int = 0
    seconds: float = 0.0
    samples: int = 0
    busy: float = 0.0
    share: float = 0.0
    scored: int = 0
    lowest: float | None = None
    scores: dict = field(default_factory=dict)
    best: dict = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    num_sums: int = 0
    loaders: list[dict] = field(default_factory=list)

    def add(self, terms: dict[str, float], num_samples: int, seconds: float) -> None:
        """Adds a step with its loss terms and duration."""
        self.step, self.num_sums = self.step + 1, self.num_sums + 1
        self.samples, self.busy = self.samples + num_samples, self.busy + seconds
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in terms.items()}

    def take_means(self) -> tuple[dict[str, float], float]:
        """Returns each term's mean and samples per second since the last call."""
        means, speed = {name: value / self.num_sums for name, value in self.sums.items()}, self.samples / self.busy
        self.sums, self.num_sums, self.samples, self.busy = {}, 0, 0, 0.0
        return means, speed

    def loader_of(self, world: ProcessInfo) -> dict:
        """This process's {"position", "bad"}; with another number of processes their total, divided equally."""
        if len(self.loaders) == world.size:
            return self.loaders[world.rank]
        positions = [loader["position"] for loader in self.loaders]
        drawn = -(-sum(position["drawn"] for position in positions) // world.size)
        # A stream cannot be resumed at other processes' positions; it starts another pass.
        epoch = 1 + max(epoch for position in positions for epoch, _ in position["places"].values())
        places = {worker: [epoch, 0] for worker in positions[0]["places"]}
        bad = {key: message for loader in self.loaders for key, message in loader["bad"].items()}
        position = {"drawn": drawn, "turn": 0, "places": places}
        return {"position": position, "bad": bad if world.is_main else {}}


@dataclass
class Run:
    """The mutable state of training."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    mean: EMA | None
    progress: Progress

    def save(self, folder: Path, config: Config, loader: Loader, world: ProcessInfo) -> None:
        """Writes last/; all processes call it, the first one writes.

        Raises:
            FloatingPointError: weights or moments are NaN or inf; last/ is unchanged.
        """
        self.progress.loaders = world.gather({"position": loader.position, "bad": loader.bad})
        tensors = {**self._optimizer_tensors(), **self._random_tensors(world)}
        if self.mean is not None:
            tensors |= {f"mean/{name}": full_tensor(tensor) for name, tensor in self.mean.shadow.items()}
        everything = {**dict(self.model.named_parameters()), **tensors}
        broken = [name for name, tensor in everything.items() if not is_finite(_own_part(tensor))]
        found = [name for process in world.gather(broken[:1]) for name in process]
        if found:
            raise FloatingPointError(
                f"{found[0]} is NaN or inf after step {self.progress.step}; {folder} is not written"
            )
        self._write(folder, config, world, {TRAINING: tensors}, metrics=self.progress.scores, full=True)

    def save_best(self, folder: Path, config: Config, world: ProcessInfo) -> None:
        """Writes the current weights to best/."""
        self._write(folder, config, world, {}, metrics=self.progress.scores)

    def restore(self, folder: Path) -> None:
        """Loads the optimizer's moments and the running mean of a last/ folder (`make_model` loads its weights).

        Raises:
            InputError: no checkpoint that can be resumed.
        """
        folder = recover_interrupted_save(folder)
        tensors = _read(folder / TRAINING)
        if bool(self.mean) != any(name.startswith("mean/") for name in tensors):
            raise InputError(f"{folder}: train.ema was {'off' if self.mean else 'on'}; resume with the same setting")
        parameters = dict(self.model.named_parameters())
        check_entries(tensors, parameters, mean=self.mean is not None, where=folder / TRAINING)
        for entry, tensor in tensors.items():
            kind, _, name = entry.partition("/")
            if kind == "mean" and self.mean is not None:
                copy_sharded_(self.mean.shadow[name], tensor)
            elif kind == "optimiser":
                key, _, name = name.partition("/")
                self.optimizer.state[parameters[name]][key] = _like(parameters[name], tensor)

    def restore_random(self, folder: Path, world: ProcessInfo) -> None:
        """Restores this process's random state; with another number of processes it is seeded anew."""
        path = recover_interrupted_save(folder) / TRAINING
        tensors = _read(path)
        same = f"random/cpu/{world.size}" not in tensors and f"random/cpu/{world.size - 1}" in tensors
        if not same:
            torch.manual_seed(torch.initial_seed() + 1_000 * self.progress.step + world.rank)
            return
        try:
            torch.set_rng_state(tensors[f"random/cpu/{world.rank}"])
            cuda = tensors.get(f"random/cuda/{world.rank}")
            if cuda is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state(cuda)
        except (KeyError, RuntimeError, TypeError) as error:
            raise InputError(f"{path}: random/ contains no state of torch's random numbers; {REMEDY}") from error

    def _write(
        self, folder: Path, config: Config, world: ProcessInfo, extra_files: dict, *, metrics: dict, full=False
    ) -> None:
        """`full`: with the progress."""
        parts = any(map(is_sharded, self.model.parameters()))
        weights = {name: full_tensor(tensor) for name, tensor in self.model.state_dict().items()} if parts else None
        if world.is_main:
            info = {"step": self.progress.step, "metrics": metrics}
            if full:
                info["progress"] = asdict(self.progress)
            save_checkpoint(
                folder,
                self.model,  # type: ignore[arg-type]
                config,
                weights=weights,
                extra_files=extra_files,
                **info,  # type: ignore[arg-type]
            )
        world.wait()

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        state = self.optimizer.state
        return {
            f"optimiser/{key}/{name}": full_tensor(tensor)
            for name, parameter in self.model.named_parameters()
            for key, tensor in state.get(parameter, {}).items()
        }

    def _random_tensors(self, world: ProcessInfo) -> dict[str, Tensor]:
        states = {"cpu": torch.get_rng_state()}
        if next(self.model.parameters()).is_cuda:
            states["cuda"] = torch.cuda.get_rng_state()
        everyone = world.gather(states)
        return {f"random/{kind}/{rank}": s[kind] for rank, s in enumerate(everyone) for kind in s}


def read_run_metadata(workdir: Path) -> dict:
    """The contents of run.json of the run in a folder, {} without one."""
    try:
        tree = json.loads((workdir / RUN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def read_progress(folder: str | Path) -> Progress:
    """The progress in a last/ folder.

    Raises:
        InputError: no checkpoint, or one that cannot be resumed.
    """
    folder = recover_interrupted_save(folder)
    path = folder / RUN
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the folder of a run with last/")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))["progress"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: contains no progress to resume; {REMEDY}") from error
    known = {f.name for f in fields(Progress)}
    if not isinstance(tree, dict) or set(tree) != known:
        raise InputError(f"{path}: its progress is of another version of utnet; {REMEDY}")
    fault = progress_fault(tree)
    if fault:
        raise InputError(f"{path}: its progress is damaged: {fault}; {REMEDY}")
    return Progress(**tree)


def make_model(config: ModelConfig, train: TrainConfig, *, last: str | Path | None = None) -> tuple[UTNet, str]:
    """Builds the initial network, with a report of the loaded weights. Its backbone is frozen with
    `train.backbone_lr` 0, and up to a block with `train.frozen_blocks`.

    Args:
        config: the network.
        train: the initial weights (`init_from`, `init_kind`) and which layers are frozen.
        last: the last/ folder of a resumed run, loaded instead of `train.init_from`.

    Raises:
        InputError: weights that do not fit the network, with the differences.
    """
    model, about = _started(config, train) if last is None else _of_checkpoint(config, recover_interrupted_save(last))
    backbone, rate, frozen = backbone_parameters(model), train.backbone_lr, train.frozen_blocks
    if not backbone and (rate != 1 or frozen):
        raise InputError(
            "train.backbone_lr and train.frozen_blocks: a network with model.stem 'conv' has no pretrained part; leave "
            "them out, or use model.stem=lite0"
        )
    if (rate == 0 or frozen) and not train.init_from:
        raise InputError(
            "train.backbone_lr 0 and train.frozen_blocks would freeze random weights: set train.init_from, or leave "
            "them out"
        )
    blocks = max(backbone.values(), default=-1) + 1
    if frozen > blocks:
        raise InputError(f"train.frozen_blocks is {frozen}; the pretrained part has {blocks}")
    for name, parameter in model.named_parameters():
        if name in backbone:
            parameter.requires_grad_(rate > 0 and (not frozen or backbone[name] >= frozen))
    return model, about


def _started(config: ModelConfig, train: TrainConfig) -> tuple[UTNet, str]:
    if not train.init_from:
        return UTNet(config), ""
    where = find_checkpoint(train.init_from)
    if not where.is_dir():
        model = UTNet(config)
        return model, str(load_backbone(model, where, kind=train.init_kind))
    return _of_checkpoint(config, where)


def _of_checkpoint(config: ModelConfig, where: Path) -> tuple[UTNet, str]:
    saved, _ = load_checkpoint(where)
    differing = differences(config, saved.config)
    if differing:
        raise InputError(
            f"{where}: of another network: {'; '.join(differing)}; leave these keys out of the config and of --set"
        )
    model = UTNet(config, None if config.mano else saved.hand)
    if model.hand.name != saved.hand.name:
        raise InputError(
            f"{where}: trained with the {saved.hand.name} hand, but the config has the {model.hand.name} one"
        )
    state = saved.state_dict()
    added = {name: tensor for name, tensor in model.state_dict().items() if name not in state}
    model.load_state_dict(state | added)
    new = f", {len(added)} of new parts start without effect" if added else ""
    return model, f"{where}: all {len(state)} entries loaded (a checkpoint of UTNet's){new}"


def differences(config: ModelConfig, of: ModelConfig) -> list[str]:
    """Differences between two networks, "model.dim is 64 instead of 128"; empty if they have the same entries."""

    def sizes(config: ModelConfig) -> dict[str, object]:
        preset = asdict(resolve_preset(config))
        preset["width_px"] = round(preset.pop("width_share") * config.size_px)
        return {**preset, "size_px": config.size_px}

    wanted, had = sizes(config), sizes(of)
    for part in _PARTS:
        had[part], wanted[part] = getattr(of, part), getattr(config, part)
        if wanted[part] and not had[part]:  # it has no effect at first
            had[part] = True
    if of.uncertainty and config.uncertainty:  # with prompts it has more kinds of hands
        wanted["uncertainty with prompts"], had["uncertainty with prompts"] = config.prompts, of.prompts
    return [f"model.{key} is {wanted[key]} instead of {had[key]}" for key in wanted if wanted[key] != had[key]]


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error


def _own_part(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor (FSDP)."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


def _like(parameter: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` sharded and placed as the optimizer keeps it for `parameter`; step counts are not sharded."""
    if tensor.ndim == 0 and parameter.ndim > 0:
        return tensor.to(parameter.device)
    target = torch.zeros_like(parameter, requires_grad=False)
    copy_sharded_(target, tensor)
    return target
