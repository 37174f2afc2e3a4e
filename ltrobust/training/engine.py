"""How a network is run during training: precision, memory format, and counts of right answers.

A defense sees an ordinary module that maps images to float32 logits; it never meets autocast or
channels_last. In eval mode with frozen parameters, that is inside attacks, a folded view of the
network computes the same function faster: between two optimizer steps its weights do not change.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from ltrobust.models import Network
from ltrobust.models.folded import FoldedNetwork, fold
from ltrobust.training.recompute import recomputed, repeated_blocks


class TrainingModel(nn.Module):
    """A network behind the run's precision.

    It also counts, without a forward pass of its own, how many adversarial images of the epoch
    were classified correctly in the defense's train-mode passes.

    Args:
        net: maps images to logits; its parameters are trained in place.
        precision: "fp32", or "bf16" for autocast with float32 weights.
        grad_checkpointing: compute the activations of the network's blocks a second time in
            backward passes instead of keeping them; results are the same.
    """

    def __init__(self, net: Network, precision: str, *, grad_checkpointing: bool = False) -> None:
        super().__init__()
        self.net: Network = net.to(memory_format=torch.channels_last)
        self.bf16 = precision == "bf16"
        self._blocks = repeated_blocks(net) if grad_checkpointing else ()
        # lists hide them from .parameters(): their weights are the network's own
        self._folded: list[FoldedNetwork] = []
        self._foldable = True
        self._stale = True
        self._watched: Tensor | None = None
        self._labels: Tensor | None = None
        self._right: Tensor | None = None
        self.seen = 0  # images counted since the last `take_accuracy`

    def watch(self, x_adv: Tensor | None, y: Tensor | None) -> None:
        """Count right answers whenever the tensor `x_adv` itself passes in train mode."""
        self._watched, self._labels = x_adv, y

    def take_accuracy(self) -> float:
        """Return the share of right answers since the last call (nan if none), and reset it."""
        if self._right is None or not self.seen:
            return float("nan")
        accuracy = float(self._right) / self.seen
        self._right.zero_()
        self.seen = 0
        return accuracy

    def features(self, x: Tensor) -> Tensor:
        """Input of the last layer, (B, D), in the dtype of `x`."""
        return self._run(self.net.features, x)

    @property
    def head(self) -> nn.Module:
        """The last layer."""
        return self.net.head

    def train(self, mode: bool = True) -> TrainingModel:
        """Set the mode; whatever follows a change to eval mode sees the present weights."""
        self._stale = True
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C) in the dtype of `x`."""
        folded = None if self.training or self._wants_gradients() else self._fresh_view(x)
        logits = self._run(self.net, x) if folded is None else folded(x).to(x.dtype)
        self._count(x, logits)
        return logits

    def with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the last layer (B, D) and logits (B, C) of one pass, in the dtype of `x`."""
        features = self.features(x)
        logits: Tensor = self.head(features)
        self._count(x, logits)
        return features, logits

    def _count(self, x: Tensor, logits: Tensor) -> None:
        """Count right answers if it is the watched tensor that passed."""
        if self.training and x is self._watched and self._labels is not None:
            if self._right is None:
                self._right = torch.zeros((), dtype=torch.int64, device=x.device)
            self._right += (logits.detach().argmax(1) == self._labels).sum()  # where it is
            self.seen += len(x)

    def _wants_gradients(self) -> bool:
        """Whether this pass must reach the parameters, as it need not inside attacks."""
        return torch.is_grad_enabled() and any(p.requires_grad for p in self.net.parameters())

    def _fresh_view(self, x: Tensor) -> FoldedNetwork | None:
        """The folded view with the present weights; None for a network that cannot be folded."""
        if not self._folded and self._foldable:
            with torch.no_grad():
                found = fold(self.net, x[:4].detach().float(), bf16=self.bf16)
            self._foldable = found is not None
            self._folded = [] if found is None else [found]
        elif self._folded and self._stale:
            self._folded[0].refresh()
        self._stale = False
        return self._folded[0] if self._folded else None

    def _run(self, part: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        precision = torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=self.bf16)
        with precision, self._recomputing():
            return part(x.contiguous(memory_format=torch.channels_last)).to(x.dtype)

    def _recomputing(self) -> AbstractContextManager[None]:
        """Where the activations of blocks need not be kept: in passes that train the weights."""
        if self._blocks and self.training and torch.is_grad_enabled():
            return recomputed(self._blocks)
        return nullcontext()
