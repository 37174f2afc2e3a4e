"""Adversarial training with class-balanced weights on the focal loss.

    x' = argmax_{|x' - x| <= eps} CE(f(x'), y)                        (PGD, eval mode)
    L  = 1/B sum_b w_{y_b} focal_b,  w_c ~ (1 - beta) / (1 - beta^n_c),  sum_c w_c = C

Cui et al. 2019 ("effective number of samples"), under PGD-AT as RoBal compares it; focal_b
is the sigmoid focal loss of `at-focal`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.pgd_at import PGDAT, ROBAL_QUIRKS, robal_recipe
from torch import Tensor, nn

from ltrobust.losses import class_balanced_loss
from ltrobust.method import Citation, Context, register_method

CUI = Citation(
    authors="Y. Cui, M. Jia, T.-Y. Lin, Y. Song, S. Belongie",
    title="Class-Balanced Loss Based on Effective Number of Samples",
    venue="CVPR",
    year=2019,
    url="https://arxiv.org/abs/1901.05555",
)


@register_method(
    "at-cb",
    paper=CUI,
    recipe=robal_recipe(),
    quirks=(
        *ROBAL_QUIRKS,
        "RoBal's own table has it at 34.53 under PGD-20 but 29.01 under AutoAttack (PGD-AT 29.30 "
        "and 28.15): trust AutoAttack",
        "the weights are those of the true class and hold for all C outputs of an image",
    ),
    passes="K + 1",
)
@dataclass
class ATCB(PGDAT):
    """Cui et al. 2019 on PGD examples, as RoBal's repository compares it.

    Attributes:
        beta: of the effective number of images; 0 weighs all classes alike.
        gamma: focusing exponent.
    """

    beta: float = 0.9999
    gamma: float = 2.0

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The weighted focal losses."""
        losses = class_balanced_loss(
            model(x_adv), y, ctx.class_counts, beta=self.beta, gamma=self.gamma, reduction="none"
        )
        return {"attacked": losses}
