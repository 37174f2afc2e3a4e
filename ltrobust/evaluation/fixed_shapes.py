"""A search network that is only ever run at a few batch sizes, as recorded passes.

Attacks shrink their batches with every success, and a GPU takes as long for one image as for two
hundred, spends most of it on launches, and prepares each new size anew. Here a batch is filled up
with idle rows to the next size, for which the pass and its gradient were recorded once. Verdicts
are never taken here.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust.errors import Notice
from ltrobust.graphs import Graphs

SIZES = (4, 16, 64, 128, 192, 256)
"""Of batches; larger ones pass as they are."""


class FixedShapes(nn.Module):
    """A network behind recordings of its passes.

    Args:
        net: maps float32 images (B, ...) in eval mode to logits (B, C), each row on its own.
        graphs: what records.

    Attributes:
        recordings: by batch size and whether the images' gradient is wanted.
    """

    def __init__(self, net: nn.Module, graphs: Graphs) -> None:
        super().__init__()
        self.net, self._graphs = net, graphs
        self.recordings: dict[tuple[int, bool], _Recorded] = {}
        self._works = True

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C), float32."""
        size = next((size for size in SIZES if size >= len(x)), None)
        if size is None or not len(x) or x.dtype != torch.float32 or not self._works:
            return self.net(x)
        gradient = torch.is_grad_enabled() and x.requires_grad
        if (size, gradient) not in self.recordings:
            try:
                made = _Recorded(self.net, self._graphs, x, size, gradient)
            except Exception as error:  # a library may refuse anything; the network itself works
                self._works = False
                text = f"attacks search more slowly: passes cannot be recorded ({error})"
                warnings.warn(Notice(text), stacklevel=2)
                return self.net(x)
            self.recordings[size, gradient] = made
        recording = self.recordings[size, gradient]
        if gradient:
            return _Passed.apply(x, recording)
        return recording.logits_of(x)


class _Recorded:
    """The pass of one batch size and, where it is wanted, the gradient of its images."""

    def __init__(
        self, net: nn.Module, graphs: Graphs, like: Tensor, size: int, gradient: bool
    ) -> None:
        # the first rows are real, so that nothing is tried on an image that cannot be
        rows = torch.arange(size, device=like.device).clamp_max(len(like) - 1)
        self._x = like.detach().index_select(0, rows).requires_grad_(gradient)
        self.turn = 0
        with torch.set_grad_enabled(gradient):
            for _ in range(2):
                with graphs.aside():
                    logits = net(self._x)
                    if gradient:
                        torch.autograd.grad(logits.sum(), self._x)
            self._logits, self._pass = graphs.record(lambda: net(self._x))
            if gradient:
                self._given = torch.zeros_like(self._logits)
                (self._gradient,), self._back = graphs.record(
                    lambda: torch.autograd.grad(self._logits, self._x, self._given)
                )

    @torch.no_grad()
    def logits_of(self, x: Tensor) -> Tensor:
        """Logits (B, C) of up to `size` images."""
        self.turn += 1
        self._x[: len(x)].copy_(x)
        self._pass()
        return self._logits[: len(x)].detach().clone()

    def gradient_of(self, given: Tensor, turn: int) -> Tensor:
        """Gradient of the images of the last pass, from that of their logits."""
        if turn != self.turn:
            raise RuntimeError("another pass came between a pass and its gradient")
        self._given.zero_()
        self._given[: len(given)].copy_(given)
        self._back()
        return self._gradient[: len(given)].clone()


class _Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, recording: _Recorded) -> Tensor:
        logits = recording.logits_of(x)
        ctx.recording, ctx.turn = recording, recording.turn
        return logits

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> tuple[Tensor, None]:
        return ctx.recording.gradient_of(given, ctx.turn), None
