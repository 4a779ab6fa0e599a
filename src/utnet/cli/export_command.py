"""`utnet export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro


def export(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")],
    format: Literal["onnx", "openvino", "torch"] = "onnx",
    depth: bool = True,
) -> None:
    """Exports a network for ONNX Runtime, OpenVINO or torch.export, and compares it with the original.

    A file with a difference above 0.05 mm is removed. Use it by `utnet predict --weights FILE`; a .pt2 requires
    UTNET_TRUST_PT2=1 in the environment, because opening such a file can execute code in it.

    Args:
        checkpoint: a checkpoint folder such as RUN/best, or the name of a bundled network such as ti.
        out: output file: .onnx, .xml (OpenVINO; weights in a .bin beside it) or .pt2 (torch).
        format: runtime of the file.
        depth: --no-depth omits the depth input; a file with it also accepts RGB alone.
    """
    from utnet.checkpoint import load_checkpoint
    from utnet.export.writer import export_network

    model, config = load_checkpoint(checkpoint)
    agreement = export_network(model, out, crop=config.crop, format=format, with_depth=depth)
    inputs = "RGB-D and RGB" if depth else "RGB"
    print(f"{out}: preset {config.model.preset}, crops of {config.model.size_px} px, {inputs}")
    print(
        f"{agreement.hands} hands: joints and vertices within {agreement.mm:.1e} mm of torch, every output within "
        f"{agreement.relative:.1e} of max(1, |output|)"
    )
    if model.hand.name == "mano":
        print("it contains MANO's arrays, so MANO's licence applies")
