"""What the documentation site gets when it is built (`hooks` of mkdocs.yml): the command reference from the parser, the
API reference from `utnet.__all__`, llms.txt, and addresses for links that lead out of docs/."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import re
from pathlib import Path
from unittest import mock

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
MODULES = (
    "utnet.conventions",
    "utnet.types",
    "utnet.geometry",
    "utnet.metrics",
    "utnet.losses.terms",
    "utnet.predict.formats.hamer",
    "utnet.predict.formats.openxr",
    "utnet.predict.formats.table",
    "utnet.predict.track",
    "utnet.config.schema",
)
"""Described whole, below the names of `import utnet`."""

_log = logging.getLogger("mkdocs.hooks.site_pages")
_lines: dict[str, str] = {}
"""A page's line of llms.txt by its place in docs/."""


def on_nav(nav, config, files):
    """Puts the lines of llms.txt in the order of the navigation."""
    _lines.update({page.file.src_uri: "" for page in nav.pages})


def on_files(files, config):
    """Adds the pages that are made from the package."""
    files.append(File.generated(config, "reference/commands.md", content=commands_page()))
    files.append(File.generated(config, "reference/api.md", content=api_page()))
    return files


def commands_page() -> str:
    """Returns the help of every command, as the command line prints it."""
    from utnet.cli import main as cli

    lines = ["# Commands", "", "`utnet --version` prints the version. Bad input is one line and exit code 2.", ""]
    for name in cli._COMMANDS:
        for words in [[name, sub] for sub in cli._GROUPS.get(name, {})] or [[name]]:
            lines += [f"## utnet {' '.join(words)}", "", "```text", _help_of(cli.main, words), "```", ""]
    return "\n".join(lines)


def _help_of(main, words: list[str]) -> str:
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "96", "NO_COLOR": "1"}),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        main([*words, "--help"])
    return printed.getvalue().strip()


def api_page() -> str:
    """Returns the page of which mkdocstrings makes the API reference: the exports first, then `MODULES`."""
    import utnet

    lines = ["# Python", "", "What `import utnet` offers, then the modules that a program uses beside it.", ""]
    for name in utnet.__all__:
        exported = getattr(utnet, name)
        if hasattr(exported, "__qualname__") and exported.__module__ not in MODULES:
            lines += [f"::: {exported.__module__}.{exported.__qualname__}", "    options: {heading_level: 2}", ""]
    for name in MODULES:
        importlib.import_module(name)  # named wrongly it is an error here
        lines += [f"::: {name}", "    options: {heading_level: 2}", ""]
    return "\n".join(lines)


def on_page_markdown(markdown, page, config, files):
    """Remembers the page for llms.txt, and gives links that lead out of docs/ the address of the source."""
    first = re.match(r"\s*# [^\n]*\n\s*\n(?![#!|>*:-]|```)(.*?)(?:\n\s*\n|\Z)", markdown, re.S)
    words = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", " ".join(first[1].split())) if first else ""
    sentence = re.split(r"(?<=\.) |:$", words)[0]
    _lines[page.file.src_uri] = f"- [{page.title}]({page.canonical_url}){': ' + sentence if sentence else ''}"

    def address(match: re.Match) -> str:
        path = (ROOT / "docs" / page.file.src_uri).parent / match[1]
        if not path.exists():
            _log.warning("%s: link to %s, which does not exist", page.file.src_uri, match[1])
        path = path.resolve()
        inside = path.is_relative_to(ROOT / "docs")
        return match[0] if inside else f"]({config.repo_url}/blob/main/{path.relative_to(ROOT)})"

    return re.sub(r"\]\((\.\./[^)#]+)\)", address, markdown)


def on_post_build(config):
    """Writes llms.txt: what the site holds, a line a page."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", "", *_lines.values()]
    (Path(config.site_dir) / "llms.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
