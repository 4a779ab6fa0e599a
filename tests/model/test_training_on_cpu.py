"""Faster ways to train on a CPU: values and gradients are those of the plain ones."""

import pytest
import torch
from torch.nn import functional as F

from utnet.model import lite_stem
from utnet.model.depthwise import depthwise_conv

SHAPES = [(5, 1, 2, 6), (5, 2, 0, 11), (5, 2, 0, 12), (4, 1, 1, 7), (3, 1, 1, 6), (3, 2, 0, 9), (7, 1, 3, 8)]


def made(size, pixels, dtype=torch.float64):
    torch.manual_seed(size + pixels)
    shapes = ((2, 16, pixels, pixels + 1), (16, 1, size, size), (16,))
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def with_gradients(function, inputs, weight):
    result = function(*inputs)
    return result, *torch.autograd.grad((result * weight).sum(), inputs)


@pytest.mark.parametrize(("size", "stride", "padding", "pixels"), SHAPES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_the_plain_convolution(size, stride, padding, pixels, layout):
    inputs = made(size, pixels)
    inputs[0] = inputs[0].detach().contiguous(memory_format=layout).requires_grad_()
    plain = F.conv2d(*inputs, stride, padding, groups=16)
    weight = torch.randn_like(plain)
    expected = with_gradients(lambda *given: F.conv2d(*given, stride, padding, groups=16), inputs, weight)
    own = with_gradients(lambda *given: depthwise_conv(*given, stride=stride, padding=padding), inputs, weight)
    for value, wanted in zip(own, expected, strict=True):
        torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize(("size", "stride", "padding", "pixels"), SHAPES)
def test_under_autocast_gradients_are_exact_within_the_rounding_of_bfloat16(size, stride, padding, pixels):
    inputs = made(size, pixels, torch.float32)

    def half(*given):
        with torch.autocast("cpu", torch.bfloat16):
            return depthwise_conv(*given, stride=stride, padding=padding).float()

    weight = torch.randn_like(half(*inputs))
    expected = with_gradients(lambda *given: F.conv2d(*given, stride, padding, groups=16), inputs, weight)
    for value, wanted in zip(with_gradients(half, inputs, weight), expected, strict=True):
        assert value.dtype == torch.float32
        assert (value - wanted).norm() < 0.01 * wanted.norm()


def test_only_wanted_gradients_are_computed_and_none_without_training():
    x, weight, bias = made(5, 8)
    (own,) = torch.autograd.grad(depthwise_conv(x.detach(), weight, bias.detach(), stride=1, padding=2).sum(), weight)
    (plain,) = torch.autograd.grad(F.conv2d(x.detach(), weight, bias.detach(), 1, 2, groups=16).sum(), weight)
    torch.testing.assert_close(own, plain)
    with torch.no_grad():
        assert depthwise_conv(x, weight, bias, stride=1, padding=2).grad_fn is None


@pytest.mark.parametrize("has_depth", [[True, False, False, True], [False] * 4, [True] * 4])
def test_depth_maps_made_once_for_all_samples_without_depth_have_the_same_gradients(has_depth, monkeypatch):
    torch.manual_seed(0)
    stem, depth = lite_stem.LiteStem(16).double(), torch.randn(4, 4, 32, 32, dtype=torch.float64)
    torch.nn.init.normal_(stem.placeholder)
    rgb, has_depth = torch.randn(4, 3, 32, 32, dtype=torch.float64), torch.tensor(has_depth)

    def run():
        tokens, maps = stem(rgb, depth, has_depth)
        total = sum((each * torch.arange(each.numel()).view_as(each).cos()).sum() for each in (tokens, *maps))
        return tokens, *maps, *torch.autograd.grad(total, tuple(stem.parameters()))

    once = run()
    monkeypatch.setattr(lite_stem, "trains_on_cpu", lambda _: False)
    for value, expected in zip(once, run(), strict=True):
        torch.testing.assert_close(value, expected)
