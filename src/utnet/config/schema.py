"""All config fields: frozen dataclasses, one per section of a run's YAML file."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import ClassVar

from utnet.config.loading import from_tree, read_yaml, require, require_range, to_tree, to_yaml
from utnet.config.synth_schema import SynthConfig
from utnet.config.validation import default_validation
from utnet.io.atomic import atomic_write


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
    """Position and depth of the joints read from the feature maps (own presets only)."""
    w_joint_heat: float = 0.0
    """Dense supervision of the joints' heat maps."""
    w_root_z: float = 0.0
    """Distance of the wrist, in m, of samples with depth; with 0 `root_z_m` stays the robust distance of the depth."""
    w_uncertainty: float = 0.0
    """Likelihood of the joints' errors (`model.uncertainty`); its gradient reaches that head only."""
    w_mask: float = 0.0
    """Cross-entropy of the mask (`model.evidence`), mean over the labelled cells."""
    w_side: float = 0.0
    """Cross-entropy of the side (`model.evidence`); mirrored crops (`augment.mirror_p`) are its left hands."""
    loss_type: str = "l1"
    reduction: str = "sum"
    root_id: int = 0
    use_vertex_loss: bool = False
    use_aux_loss: bool = True

    def __post_init__(self):
        require_range("loss", self, 0, 1e9, *(knob.name for knob in fields(self) if knob.name.startswith("w_")))
        require_range("loss", self, 0, 20, "root_id")


@dataclass(frozen=True)
class ModelConfig:
    """The network: a preset of `utnet.model.presets`, and values that override it."""

    RENAMED: ClassVar = {"depth": "num_blocks"}
    preset: str = "ti"
    size_px: int = 128
    """Side of the square crop."""
    p_drop: float = 0.4
    """Probability that a training sample's depth is dropped, by the loader (`utnet.data.loader.make_loader`)."""
    stem: str | None = None
    """"conv", "lite0" (EfficientNet-Lite0, starts from ImageNet) or "patch"; null here and below: the preset's."""
    refiner: str | None = None
    """"graph", "maxpool" (WiLoR's) or "none" (the coarse hand is the output)."""
    width_px: int | None = None
    """Central columns of the square crop that are the network's input; null: all (preset h: three quarters)."""
    patch_px: int | None = None
    """Side of a patch: 16, or 14 (DINOv2; presets b, l, h)."""
    patch_pad_px: int | None = None
    """Padding on each side of the patch convolution (ViTPose and WiLoR: 2; MAE, DINOv2: 0)."""
    layer_scale: bool | None = None
    """LayerScale in the blocks (DINOv2)."""
    dim: int | None = None
    num_blocks: int | None = None
    num_heads: int | None = None
    """Width, blocks and attention heads of the encoder."""
    decoder: tuple[int, int, int, int] | None = None
    """Of preset hamer's head: width, layers, attention heads (of 64 each), hidden width."""
    uncertainty: bool = False
    """A head for the expected error of each joint (`utnet.uncertainty`); it needs loss.w_uncertainty above 0."""
    prompts: bool = False
    """Landmarks are an optional input (`utnet.model.prompts`), simulated in training by the section `prompts`."""
    evidence: bool = False
    """Heads for the mask of the visible hand and its side (`utnet.model.evidence`)."""
    checkpoint_blocks: bool = False
    """Training recomputes the encoder's activations instead of storing them: much less memory."""
    mano: str = ""
    """Folder of your MANO_RIGHT.pkl (or the file): the network predicts MANO's hand; empty: the open hand."""

    def __post_init__(self):
        unit = 14 if self.patch_px == 14 else 32
        ok = 0 < self.size_px <= 2048 and self.size_px % unit == 0
        require("model.size_px", ok, self.size_px, f"a multiple of {unit}, at most 2048")
        require("model.p_drop", 0.0 <= self.p_drop <= 1.0, self.p_drop, "0 to 1")
        stems = (None, "conv", "lite0", "patch")
        require("model.stem", self.stem in stems, self.stem, "'conv', 'lite0', 'patch' or null")
        refiners = (None, "graph", "maxpool", "none")
        require("model.refiner", self.refiner in refiners, self.refiner, "'graph', 'maxpool', 'none' or null")
        require("model.patch_px", self.patch_px in (None, 14, 16), self.patch_px, "14, 16 or null")
        require_range("model", self, 0, 6, "patch_pad_px")
        require_range("model", self, 1, 2048, "width_px")
        require_range("model", self, 1, 8192, "dim")
        require_range("model", self, 1, 256, "num_blocks", "num_heads")
        require("model.decoder", all(1 <= n <= 8192 for n in self.decoder or ()), self.decoder, "1 to 8192, or null")


