"""Packs a checkpoint as a network that ships (`src/utnet/assets/weights/NAME`), with a model card.

    python benchmarks/release_scores.py --work DIR RUN/best > scores.txt
    python tools/release_weights.py RUN/best --name ti --scores scores.txt
        --pictures "DATA (licence)" --start "WEIGHTS (licence)"

Matrices are stored in half precision (--single names parts that stay in single), run.json without this machine's paths
and without what resuming needs. Beside them network.onnx holds the same numbers for predictions without torch: RGB and
RGB-D, any batch, landmarks where the network has prompts. It refuses where that file is more than 1e-3 mm off the
packed network, where that moves a joint by more than 0.3 mm on synthetic hands, where all that ships would be larger
than 34 MB, where the scores are another checkpoint's, and where the data or
the starting weights have a licence that nobody named (--pictures, --start). The card's numbers come from the scores;
when the run's own folder is round the checkpoint (RUN/run.json), so do the hours.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from utnet.checkpoint import load_checkpoint
from utnet.config import Config, override
from utnet.data.collate import collate
from utnet.data.transforms import right_crop
from utnet.errors import InputError
from utnet.evaluation.validation import INPUTS
from utnet.export.writer import export_network
from utnet.io.atomic import atomic_dir, atomic_write, write_json
from utnet.model import UTNet
from utnet.synth import SyntheticHands
from utnet.weights import NETWORK, RUN, WEIGHTS

SHIPPED = Path(__file__).parents[1] / "src" / "utnet" / "assets" / "weights"
CARD = "MODEL_CARD.md"
TEMPLATE = Path(__file__).with_name("model_card.md")
LARGEST_TOTAL = 34_000_000  # bytes, of all networks that ship
LARGEST_MOVE_MM = 0.3
LARGEST_ERROR_MM = 1e-3
"""Of network.onnx against the packed checkpoint."""
_KEPT = ("command", "commit", "versions", "config", "step", "metrics", "averaged")
"""Entries of a checkpoint's run.json that ship."""
_SEED = 4_000_037
# A path that begins at a root, at home or above: where it stands depends on the machine.
_MACHINE_PATH = re.compile(
    r"""(?<![\w.:/\\-])(?:~|\.\.|[A-Za-z]:)?[/\\](?:[^\s"',;:=\[\]{}]*[/\\])*([^\s"',;:=\[\]{}/\\]+)"""
)
_PARTS = {"tone": "skin tone", "view": "view", "hidden": "share of the hand that is hidden"}


