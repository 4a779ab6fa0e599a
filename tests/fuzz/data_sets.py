"""Data sets in which one file is damaged, and own data with labels of other conventions: the rest is read."""

from __future__ import annotations

import gzip
import json
import lzma
import pickle
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.base import base, copy
from fuzz.mutate import UNLIKELY, bytes_of, text_of, tree_of
from support.custom_folder import labelled
from support.mano_files import random_mano, write_mano
from utnet.config import Config, override
from utnet.data import open_source
from utnet.data.collate import label_fault
from utnet.data.inspection.check import check_source
from utnet.data.shards import write_shards
from utnet.data.source import BadSample, read_sample
from utnet.data.transforms import right_crop
from utnet.errors import InputError
from utnet.hand.mano import load_mano
from utnet.io.npz import read_members, read_npz, read_npz_all
from utnet.io.safe_pickle import parse_pickle
from utnet.synth.source import SyntheticHands
from utnet.synth.write_dexycb import write_dexycb
from utnet.synth.write_freihand import write_freihand
from utnet.synth.write_ho3d import write_ho3d
from utnet.synth.write_tars import write_tars
from utnet.types import Sample

Rng = np.random.Generator
_LOOKED_AT = 20


def damage(rng: Rng, root: Path) -> None:
    """One file of a folder: damaged, emptied, removed, or something else in its place."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    suffixes = sorted({path.suffix for path in files})
    suffix = str(rng.choice(suffixes))  # labels are few beside pictures
    chosen = [path for path in files if path.suffix == suffix]
    path = chosen[int(rng.integers(len(chosen)))]
    data, kind = path.read_bytes(), rng.random()
    if kind < 0.05:
        path.unlink()
    elif kind < 0.1:
        path.write_bytes(b"")
    elif kind < 0.15:
        path.unlink()
        path.mkdir()
    elif kind < 0.2:
        path.write_bytes(files[int(rng.integers(len(files)))].read_bytes())
    elif kind < 0.5 and suffix in (".json", ".jsonl"):
        lines = data.splitlines() if suffix == ".jsonl" else [data]
        at = int(rng.integers(len(lines)))
        lines[at] = text_of(rng, json.loads(lines[at]))
        path.write_bytes(b"\n".join(lines))
    elif kind < 0.5 and suffix in (".pkl", ".pyd"):
        path.write_bytes(pickle.dumps(_odd_values(rng, pickle.loads(data)), protocol=int(rng.integers(0, 6))))
    else:
        path.write_bytes(bytes_of(rng, data))


def _odd_values(rng: Rng, tree: Any) -> Any:
    """A dict or list with one value that is none, or of another shape or type."""
    odd = [*UNLIKELY, np.zeros((3, 3)), np.full(21, np.nan), np.array([None, {}], object), {1, 2}, np.zeros(0), b"\xff"]
    value = odd[int(rng.integers(len(odd)))]
    if isinstance(tree, list) and tree and isinstance(tree[0], dict):
        return [_odd_values(rng, tree[0]), *tree[1:]]
    if isinstance(tree, dict) and tree:
        return tree | {list(tree)[int(rng.integers(len(tree)))]: value}
    return value


def _read_all(source: Any) -> None:
    """Samples as training reads them: each is whole or a problem of one line."""
    items: list[Sample | BadSample]
    if hasattr(source, "stream"):
        items = list(islice(source.stream(seed=0, epoch=0, part=0, num_parts=1), _LOOKED_AT))
    else:
        items = [read_sample(source, i) for i in range(min(_LOOKED_AT, len(source)))]
    for item in items:
        if isinstance(item, BadSample):
            if "\n" in item.message:
                raise AssertionError(f"a message of several lines: {item.message[:300]}")
        elif not label_fault(item):
            crop = right_crop(item, 64, Config().crop, None)
            if not np.isfinite(crop.joints_cam_m[crop.joints_3d_conf > 0]).all():
                raise AssertionError(f"{item.key}: joints that are no numbers")


def _tree(name: str, write: Any, **options: Any) -> tuple[Any, Any]:
    """make and read of a data set that UTNet writes."""

    def make(rng: Rng, folder: Path) -> Path:
        root = copy(base(name, write), folder)
        damage(rng, root)
        return root

    def read(root: Path) -> None:
        _read_all(open_source(name.partition("_")[0], root, **options))

    return make, read


def write_custom(folder: Path) -> None:
    source = SyntheticHands(seed=7, size_px=96, num=12)
    folder.mkdir()
    lines = [labelled(source[i], folder, i) for i in range(12)]
    (folder / "hands.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _write_shards(folder: Path) -> None:
    write_shards.write_shards(SyntheticHands(seed=7, size_px=96, num=6), folder, progress=False)


def make_conventions(rng: Rng, folder: Path) -> Path:
    """Own data as other programs count and write it."""
    root = copy(base("custom", write_custom), folder)
    path = root / "hands.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kind, encoding = int(rng.integers(0, 8)), str(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    for line in lines:
        joints, K = np.array(line["joints_3d"]), np.array(line["K"])
        if kind == 0:
            line["image"] = line["image"].replace("/", "\\") if "/" in line["image"] else f"images\\{line['image']}"
        elif kind == 1:
            line["joints_3d"] = (joints * 1000).tolist()
        elif kind == 2:
            line["joints_3d"] = (joints * [1, -1, -1]).tolist()
        elif kind == 3:
            line["joints_3d"] = joints[rng.permutation(21)].tolist()
        elif kind == 4:
            line["side"] = {"right": "left", "left": "right"}[line["side"]]
        elif kind == 5:
            line["joints_2d"] = (joints[:, :2] / joints[:, 2:] @ K[:2, :2].T + K[:2, 2]).tolist()
            line["joints_2d"] = (np.array(line["joints_2d"]) / 96).tolist()
        elif kind == 6:
            line["joints_3d"] = (joints - joints[0]).tolist()
        else:
            line |= {"depth": f"{Path(line['depth']).stem}.npy", "box": [10, 10, 30, 30]}
    path.write_bytes("".join(json.dumps(line) + "\n" for line in lines).encode(encoding))
    return root


def read_checked(root: Path) -> None:
    check_source(open_source("custom", root)).to_tree()


def make_tar(rng: Rng, folder: Path) -> Path:
    """Training tars, packed or not, damaged before or after packing."""
    root = copy(base("tars", lambda path: write_tars(path, num=6, seed=3, per_tar=6, progress=False)), folder)
    (path,) = root.glob("*.tar")
    data = path.read_bytes()
    data = bytes_of(rng, data) if rng.random() < 0.6 else data
    pack = {"gz": gzip.compress, "xz": lzma.compress}.get(str(rng.choice(["gz", "xz", "", "", ""])))
    data = pack(data) if pack else data
    path.write_bytes(bytes_of(rng, data) if rng.random() < 0.5 else data)
    return root


def make_npz(rng: Rng, folder: Path) -> Path:
    path = folder / "labels.npz"
    kinds = ["f4", "f4", "f8", "i8", "?", "U4", ">f8", "O"] if rng.random() < 0.3 else ["f4", "f8"]
    arrays = {name: np.zeros((21, 3)).astype(str(rng.choice(kinds))) for name in ("joint_3d", "pose_m", "seg")}
    (np.savez if rng.random() < 0.5 else np.savez_compressed)(path, **arrays)
    if rng.random() < 0.8:
        path.write_bytes(bytes_of(rng, path.read_bytes()))
    return path


def read_labels(path: Path) -> None:
    answers = []
    for read in (read_members, read_npz):
        try:
            answers.append([array.tobytes() for array in read(path, "joint_3d", "pose_m")])
        except InputError:
            answers.append([])
    if answers[0] and answers[1] and answers[0] != answers[1]:
        raise AssertionError("the fast reader and the plain one differ")
    read_npz_all(path)


def make_mano(rng: Rng, folder: Path) -> Path:
    style = str(rng.choice(["plain", "python2"]))
    plain = base(f"mano_{style}.pkl", lambda path: write_mano(path, random_mano(), style=style))
    path, data = folder / "MANO_RIGHT.pkl", plain.read_bytes()
    if rng.random() < 0.4:
        data = pickle.dumps(_odd_values(rng, random_mano()), protocol=int(rng.integers(0, 6)))
    else:
        data = bytes_of(rng, data)
    path.write_bytes(data)
    return path


def make_pickle(rng: Rng, folder: Path) -> bytes:
    """Opcodes in any order, between names that a pickle may or may not hold."""
    words = [b"}", b"]", b")", b"(", b"h\0", b"q\0", b"\x94", b"K\x05", b"N", b"u", b"s", b"e", b"a", b"t", b"R", b"b",
             b"\x81", b"cnumpy\ndtype\n", b"cnumpy.core.multiarray\n_reconstruct\n", b"cos\nsystem\n", b"X\2\0\0\0ab",
             b"\x8f", b"\x90", b"\x91", b"I99999999999999999999\n", b"F1e999\n", b"0", b"1", b"2",
             b"l", b"d"]  # fmt: skip
    count = int(rng.choice([5, 50, 5000]))
    return b"\x80\x04" + b"".join(words[i] for i in rng.integers(0, len(words), count)) + b"."


def make_config(rng: Rng, folder: Path) -> Path:
    import yaml

    from utnet.config import to_tree

    path = folder / "run.yaml"
    tree = tree_of(rng, json.loads(json.dumps(to_tree(Config()))))
    data = json.dumps(tree).encode()
    if rng.random() < 0.5:
        with suppress(RecursionError):  # nested too deeply for this writer
            data = yaml.safe_dump(tree, allow_unicode=True).encode()
    path.write_bytes(bytes_of(rng, data) if rng.random() < 0.4 else data)
    return path


def read_config(path: Path) -> None:
    Config.load(path)


def make_settings(rng: Rng, folder: Path) -> list[str]:
    from utnet.config import to_tree

    tree = to_tree(Config())
    section = str(rng.choice(list(tree)))
    key = (
        f"{section}.{rng.choice(list(tree[section]))}" if isinstance(tree[section], dict) and tree[section] else section
    )
    value = UNLIKELY[int(rng.integers(len(UNLIKELY)))]
    texts = [json.dumps(value), str(value), "!!timestamp foo", "&a [*a]", "{", "!!python/object:os.system {}"]
    return [f"{key}={texts[int(rng.integers(len(texts)))]}"]


KINDS = {
    "dexycb": _tree(
        "dexycb", lambda path: write_dexycb(path, num=10, seed=5, progress=False), setup="s0", split="train"
    ),
    "ho3d": _tree("ho3d", lambda path: write_ho3d(path, num=6, seed=5, version="v3", progress=False)),
    "ho3d_two_hands": _tree("ho3d_h2o", lambda path: write_ho3d(path, num=6, seed=5, version="h2o3d", progress=False)),
    "freihand": _tree("freihand", lambda path: write_freihand(path, num=6, seed=5, progress=False)),
    "custom": _tree("custom", write_custom),
    "conventions": (make_conventions, read_checked),
    "shards": _tree("shards", _write_shards),
    "tars": _tree("tars", lambda path: write_tars(path, num=6, seed=3, per_tar=6, progress=False)),
    "packed_tars": (make_tar, lambda root: _read_all(open_source("tars", root))),
    "npz": (make_npz, read_labels),
    "mano": (make_mano, lambda path: load_mano(path, side="right")),
    "pickle": (make_pickle, lambda data: parse_pickle(data, where="a.pkl")),
    "config": (make_config, read_config),
    "settings": (make_settings, lambda words: override(Config(), words)),
}
