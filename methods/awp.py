"""AWP: adversarial weight perturbation, a step against worst-case weights around the outer loss.

    v = gamma |w| g / |g|   for each weight tensor w of two or more dimensions,
    g = gradient of the outer loss of the method that is modified
    w <- w + v,  a step with the gradient of the same loss there,  w <- w - v

Wu, Xia and Wang 2020. The pass that finds g leaves the BatchNorm statistics alone. With `rule:
optimizer`, as RobustLT's repository does it, g is what one step of the run's own optimizer on the
negated loss would do: weight decay and momentum enter the direction.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from ltrobust.methods.trades import RECIPE as TRADES_RECIPE
from torch import Tensor, nn

from ltrobust.attacks.pgd import Mode, kept_buffers
from ltrobust.config import Recipe, TrainingAttack
from ltrobust.extra_passes import ExtraPasses, extra_passes
from ltrobust.method import Citation, Context, Loss, PaperRecipe, register_method
from ltrobust.modifier import Modifier
from ltrobust.training.schedule import Schedule

TINY = 1e-20
"""Keeps a gradient of zeros from dividing by zero, as in the released code."""

AT_RECIPE = PaperRecipe(
    arch="preactresnet18",
    recipe=Recipe(
        epochs=200,
        batch_size=128,
        lr=0.1,
        momentum=0.9,
        nesterov=False,
        weight_decay=5e-4,
        schedule=Schedule(
            kind="multistep", milestones=(100, 150), counted_from=0, published_epochs=200
        ),
        attack=TrainingAttack(eps=8 / 255, step_size=2 / 255, steps=10, start="uniform-clipped"),
        drop_last=False,
    ),
    options={
        "awp.gamma": 0.01,
        "awp.mode": "train",
        "awp.restart_pass": True,
        "awp.passes_after": "clean",
    },
    checkpoint="best epoch by PGD-20 on the test set: it leaks",
    test_set="balanced (the paper has no long-tailed runs)",
    source="csdongxian/AWP @ a7acf5d, AT_AWP/train_cifar10.py",
)
"""AWP on PGD-AT, which UDR's release trains with as well."""


