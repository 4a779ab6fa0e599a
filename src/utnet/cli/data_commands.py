"""`utnet data check | preview | stats | shard`. Heavy imports are inside the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from utnet.cli.options import Changes, File, Name, Number, Root
from utnet.errors import InputError

_SYNTH_LIMIT = 256

_LABEL_FILES = {"dexycb": ("with_mask",), "freihand": ("with_vertices",)}
"""Optional labels of training splits that a check also reads."""


@dataclass(frozen=True)
class SourceChoice:
    """A data set on disk.

    Attributes:
        source: data set (ho3d: HO3D and H2O3D); "synth": synthetic validation hands.
        root: its folder; for tars also a glob, a URL or a `pipe:` command.
        split: split (default: train).
        setup: DexYCB's setup.
        limit: at most this many samples, evenly spaced over the split (default: all).
        sides: hands to use.
        hand_model: model of the labels, if it is not in the files.
        mano: folder of your MANO_RIGHT.pkl and MANO_LEFT.pkl, to decode MANO's labels.
        config: for synth: a YAML file, or the name of a bundled config such as synth_full.
        set: for synth: config values, such as synth.appearance=full.
    """

    source: Annotated[Literal["dexycb", "ho3d", "freihand", "custom", "shards", "tars", "synth"], tyro.conf.Positional]
    root: Root = ""
    split: Name = None
    setup: Literal["s0", "s1", "s2", "s3"] = "s0"
    limit: Number = None
    sides: Literal["both", "right", "left"] = "both"
    hand_model: Literal["auto", "open", "mano"] = "auto"
    mano: Root = ""
    config: File = None
    set: Changes = ()

    def open(self, *extras: str) -> Any:
        """Opens the source.

        Args:
            extras: switches of readers, such as "with_mask", enabled if the source has them.

        Raises:
            InputError: no such folder or split, or an option that this source does not have.
        """
        from utnet.config import Config, DataConfig, override
        from utnet.data import open_source, reader_options
        from utnet.data.sources import open_data

        if self.source == "synth" and self.root:
            raise InputError(f"--root {self.root}: synthetic hands have no folder; leave it out, or name a data set")
        if self.source != "synth" and not self.root:
            raise InputError(f"no folder is given for {self.source}: --root FOLDER")
        if self.source == "synth":
            data = DataConfig(name="synth", limit=self.limit or _SYNTH_LIMIT)
            config = override(Config.load(self.config) if self.config else Config(), self.set)
            return open_data(data, config, train=False)
        if self.config or self.set:
            raise InputError(f"--config and --set are for synthetic hands; leave them out for {self.source}")
        known = reader_options(self.source)
        options: dict[str, Any] = {"split": self.split, "limit": self.limit, "mano": self.mano or None}
        options |= dict.fromkeys(extras, True)
        choices = {"setup": (self.setup, "s0"), "sides": (self.sides, "both"), "hand_model": (self.hand_model, "auto")}
        for name, (value, default) in choices.items():
            options[name] = value
            if value != default and name not in known:
                raise InputError(f"--{name.replace('_', '-')} {value}: {self.source} has no such option; leave it out")
        if self.split is not None and "split" not in known:
            raise InputError(f"--split {self.split}: {self.source} has no splits; leave it out")
        return open_source(self.source, self.root, **{k: v for k, v in options.items() if k in known})


Choice = Annotated[SourceChoice, tyro.conf.arg(name="")]


def check(data: Choice, workers: int = 1, json: File = None) -> None:
    """Checks a split: reads every file that training reads, and validates the labels.

    Exit code: 0 no errors, 1 errors that would spoil training, 2 bad arguments.

    Args:
        data: the data set.
        workers: worker processes.
        json: also write the report to this file.
    """
    from utnet.data.custom.custom_reader import BadLines
    from utnet.data.inspection.check import check_source
    from utnet.data.inspection.tables import bad_lines, check_lines
    from utnet.io.atomic import write_json

    _writable(json)
    processes = _workers(workers)
    try:
        source = data.open(*_LABEL_FILES.get(data.source, ()) if data.split != "evaluation" else ())
    except BadLines as error:
        for line in bad_lines(error.messages):
            print(line)
        if json:
            write_json(json, {"ok": False, "bad_lines": error.messages})
        sys.exit(1)
    report = check_source(source, mano=data.mano or None, workers=processes, progress=True)
    _finish(check_lines(report), report.to_tree(), json)
    if not report.ok:
        sys.exit(1)


def preview(data: Choice, out: Path = Path("preview.png"), num: int = 24, tile: int = 224, whole: bool = False) -> None:
    """Draws a contact sheet: joints, mesh and depth over the pictures of a split.

    Args:
        data: the data set.
        out: output file, .png or .jpg.
        num: number of samples, evenly spaced.
        tile: width of a tile in pixels.
        whole: full pictures with the box instead of crops around it.
    """
    from utnet.data.inspection.decode import Decoder
    from utnet.data.inspection.preview import draw_sheet, read_samples
    from utnet.data.inspection.tables import unreadable_lines
    from utnet.data.sources import counted
    from utnet.render.drawing import save_picture

    _writable(out)
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"--out {out}: expected a name that ends in .png or .jpg")
    source = data.open(*_LABEL_FILES.get(data.source, ()) if data.split != "evaluation" else ())
    samples, bad = read_samples(source, num)
    sheet = draw_sheet(samples, Decoder(source, data.mano or None), tile_px=tile, whole=whole)
    save_picture(out, sheet)
    for line in unreadable_lines(bad):
        print(line)
    print(f"{out}: {counted(len(samples), 'sample')}, {sheet.shape[1]} x {sheet.shape[0]} px")


def stats(data: Choice, workers: int = 1, json: File = None) -> None:
    """Describes a split: colours, distances, sizes, sides, views and poses.

    Args:
        data: the data set.
        workers: worker processes.
        json: also write the numbers to this file.
    """
    from utnet.data.inspection.stats import stats_source
    from utnet.data.inspection.tables import stats_lines

    _writable(json)
    processes = _workers(workers)
    numbers = stats_source(data.open(), workers=processes, progress=True)
    _finish(stats_lines(numbers), numbers, json)


def shard(
    data: Choice,
    out: Path,
    workers: int = 1,
    size_px: int = 384,
    shard_mb: float = 256.0,
    max_bad: int = 50,
    vertices: bool = False,
    masks: bool = False,
) -> None:
    """Packs a split into tar shards of crops with their labels, for random access or streaming.

    Args:
        data: the data set.
        out: a new folder.
        workers: worker processes.
        size_px: longest side of a stored picture. Crops at expand 2.0 have 0.58 of it: 224 px; 440 gives 256.
        shard_mb: size of a shard in MiB.
        max_bad: number of unreadable samples to leave out (listed in shards.json) before it stops.
        vertices: include labelled meshes.
        masks: include labelled masks.
    """
    from utnet.io.atomic import require_new

    require_new(out)  # before torch is imported and the data set is read
    from utnet.data.shards.write_shards import ShardOptions, write_shards
    from utnet.data.sources import counted

    options = ShardOptions(size_px=size_px)
    source = open_to_shard(data, vertices=vertices, masks=masks)()
    about = write_shards(source, out, options=options, workers=workers, shard_mb=shard_mb, max_bad=max_bad)
    skipped = f", {about['num_skipped']} skipped (named in {out / 'shards.json'})" if about["num_skipped"] else ""
    print(f"{out}: {counted(about['num'], 'sample')} in {counted(len(about['shards']), 'shard')}{skipped}")


def open_to_shard(data: SourceChoice, *, vertices: bool, masks: bool) -> Callable[[], Any]:
    """Checks that a source can be sharded with these labels; returns a function that opens it."""
    wanted = {"with_vertices": vertices, "with_mask": masks}
    if data.source == "tars":
        raise InputError("tars are already packed streams; shard the original data set")
    opens = partial(data.open, *(name for name, on in wanted.items() if on))
    first = _first_readable(opens())
    if first is not None:
        for name, requested, found in (
            ("vertices", vertices, first.vertices_cam_m),
            ("masks", masks, first.hand_mask),
        ):
            if requested and found is None:
                raise InputError(f"--{name}: {data.source} has none; leave it out")
        if first.params is None:
            print("no hand parameters are written; for MANO's labels add --mano FOLDER")
    return opens


def _first_readable(source: Any, tries: int = 50) -> Any:
    """The first readable sample, which shows what the source contains; None if the first ones are damaged."""
    for index in range(min(tries, len(source))):
        try:
            return source[index]
        except InputError:
            continue
    return None


def _finish(lines: Any, tree: dict, json: Path | None) -> None:
    from utnet.io.atomic import write_json

    for line in lines:
        print(line)
    if json:
        write_json(json, tree)


def _workers(workers: int) -> int:
    """Number of worker processes of the loader; 1 means this process."""
    if workers < 1:
        raise InputError(f"--workers is {workers}; expected at least 1")
    return 0 if workers == 1 else workers


def _writable(path: Path | None) -> None:
    if path and (path.is_dir() or not path.parent.is_dir()):
        raise InputError(f"{path}: cannot be written; give a file in a folder that exists")
