"""The gradient of images is computed in squares of pixels, and is the same as pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import ltrobust.models.folded as folded
from ltrobust.models.folded import FoldedConvolution


def view_of(conv: nn.Conv2d) -> FoldedConvolution:
    view = FoldedConvolution(conv, None, bf16=False)
    view.refresh()
    return view


def image_gradient(conv: nn.Module, x: Tensor, back: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(conv(x), x, back)
    return gradient


@settings(deadline=None, max_examples=40)
@given(
    channels=st.integers(1, 4),
    out=st.integers(1, 9),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_squares_have_the_gradient_of_the_convolution(
    channels: int, out: int, height: int, width: int, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    conv = nn.Conv2d(channels, out, 3, padding=1, bias=bias).double()
    ours = FoldedConvolution(conv, None, bf16=False)
    ours.weight = conv.weight.detach()  # double, to compare without rounding
    ours.bias = None if conv.bias is None else conv.bias.detach()
    x = torch.rand(2, channels, 2 * height, 2 * width, dtype=torch.double)
    back = torch.randn(2, out, 2 * height, 2 * width, dtype=torch.double)
    assert ours._is_first(x.requires_grad_())
    assert torch.allclose(image_gradient(ours, x, back), image_gradient(conv, x, back), atol=1e-12)


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv2d(3, 4, 3, padding=1), 7),
        (nn.Conv2d(3, 4, 3, padding=1, stride=2), 8),
        (nn.Conv2d(3, 4, 3), 8),
        (nn.Conv2d(3, 4, 5, padding=1), 8),
        (nn.Conv2d(3, 4, 3, padding=1, dilation=2), 8),
        (nn.Conv2d(4, 4, 3, padding=1, groups=2), 8),
        (nn.Conv2d(5, 4, 3, padding=1), 8),
    ],
)
def test_other_convolutions_go_the_usual_way(conv: nn.Conv2d, size: int) -> None:
    ours, x = view_of(conv), torch.rand(2, conv.in_channels, size, size)
    assert not ours._is_first(x.requires_grad_())
    back = torch.randn_like(conv(x))
    assert torch.allclose(image_gradient(ours, x, back), image_gradient(conv, x, back), atol=1e-5)


def test_new_weights_change_the_gradient() -> None:
    conv, x = nn.Conv2d(3, 4, 3, padding=1), torch.rand(2, 3, 8, 8)
    ours, back = view_of(conv), torch.randn(2, 4, 8, 8)
    before = image_gradient(ours, x, back)
    with torch.no_grad():
        conv.weight.mul_(2)
    ours.refresh()
    assert torch.allclose(image_gradient(ours, x, back), 2 * before, atol=1e-5)


def test_the_squares_are_used_in_attacks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = folded._back_weight
    monkeypatch.setattr(folded, "_back_weight", lambda w: calls.append(1) or original(w))
    ours = view_of(nn.Conv2d(3, 4, 3, padding=1))
    x = torch.rand(2, 3, 8, 8)
    ours(x)
    assert not calls
    for _ in range(2):
        ours(x.clone().requires_grad_())
    assert calls == [1]
