"""`utnet submit`. Heavy imports are inside the command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from utnet.cli.evaluate_command import TEST_SPLITS
from utnet.cli.options import Name, check_writable
from utnet.errors import InputError


def submit(
    checkpoint: Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT"), tyro.conf.Positional],
    data: Literal["ho3d", "freihand", "dexycb"],
    root: Annotated[str, tyro.conf.arg(metavar="FOLDER")],
    out: Path,
    setup: Literal["s0", "s1", "s2", "s3"] = "s0",
    split: Name = None,
    depth: Literal["auto", "with", "without"] = "auto",
    joints_only: bool = False,
) -> None:
    """Writes a benchmark's submission file, and validates it as its server does.

    Args:
        checkpoint: a folder such as RUN/best, or the name of a bundled network such as ti.
        data: the benchmark.
        root: the data set's folder.
        out: output zip (DexYCB: a text file).
        setup: DexYCB's s0, s1, s2 or s3.
        split: DexYCB's val or test (default: test); evaluation for the others.
        depth: use the depth images (auto: if the data set has them).
        joints_only: HO3D and FreiHAND: write zeros for vertices if the network's hand is not MANO's.
    """
    from utnet.checkpoint import load_checkpoint, pick_device
    from utnet.data import open_source
    from utnet.distributed import process_group
    from utnet.evaluation.submit import write_submission

    check_writable(out)
    with process_group() as world:
        if world.size > 1:
            raise InputError("submit writes one file from one process; start it without torchrun")
    model, config = load_checkpoint(checkpoint, device=str(pick_device("auto")))
    options: dict[str, Any] = {"split": split or TEST_SPLITS[data][0]}
    if data == "dexycb":
        options["setup"] = setup
    has_depth = data != "freihand"
    if depth == "with" and not has_depth:
        raise InputError("FreiHAND has no depth images; leave --depth out")
    use_depth = has_depth and depth != "without"
    if has_depth:
        options["with_depth"] = use_depth
    source = open_source(data, root, **options)
    written = write_submission(
        model,
        source,
        config.crop,
        out,
        use_depth=use_depth,
        joints_only=joints_only,
        loading=config.train,
        progress=True,
    )
    print(f"{written.path}: {written.num} hands ({written.protocol.label})")
    for line in written.lines:
        print(line)
