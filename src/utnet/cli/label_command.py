"""`utnet label`. Heavy imports are inside the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from utnet.apps.label.agreement import Limits
from utnet.cli.options import Flag, optional

if TYPE_CHECKING:
    from utnet.apps.label.dataset import Summary

_LIMITS = Limits()


def label(
    inputs: Annotated[tuple[str, ...], tyro.conf.Positional, optional("INPUT...")],
    out: Annotated[Path, tyro.conf.arg(metavar="FOLDER")],
    sequence_by: Annotated[str | None, optional("REGEX")] = None,
    val_share: float = 0.1,
    every: int = 5,
    limits: Limits = _LIMITS,
    copies: int = 0,
    backgrounds: Annotated[Path | None, optional("FOLDER")] = None,
    coco: Flag = False,
) -> None:
    """Labels hands in pictures and videos, and writes those on which several estimates agree as a data set for training
    (`data.name: custom`).

    Exit code: 0 success, 1 some inputs could not be read completely, 2 bad arguments, or no hand was kept; nothing is
    written.

    Args:
        inputs: pictures, folders, globs ("photos/**/*.jpg") or videos.
        out: a new folder.
        sequence_by: regular expression searched in the path, such as "(person_[0-9]+)/": pictures with the same groups
            are of one person or recording (default: pictures of one folder). Each video is a sequence. Complete
            sequences are held out for validation.
        val_share: fraction of the hands held out for validation.
        every: label every n-th frame of videos.
        limits: of the agreement scores.
        copies: number of additional copies of each training hand on other backgrounds in other light.
        backgrounds: a folder of photographs for the copies (default: drawn scenes).
        coco: also write the labels as COCO-WholeBody's: coco_wholebody.json.
    """
    from utnet.apps.label.dataset import FILE, SUMMARY, label_pictures
    from utnet.apps.label.sequences import by_pattern
    from utnet.predict.inputs import find_inputs

    summary = label_pictures(
        find_inputs(inputs),
        out,
        sequence_of=None if sequence_by is None else by_pattern(sequence_by),
        val_share=val_share,
        every=every,
        limits=limits,
        copies=copies,
        backgrounds=backgrounds,
    )
    for line in summary_lines(summary, val_share):
        print(line)
    if coco:
        from utnet.predict.formats.coco import custom_to_coco

        print(f"{custom_to_coco(out, out / 'coco_wholebody.json')} hands in {out / 'coco_wholebody.json'}")
    print(f"{out / FILE}, {out / SUMMARY}: preview them by utnet data preview custom --root {out}")
    if summary.problems:
        sys.exit(1)


def summary_lines(summary: Summary, val_share: float) -> list[str]:
    """The result for the terminal."""
    videos = f", {summary.frames} frames of {summary.videos} videos" if summary.videos else ""
    kept = sum(summary.kept.values())
    lines = [f"{summary.pictures} pictures{videos}: {summary.found} hands, {kept} kept"]
    for split, num in sorted(summary.kept.items()):
        of = summary.sequences[split]
        lines.append(f"  {split:14s}{num:7d}  of {of} sequence{'' if of == 1 else 's'}")
    held_out = summary.kept.get("val", 0) / kept
    if abs(held_out - val_share) > val_share / 2:
        lines.append(
            f"  val has {held_out:.0%} of the hands, not {val_share:.0%}: complete sequences are held out; "
            "--sequence-by can make them smaller"
        )
    lines += [f"  {reason:14s}{num:7d}  dropped" for reason, num in summary.dropped.items() if num]
    if summary.copies:
        lines.append(f"  {'copies':14s}{summary.copies.made:7d}  not cut out: {summary.copies.not_cut_out}")
    if summary.problems:
        lines.append(f"  {len(summary.problems)} files could not be read completely")
    return lines
