"""`utnet eval | compare | submit`. Light: what the command line needs to know them, nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from utnet.errors import InputError

if TYPE_CHECKING:
    from utnet.scoring.protocol import Protocol

_TEST_SPLITS = {"dexycb": "test", "ho3d": "evaluation", "freihand": "evaluation", "custom": "test"}


def evaluate(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    data: Literal["synth", "dexycb", "ho3d", "freihand", "custom", "shards"] = "synth",
    root: str = "",
    split: str | None = None,
    setup: str = "s0",
    limit: int | None = None,
    json: Path | None = None,
    out: Path | None = None,
    boxes: tuple[str, ...] = ("ground-truth",),
    joints: tuple[Literal["own", "benchmark"], ...] = ("own",),
    depth: Literal["both", "with", "without"] = "both",
    mano: str = "",
    allow_missing: bool = False,
) -> None:
    """Scores a checkpoint with RGB and, where there is depth, RGB-D input: a row for every protocol that is named.

    Under torchrun the processes share the samples, and the numbers are the same.

    Args:
        checkpoint: a folder such as RUN/best.
        data: what to score on; "synth": held-out synthetic hands.
        root: the data set's folder.
        split: default: test for DexYCB and custom, evaluation for HO3D and FreiHAND.
        setup: DexYCB's s0, s1, s2 or s3.
        limit: at most this many samples, evenly spaced.
        json: also write the means there.
        out: a folder for report.html, scores.json, scores.npz and per_sample.csv (`utnet compare` reads it).
        boxes: "ground-truth", or a detector's: a JSON file, sample key to x0, y0, x1, y1 in pixels.
        joints: "own": the network's 21; "benchmark": fingertips are the benchmark's vertices (MANO networks only).
        depth: rows with depth, without, or both.
        mano: folder of your MANO_RIGHT.pkl and MANO_LEFT.pkl, for meshes of MANO's labels.
        allow_missing: leave out samples that cannot be scored; every row then says how many.
    """
    from utnet.checkpoint import load_checkpoint, pick_device
    from utnet.parallel import joined, own_device

    _writable(json)
    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; give a folder")
    with joined() as world:
        model, config = load_checkpoint(checkpoint, device=str(own_device(pick_device("auto"), world)))
        with world.first_alone():
            options = {"root": root, "split": split, "setup": setup, "limit": limit, "mano": mano}
            source, note = _open(data, config, model.hand.name, allow_missing, **options)
        protocols, detected = _protocols(source, boxes, joints, depth, allow_missing)
        _score(model, config, source, protocols, detected, world, json, out, allow_missing, checkpoint, note)


def compare(
    run_a: Annotated[Path, tyro.conf.Positional],
    run_b: Annotated[Path, tyro.conf.Positional],
    rows: tuple[int, int] | None = None,
    json: Path | None = None,
) -> None:
    """Says which of two scored runs is better: paired differences of the same samples, with intervals.

    Args:
        run_a: a folder that `utnet eval CKPT --out FOLDER` wrote.
        run_b: another, on the same samples.
        rows: a row of each, counted from 0 (default: every protocol that both have).
        json: also write the numbers there.
    """
    from utnet.scoring.compare import compare_lines, compare_runs
    from utnet.scoring.files import load_run
    from utnet.storage import write_json

    _writable(json)
    result = compare_runs(load_run(run_a), load_run(run_b), pairs=None if rows is None else [rows])
    for line in compare_lines(result):
        print(line)
    if json:
        write_json(json, result)


def submit(
    checkpoint: Annotated[Path, tyro.conf.Positional],
    data: Literal["ho3d", "freihand", "dexycb"],
    root: str,
    out: Path,
    setup: str = "s0",
    split: str | None = None,
    depth: Literal["auto", "with", "without"] = "auto",
) -> None:
    """Writes the file that a benchmark scores, and checks it as its server would.

    Args:
        checkpoint: a folder such as RUN/best.
        data: the benchmark.
        root: the data set's folder.
        out: the zip to write (DexYCB: a text file).
        setup: DexYCB's s0, s1, s2 or s3.
        split: DexYCB's val or test (default: test); the others' is evaluation.
        depth: use the depth images (auto: where the data set has them).
    """
    from utnet.checkpoint import load_checkpoint, pick_device
    from utnet.data import open_source
    from utnet.parallel import joined
    from utnet.scoring.submit import write_submission

    _writable(out)
    with joined() as world:
        if world.size > 1:
            raise InputError("submit writes one file from one process; start it without torchrun")
    model, config = load_checkpoint(checkpoint, device=str(pick_device("auto")))
    options: dict[str, Any] = {"split": split or _TEST_SPLITS[data]}
    if data == "dexycb":
        options["setup"] = setup
    has_depth = data != "freihand"
    if depth == "with" and not has_depth:
        raise InputError("FreiHAND has no depth images; leave --depth out")
    use_depth = has_depth and depth != "without"
    if has_depth:
        options["with_depth"] = use_depth
    source = open_source(data, root, **options)
    written = write_submission(model, source, config, out, use_depth=use_depth, progress=True)
    print(f"{written.path}: {written.num} hands ({written.protocol.label})")
    for line in written.lines:
        print(line)


# ----------------------------------------------------------------------------------------------------------- the parts


def _open(data: str, config: Any, hand: str, allow_missing: bool, **options: Any) -> tuple[Any, str]:
    """The source, with vertices where they are labelled for this kind of hand, and why without them otherwise."""
    from utnet.config import DataConfig
    from utnet.data import open_source, reader_options
    from utnet.sources import open_data

    options["split"] = options["split"] or _TEST_SPLITS.get(data, "")
    source = open_data(DataConfig(name=data, **options), config, train=False)
    known = () if data == "synth" else reader_options(data)
    if "with_vertices" not in known or _first(source, allow_missing).hand_model != hand:
        return source, ""
    given = {key: value for key, value in options.items() if key in known and value != ""}
    try:
        return open_source(data, options["root"], with_vertices=True, **given), ""
    except InputError as error:
        return source, f"without labelled meshes: {error}"


def _first(source: Any, allow_missing: bool) -> Any:
    """The first sample, or the first that can be read where some may be missing."""
    for i in range(len(source) if allow_missing else 1):
        try:
            return source[i]
        except InputError:
            if not allow_missing or i == len(source) - 1:
                raise
    raise InputError(f"{source.name}: has no samples; choose another split")


def _protocols(
    source: Any, boxes: tuple[str, ...], joints: tuple[str, ...], depth: str, allow_missing: bool
) -> tuple[list[Protocol], dict[str, Any]]:
    """Every combination of the switches, and the boxes of the detectors by name."""
    from utnet.evaluate import INPUTS, scorable_inputs
    from utnet.scoring.protocol import GROUND_TRUTH, Protocol, read_boxes

    if allow_missing:  # samples without labels are counted, not refused
        known: tuple[str, ...] = INPUTS if _first(source, allow_missing).depth_m is not None else INPUTS[:1]
    else:
        known = scorable_inputs(source)
    inputs = [name for name in known if depth == "both" or (name == "rgbd") == (depth == "with")]
    if not inputs:
        raise InputError("--depth with: this data set has no depth images; leave it out")
    detected = {Path(name).name: read_boxes(name) for name in boxes if name != GROUND_TRUTH}
    names = list(dict.fromkeys(name if name == GROUND_TRUTH else Path(name).name for name in boxes))
    kinds = list(dict.fromkeys(joints))
    found = [Protocol(name == "rgbd", box, kind) for box in names for kind in kinds for name in inputs]
    if not found:
        raise InputError("no protocol is named: --boxes and --joints need at least one word each")
    return found, detected


def _score(model, config, source, protocols, detected, world, json, out, allow_missing, checkpoint, note) -> None:
    """Scores, prints and writes; the processes share the pass, and the first one does the rest."""
    import torch

    from utnet.checkpoint import run_info
    from utnet.evaluate import constant_hand
    from utnet.scoring.run import score_source
    from utnet.scoring.summary import summarise
    from utnet.scoring.tables import score_lines
    from utnet.sources import fingerprint
    from utnet.storage import write_json

    run = score_source(
        model,
        source,
        config,
        protocols=protocols,
        boxes=detected,
        allow_missing=allow_missing,
        world=world,
        progress=True,
    )
    if not world.is_first:
        return
    constant = constant_hand(torch.from_numpy(run.gt_m))
    summaries = [summarise(row) for row in run.rows]
    for line in score_lines(summaries, constant):
        print(line)
    if note:
        print(note)
    if json:
        write_json(json, _means(run.rows, constant))
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    about = {
        **run_info(),
        "checkpoint": str(checkpoint),
        "hand": model.hand.name,
        "data": {**fingerprint(source), "split": getattr(source, "split", ""), "tips": source.tips},
        "constant": constant,
    }
    from utnet.scoring.files import save_run

    save_run(out, run.rows, summaries, about)
    _write_page(out, model, source, config, run.rows, summaries, about, detected, note)
    print(f"open {out / 'report.html'}")


def _means(rows: list, constant: dict[str, float]) -> dict[str, Any]:
    """What `utnet eval --json` writes: the first row without depth and the first with it."""
    tree: dict[str, Any] = {"num": len(rows[0]), "constant": constant}
    for row in rows:
        names = ("mpjpe_mm", "pa_mpjpe_mm", "auc")
        means = {name: float(row.metrics[name].mean()) for name in names}
        tree.setdefault(row.protocol.input, {**means, "protocol": row.label})
    return tree


def _write_page(out, model, source, config, rows, summaries, about, detected, note) -> None:
    from utnet.scoring.files import CSV, JSON, NPZ
    from utnet.scoring.page import write_scores_page
    from utnet.scoring.sheet import case_sheet, pick_cases

    first = rows[0].protocol
    drawn = [row for row in rows if (row.protocol.boxes, row.protocol.joints) == (first.boxes, first.joints)]
    sheets = {}
    data, facts = about["data"], []
    if rows[0].joints_mm["absolute"].min() >= 0:  # NaN where a camera is not known
        for name, places in pick_cases(rows[0]).items():
            keys = [str(rows[0].keys[i]) for i in places]
            title = f"{name.capitalize()} cases by MPJPE ({first.short})"
            sheets[title] = case_sheet(model, source, config, drawn, keys, boxes=detected)
    else:
        note = f"{note}; cases are not drawn: their cameras are not known".removeprefix("; ")
    facts.append(f"Checkpoint {about['checkpoint']}, {about['hand']} hand; utnet {about['versions']['utnet']}.")
    split = f" {data['split']}" if data["split"] else ""
    facts.append(
        f"{data['name']}{split}: {len(rows[0])} of {rows[0].num_expected} samples, keys {data['keys_sha256'][:12]}."
    )
    write_scores_page(
        out / "report.html",
        title=f"Scores on {data['name']}{split}",
        facts=facts + ([f"{note[0].upper()}{note[1:]}."] if note else []),
        rows=rows,
        summaries=summaries,
        constant=about["constant"],
        sheets=sheets,
        links=(JSON, NPZ, CSV),
    )


def _writable(path: Path | None) -> None:
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise InputError(f"{path}: cannot be written; give a file in a folder that exists")