@dataclass(frozen=True)
class CropConfig:
    """Crops around a hand's box. The jitters are half-widths of uniform distributions, in training only."""

    expand: float = 2.0
    """Side of the square over the longer side of the tight box."""
    aspect: float = 1.0
    """Width over height of the network's part of the square (`model.width_px`); WiLoR's crops have 0.75."""
    recipe: str = "utnet"
    """Sampling of the picture: "utnet", or "wilor", equal to HaMeR's and WiLoR's demos to the pixel."""
    scale_jitter: float = 0.15
    shift_jitter: float = 0.06
    rotation_jitter_deg: float = 30.0

    def __post_init__(self):
        require_range("crop", self, 0.1, 1, "aspect")
        require_range("crop", self, 1, 10, "expand")
        require_range("crop", self, 0, 0.9, "scale_jitter")
        require_range("crop", self, 0, 10, "shift_jitter")
        require_range("crop", self, 0, 180, "rotation_jitter_deg")
        require("crop.recipe", self.recipe in ("utnet", "wilor"), self.recipe, "'utnet' or 'wilor'")


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of a crop's pixels (`utnet.data.augment`): half-widths or largest values of uniform distributions;
    names of probabilities end in _p. All at 0: no change."""

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
    mirror_p: float = 0.0
    """Share of training crops that are mirrored, with their side as the only label (`loss.w_side`)."""
    crops: bool = False
    """Also augment samples that are crops already (synthetic hands, which have variation of their own)."""

    def __post_init__(self):
        for name in ("gain", "channel_gain", "contrast", "saturation"):
            require(f"augment.{name}", 0.0 <= getattr(self, name) < 1.0, getattr(self, name), "0 or more and below 1")
        require_range(
            "augment", self, 0, 1, "mirror_p", "blur_p", "occlude_p", "occlude_size", "depth_holes_p", "depth_edges_p"
        )
        for high, name in ((255, "brightness"), (60, "noise"), (180, "hue_deg"), (10, "blur_px"), (100, "depth_holes")):
            require_range("augment", self, 0, high, name)
        require_range("augment", self, 0, 0.1, "depth_noise", "depth_step_m")


@dataclass(frozen=True)
class PromptConfig:
    """Probabilities of the prompts of training samples (`model.prompts`, `utnet.data.prompts`)."""

    drop_p: float = 0.3
    """No prompt at all."""
    clicks_p: float = 0.25
    """One to six joints are placed by a person; alone, or on top of a detector's."""
    wrong_p: float = 0.25
    """A detector's landmarks have gross errors: joints moved, fingers swapped or collapsed, all shifted."""
    flat_p: float = 0.2
    """A detector's landmarks have no relative 3D."""
    drop_joint_p: float = 0.15
    """Each joint is dropped, in half of the detections."""

    def __post_init__(self):
        require_range("prompts", self, 0, 1, *(each.name for each in fields(self)))


