"""Adversarial training with logit adjustment: the class bias as a trick of its own.

    x' = argmax_{|x' - x| <= eps} CE(f(x'), y)                 (PGD, eval mode)
         or, with `inner`, CE(f(x') + tau log p, y)
    L  = CE(f(x') + tau log p, y)

Menon et al. 2021, under PGD-AT as RoBal compares it; p_c is the share of class c in the
training images. At tau = 1 the loss is the balanced softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.pgd_at import PGDAT, ROBAL_QUIRKS, robal_recipe
from torch import Tensor, nn

from ltrobust.losses import logit_adjusted_loss
from ltrobust.losses.counts import log_prior
from ltrobust.method import Citation, Context, cross_entropy_sum, register_method
from ltrobust.models.heads import frozen_bias_linear

MENON = Citation(
    authors="A. K. Menon, S. Jayasumana, A. S. Rawat, H. Jain, A. Veit, S. Kumar",
    title="Long-tail learning via logit adjustment",
    venue="ICLR",
    year=2021,
    url="https://arxiv.org/abs/2007.07314",
)


@register_method(
    "at-la",
    paper=MENON,
    recipe=robal_recipe(frozen_bias=True),
    quirks=(
        *ROBAL_QUIRKS,
        "frozen_bias: the last layer keeps the random bias that it began with, up to "
        "1/sqrt(features) in size, which no class prior corrects",
        "inner: RoBal's code also has a mode with the bias in the attack",
    ),
    passes="K + 1",
)
@dataclass
class ATLA(PGDAT):
    """Menon et al. 2021 on PGD examples, as RoBal's repository compares it ("class bias").

    Attributes:
        tau: weight of the log prior.
        inner: maximise the adjusted loss in the attack as well.
        frozen_bias: keep the random initial bias of the last layer, as the code does.
    """

    tau: float = 1.0
    inner: bool = False
    frozen_bias: bool = False

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """A linear layer."""
        build = frozen_bias_linear if self.frozen_bias else nn.Linear
        return build(in_features, num_classes)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """PGD on the cross-entropy, with or without the prior."""
        if not self.inner:
            return super().attack(model, x, y, ctx)
        shift = self.tau * log_prior(ctx.class_counts, x)
        return ctx.pgd(model, x, y, lambda z, labels: cross_entropy_sum(z + shift, labels))

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE(f(x') + tau log p, y)."""
        logits, counts = model(x_adv), ctx.class_counts
        adjusted = logit_adjusted_loss(logits, y, counts, tau=self.tau, reduction="none")
        return {"attacked": adjusted}
