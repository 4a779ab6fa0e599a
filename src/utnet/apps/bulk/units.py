"""Units of work, with names that depend on the source alone, and the job that a result folder belongs to."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import utnet
from utnet.apps.bulk.sources import Item
from utnet.errors import InputError
from utnet.io.recordings import Camera
from utnet.weights import find_checkpoint, shipped_weights

FORMAT = "utnet-bulk-1"
Command = Literal["predict"]


@dataclass(frozen=True)
class Options:
    """What is done with every unit. Workers get it pickled.

    Attributes:
        command: predict.
        weights: as of `Predictor`; a path must be the same on every node.
        method: as of `Predictor`, "network", "fit" or "both".
        camera: of every picture and video; None: from EXIF, else the default.
        raw: do not smooth videos.
        overlay: also write pictures with the hands drawn.
        npz: also write arrays.
    """

    command: Command = "predict"
    weights: str | None = None
    method: Literal["network", "fit", "both"] = "both"
    camera: Camera | None = None
    raw: bool = False
    overlay: bool = False
    npz: bool = False


@dataclass(frozen=True)
class Unit:
    """Inputs that one worker processes in one go: some pictures, a tar, a video or a recording.

    Attributes:
        name: of its result files, such as part-000012.
        urls: of the inputs, sorted.
    """

    name: str
    urls: tuple[str, ...]


def units_of(items: Sequence[Item], pictures: int) -> list[Unit]:
    """Returns the units of sorted items: `pictures` pictures in each, everything else by itself.

    Videos are not cut: a unit follows each from its start to its end, as `utnet predict` does, so tracks are whole.
    """
    return [Unit(f"part-{number:06d}", urls) for number, urls in enumerate(_groups(items, pictures))]


def _groups(items: Iterable[Item], pictures: int) -> Iterator[tuple[str, ...]]:
    ordered = sorted(items)
    yield from ((item.url,) for item in ordered if item.kind != "picture")
    rest = (item.url for item in ordered if item.kind == "picture")
    while group := tuple(islice(rest, pictures)):
        yield group


def describe(items: Sequence[Item], units: Sequence[Unit], options: Options) -> dict[str, Any]:
    """Returns what identifies a job: equal descriptions give equal results."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(f"{item.kind} {item.url}\n".encode())
    chosen = asdict(options)
    command, camera = chosen.pop("command"), options.camera
    chosen["camera"] = camera and [camera.K_px.tolist(), camera.size_px, camera.model, list(camera.coeffs)]
    return {
        "command": command,
        "utnet": utnet.__version__,
        "source": {"sha256": digest.hexdigest(), "inputs": len(items), "units": len(units)},
        "options": chosen,
        "weights": _weights_sha256(options),
    }


def _weights_sha256(options: Options) -> str | None:
    """Hash of the network's files, or None for the fit."""
    if options.method == "fit":
        return None
    path = shipped_weights() if options.weights is None else Path(options.weights)
    path = find_checkpoint(path) if path is not None and not path.is_file() else path
    if path is None or not path.exists():
        raise InputError(f"{options.weights}: no such weights; give a checkpoint, an exported file or a bundled name")
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file()):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()
