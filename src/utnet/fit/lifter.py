"""`LandmarkLifter`: a small network from landmarks to hand poses, trained without pictures; numpy only.

A residual perceptron maps the landmarks of one hand (in the view of `utnet.fit.landmarks`, independent of K) to a
mixture of hypotheses: landmarks do not determine whether a finger bends towards the camera or away from it. It is
trained by `tools/train_lifter.py` on sampled poses with the detector's measured residuals.

Its input is invariant to rotations in the picture and to the scale and origin of the relative 3D landmarks; any
landmark may be missing, in the picture or in 3D.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from utnet.conventions import NUM_BETAS, NUM_JOINTS
from utnet.errors import InputError
from utnet.hand.anatomy import JOINT_LIMITS_RAD

PATH = Path(str(files("utnet") / "assets" / "lifter" / "lifter.safetensors"))
NUM_HYPOTHESES = 4
NUM_FEATURES = 7 * NUM_JOINTS + 1
FREE: tuple[np.ndarray, ...] = np.nonzero(JOINT_LIMITS_RAD[..., 1] > JOINT_LIMITS_RAD[..., 0])
"""Indices (22,), (22,) of the free angles: joint of 15, and flexion, abduction or twist."""
NUM_FREE = len(FREE[0])
_LOWER, _UPPER = (JOINT_LIMITS_RAD[(*FREE, end)] for end in (0, 1))
NUM_OUTPUTS = NUM_BETAS + NUM_HYPOTHESES * (1 + 6 + NUM_FREE + NUM_JOINTS - 1)
_UP = np.full(NUM_JOINTS, 0.05)
_UP[[0, 1, 5, 9, 13, 17]] = -1.0, -0.3, 0.35, 0.35, 0.35, 0.35
"""Weights of the landmarks in the hand's direction in the picture, wrist to knuckles."""


@dataclass(frozen=True)
class Hypotheses:
    """K hypotheses for each of B sets of landmarks, the likeliest first, numpy float64.

    Attributes:
        root: (B, K, 3, 3) rotation, hand to view.
        angles: (B, K, 15, 3) flexion, abduction and twist about the hand model's anatomical axes, radians.
        betas: (B, 10) of the open hand, near 0 where the landmarks do not determine them.
        probability: (B, K), rows sum to 1.
        error_m: (B, K, 21) expected distance of each joint, relative to the wrist, from the true one on a hand of
            average size; 0 for the wrist.
    """

    root: np.ndarray
    angles: np.ndarray
    betas: np.ndarray
    probability: np.ndarray
    error_m: np.ndarray


class LandmarkLifter:
    """The network.

    Args:
        path: a safetensors file of `tools/train_lifter.py`.

    Raises:
        InputError: the file is missing or contains another network.
    """

    def __init__(self, path: Path = PATH):
        self._weights = _bundled() if path == PATH else _read(path)
        self._num_blocks = sum(name.endswith("norm.weight") for name in self._weights) - 1

    def __call__(self, points: np.ndarray, joints_m: np.ndarray, seen: np.ndarray, joints_ok: np.ndarray) -> Hypotheses:
        """Lifts B hands.

        Args:
            points: (B, 21, 2) landmarks x / z and y / z in the view.
            joints_m: (B, 21, 3) relative landmarks, any origin and scale, axes as the view's.
            seen: (B, 21) bool, which of `points` are known.
            joints_ok: (B, 21) bool, which of `joints_m` are known.
        """
        features, upright = to_features(points, joints_m, seen, joints_ok)
        return from_outputs(self._forward(features), upright)

    def _forward(self, features: np.ndarray) -> np.ndarray:
        w = self._weights
        x = _linear(features, w, "first")
        for k in range(self._num_blocks):
            inner = _linear(_normed(x, w, f"blocks.{k}.norm"), w, f"blocks.{k}.first")
            x = x + _linear(inner / (1 + np.exp(-inner)), w, f"blocks.{k}.last")
        return _linear(_normed(x, w, "norm"), w, "last")


