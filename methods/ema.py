"""EMA: the network that is evaluated is a running average of the one that is trained.

    w_avg <- d w_avg + (1 - d) w     after every step, d = min(decay, (1 + t) / (10 + t)) at step t
    or, `per_epoch`, after every epoch with d = decay

Gowal et al. 2020 find it to help adversarial training; the growing d, so that the first weights are
soon forgotten, is a custom of the field. Running statistics are averaged like weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from ltrobust.errors import UserError
from ltrobust.method import Citation, Context, register_method
from ltrobust.modifier import Modifier

Weights = dict[str, Tensor]


def average(kept: Weights, present: Weights, decay: float) -> Weights:
    """decay * kept + (1 - decay) * present for every entry of two state dicts.

    Running statistics are averaged as well, and counters, whose fraction is cut off. An empty
    `kept` is the beginning: a copy of `present`. `kept` may be overwritten.
    """
    if not kept:
        return {name: value.detach().clone() for name, value in present.items()}
    names = list(present)
    old = [kept[name].to(present[name].device) for name in names]
    new = [present[name].detach() for name in names]
    real = [number for number, value in enumerate(new) if value.is_floating_point()]
    torch._foreach_mul_([old[i] for i in real], decay)
    torch._foreach_add_([old[i] for i in real], [new[i] for i in real], alpha=1 - decay)
    for i in set(range(len(names))) - set(real):
        old[i] = (decay * old[i].double() + (1 - decay) * new[i].double()).to(new[i].dtype)
    return dict(zip(names, old, strict=True))


def network_state(model: nn.Module) -> Weights:
    """The state dict of the network that a training model holds, or of a bare network."""
    return getattr(model, "net", model).state_dict()


@register_method(
    "ema",
    paper=Citation(
        authors="S. Gowal, C. Qin, J. Uesato, T. Mann, P. Kohli",
        title="Uncovering the Limits of Adversarial Training against Norm-Bounded Examples",
        venue="arXiv",
        year=2020,
        url="https://arxiv.org/abs/2010.03593",
    ),
    quirks=(
        "no released code is followed: the authors' is not part of any long-tailed comparison",
        "BatchNorm statistics are averaged, not measured anew for the averaged weights",
    ),
    passes="base",
)
@dataclass
class EMA(Modifier):
    """Gowal et al. 2020: evaluate the average of the weights.

    Attributes:
        decay: share of the average that a step keeps, in [0, 1).
        per_epoch: average once an epoch.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    per_epoch: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise UserError(f"option ema.decay must be at least 0 and below 1, not {self.decay}")
        self._average: Weights = {}
        self._steps = 0

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """What is due for the base, then the average takes the weights in."""
        self.base.after_step(model, x, y, x_adv, ctx)
        if not self.per_epoch:
            warm = (1 + self._steps) / (10 + self._steps)
            self._take_in(model, min(self.decay, warm))

    def on_epoch_end(self, ctx: Context) -> None:
        """What is due for the base, and the average of `per_epoch`."""
        self.base.on_epoch_end(ctx)
        if self.per_epoch and ctx.model is not None:
            self._take_in(ctx.model, self.decay)

    def weights(self) -> Weights | None:
        """The average; before the first step the base's."""
        return self._average or self.base.weights()

    def own_state(self) -> dict[str, Any]:
        """The average and the number of weights in it."""
        return {"average": self._average, "steps": self._steps}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take back what `own_state` returned."""
        self._average, self._steps = dict(state["average"]), int(state["steps"])

    def _take_in(self, model: nn.Module, decay: float) -> None:
        self._average = average(self._average, network_state(model), decay)
        self._steps += 1
