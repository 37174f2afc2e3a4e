"""MART: what is misclassified already counts more in the regularisation.

    x' = argmax_{|x' - x| <= eps} CE(f(x'), y)     (PGD, eval mode)
    L  = mean_i [-log q_y - log(1 - q_k) + beta KL(p || q) (1 - p_y)],    beta = 5

Wang et al. 2020; p = softmax f(x), q = softmax f(x'), and k is the wrong class that q holds
most likely. Nothing is detached.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ltrobust.config import Recipe, TrainingAttack
from ltrobust.losses import mart_terms
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.training.schedule import Schedule


@register_method(
    "mart",
    paper=Citation(
        authors="Y. Wang, D. Zou, J. Yi, J. Bailey, X. Ma, Q. Gu",
        title="Improving Adversarial Robustness Requires Revisiting Misclassified Examples",
        venue="ICLR",
        year=2020,
        url="https://openreview.net/forum?id=rklOg6EFwS",
    ),
    recipe=PaperRecipe(
        arch="resnet18",
        recipe=Recipe(
            epochs=120,
            batch_size=128,
            lr=0.01,
            momentum=0.9,
            nesterov=False,
            weight_decay=3.5e-3,
            schedule=Schedule(
                kind="multistep", milestones=(75, 90, 100), counted_from=1, published_epochs=120
            ),
            attack=TrainingAttack(eps=0.031, step_size=0.007, steps=10, start="gaussian"),
            drop_last=False,
        ),
        datasets=("cifar10-lt",),
        source="YisenWang/MART @ 2d83e17, train_resnet.py and mart.py",
        checkpoint="every epoch kept; PGD-20 on the test set is printed each time",
        test_set="balanced (the paper has no long-tailed runs)",
    ),
    quirks=(
        "the attack starts from 0.001 * N(0, 1), whatever eps is",
        "constants keep the logarithms finite: log(1.0001 - q_k + 1e-12), log(q + 1e-12), and the "
        "weight is 1.0000001 - p_y; without them the loss differs by 1e-4. They are kept in both "
        "recipes",
        "the script for WRN-34-10 has other values: 90 epochs, rate 0.1, weight decay 7e-4, "
        "beta 6; no values are published beyond CIFAR-10",
    ),
    passes="K + 2",
)
@dataclass
class MART(Method):
    """Wang et al. 2020.

    Attributes:
        beta: weight of the divergence; 5 for ResNet-18 and 6 for WRN-34-10 in the code.
    """

    beta: float = 5.0

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """Boosted cross-entropy of attacked images, and beta times the weighted divergence."""
        clean = model(x)
        boosted, divergence = mart_terms(clean, y, model(x_adv))
        return {"attacked": boosted, "consistency": self.beta * divergence}
