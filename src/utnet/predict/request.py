"""Options of a call of `utnet predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utnet.predict.checks import choose_camera
from utnet.predict.formats import FormatName
from utnet.predict.inputs import DepthFiles


@dataclass(frozen=True)
class Request:
    """Options of a call.

    Attributes:
        out: the folder to write into.
        overwrite: replace an earlier call's files; otherwise they are an error.
        K_px: (3, 3) intrinsics of every picture; None: from EXIF, else the default.
        depth: the pictures' depth images.
        depth_scale: metres per unit of integer depth images.
        boxes: of the one picture, instead of the detector's.
        sides: of the boxes.
        landmarks: file of the one picture's landmarks.
        overlay: draw the hands over pictures and videos.
        mesh: format of the pictures' meshes; None: no meshes.
        video_mesh: format of the meshes of every video frame; None: no meshes.
        arrays: write .npz files.
        also: names of `formats.FORMATS`: files that hold all hands of the call.
        raw: do not smooth videos.
        seconds: stop a video or camera after this time; None: at its end.
        jobs: number of pictures processed in parallel.
    """

    out: Path
    overwrite: bool = False
    K_px: np.ndarray | None = None
    depth: DepthFiles | None = None
    depth_scale: float = 0.001
    boxes: Sequence[Sequence[float]] | None = None
    sides: Sequence[str] | None = None
    landmarks: Path | None = None
    overlay: bool = True
    mesh: str | None = "glb"
    video_mesh: str | None = None
    arrays: bool = False
    also: Sequence[FormatName] = ()
    raw: bool = False
    seconds: float | None = None
    jobs: int = 1

    def camera(self, image_rgb: np.ndarray, exif_K_px: np.ndarray | None = None) -> tuple[np.ndarray, str]:
        """Intrinsics (3, 3) of a picture, and where they are from: "given", "exif" or "default".

        Raises:
            InputError: the given ones are not plausible for a picture of that size.
        """
        return choose_camera(image_rgb, self.K_px, exif_K_px)
