"""Averages a fine-tuned network with the one that it began from: python tools/average_weights.py AFTER BEFORE --out OUT

What lies between keeps more of what the network could do on other pictures than those of the fine-tuning (Wortsman et
al., Robust fine-tuning of zero-shot models, CVPR 2022); docs/results.md says what it is worth here. AFTER and BEFORE
are checkpoints, or names of networks that ship. An OUT inside the run's folder, such as RUN/averaged, lets
tools/release_weights.py find the run's hours.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from utnet.checkpoint import RUN, find_checkpoint, load_checkpoint, save_checkpoint
from utnet.errors import InputError
from utnet.io.atomic import require_new
from utnet.training.state import differences


def average(after: str | Path, before: str | Path, share: float, out: Path) -> None:
    """Writes share x AFTER + (1 - share) x BEFORE, with AFTER's config.

    Raises:
        InputError: two different networks, a share that is none, or OUT is taken.
    """
    if not 0 <= share <= 1:
        raise InputError(f"--share is {share}; expected 0 to 1")
    require_new(out)
    model, config = load_checkpoint(after)
    other, of = load_checkpoint(before)
    differing = differences(config.model, of.model)
    if differing:
        raise InputError(f"{before}: is of another network: {'; '.join(differing)}")
    theirs = other.state_dict()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(share * tensor.double() + (1 - share) * theirs[name].double())
    info = json.loads((find_checkpoint(after) / RUN).read_text(encoding="utf-8"))
    kept = {"step": info["step"]} if "step" in info else {}
    save_checkpoint(out, model, config, averaged={"with": str(before), "share": share}, **kept)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("after")
    parser.add_argument("before")
    parser.add_argument("--share", type=float, default=0.7, help="of AFTER")
    parser.add_argument("--out", type=Path, required=True, help="a new checkpoint folder")
    args = parser.parse_args()
    try:
        average(args.after, args.before, args.share, args.out)
    except InputError as error:
        parser.exit(2, f"{error}\n")
    print(args.out)


if __name__ == "__main__":
    main()
