"""Options of commands that may be left out, as help shows them: `--out FOLDER`, without tyro's `{None}|PATH` and
`(default: None)`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Folder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
Root = Annotated[str, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="")]
"""A data set's folder, or for tars a URL: "" where it is left out."""
Number = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
Changes = Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE [KEY=VALUE ...]", help_behavior_hint="")]
"""Knobs that differ from a config: `--set train.lr=1e-4 model.size_px=96`."""
