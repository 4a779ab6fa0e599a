"""Depthwise convolution with a backward pass that is fast on a CPU, in float32 and in bfloat16."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_PART = 3
"""oneDNN has fast code for the weight gradient of kernels up to this width; beyond, it takes ten times as long."""


def depthwise_conv(x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, padding: int) -> Tensor:
    """`F.conv2d` with one group per channel; its gradients are equal up to float rounding.

    Under autocast it computes in float32 where the CPU has no instructions for bfloat16: emulation takes three times as
    long.

    Args:
        x: (B, C, H, W).
        weight: (C, 1, k, k).
        bias: (C,), or None.
        stride: of both axes.
        padding: of all sides.
    """
    if not trains_on_cpu(x):
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))
    dtype = x.dtype
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu") if _has_bfloat16() else torch.float32
    bias = None if bias is None else bias.to(dtype)
    return _Depthwise.apply(x.to(dtype), weight.to(dtype), bias, stride, padding)


def trains_on_cpu(x: Tensor) -> bool:
    """Whether gradients are computed on a CPU by operations one by one, so that their number and kind matter."""
    return x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling()


@cache
def _has_bfloat16() -> bool:
    """Whether oneDNN computes in bfloat16 on this CPU (not in torch's builds without oneDNN, such as for Apple's)."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted_x, wanted_weight, wanted_bias = ctx.needs_input_grad[:3]
        grad_x = _input_gradient(grad, x, weight, ctx.stride, ctx.padding) if wanted_x else None
        grad_weight = _weight_gradient(grad, x, weight, ctx.stride, ctx.padding) if wanted_weight else None
        return grad_x, grad_weight, grad.sum((0, 2, 3)) if wanted_bias else None, None, None


def _input_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    if stride > 1 and x.dtype == torch.bfloat16:  # oneDNN has no fast code for it
        shape = torch.empty_like(x, dtype=torch.float32)  # its numbers are not used
        return _backward(grad.float(), shape, weight.float(), stride, (padding, padding), 0).to(x.dtype)
    return _backward(grad, x, weight, stride, (padding, padding), 0)


def _weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    size = weight.shape[-1]
    if size <= _PART:
        return _backward(grad, x, weight, stride, (padding, padding), 1)
    result = torch.empty_like(weight)
    width = stride * (grad.shape[-1] - 1) + _PART
    for first in (*range(0, size - _PART, _PART), size - _PART):  # the last may overlap the one before
        left = padding - first
        columns = F.pad(x, (left, width - x.shape[-1] - left))  # negative numbers crop
        part = slice(first, first + _PART)
        result[..., part] = _backward(grad, columns, weight[..., part], stride, (padding, 0), 1)
    return result


def _backward(grad: Tensor, x: Tensor, weight: Tensor, stride: int, padding: tuple[int, int], of: int) -> Tensor:
    """The gradient by x (`of` 0) or by the weight (1)."""
    wanted = [of == 0, of == 1, False]
    sizes = [None, [stride, stride], list(padding), [1, 1], False, [0, 0]]
    return torch.ops.aten.convolution_backward(grad, x, weight, *sizes, len(weight), wanted)[of]