@dataclass(frozen=True)
class DataConfig:
    """Source of samples: "synth" (endless), a reader of `utnet.data`, or "mixture" of several."""

    name: str = "synth"
    root: str = ""
    """The data set's folder. For tars: a path, a glob, a URL or a `pipe:` command, with {000..099} for many."""
    split: str = "train"
    setup: str = "s0"
    """DexYCB's split: s0, s1, s2 or s3."""
    subjects: tuple[int, ...] = ()
    """DexYCB's subjects, 1 to 10; empty: all of the split."""
    limit: int | None = None
    """At most this many samples, evenly spaced over the split."""
    sides: str = "both"
    """Hands to use: "right", "left" or "both"."""
    hand_model: str = "auto"
    """Model of the labels: "open", "mano", or "auto": detected (MANO if unmarked)."""
    mano: str = ""
    """Folder of your MANO_RIGHT.pkl and MANO_LEFT.pkl: DexYCB's and FreiHAND's parameters need it."""
    with_depth: bool = True
    """Read depth files."""
    background: str = "all"
    """FreiHAND's: "all", "gs", "hom", "sample" or "auto"."""
    box: str = "joints"
    """Box of hands in tars: "joints" (tight box of the 2D labels) or "tar" (half of the tar's padded box)."""
    tips: str = ""
    """Fingertip vertices of custom MANO labels ("": smplx's)."""
    weight: float = 1.0
    mixture: tuple[DataConfig, ...] = ()
    """The parts of a mixture; `weight` is the share of one."""
    check: bool = True
    """Check the labels of 256 samples before training (order of joints, sides, units, axes, cameras, boxes)."""

    def __post_init__(self):
        require("data.limit", self.limit is None or self.limit >= 1, self.limit, "at least 1, or null for all")
        require("data.sides", self.sides in ("right", "left", "both"), self.sides, "right, left or both")
        require("data.hand_model", self.hand_model in ("auto", "open", "mano"), self.hand_model, "auto, open or mano")
        require("data.weight", 0.0 < self.weight <= 1e6, self.weight, "more than 0, at most 1e6")
        ok = bool(self.mixture) == (self.name == "mixture")
        require("data.mixture", ok, [part.name for part in self.mixture], "parts if the name is mixture, else none")
        require("data.mixture", all(not part.mixture for part in self.mixture), "a mixture of mixtures", "plain parts")


@dataclass(frozen=True)
class TrainConfig:
    """The training loop. It ends at `steps` or after `minutes`, whichever is first, as does the schedule."""

    steps: int = 20000
    minutes: float | None = None
    batch_size: int = 32
    """Samples of a batch in one process."""
    accumulate: int = 1
    """Batches accumulated in one step: a step has batch_size * accumulate * (number of processes) samples."""
    lr: float = 5e-4
    min_lr: float = 1e-6
    weight_decay: float = 0.01
    warmup_steps: int = 200
    clip_grad: float = 1.0
    """Largest norm of the gradient, per sample of a step if losses are sums; 0: no clipping."""
    ema: float = 0.0
    """Decay of an exponential moving average of the weights, such as 0.999, which is then validated and saved to
    best/."""
    num_workers: int = 1
    """Worker processes of the loader; 0: none."""
    worker_timeout_s: float = 300.0
    """Time without a sample after which training ends, for example on a network drive that hangs."""
    log_every: int = 20
    eval_every: int = 2000
    save_every: int = 500
    """Steps between checkpoints in last/; also written at validation and at the end."""
    pictures: int = 8
    """Validation samples drawn for TensorBoard at every validation; 0 for none."""
    precision: str = "fp32"
    """"fp32", or "bf16" for the network's matrix products (losses and the hand model stay in fp32)."""
    compile: bool = False
    """Compile the network by torch.compile: minutes at the start, then faster steps."""
    parallel: str = "auto"
    """Under torchrun: "ddp" (replicated), "fsdp" (sharded), or "auto": FSDP above 300 M parameters."""
    num_threads: int | None = None
    """CPU threads of the network; null: torch's default."""
    max_bad_samples: int = 50
    """Number of unreadable samples that training skips and reports before it stops."""
    init_from: str = ""
    """Initial weights: a checkpoint folder of UTNet's; a file of ViTPose's, DINOv2's or MAE's weights for the encoder;
    "lite0", EfficientNet-Lite0's for the stem (extra "features"); empty: random."""
    backbone_lr: float = 1.0
    """Learning rate of the pretrained part (presets b, l, h: the encoder; with `model.stem: lite0` the stem), as a
    factor of `lr`; 0 freezes it."""
    frozen_blocks: int = 0
    """Number of blocks of that part that are frozen, with the layers before them."""
    init_kind: str = "auto"
    """Their layout: "vitpose", "dinov2", "mae", "lite0", or "auto": detected (`training.pretrained`)."""

    def __post_init__(self):
        require_range("train", self, 1, 1e9, "steps", "log_every", "eval_every", "save_every")
        require_range("train", self, 1, 65536, "batch_size", "accumulate")
        require_range("train", self, 1, 1024, "num_threads")
        require_range("train", self, 1, 1e6, "worker_timeout_s")
        require_range("train", self, 0, 1e9, "warmup_steps", "max_bad_samples", "clip_grad")
        require_range("train", self, 0, 256, "num_workers", "pictures", "frozen_blocks")
        require_range("train", self, 0, 1e3, "weight_decay", "min_lr")
        require_range("train", self, 0, 1, "backbone_lr")
        require("train.lr", 0.0 < self.lr < math.inf, self.lr, "more than 0")
        require("train.ema", 0.0 <= self.ema < 1.0, self.ema, "0 or more and below 1")
        ok = self.minutes is None or 0 < self.minutes <= 1e6
        require("train.minutes", ok, self.minutes, "more than 0, at most 1e6, or null")
        kinds = ("auto", "vitpose", "dinov2", "mae", "lite0")
        require("train.init_kind", self.init_kind in kinds, self.init_kind, "auto, vitpose, dinov2, mae or lite0")
        require("train.precision", self.precision in ("fp32", "bf16"), self.precision, "'fp32' or 'bf16'")
        require("train.parallel", self.parallel in ("auto", "ddp", "fsdp"), self.parallel, "'auto', 'ddp' or 'fsdp'")


