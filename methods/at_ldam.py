"""Adversarial training with label-distribution-aware margins (LDAM).

    x' = argmax_{|x' - x| <= eps} CE(f(x'), y)                 (PGD, eval mode)
    L  = CE(s (f(x') - m_y 1_y), y),  m_c = max_m (n_min / n_c)^(1/4)

Cao et al. 2019, under PGD-AT as RoBal compares it. With `begin` the margins are deferred:
before that share of the epochs they are 0, which `at-ldam+drw` combines with deferred weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.pgd_at import PGDAT, ROBAL_QUIRKS, robal_recipe
from torch import Tensor, nn

from ltrobust.losses import ldam_loss
from ltrobust.method import Citation, Context, register_method

CAO = Citation(
    authors="K. Cao, C. Wei, A. Gaidon, N. Arechiga, T. Ma",
    title="Learning Imbalanced Datasets with Label-Distribution-Aware Margin Loss",
    venue="NeurIPS",
    year=2019,
    url="https://arxiv.org/abs/1906.07413",
)


def begun(ctx: Context, share: float) -> bool:
    """Whether a stage that begins after this share of the epochs is on.

    As in the released code, epoch number share * epochs, counted from 1, is its first.
    """
    return ctx.epoch + 1 >= round(share * ctx.epochs)


@register_method(
    "at-ldam",
    paper=CAO,
    recipe=robal_recipe(),
    quirks=(
        *ROBAL_QUIRKS,
        "released with s 1 on logits that are not normalised, where the paper has s 30 on cosines: "
        "a margin of at most 0.5 is small against such logits; s and max_m are options",
        "the paper's own form is deferred (DRW); RoBal has code for it and reports plain LDAM",
    ),
    passes="K + 1",
)
@dataclass
class ATLDAM(PGDAT):
    """Cao et al. 2019 on PGD examples, as RoBal's repository compares it.

    Attributes:
        max_m: margin of the smallest class.
        s: scale of the logits after the margin.
        begin: share of the epochs before which there is no margin.
    """

    max_m: float = 0.5
    s: float = 1.0
    begin: float = 0.0

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE(s (f(x') - m_y 1_y), y)."""
        margin = self.max_m if begun(ctx, self.begin) else 0.0
        losses = ldam_loss(
            model(x_adv), y, ctx.class_counts, max_m=margin, s=self.s, reduction="none"
        )
        return {"attacked": losses}
