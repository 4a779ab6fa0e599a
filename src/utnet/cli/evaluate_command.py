"""`utnet eval`. Heavy imports are inside the command."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from utnet.cli.options import File, Folder, Name, Number, Root, check_writable
from utnet.errors import InputError

if TYPE_CHECKING:
    from utnet.config import Config
    from utnet.distributed import ProcessInfo
    from utnet.evaluation.protocol import Protocol
    from utnet.evaluation.rows import Row
    from utnet.model import UTNet

TEST_SPLITS = {
    "dexycb": ["test"],
    "ho3d": ["evaluation"],
    "freihand": ["evaluation"],
    "custom": ["test", "val", "train"],
}
"""Splits to score on; the first one with hands is used."""


def evaluate(
    checkpoint: Annotated[Path, tyro.conf.arg(metavar="CHECKPOINT"), tyro.conf.Positional],
    data: Literal["synth", "dexycb", "ho3d", "freihand", "custom", "shards"] = "synth",
    root: Root = "",
    split: Name = None,
    setup: Literal["s0", "s1", "s2", "s3"] = "s0",
    subjects: tuple[int, ...] = (),
    limit: Number = None,
    json: File = None,
    out: Folder = None,
    boxes: tuple[str, ...] = ("ground-truth",),
    joints: tuple[Literal["own", "benchmark"], ...] = ("own",),
    depth: Literal["both", "with", "without"] = "both",
    mano: Root = "",
    allow_missing: bool = False,
) -> None:
    """Evaluates a checkpoint with RGB and, if available, RGB-D input: one row per protocol.

    Under torchrun the samples are distributed over the processes, with equal results.

    Args:
        checkpoint: a folder such as RUN/best, or the name of a bundled network such as ti.
        data: data set; "synth": held-out synthetic hands.
        root: the data set's folder; required except for synth.
        split: split (default: test for DexYCB, evaluation for HO3D, H2O3D and FreiHAND; for custom the first of test,
            val and train that exists).
        setup: DexYCB's setup.
        subjects: DexYCB's, 1 to 10 (default: all of the split); such scores are not comparable with published ones.
        limit: at most this many samples, evenly spaced (default: all).
        json: also write the means to this file.
        out: a folder for report.html, scores.json, scores.npz and per_sample.csv (`utnet compare` reads it).
        boxes: "ground-truth", or a detector's: a JSON file, sample key to x0, y0, x1, y1 in pixels.
        joints: "own": the network's 21; "benchmark": fingertips are the benchmark's vertices (MANO networks only).
        depth: rows with depth, without, or both.
        mano: folder of your MANO_RIGHT.pkl and MANO_LEFT.pkl, for meshes of MANO's labels.
        allow_missing: skip samples that cannot be evaluated; rows contain their number.
    """
    from utnet.checkpoint import load_checkpoint, pick_device
    from utnet.data.sources import training_note
    from utnet.distributed import process_device, process_group
    from utnet.weights import shipped_networks

    check_writable(json)
    _check_root(data, root)
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file; give a folder")
    with process_group() as world:
        model, config = load_checkpoint(checkpoint, device=str(process_device(pick_device("auto"), world)))
        with world.main_process_first():
            options = {"root": root, "split": split, "setup": setup, "limit": limit, "mano": mano, "subjects": subjects}
            source, notes = _open(data, config, model.hand.name, allow_missing, **options)
            bundled = str(checkpoint) in shipped_networks()  # its training data are in its model card
            trained_on = training_note(config, source) if world.is_main and not bundled else ""
            notes += [trained_on] if trained_on else []
        protocols, detected = _protocols(source, boxes, joints, depth, allow_missing)
        scored = _Scored(checkpoint, model, config, source, detected, notes)
        _score(scored, protocols, world=world, json=json, out=out, allow_missing=allow_missing)


def _open(data: str, config: Any, hand: str, allow_missing: bool, **options: Any) -> tuple[Any, list[str]]:
    """Opens the source, with vertices if they are labelled for this hand model, and notes: the split, if it is not the
    first of `TEST_SPLITS`, and why there are no vertices."""
    from utnet.config import DataConfig
    from utnet.data import open_source, reader_options
    from utnet.data.source import NoSuchHands
    from utnet.data.sources import open_data

    named, known = bool(options["split"]), () if data == "synth" else reader_options(data)
    splits = [options["split"]] if named else TEST_SPLITS.get(data, [""])
    for split in splits:
        options["split"] = split
        try:
            source = open_data(DataConfig(name=data, **options), config, train=False)
            break
        except NoSuchHands:
            if split == splits[-1]:
                raise
    lacking = splits[: splits.index(split)]
    notes = [f"scored on the split {split}; there is no {' or '.join(lacking)}"] if lacking else []
    if "with_vertices" not in known or _first(source, allow_missing).hand_model != hand:
        return source, notes
    given = {key: value for key, value in options.items() if key in known and value != ""}
    try:
        return open_source(data, options["root"], with_vertices=True, **given), notes
    except InputError as error:
        return source, [*notes, f"without labelled meshes: {error}"]


def _check_root(data: str, root: str) -> None:
    """InputError for a data set without a folder, or a folder for synthetic hands."""
    if data == "synth" and root:
        raise InputError(f"--root is given but --data is not; for example --data dexycb --root {root}")
    if data != "synth" and not root:
        raise InputError(f"no folder is given for {data}: --root FOLDER")


def _first(source: Any, allow_missing: bool) -> Any:
    """The first sample; with `allow_missing` the first readable one."""
    from utnet.data.source import BadSample, read_sample

    for i in range(len(source) if allow_missing else 1):
        sample = read_sample(source, i)
        if not isinstance(sample, BadSample):
            return sample
        if not allow_missing or i == len(source) - 1:
            raise InputError(sample.message)
    raise InputError(f"{source.name}: has no samples; choose another split")


def _protocols(
    source: Any, boxes: tuple[str, ...], joints: tuple[str, ...], depth: str, allow_missing: bool
) -> tuple[list[Protocol], dict[str, Any]]:
    """Protocols for every combination of the options, and the boxes of the detectors by name."""
    from utnet.evaluation.protocol import GROUND_TRUTH, Protocol, read_boxes
    from utnet.evaluation.validation import scorable_inputs

    known = scorable_inputs(source, skip_unreadable=allow_missing)
    inputs = [name for name in known if depth == "both" or (name == "rgbd") == (depth == "with")]
    if not inputs:
        raise InputError("--depth with: this data set has no depth images; leave it out")
    names: dict[str, str] = {}
    for given in boxes:
        name = given if given == GROUND_TRUTH else Path(given).name
        if names.setdefault(name, given) != given:
            raise InputError(
                f"--boxes {names[name]} {given}: both rows would have the name {name}; rename one of the files"
            )
    detected = {name: read_boxes(given) for name, given in names.items() if given != GROUND_TRUTH}
    kinds = list(dict.fromkeys(joints))
    found = [Protocol(name == "rgbd", box, kind) for box in names for kind in kinds for name in inputs]
    if not found:
        raise InputError("no protocol: --boxes and --joints need at least one value each")
    return found, detected


@dataclass(frozen=True)
class _Scored:
    """An evaluation: a checkpoint's network, a source, detectors' boxes by name, and notes."""

    checkpoint: Path
    model: UTNet
    config: Config
    source: Any
    detected: dict[str, Any]
    notes: list[str]


def _score(
    scored: _Scored,
    protocols: list[Protocol],
    *,
    world: ProcessInfo,
    json: Path | None,
    out: Path | None,
    allow_missing: bool,
) -> None:
    """Evaluates in all processes; the main process prints and writes."""
    import torch

    from utnet.checkpoint import run_info
    from utnet.evaluation.published import describe_split
    from utnet.evaluation.scoring import score_source
    from utnet.evaluation.summary import summarise
    from utnet.evaluation.tables import score_lines
    from utnet.evaluation.validation import constant_hand
    from utnet.io.atomic import atomic_files, write_json

    run = score_source(
        scored.model,
        scored.source,
        scored.config.crop,
        scored.config.train,
        protocols=protocols,
        boxes=scored.detected,
        allow_missing=allow_missing,
        world=world,
        progress=True,
    )
    if not world.is_main:
        return
    constant = constant_hand(torch.from_numpy(run.gt_m))
    summaries = [summarise(row) for row in run.rows]
    for line in score_lines(summaries, constant):
        print(line)
    for note in scored.notes:
        print(f"note: {note}")
    if json:
        write_json(json, _means(run.rows, constant))
    if out is None:
        return
    source = scored.source
    about = {
        **run_info(),
        "checkpoint": str(scored.checkpoint),
        "hand": scored.model.hand.name,
        "data": {**describe_split(source), "tips": source.tips},
        "constant": constant,
    }
    from utnet.evaluation.saved_scores import save_run

    with atomic_files(out) as folder:
        save_run(folder, run.rows, summaries, about, run.gt_m)
        _write_page(scored, folder, rows=run.rows, summaries=summaries, about=about)
    print(f"open {out / 'report.html'}")


def _means(rows: list, constant: dict[str, float]) -> dict[str, Any]:
    """Contents of `utnet eval --json`: the first row without depth and the first with it."""
    tree: dict[str, Any] = {"num": len(rows[0]), "constant": constant}
    for row in rows:
        names = ("mpjpe_mm", "pa_mpjpe_mm", "auc")
        means = {name: float(row.metrics[name].mean()) for name in names}
        tree.setdefault(row.protocol.input, {**means, "protocol": row.label})
    return tree


def _write_page(scored: _Scored, out: Path, *, rows: list[Row], summaries: list[dict], about: dict[str, Any]) -> None:
    from utnet.evaluation.published import dataset_of
    from utnet.evaluation.saved_scores import CSV, JSON, NPZ
    from utnet.evaluation.scores_page import write_scores_page
    from utnet.evaluation.sheet import case_sheet, pick_cases

    first = rows[0].protocol
    drawn = [row for row in rows if (row.protocol.boxes, row.protocol.joints) == (first.boxes, first.joints)]
    sheets = {}
    data, facts, notes = about["data"], [], list(scored.notes)
    if rows[0].joints_mm["absolute"].min() >= 0:  # NaN if a camera is unknown
        fewest = min(drawn, key=len)  # a row with depth may lack samples
        for name, places in pick_cases(fewest).items():
            keys = [str(fewest.keys[i]) for i in places]
            title = f"{name.capitalize()} cases by MPJPE ({fewest.protocol.short})"
            sheets[title] = case_sheet(
                scored.model, scored.source, scored.config.crop, drawn, keys, boxes=scored.detected
            )
    else:
        notes.append("cases are not drawn: their cameras are unknown")
    facts.append(f"Checkpoint {about['checkpoint']}, {about['hand']} hand; utnet {about['versions']['utnet']}.")
    split = f" {data['split']}" if data["split"] else ""
    facts.append(
        f"{data['name']}{split}: {len(rows[0])} of {rows[0].num_expected} samples, keys {data['keys_sha256'][:12]}."
    )
    write_scores_page(
        out / "report.html",
        title=f"Scores on {data['name']}{split}",
        facts=facts + [f"{note[0].upper()}{note[1:]}." for note in notes],
        rows=rows,
        summaries=summaries,
        constant=about["constant"],
        sheets=sheets,
        links=(JSON, NPZ, CSV),
        dataset=dataset_of(data),
    )
