"""Deferred re-weighting: class-balanced weights in the last part of the training.

    before half of the epochs:  the base's loss
    afterwards:                 sum_b w_{y_b} L_b / sum_b w_{y_b}
    w_c ~ (1 - beta) / (1 - beta^n_c)

Cao et al. 2019, with the weights of Cui et al. 2019: features are learned from all
images alike first. For LDAM-DRW with a deferred margin, as RoBal's code has it, write `at-ldam+drw`
with the option `begin` of at-ldam at the same share.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.at_ldam import CAO, begun
from ltrobust.methods.pgd_at import robal_recipe
from torch import Tensor, nn

from ltrobust.losses import class_balanced_weights
from ltrobust.method import Context, Method, register_method
from ltrobust.modifier import Modifier


@register_method(
    "drw",
    paper=CAO,
    recipes={"at-ldam": robal_recipe(begin=0.5)},
    quirks=(
        "RoBal has code for it (weights and margin from epoch 40 of 80) and reports no numbers",
        "without a paper on bases other than plain or margin losses: all terms of an image's loss "
        "are weighted alike",
    ),
    passes="base",
)
@dataclass
class DRW(Modifier):
    """Cao et al. 2019 around any defense whose loss is a mean over images.

    Attributes:
        begin: share of the epochs after which the weights act.
        beta: of the effective number of images; 0 weighs all classes alike.
    """

    begin: float = 0.5
    beta: float = 0.9999

    @classmethod
    def refuses(cls, base: Method) -> str | None:
        """Bases whose loss is no mean over images."""
        if base.has_terms():
            return None
        return f"drw weighs images, and the loss of {base.name} is no mean over images"

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The base's terms, times the weight of each image's class over the batch's mean weight."""
        terms = self.base.terms(model, x, y, x_adv, ctx)
        if not begun(ctx, self.begin):
            return terms
        weights = class_balanced_weights(ctx.class_counts, x, beta=self.beta)[y]
        weights = weights / weights.mean()
        return {name: weights * term for name, term in terms.items()}
