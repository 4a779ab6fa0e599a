"""Training tars in the WebDataset layout of HaMeR and WiLoR, and remote shards -> Sample, streamed.

Facts as `hamer/datasets/image_dataset.py` (geopavlakos/hamer) reads them. A tar sample `__key__` is a picture
(`.jpg`, `.jpeg`, `.png`) and `data.pyd`, a pickled list with one dict a hand. Labels are those of the picture as it is
stored: left hands (`right` 0) are mirrored when they are loaded, picture, points and pose together, here by `to_right`.

`center` and `scale` (px / 200, one or two numbers) are padded boxes, 2 to 3 times the tight box depending on the set:
HaMeR crops them unchanged, but doubles the tight box of a detector. Like every other source, `Tars` uses the tight box
of the labelled image points; `box="tar"` uses half of the tar's box.

The `webdataset` library opens the tars and groups their members; its decoders, which unpickle, are not used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from utnet.data.shards.shard_format import decode_sample, read_labels
from utnet.data.source import BadSample, bad_sample
from utnet.data.tars.tar_streams import REMEDY, expand_root, members_of, names_of, webdataset_library
from utnet.errors import InputError
from utnet.geometry import box_of
from utnet.io import layouts
from utnet.io.files import decode_rgb
from utnet.io.safe_pickle import parse_pickle
from utnet.rotations import axis_angle_to_matrix
from utnet.types import HandParams, Sample

PICTURES = ("jpg", "jpeg", "png")
LABELS = "data.pyd"
PADDING = 2.0
"""The tars' boxes over tight ones: the factor by which HaMeR pads a detector's box before cropping."""

_MIN_JOINTS = 6
"""Number of labelled image points needed for a box."""
_BUFFER_HANDS, _BUFFER_BYTES = 1000, 64 * 2**20
"""Largest shuffle buffer: hands, and bytes of their undecoded pictures."""


class Tars:
    """A `StreamSource` over many tars.

    `stream` distributes tars to the parts if there are at least as many tars as parts, else pictures in turn. Tars are
    shuffled by (seed, epoch), hands within a buffer. A damaged member loses its hand, a damaged tar its remainder; both
    are reported.

    Attributes:
        urls: the opened tars, in order.
        tips: fingertip vertices: smplx's, as in HaMeR; those of the original source for local shards.
    """

    name = "tars"

    def __init__(
        self,
        root: str | Path,
        *,
        limit: int | None = None,
        sides: str = "both",
        box: str = "joints",
        with_depth: bool = True,
    ):
        """Opens nothing but the first local tar.

        Args:
            root: a tar, a folder of tars, a glob, an http(s), s3 or other URL that webdataset opens, or `pipe:command`
                (run by the shell, writes a tar); ranges such as {000..099} are expanded.
            limit: use only the first `limit` hands, in the order of the tars.
            sides: "right", "left" or "both".
            box: "joints", the tight box of the labelled image points; or "tar", half of the tar's own.
            with_depth: False leaves the depth of shards out (HaMeR's layout has none).

        Raises:
            InputError: webdataset is not installed, no such file, or none that matches.
        """
        webdataset_library()
        if sides not in ("right", "left", "both") or box not in ("joints", "tar"):
            raise InputError(f"sides is {sides!r} and box is {box!r}; expected right, left or both, and joints or tar")
        if limit is not None and limit < 1:
            raise InputError(f"data.limit is {limit}; expected at least 1, or null for all")
        self.root, self._limit, self._sides, self._box, self._with_depth = str(root), limit, sides, box, with_depth
        self.urls = expand_root(self.root)
        self._names = names_of(self.urls)
        self.tips = _peek_tips(self.urls[0])
        self.counts = {"tars": len(self.urls)}

    def stream(
        self, *, seed: int, epoch: int, part: int, num_parts: int, skip: int = 0
    ) -> Iterator[Sample | BadSample]:
        """This part's share of one pass, see `StreamSource`."""
        for decode in islice(self.calls(seed=seed, epoch=epoch, part=part, num_parts=num_parts), skip, None):
            yield decode()

    def calls(
        self, *, seed: int, epoch: int, part: int, num_parts: int, buffer_bytes: int = _BUFFER_BYTES
    ) -> Iterator[Callable[[], Sample | BadSample]]:
        """`stream`, each sample as a call that decodes it; the shuffle buffer holds up to `buffer_bytes`."""
        order = np.arange(len(self.urls))
        if self._limit is None:  # else always the same hands: the first ones
            order = np.random.default_rng((seed, epoch)).permutation(order)
        if self._limit is None and len(order) >= num_parts:
            order, turn = order[part::num_parts], (0, 1)
        else:
            turn = (part, num_parts)
        rng = np.random.default_rng((seed, epoch, part))
        yield from _shuffled(self._hands(order.tolist(), *turn), rng, min(buffer_bytes, _BUFFER_BYTES))

    def _hands(self, order: list[int], part: int, num_parts: int) -> Iterator[tuple[int, Callable]]:
        """Every hand of this part: its size in bytes, and a call that decodes it."""
        seen = pictures = 0
        for number in order:
            for item in members_of(self.urls[number], self._names[number]):
                mine = pictures % num_parts == part
                pictures += not isinstance(item, BadSample)
                if isinstance(item, BadSample):
                    if part == 0:
                        yield 0, _always(item)
                    continue
                if not mine and self._limit is None:
                    continue
                found = list(self._decoders(item, number))
                found = found if self._limit is None else found[: self._limit - seen]
                seen += len(found)
                if mine:
                    yield from ((sum(map(len, _payload(item))), decode) for decode in found)
                if self._limit is not None and seen >= self._limit:
                    return

    def _decoders(self, item: dict[str, Any], number: int) -> Iterator[Callable[[], Sample | BadSample]]:
        """One call per hand of a tar's sample. An error of the entire sample gives one bad sample."""
        member = item["__key__"]
        key, where = f"{self._names[number]}/{member}", f"{self.urls[number]}: {member}"
        try:
            if LABELS not in item and "json" in item:  # a shard of our own
                tree = read_labels(item["json"], where)
                name = str(tree.get("key", key))[:200]
                if self._sides in ("both", tree.get("side")):
                    yield _or_bad(name, lambda: decode_sample(item, where=where, with_depth=self._with_depth))
                return
            picture = next((item[ending] for ending in PICTURES if ending in item), None)
            if picture is None or LABELS not in item:
                raise InputError(f"{where}: has no {'picture' if picture is None else LABELS}; {REMEDY}")
            hands = parse_hands(item[LABELS], f"{where}.{LABELS}")
        except Exception as error:  # an error of one member must not affect the others
            yield _always(bad_sample(key, error))
            return
        for place, hand in enumerate(hands):
            name = f"{key}/{place}"
            try:
                side = "right" if _number(hand, "right", f"{where}.{LABELS}", default=1.0) > 0 else "left"
            except Exception as error:
                yield _always(bad_sample(name, error))
                continue
            if self._sides in ("both", side):
                yield _or_bad(name, _hand_decoder(hand, picture, side, where, name, self._box))


def parse_hands(data: bytes, where: str) -> list[dict]:
    """The dicts of `data.pyd`, read without executing code; InputError unless it is a list of dicts."""
    hands = parse_pickle(data, where=where)
    if not isinstance(hands, list) or not all(isinstance(hand, dict) for hand in hands):
        raise InputError(f"{where}: not a list of dicts, one a hand; not a tar of HaMeR's layout")
    return hands


def to_sample(hand: dict, picture: np.ndarray, *, side: str, where: str, key: str, box: str) -> Sample:
    """One dict of `data.pyd` and its picture.

    Args:
        hand: keypoints_2d (21, 3: px, confidence), keypoints_3d (21, 4: m in the camera's axes, any origin,
            confidence), center, scale, hand_pose (48 axis-angle, no mean pose added), betas, has_hand_pose, has_betas.
        picture: (H, W, 3) uint8, red, green, blue.
        side: of the hand.
        where: tar and member, for messages.
        key: of the sample.
        box: as in `Tars`.
    """
    points = _array(hand, "keypoints_2d", (21, 3), where)
    joints = _array(hand, "keypoints_3d", (21, 4), where, default=0.0)
    conf_2d, conf_3d = np.maximum(points[:, 2], 0.0), np.maximum(joints[:, 3], 0.0)
    for name, values, conf in (("keypoints_2d", points[:, :2], conf_2d), ("keypoints_3d", joints[:, :3], conf_3d)):
        if not (np.isfinite(conf).all() and np.isfinite(values[conf > 0]).all()):
            raise InputError(f"{where}: {name} of a labelled joint is NaN or inf; {REMEDY}")
    extra = hand.get("extra_info")
    own = isinstance(extra, dict) and extra.get(layouts.HAND_MODEL_KEY) == layouts.OPEN_HAND  # written by utnet synth
    height, width = picture.shape[:2]
    return Sample(
        key=key,
        rgb=picture,
        K_px=None,
        side=side,
        box_px=_box(hand, points[conf_2d > 0, :2], (width, height), where, box),
        joints_cam_m=np.where(conf_3d[:, None] > 0, joints[:, :3], np.nan),
        joints_2d_conf=conf_2d.astype(np.float32),
        joints_3d_conf=conf_3d.astype(np.float32),
        params=_params(hand, where),
        betas_ok=_number(hand, "has_betas", where) > 0,
        hand_model="open" if own else "mano",
        joints_px=np.where(conf_2d[:, None] > 0, points[:, :2], np.nan),
    )


# --------------------------------------------------------------------------------------------------------------- labels


def _hand_decoder(hand: dict, picture: bytes, side: str, where: str, key: str, box: str) -> Callable[[], Sample]:
    def decode() -> Sample:
        rgb = decode_rgb(picture, where=where)
        return to_sample(hand, rgb, side=side, where=f"{where}.{LABELS}", key=key, box=box)

    return decode


def _array(hand: dict, name: str, shape: tuple[int, ...], where: str, default: float | None = None) -> np.ndarray:
    if name not in hand and default is not None:
        return np.full(shape, default)
    try:
        value = np.asarray(hand[name], np.float64)
    except KeyError as error:
        raise InputError(f"{where}: has no {name!r}; not a tar of HaMeR's layout") from error
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {name} is not an array of numbers; {REMEDY}") from error
    if value.shape != shape:
        raise InputError(f"{where}: {name} has shape {value.shape}, expected {shape}; not a tar of HaMeR's layout")
    return value


def _number(hand: dict, name: str, where: str, default: float = 0.0) -> float:
    try:
        return float(np.asarray(hand.get(name, default), np.float64).reshape(()))
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {name} is not a number; {REMEDY}") from error


def _params(hand: dict, where: str) -> HandParams | None:
    """Axis-angle to matrices; None where the pose is not labelled."""
    if not _number(hand, "has_hand_pose", where) > 0:
        return None
    pose, betas = _array(hand, "hand_pose", (48,), where), _array(hand, "betas", (10,), where, default=0.0)
    if not (np.isfinite(pose).all() and np.isfinite(betas).all()):
        raise InputError(f"{where}: hand_pose or betas is NaN or inf; {REMEDY}")
    R = axis_angle_to_matrix(pose.reshape(16, 3))
    return HandParams(R[:1], R[1:], betas, np.full(3, np.nan))


def _box(hand: dict, points: np.ndarray, size_wh: tuple[int, int], where: str, how: str) -> np.ndarray:
    """Tight box of the hand, x0, y0, x1, y1."""
    if how == "joints" and len(points) >= _MIN_JOINTS:
        edge = np.array([size_wh[0] - 0.5, size_wh[1] - 0.5] * 2)
        clipped = np.clip(box_of(points), -0.5, edge)
        if (clipped[2:] - clipped[:2] >= 2.0).all():
            return clipped
    centre = _array(hand, "center", (2,), where)
    try:
        size = np.broadcast_to(np.asarray(hand.get("scale"), np.float64).reshape(-1), 2) * (200.0 / PADDING)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: scale is not one or two numbers; {REMEDY}") from error
    if not (np.isfinite(centre).all() and np.isfinite(size).all() and (size > 0.5).all()):
        raise InputError(f"{where}: center {centre.tolist()} and scale {(size / 200).tolist()} are no box; {REMEDY}")
    return np.concatenate([centre - size / 2, centre + size / 2])


# -------------------------------------------------------------------------------------------------------------- passing


def _peek_tips(url: str) -> str:
    """Tips of the first sample of a local shard, else HaMeR's."""
    if url.startswith("/"):
        first = next(members_of(url, url), None)
        if isinstance(first, dict) and LABELS not in first and "json" in first:
            return str(read_labels(first["json"], f"{url}: {first['__key__']}").get("tips", ""))
    return "smplx"


def _payload(item: dict[str, Any]) -> Iterator[bytes]:
    return (value for value in item.values() if isinstance(value, bytes))


def _always(bad: BadSample) -> Callable[[], BadSample]:
    return lambda: bad


def _or_bad(key: str, decode: Callable[[], Sample]) -> Callable[[], Sample | BadSample]:
    def call() -> Sample | BadSample:
        try:
            return decode()
        except Exception as error:
            return bad_sample(key, error)

    return call


def _shuffled(items: Iterator[tuple[int, Callable]], rng: np.random.Generator, buffer_bytes: int) -> Iterator[Callable]:
    """Items (size, call) shuffled within a buffer of limited size."""
    buffer: list[tuple[int, Callable]] = []
    held = 0
    for item in items:
        buffer.append(item)
        held += item[0]
        while buffer and (len(buffer) > _BUFFER_HANDS or held > buffer_bytes):
            place = int(rng.integers(len(buffer)))
            buffer[place], buffer[-1] = buffer[-1], buffer[place]
            size, call = buffer.pop()
            held -= size
            yield call
    for place in rng.permutation(len(buffer)).tolist():
        yield buffer[place][1]
