"""Files of EfficientNet-Lite0, with random numbers."""

from pathlib import Path

import torch

from utnet.model.lite_stem import STAGES


def random_file() -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of the published file, and a classifier."""
    generator = torch.Generator().manual_seed(5)

    def normed(name: str, norm: str, out: int, into: int, kernel: int) -> dict[str, torch.Tensor]:
        weight = torch.randn(out, into, kernel, kernel, generator=generator) * (into * kernel**2) ** -0.5
        spread = {f"{norm}.{end}": torch.rand(out, generator=generator) + 0.5 for end in ("weight", "running_var")}
        shift = {f"{norm}.{end}": torch.randn(out, generator=generator) for end in ("bias", "running_mean")}
        return {f"{name}.weight": weight, **spread, **shift, f"{norm}.num_batches_tracked": torch.tensor(7)}

    state = normed("_conv_stem", "_bn0", 32, 3, 3)
    before, i = 32, 0
    for kernel, _, expansion, out, num in STAGES:
        for _ in range(num):
            wide, block = before * expansion, f"_blocks.{i}"
            if expansion > 1:
                state |= normed(f"{block}._expand_conv", f"{block}._bn0", wide, before, 1)
            state |= normed(f"{block}._depthwise_conv", f"{block}._bn1", wide, 1, kernel)
            state |= normed(f"{block}._project_conv", f"{block}._bn2", out, wide, 1)
            before, i = out, i + 1
    for deeper in range(i, 16):  # down to stride 32, which the stem goes without
        state |= normed(f"_blocks.{deeper}._expand_conv", f"_blocks.{deeper}._bn0", 8, 4, 1)
    state |= normed("_conv_head", "_bn1", 1280, 320, 1)
    return {**state, "_fc.weight": torch.zeros(10, 1280), "_fc.bias": torch.zeros(10)}


def written(folder: Path, state: dict[str, torch.Tensor]) -> Path:
    path = folder / "lite0.pth"
    torch.save(state, path)
    return path
