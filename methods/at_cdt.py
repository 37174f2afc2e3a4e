"""Adversarial training with class-dependent temperatures (CDT).

    x' = argmax_{|x' - x| <= eps} CE(f(x'), y)                 (PGD, eval mode)
    L  = CE(f(x') / a, y),  a_c = (n_max / n_c)^tau

Ye et al. 2020, under PGD-AT as RoBal compares it. At inference the logits are as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.pgd_at import PGDAT, ROBAL_QUIRKS, robal_recipe
from torch import Tensor, nn

from ltrobust.losses import cdt_loss
from ltrobust.method import Citation, Context, register_method

YE = Citation(
    authors="H.-J. Ye, H.-Y. Chen, D.-C. Zhan, W.-L. Chao",
    title="Identifying and Compensating for Feature Deviation in Imbalanced Deep Learning",
    venue="arXiv",
    year=2020,
    url="https://arxiv.org/abs/2001.01385",
)


@register_method(
    "at-cdt",
    paper=YE,
    recipe=robal_recipe(),
    quirks=(*ROBAL_QUIRKS, "the attack sees logits without the temperatures"),
    passes="K + 1",
)
@dataclass
class ATCDT(PGDAT):
    """Ye et al. 2020 on PGD examples, as RoBal's repository compares it.

    Attributes:
        tau: exponent of the counts.
    """

    tau: float = 0.3

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE(f(x') / a, y)."""
        losses = cdt_loss(model(x_adv), y, ctx.class_counts, tau=self.tau, reduction="none")
        return {"attacked": losses}
