"""What fine-tuning gained and lost: scores of the starting network and of the result, on new and on replayed data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from utnet.checkpoint import find_checkpoint, load_checkpoint
from utnet.config import CropConfig, ModelConfig, TrainConfig
from utnet.data.source import Source
from utnet.data.sources import describe
from utnet.evaluation.validation import evaluate, scorable_inputs


def before_and_after(
    start: str, best: Path, open_sources: Callable[[ModelConfig, CropConfig], list[Source]], loading: TrainConfig
) -> list[dict]:
    """Scores the network that a run started from, and its best one.

    Args:
        start: `train.init_from` of the run.
        best: the folder of its best checkpoint.
        open_sources: opens the data sets to score on, for a network's input size and crops
            (`data.sources.open_compared`).
        loading: batch size and workers.

    Returns:
        A row for each data set: {"data": its description, "before": scores, "after": scores} as of `evaluate`; "before"
        is empty if the run did not start from a network.
    """
    networks = {"after": best}
    if start and find_checkpoint(start).is_dir():
        networks["before"] = find_checkpoint(start)
    rows: list[dict] = []
    for name, folder in networks.items():
        model, own = load_checkpoint(folder)
        sources = open_sources(own.model, own.crop)
        rows = rows or [{"data": describe(source), "before": {}, "after": {}} for source in sources]
        for row, source in zip(rows, sources, strict=True):
            row[name] = evaluate(model, source, own.crop, loading, inputs=scorable_inputs(source))
    return rows
