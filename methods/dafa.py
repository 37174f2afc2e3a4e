"""DAFA: larger radii and weights for classes that are hard, taken from the similar easy ones.

    W_i = 1 + lambda sum_{j != i} ( S_ij S_jj  where S_ii < S_jj,  else - S_ji S_ii )
    S_i = mean of softmax f(x') over the training images of class i, in one epoch at 64 % of the run
    afterwards:  eps and step size of an image times W_y, and its loss at the label times W_y

Lee et al. 2024. Before, all W are 1. A loss that ties clean and attacked predictions together, such
as TRADES' divergence, is not weighted. S_ij is how much class i looks like class j, S_ii how well
class i is told. With many or dissimilar classes some W fall below 0; as in CGRm's long-tailed
version lambda is then lowered until the smallest is 0.25.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from ltrobust.methods.robustlt import CGRM_RECIPE
from torch import Tensor, nn

from ltrobust.attacks.pgd import Advance, Ball, linf_ball
from ltrobust.config import TrainingAttack
from ltrobust.losses.counts import label_mask
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.modifier import Modifier
from ltrobust.overheard import Overheard

TRADES_RECIPE = PaperRecipe(
    arch="resnet18",
    recipe=CGRM_RECIPE.model_copy(update={"nesterov": True}),
    options={"beta": 6.0, "repeat_clean": False},
    checkpoint="the mean over the last ten epochs",
    source="rucy74/DAFA @ c60ba83, arguments.py and scripts",
    sources={"nesterov": "the same, train.py, which inverts the flag"},
    test_set="balanced (the paper has no long-tailed runs; CGRm's authors ran it on one)",
)


@register_method(
    "dafa",
    paper=Citation(
        authors="H. Lee, S. Lee, H. Jang, J. Park, H. Bae, S. Yoon",
        title="DAFA: Distance-Aware Fair Adversarial Training",
        venue="ICLR",
        year=2024,
        url="https://arxiv.org/abs/2401.12532",
    ),
    recipes={
        "trades": TRADES_RECIPE,
        "pgd-at": replace(TRADES_RECIPE, options={"dafa.double_step": True}),
    },
    released={"negative_weights": True, "attacked_first": True},
    quirks=(
        "negative_weights: with many or dissimilar classes weights turn negative, and with them "
        "eps",
        "double_step: on PGD-AT every iteration takes a second, unweighted step into the "
        "unweighted box, so that all classes end with the plain eps; 99 % of the pixels differ "
        "from those of the single step",
        "attacked_first: attacked images pass before clean ones, which decides where the BatchNorm "
        "statistics end",
        "the divergence of TRADES is not weighted, and its clean side is not detached in the loss; "
        "the attack computes it once, in eval mode",
        "Nesterov momentum is on, because the flag is read inverted",
        "lambda is 1 on CIFAR-10 and 1.5 on CIFAR-100; there is no rule beyond 100 classes",
        "weights exceed 1, so that training sees images beyond eps",
    ),
    passes="K + 2",
)
@dataclass
class DAFA(Modifier):
    """Lee et al. 2024: radii and weights by the similarity of classes.

    Attributes:
        lambda_: strength; 1 on CIFAR-10, 1.5 on CIFAR-100.
        warm_up: share of the run after which the weights are set; 70 of 110 epochs.
        min_weight: lambda is lowered until no weight is smaller; 0.25 in CGRm's version.
        negative_weights: leave lambda as it is, as DAFA's code does.
        double_step: take the released second step, which undoes the radii.
        attacked_first: pass attacked images before clean ones in the loss.
    """

    lambda_: float = 1.0
    warm_up: float = 70 / 110
    min_weight: float = 0.25
    negative_weights: bool = False
    double_step: bool = False
    attacked_first: bool = False

    def __post_init__(self) -> None:
        classes = self.num_classes
        self.class_weights = torch.ones(classes)
        self.sums = torch.zeros(classes, classes)
        self.seen = torch.zeros(classes)
        self._logits: Tensor | None = None

    @classmethod
    def refuses(cls, base: Method) -> str | None:
        """Weights need terms image by image."""
        if base.has_terms():
            return None
        return "dafa weighs images, and the loss of the base is no mean over images"

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The base's, in radii and steps of the class."""
        factors = self.class_weights.to(x)[y]
        ctx = ctx.scaled(eps=factors, step_size=factors)
        if self.double_step:
            ctx = ctx.changed(ball=_second_step(ctx.attack))
        return self.base.attack(model, x, y, ctx)

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The base's, those at the label times the weight of the class."""
        heard = Overheard(model, x_adv, first=self.attacked_first)
        terms = self.base.terms(heard, x, y, x_adv, ctx)
        self._logits = heard.attacked() if self._looks(ctx) else None
        weights = self.class_weights.to(x)[y]
        return {
            name: term if name == "consistency" else weights * term for name, term in terms.items()
        }

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """Note what the network answered to the attacked images of each class."""
        if self._logits is not None:
            of_class = label_mask(y, self.num_classes).float()
            probabilities = F.softmax(self._logits.float(), dim=1)
            self.sums = self.sums.to(probabilities.device) + of_class.T @ probabilities
            self.seen = self.seen.to(probabilities.device) + of_class.sum(0)
            self._logits = None
        self.base.after_step(model, x, y, x_adv, ctx)

    def on_epoch_start(self, ctx: Context) -> None:
        """Keep the weights where the batches are."""
        self.class_weights = self.class_weights.to(ctx.class_counts.device)
        self.base.on_epoch_start(ctx)

    def on_epoch_end(self, ctx: Context) -> None:
        """Set the weights, once in a run."""
        if self._looks(ctx):
            unknown = torch.full_like(self.sums, 1 / self.num_classes)
            means = self.sums / self.seen[:, None]
            similarity = torch.where(self.seen[:, None] > 0, means, unknown)
            smallest = None if self.negative_weights else self.min_weight
            self.class_weights = dafa_weights(similarity, self.lambda_, smallest)
            self.sums, self.seen = torch.zeros_like(self.sums), torch.zeros_like(self.seen)
        self.base.on_epoch_end(ctx)

    def own_state(self) -> dict[str, Any]:
        """The weights."""
        return {"class_weights": self.class_weights}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.class_weights = state["class_weights"]

    def _looks(self, ctx: Context) -> bool:
        """Whether it is the epoch in which classes are compared; none of a fine-tuning is."""
        return not ctx.first_epoch and ctx.epoch + 1 == max(1, round(self.warm_up * ctx.epochs))


