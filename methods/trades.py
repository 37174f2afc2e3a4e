"""TRADES: trade clean accuracy against agreement between clean and attacked predictions.

    x' = argmax_{|x' - x| <= eps} KL(softmax f(x) || softmax f(x'))     (PGD, eval mode)
    L  = CE(f(x), y) + beta * KL(softmax f(x) || softmax f(x')) / B,    beta = 6

Zhang et al. 2019. The clean side of the divergence is not detached.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_logits
from ltrobust.config import Recipe, TrainingAttack
from ltrobust.losses import trades_kl
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.training.schedule import Schedule

TRADES_PAPER = Citation(
    authors="H. Zhang, Y. Yu, J. Jiao, E. P. Xing, L. El Ghaoui, M. I. Jordan",
    title="Theoretically Principled Trade-off between Robustness and Accuracy",
    venue="ICML",
    year=2019,
    url="https://arxiv.org/abs/1901.08573",
)

RECIPE = PaperRecipe(
    arch="wrn-34-10",
    recipe=Recipe(
        epochs=76,
        batch_size=128,
        lr=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=2e-4,
        schedule=Schedule(
            kind="multistep", milestones=(75, 90, 100), counted_from=1, published_epochs=76
        ),
        attack=TrainingAttack(eps=0.031, step_size=0.007, steps=10, start="gaussian"),
        drop_last=False,
    ),
    options={"repeat_clean": True},
    source="yaodongyu/TRADES @ 6e8e11b, train_trades_cifar10.py",
    test_set="balanced (the paper has no long-tailed runs; RoBal's authors ran it on one)",
)


@register_method(
    "trades",
    paper=TRADES_PAPER,
    recipe=RECIPE,
    quirks=(
        "the attack starts from 0.001 * N(0, 1), whatever eps is",
        "repeat_clean: three train-mode passes (clean, attacked, clean again), so that clean "
        "images move the BatchNorm statistics twice",
        "of the decays at epochs 75, 90 and 100 only the first falls within its 76 epochs",
        "attacked_first: the attacked images pass before the clean ones, as in the released code "
        "of AWP; the BatchNorm statistics end elsewhere, the loss does not",
        "detached: the clean side of the divergence carries no gradient, as in the third-party "
        "versions of CGRm",
    ),
    passes="K + 3",
)
@dataclass
class TRADES(Method):
    """Zhang et al. 2019.

    Attributes:
        beta: weight of the divergence; 6 in the paper and the code.
        repeat_clean: pass the clean batch a second time for the divergence, as the code does.
        attacked_first: pass the attacked images first.
        detached: take the clean side of the divergence as a constant.
    """

    beta: float = 6.0
    repeat_clean: bool = False
    attacked_first: bool = False
    detached: bool = False

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Maximise the divergence from the clean prediction, which no step changes."""
        return ctx.pgd(model, x, y, _divergence, attack_logits(model, x, ctx.mode))

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE on clean images plus beta times the divergence."""
        first = model(x_adv) if self.attacked_first else None
        clean = model(x)
        attacked = model(x_adv) if first is None else first
        target = model(x) if self.repeat_clean else clean
        target = target.detach() if self.detached else target
        return {
            "natural": F.cross_entropy(clean, y, reduction="none"),
            "consistency": self.beta * trades_kl(target, attacked, reduction="none"),
        }


def _divergence(logits: Tensor, _labels: Tensor, clean: Tensor) -> Tensor:
    """The divergence from the clean prediction, summed over the images."""
    return trades_kl(clean, logits) * len(logits)
