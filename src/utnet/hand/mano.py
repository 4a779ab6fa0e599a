"""Safe reader of MANO files (`MANO_RIGHT.pkl`, `MANO_LEFT.pkl`) into `HandArrays`.

The file is a Python 2 pickle of a dict with chumpy arrays (chumpy does not install with current Python) and a scipy
sparse matrix as joint regressor. `utnet.io.safe_pickle` reads it without running code; the builders here convert
chumpy's and scipy's objects to arrays. Neither package is imported.

Values are kept as in the file. The official MANO_LEFT has a wrong sign in `shapedirs[:, 0, :]`, and datasets differ:
labels of InterHand2.6M need the sign flipped, those of DexYCB were made without, those of H2O3D negate all of
`shapedirs`. Readers of such labels apply the convention of their source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from utnet.conventions import (
    MANO_PARENTS,
    MANO_TIP_VERTICES,
    MANOPTH_LEFT_TIP_VERTICES,
    NUM_BETAS,
    NUM_MANO_JOINTS,
    SIDES,
)
from utnet.errors import InputError
from utnet.hand.arrays import HandArrays
from utnet.io.atomic import check_stand_in
from utnet.io.npz import read_npz_all
from utnet.io.safe_pickle import Allow, load_pickle
from utnet.types import check_shape

NUM_VERTICES = 778

_SHAPES: dict[str, tuple[int | None, ...]] = {
    "v_template": (NUM_VERTICES, 3),
    "shapedirs": (NUM_VERTICES, 3, None),
    "posedirs": (NUM_VERTICES, 3, 135),
    "J_regressor": (NUM_MANO_JOINTS, NUM_VERTICES),
    "weights": (NUM_VERTICES, NUM_MANO_JOINTS),
    "f": (None, 3),
    "kintree_table": (2, NUM_MANO_JOINTS),
    "hands_components": (45, 45),
    "hands_mean": (45,),
}
"""Keys that are read, with their shapes; others (`hands_coeffs`, `J`, `bs_style`, ...) are ignored."""

_MAX_DENSE = 10**7  # maximum size of a sparse matrix; MANO's has 12,448 entries


def mano_file(mano: str | Path, side: str = "right") -> Path:
    """Returns the MANO file of a side, as the option `mano` names it everywhere.

    Args:
        mano: the folder that holds MANO_RIGHT.pkl and MANO_LEFT.pkl (or .npz), or one of the two files; the other is
            expected beside it.
        side: "right" or "left".

    Returns:
        The path; where a folder holds neither file, that of the .pkl.
    """
    path = Path(mano)
    if path.suffix.lower() in (".pkl", ".npz"):
        return path.with_name(path.name.replace("LEFT" if side == "right" else "RIGHT", side.upper()))
    pickled = path / f"MANO_{side.upper()}.pkl"
    arrays = pickled.with_suffix(".npz")
    return arrays if arrays.is_file() and not pickled.is_file() else pickled


def load_mano(path: str | Path, *, side: str = "right", flat_hand_mean: bool = True, tips: str = "smplx") -> HandArrays:
    """Reads a MANO model file. Rest joints and their blendshapes are computed with `J_regressor`.

    Args:
        path: `MANO_RIGHT.pkl` or `MANO_LEFT.pkl` or an .npz of the same arrays, or the folder that contains it.
        side: "right" or "left", the hand in the file (manopth's fingertips differ by side).
        flat_hand_mean: False uses the file's `hands_mean` as mean pose; True uses none.
        tips: convention of the fingertip vertices, a key of `conventions.MANO_TIP_VERTICES`.

    Raises:
        InputError: the file is missing or unsafe, or a key is missing or has a wrong shape.
        ValueError: `side` or `tips` is unknown.
    """
    if side not in SIDES:
        raise ValueError(f"side is {side!r}, expected 'right' or 'left'")
    if tips not in MANO_TIP_VERTICES:
        raise ValueError(f"tips is {tips!r}, expected one of {', '.join(MANO_TIP_VERTICES)}")
    path = mano_file(path, side) if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: no such MANO file. MANO is licence-gated: register at mano.is.tue.mpg.de, download "
            f"MANO_{side.upper()}.pkl and give its folder; the open hand (HandModel.open) needs no file"
        )
    data = _load_npz(path) if path.suffix.lower() == ".npz" else load_pickle(path, allow=_ALLOW)
    if not isinstance(data, dict):
        raise InputError(f"{path}: contains a {type(data).__name__}, not the dict of a MANO model file")
    arrays = {key: _array(data, key, str(path)) for key in _SHAPES}
    if tuple(arrays["kintree_table"][0, 1:]) != MANO_PARENTS[1:]:
        raise InputError(f"{path}: kintree_table[0] is not MANO's kinematic tree {list(MANO_PARENTS)}")
    shapedirs = arrays["shapedirs"][..., :NUM_BETAS]
    regressor = arrays["J_regressor"]
    tip_vertices = MANOPTH_LEFT_TIP_VERTICES if (tips, side) == ("manopth", "left") else MANO_TIP_VERTICES[tips]
    return HandArrays(
        v_template=arrays["v_template"],
        shapedirs=shapedirs,
        J_template=regressor @ arrays["v_template"],
        J_shapedirs=np.einsum("jv,vck->jck", regressor, shapedirs),
        weights=arrays["weights"],
        faces=arrays["f"].astype(np.int64),
        tip_vertices=np.array(tip_vertices),
        posedirs=arrays["posedirs"],
        pose_mean=None if flat_hand_mean else arrays["hands_mean"],
        pose_basis=arrays["hands_components"],
    ).check(str(path))


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a MANO file saved as .npz under the pickle's names, read without pickles."""
    check_stand_in(path)
    return {key: array for key, array in read_npz_all(path).items() if key in _SHAPES}


def _array(data: dict, key: str, where: str) -> np.ndarray:
    """Returns `data[key]` as float64; raises InputError, naming file and key, if it is not as in MANO's files."""
    if key not in data:
        raise InputError(f"{where}: key {key!r} is missing; not a MANO model file")
    value = data[key]
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        raise InputError(f"{where}: {key!r} is a {type(value).__name__}, not an array of numbers")
    try:
        check_shape(repr(key), value, _SHAPES[key], where)
    except ValueError as error:
        raise InputError(f"{error}; not a MANO model file") from error
    if key == "shapedirs" and value.shape[2] < NUM_BETAS:
        raise InputError(f"{where}: 'shapedirs' has {value.shape[2]} components, expected at least {NUM_BETAS}")
    array = value.astype(np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{where}: {key!r} has values that are not finite")
    return array


# ------------------------------------------------------------------------ builders of chumpy's and scipy's objects


def _numbers(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise ValueError("not an array of numbers")
    return array


def _ch(args: tuple, state: dict) -> np.ndarray:
    """`chumpy.ch.Ch`: the array is its `x`."""
    return _numbers(state["x"])


def _select(args: tuple, state: dict) -> np.ndarray:
    """`chumpy.reordering.Select`: entries `idxs` of the flattened `a`, in `preferred_shape` if given."""
    chosen = _numbers(state["a"]).ravel()[_numbers(state["idxs"]).astype(np.int64)]
    return chosen.reshape(state["preferred_shape"]) if "preferred_shape" in state else chosen


def _reshape(args: tuple, state: dict) -> np.ndarray:
    """`chumpy.reordering.Reshape`."""
    return _numbers(state["a"]).reshape(state["newshape"])


def _transpose(args: tuple, state: dict) -> np.ndarray:
    """`chumpy.reordering.transpose`."""
    return np.transpose(_numbers(state["a"]), state.get("axes"))


def _sparse(layout: str):
    """Builder of scipy's sparse matrices of a layout ("csc", "csr", "coo") as dense arrays; duplicates are summed."""

    def build(args: tuple, state: dict) -> np.ndarray:
        shape = state["_shape"] if "_shape" in state else state["shape"]
        num_rows, num_cols = (int(n) for n in shape)
        if min(num_rows, num_cols) < 0 or num_rows * num_cols > _MAX_DENSE:
            raise ValueError("a matrix too large for a hand model")
        values = _numbers(state["data"])
        if layout == "coo":
            rows, cols = state["coords"] if "coords" in state else (state["row"], state["col"])
        else:
            starts = _numbers(state["indptr"]).astype(np.int64)
            counts = np.diff(starts)
            num_major = num_cols if layout == "csc" else num_rows
            if len(counts) != num_major or (counts < 0).any() or starts[0] != 0 or starts[-1] != len(values):
                raise ValueError("indptr does not fit the shape and the data")
            major, minor = np.repeat(np.arange(num_major), counts), state["indices"]
            rows, cols = (minor, major) if layout == "csc" else (major, minor)
        rows, cols = _numbers(rows).astype(np.int64), _numbers(cols).astype(np.int64)
        if not rows.shape == cols.shape == values.shape:
            raise ValueError("as many indices as values are expected")
        if len(values) and (min(rows.min(), cols.min()) < 0 or rows.max() >= num_rows or cols.max() >= num_cols):
            raise ValueError("an index outside the matrix")
        dense = np.zeros((num_rows, num_cols))
        np.add.at(dense, (rows, cols), values)
        return dense

    return build


_ALLOW: Allow = {
    ("chumpy.ch", "Ch"): _ch,
    ("chumpy.reordering", "Select"): _select,
    ("chumpy.reordering", "Reshape"): _reshape,
    ("chumpy.reordering", "transpose"): _transpose,
    **{
        (f"scipy.sparse.{underscore}{layout}", f"{layout}_{kind}"): _sparse(layout)
        for layout in ("csc", "csr", "coo")
        for underscore in ("", "_")
        for kind in ("matrix", "array")
    },
}
