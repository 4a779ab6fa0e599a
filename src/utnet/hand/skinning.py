"""Linear blend skinning with a custom backward pass.

v' = sum_j w_j (R_j v + t_j): the blended [R | t] of all vertices are computed by one matrix product, as one (B, V)
plane per entry of [R | t]. They are applied by three fused multiply-adds over planes instead of a small matrix product
per vertex. On a CPU a few hands are processed at a time, so that their planes stay in the cache.
"""

from __future__ import annotations

import torch
from torch import Tensor

_HANDS_AT_A_TIME = 16
"""Planes take 0.6 MB for MANO's 778 vertices, 1.2 MB for the open hand's 1,609."""

_FEW = 64  # with fewer vertices (fingertips) all hands are processed at once


def skin(transforms: Tensor, rest: Tensor, weights: Tensor) -> Tensor:
    """Moves vertices by the blended transforms of their joints.

    Args:
        transforms: (B, 16, 3, 4) transforms [R | t] of rest-pose points, per joint.
        rest: (B, 3 V) vertices before skinning: all x, all y, all z.
        weights: (16, V) skinning weights.

    Returns:
        (B, V, 3). Its gradient with respect to `weights` is not defined.
    """
    planes = transforms.permute(3, 2, 0, 1)  # (4, 3, B, 16)
    if rest.is_cuda or torch.compiler.is_compiling() or weights.shape[1] < _FEW:
        moved, _ = _move(planes, rest.unflatten(1, (3, -1)).unbind(1), weights)
        return moved.permute(1, 2, 0).contiguous()
    return _Skin.apply(planes, rest, weights)


def _move(planes: Tensor, rest: tuple[Tensor, ...], weights: Tensor) -> tuple[Tensor, Tensor]:
    """(4, 3, B, 16) transforms and x, y, z (B, V) -> moved (3, B, V), blended transforms (4, 3, B, V)."""
    blended = (planes.flatten(0, 2) @ weights).unflatten(0, planes.shape[:3])
    *R, moved = blended.unbind(0)
    for column, axis in zip(R, rest, strict=True):
        moved = torch.addcmul(moved, column, axis)
    return moved, blended


class _Skin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, planes: Tensor, rest: Tensor, weights: Tensor) -> Tensor:
        num, num_vertices = len(rest), weights.shape[1]
        out, kept = rest.new_empty(num, num_vertices, 3), []
        for start in range(0, num, _HANDS_AT_A_TIME):
            some = slice(start, start + _HANDS_AT_A_TIME)
            moved, blended = _move(planes[:, :, some], rest[some].unflatten(1, (3, -1)).unbind(1), weights)
            out[some] = moved.permute(1, 2, 0)
            kept.append(blended[:3])
        ctx.save_for_backward(rest, weights, *kept)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor):
        rest, weights, *kept = ctx.saved_tensors
        num = len(rest)
        grad_planes, grad_rest = grad.new_empty(4, 3, num, len(weights)), torch.empty_like(rest)
        for start, R in zip(range(0, num, _HANDS_AT_A_TIME), kept, strict=True):
            some = slice(start, start + _HANDS_AT_A_TIME)
            x, to = rest[some].unflatten(1, (3, -1)), grad_rest[some].unflatten(1, (3, -1))
            g = grad[some].permute(2, 0, 1).contiguous()  # (3, b, V)
            outer = g.new_empty(4, *g.shape)  # g [x y z 1]: the gradient of the blended transforms
            outer[3] = g
            for k in range(3):
                torch.mul(g, x[:, k], out=outer[k])
                column = (R[k, 0] * g[0]).addcmul_(R[k, 1], g[1])
                torch.addcmul(column, R[k, 2], g[2], out=to[:, k])
            grad_planes[:, :, some] = (outer.flatten(0, 2) @ weights.T).unflatten(0, outer.shape[:3])
        return grad_planes, grad_rest, None
