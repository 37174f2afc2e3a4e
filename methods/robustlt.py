"""RobustLT: radii by class that grow over the epochs, around any defense.

    eps_c = eps [(1 - alpha) + tau sqrt(log(n_max / n_c))] min((t - 1) / (beta T), 1)
    tau   = alpha / sum_c p_c sqrt(log(n_max / n_c)),  p_c = n_c / N;  alpha = 0.3, beta = 0.8
    step size of class c: (eps_c / eps) times the recipe's; t counts epochs from 1

Zhang et al. 2026. The largest class gets (1 - alpha) eps, rare ones more than eps, and the mean
over the training images is eps. The first epoch is clean training. The start is that of the base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust.attacks.classwise_eps import classwise_epsilon, intensity
from ltrobust.attacks.pgd import Mode
from ltrobust.config import Recipe, TrainingAttack
from ltrobust.extra_passes import ExtraPasses, extra_passes
from ltrobust.method import Citation, Context, PaperRecipe, register_method
from ltrobust.modifier import Modifier
from ltrobust.training.schedule import Schedule

STEP_10 = TrainingAttack(eps=8 / 255, step_size=2 / 255, steps=10, start="uniform-clipped")
RECIPE = Recipe(
    epochs=100,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    schedule=Schedule(kind="multistep", milestones=(75, 90), counted_from=0, published_epochs=100),
    attack=STEP_10,
    drop_last=False,
)
RELEASED = {"mode": "train-kept", "passes_after": "attacked, clean"}
"""Quirks of the repository, whatever the base."""


def _published(name: str, options: dict[str, Any] | None = None, **changes: Any) -> PaperRecipe:
    """The recipe of one base, from the repository's configuration of this name."""
    return PaperRecipe(
        arch="wrn-28-10",
        recipe=RECIPE.model_copy(update=changes),
        options=options or {},
        source="zhang-lilin/RobustLT @ 2d63979, "
        f"configs/cifar10lf/robustlt_{name}_cifar10.yaml, core/trainer",
    )


def _steps(epochs: int, *milestones: int) -> dict[str, Any]:
    """Epochs and the schedule of a base that is trained longer or shorter."""
    schedule = Schedule(
        kind="multistep", milestones=milestones, counted_from=0, published_epochs=epochs
    )
    return {"epochs": epochs, "schedule": schedule}


ROBAL = _published(
    "robal",
    {"extra_passes": False},
    **_steps(80, 60, 75),
    batch_size=64,
    attack=STEP_10.model_copy(update={"steps": 5}),
)
CGRM_RECIPE = Recipe(
    epochs=110,
    batch_size=128,
    lr=0.1,
    momentum=0.9,
    nesterov=False,
    weight_decay=5e-4,
    schedule=Schedule(
        kind="multistep", milestones=(100, 105), counted_from=1, published_epochs=110
    ),
    attack=TrainingAttack(eps=0.031, step_size=0.007, steps=10, start="gaussian"),
    drop_last=False,
)
"""How CGRm's repository trains all its baselines; but for Nesterov, DAFA's does too."""


@register_method(
    "robustlt",
    paper=Citation(
        authors="L. Zhang, Y. Guo, Y. Li, J. Shi, X. Liu",
        title="Taming the Long Tail: Rebalancing Adversarial Training via Adaptive Perturbation",
        venue="CVPR",
        year=2026,
    ),
    recipes={
        "pgd-at": _published("pgdat"),
        "pgd-at+awp": _published(
            "awp", {"awp.rule": "optimizer", "awp.gamma": 0.005}, **_steps(200, 100, 150)
        ),
        "at-bsl": _published("atbsl", {"robustlt.unused_clean": True}, augment="autoaugment"),
        "reat": _published("reat", **_steps(80, 60, 75)),
        "taet": _published(
            "taet",
            {
                "wasted_clean": False,
                "ce_fraction": 0.39,
                "robustlt.beta": 1.0,
                "robustlt.unused_clean": True,
                "robustlt.passes_after": "clean, attacked",
            },
        ),
        "robal-r": ROBAL,
        "trades": PaperRecipe(
            arch="resnet18",
            recipe=CGRM_RECIPE,
            options={
                "beta": 4.0,
                "repeat_clean": False,
                "detached": True,
                "robustlt.mode": "eval",
                "robustlt.passes_after": "none",
            },
            checkpoint="best epoch by PGD-20 on the test set: it leaks",
            source="Mengnan-Zhao-Happy/CGRm @ 31e46db, RobustLT.py: a third party's version",
        ),
    },
    released=RELEASED,
    quirks=(
        "mode: train-kept: the repository attacks in train mode, on the statistics of the batch, "
        "whose class mix enters the attack; the running statistics are put back",
        "passes_after: attacked and clean images pass twice more after the step, at the new "
        "weights (TAET: clean, then attacked): the BatchNorm statistics move three or four times "
        "a step instead of once",
        "unused_clean: its AT-BSL and TAET let the clean images pass inside the loss and do not "
        "use the result",
        "eps_c holds for the projection only: the start is drawn from the radius of the base, so "
        "that the first gradient may be taken outside the radius of the class",
        "in train mode REAT's class weights do act on the attack: batch statistics couple the "
        "images of a batch",
        "its RoBal, with m = tau_m = 0, would change the attacked cosines in place before the "
        "divergence reads them; not rebuilt",
        "radii and start are rounded to float32",
        "its AT-BSL is trained with AutoAugment and its TAET has 39 epochs of cross-entropy, not "
        "40; its SGD is with Nesterov whatever the base; its configurations name a data set that "
        "its loader does not know, and a name that it imports is missing",
        "no TRADES base is published: robustlt on trades follows CGRm, a third party, whose "
        "divergence has a detached clean side and whose start lies within eps_c",
    ),
    passes="base",
)
@dataclass
class RobustLT(Modifier):
    """Zhang et al. 2026: class-wise radii that grow over the epochs.

    Attributes:
        alpha: share of the budget that is moved from frequent to rare classes.
        beta: share of the epochs over which the budget grows; 0: it is whole from the beginning.
        mode: how the attack runs the network; anything but "eval" is a quirk of the release.
        unused_clean: let the clean images pass after the outer loss, to no use.
        passes_after: train-mode passes after the step, as the release does.
    """

    alpha: float = 0.3
    beta: float = 0.8
    mode: Mode = "eval"
    unused_clean: bool = False
    passes_after: ExtraPasses = "none"

    def factors(self, ctx: Context) -> Tensor:
        """eps_c / eps of the epoch, (C,), float64."""
        full = classwise_epsilon(ctx.class_counts.double(), epsilon=1.0, alpha=self.alpha)
        return full * intensity(ctx.epoch + 1, ctx.epochs, beta=self.beta)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The base's, in other radii with other steps."""
        ctx = ctx if self.mode == "eval" else ctx.changed(mode=self.mode)
        factor = self.factors(ctx)[y]
        return self.base.attack(model, x, y, ctx.scaled(factor, step_size=factor))

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The base's."""
        found = self.base.terms(model, x, y, x_adv, ctx)
        self._pass_unused(model, x)
        return found

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """The base's."""
        value = self.base.loss(model, x, y, x_adv, ctx)
        self._pass_unused(model, x)
        return value

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """The base's, and the passes of the release."""
        self.base.after_step(model, x, y, x_adv, ctx)
        extra_passes(self.passes_after, model, x, x_adv)

    def _pass_unused(self, model: nn.Module, x: Tensor) -> None:
        if self.unused_clean:
            with torch.no_grad():
                model(x)
