"""Every knob on one page: frozen dataclasses, read from strict YAML and written back.

An unknown key, a wrong type or a missing file is an `InputError` naming the file, the key and the nearest right one.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path

import yaml

from utnet.errors import InputError
from utnet.storage import write_whole


@dataclass(frozen=True)
class LossConfig:
    """Weights of `utnet.losses.UTNetLoss`; see there for each term."""

    w_2d: float = 0.01
    w_3d_joint: float = 0.05
    w_3d_vert: float = 0.0
    w_prior: float = 0.001
    w_aux: float = 0.001
    w_global_orient: float = 0.0
    w_hand_pose: float = 0.0
    w_betas: float = 0.0
    w_pose_prior: float = 0.0
    w_joint_map: float = 0.0
    """Place and depth of the joints read off the feature maps (own presets only)."""
    w_joint_heat: float = 0.0
    """Dense supervision of the heat maps that they are read from."""
    w_root_z: float = 0.0
    """Distance of the wrist, in m, of samples with depth; 0 leaves `root_z_m` at the robust distance of the depth."""
    w_uncertainty: float = 0.0
    """Likelihood of the joints' errors (`model.uncertainty`); it teaches that head alone, never the pose."""
    loss_type: str = "l1"
    reduction: str = "sum"
    root_id: int = 0
    use_vertex_loss: bool = False
    use_aux_loss: bool = True


@dataclass(frozen=True)
class ModelConfig:
    """The network: a preset of `utnet.model.presets`, and what differs from it."""

    preset: str = "ti"
    size_px: int = 128
    """Side of the square crop."""
    p_drop: float = 0.4
    """Probability that a training sample's depth is dropped."""
    refiner: str | None = None
    """"graph", "maxpool" (WiLoR's) or "none" (the coarse hand is the result); here and below null is the preset's."""
    width_px: int | None = None
    """Columns of the square crop, round its middle, that the network looks at; null: all (preset h: three quarters)."""
    patch_px: int | None = None
    """Side of a patch: 16, or 14 (DINOv2; presets b, l, h)."""
    patch_pad_px: int | None = None
    """Padding on each side of the patch convolution (ViTPose and WiLoR: 2; MAE, DINOv2: 0)."""
    layer_scale: bool | None = None
    """A learnt factor a channel on what each half of a block adds (DINOv2)."""
    dim: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    """Width, blocks and attention heads of the encoder."""
    uncertainty: bool = False
    """A head that says how far off each joint may be (`utnet.likelihood`); it needs loss.w_uncertainty above 0."""
    checkpoint_blocks: bool = False
    """Training computes the encoder's activations a second time instead of keeping them: much less memory."""

    def __post_init__(self):
        unit = 14 if self.patch_px == 14 else 32
        ok = self.size_px > 0 and self.size_px % unit == 0
        _require("model.size_px", ok, self.size_px, f"a multiple of {unit}")
        _require("model.p_drop", 0.0 <= self.p_drop <= 1.0, self.p_drop, "0 to 1")
        ok = self.refiner in (None, "graph", "maxpool", "none")
        _require("model.refiner", ok, self.refiner, "'graph', 'maxpool', 'none' or null")
        _require("model.patch_px", self.patch_px in (None, 14, 16), self.patch_px, "14, 16 or null")
        ok = self.patch_pad_px is None or 0 <= self.patch_pad_px < 7
        _require("model.patch_pad_px", ok, self.patch_pad_px, "0 to 6, or null")
        for name in ("width_px", "dim", "depth", "num_heads"):
            value = getattr(self, name)
            _require(f"model.{name}", value is None or value >= 1, value, "at least 1, or null")