@dataclass(frozen=True)
class Config:
    """A complete run."""

    seed: int = 0
    device: str = "auto"
    data: DataConfig = field(default_factory=DataConfig)
    val: DataConfig | None = None
    """Null: the default for the training data (`config.validation`); without a name: that, with these keys."""
    replay: DataConfig | None = None
    """Data mixed into the training data to prevent forgetting in fine-tuning (rehearsal). Its `weight` is relative to
    `data.weight`; scores on it, before and after, are in run.json."""
    crop: CropConfig = field(default_factory=CropConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    prompts: PromptConfig = field(default_factory=PromptConfig)
    synth: SynthConfig = field(default_factory=SynthConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        require("seed", 0 <= self.seed < 2**62, self.seed, "0 or more, below 2^62")
        weight, head = self.loss.w_uncertainty, self.model.uncertainty
        expected = "more than 0 with model.uncertainty: true" if head else "0 without model.uncertainty: true"
        require("loss.w_uncertainty", (weight > 0) == head, weight, expected)
        heads = self.loss.w_mask > 0 or self.loss.w_side > 0
        weights = [self.loss.w_mask, self.loss.w_side]
        expected = "one above 0 with model.evidence: true" if self.model.evidence else "0 without model.evidence: true"
        require("loss.w_mask, loss.w_side", heads == self.model.evidence, weights, expected)

    @classmethod
    def with_defaults(cls, tree: dict, where: str) -> dict:
        """A val section without a name overrides keys of the training data's default (`val.limit=500`)."""
        val = tree.get("val")
        if not isinstance(val, dict) or "name" in val:
            return tree
        own = default_validation(from_tree(DataConfig, tree.get("data", {}), where=f"{where}: data"))
        return {**tree, "val": {**to_tree(own), **val}}

    @classmethod
    def load(cls, path: str | Path) -> Config:
        """Reads a YAML file, or a bundled config by its name; missing keys have their defaults.

        Raises:
            InputError: no such file, not YAML, an unknown key (with the nearest valid one) or a wrong type.
        """
        return from_tree(cls, read_yaml(path), where=str(path))

    def save(self, path: str | Path) -> None:
        """Writes all values, defaults included, so that the file reproduces the run."""
        atomic_write(path, to_yaml(self))