@register_method(
    "awp",
    paper=Citation(
        authors="D. Wu, S.-T. Xia, Y. Wang",
        title="Adversarial Weight Perturbation Helps Robust Generalization",
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2004.05884",
    ),
    recipes={
        "pgd-at": AT_RECIPE,
        "trades": PaperRecipe(
            arch="wrn-34-10",
            recipe=TRADES_RECIPE.recipe.model_copy(
                update={
                    "epochs": 200,
                    "weight_decay": 5e-4,
                    "schedule": Schedule(
                        kind="multistep",
                        milestones=(100, 150),
                        counted_from=1,
                        published_epochs=200,
                    ),
                    "attack": TrainingAttack(
                        eps=8 / 255, step_size=2 / 255, steps=10, start="gaussian"
                    ),
                }
            ),
            options={"attacked_first": True, "awp.gamma": 0.005, "awp.warmup": 0.045},
            test_set="balanced (the paper has no long-tailed runs)",
            source="csdongxian/AWP @ a7acf5d, trades_AWP/train_trades_cifar.py",
        ),
    },
    quirks=(
        "two constructions bear this name: the authors' (rule: proxy) and that of RobustLT's "
        "repository (rule: optimizer), which takes one step of the training's own optimizer; "
        "what stands behind `awp` is the authors'",
        "gamma is 0.005 in the paper and in the release's TRADES, 0.01 in the release's PGD-AT",
        "mode: train: the release's PGD-AT attacks in train mode, so that the class mix of the "
        "batch enters the attack and every attack step moves the BatchNorm statistics",
        "restart_pass, passes_after: another pass of the attacked images after the attack and one "
        "of the clean images after the step; 13 moves of the statistics a step instead of 1",
        "the release's pass for the perturbation runs on a copy, whose statistics are its own: the "
        "network's see the perturbed weights only (TRADES: attacked, clean, clean again)",
        "the release's PGD-AT normalises its input by mean and standard deviation outside of the "
        "network; here it is not normalised",
        "of the release's PGD-AT the first batch after each test is attacked in eval mode, and "
        "its rate decays within the last batch of an epoch; neither is done here",
        "warmup: the release's TRADES begins to perturb at epoch 10 of 200, counted from 1",
        "the release's PGD-AT reports its best epoch on the test set: PGD-AT 52.8 best against "
        "43.8 last, with AWP 55.4 against 54.3",
    ),
    passes="base + its outer passes again",
)
@dataclass
class AWP(Modifier):
    """Wu et al. 2020: the outer step is taken against perturbed weights.

    Attributes:
        gamma: size of the perturbation of a weight tensor, relative to its norm.
        warmup: share of the epochs without it at the beginning.
        rule: where its direction comes from: "proxy", the gradient of the outer loss, in a pass
            that keeps the BatchNorm statistics; "optimizer", one step of the run's optimizer, in a
            pass that moves them (RobustLT's repository).
        mode: how the attack runs the network; anything but "eval" is a quirk of a release.
        restart_pass: pass the attacked images once more after the attack, as the release does.
        passes_after: train-mode passes after the step, as the releases do.
    """

    gamma: float = 0.005
    warmup: float = 0.0
    rule: Literal["proxy", "optimizer"] = "proxy"
    mode: Mode = "eval"
    restart_pass: bool = False
    passes_after: ExtraPasses = "none"

    def __post_init__(self) -> None:
        self._added: list[tuple[Tensor, Tensor]] = []

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The base's; in another mode and with another pass where a quirk asks for it."""
        ctx = ctx if self.mode == "eval" else ctx.changed(mode=self.mode)
        x_adv = self.base.attack(model, x, y, ctx)
        if self.restart_pass and x_adv is not x:
            with torch.no_grad():
                model(x_adv)
        return x_adv

    def backward(self, loss: Loss, model: nn.Module, ctx: Context) -> Tensor:
        """Perturb the weights, and leave the gradients that the base finds there."""
        self._added = []
        if ctx.epoch >= round(self.warmup * ctx.epochs):
            self._added = self.perturbation(loss, model, ctx)
        with torch.no_grad():
            for weight, change in self._added:
                weight.add_(change)
        return self.base.backward(loss, model, ctx)

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """Take the perturbation off; only then whatever else is due."""
        with torch.no_grad():
            for weight, change in self._added:
                weight.sub_(change)
        self._added = []
        self.base.after_step(model, x, y, x_adv, ctx)
        extra_passes(self.passes_after, model, x, x_adv)

    def perturbation(
        self, loss: Loss, model: nn.Module, ctx: Context
    ) -> list[tuple[Tensor, Tensor]]:
        """The weight tensors and what is added to each."""
        weights = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
        with kept_buffers(model) if self.rule == "proxy" else nullcontext():
            gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
        found = []
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is None:
                continue
            direction = gradient
            if self.rule == "optimizer" and ctx.optimizer is not None:
                direction = -sgd_step(ctx.optimizer, weight, -gradient)
            value = weight.detach()
            found.append(
                (weight, self.gamma * value.norm() / (direction.norm() + TINY) * direction)
            )
        return found


def sgd_step(optimizer: torch.optim.Optimizer, weight: Tensor, gradient: Tensor) -> Tensor:
    """What SGD would take off a weight for this gradient, but for the rate. Nothing is changed."""
    group = next(g for g in optimizer.param_groups if any(p is weight for p in g["params"]))
    step = gradient + group["weight_decay"] * weight.detach()
    momentum = optimizer.state.get(weight, {}).get("momentum_buffer")
    velocity = step if momentum is None else group["momentum"] * momentum + step
    if group["nesterov"]:
        return step + group["momentum"] * velocity
    return velocity if group["momentum"] else step