def to_features(
    points: np.ndarray, joints_m: np.ndarray, seen: np.ndarray, joints_ok: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The network's input (B, 148) and the rotations (B, 3, 3) that turn views so that the hands are upright.

    Landmarks about their mean, in units of their root mean square distance from it, upright; two masks; and the
    logarithm of that unit in the picture, a measure of the perspective.
    """
    flat, flat_size = _centred(points, seen)
    deep, deep_size = _centred(joints_m, joints_ok)
    up = (flat * (_UP * seen)[..., None]).sum(1)
    length = np.linalg.norm(up, axis=1)
    cos = np.where(length > 0, -up[:, 1] / np.where(length > 0, length, 1.0), 1.0)
    sin = np.where(length > 0, -up[:, 0] / np.where(length > 0, length, 1.0), 0.0)
    turn = np.zeros((len(points), 3, 3))
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1], turn[:, 2, 2] = cos, -sin, sin, cos, 1.0
    back = turn.swapaxes(1, 2)
    flat = flat @ back[:, :2, :2] / flat_size[:, None, None]
    deep = deep @ back / deep_size[:, None, None]
    rows = [flat.reshape(-1, 42), deep.reshape(-1, 63), seen, joints_ok, np.log(flat_size)[:, None] + 2.5]
    return np.concatenate(rows, 1), turn


def from_outputs(outputs: np.ndarray, upright: np.ndarray) -> Hypotheses:
    """The network's outputs (B, 206), in views turned by `upright` (B, 3, 3), as hypotheses."""
    betas, logits, six, free, log_error = split_outputs(outputs.astype(float))
    order = np.argsort(-logits, axis=1, kind="stable")
    logits, six, free, log_error = (
        np.take_along_axis(values, order.reshape(*order.shape, *(1,) * (values.ndim - 2)), 1)
        for values in (logits, six, free, log_error)
    )
    share = np.exp(logits - logits[:, :1])
    angles = np.zeros((*free.shape[:2], 15, 3))
    angles[:, :, FREE[0], FREE[1]] = to_angles(free)
    error = np.zeros((*free.shape[:2], NUM_JOINTS))
    error[..., 1:] = to_error_m(np.exp(log_error))
    root = upright.swapaxes(1, 2)[:, None] @ _orthonormal(six)
    return Hypotheses(root, angles, betas, share / share.sum(1, keepdims=True), error)


def split_outputs(outputs):
    """(B, 206) numpy or torch -> betas (B, 10), logits (B, K), root (B, K, 6: first column, then second column),
    free angles (B, K, 22) and log errors (B, K, 20), the last two for `to_angles` and `to_error_m`."""
    betas, logits = outputs[:, :NUM_BETAS], outputs[:, NUM_BETAS : NUM_BETAS + NUM_HYPOTHESES]
    rest = outputs[:, NUM_BETAS + NUM_HYPOTHESES :].reshape(len(outputs), NUM_HYPOTHESES, -1)
    return betas, logits, rest[..., :6], rest[..., 6 : 6 + NUM_FREE], rest[..., 6 + NUM_FREE :]


def to_angles(free: np.ndarray) -> np.ndarray:
    """(..., 22) outputs, -1 and 1 at the limits of each joint, -> radians."""
    return 0.5 * (_LOWER + _UPPER) + 0.5 * (_UPPER - _LOWER) * free


def to_error_m(scale: np.ndarray) -> np.ndarray:
    """Scale (cm) of an isotropic Laplace distribution in space, exp(-d / scale) -> its mean distance d in metres."""
    return 0.03 * scale


def _centred(points: np.ndarray, ok: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(B, 21, D) points about the mean of the known ones, 0 for the others, and (B,) their root mean square."""
    there = ok[..., None]
    count = np.maximum(ok.sum(1), 1)
    mean = np.where(there, points, 0.0).sum(1) / count[:, None]
    off = np.where(there, points - mean[:, None], 0.0)
    size = np.sqrt((off * off).sum((1, 2)) / count)
    return off, np.where(size > 1e-9, size, 1.0)


def _orthonormal(six: np.ndarray) -> np.ndarray:
    """(..., 6) two columns -> (..., 3, 3) rotations by Gram-Schmidt."""
    first = six[..., :3] / np.linalg.norm(six[..., :3], axis=-1, keepdims=True)
    second = six[..., 3:] - (first * six[..., 3:]).sum(-1, keepdims=True) * first
    second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    return np.stack([first, second, np.cross(first, second)], -1)


def _linear(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _normed(x: np.ndarray, weights: dict[str, np.ndarray], name: str) -> np.ndarray:
    off = x - x.mean(1, keepdims=True)
    off = off / np.sqrt((off * off).mean(1, keepdims=True) + 1e-5)
    return off * weights[f"{name}.weight"] + weights[f"{name}.bias"]


@cache
def _bundled() -> dict[str, np.ndarray]:
    """Shared by all lifters: 10 MB."""
    return _read(PATH)


def _read(path: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    if not path.is_file():
        raise InputError(f"{path}: missing; install utnet again, or make it with tools/train_lifter.py")
    weights = {name: array.astype(float) for name, array in load_file(path).items()}
    first, last = weights.get("first.weight"), weights.get("last.weight")
    if first is None or last is None or (first.shape[1], last.shape[0]) != (NUM_FEATURES, NUM_OUTPUTS):
        raise InputError(f"{path}: not a landmark lifter of this version; make it with tools/train_lifter.py")
    return weights
