"""AT-BSL: adversarial training with the balanced softmax.

    x' = argmax_{|x' - x| <= eps} CE(f(x'), y)     (PGD, eval mode)
    L  = CE(f(x') + log n, y)

Yue et al. 2024: of RoBal's parts the class prior in the outer loss does nearly all, and the
attack needs none of it. n_c is the number of training images of class c.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from ltrobust.config import Recipe, TrainingAttack
from ltrobust.losses import balanced_softmax_loss, logit_adjusted_loss
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.training.schedule import Schedule


@register_method(
    "at-bsl",
    paper=Citation(
        authors="X. Yue, N. Mou, Q. Wang, L. Zhao",
        title="Revisiting Adversarial Training under Long-Tailed Distributions",
        venue="CVPR",
        year=2024,
        url="https://arxiv.org/abs/2403.10073",
    ),
    recipe=PaperRecipe(
        arch="resnet18",
        recipe=Recipe(
            epochs=100,
            batch_size=128,
            lr=0.1,
            momentum=0.9,
            nesterov=False,
            weight_decay=5e-4,
            schedule=Schedule(
                kind="multistep", milestones=(75, 90, 100), counted_from=1, published_epochs=100
            ),
            attack=TrainingAttack(eps=8 / 255, step_size=2 / 255, steps=10, start="gaussian"),
        ),
        source="NISPLab/AT-BSL @ 23f433e, train_at_bsl_cifar10.py",
        sources={"augment": "run with --aug none; the script's own default is AutoAugment"},
        checkpoint="best epoch from 75 on by PGD-20 on the test set: it leaks",
        test_set="balanced; the last 16 images are dropped in training and count as correct",
    ),
    quirks=(
        "the attack starts from 0.001 * N(0, 1), whatever eps is",
        "the decay at epoch 100 (of 100, from 1) leaves one epoch at a rate of 1e-4",
        "the script's default augmentation is AutoAugment; the plain method is run with none "
        "(crop and flip), as here",
    ),
    passes="K + 1",
)
@dataclass
class ATBSL(Method):
    """Yue et al. 2024: balanced softmax on PGD examples.

    Attributes:
        tau: factor of the log prior; 1 in the paper and in all released code.
    """

    tau: float = 1.0

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE(f(x') + log n, y)."""
        logits, counts = model(x_adv), ctx.class_counts
        if self.tau == 1:
            return {"attacked": balanced_softmax_loss(logits, y, counts, reduction="none")}
        adjusted = logit_adjusted_loss(logits, y, counts, tau=self.tau, reduction="none")
        return {"attacked": adjusted}
