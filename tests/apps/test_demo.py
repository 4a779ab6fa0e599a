"""The demo from end to end, small: every file that the page speaks of is there, its numbers are those of the run."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from utnet.apps.demo import demo, resolve_init_config
from utnet.checkpoint import load_checkpoint, save_checkpoint
from utnet.config import Config, LossConfig, ModelConfig
from utnet.data import open_source
from utnet.errors import InputError
from utnet.evaluation.validation import evaluate
from utnet.model import UTNet
from utnet.training.state import make_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    config = Config.load(ROOT / "config" / "demo.yaml")
    small = replace(config.train, minutes=None, steps=4, batch_size=8, warmup_steps=1, num_workers=0)
    folder = tmp_path_factory.mktemp("demo") / "out"
    small_config = replace(config, train=small, model=replace(config.model, size_px=64))
    return folder, demo(small_config, folder, minutes=None, frames=16, from_nothing=True, progress=False), small_config


def test_the_page_holds_the_scores_and_everything_it_links(made):
    folder, scores, _ = made
    page = (folder / "report.html").read_text()
    assert json.loads((folder / "scores.json").read_text()) == scores
    for layout in ("DexYCB layout", "HO3D layout"):
        assert scores["after"][layout]["num"] == 16
        for when, key in (("before", "rgb"), ("after", "rgbd")):
            assert f"<td>{scores[when][layout][key]['mpjpe_mm']:.1f}</td>" in page
        assert f"<td>{scores['after'][layout]['constant']['pa_mpjpe_mm']:.1f}</td>" in page
    links = re.findall(r'href="([^"]+)"', page)
    assert {Path(link).suffix for link in links} == {".glb", ".jpg", ".json"}
    assert all((folder / link).stat().st_size > 0 for link in links)
    assert page.count("data:image/png;base64,") == 3  # curves, and a sheet for each tree
    assert len(re.findall('data-glb="[^"]{1000,}"', page)) == 1
    text = re.sub('(base64,|data-glb=")[^"]*', "", page)  # four letters come up in pictures by chance
    assert "http" not in text.replace("http://www.w3.org", ""), "the page needs no network"


def test_the_page_says_what_it_started_from(made):
    folder, scores, _ = made
    page = (folder / "report.html").read_text()
    assert "--from-nothing" in scores["start"]
    assert scores["start"] in page
    assert "RGB, before training" in page


def test_what_ships_is_scored_untouched_and_fine_tuned(made, tmp_path, monkeypatch):
    config = made[2]
    torch.manual_seed(5)
    shipped = replace(config, model=replace(config.model, stem="lite0"), crop=replace(config.crop, expand=1.8))
    save_checkpoint(tmp_path / "weights" / "ti", UTNet(shipped.model), shipped)
    monkeypatch.setattr("utnet.weights.SHIPPED_FOLDER", tmp_path / "weights")
    scores = demo(config, tmp_path / "out", minutes=None, frames=8, progress=False)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Fine-tuned" in page
    assert "RGB-D, after fine-tuning" in page
    source = open_source("ho3d", tmp_path / "out" / "trees" / "ho3d", split="evaluation")
    assert scores["before"]["HO3D layout"] == evaluate(load_checkpoint("ti")[0], source, shipped.crop, shipped.train)
    tuned, run = load_checkpoint(tmp_path / "out" / "run" / "best")
    assert (run.model, run.crop) == (shipped.model, shipped.crop)
    start, now = load_checkpoint("ti")[0].state_dict(), tuned.state_dict()
    moved = max(float((now[name] - start[name]).abs().max()) for name in start)
    assert 0 < moved < 0.01, "a few steps from where it started, not from nothing"
    assert "fitted to the 8 hands" in page
    assert "best constant hand of 8</td>" in page


SHIPPED = Config(model=ModelConfig(size_px=32, stem="lite0"), loss=LossConfig(w_aux=2.0))


@pytest.fixture
def ships(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "weights" / "ti", UTNet(SHIPPED.model), SHIPPED)
    monkeypatch.setattr("utnet.weights.SHIPPED_FOLDER", tmp_path / "weights")


@pytest.mark.parametrize(
    "changes",
    [{}, {"stem": None}, {"refiner": "graph"}, {"dim": 128}, {"p_drop": 0.0, "checkpoint_blocks": True}],
)
def test_a_config_of_the_network_that_ships_is_fine_tuned(changes, ships):
    """Whether it spells the network out or leaves it to the preset; what is no part of it stays the config's."""
    config = replace(SHIPPED, model=replace(SHIPPED.model, **changes))
    begun, said = resolve_init_config(config, from_nothing=False)
    assert "Fine-tuned from the bundled network (ti)" in said
    assert begun.train.init_from == "ti"
    assert begun.model == replace(config.model, stem="lite0")
    start, theirs = make_model(begun.model, begun.train)[0].state_dict(), load_checkpoint("ti")[0].state_dict()
    assert all(torch.equal(start[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("changes", "differing"),
    [
        ({"size_px": 64}, "model.size_px is 64 instead of 32"),
        ({"stem": "conv"}, "model.stem is conv instead of lite0"),
        ({"preset": "s"}, "model.preset is s instead of ti"),
        ({"preset": "h", "stem": None}, "model.preset is h instead of ti"),
        ({"dim": 64, "num_blocks": 1}, "model.dim is 64 instead of 128; model.num_blocks is 1 instead of 2"),
        ({"stem": "patch", "size_px": 56, "patch_px": 14}, "model.patch_px is 14 instead of 16"),
        ({"mano": "MANO_RIGHT.pkl"}, "model.mano"),
    ],
)
def test_a_config_of_another_network_is_trained_as_it_says(changes, differing, ships):
    config = replace(SHIPPED, model=replace(SHIPPED.model, **changes))
    begun, said = resolve_init_config(config, from_nothing=False)
    assert begun == config
    assert said.startswith("Trained from scratch")
    assert "(ti)" in said
    assert differing in said


def test_the_demo_s_own_config_is_that_of_the_network_that_ships():
    begun, said = resolve_init_config(Config.load(ROOT / "config" / "demo.yaml"), from_nothing=False)
    assert (begun.train.init_from, begun.model) == ("ti", load_checkpoint("ti")[1].model)
    assert "Fine-tuned" in said


def test_the_demo_keeps_the_losses_that_its_config_sets():
    config = Config.load(ROOT / "config" / "demo.yaml")
    loss = replace(config.loss, w_mask=7.0, w_side=5.0, w_uncertainty=3.5)
    model = replace(config.model, evidence=True, uncertainty=True)
    own = replace(config, model=model, loss=loss, augment=replace(config.augment, mirror_p=0.11))
    begun, _ = resolve_init_config(own, from_nothing=False)
    assert (begun.loss.w_mask, begun.loss.w_side, begun.loss.w_uncertainty) == (7.0, 5.0, 3.5)
    assert begun.augment.mirror_p == 0.11


def test_training_changes_the_scores(made):
    _, scores, _ = made
    assert scores["before"] != scores["after"]
    assert scores["before"]["HO3D layout"]["constant"] == scores["after"]["HO3D layout"]["constant"]


def test_an_earlier_demo_is_replaced_but_nothing_else_is_touched(made):
    folder, _, config = made
    stranger = folder / "thesis.tex"
    stranger.write_text("years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        demo(config, folder, minutes=None, frames=16, progress=False)
    assert stranger.read_text() == "years of work"
    assert (folder / "report.html").exists()


def test_a_typo_does_not_cost_a_finished_demo(made):
    folder, _, config = made
    with pytest.raises(InputError, match="--frames is 0"):
        demo(config, folder, minutes=None, frames=0, progress=False)
    with pytest.raises(InputError, match=r"train\.minutes"):
        demo(config, folder, minutes=-1.0, frames=16, progress=False)
    assert (folder / "scores.json").exists()


def test_a_folder_with_names_like_a_demo_s_is_not_taken_for_one(made, tmp_path):
    mine = tmp_path / "run" / "weeks_of_training"
    mine.mkdir(parents=True)
    with pytest.raises(InputError, match="'run', which is not of a demo"):
        demo(made[2], tmp_path, minutes=None, frames=16, progress=False)
    assert mine.exists()
