"""Copies of labelled hands on other backgrounds: additional pictures and labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from tqdm import tqdm

from utnet.apps.label.candidates import DIGITS_PX, WINDOW, jpeg, rounded
from utnet.apps.label.cutouts import before, cut_out, draw_light, extended, leaves_by_the_arm, room
from utnet.data.custom.custom_line import Line
from utnet.errors import InputError
from utnet.hand import NumpyHandModel
from utnet.io.files import decode_rgb, read_bytes
from utnet.render.raster import rasterize
from utnet.synth.backgrounds import Backgrounds


@dataclass
class Copies:
    """Counts of copies.

    Attributes:
        made: pictures.
        not_cut_out: hands without a copy, because the segmentation disagrees with the fitted mesh.
    """

    made: int = 0
    not_cut_out: int = 0


@dataclass(frozen=True)
class Copied:
    """A copy of a hand: JPEG and line of `hands.jsonl`, which names the file."""

    jpeg: bytes
    line: dict


class Copier:
    """Composites hands over other backgrounds.

    Args:
        each: copies per hand.
        backgrounds: a folder of photographs; None: drawn scenes.

    Attributes:
        unread: photographs that could not be read, with the reason; copies with them are skipped.

    Raises:
        InputError: no such folder, or one without photographs.
    """

    def __init__(self, each: int, backgrounds: str | Path | None = None):
        self.each, self.unread = each, dict[str, str]()
        self._backgrounds = Backgrounds("" if backgrounds is None else str(backgrounds), option="--backgrounds")
        right = NumpyHandModel.open()
        self._hands = {"right": right, "left": right.mirrored()}

    def __call__(self, root: Path, lines: Sequence[dict], count: Copies) -> Iterator[Copied]:
        """Yields the copies of labelled hands, whose pictures are in `root`. They depend only on the picture's name,
        its labels and the backgrounds."""
        for line in tqdm(lines, desc="copies", unit="hand", disable=None):
            yield from self._of(root, line, count)

    def _of(self, root: Path, values: dict, count: Copies) -> Iterator[Copied]:
        line = Line(json.dumps(values).encode(), root, 0)
        path = line.file("image", root)
        rgb = decode_rgb(read_bytes(path), where=str(path))
        mask = self._mask(line, rgb.shape)
        alpha = cut_out(rgb, mask)
        box, (joints_px, _) = line.box(), line.joints("joints_2d", 2)
        if alpha is None or not leaves_by_the_arm(alpha, mask, joints_px):
            count.not_cut_out += 1
            return
        assert box is not None
        sides = room(box, joints_px, alpha, mask, WINDOW.expand)
        rgb, alpha = extended(rgb, alpha, mask, joints_px, sides)
        moved, size_wh = shifted(values, *sides[:2]), rgb.shape[1::-1]
        for number in range(1, self.each + 1):
            image = PurePosixPath(line.image)
            name = str(image.with_name(f"{image.stem}_copy{number}.jpg"))
            rng = np.random.default_rng(list(name.encode()))
            try:
                background = self._backgrounds.draw(rng, size_wh, variety=1.0, distractors=1.0, defocus=1.0)
            except InputError as error:
                file, _, why = str(error).partition(": ")
                self.unread[file] = why
                continue
            picture = before(background, rgb, alpha, draw_light(rng, size_wh))
            count.made += 1
            yield Copied(jpeg(picture), moved | {"image": name})

    def _mask(self, line: Line, shape: Sequence[int]) -> np.ndarray:
        """(H, W) bool: pixels of the labelled hand's mesh."""
        params, K_px, hand = line.params("auto")[0], line.camera(), self._hands[line.side]
        assert params is not None
        assert K_px is not None
        vertices = hand.decode(params.map(lambda array: array[None])).vertices_m[0] + params.transl_m
        return rasterize(vertices, hand.faces, K_px, (shape[1], shape[0])).mask


def shifted(line: dict, x: int, y: int) -> dict:
    """A line of `hands.jsonl` for a picture extended by x columns on the left and y rows above."""
    K = np.array(line["K"])
    K[:2, 2] += [x, y]
    joints, box = np.array(line["joints_2d"]) + [x, y], np.array(line["box"]) + [x, y, x, y]
    return line | {key: rounded(array, DIGITS_PX) for key, array in (("K", K), ("joints_2d", joints), ("box", box))}
