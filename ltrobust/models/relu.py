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
    After a lone `a + b`, `view` or `dropout` use `nn.ReLU`; so where the gradient of its output is
    asked for (`torch.autograd.grad(loss, maps)`, a hook that keeps it). Second derivatives work.

    A nan stays nan, but in eval mode in bfloat16, where it may become 0.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map any float tensor to one of the same shape, dtype and memory."""
        if torch.jit.is_tracing():  # knows neither our backward pass nor views as int16
            return x.clamp_min_(0)
        if torch.is_grad_enabled() and x.requires_grad:
            return _ReLU.apply(x, self.training)
        return _clamped(x, self.training)


class _ReLU(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, keep_nan: bool) -> Tensor:
        return _clamped(x, keep_nan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, bool], output: Tensor) -> None:
        ctx.mark_dirty(inputs[0])
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient itself is to be differentiated
            return torch.ops.aten.threshold_backward(gradient, y, 0), None
        if gradient.stride() != y.stride():  # expanded, or in another memory format
            gradient = torch.empty_like(y).copy_(gradient)
        masked = _bits(gradient)
        torch.ops.aten.threshold_backward.grad_input(masked, _bits(y), 0, grad_input=masked)
        return gradient, None


def _clamped(x: Tensor, keep_nan: bool) -> Tensor:
    (x if keep_nan else _bits(x)).clamp_min_(0)
    return x


def _bits(x: Tensor) -> Tensor:
    """The tensor itself; bfloat16 as int16, whose order around zero is the same but for nan."""
    return x.view(torch.int16) if x.dtype == torch.bfloat16 else x
