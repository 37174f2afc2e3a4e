"""The ReLU of our networks: in place forward, and in place of the gradient backward.

Between two convolutions a ReLU computes nothing to speak of and only moves memory. Overwriting what
it is given halves that; bfloat16 is handled as int16, for which CPUs have the instructions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class ReLU(nn.Module):
    """max(x, 0), written over `x`.

    Its backward pass writes over the gradient that it is given, so what follows in the network must
    make a gradient of its own: a convolution, a mean, a linear layer, or several layers at once.
    After a lone `a + b`, `view` or `dropout` use `nn.ReLU`. Second derivatives work.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map any float tensor to one of the same shape, dtype and memory."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _ReLU.apply(x)
        _bits(x).clamp_min_(0)  # what exporters and tracers of networks understand
        return x


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.mark_dirty(x)
        ctx.save_for_backward(x)
        _bits(x).clamp_min_(0)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself is to be differentiated
            return torch.ops.aten.threshold_backward(gradient, y, 0)
        if gradient.stride() != y.stride():  # expanded, or in another memory format
            gradient = torch.empty_like(y).copy_(gradient)
        masked = _bits(gradient)
        torch.ops.aten.threshold_backward.grad_input(masked, _bits(y), 0, grad_input=masked)
        return gradient


def _bits(x: Tensor) -> Tensor:
    """The tensor itself; bfloat16 as int16, whose order around zero is the same."""
    return x.view(torch.int16) if x.dtype == torch.bfloat16 else x
