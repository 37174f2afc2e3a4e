"""FRL: fine-tune a robust model with class weights and margins that follow held-out errors.

    before each epoch, per class c on held-out images, CE the clean and CB the boundary error
    (accuracy lost to PGD-20), each against the mean over classes and a bound b:
        l0_c += r1 (CE_c - CE - b),   l1_c += 2 r1 (CB_c - CB - b),   l2_c += r2 (CB_c - CB - b)
        l0 and l1 are cut at 0 and scaled down to the sum lim
    w0_c = 1/C + l0_c - mean l0,   w1 likewise from l1,   eps_c = eps clamp(exp(2 l2_c), 0.98, 3)
    x' = argmax_{|x' - x| <= eps_y} KL(softmax f(x) || softmax f(x'))     (PGD, eval mode)
    L  = sum w0 CE(f(x), y) / sum w0 + beta sum w1 KL(softmax f(x) || softmax f(x')) / sum w1

Xu et al. 2021. The base's own attack and loss are not used. The held-out images are training
images that the fine-tuning does without; the base was trained on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from ltrobust.methods.trades import TRADES
from torch import Tensor, nn

from ltrobust.config import Recipe
from ltrobust.errors import UserError
from ltrobust.feedback import held_out_outcomes
from ltrobust.method import Citation, Context, register_method
from ltrobust.modifier import PostHoc
from ltrobust.training.schedule import Schedule

DECAYS = (40, 80, 250)
"""Epochs, from 0, from which the rate is a tenth; the published run of 40 meets none."""


@register_method(
    "frl",
    paper=Citation(
        authors="H. Xu, X. Liu, Y. Li, A. K. Jain, J. Tang",
        title="To be Robust or to be Fair: Towards Fairness in Adversarial Training",
        venue="ICML",
        year=2021,
        url="https://arxiv.org/abs/2010.06121",
    ),
    released={"largest_step": True, "repeat_clean": True},
    quirks=(
        "largest_step: with margins every image steps by a quarter of the batch's largest eps, "
        "whatever the step size",
        "repeat_clean: three train-mode passes (clean, attacked, clean again), so that clean "
        "images move the BatchNorm statistics twice",
        "10 classes are hard-coded; 1/10 and 9/10 are 1/C and (C - 1)/C here",
        "300 images per class of the balanced training set judge the training, more than a rare "
        "class has; here a tenth of each class, at most 50, and at least one",
        "the class weights are float32, which changes the step by up to 7e-8",
        "its own code starts from a TRADES checkpoint that is not in the repository",
        "eps grows up to three times for classes that lose most, so that training sees images "
        "beyond eps",
    ),
    passes="2 K + 3",
)
@dataclass
class FRL(PostHoc):
    """Xu et al. 2021: fair robust learning, by re-weighting and re-margining.

    Attributes:
        epochs: of fine-tuning.
        lr: its learning rate.
        beta: weight of the divergence.
        remargin: let eps follow the boundary errors as well; the variant "RMRW".
        bound: how far a class may be worse than the mean; 0.07, and 0.1 without margins.
        rate: r1, halved at every 40th epoch.
        margin_rate: r2.
        limit: largest sum of the multipliers.
        feedback_steps: of the attack that judges.
        largest_step: take a quarter of the batch's largest eps as everybody's step.
        repeat_clean: pass the clean batch a second time for the divergence.
    """

    needs_held_out: ClassVar[bool] = True

    epochs: int = 40
    lr: float = 0.001
    beta: float = 1.5
    remargin: bool = True
    bound: float = 0.07
    rate: float = 0.05
    margin_rate: float = 0.2
    limit: float = 0.5
    feedback_steps: int = 20
    largest_step: bool = False
    repeat_clean: bool = False

    def __post_init__(self) -> None:
        alone = (self.class_counts < 2).nonzero().flatten().tolist()
        if alone:
            raise UserError(
                f"frl needs two images of a class, one to train on and one to judge by; of class "
                f"{alone[0]} there is {int(self.class_counts[alone[0]])}: use a smaller imbalance "
                "ratio or more images"
            )
        self.lambdas = torch.zeros(3, self.num_classes, dtype=torch.float64)
        self._trades = TRADES(self.class_counts, beta=self.beta, repeat_clean=self.repeat_clean)

    def fine_tuning(self, recipe: Recipe) -> Recipe:
        """The published epochs and rate; all else is the base's."""
        schedule = Schedule(
            kind="multistep", milestones=DECAYS, counted_from=0, published_epochs=self.epochs
        )
        return recipe.model_copy(
            update={"epochs": self.epochs, "lr": self.lr, "schedule": schedule}
        )

    def on_epoch_start(self, ctx: Context) -> None:
        """Judge the network on held-out images and move the multipliers."""
        super().on_epoch_start(ctx)
        outcomes = held_out_outcomes(self, ctx, steps=self.feedback_steps)
        natural, boundary = outcomes.errors(self.num_classes)
        halvings = (ctx.epoch - ctx.first_epoch + 1) // 40
        self.lambdas = frl_update(
            self.lambdas.to(natural.device),
            natural,
            boundary,
            bounds=(self.bound, self.bound),
            rates=(self.rate / 2**halvings, self.margin_rate if self.remargin else 0.0),
            limit=self.limit,
        )

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """TRADES' attack, in radii of the class."""
        factors = frl_weights(self.lambdas)[2].to(x)[y]
        steps = factors
        if self.largest_step and self.remargin:
            quarter = ctx.attack.eps / 4 / ctx.attack.step_size
            steps = (factors.max() * quarter).expand_as(factors)
        return self._trades.attack(model, x, y, ctx.scaled(eps=factors, step_size=steps))

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """Both terms of TRADES, each so weighted that the mean is the weighted mean."""
        terms = self._trades.terms(model, x, y, x_adv, ctx)
        natural, boundary = (w.to(x)[y] for w in frl_weights(self.lambdas)[:2])
        return {
            "natural": natural / natural.mean() * terms["natural"],
            "consistency": boundary / boundary.mean() * terms["consistency"],
        }

    def own_state(self) -> dict[str, Any]:
        """The multipliers."""
        return {"lambdas": self.lambdas}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.lambdas = state["lambdas"]

    def has_terms(self) -> bool:
        """Its own, whatever the base's loss is."""
        return True


