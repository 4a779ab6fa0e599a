"""Files of a video's hands beside predictions.json: meshes, arrays, and the formats of the whole call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from utnet.predict.files import hand_record
from utnet.predict.formats import FrameWriter, PredictedFrame
from utnet.predict.formats.rig import write_rig
from utnet.predict.hand import Hand
from utnet.predict.inputs import Input
from utnet.predict.meshes import write_meshes
from utnet.predict.request import Request
from utnet.predict.track import TrackCollector


class VideoFiles:
    """Writes the hands of one video, frame by frame.

    Args:
        item: the video or recording.
        request: the options.
        writers: of the formats of the whole call.
        name: of the video, as named by the user.
        size_px: width and height of its frames.
        K_px: (3, 3) intrinsics.

    Attributes:
        names: `arrays` and `mesh` of the video's record: files that `finish` has written, else None.
    """

    def __init__(
        self,
        item: Input,
        request: Request,
        writers: Sequence[FrameWriter],
        *,
        name: str,
        size_px: tuple[int, int],
        K_px: np.ndarray,
    ):
        self.names: dict[str, str | None] = {"arrays": None, "mesh": None}
        self._item, self._request, self._writers = item, request, writers
        self._name, self._size_px, self._K_px = name, size_px, K_px
        self._is_animated = request.video_mesh == "animated"
        self._rows, self._tracks = request.rows(size_px, with_vertices=False), TrackCollector()

    def add(
        self, hands: Sequence[Hand], index: int, time_s: float, read_rgb: Callable[[], np.ndarray] | None
    ) -> list[dict]:
        """Writes a frame's hands; returns their `files.hand_record`.

        Args:
            hands: of the frame.
            index: its number.
            time_s: since the first frame.
            read_rgb: returns its picture.
        """
        meshes = self._meshes(index, hands)
        if self._is_animated:
            self._tracks.add(hands, index, time_s)
        frame = PredictedFrame(
            self._name, hands, self._size_px, self._K_px, index, time_s, is_video=True, read_rgb=read_rgb
        )
        for writer in self._writers:
            writer.add(frame)
        if self._request.arrays:
            self._rows.add(hands, index, time_s)
        return [hand_record(hand, mesh) for hand, mesh in zip(hands, meshes, strict=True)]

    def finish(self) -> None:
        """Writes the arrays, and the animated GLB if a hand was found."""
        if self._request.arrays:
            arrays = f"{self._item.name}.npz"
            self._rows.write(self._request.out / arrays)
            self.names["arrays"] = arrays
        tracks = self._tracks.tracks()
        if tracks:
            mesh = f"{self._item.name}_hands.glb"
            write_rig(self._request.out / mesh, tracks, file=self._name)
            self.names["mesh"] = mesh

    def _meshes(self, index: int, hands: Sequence[Hand]) -> list[str] | list[None]:
        """Writes a frame's meshes if requested; returns their names, in the folder of the video's meshes."""
        if self._request.video_mesh is None or self._is_animated:
            return [None] * len(hands)
        folder = Path(f"{self._item.name}_meshes")
        (self._request.out / folder).mkdir(exist_ok=True)
        paths = write_meshes(self._request.out / folder / f"{index:06d}", hands, self._request.video_mesh)
        return [(folder / path.name).as_posix() for path in paths]
