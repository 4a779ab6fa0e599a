"""`utnet demo`: trains a network, evaluates it before and after, and writes a report with pictures.

The bundled network is fine-tuned if there is one; with `--from-nothing`, or if the config describes another network,
one is trained from scratch.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from utnet.checkpoint import load_checkpoint, name_checkpoint, read_config, shipped_weights
from utnet.config import Config
from utnet.data import open_source
from utnet.data.source import Source
from utnet.errors import InputError
from utnet.evaluation.report import loss_figure, prediction_sheet, score_rows, write_report
from utnet.evaluation.validation import evaluate
from utnet.io.atomic import write_json
from utnet.predict import Predictor
from utnet.predict.files import write_hands
from utnet.synth.write_dexycb import write_dexycb
from utnet.synth.write_ho3d import write_ho3d
from utnet.training.loop import train
from utnet.training.starting_config import own_keys, start_from
from utnet.training.state import differences, make_model

_HELD_OUT_SEED = 77
"""Seed of the trees' poses, people and cameras, different from training's; textures use other patches as well."""

_FINE_TUNING = 0.1
"""Learning rate of fine-tuning as a fraction of the config's."""

_FEW = 64
"""Number of hands (eight moments of DexYCB's eight cameras) below which the best constant hand, which is fitted to the
same hands, is not a meaningful baseline."""

_MARK = ".utnet-demo"
"""Marks a folder as written by the demo, which may be replaced."""


def demo(
    config: Config,
    workdir: str | Path,
    *,
    minutes: float | None,
    frames: int,
    from_nothing: bool = False,
    progress: bool = True,
) -> dict:
    """Writes held-out trees, trains on the endless synthetic source, evaluates before and after, writes report.html.

    Args:
        config: the run, by default the bundled config demo; see `resolve_init_config` for the initial weights.
        workdir: a new folder, or one written by an earlier demo, which is replaced.
        minutes: training time; None: the config's.
        frames: frames of each held-out tree.
        from_nothing: train from scratch even if a network is bundled.
        progress: show progress bars.

    Returns:
        The scores of scores.json; "before" are those of the initial network.
    """
    workdir = Path(workdir)
    if frames < 8:
        raise InputError(f"--frames is {frames}; expected at least 8, one moment of DexYCB's eight cameras")
    if minutes is not None:
        config = replace(config, train=replace(config.train, minutes=minutes, steps=10**9))
    config, start = resolve_init_config(config, from_nothing=from_nothing)
    torch.manual_seed(config.seed)
    untouched = make_model(config.model, config.train)[0]
    begins = config.train.init_from
    if begins and Path(begins).resolve().is_relative_to(workdir.resolve()):
        raise InputError(f"train.init_from {begins}: lies in {workdir}, which is replaced; give another --out")
    _clear(workdir)  # after all checks of the arguments
    print(start)
    started = time.monotonic()
    sources = _held_out(workdir / "trees", config, frames, progress=progress)
    crop, loading = config.crop, config.train
    before = {name: evaluate(untouched, source, crop, loading, progress=progress) for name, source in sources.items()}
    result = train(config, workdir / "run", progress=progress)
    model, _ = load_checkpoint(workdir / "run" / "best")
    after = {name: evaluate(model, source, crop, loading, progress=progress) for name, source in sources.items()}

    training = "fine-tuning" if config.train.init_from else "training"
    rows = [row for name in sources for row in score_rows(name, before[name], after[name], training)]
    sheets = {f"Predictions, {name}": prediction_sheet(model, source, crop) for name, source in sources.items()}
    links = _example(workdir, sources["DexYCB layout"])
    seconds = time.monotonic() - started
    tilt = min(config.synth.max_tilt_deg, 90.0)
    views = "the whole sphere" if tilt == 90.0 else f"palm or back within {tilt:.0f} degrees of the camera"
    facts = [
        start,
        f"{result['step']:,} steps of {config.train.batch_size} hands ({config.model.size_px} px) in "
        f"{result['seconds'] / 60:.1f} min of training; {seconds / 60:.1f} min in all.",
        f"Views: {views}. Held-out trees: {len(sources['DexYCB layout'])} and {len(sources['HO3D layout'])} hands, "
        "from other seeds, read by the same readers as the real data sets; one set of weights for RGB and RGB-D.",
        *_too_few(frames),
    ]
    write_report(
        workdir / "report.html",
        title="UTNet demo",
        facts=facts,
        rows=rows,
        curves_png=loss_figure(workdir / "run" / "metrics.csv", config.loss),
        sheets=sheets,
        links=links,
        glb=next(((workdir / link).read_bytes() for link in links.values() if link.endswith(".glb")), None),
    )
    scores = {"start": start, "before": before, "after": after, "train_seconds": result["seconds"], "seconds": seconds}
    write_json(workdir / "scores.json", scores)
    print_table(rows)
    for line in _too_few(frames):
        print(line)
    return scores


