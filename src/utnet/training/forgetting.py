"""What fine-tuning gained and lost: scores of the starting network and of the result, on new and on replayed data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from utnet.checkpoint import find_checkpoint, load_checkpoint
from utnet.config import Config, default_validation
from utnet.data.sources import describe, open_data
from utnet.errors import InputError
from utnet.evaluation.validation import evaluate, scorable_inputs

_LIMIT = 128
"""Hands of each replayed data set that are scored, unless its section has a limit."""


def before_and_after(config: Config, best: Path) -> list[dict]:
    """Scores the network of `train.init_from` and the best one on the validation data of a run and of its replay.

    Args:
        config: of a run with `replay`.
        best: the folder of its best checkpoint.

    Returns:
        A row for each data set: {"data": its description, "before": scores, "after": scores} as of `evaluate`; "before"
        is empty if the run did not start from a network. Replayed data without a validation split have no row.
    """
    assert config.replay is not None
    datasets = [config.val or default_validation(config.data)]
    for part in config.replay.mixture or (config.replay,):
        try:
            validation = default_validation(part)
        except InputError:
            continue
        datasets.append(replace(validation, limit=part.limit or _LIMIT))
    start = config.train.init_from
    networks = {"after": best}
    if start and find_checkpoint(start).is_dir():
        networks["before"] = find_checkpoint(start)
    rows: list[dict] = [{"data": "", "before": {}, "after": {}} for _ in datasets]
    for name, folder in networks.items():
        model, own = load_checkpoint(folder)
        crops = replace(config, crop=own.crop, model=own.model)  # each network sees crops of its own kind
        for row, data in zip(rows, datasets, strict=True):
            source = open_data(data, crops, train=False)
            row["data"] = describe(source)
            row[name] = evaluate(model, source, crops, inputs=scorable_inputs(source))
    return rows
