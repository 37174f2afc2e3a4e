"""TRADES with the balanced softmax on clean images; a combination without a paper.

    x' = argmax_{|x' - x| <= eps} KL(softmax f(x) || softmax f(x'))     (PGD, eval mode)
    L  = CE(f(x) + log n, y) + beta * KL(stop(softmax f(x)) || softmax f(x')) / B

Only a third party (CGRm's baselines) publishes code for it; the divergence there is on the raw
logits and its clean side is detached. n_c is the number of training images of class c.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.trades import RECIPE, TRADES, TRADES_PAPER
from torch import Tensor, nn

from ltrobust.losses import balanced_softmax_loss, trades_kl
from ltrobust.method import Context, register_method


@register_method(
    "trades-bsl",
    paper=TRADES_PAPER,
    recipe=RECIPE,
    quirks=("no paper: a combination in CGRm's baselines, under TRADES' recipe here",),
    passes="K + 3",
    aliases=("at-bsl-trades",),
)
@dataclass
class TradesBSL(TRADES):
    """TRADES with the balanced softmax (third party, no paper).

    Attributes:
        beta: weight of the divergence.
        repeat_clean: as in TRADES.
    """

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """Balanced softmax of clean images, and beta times the divergence from them."""
        clean = model(x)
        attacked = model(x_adv)
        target = (model(x) if self.repeat_clean else clean).detach()
        return {
            "natural": balanced_softmax_loss(clean, y, ctx.class_counts, reduction="none"),
            "consistency": self.beta * trades_kl(target, attacked, reduction="none"),
        }
