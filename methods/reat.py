"""REAT: an attack re-balanced by what was predicted, and tail features pushed off the others.

    x' = argmax_{|x' - x| <= eps} w_y CE(f(x'), y)     (PGD, eval mode)
    w_c = 1 / (E_c + 1e-5), summing to C,  E_c = (1 - b_c^a_c) / (1 - b_c),  b_c = (n_c - 1) / n_c
    L  = CE(f(x') + log n, y) + mean_{i of tail classes} mean_j s_ij (u_i + u_j) KL(q_i || q_j)

Li et al. 2023. a_c is how often class c was predicted for attacked images in the epoch before, and
n_c in the first one; q = softmax of the features h(x'), s_ij = -1 within a class and 1
between classes, u_i = sqrt(N / n_y). Tail classes are about the rarest third.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.config import Recipe, TrainingAttack
from ltrobust.losses import (
    balanced_softmax_loss,
    rbl_weights,
    tail_class_mask,
    tail_term,
    tail_term_released,
)
from ltrobust.losses.counts import label_mask
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.training.schedule import Schedule


@register_method(
    "reat",
    paper=Citation(
        authors="G. Li, G. Xu, T. Zhang",
        title="Alleviating the Effect of Data Imbalance on Adversarial Training",
        venue="arXiv",
        year=2023,
        url="https://arxiv.org/abs/2307.10205",
    ),
    recipe=PaperRecipe(
        arch="resnet18",
        recipe=Recipe(
            epochs=80,
            batch_size=128,
            lr=0.1,
            momentum=0.9,
            nesterov=False,
            weight_decay=5e-4,
            schedule=Schedule(
                kind="multistep", milestones=(60, 75), counted_from=0, published_epochs=80
            ),
            attack=TrainingAttack(eps=8 / 255, step_size=2 / 255, steps=10, start="uniform"),
            drop_last=False,
        ),
        options={"collapsed_tail": True, "tail_by_index": True},
        source="GuanlinLee/REAT @ a7909fd, train.py and loss_functions.py",
        checkpoint="best epoch by PGD-20 on the test set: it leaks",
    ),
    quirks=(
        "collapsed_tail: one divergence for each anchor, the mean over all entries of the batch, "
        "so that the signs and weights of its pairs enter as their mean only",
        "tail_by_index: tail classes are the indices from C // 3 * 2 + 1 on, whatever their counts",
        "the weights of the attack have no effect on it: in eval mode they only rescale each "
        "image's gradient, whose sign is used (attacked images are bit-identical); they matter "
        "where a modifier attacks in train mode",
        "a class that was never predicted takes practically all the weight",
        "the weights' base b is rounded to float32 first, which changes them by up to 5e-5",
    ),
    passes="K + 1",
)
@dataclass
class REAT(Method):
    """Li et al. 2023.

    Attributes:
        collapsed_tail: the released code's tail term.
        tail_by_index: take classes as sorted by count, as the code does.
    """

    collapsed_tail: bool = False
    tail_by_index: bool = False

    def __post_init__(self) -> None:
        self._before = self.class_counts  # predictions of the epoch before
        self._now: Tensor | None = None  # those of this one
        self._last: Tensor | None = None  # those of this step
        order = self.class_counts.argsort(descending=True, stable=True)
        mask = tail_class_mask(self.num_classes)
        self._tail = mask if self.tail_by_index else mask[order.argsort()]

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """PGD on the re-balanced cross-entropy; the sum of the weights is left out of it."""
        self._before = self._before.to(ctx.class_counts.device)
        weights = rbl_weights(ctx.class_counts, self._before)

        def loss(logits: Tensor, labels: Tensor) -> Tensor:
            return F.cross_entropy(logits, labels, weights.to(logits.dtype), reduction="sum")

        return ctx.pgd(model, x, y, loss)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """Balanced softmax of attacked images, and the tail term of their features."""
        features, logits = model.with_features(x_adv)  # type: ignore[operator]
        self._last = logits.detach().argmax(dim=1)
        self._tail = self._tail.to(y.device)
        term = tail_term_released if self.collapsed_tail else tail_term
        tail: Tensor = term(features, y, ctx.class_counts, self._tail)
        return balanced_softmax_loss(logits, y, ctx.class_counts) + tail

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """Count what the outer pass predicted."""
        if self._last is not None:
            counts = label_mask(self._last, self.num_classes).sum(dim=0)
            self._now = counts if self._now is None else self._now + counts

    def on_epoch_end(self, ctx: Context) -> None:
        """The epoch's counts become those of the epoch before."""
        if self._now is not None:
            self._before, self._now = self._now, None

    def state_dict(self) -> dict[str, Any]:
        """How often each class was predicted in the epoch before."""
        return {"predicted": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._before = state["predicted"]

    def inference_state(self) -> dict[str, Tensor]:
        """None: the counts are for training."""
        return {}

    def load_inference_state(self, state: dict[str, Tensor]) -> None:
        """Nothing to take back."""
