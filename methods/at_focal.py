"""Adversarial training with the focal loss over all C sigmoid outputs.

    x' = argmax_{|x' - x| <= eps} CE(f(x'), y)                        (PGD, eval mode)
    L  = -1/B sum_b sum_c (1 - q_bc)^gamma log q_bc
    q_bc = sigmoid(f_c(x')) if c = y, else sigmoid(-f_c(x'))

Lin et al. 2017, under PGD-AT as RoBal compares it. The bias begins at the classes' log odds
so that the many easy negatives do not swamp the first epochs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ltrobust.methods.pgd_at import PGDAT, ROBAL_QUIRKS, ROBAL_RECIPE, robal_recipe
from torch import Tensor, nn

from ltrobust.losses import focal_loss
from ltrobust.method import Citation, Context, register_method
from ltrobust.models.heads import prior_log_odds
from ltrobust.training.schedule import Schedule

WARM_UP = Schedule(
    kind="robal-compounding",
    milestones=(60, 75),
    counted_from=1,
    warmup_epochs=5,
    published_epochs=80,
)


@register_method(
    "at-focal",
    paper=Citation(
        authors="T.-Y. Lin, P. Goyal, R. Girshick, K. He, P. Dollar",
        title="Focal Loss for Dense Object Detection",
        venue="ICCV",
        year=2017,
        url="https://arxiv.org/abs/1708.02002",
    ),
    recipe=robal_recipe(ROBAL_RECIPE.model_copy(update={"schedule": WARM_UP})),
    quirks=(
        *ROBAL_QUIRKS,
        "the 5 epochs of warm-up compound as well: the rate is 0.0192, not 0.1, from epoch 3 to 59",
    ),
    passes="K + 1",
)
@dataclass
class ATFocal(PGDAT):
    """Lin et al. 2017 on PGD examples, as RoBal's repository compares it.

    Attributes:
        gamma: focusing exponent.
        prior_bias: begin with the log odds of the classes as the bias.
    """

    gamma: float = 2.0
    prior_bias: bool = True

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """A linear layer, its bias at the log odds."""
        head = nn.Linear(in_features, num_classes)
        if self.prior_bias:
            with torch.no_grad():
                head.bias.copy_(prior_log_odds(self.class_counts.clamp_min(1)))
        return head

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The focal losses of an image's C outputs, summed."""
        return {"attacked": focal_loss(model(x_adv), y, gamma=self.gamma, reduction="none")}