@dataclass(frozen=True)
class CropConfig:
    """How a crop is cut around a hand's box. The jitters are half-widths of uniform distributions, training only."""

    expand: float = 2.0
    """Side of the square over the longer side of the tight box."""
    aspect: float = 1.0
    """Width over height of what the network sees of the square (`model.width_px`); WiLoR's crops have 0.75."""
    scale_jitter: float = 0.15
    shift_jitter: float = 0.06
    rotation_jitter_deg: float = 30.0

    def __post_init__(self):
        _require("crop.aspect", 0.1 <= self.aspect <= 1.0, self.aspect, "0.1 to 1")
        _require("crop.expand", 1.0 <= self.expand <= 10.0, self.expand, "1 to 10")
        for name in ("scale_jitter", "shift_jitter", "rotation_jitter_deg"):
            _require(f"crop.{name}", 0.0 <= getattr(self, name) < math.inf, getattr(self, name), "0 or more")


@dataclass(frozen=True)
class AugmentConfig:
    """What training does to a crop's pixels (`utnet.data.augment`). Half-widths or largest values of uniform draws; a
    probability's name ends in _p. All at 0: nothing changes."""

    gain: float = 0.2
    channel_gain: float = 0.1
    contrast: float = 0.2
    brightness: float = 20.0
    """Of 255, as the noise."""
    saturation: float = 0.2
    hue_deg: float = 0.0
    noise: float = 5.0
    """Largest deviation of the sensor noise."""
    blur_p: float = 0.1
    blur_px: float = 1.0
    occlude_p: float = 0.0
    """A patch of one colour, nearer than the hand where there is depth."""
    occlude_size: float = 0.4
    """Largest side of the patch over the crop's."""
    depth_noise: float = 0.003
    """Largest deviation in metres at 1 m; it grows with the distance squared."""
    depth_step_m: float = 0.002
    """Largest step to which readings are rounded."""
    depth_holes_p: float = 0.3
    depth_holes: int = 6
    """Largest number of patches without readings."""
    depth_edges_p: float = 0.3
    """Readings along outlines are lost."""
    crops: bool = False
    """Change samples that are crops already, too (synthetic hands, which vary by themselves)."""

    def __post_init__(self):
        for name in ("gain", "channel_gain", "contrast", "saturation"):
            _require(f"augment.{name}", 0.0 <= getattr(self, name) < 1.0, getattr(self, name), "0 or more and below 1")
        for name in ("blur_p", "occlude_p", "occlude_size", "depth_holes_p", "depth_edges_p"):
            _require(f"augment.{name}", 0.0 <= getattr(self, name) <= 1.0, getattr(self, name), "0 to 1")
        for name, most in (("brightness", 255.0), ("noise", 60.0), ("hue_deg", 180.0), ("blur_px", 10.0)):
            _require(f"augment.{name}", 0.0 <= getattr(self, name) <= most, getattr(self, name), f"0 to {most:g}")
        for name, top in (("depth_noise", 0.1), ("depth_step_m", 0.1), ("depth_holes", 100)):
            _require(f"augment.{name}", 0 <= getattr(self, name) <= top, getattr(self, name), f"0 to {top}")


@dataclass(frozen=True)
class SynthConfig:
    """The endless synthetic source (`utnet.synth`)."""

    max_tilt_deg: float = 180.0
    """Largest angle between the camera and the palm's or the back's normal; 90 or more is the whole sphere."""
    distance_m: tuple[float, float] = (0.35, 1.0)
    fov_deg: tuple[float, float] = (40.0, 70.0)
    betas_std: float = 1.0
    forearm: bool = True
    depth_noise_m: float = 0.001

    def __post_init__(self):
        _require("synth.max_tilt_deg", self.max_tilt_deg >= 5.0, self.max_tilt_deg, "5 or more (90: the whole sphere)")
        for name, low, high in (("distance_m", 0.2, 10.0), ("fov_deg", 5.0, 120.0)):
            a, b = getattr(self, name)
            _require(f"synth.{name}", low <= a <= b <= high, [a, b], f"two rising numbers from {low} to {high}")
        for name in ("betas_std", "depth_noise_m"):
            _require(f"synth.{name}", 0.0 <= getattr(self, name) < math.inf, getattr(self, name), "0 or more")


