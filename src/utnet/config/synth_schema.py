"""Config of the synthetic hands: sections `synth` and `synth.factors` of a run's YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from utnet.config.loading import require, require_range


@dataclass(frozen=True)
class FactorsConfig:
    """Strength of each factor of full appearance (`synth.appearance: full`, docs/synthetic.md): 0 disables it, 1 is as
    in photographs, 2 the maximum. For objects it scales the frequency."""

    gestures: float = 1.0
    """Common gestures and grasps among the poses (below 1: that share of them)."""
    contact: float = 1.0
    """Resolve intersections of fingers with each other and the palm; on or off."""
    skin_tone: float = 1.0
    skin_detail: float = 1.0
    """Pale palms, red knuckles and tips, mottling, freckles."""
    nails: float = 1.0
    veins: float = 1.0
    creases: float = 1.0
    """Folds, lines of the palm, fine relief."""
    gloss: float = 1.0
    light: float = 1.0
    shadows: float = 1.0
    occlusion: float = 1.0
    """Ambient occlusion by fingers and objects."""
    sleeve: float = 1.0
    worn: float = 1.0
    """Watches and bracelets."""
    held: float = 1.0
    occluder: float = 1.0
    """Things in front of the hand."""
    second_hand: float = 1.0
    background: float = 1.0
    distractors: float = 1.0
    """Skin-coloured shapes behind the hand."""
    defocus: float = 1.0
    exposure: float = 1.0
    white_balance: float = 1.0
    vignette: float = 1.0
    lens_blur: float = 1.0
    motion_blur: float = 1.0
    rescale: float = 1.0
    """Pictures rendered at low resolution and enlarged."""
    noise: float = 1.0
    jpeg: float = 1.0
    depth_noise: float = 1.0
    """Of `synth.depth_noise_m`."""
    depth_steps: float = 1.0
    depth_edges: float = 1.0
    depth_holes: float = 1.0
    depth_patches: float = 1.0
    depth_missing: float = 0.0
    """Probability that a hand has no depth at all (`model.p_drop` does the same for training)."""

    def __post_init__(self):
        for factor in fields(self):
            value, top = getattr(self, factor.name), 1 if factor.name == "depth_missing" else 2
            require(f"synth.factors.{factor.name}", 0.0 <= value <= top, value, f"0 (off) to {top}")


@dataclass(frozen=True)
class SynthConfig:
    """The endless synthetic source (`utnet.synth`)."""

    appearance: str = "plain"
    """"plain": one-coloured skin, one light, a texture behind; "full": all of `factors`."""
    factors: FactorsConfig = field(default_factory=FactorsConfig)
    backgrounds: str = ""
    """Folder of photographs as backgrounds of full hands; empty: procedural scenes."""

    max_tilt_deg: float = 180.0
    """Largest angle between the camera and the palm's or the back's normal; 90 or more: the full sphere."""
    distance_m: tuple[float, float] = (0.35, 1.0)
    fov_deg: tuple[float, float] = (40.0, 70.0)
    betas_std: float = 1.0
    forearm: bool = True
    depth_noise_m: float = 0.001

    def __post_init__(self):
        require("synth.appearance", self.appearance in ("plain", "full"), self.appearance, "'plain' or 'full'")
        unused = self.appearance == "plain" and (self.factors != FactorsConfig() or self.backgrounds)
        require("synth.appearance", not unused, "plain", "'full': synth.factors and synth.backgrounds are given")
        for name, low, high in (("distance_m", 0.3, 10.0), ("fov_deg", 5.0, 120.0)):
            a, b = getattr(self, name)
            require(f"synth.{name}", low <= a <= b <= high, [a, b], f"two rising numbers from {low} to {high}")
        require_range("synth", self, 5, 360, "max_tilt_deg")
        require_range("synth", self, 0, 5, "betas_std")
        require_range("synth", self, 0, 1, "depth_noise_m")
