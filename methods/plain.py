"""Plain training on clean images, without any attack: what adversarial training is measured by.

    L = CE(f(x), y)

The first row of RoBal's main table. The published recipe is that of RoBal's repository.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from ltrobust.methods.pgd_at import ROBAL_RECIPE, ROBAL_SOURCE, ROBAL_SOURCES
from ltrobust.methods.robal import PAPER
from torch import Tensor, nn

from ltrobust.method import Context, Method, PaperRecipe, register_method


@register_method(
    "plain",
    paper=PAPER,
    recipe=PaperRecipe(
        arch="wrn-34-10", recipe=ROBAL_RECIPE, source=ROBAL_SOURCE, sources=ROBAL_SOURCES
    ),
    quirks=(
        "the rate is multiplied again in every epoch from 60 on, so learning ends at about "
        "epoch 62",
        "the recipe is the one that RoBal's repository trains its adversarial baselines with; its "
        "attack is not used",
    ),
    passes="1",
)
@dataclass
class Plain(Method):
    """Cross-entropy on clean images, as in Wu et al. 2021's tables; no options."""

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """None: the images as they are."""
        return x

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE(f(x), y)."""
        return {"natural": F.cross_entropy(model(x), y, reduction="none")}
