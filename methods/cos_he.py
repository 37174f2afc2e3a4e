"""HE as RoBal's repository builds it: a cosine head at scale 1, and margin and scale in the loss.

    f(x) = <h / ||h||, w_c / ||w_c||>              (cosines)
    x'   = argmax_{|x' - x| <= eps} CE(f(x'), y)   (PGD, eval mode)
    L    = CE(s (f(x') - m 1_y), y),               s = 10, m = 0.2

Wu et al. 2021 compare with it under the name of hypersphere embedding; that of its authors is he,
whose attack sees the scale.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.pgd_at import ROBAL_QUIRKS, ROBAL_RECIPE, ROBAL_SOURCE, ROBAL_SOURCES
from ltrobust.methods.robal import PAPER
from torch import Tensor, nn

from ltrobust.losses import unimargin_loss
from ltrobust.method import Context, Method, PaperRecipe, register_method
from ltrobust.models.heads import CosineHead


@register_method(
    "cos-he",
    paper=PAPER,
    recipe=PaperRecipe(
        arch="wrn-34-10", recipe=ROBAL_RECIPE, source=ROBAL_SOURCE, sources=ROBAL_SOURCES
    ),
    quirks=(
        *ROBAL_QUIRKS,
        "the attack, in training and in evaluation, sees cosines in [-1, 1], so its cross-entropy "
        "is nearly flat: weaker gradients than HE's own; trust AutoAttack",
    ),
    passes="K + 1",
)
@dataclass
class CosHE(Method):
    """Cosine head with a margin, which RoBal's repository calls HE.

    Attributes:
        s: factor of the cosines in the loss.
        m: margin off the true class's cosine.
    """

    s: float = 10.0
    m: float = 0.2

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """Cosine head at scale 1."""
        return CosineHead(in_features, num_classes, gamma=0)

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """Cross-entropy of scaled cosines with the margin."""
        return {"attacked": unimargin_loss(model(x_adv), y, m=self.m, s=self.s, reduction="none")}
