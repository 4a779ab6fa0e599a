"""Writes files in MANO's format with numbers of our own: no MANO file may be shipped, and none is at hand.

`style="python2"` is the published form: a protocol 2 pickle of Python 2 (8-bit strings, old module names) in which some
arrays are chumpy objects and the joint regressor is a scipy sparse matrix. chumpy itself is not needed: classes of its
names live in throw-away modules while a file is written.
"""

from __future__ import annotations

import io
import pickle
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.sparse

from utnet.conventions import MANO_PARENTS

NUM_VERTICES = 778


def random_mano(seed: int = 0, *, side: str = "right") -> dict:
    """Numbers in MANO's layout: a cloud of vertices around 16 plausible joints, smooth weights, small blendshapes."""
    rng = np.random.default_rng(seed)
    joints = np.zeros((16, 3))
    for finger in range(5):
        base = np.array([-0.085, 0.0, 0.03 - 0.015 * finger])
        for phalanx in range(3):
            joints[1 + 3 * finger + phalanx] = base - [0.03 * phalanx, 0.0, 0.0]
    joints += rng.normal(0, 0.003, joints.shape)
    if side == "left":
        joints[:, 0] *= -1
    vertices = joints[rng.integers(0, 16, NUM_VERTICES)] + rng.normal(0, 0.008, (NUM_VERTICES, 3))
    squared = ((vertices[:, None] - joints) ** 2).sum(-1)
    weights = np.exp(-squared / 0.01**2) + 1e-12
    regressor = np.where(rng.random((16, NUM_VERTICES)) < 0.02, rng.random((16, NUM_VERTICES)), 0.0)
    return {
        "v_template": vertices,
        "shapedirs": rng.normal(0, 0.002, (NUM_VERTICES, 3, 10)),
        "posedirs": rng.normal(0, 0.001, (NUM_VERTICES, 3, 135)),
        "J_regressor": scipy.sparse.csc_matrix(regressor / regressor.sum(1, keepdims=True)),
        "weights": weights / weights.sum(1, keepdims=True),
        "f": rng.integers(0, NUM_VERTICES, (1538, 3)).astype(np.uint32),
        "kintree_table": np.array([MANO_PARENTS, range(16)]).astype(np.uint32),  # -1 wraps round, as in the real file
        "hands_components": np.linalg.qr(rng.normal(size=(45, 45)))[0],
        "hands_mean": rng.normal(0, 0.3, 45),
        "hands_coeffs": rng.normal(size=(20, 45)),
        "J": joints,
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


def write_mano(path: Path, data: dict, *, style: str = "plain") -> Path:
    """Writes `data` to `path` as "plain" (protocol 2 of today) or "python2" (the published form); returns the path."""
    if style == "plain":
        path.write_bytes(pickle.dumps(data, protocol=2))
        return path
    with chumpy_classes() as (Ch, Select):
        styled = dict(data)
        dirs = styled["shapedirs"]
        many = np.concatenate([dirs, np.ones_like(dirs)], -1)  # Select picks 10 of 20 components, as MANO's does
        chosen = np.arange(many.size).reshape(many.shape)[..., :10].ravel()
        styled["shapedirs"] = Select(a=Ch(x=many), idxs=chosen, preferred_shape=dirs.shape)
        styled["v_template"] = Ch(x=styled["v_template"])
        styled["posedirs"] = Ch(x=styled["posedirs"])
        path.write_bytes(python2_pickle(styled))
    return path


def python2_pickle(value: object) -> bytes:
    """Protocol 2 as Python 2 and the numpy and scipy of its day wrote it."""
    buffer = io.BytesIO()
    _Python2Pickler(buffer, protocol=2).dump(value)
    data = buffer.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")
    for layout in (b"csc", b"csr", b"coo"):
        data = data.replace(b"cscipy.sparse._" + layout + b"\n", b"cscipy.sparse." + layout + b"\n")
    return data


class _Python2Pickler(pickle._Pickler):
    """Text and bytes alike become Python 2's 8-bit strings."""

    def save_8bit(self, value: str | bytes) -> None:
        raw = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + len(raw).to_bytes(4, "little") + raw)
        self.memoize(value)

    dispatch = {**pickle._Pickler.dispatch, str: save_8bit, bytes: save_8bit}  # noqa: RUF012


@contextmanager
def chumpy_classes():
    """Classes that pickle as `chumpy.ch.Ch` and `chumpy.reordering.Select` with the state that chumpy's have."""

    class Ch:
        def __init__(self, **state):
            bookkeeping = {"_dirty_vars": {"x"}, "_itr": None, "_depends_on_deps": {}, "_make_dense": False}
            self.__dict__.update(bookkeeping, **state)

    class Select(Ch):
        pass

    names = {"chumpy": {}, "chumpy.ch": {"Ch": Ch}, "chumpy.reordering": {"Select": Select}}
    for name, classes in names.items():
        assert name not in sys.modules
        module = sys.modules[name] = types.ModuleType(name)
        for label, cls in classes.items():
            cls.__module__, cls.__qualname__ = name, label
            setattr(module, label, cls)
    try:
        yield Ch, Select
    finally:
        for name in names:
            del sys.modules[name]
