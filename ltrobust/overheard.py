"""The logits of attacked images, overheard where a defense computes them for its loss.

Modifiers that weigh images by how the network answers need no forward pass of their own then,
which would cost time and move batch statistics once more.
"""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_logits


class Overheard(nn.Module):
    """A network that remembers what it answered to `x_adv`.

    Hand it to the loss of a defense in place of the network.

    Args:
        model: maps images to logits (B, C).
        x_adv: the attacked images (B, ...), known again as this very tensor.
        first: pass them at once, before what the defense passes: the order of the passes decides
            where running statistics end.
    """

    def __init__(self, model: nn.Module, x_adv: Tensor, *, first: bool = False) -> None:
        super().__init__()
        self._model = [model]  # in a list, so that it is no part of this module
        self._x_adv = x_adv
        self._known: Tensor | None = model(x_adv) if first else None
        self._keep = first
        self.passed: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, C)."""
        if x is self._x_adv and self._keep and self._known is not None:
            return self._known
        self.passed.append(x)
        logits = cast(Tensor, self._model[0](x))
        if x is self._x_adv:
            self._known = logits
        return logits

    def __getattr__(self, name: str) -> Any:
        """Whatever else a defense uses of the network, such as `features`, is the network's."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self._model[0], name)

    def attacked(self) -> Tensor:
        """Logits of the attacked images (B, C), detached; a defense that never asked costs a pass.

        That pass is in eval mode, which moves no statistics.
        """
        if self._known is None:
            self._known = attack_logits(self._model[0], self._x_adv)
        return self._known.detach()
