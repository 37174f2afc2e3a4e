"""PGD adversarial training: train on the images that fool the network most.

    x' = argmax_{|x' - x| <= eps} CE(f(x'), y)     (PGD, eval mode)
    L  = CE(f(x'), y)

Madry et al. 2018. It knows nothing of class counts and is the baseline of the field. The
published recipe is that of RoBal's repository, whose long-tailed PGD-AT figures all papers quote.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.config import Recipe, TrainingAttack
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.training.schedule import Schedule

MADRY = Citation(
    authors="A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu",
    title="Towards Deep Learning Models Resistant to Adversarial Attacks",
    venue="ICLR",
    year=2018,
    url="https://arxiv.org/abs/1706.06083",
)

ROBAL_RECIPE = Recipe(
    epochs=80,
    batch_size=64,
    lr=0.1,
    momentum=0.9,
    nesterov=False,
    weight_decay=2e-4,
    schedule=Schedule(
        kind="robal-compounding", milestones=(60, 75), counted_from=1, published_epochs=80
    ),
    attack=TrainingAttack(eps=0.031, step_size=0.0078, steps=5, start="one-sided"),
)
"""RoBal's repository trains its baselines and RoBal alike with this."""

ROBAL_SOURCE = "wutong16/Adversarial_Long-Tail @ ab2f3a7, configuration"
ROBAL_SOURCES = {
    "schedule": "the same, train.py adjust_learning_rate, simulated",
    "start": "the same, the training attack's rand_start_mode",
    "arch": "RoBal paper, main tables (WRN-34-10 only)",
}

ROBAL_QUIRKS = (
    "the rate is multiplied again in every epoch from 60 on, so learning ends at about epoch 62: "
    "a hidden early stop, which limits robust overfitting",
    "the attack starts from uniform(0, eps), not uniform(-eps, eps): weaker first steps",
    "eps is 0.031 and the step 0.0078, slightly below 8/255 and 2/255",
)


def robal_recipe(recipe: Recipe = ROBAL_RECIPE, **options: Any) -> PaperRecipe:
    """The recipe of RoBal's baselines and long-tail tricks, with the options of one of them."""
    return PaperRecipe(
        arch="wrn-34-10",
        recipe=recipe,
        options=options,
        source=ROBAL_SOURCE,
        sources=ROBAL_SOURCES,
    )


@register_method(
    "pgd-at",
    paper=MADRY,
    recipe=robal_recipe(),
    quirks=ROBAL_QUIRKS,
    passes="K + 1",
)
@dataclass
class PGDAT(Method):
    """Madry et al. 2018: cross-entropy on PGD examples; no options."""

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE(f(x'), y)."""
        return {"attacked": F.cross_entropy(model(x_adv), y, reduction="none")}