@dataclass(frozen=True)
class DataConfig:
    """Where samples come from: "synth" (endless), a reader of `utnet.data`, or "mixture" of several."""

    name: str = "synth"
    root: str = ""
    """The data set's folder. For tars: a path, a glob, a URL or a `pipe:` command, with {000..099} for many."""
    split: str = "train"
    setup: str = "s0"
    """DexYCB's split: s0, s1, s2 or s3."""
    limit: int | None = None
    """At most this many samples, evenly spaced over the split."""
    sides: str = "both"
    """Hands to take: "right", "left" or "both"."""
    hand_model: str = "auto"
    """Model of the labels: "open", "mano", or "auto": as the tree says (MANO where it says nothing)."""
    mano: str = ""
    """Folder of your MANO_RIGHT.pkl and MANO_LEFT.pkl; only DexYCB's pose coefficients need it."""
    with_depth: bool = True
    """False leaves depth files unread."""
    weight: float = 1.0
    """Share of a part of a mixture."""
    mixture: tuple[DataConfig, ...] = ()
    """The parts of a mixture."""

    def __post_init__(self):
        _require("data.limit", self.limit is None or self.limit >= 1, self.limit, "at least 1, or null for all")
        _require("data.sides", self.sides in ("right", "left", "both"), self.sides, "right, left or both")
        _require("data.hand_model", self.hand_model in ("auto", "open", "mano"), self.hand_model, "auto, open or mano")
        _require("data.weight", 0.0 < self.weight < math.inf, self.weight, "more than 0")
        ok = bool(self.mixture) == (self.name == "mixture")
        _require("data.mixture", ok, [part.name for part in self.mixture], "parts if the name is mixture, else none")
        _require("data.mixture", all(not part.mixture for part in self.mixture), "a mixture of mixtures", "plain parts")


@dataclass(frozen=True)
class TrainConfig:
    """The loop. It ends at `steps`, or after `minutes` if that is first; the schedule follows whichever is nearer."""

    steps: int = 20000
    minutes: float | None = None
    batch_size: int = 32
    lr: float = 5e-4
    min_lr: float = 1e-6
    weight_decay: float = 0.01
    warmup_steps: int = 200
    clip_grad: float = 1.0
    """Largest norm of the gradient, per sample of the batch (the losses are sums); 0 turns clipping off."""
    num_workers: int = 1
    log_every: int = 20
    eval_every: int = 2000
    precision: str = "fp32"
    """"fp32", or "bf16" for the network's matrix products (losses and the hand model stay in fp32)."""
    num_threads: int | None = None
    """CPU threads of the network; null leaves torch's choice."""
    max_bad_samples: int = 50
    """Unreadable samples that training skips (and names) before it stops."""
    init_from: str = ""
    """File of ViTPose's, DINOv2's or MAE's weights that the encoder starts from; empty: from nothing."""
    init_kind: str = "auto"
    """Whose they are: "vitpose", "dinov2", "mae", or "auto": as the entries say (`utnet.starting_weights`)."""

    def __post_init__(self):
        for name in ("steps", "batch_size", "log_every", "eval_every"):
            _require(f"train.{name}", getattr(self, name) >= 1, getattr(self, name), "at least 1")
        for name in ("warmup_steps", "num_workers", "max_bad_samples", "clip_grad", "weight_decay", "min_lr"):
            _require(f"train.{name}", 0 <= getattr(self, name) < math.inf, getattr(self, name), "0 or more")
        _require("train.lr", 0.0 < self.lr < math.inf, self.lr, "more than 0")
        _require("train.minutes", self.minutes is None or self.minutes > 0, self.minutes, "more than 0, or null")
        _require("train.num_threads", self.num_threads is None or self.num_threads >= 1, self.num_threads, "at least 1")
        kinds = ("auto", "vitpose", "dinov2", "mae")
        _require("train.init_kind", self.init_kind in kinds, self.init_kind, "auto, vitpose, dinov2 or mae")
        _require("train.precision", self.precision in ("fp32", "bf16"), self.precision, "'fp32' or 'bf16'")


