"""Adversarial training with a de-confounded cosine classifier (total direct effect, TDE).

    train:  f(x) = (scale / K) sum_k <x_k, w_k / (||w_k|| + gamma)>,  x_k = h_k / ||h_k||
    eval:   x_k is replaced by x_k - alpha cos(x_k, d_k) d_k
    d  <-   mu d + mean of the batch's x                       (train mode)
    x'   =  argmax_{|x' - x| <= eps} CE(f(x'), y)              (PGD, eval mode)
    L    =  CE(f(x'), y)

Tang et al. 2020, under PGD-AT as RoBal compares it: the direction d that momentum
gives to all features leans to frequent classes and is taken away at inference. The attack of the
training is in eval mode and so meets the de-biased branch, while the loss is that of the other. For
a plain training that is de-biased afterwards write `at-cosine+tde`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.at_cosine import ATCosine
from ltrobust.methods.pgd_at import ROBAL_QUIRKS, robal_recipe
from torch import nn

from ltrobust.method import Citation, register_method
from ltrobust.models.cosine_heads import TDEHead

TANG = Citation(
    authors="K. Tang, J. Huang, H. Zhang",
    title="Long-Tailed Classification by Keeping the Good and Removing the Bad Momentum Causal "
    "Effect",
    venue="NeurIPS",
    year=2020,
    url="https://arxiv.org/abs/2009.12991",
)
TDE_QUIRKS = (
    "unit_direction: RoBal's code subtracts along the moving sum itself, about 10 times the mean "
    "feature at mu 0.9, where Tang divides it by its norm, so that its alpha 0.1 acts about as "
    "strongly as 1; released alpha 0.1 with the sum, Tang's 1 to 3 with the unit direction",
    "RoBal's training attacks the de-biased branch already, while its loss is that of the other",
    "groups: Tang splits features and weights into 2 groups with scale 16 / 2; RoBal's has one",
    "Tang's code sums features that are not normalised, with momentum 0.9 in the first epoch and "
    "1 - 0.1 lr later; RoBal's, as here, unit features with 0.9",
)


@register_method(
    "at-tde",
    paper=TANG,
    recipe=robal_recipe(unit_direction=False, alpha=0.1),
    quirks=(*ROBAL_QUIRKS, *TDE_QUIRKS),
    passes="K + 1",
)
@dataclass
class ATTDE(ATCosine):
    """Tang et al. 2020 on PGD examples, as RoBal's repository compares it.

    Attributes:
        scale: factor of the cosine.
        gamma: added to the norms of the weights.
        alpha: how much of the direction is taken away.
        mu: momentum of the direction.
        groups: K, parts that features and weights are split into.
        unit_direction: divide the direction by its norm; the code of RoBal does not.
    """

    gamma: float = 1 / 32
    alpha: float = 1.0
    mu: float = 0.9
    groups: int = 1
    unit_direction: bool = True

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """A cosine head with two branches."""
        return TDEHead(
            in_features,
            num_classes,
            scale=self.scale,
            gamma=self.gamma,
            alpha=self.alpha,
            mu=self.mu,
            groups=self.groups,
            unit=self.unit_direction,
        )
