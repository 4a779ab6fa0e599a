"""The command line. Bad input prints one line and exits with code 2; nothing else is caught."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

# Threads that wait by spinning slow small operations by up to 100 times on a busy machine: before torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tyro

from utnet.errors import InputError, WorkerError, worker_errors
from utnet.inspection import commands as inspection
from utnet.label import commands as labelling
from utnet.options import Changes, File, Folder, Name, Number
from utnet.predict import commands as prediction
from utnet.scoring import commands as scoring
from utnet.serve import commands as serving
from utnet.stopping import Terminated, sigterm_raises


def demo(
    config: Annotated[Path, tyro.conf.Positional] = Path("config/demo.yaml"),
    out: Path = Path("runs/demo"),
    minutes: Annotated[float | None, tyro.conf.arg(metavar="MINUTES", help_behavior_hint="")] = None,
    frames: int = 400,
    from_nothing: Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")] = False,
) -> None:
    """A hand trained, scored and drawn in minutes: fine-tunes the shipped network, where one ships; writes report.html.

    Args:
        config: the run; one that says another network than the shipped one trains that from nothing.
        out: folder for everything it makes; an earlier demo there is replaced.
        minutes: training time (default: the config's).
        frames: frames of each held-out tree.
        from_nothing: train from nothing, whatever ships.
    """
    from utnet.config import Config
    from utnet.demo import demo as run

    run(Config.load(config), out, minutes=minutes, frames=frames, from_nothing=from_nothing)
    print(f"open {out / 'report.html'}")


def train(
    config: Annotated[
        Path | None, tyro.conf.arg(metavar="[CONFIG]", help_behavior_hint=""), tyro.conf.Positional
    ] = None,
    out: Folder = None,
    set: Changes = (),
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="")] = None,
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


def synth(
    layout: Literal["dexycb", "ho3d", "ho3d_v2", "h2o3d", "freihand", "tars"],
    num: int,
    out: Path,
    seed: int = 0,
    split: Name = None,
    config: File = None,
    set: Changes = (),
) -> None:
    """Writes labelled synthetic hands, drawn plain, as a complete tree in an official layout.

    Args:
        layout: whose layout (ho3d: version 3; tars: the training tars of HaMeR and WiLoR).
        num: frames in all (freihand: hands, four pictures each).
        out: a new folder.
        seed: the same seed gives the same bytes.
        split: put all frames into this split (default: spread over all).
        config: a run, whose synth section says how far away and from where the hands are seen.
        set: changed knobs, such as synth.max_tilt_deg=40.
    """
    from functools import partial

    from utnet.config import Config, override
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
    drawn = override(Config.load(config) if config else Config(), set).synth
    if drawn.appearance != "plain":
        raise InputError(
            f"synth.appearance is {drawn.appearance!r}: trees are drawn plain; add --set synth.appearance=plain, or "
            "pack full hands by utnet data shard synth"
        )
    options: dict = {"synth_config": drawn} if split is None else {"synth_config": drawn, "split": split}
    writers[layout](out, num=num, seed=seed, **options)
    what = "hands" if layout == "freihand" else "pictures"
    print(f"{out}: {num} {what} in the layout of {layout}{_splits_of(layout, out)}")


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
    from utnet.export import export_network

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


def data() -> None:
    """Looks at and packs data sets: data check | preview | stats | shard (`utnet data --help`)."""


def import_() -> None:
    """Turns other projects' weights into a checkpoint: import wilor (`utnet import --help`)."""


def import_wilor(file: Annotated[Path, tyro.conf.Positional], out: Path, num_heads: Number = None) -> None:
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
    "predict": prediction.predict,
    "label": labelling.label,
    "serve": serving.serve,
    "data": data,
    "synth": synth,
    "export": export,
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
        with sigterm_raises(), worker_errors():
            _run(words)
    except InputError as error:
        print(f"utnet: {error}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"utnet: {error}; a lower train.lr or a higher train.warmup_steps often helps", file=sys.stderr)
        sys.exit(2)
    except Terminated:
        print("utnet: stopped by SIGTERM; the files written until then are whole", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print("utnet: stopped; the files written until then are whole", file=sys.stderr)
        sys.exit(130)
    except WorkerError as error:
        print(f"utnet: {error}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:
        if "no locator available" not in str(error):  # numba's words
            raise
        print(
            "utnet: compiled code can be kept neither beside the package nor at home; set NUMBA_CACHE_DIR to a folder",
            file=sys.stderr,
        )
        sys.exit(2)
    except BrokenPipeError:  # `utnet ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python says so once more at its end
        sys.exit(141)
    except OSError as error:  # a path that cannot be read or written, a full disk
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "make room and call it again" if full else "check the path"
        print(f"utnet: {error.filename or 'a file'}: {error.strerror or error}; {remedy}", file=sys.stderr)
        sys.exit(2)


def _run(words: list[str]) -> None:
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


def train_script() -> None:
    """`python train.py --config FILE ...` is `utnet train FILE ...`."""
    words = [word.removeprefix("--config=") for word in sys.argv[1:] if word != "--config"]
    main(["train", *words])


def _splits_of(layout: str, root: Path) -> str:
    """The samples of each official split that has some, ", train 42 samples, evaluation 22 samples"."""
    from utnet.data import open_source
    from utnet.sources import counted

    name = "ho3d" if layout in ("ho3d", "ho3d_v2", "h2o3d") else layout
    splits = {"dexycb": ("train", "val", "test"), "ho3d": ("train", "evaluation"), "freihand": ("train", "evaluation")}
    said = []
    for split in splits.get(name, ()):
        try:
            said.append(f", {split} {counted(len(open_source(name, root, split=split)), 'sample')}")
        except InputError:  # a split without a hand
            continue
    return "".join(said)


def _print_scores(scores: dict) -> None:
    from utnet.sources import counted

    num, expected = scores["num"], scores["num_expected"]
    if num < expected:
        print(f"scored on the {num} of {expected} hands whose joints are all labelled in 3D")
    print(f"{counted(num, 'hand'):22s}  MPJPE [mm]  PA-MPJPE [mm]    AUC")
    for key, name in (("constant", "best constant hand"), ("rgb", "RGB"), ("rgbd", "RGB-D")):
        if key in scores:
            row = scores[key]
            name += "" if row.get("num", num) == num else f" ({row['num']} with depth)"
            print(f"{name:22s}{row['mpjpe_mm']:12.1f}{row['pa_mpjpe_mm']:15.1f}{row['auc']:7.3f}")
