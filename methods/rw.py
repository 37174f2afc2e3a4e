"""One epoch of class-balanced re-weighting on a trained network.

    x' = the base's attack
    L  = 1/B sum_b w_{y_b} focal_b(f(x')),  w_c ~ (1 - beta) / (1 - beta^n_c)
    one epoch, the whole network, rate 0.1

RoBal's "1-epoch re-weighting fine-tune" with the loss of Cui et al. 2019 (as `at-cb`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ltrobust.methods.at_cb import CUI
from ltrobust.methods.crt import stage
from torch import Tensor, nn

from ltrobust.config import Recipe
from ltrobust.losses import class_balanced_loss
from ltrobust.method import Context, register_method
from ltrobust.models import Network
from ltrobust.modifier import PostHoc


@register_method(
    "rw",
    paper=CUI,
    quirks=(
        "the configuration lacks the entry (lr_dict) that keeps the features fixed in the "
        "re-sampling fine-tune: the whole network trains at rate 0.1, far above "
        "the rate that its base ended with; head_only is the other reading",
    ),
    passes="base",
)
@dataclass
class RW(PostHoc):
    """Cui et al. 2019's weights on a robust network for an epoch, as RoBal compares it.

    Attributes:
        epochs: how long.
        lr: learning rate.
        head_only: train the last layer alone.
        beta: of the effective number of images.
        gamma: focusing exponent.
    """

    epochs: int = 1
    lr: float = 0.1
    head_only: bool = False
    beta: float = 0.9999
    gamma: float = 2.0

    def fine_tuning(self, recipe: Recipe) -> Recipe:
        """One epoch unless more are asked for."""
        return stage(recipe, self.epochs, self.lr)

    def trainable(self, net: Network) -> Iterable[nn.Parameter]:
        """The whole network, or its last layer."""
        part = net.head if self.head_only else net
        return (p for p in part.parameters() if p.requires_grad)

    def has_terms(self) -> bool:
        """Its own loss is told image by image, whatever the base's is."""
        return True

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The weighted focal losses of what the base attacks."""
        losses = class_balanced_loss(
            model(x_adv), y, ctx.class_counts, beta=self.beta, gamma=self.gamma, reduction="none"
        )
        return {"attacked": losses}