def pack(checkpoint: str | Path, folder: Path, single: Sequence[str] = ()) -> None:
    """Writes weights.safetensors and the cleaned run.json into a folder.

    Matrices are halved, but not those of the parts that `single` names; biases, norms and scales cost no room.
    """
    model, _ = load_checkpoint(checkpoint)
    if model.hand.name != "open":
        raise InputError(f"{checkpoint}: holds the {model.hand.name} hand, which may not be shipped")
    state = {
        name: (tensor if tensor.ndim <= 1 or name.split(".")[0] in single else tensor.half()).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(state, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes for the owner alone
    tree = json.loads((Path(checkpoint) / RUN).read_text(encoding="utf-8"))
    write_json(folder / RUN, without_paths({key: tree[key] for key in _KEPT if key in tree}))


def without_paths(tree):
    """JSON with the last part of every path in place of the path."""
    if isinstance(tree, dict):
        return {key: without_paths(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [without_paths(value) for value in tree]
    return _MACHINE_PATH.sub(r"\1", tree) if isinstance(tree, str) else tree


@torch.inference_mode()
def moves_mm(a: UTNet, b: UTNet, config: Config, *, num: int) -> dict[str, Tensor]:
    """(N, 21) distances between two networks' joints on synthetic hands in full appearance, for RGB and RGB-D."""
    synth, crop = override(Config(), ["synth.appearance=full"]).synth, config.crop
    hands = SyntheticHands(seed=_SEED, size_px=config.model.size_px, num=num, synth=synth, crop=crop, jitter=False)
    found: dict[str, list[Tensor]] = {name: [] for name in INPUTS}
    for start in range(0, num, 32):
        batch = collate([right_crop(hands[i], config.model.size_px, crop) for i in range(start, min(start + 32, num))])
        for name in INPUTS:
            joints = [m.forward_batch(batch, use_depth=name == "rgbd", with_vertices=False).joints_m for m in (a, b)]
            found[name].append(1000 * (joints[0] - joints[1]).norm(dim=-1))
    return {name: torch.cat(parts) for name, parts in found.items()}


def check_moves(checkpoint: str | Path, folder: Path, num: int) -> str:
    """What half precision does to joints, in a sentence; InputError where it is too much."""
    (exact, config), (half, _) = load_checkpoint(checkpoint), load_checkpoint(folder)
    moves = moves_mm(exact, half, config, num=num)
    largest = float(torch.cat([mm.flatten() for mm in moves.values()]).max())  # NaN where one is
    text = ", ".join(
        f"{name} {float(mm.median()):.4f} mm (largest {float(mm.max()):.4f} mm)"
        for name, mm in zip(("RGB", "RGB-D"), moves.values(), strict=True)
    )
    if not largest <= LARGEST_MOVE_MM:
        raise InputError(
            f"{checkpoint}: half precision moves a joint by {largest:.2f} mm, more than {LARGEST_MOVE_MM}; "
            "give the parts that do it to --single (stem, encoder, upsampler, joint_maps, ...)"
        )
    return f"Half precision moves joints of {num} synthetic hands by a median of {text}."


def write_network(folder: Path) -> str:
    """Writes network.onnx of a packed checkpoint; returns how far it is off, in a sentence."""
    model, config = load_checkpoint(folder)
    agreement = export_network(model, folder / NETWORK, crop=config.crop)
    if not agreement.mm <= LARGEST_ERROR_MM:
        raise InputError(f"{NETWORK}: {agreement.mm:.1e} mm off the checkpoint, more than {LARGEST_ERROR_MM} mm")
    return f"{NETWORK} is within {agreement.mm:.1e} mm of the checkpoint."


def read_scores(path: Path, checkpoint: str | Path) -> dict:
    """The line that benchmarks/release_scores.py printed of these very weights."""
    sha256 = hashlib.sha256((Path(checkpoint) / WEIGHTS).read_bytes()).hexdigest()
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("{")]
    for result in map(json.loads, lines):
        if result.get("benchmark") == "release_scores" and result["sha256"] == sha256:
            return result
    raise InputError(f"{path}: no scores of {checkpoint}; write them by benchmarks/release_scores.py {checkpoint}")


def data_lines(config: Config, pictures: list[str]) -> list[str]:
    """What it was trained on; InputError where a data set's licence is not named."""
    parts = config.data.mixture or (config.data,)
    others = [part.name for part in parts if part.name != "synth"]
    if others and not pictures:
        raise InputError(
            f"the run read {', '.join(others)}; say what that is, with its licence: --pictures TEXT (for shards of "
            "synthetic hands as well)"
        )
    synth = [f"Synthetic hands ({config.synth.appearance} appearance, docs/synthetic.md), drawn by UTNet itself."]
    return (synth if "synth" in [part.name for part in parts] else []) + pictures


def start_line(config: Config, start: str) -> str:
    """What it started from; InputError where that has a licence that is not named."""
    if config.train.init_from and not start:
        name = Path(config.train.init_from).name
        raise InputError(f"the run started from {name}; say whose weights these are, with the licence: --start TEXT")
    return start or "None: trained from nothing."


def effort(checkpoint: str | Path, tree: dict, config: Config) -> str:
    """How long it was trained, and by which version."""
    step, commit = tree.get("step"), tree.get("commit")
    run = Path(checkpoint).resolve().parent / RUN
    if not run.is_file():
        raise InputError(
            f"{run}: no such file; the card tells how long the run took: give a checkpoint in its run's folder"
        )
    about = json.loads(run.read_text(encoding="utf-8"))
    samples = config.train.batch_size * config.train.accumulate * about["processes"]
    minutes = f"the run took {about['seconds'] / 60:.0f} minutes" if "seconds" in about else "a run that has not ended"
    text = f"{step:,} steps of {samples} hands ({minutes})" if step else "Steps not recorded"
    return f"{text}; utnet {tree['versions']['utnet']}, commit {commit[:12] if commit else 'not recorded'}"


def score_tables(result: dict) -> str:
    """Markdown: all hands with intervals, then the parts; a second table with landmarks where the network has
    prompts."""
    tables = [score_table(result)]
    if "prompted" in result:
        tables = ["Picture alone:", *tables, "With the detector's 21 landmarks (its measured errors) as prompts:"]
        tables.append(score_table(result["prompted"]))
    return "\n\n".join(tables)


def score_table(result: dict) -> str:
    names = ("mpjpe_mm", "pa_mpjpe_mm")
    heads = "| hands | number | best constant hand | RGB MPJPE | RGB PA | RGB-D MPJPE | RGB-D PA |"
    lines = [heads, "|---|---|---|---|---|---|---|"]

    def add(title: str, row: dict) -> None:
        best = " / ".join(f"{row['constant'][name][0]:.1f}" for name in names)
        cells = [row[key][name] for key in INPUTS for name in names]
        text = " | ".join(f"{mean:.1f} ({low:.1f} to {high:.1f})" for mean, low, high in cells)
        lines.append(f"| {title} | {row['num']:,} | {best} | {text} |")

    add("all", result["all"])
    for part, rows in result["parts"].items():
        for name, row in rows.items():
            add(f"{_PARTS[part]}: {name}", row)
    return "\n".join(lines)


def card(checkpoint: str | Path, name: str, result: dict, moved: str, *, pictures: list[str], start: str) -> str:
    """The model card; the template says all that is the same for every network."""
    model, config = load_checkpoint(checkpoint)
    tree = json.loads((Path(checkpoint) / RUN).read_text(encoding="utf-8"))
    return TEMPLATE.read_text(encoding="utf-8").format(
        name=name,
        preset=config.model.preset,
        millions=f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}",
        size_px=config.model.size_px,
        expand=config.crop.expand,
        data="\n".join(f"- {line}" for line in data_lines(config, pictures)),
        effort=effort(checkpoint, tree, config),
        start=start_line(config, start),
        num=f"{result['all']['num']}",
        seed=f"{result['seed']:,}",
        moved=moved,
        scores=score_tables(result),
    )


def check_paths(folder: Path) -> None:
    """InputError where a text that would ship names a place on this machine."""
    telling = {str(Path.home()), str(Path.cwd()), tempfile.gettempdir(), str(Path(__file__).parents[1])} - {"/"}
    for path in (folder / RUN, folder / CARD):
        text = path.read_text(encoding="utf-8")
        found = [place for place in telling if place in text] + [
            m.group() for m in _MACHINE_PATH.finditer(text) if m.group()[1:]
        ]
        if found:
            raise InputError(f"{path.name} would name {found[0]!r}, a place on this machine; leave it out of the texts")


def check_size(folder: Path, name: str, shipped: Path) -> int:
    """Bytes of all that would ship; InputError where that is too much."""
    others = [path for path in shipped.glob("*/*") if path.parent.name != name]
    total = sum(path.stat().st_size for path in [*others, *folder.iterdir()])
    if total > LARGEST_TOTAL:
        raise InputError(f"all that ships would be {total / 1e6:.1f} MB, more than {LARGEST_TOTAL / 1e6:.0f}")
    return total


def release(
    checkpoint: str | Path,
    name: str,
    scores: Path,
    *,
    pictures: list[str],
    start: str,
    num: int,
    single: Sequence[str] = (),
    shipped: Path = SHIPPED,
) -> Path:
    """Writes SHIPPED/NAME, whole or not at all; an older network of that name is replaced."""
    result = read_scores(scores, checkpoint)
    shipped.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shipped.parent) as place:
        with atomic_dir(Path(place) / name) as folder:
            pack(checkpoint, folder, single)
            moved, written = check_moves(checkpoint, folder, num), write_network(folder)
            atomic_write(folder / CARD, card(checkpoint, name, result, moved, pictures=pictures, start=start))
            check_paths(folder)
            total = check_size(folder, name, shipped)
        if (shipped / name).exists():
            (shipped / name).rename(Path(place) / "before")
        (Path(place) / name).rename(shipped / name)
    print(f"{shipped / name}: all that ships is {total / 1e6:.1f} MB. {moved} {written}")
    return shipped / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="such as RUN/best")
    parser.add_argument("--name", required=True, help="it ships as, such as ti")
    parser.add_argument("--scores", type=Path, required=True, help="output of benchmarks/release_scores.py CHECKPOINT")
    parser.add_argument("--pictures", action="append", default=[], metavar="TEXT", help="a data set and its licence")
    parser.add_argument("--start", default="", metavar="TEXT", help="whose weights it started from, and their licence")
    parser.add_argument("--num", type=int, default=256, help="hands that half precision is measured on")
    parser.add_argument(
        "--single", nargs="+", default=[], metavar="PART", help="stay in single precision, such as stem"
    )
    args = parser.parse_args()
    texts = {"pictures": args.pictures, "start": args.start}
    try:
        release(args.checkpoint, args.name, args.scores, num=args.num, single=args.single, **texts)
    except InputError as error:
        print(f"release_weights: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