def frl_weights(lambdas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of clean and of boundary terms and factors of eps, (C,) each.

    Args:
        lambdas: the multipliers of clean errors, boundary errors and margins, (3, C).
    """
    natural, boundary, margins = lambdas
    even = 1 / len(natural)
    return (
        even + natural - natural.mean(),
        even + boundary - boundary.mean(),
        (2 * margins).exp().clamp(0.98, 3),
    )


def frl_update(
    lambdas: Tensor,
    natural: Tensor,
    boundary: Tensor,
    *,
    bounds: tuple[float, float],
    rates: tuple[float, float],
    limit: float,
) -> Tensor:
    """Move the multipliers towards the classes that are worse than the mean by more than a bound.

    Args:
        lambdas: (3, C), as for `frl_weights`.
        natural: clean error of each class, (C,).
        boundary: share of each class that only the attack makes wrong, (C,).
        bounds: of the two errors.
        rates: r1 of the weights and r2 of the margins.
        limit: largest sum of a weight's multipliers.
    """
    worse = natural - natural.mean() - bounds[0]
    weaker = boundary - boundary.mean() - bounds[1]
    moved = lambdas + torch.stack([rates[0] * worse, 2 * rates[0] * weaker, rates[1] * weaker])
    weights = moved[:2].clamp_min(0)
    scale = (limit / weights.sum(1, keepdim=True)).clamp_max(1)
    return torch.cat([weights * scale, moved[2:]])
