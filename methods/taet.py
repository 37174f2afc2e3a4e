"""TAET: plain training first, then adversarial training that equalises the classes.

    epochs before round(0.4 E):  L = CE(f(x), y), no attack
    afterwards:                  x' = argmax CE(f(x'), y)   (PGD, eval mode)
                                 L  = alpha mean_c l_c + beta mean_c (l_c - mean l)^2
                                      + gamma sum_c (l_c / sum l)^2

l_c is the mean cross-entropy of class c in the batch; all weights are 0.1. The second
loss is HARL, with a balanced, a hierarchical and a rare-class term (Wang et al. 2025).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.config import Recipe, TrainingAttack
from ltrobust.losses import harl_loss
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.training.schedule import Schedule


@register_method(
    "taet",
    paper=Citation(
        authors="Y.-H. Wang, J. Guo, A. Liu, K. Wang, Z. Wu, Z. Liu, W. Yin, J. Liu",
        title="TAET: Two-Stage Adversarial Equalization Training on Long-Tailed Distributions",
        venue="CVPR",
        year=2025,
        url="https://arxiv.org/abs/2503.01924",
    ),
    recipe=PaperRecipe(
        arch="resnet50-224",
        recipe=Recipe(
            epochs=100,
            batch_size=128,
            lr=0.1,
            momentum=0.9,
            nesterov=False,
            weight_decay=5e-4,
            schedule=Schedule(
                kind="multistep", milestones=(75, 90), counted_from=0, published_epochs=100
            ),
            attack=TrainingAttack(eps=0.031, step_size=0.003, steps=10, start="gaussian"),
            drop_last=False,
        ),
        options={"count_absent": True, "wasted_clean": True},
        source="BuhuiOK/TAET @ a374adf, code/TAET/TAET.ipynb",
        test_set="long-tailed by the same ratio as training",
    ),
    quirks=(
        "count_absent: classes absent from a batch have loss 0 and still count in every class "
        "mean, which shrinks the loss and pulls the mean down",
        "wasted_clean: an unused train-mode pass of the clean batch before every attacked step, "
        "and a second clean pass in the CE stage; each moves the BatchNorm statistics once more",
        "ten steps of 0.003 reach 0.030, short of eps 0.031",
        "the attack starts from 0.001 * N(0, 1), whatever eps is",
        "images are enlarged to 224 px and attacked there, with torchvision's ImageNet resnet50",
        "HARL is about ten times smaller than the cross-entropy before it; the rate stays",
    ),
    passes="K + 1",
)
@dataclass
class TAET(Method):
    """Wang et al. 2025.

    Attributes:
        alpha: weight of the balanced class loss.
        beta: weight of the hierarchical term, the variance of the class losses.
        gamma: weight of the rare-class term.
        ce_fraction: share of the epochs trained with plain cross-entropy first.
        count_absent: let classes absent from the batch count with loss 0, as the code does.
        wasted_clean: the code's unused clean passes.
    """

    alpha: float = 0.1
    beta: float = 0.1
    gamma: float = 0.1
    ce_fraction: float = 0.4
    count_absent: bool = False
    wasted_clean: bool = False

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Nothing in the first stage; PGD on cross-entropy in the second."""
        if self.wasted_clean:
            with torch.no_grad():
                model(x)
        if self._first_stage(ctx):
            return x
        return super().attack(model, x, y, ctx)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """CE on clean images, then HARL on attacked ones."""
        if self._first_stage(ctx):
            return F.cross_entropy(model(x), y)
        return harl_loss(
            model(x_adv),
            y,
            alpha=self.alpha,
            beta=self.beta,
            gamma=self.gamma,
            count_absent=self.count_absent,
        )

    def stage(self, ctx: Context) -> bool:
        """Which of the two."""
        return self._first_stage(ctx)

    def _first_stage(self, ctx: Context) -> bool:
        return ctx.epoch < round(self.ce_fraction * ctx.epochs)
