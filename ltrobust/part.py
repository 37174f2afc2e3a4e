"""A small network that a method trains beside the classifier: a generator, a strategy network."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust.context import Context

Optimize = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]


class Part:
    """A network with an optimizer of its own, both of which are saved and resumed with the run.

    It is built at its first use, when the images' shape and device are known. Its first weights are
    drawn from the run's seed.

    Args:
        make: builds the network for images like those given.
        optimize: builds the optimizer of its parameters.
    """

    def __init__(self, make: Callable[[Tensor], nn.Module], optimize: Optimize) -> None:
        self._make, self._optimize = make, optimize
        self._kept: dict[str, Any] = {}
        self.net: nn.Module | None = None
        self.optimizer: torch.optim.Optimizer | None = None

    def ready(self, x: Tensor, ctx: Context) -> nn.Module:
        """The network, in train mode; built like `x` (B, ...) if this is its first use."""
        if self.net is None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**62, (), generator=ctx.sampling)))
                self.net = self._make(x).to(x).train()
            self.optimizer = self._optimize(self.net.parameters())
            if self._kept:
                self.net.load_state_dict(self._kept["net"])
                self.optimizer.load_state_dict(self._kept["optimizer"])
        return self.net

    def zero_grad(self) -> None:
        """Forget the gradients."""
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Take the optimizer's step."""
        if self.optimizer is not None:
            self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Weights and the optimizer's state; empty before the first use."""
        if self.net is None or self.optimizer is None:
            return dict(self._kept)
        return {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned, at once or at the first use."""
        self._kept = state
        if self.net is not None and self.optimizer is not None and state:
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
