"""Options of a call of `utnet predict`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from utnet.hand.arrays import HandArrays
from utnet.io.recordings import Camera, Options
from utnet.predict.arrays import HandRows
from utnet.predict.checks import choose_camera
from utnet.predict.formats import FormatName, Style
from utnet.predict.formats.hamer import HamerRows
from utnet.predict.inputs import DepthFiles


@dataclass(frozen=True)
class Request:
    """Options of a call.

    Attributes:
        out: the folder to write into.
        overwrite: replace an earlier call's files; otherwise they are an error.
        K_px: (3, 3) intrinsics of every picture; None: from EXIF, else the default.
        lens: the camera of every picture if given as a file, instead of K_px.
        depth: the pictures' depth images.
        depth_scale: metres per unit of depth images; None: integers are millimetres, floats metres.
        boxes: of the one picture, instead of the detector's, in pixels of the file (with lens distortion).
        sides: of the boxes.
        landmarks: file of the one picture's landmarks, in the same pixels.
        overlay: draw the hands over pictures and videos.
        style: of the drawing (`drawing.draw_hands`).
        mesh: format of the pictures' meshes; None: no meshes.
        video_mesh: format of the meshes of every video frame; None: no meshes.
        arrays: write .npz files.
        npz_style: fields of these: "utnet", or "hamer" for HaMeR's and WiLoR's.
        mano: the user's MANO_RIGHT, to which open hands are fitted for "hamer".
        also: names of `formats.FORMATS`: files with all hands of the call.
        raw: do not smooth videos.
        start_s: leave out the frames of a video before this time.
        seconds: stop a video or camera after this time; None: at its end.
        jobs: number of pictures processed in parallel.
        recording: options for recordings.
        show_depth: draw depth beside colour in the overlay of a recording.
    """

    out: Path
    overwrite: bool = False
    K_px: np.ndarray | None = None
    lens: Camera | None = None
    depth: DepthFiles | None = None
    depth_scale: float | None = None
    boxes: Sequence[Sequence[float]] | None = None
    sides: Sequence[str] | None = None
    landmarks: Path | None = None
    overlay: bool = True
    style: Style = "mesh"
    mesh: str | None = "glb"
    video_mesh: str | None = None
    arrays: bool = False
    npz_style: str = "utnet"
    mano: HandArrays | None = None
    also: Sequence[FormatName] = ()
    raw: bool = False
    start_s: float = 0.0
    seconds: float | None = None
    jobs: int = 1
    recording: Options = field(default_factory=Options)
    show_depth: bool = False

    @property
    def given_camera(self) -> Camera | None:
        """The camera of every picture, if given."""
        return self.lens if self.lens is not None or self.K_px is None else Camera(self.K_px)

    @property
    def recording_options(self) -> Options:
        """Options for recordings, with the camera and the unit of depth."""
        return replace(self.recording, camera=self.given_camera, depth_scale=self.depth_scale)

    def lens_of(self, image: np.ndarray) -> Camera | None:
        """The given camera at a picture's size, if it has lens distortion."""
        if self.lens is None or not self.lens.is_distorted:
            return None
        return self.lens.scaled((image.shape[1], image.shape[0]))

    def rows(self, size_px: tuple[int, int], *, with_vertices: bool) -> HandRows | HamerRows:
        """Returns the collector of a picture's or video's arrays; `with_vertices` as of `HandRows`."""
        if self.npz_style == "hamer":
            return HamerRows(size_px, self.mano)
        return HandRows(with_vertices=with_vertices)

    def camera(self, image_rgb: np.ndarray, exif_K_px: np.ndarray | None = None) -> tuple[np.ndarray, str]:
        """Intrinsics (3, 3) of a picture, and their source: "given", "exif" or "default".

        Raises:
            InputError: the given ones are implausible for a picture of that size.
        """
        size = image_rgb.shape[1], image_rgb.shape[0]
        K_px = None if self.given_camera is None else self.given_camera.scaled(size).K_px
        return choose_camera(image_rgb, K_px, exif_K_px)
