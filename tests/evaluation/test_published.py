"""Published scores: complete rows, shown beside a run's own."""

from datetime import date

import pytest

from support.trees import dexycb_tree
from utnet.data import open_source
from utnet.errors import InputError
from utnet.evaluation.published import (
    SHOWN,
    comparison_lines,
    comparison_table,
    dataset_of,
    describe_split,
    published_rows,
)
from utnet.evaluation.submission import FREIHAND_NUM, HO3D_NUM
from utnet.io import layouts

DATASETS = ("freihand", "ho3d_v2", "ho3d_v3", "dexycb")
RUN = {"label": "boxes: ground-truth", "metrics": {"mpjpe_mm": {"mean": 12.34}, "pa_mpjpe_mm": {"mean": 6.789}}}


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_row_has_scores_a_protocol_and_a_source_that_was_read(dataset):
    rows = published_rows(dataset)
    assert rows
    for row in rows:
        assert set(row) <= {"dataset", "method", "protocol", "source", "read", *SHOWN}
        assert row["source"].startswith("https://")
        assert date.fromisoformat(row["read"]) >= date(2026, 11, 28)
        assert row["protocol"]
        assert all(3 < row[name] < 30 for name in row if name.endswith("_mm"))
        assert all(0.4 < row[name] < 1 for name in row if name.startswith("pa_f"))
        assert row.get("pa_f5", 0) < row.get("pa_f15", 1)


def test_the_run_stands_first_and_the_papers_in_order():
    heads, rows = comparison_table([RUN], "freihand")
    assert rows[0][:3] == ["this run", "12.3", "6.8"]
    column = heads.index("PA-MPJPE [mm]")
    published = [float(row[column]) for row in rows[1:]]
    assert published == sorted(published)
    lines = list(comparison_lines([RUN], "freihand"))
    sources = {row[-1] for row in rows if row[-1]}
    assert sum(line.startswith("[") for line in lines) == len(sources)


def test_a_run_compares_only_on_the_split_of_the_papers():
    assert dataset_of({"name": "freihand", "split": "evaluation", "num": FREIHAND_NUM}) == "freihand"
    assert dataset_of({"name": "ho3d", "split": "evaluation", "num": HO3D_NUM["v3"]}) == "ho3d_v3"
    assert dataset_of({"name": "ho3d", "split": "evaluation", "num": 9}) == ""
    assert dataset_of({"name": "freihand", "split": "evaluation", "num": 9}) == ""
    assert dataset_of({"name": "freihand", "split": "val", "num": 90}) == ""
    assert dataset_of({"name": "synth", "split": "", "num": 256}) == ""


def test_parts_of_dexycb_compare_with_no_paper():
    whole = open_source("dexycb", dexycb_tree(), split="test", setup="s0")
    described = describe_split(whole)
    assert dataset_of(described) == "dexycb"
    assert dataset_of({**described, "setup": "s1"}) == dataset_of({**described, "split": "val"}) == ""
    subject = layouts.DEXYCB_SUBJECTS.index(whole.sequence(0).split("/")[0]) + 1
    for part in ({"limit": 2}, {"sides": "left"}, {"subjects": [subject]}):
        assert dataset_of(describe_split(open_source("dexycb", dexycb_tree(), split="test", setup="s0", **part))) == ""


def test_the_command_takes_a_run_or_the_papers(tmp_path):
    from utnet.cli.compare_command import compare

    for options in ({}, {"run_b": tmp_path, "published": True}):
        with pytest.raises(InputError, match="--published"):
            compare(tmp_path, **options)