def _held_out(folder: Path, config: Config, frames: int, *, progress: bool) -> dict[str, Source]:
    """Writes the held-out trees and opens them with the readers of the real data sets."""
    folder.mkdir(parents=True)
    (folder / _MARK).touch()
    trees: dict[str, tuple[str, Any, dict[str, Any]]] = {
        "DexYCB layout": ("dexycb", write_dexycb, {"split": "test", "setup": "s0"}),
        "HO3D layout": ("ho3d", write_ho3d, {"split": "evaluation"}),
    }
    sources = {}
    for name, (layout, write, options) in trees.items():
        split, seed = options["split"], _HELD_OUT_SEED
        write(folder / layout, num=frames, seed=seed, synth_config=config.synth, split=split, progress=progress)
        sources[name] = open_source(layout, folder / layout, **options)
    return sources


def resolve_init_config(config: Config, *, from_nothing: bool) -> tuple[Config, str]:
    """The config with its initial weights, and a sentence that describes them.

    The initial weights are `train.init_from`, else the bundled network's if the config describes the same network, else
    none. The bundled network is fine-tuned with its own crop settings and a tenth of the config's learning rate; what
    the config leaves open in `model`, and losses of heads that are 0, are set as in that network
    (`starting_config.start_from`).
    """
    train, where = config.train, shipped_weights()
    if from_nothing or (where is None and not train.init_from):
        why = "--from-nothing" if from_nothing else "this version has no bundled weights"
        return replace(config, train=replace(train, init_from="")), f"Trained from scratch: {why}."
    if train.init_from or where is None:
        return config, f"Started from {train.init_from} (train.init_from)."
    name, shipped = name_checkpoint(where), read_config(where)
    same, differing = config, [f"model.preset is {config.model.preset} instead of {shipped.model.preset}"]
    if config.model.preset == shipped.model.preset:
        same, _, _ = start_from(config, where, own_keys(config))
        differing = differences(same.model, shipped.model)
        differing += ["model.mano is set instead of the open hand"] if config.model.mano else []
    if differing:
        why = f"the config's network differs from the bundled one ({name}): {'; '.join(differing)}"
        return config, f"Trained from scratch: {why}."
    own = shipped.train  # which layers are trained, and with which learning rate
    fine = replace(
        train,
        init_from=name,
        lr=_FINE_TUNING * train.lr,
        backbone_lr=own.backbone_lr,
        frozen_blocks=own.frozen_blocks,
    )
    text = (
        f"Fine-tuned from the bundled network ({name}), with its own crop settings; also evaluated before fine-tuning."
    )
    text += " --from-nothing trains from scratch."
    return replace(same, train=fine), text


def _too_few(frames: int) -> list[str]:
    """A note on the constant baseline if it is fitted to few hands."""
    if frames >= _FEW:
        return []
    return [
        f"The best constant hand is fitted to the {frames} hands that it is evaluated on, eight views of each pose in "
        f"the DexYCB layout, too few for a meaningful baseline; use --frames {_FEW} or more to compare with it."
    ]


def print_table(rows: list[tuple[str, str, str, float, float]]) -> None:
    """Prints the scores as a table; the second number is MPJPE relative to the best constant hand's."""
    constant = {data: mpjpe for kind, data, _, mpjpe, _ in rows if kind == "reference"}
    print(f"{'data':16s}{'input':30s}{'MPJPE [mm]':>12s}{'of constant':>13s}{'PA-MPJPE [mm]':>15s}")
    for _, data, row, mpjpe, pa in rows:
        print(f"{data:16s}{row:30s}{mpjpe:12.1f}{mpjpe / constant[data]:13.2f}{pa:15.1f}")


def _example(workdir: Path, source) -> dict[str, str]:
    """Predicts one held-out picture with `Predictor`; returns links for the page."""
    sample = source[len(source) // 2]
    predictor = Predictor(workdir / "run" / "best")
    hands = predictor(sample.rgb, sample.depth_m, sample.K_px, boxes=[sample.box_px], sides=[sample.side])
    depth = None if sample.depth_m is None else sample.key
    written = write_hands(workdir / "example", "hand", sample.rgb, hands, K_px=sample.K_px, depth=depth)
    names = {"mesh": "mesh of one hand (GLB)", "overlay": "the same hand drawn", "json": "its parameters (JSON)"}
    return {names[kind]: str(paths[0].relative_to(workdir)) for kind, paths in written.items()}


def _clear(workdir: Path) -> None:
    """Removes the files of an earlier demo; InputError if there are others."""
    ours = ("trees", "run", "example", "report.html", "scores.json")
    if not workdir.exists():
        return
    strangers = sorted(p.name for p in workdir.iterdir() if p.name not in ours)
    if not strangers and any(workdir.iterdir()) and not (workdir / "trees" / _MARK).is_file():
        strangers = sorted(p.name for p in workdir.iterdir())
    if strangers:
        raise InputError(
            f"{workdir}: contains {strangers[0]!r}, which is not of a demo; give another folder with --out"
        )
    for name in ours:
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
