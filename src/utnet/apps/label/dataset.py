"""`label_pictures`: pictures and videos in, a `custom` data set out."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tqdm import tqdm

import utnet
from utnet.apps.label.agreement import REASONS, Limits, why_dropped
from utnet.apps.label.candidates import FrameCount, HandCandidate, in_picture, in_video
from utnet.apps.label.copies import Copier, Copies
from utnet.apps.label.sequences import SequenceOf, name_sequences, splits
from utnet.data.custom.custom_reader import FILE
from utnet.errors import InputError, as_input_error
from utnet.io.atomic import atomic_dir, require_new, write_json
from utnet.predict import Predictor
from utnet.predict.inputs import Input

SUMMARY = "labels.json"
IMAGES = "images"


@dataclass
class Summary:
    """Result of a call; `labels.json` contains the same.

    Attributes:
        pictures: number of pictures read.
        videos: number of videos read.
        frames: number of video frames processed.
        found: hands in all of them.
        kept: hands by split.
        sequences: of the kept hands, by split.
        dropped: hands by reason, see `agreement.REASONS`.
        problems: file and reason for inputs that could not be read, or only in part.
        copies: of the split train on other backgrounds; None if not requested.
    """

    pictures: int = 0
    videos: int = 0
    frames: int = 0
    found: int = 0
    kept: dict[str, int] = field(default_factory=dict)
    sequences: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    problems: list[dict[str, str]] = field(default_factory=list)
    copies: Copies | None = None


def label_pictures(
    inputs: Sequence[Input],
    out: str | Path,
    *,
    sequence_of: SequenceOf | None = None,
    val_share: float = 0.1,
    every: int = 5,
    limits: Limits | None = None,
    copies: int = 0,
    backgrounds: str | Path | None = None,
) -> Summary:
    """Writes a data set of the hands on which detector, fit, mirrored picture and neighbouring frames agree.

    The folder appears once it is complete.

    Args:
        inputs: pictures and videos (`utnet.predict.inputs.find_inputs`).
        out: a new folder.
        sequence_of: the sequence of a picture (default: its folder); each video is a sequence.
        val_share: fraction of the hands, in complete sequences, for the split val.
        every: label every n-th frame of a video.
        limits: of the agreement scores.
        copies: number of copies of each hand of the split train on other backgrounds.
        backgrounds: a folder of photographs for these (default: drawn scenes).

    Raises:
        InputError: a camera, a picture without a sequence, a single sequence with `val_share`, no hand kept, or no
            photographs.
    """
    limits = limits or Limits()
    if not 0 <= val_share < 0.5 or every < 1:
        raise InputError(f"val_share is {val_share}, every is {every}; expected 0 to below 0.5, and at least 1")
    if copies < 0 or (backgrounds is not None and not copies):
        raise InputError(f"copies is {copies}; expected 0 or more, and at least 1 where backgrounds are given")
    require_new(Path(out))
    copier = Copier(copies, backgrounds) if copies else None
    names = name_sequences(inputs, sequence_of)
    splits(names, val_share)  # raises early if there is only one sequence
    predictor = Predictor(method="fit")
    with atomic_dir(out) as folder:
        (folder / IMAGES).mkdir()
        summary, kept = Summary(), list[dict]()
        pairs = list(zip(inputs, names, strict=True))
        for number, (item, sequence) in enumerate(tqdm(pairs, unit="file", disable=None)):
            for found in kept_hands(item, f"{number:06d}_{item.name}", predictor, limits, every, summary):
                image = f"{IMAGES}/{found.name}.jpg"
                (folder / image).write_bytes(found.jpeg)
                kept.append({"image": image, **found.line, "sequence": sequence})
        if not kept:
            raise InputError(_nothing(summary))
        held_out = splits([line["sequence"] for line in kept], val_share)
        lines = [{**line, "split": split} for line, split in zip(kept, held_out, strict=True)]
        summary.kept = dict(Counter(line["split"] for line in lines))
        summary.sequences = dict(Counter(split for split, _ in {(line["split"], line["sequence"]) for line in lines}))
        if copier:
            lines += _copies(copier, folder, [line for line in lines if line["split"] == "train"], summary)
        (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        about = {"made_by": f"utnet {utnet.__version__}", "limits": asdict(limits), "every": every} | asdict(summary)
        if not copier:
            del about["copies"]
        write_json(folder / SUMMARY, about)
    return summary


def kept_hands(
    item: Input, name: str, predictor: Predictor, limits: Limits, every: int, summary: Summary
) -> Iterator[HandCandidate]:
    """Yields the hands of a file on which the estimates agree, and counts all of them and problems in the summary.

    Args:
        item: a picture or video.
        name: prefix of the hands' names.
        predictor: of the method fit.
        limits: of the agreement scores.
        every: label every n-th frame of a video.
        summary: updated, except `kept` and `sequences`.
    """
    for found in _hands(item, name, predictor, limits, every, summary):
        if _is_kept(found, limits, summary):
            yield found


def _copies(copier: Copier, folder: Path, lines: Sequence[dict], summary: Summary) -> list[dict]:
    """Writes the pictures of the copies of `lines` and returns their lines. Unreadable photographs are reported."""
    summary.copies = Copies()
    made = []
    for copy in copier(folder, lines, summary.copies):
        (folder / copy.line["image"]).write_bytes(copy.jpeg)
        made.append(copy.line)
    for file, why in copier.unread.items():
        _note(file, why, summary)
    return made


def _hands(
    item: Input, name: str, predictor: Predictor, limits: Limits, every: int, summary: Summary
) -> Iterator[HandCandidate]:
    """Yields the hands of a file. Unreadable inputs are reported and counted."""
    path = Path(str(item.source))
    try:
        if item.kind == "picture":
            found = in_picture(path, name, predictor, limits)
            summary.pictures += 1
            yield from found
            return
        count = FrameCount()
        yield from in_video(path, name, predictor, limits, every=every, count=count)
        summary.videos += 1
        summary.frames += count.frames
        if count.incomplete:
            _note(item.label, count.incomplete, summary)
    except Exception as error:  # a failing file does not end the others
        _note(item.label, str(as_input_error(error, item.label)), summary)


def _is_kept(found: HandCandidate, limits: Limits, summary: Summary) -> bool:
    """Whether the hand is kept; updates the counts."""
    reason = why_dropped(found.quality, limits)
    summary.found += 1
    if reason is not None:
        summary.dropped[reason] += 1
    return reason is None


def _note(file: str, why: str, summary: Summary) -> None:
    why = why.removeprefix(f"{file}: ")
    summary.problems.append({"file": file, "why": why})
    tqdm.write(f"utnet: {file}: {why}", file=sys.stderr)


def _nothing(summary: Summary) -> str:
    if not summary.found:
        read = summary.pictures + summary.frames
        return f"no hand was found in {read} pictures and frames; nothing is written"
    reasons = ", ".join(f"{num} {reason}" for reason, num in summary.dropped.items() if num)
    return f"none of {summary.found} hands was kept ({reasons}); nothing is written: relax the limits to keep some"
