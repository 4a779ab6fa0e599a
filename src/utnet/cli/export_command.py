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
    """Writes a network as a file for ONNX Runtime, OpenVINO or torch.export, and checks it against the network.

    A file that is farther off than 0.05 mm is not left. `utnet predict --weights FILE` runs it; a .pt2 only with
    UTNET_TRUST_PT2=1 in the environment, because opening such a file runs any code that it holds.

    Args:
        checkpoint: a checkpoint folder such as RUN/best, or the name of a shipped network such as ti.
        out: the file: .onnx, .xml (OpenVINO; its weights go into a .bin beside it) or .pt2 (torch).
        format: who shall run it.
        depth: --no-depth leaves the depth input out; a file with it serves RGB alone as well.
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
        print("it holds MANO's arrays and stays under MANO's licence")