def dafa_direction(similarity: Tensor) -> Tensor:
    """How each weight grows with lambda, (C,), from the mean softmax of each class (C, C)."""
    own = similarity.diagonal()
    harder = own[:, None] < own[None, :]
    shares = torch.where(harder, similarity * own[None, :], -similarity.T * own[:, None])
    return shares.fill_diagonal_(0).sum(dim=1)


def dafa_weights(similarity: Tensor, strength: float, smallest: float | None = None) -> Tensor:
    """DAFA's class weights (C,), of mean 1.

    Args:
        similarity: mean softmax of the attacked training images of each class, (C, C).
        strength: lambda.
        smallest: lower lambda until no weight is smaller, as CGRm does; None: leave it.
    """
    direction = dafa_direction(similarity)
    if smallest is None:
        return 1 + strength * direction
    return 1 + safe_lambda(direction, strength, smallest) * direction


def safe_lambda(direction: Tensor, strength: float, smallest: float) -> Tensor:
    """The largest lambda up to `strength` that leaves all weights at least `smallest`, scalar."""
    fall = (-direction.min()).clamp_min(torch.finfo(direction.dtype).tiny)
    return ((1 - smallest) / fall).clamp_max(strength)


def _second_step(attack: TrainingAttack) -> Ball:
    """The ball of the released PGD variant: a plain step along the same direction after each."""

    def ball(
        x: Tensor, eps: float | Tensor, step_size: float | Tensor
    ) -> tuple[Advance, Callable[[Tensor], Tensor]]:
        advance, project = linf_ball(x, eps, step_size)
        again, within = linf_ball(x, attack.eps, attack.step_size)

        def both(direction: Tensor, images: Tensor) -> Tensor:
            return again(direction, project(advance(direction, images)))

        return both, within

    return ball