@dataclass(frozen=True)
class Config:
    """A complete run."""

    seed: int = 0
    device: str = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    val: DataConfig | None = None
    crop: CropConfig = field(default_factory=CropConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    synth: SynthConfig = field(default_factory=SynthConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        _require("seed", self.seed >= 0, self.seed, "0 or more")
        weight, head = self.loss.w_uncertainty, self.model.uncertainty
        expected = "more than 0 with model.uncertainty: true" if head else "0 without model.uncertainty: true"
        _require("loss.w_uncertainty", (weight > 0) == head, weight, expected)

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Reads a YAML file; keys that are absent keep their defaults.

        Raises:
            InputError: no such file, not YAML, an unknown key (with the nearest right one) or a wrong type.
        """
        path = Path(path)
        if not path.is_file():
            raise InputError(
                f"{path}: no such config file; complete runs are in config/, the default is config/config.yaml"
            )
        try:
            tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_StrictLoader)
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise InputError(f"{path}: not a YAML file: {str(error).splitlines()[0]}") from error
        return from_tree(cls, {} if tree is None else tree, where=str(path))

    def save(self, path: str | Path) -> None:
        """Writes every knob, defaults included, so that the file alone repeats the run."""
        write_whole(path, yaml.safe_dump(to_tree(self), sort_keys=False))


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error, not the last one's victory."""

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"the key {key!r} stands twice in one mapping")
        return super().construct_mapping(node, deep)


def _require(name: str, ok: bool, value, expected: str) -> None:
    if not ok:
        raise InputError(f"{name} is {value!r}; expected {expected}")


def override(config: Config, changes: tuple[str, ...] | list[str]) -> Config:
    """The config with some knobs changed.

    Args:
        config: a run.
        changes: "train.lr=1e-4" and the like; values are read as YAML.

    Raises:
        InputError: not KEY=VALUE, an unknown key or a wrong type.
    """
    tree = to_tree(config)
    for change in changes:
        path, equals, value = change.partition("=")
        if not equals:
            raise InputError(f"--set {change!r}: expected KEY=VALUE, such as train.lr=1e-4")
        *parents, last = path.split(".")
        branch = tree
        for name in parents:
            if not isinstance(branch.get(name), dict):
                branch[name] = {}
            branch = branch[name]
        try:
            branch[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {change!r}: the value is not YAML") from error
    return from_tree(type(config), tree, where="--set")


def to_tree(config) -> dict:
    """Plain dicts, lists and scalars of a config dataclass."""

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, tuple) else value

    return plain(asdict(config))


def from_tree(cls: type, tree: object, *, where: str = "config"):
    """Builds the dataclass `cls` from plain YAML values, strictly.

    Raises:
        InputError: unknown key or wrong type; the message starts with `where` and the dotted key.
    """
    if not isinstance(tree, dict):
        raise InputError(f"{where}: expected a mapping of {cls.__name__} keys, found {tree!r}")
    hints = typing.get_type_hints(cls)
    known = [f.name for f in fields(cls)]
    for key in tree:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known keys: {', '.join(known)}"
            raise InputError(f"{where}: unknown key {key!r}{hint}")
    return cls(**{key: _convert(hints[key], value, f"{where}: {key}") for key, value in tree.items()})


def _convert(hint, value, where: str):
    """`value` as the annotated type; int is taken for float, a list for a tuple, nothing else is bent."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (hint,) = (a for a in args if a is not type(None))
        return _convert(hint, value, where)
    if is_dataclass(hint):
        return from_tree(typing.cast(type, hint), value, where=where)
    if origin is tuple and args[-1] is Ellipsis:
        if not isinstance(value, list):
            raise InputError(f"{where}: expected a list, found {value!r}")
        return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(args):
            raise InputError(f"{where}: expected a list of {len(args)} values, found {value!r}")
        return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):  # YAML 1.1 reads 1e-3 (no dot) as text
        try:
            return float(value)
        except ValueError:
            pass
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise InputError(f"{where}: expected {hint.__name__}, found {value!r}")
    return value
