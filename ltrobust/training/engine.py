"""How a network is run during training: precision, memory format, and counts of right answers.

A defense sees an ordinary module that maps images to float32 logits; it never meets autocast or
channels_last.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ltrobust.models import Network


class TrainingModel(nn.Module):
    """A network behind the run's precision.

    It also counts, without a forward pass of its own, how many adversarial images of the epoch
    were classified correctly in the defense's train-mode passes.

    Args:
        net: maps images to logits; its parameters are trained in place.
        precision: "fp32", or "bf16" for autocast with float32 weights.
    """

    def __init__(self, net: Network, precision: str) -> None:
        super().__init__()
        self.net: Network = net.to(memory_format=torch.channels_last)
        self.bf16 = precision == "bf16"
        self._watched: Tensor | None = None
        self._labels: Tensor | None = None
        self._right: Tensor | float = 0.0
        self._seen = 0

    def watch(self, x_adv: Tensor | None, y: Tensor | None) -> None:
        """Count right answers whenever the tensor `x_adv` itself passes in train mode."""
        self._watched, self._labels = x_adv, y

    def take_accuracy(self) -> float:
        """Return the share of right answers since the last call (nan if none), and reset it."""
        accuracy = float(self._right) / self._seen if self._seen else float("nan")
        self._right, self._seen = 0.0, 0
        return accuracy

    def features(self, x: Tensor) -> Tensor:
        """Input of the last layer, (B, D), in the dtype of `x`."""
        return self._run(self.net.features, x)

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.net.head

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C) in the dtype of `x`."""
        logits = self._run(self.net, x)
        if self.training and x is self._watched and self._labels is not None:
            self._right = self._right + (logits.detach().argmax(1) == self._labels).sum()
            self._seen += len(x)
        return logits

    def _run(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            return part(x.contiguous(memory_format=torch.channels_last)).to(x.dtype)
