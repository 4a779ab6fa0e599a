"""Predictions for other programs: one small module per format, and the registry for `utnet predict --also`.
docs/howto/use_the_result.md shows each in its program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from utnet.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from utnet.predict.hand import Hand

Style = Literal["mesh", "outline", "skeleton"]
"""Styles of overlays (`predict.drawing`)."""
FormatName = Literal["table", "angles", "openxr", "coco", "custom"]


@dataclass(frozen=True)
class PredictedFrame:
    """The hands of a picture or of a frame of a video.

    Attributes:
        file: the picture or video, as named by the user.
        hands: its hands, in order.
        size_px: its width and height.
        K_px: (3, 3) intrinsics used.
        index: number of the frame in its video, 0 for a picture.
        time_s: since the video's first frame, 0 for a picture.
        is_video: whether it is a frame of a video.
        read_rgb: returns its picture, (H, W, 3) uint8, or None.
    """

    file: str
    hands: Sequence[Hand]
    size_px: tuple[int, int]
    K_px: np.ndarray
    index: int = 0
    time_s: float = 0.0
    is_video: bool = False
    read_rgb: Callable[[], np.ndarray] | None = None


class FrameWriter(Protocol):
    """Writes frames, in order, to one file."""

    def add(self, frame: PredictedFrame) -> None:
        """Appends a frame."""


@dataclass(frozen=True)
class Format:
    """A file or folder with all hands of a call.

    Attributes:
        file: its name, beside predictions.json.
        module: in this package; its `open_writer(path)` is a context manager that returns a `FrameWriter`.
    """

    file: str
    module: str

    def open(self, folder: Path) -> AbstractContextManager[FrameWriter]:
        """Opens the writer. The file appears at the end of the block; there is none on failure.

        Raises:
            InputError: a required package is not installed.
        """
        return import_module(f"{__name__}.{self.module}").open_writer(folder / self.file)


FORMATS: dict[FormatName, Format] = {
    "table": Format("hands.parquet", "table"),
    "angles": Format("angles.csv", "angles"),
    "openxr": Format("openxr.jsonl", "openxr"),
    "coco": Format("coco_wholebody.json", "coco"),
    "custom": Format("custom", "custom"),
}
"""The formats of `utnet predict --also`, by name."""


def require(package: str, purpose: str) -> None:
    """Raises InputError with the install command if a package is missing."""
    try:
        import_module(package)
    except ImportError as error:
        raise InputError(f"{purpose} needs the package {package}; pip install {package}") from error
