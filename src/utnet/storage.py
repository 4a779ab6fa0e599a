"""Files that appear whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path


def write_whole(path: str | Path, data: bytes | str) -> None:
    """Writes a file through a temporary sibling; an older file there is replaced at once, its folder must exist."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, tree: dict) -> None:
    """`write_whole` of a JSON file."""
    write_whole(path, json.dumps(tree, indent=1) + "\n")
