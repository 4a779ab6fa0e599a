"""The hands of one picture, as returned by `Predictor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from utnet.conventions import NUM_BETAS, NUM_JOINTS
from utnet.errors import InputError
from utnet.io.pictures import read_picture
from utnet.placement import default_intrinsics
from utnet.predict.formats import Style
from utnet.predict.hand import Hand
from utnet.types import HandParams


class Hands(Sequence[Hand]):
    """A sequence of `Hand` with their picture and camera. Slices are `Hands`, too.

    Args:
        hands: of one picture, in order.
        image: (H, W, 3) uint8 RGB, or a file, which is read on use.
        size_px: width and height of the picture.
        K_px: (3, 3) intrinsics of the picture.
        K_from: "given", "exif" or "default".
        made_by: `method`, `weights` and `hand_model` of the predictor.

    Attributes:
        K_px: (3, 3) intrinsics used.
        K_from: their source: "given", "exif" or "default".
        size_px: width and height of the picture.
        made_by: the predictor's `method`, `weights` and `hand_model`.
    """

    def __init__(
        self,
        hands: Sequence[Hand],
        *,
        image: np.ndarray | Path,
        size_px: tuple[int, int],
        K_px: np.ndarray,
        K_from: str,
        made_by: Mapping[str, str | None],
    ):
        self._hands, self._image = tuple(hands), image
        self.size_px, self.K_px, self.K_from, self.made_by = size_px, K_px, K_from, dict(made_by)

    def __len__(self) -> int:
        return len(self._hands)

    @overload
    def __getitem__(self, index: int) -> Hand: ...
    @overload
    def __getitem__(self, index: slice) -> Hands: ...
    def __getitem__(self, index: int | slice) -> Hand | Hands:
        if not isinstance(index, slice):
            return self._hands[index]
        camera = {"size_px": self.size_px, "K_px": self.K_px, "K_from": self.K_from}
        return Hands(self._hands[index], image=self._image, made_by=self.made_by, **camera)  # type: ignore[arg-type]

    def __repr__(self) -> str:
        each = ", ".join(f"{hand.side} {hand.score:.2f}" for hand in self)
        return f"Hands({self.file or 'array'}: {each or 'none'})"

    @property
    def file(self) -> str:
        """The picture's file; empty for an array."""
        return str(self._image) if isinstance(self._image, Path) else ""

    @property
    def image_rgb(self) -> np.ndarray:
        """(H, W, 3) uint8 picture, upright; a file is read again.

        Raises:
            InputError: the file is gone, or contains another picture.
        """
        if not isinstance(self._image, Path):
            return self._image
        image_rgb = read_picture(self._image).rgb
        if image_rgb.shape[1::-1] != self.size_px:
            raise InputError(f"{self._image}: the file contains another picture now; predict it again")
        return image_rgb

    @property
    def sides(self) -> list[str]:
        """ "right" or "left" of each hand."""
        return [hand.side for hand in self]

    @property
    def scores(self) -> np.ndarray:
        """(N,) calibrated probabilities that the meshes are right."""
        return np.array([hand.score for hand in self], float)

    @property
    def boxes_px(self) -> np.ndarray:
        """(N, 4) x0, y0, x1, y1 in pixels."""
        return self._stacked("box_px", (4,))

    @property
    def joints_cam_m(self) -> np.ndarray:
        """(N, 21, 3) joints in the camera's frame, metres, OpenPose's order."""
        return self._stacked("joints_cam_m", (NUM_JOINTS, 3))

    @property
    def joints_px(self) -> np.ndarray:
        """(N, 21, 2) joints in the picture, pixels."""
        return self._stacked("joints_px", (NUM_JOINTS, 2))

    @property
    def vertices_cam_m(self) -> np.ndarray:
        """(N, V, 3) vertices in the camera's frame, metres; V is 0 without a hand."""
        return self._stacked("vertices_cam_m", (0, 3))

    @property
    def params(self) -> HandParams:
        """Parameters with a leading axis N, each of the hand model of its own side."""
        shapes = {"global_orient": (1, 3, 3), "hand_pose": (15, 3, 3), "betas": (NUM_BETAS,), "transl_m": (3,)}
        stacked = {}
        for name, shape in shapes.items():
            rows = [getattr(hand.params, name) for hand in self]
            stacked[name] = np.stack(rows) if rows else np.zeros((0, *shape))
        return HandParams(**stacked)

    def draw(self, style: Style = "mesh") -> np.ndarray:
        """Returns a copy of the picture, (H, W, 3) uint8 RGB, with all hands drawn; `style` as of `Hand.draw`."""
        from utnet.predict.drawing import draw_hands

        return draw_hands(self.image_rgb, self, style)

    def save(self, path: str | Path) -> None:
        """Writes the hands to a file, by its suffix.

        Args:
            path: .json (predictions.json of this picture), .npz (arrays, one row per hand), .glb, .obj or .ply (all
                meshes in one scene), or .jpg or .png (`draw`).

        Raises:
            InputError: another suffix, no such folder, or a mesh file without any hand.
        """
        from utnet.predict.saving import save_hands

        save_hands(path, self)

    def to_hamer(self, mano: str | Path | None = None) -> dict:
        """Returns the hands as a batch of HaMeR's and WiLoR's dictionary; `mano` and errors as of `Hand.to_hamer`."""
        from utnet.predict.formats.hamer import hands_to_hamer, load_right

        return hands_to_hamer(self, self.size_px, None if mano is None else load_right(mano))

    @classmethod
    def from_hamer(
        cls,
        source: str | Path | Mapping[str, Any],
        image: np.ndarray | str | Path,
        *,
        mano: str | Path | None = None,
    ) -> Hands:
        """Reads the hands of a picture by HaMeR, WiLoR or `--npz-style hamer`.

        Args:
            source: an .npz of the batch's arrays, or the dictionary.
            image: (H, W, 3) uint8 RGB picture, or its file.
            mano: folder of your MANO_RIGHT.pkl, for the faces if `source` has none; without faces only skeletons
                are drawn.

        Raises:
            InputError: a field is missing, or the picture cannot be read.
        """
        from utnet.predict.formats.hamer import load_right, read_hamer

        hands = read_hamer(source, None if mano is None else load_right(mano).faces)
        image = Path(image) if isinstance(image, str) else image
        rgb = read_picture(image).rgb if isinstance(image, Path) else image
        size_px = (rgb.shape[1], rgb.shape[0])
        K_px = hands[0].K_px if hands else default_intrinsics(*size_px)
        made_by = {"method": "hamer", "weights": None, "hand_model": "mano"}
        return cls(hands, image=image, size_px=size_px, K_px=K_px, K_from="given", made_by=made_by)

    def to_dict(self) -> dict:
        """Returns the picture's record of predictions.json, with its hands (docs/predictions.md)."""
        from utnet.predict.saving import hands_record

        return hands_record(self)

    def _stacked(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        return np.stack([getattr(hand, name) for hand in self]) if len(self) else np.zeros((0, *shape))
