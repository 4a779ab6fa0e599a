"""The command line. Bad input prints one line and exits with code 2; nothing else is caught."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

# Threads that wait by spinning slow small operations by up to 100 times on a busy machine: before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tyro

from utnet.errors import InputError
from utnet.inspection import commands as inspection
from utnet.scoring import commands as scoring


def demo(
    config: Annotated[Path, tyro.conf.Positional] = Path("config/demo.yaml"),
    out: Path = Path("runs/demo"),
    minutes: float | None = None,
    frames: int = 400,
) -> None:
    """From nothing to a trained, scored and drawn hand: writes report.html.

    Args:
        config: the run.
        out: folder for everything it makes; an earlier demo there is replaced.
        minutes: training time (default: the config's).
        frames: frames of each held-out tree.
    """
    from utnet.config import Config
    from utnet.demo import demo as run

    run(Config.load(config), out, minutes=minutes, frames=frames)
    print(f"open {out / 'report.html'}")


def train(
    config: Annotated[Path | None, tyro.conf.Positional] = None,
    out: Path | None = None,
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE")] = (),
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None,
) -> None:
    """Trains the run that a YAML file describes; several processes: torchrun --nproc-per-node=N -m utnet train ...

    Args:
        config: the run (default: config/config.yaml).
        out: a new folder (default: runs/ and the config's name).
        set: changed knobs, such as train.lr=1e-4.
        resume: a run's folder to go on with, by the config that it holds.
    """
    from utnet.config import Config, override
    from utnet.stopping import Stopped
    from utnet.train import train as run

    if resume and (config or out):
        raise InputError(f"--resume {resume} goes on in that folder by its own config; leave out {config or '--out'}")
    config = config or (resume / "config.yaml" if resume else Path("config/config.yaml"))
    folder = resume or out or Path("runs") / config.stem
    if resume and not config.is_file():
        raise InputError(f"{config}: no such file; give --resume the folder of a run")
    try:
        result = run(override(Config.load(config), set), folder, resume=resume is not None)
    except Stopped as stop:
        print(f"utnet: {stop}", file=sys.stderr)
        sys.exit(stop.exit_code)
    if os.environ.get("RANK", "0") == "0":
        print(f"{folder / 'best'} of {result['step']} steps, on validation:")
        _print_scores(result["best"])


def predict(
    image: Annotated[Path, tyro.conf.Positional],
    weights: Path | None = None,
    box: Annotated[tuple[str, ...], tyro.conf.arg(metavar="X0,Y0,X1,Y1")] = (),
    side: tuple[Literal["right", "left"], ...] = (),
    depth: Path | None = None,
    depth_scale: float = 0.001,
    K: Annotated[str | None, tyro.conf.arg(metavar="FX,FY,CX,CY")] = None,
    mesh: Literal["glb", "obj", "ply"] = "glb",
    out: Path = Path("predictions"),
) -> None:
    """Hands in a picture: writes an overlay, a JSON and a mesh for each box.

    Args:
        image: a picture.
        weights: a checkpoint folder such as runs/demo/run/best.
        box: tight box of each hand in pixels (write --box=-5,... where it begins with a minus).
        side: which hand is in each box (default: right).
        depth: depth image aligned to the picture: a 16-bit PNG, or .npy in metres.
        depth_scale: metres a step of the PNG (0.001: millimetres).
        K: intrinsics in pixels (default: f = the longer side, centred).
        mesh: file format of the meshes.
        out: folder.
    """
    from utnet.geometry import intrinsics
    from utnet.predict import Predictor
    from utnet.predict.files import read_depth, read_picture, write_hands

    if weights is None:
        raise InputError("no weights ship with this version; `make demo` trains some: --weights runs/demo/run/best")
    picture = read_picture(image)
    depth_m = None if depth is None else read_depth(depth, depth_scale)
    K_px = None if K is None else intrinsics(*_floats("--K", K, 4))
    boxes = [_floats("--box", text, 4) for text in box]
    hands = Predictor(weights)(picture, depth_m, K_px, boxes, list(side) or None)
    written = write_hands(out, image.stem, picture, hands, mesh=mesh)
    for hand in hands:
        x, y, z = hand.joints_cam_m.mean(0)
        print(f"{hand.side} hand at x {x:.3f}, y {y:.3f}, z {z:.3f} m (distance from {hand.distance_from})")
    print("wrote", ", ".join(str(path) for paths in written.values() for path in paths))


def synth(
    layout: Literal["dexycb", "ho3d", "ho3d_v2", "h2o3d", "freihand", "tars"],
    num: int,
    out: Path,
    seed: int = 0,
    split: str | None = None,
) -> None:
    """Writes labelled synthetic hands as a complete tree in an official layout.

    Args:
        layout: whose layout (ho3d: version 3; tars: the training tars of HaMeR and WiLoR).
        num: frames in all (freihand: hands, four pictures each).
        out: a new folder.
        seed: the same seed gives the same bytes.
        split: put all frames into this split (default: spread over all).
    """
    from functools import partial

    from utnet.synth.write_dexycb import write_dexycb
    from utnet.synth.write_freihand import write_freihand
    from utnet.synth.write_ho3d import write_ho3d
    from utnet.synth.write_tars import write_tars

    writers: dict[str, Callable[..., None]] = {
        "dexycb": write_dexycb,
        "ho3d": write_ho3d,
        "ho3d_v2": partial(write_ho3d, version="v2"),
        "h2o3d": partial(write_ho3d, version="h2o3d"),
        "freihand": write_freihand,
        "tars": write_tars,
    }
    if layout == "tars" and split is not None:
        raise InputError(f"--split {split}: tars have no splits; leave it out")
    options: dict = {} if split is None else {"split": split}
    writers[layout](out, num=num, seed=seed, **options)
    print(f"{out}: {num} frames in the layout of {layout}")


def data() -> None:
    """Looks at and packs data sets: data check | preview | stats | shard (`utnet data --help`)."""


def import_() -> None:
    """Turns other projects' weights into a checkpoint: import wilor (`utnet import --help`)."""


def import_wilor(file: Annotated[Path, tyro.conf.Positional], out: Path, num_heads: int | None = None) -> None:
    """Writes WiLoR's published weights as a checkpoint with equal outputs, ready for RGB-D fine-tuning.

    The file holds MANO's arrays: what is made of it stays under MANO's licence.

    Args:
        file: wilor_final.ckpt.
        out: a new folder.
        num_heads: attention heads (default: 16 for ViT-H).
    """
    from utnet.checkpoint import import_wilor as read
    from utnet.checkpoint import save_checkpoint
    from utnet.config import Config, CropConfig

    if out.exists():
        raise InputError(f"{out}: exists already; give a new folder")
    model = read(file, num_heads)
    crop = CropConfig(expand=2.0, aspect=model.width_px / model.config.size_px)  # WiLoR's square round a box
    save_checkpoint(out, model, Config(model=model.config, crop=crop), imported_from=str(file))
    print(f"{out}: preset {model.config.preset}, {sum(p.numel() for p in model.parameters()):,} parameters")


def doctor() -> None:
    """Versions, threads, GPU, hand models and extras, or how to get them."""
    from utnet.doctor import report

    print(report())


_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "train": train,
    "eval": scoring.evaluate,
    "compare": scoring.compare,
    "submit": scoring.submit,
    "predict": predict,
    "data": data,
    "synth": synth,
    "import": import_,
    "doctor": doctor,
}
_GROUPS: dict[str, dict[str, Callable[..., None]]] = {
    "data": {
        "check": inspection.check,
        "preview": inspection.preview,
        "stats": inspection.stats,
        "shard": inspection.shard,
    },
    "import": {"wilor": import_wilor},
}
"""Commands with commands of their own."""


def main(arguments: Sequence[str] | None = None) -> None:
    """`utnet ...`; exits with 2 on bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words.count("--set") > 1:
            raise InputError("--set stands twice and the last would win; write --set KEY=VALUE KEY=VALUE once")
        if words and words[0] in _GROUPS:
            tyro.extras.subcommand_cli_from_dict(
                _GROUPS[words[0]],
                prog=f"utnet {words[0]}",
                description=(_COMMANDS[words[0]].__doc__ or "").split(":")[0] + ".",
                args=words[1:],
            )
            return
        tyro.extras.subcommand_cli_from_dict(
            _COMMANDS,
            prog="utnet",
            description="3D hands from RGB images, with depth where there is a sensor.",
            args=words,
        )
    except InputError as error:
        print(f"utnet: {error}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"utnet: {error}; a lower train.lr or a higher train.warmup_steps often helps", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("utnet: stopped; checkpoints written so far are whole", file=sys.stderr)
        sys.exit(130)
    except OSError as error:  # a path that cannot be read or written, a full disk
        print(f"utnet: {error.filename or 'a file'}: {error.strerror or error}; check the path", file=sys.stderr)
        sys.exit(2)


def train_script() -> None:
    """`python train.py --config FILE ...` is `utnet train FILE ...`."""
    words = [word.removeprefix("--config=") for word in sys.argv[1:] if word != "--config"]
    main(["train", *words])


def _floats(option: str, text: str, num: int) -> list[float]:
    """Numbers between commas."""
    try:
        values = [float(word) for word in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} {text!r}: expected {num} numbers between commas") from error
    if len(values) != num:
        raise InputError(f"{option} {text!r}: {len(values)} numbers, expected {num} between commas")
    return values


def _print_scores(scores: dict) -> None:
    print(f"{scores['num']} hands{'':14s}MPJPE [mm]  PA-MPJPE [mm]    AUC")
    for key, name in (("constant", "best constant hand"), ("rgb", "RGB"), ("rgbd", "RGB-D")):
        if key in scores:
            row = scores[key]
            print(f"{name:22s}{row['mpjpe_mm']:12.1f}{row['pa_mpjpe_mm']:15.1f}{row['auc']:7.3f}")
