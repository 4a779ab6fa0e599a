"""The command line. Bad input prints one line and exits with code 2; other errors are not caught."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence

# Set before torch is loaded: threads that spin slow small operations by up to 100 times on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# NumPy's products here are of a hand's size: with a thread per core they take as long, and two thirds more CPU time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import tyro

import utnet
from utnet.cli import data_commands as inspection
from utnet.cli import label_command as labelling
from utnet.cli import predict_command as prediction
from utnet.cli import serve_command as serving
from utnet.cli.bulk_command import bulk_label, bulk_predict, bulk_shard
from utnet.cli.compare_command import compare
from utnet.cli.demo_command import demo
from utnet.cli.evaluate_command import evaluate
from utnet.cli.export_command import export
from utnet.cli.import_command import import_hamer, import_wilor
from utnet.cli.live_command import live
from utnet.cli.options import gathered
from utnet.cli.submit_command import submit
from utnet.cli.synth_command import synth
from utnet.cli.train_command import train
from utnet.cli.view_command import view
from utnet.errors import InputError, WorkerError, install_line, worker_errors
from utnet.signals import Terminated, sigterm_raises


def data() -> None:
    """Checks, previews and packs data sets: data check | preview | stats | shard (`utnet data --help`)."""


def import_() -> None:
    """Converts other projects' weights to a checkpoint: import hamer | wilor (`utnet import --help`)."""


def bulk() -> None:
    """Many pictures and videos, on this machine or a Ray cluster, from and to object storage: bulk predict |
    label | shard (`utnet bulk --help`)."""


def doctor() -> None:
    """Prints versions, threads, GPU, hand models and extras, with hints on missing ones."""
    from utnet.cli.doctor import report

    print(report())


_COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "train": train,
    "eval": evaluate,
    "compare": compare,
    "submit": submit,
    "predict": prediction.predict,
    "live": live,
    "view": view,
    "label": labelling.label,
    "bulk": bulk,
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
    "bulk": {"predict": bulk_predict, "label": bulk_label, "shard": bulk_shard},
    "import": {"hamer": import_hamer, "wilor": import_wilor},
}
"""Commands with subcommands."""
_TRAIN = ("torch", "roma", "tensorboard", "matplotlib")
"""Packages of the extra `train` that commands other than predict, label and serve import."""


def main(arguments: Sequence[str] | None = None) -> None:
    """`utnet ...`; exits with 2 on bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with sigterm_raises(), worker_errors():
            _run(words)
    except InputError as error:
        print(f"utnet: {error}", file=sys.stderr)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _TRAIN:
            raise
        print(f"utnet: this command needs {error.name}; {install_line('train')}", file=sys.stderr)
        sys.exit(2)
    except FloatingPointError as error:
        print(f"utnet: {error}; a lower train.lr or a higher train.warmup_steps often helps", file=sys.stderr)
        sys.exit(2)
    except Terminated:
        print("utnet: stopped by SIGTERM; files written so far are complete", file=sys.stderr)
        sys.exit(143)
    except KeyboardInterrupt:
        print("utnet: stopped; files written so far are complete", file=sys.stderr)
        sys.exit(130)
    except WorkerError as error:
        print(f"utnet: {error}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:
        if "no locator available" not in str(error):  # numba's message
            raise
        print(
            "utnet: compiled code cannot be stored beside the package or at home; set NUMBA_CACHE_DIR to a folder",
            file=sys.stderr,
        )
        sys.exit(2)
    except BrokenPipeError:  # `utnet ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python reports it again at exit
        sys.exit(141)
    except OSError as error:  # a path that cannot be read or written, a full disk
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        remedy = "free some space and start it again" if full else "check the path"
        print(f"utnet: {error.filename or 'a file'}: {error.strerror or error}; {remedy}", file=sys.stderr)
        sys.exit(2)


def _run(words: list[str]) -> None:
    if words == ["--version"]:
        print(f"utnet {utnet.__version__}")
        return
    words = gathered(words)
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
        description="3D hands from RGB images, with depth where there is a sensor. --version prints the version.",
        args=words,
    )


def train_script() -> None:
    """`python train.py --config FILE ...` is `utnet train FILE ...`."""
    words = [word.removeprefix("--config=") for word in sys.argv[1:] if word != "--config"]
    main(["train", *words])
