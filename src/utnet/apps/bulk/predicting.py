"""`utnet bulk predict`: processing of the inputs of a unit."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, Literal

from utnet.apps.bulk.chunks import CHUNKS, OVERLAP_S, OwnFrames
from utnet.apps.bulk.units import Unit
from utnet.apps.bulk.work import Result, Source, local_inputs, packed
from utnet.errors import InputError, WorkerError
from utnet.io.recordings import Camera
from utnet.predict.inputs import Input
from utnet.predict.predictor import Predictor
from utnet.predict.request import Request
from utnet.predict.run import run
from utnet.weights import find_checkpoint, shipped_weights


@dataclass(frozen=True)
class Predict:
    """`utnet predict` on the inputs: a parquet table of hands, and tars of overlays and arrays.

    Attributes:
        weights: as of `Predictor`; a path must be valid on every node.
        method: as of `Predictor`, "network", "fit" or "both".
        camera: of every picture and video; None: from EXIF, else the default.
        raw: do not smooth videos.
        overlay: also write pictures with the hands drawn.
        npz: also write arrays.
    """

    weights: str | None = None
    method: Literal["network", "fit", "both"] = "both"
    camera: Camera | None = None
    raw: bool = False
    overlay: bool = False
    npz: bool = False

    command = "predict"

    def identity(self) -> dict[str, Any]:
        """Returns the settings that the results depend on, besides the source."""
        camera = self.camera
        return {
            "weights": self.weights,
            "weights_sha256": None if self.method == "fit" else _weights_sha256(self.weights),
            "method": self.method,
            "camera": camera and [camera.K_px.tolist(), camera.size_px, camera.model, list(camera.coeffs)],
            "raw": self.raw,
            "overlay": self.overlay,
            "npz": self.npz,
        }

    def do(self, unit: Unit, folder: Path) -> Result:
        """Processes a unit."""
        import pyarrow as pa

        from utnet.predict.formats.table import open_writer

        result, out, table = Result(), folder / "out", folder / "hands.parquet"
        out.mkdir()
        inputs = list(local_inputs(unit, folder, result))
        by_file = {str(item.source): source for item, source in inputs}
        request = Request(
            out=out,
            K_px=None if self.camera is None else self.camera.K_px,
            lens=self.camera,
            overlay=self.overlay,
            mesh=None,
            arrays=self.npz,
            raw=self.raw,
        )
        start_s, end_s = unit.span_s or (0.0, inf)
        if unit.span_s is not None:
            seconds = None if end_s == inf else end_s
            request = replace(request, start_s=max(0.0, start_s - OVERLAP_S), seconds=seconds)
        extra = (pa.field("source", pa.string()), pa.field("member", pa.string()), pa.field("unit", pa.string()))

        def columns(file: str) -> dict[str, Any]:
            source = by_file[file]
            return {"file": source.file, "source": source.source, "member": source.member, "unit": unit.name}

        result.counts |= {"pictures": 0, "frames": 0, "hands": 0}
        with open_writer(table, extra, columns) as writer:
            own = OwnFrames(writer, start_s)
            if inputs:
                self._run([item for item, _ in inputs], request, own, by_file, result)
        if unit.span_s is not None:
            result.counts |= {"frames": own.num_frames, "hands": own.num_hands}
            result.index["frames_before"] = own.num_before
        result.files[f"{'hands' if unit.span_s is None else CHUNKS}/{unit.name}.parquet"] = table
        for kind, endings in (("overlays", ("_overlay.jpg", "_overlay.png", "_overlay.mp4")), ("arrays", (".npz",))):
            files = sorted(file for file in out.glob("*") if file.name.endswith(endings))
            if files:
                tar = packed(folder / f"{kind}.tar", ((file.name, file.read_bytes()) for file in files))
                result.files[f"{kind}/{unit.name}.tar"] = tar
        return result

    def _run(
        self, inputs: Sequence[Input], request: Request, writer: Any, by_file: Mapping[str, Source], result: Result
    ) -> None:
        """Calls `run` and adds its outcome to the result."""
        try:
            summary = run(predictor(self.weights, self.method), inputs, request, [writer])
        except InputError as error:
            if len(inputs) > 1:
                raise
            result.note(by_file[str(inputs[0].source)], str(error), inputs[0].source)
            return
        if summary.stopped_by:
            os._exit(128 + summary.stopped_by)  # as the signal would have; another worker repeats the unit
        if summary.num_left:
            raise WorkerError(f"a worker's disk is full ({request.out}); make room and start it again")
        result.counts |= {"pictures": summary.num_pictures, "frames": summary.num_frames, "hands": summary.num_hands}
        for file, why in summary.problems:
            if str(request.out) in why:
                raise WorkerError(f"{file}: {why}; make room and start it again")
            result.note(by_file[file], why, file)


@cache
def predictor(weights: str | None, method: Any) -> Predictor:
    """The predictor, one per process."""
    return Predictor(weights, method=method)


def _weights_sha256(weights: str | None) -> str:
    """Hash of the network's files."""
    path = shipped_weights() if weights is None else Path(weights)
    path = find_checkpoint(path) if path is not None and not path.is_file() else path
    if path is None or not path.exists():
        raise InputError(f"{weights}: no such weights; give a checkpoint, an exported file or a bundled name")
    digest = hashlib.sha256()
    for file in [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file()):
        digest.update(f"{file.name}\n".encode() + file.read_bytes())
    return digest.hexdigest()
