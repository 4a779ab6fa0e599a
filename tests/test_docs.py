"""What README and docs/ show exists: links, commands with their options, names of bundled configs."""

import contextlib
import io
import re
from functools import cache
from pathlib import Path

import pytest

import utnet
from utnet.cli.main import main
from utnet.config import bundled_configs

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def commands(page):
    """The `utnet ...` lines of a page's code, with continued lines joined and comments left out."""
    for block in re.findall(r"^ *```(?:sh|bash)\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if found := re.search(r"(?:^|-m |/)utnet ((?!\S*\.\w)[a-z].*)", line.split(" #")[0].strip()):
                yield found[1].split()


@cache
def help_of(*words):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return printed.getvalue()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page):
    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists() or "reference/" in target, target  # those are made with the site


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documented_options_exist(page):
    for words in commands(page):
        names = words[:2] if words[0] in ("bulk", "data", "import") else words[:1]
        text = help_of(*names)
        assert text.startswith(f"usage: utnet {' '.join(names)}"), words
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert re.search(rf"{option}(?![\w-])", text), f"utnet {' '.join(names)} has no {option}"


def test_documented_configs_ship():
    named = {words[1] for page in PAGES for words in commands(page) if words[0] == "train" and len(words) > 1}
    named = {name for name in named if not name.startswith("-") and name != "CONFIG"}
    assert {"dexycb_s0_rgbd", "synth_full"} <= named <= set(bundled_configs())


def test_the_citation_is_of_this_version():
    assert f"version: {utnet.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
