"""UDR: the ball of the attack is soft, and how soft is learned while training.

    d <- d + step sign(g)
    d <- d - lambda (d - eps sign d) 1[|d| > eps],  then clipped to the image
    lambda <- max(lambda - rate (eps - mean |d|), 0)     at batches 0, 10, 20, ... of an epoch,
              the mean being over the batches since the last time

Bui et al. 2022, a distributional view of adversarial training. lambda starts at 1, where the soft
ball is the usual one; below 1 pixels may end outside eps. The loss is that of the base.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from ltrobust.methods.awp import AT_RECIPE
from ltrobust.methods.robustlt import CGRM_RECIPE
from torch import Tensor, nn

from ltrobust.attacks.pgd import Advance, Ball, linf_ball
from ltrobust.method import Citation, Context, PaperRecipe, register_method
from ltrobust.modifier import Modifier

CGRM_SOURCE = "Mengnan-Zhao-Happy/CGRm @ 4f366a1, UDR.py: a third party's version"
CGRM_ATTACK = CGRM_RECIPE.attack.model_copy(update={"start": "uniform-clipped"})


@register_method(
    "udr",
    paper=Citation(
        authors="T.-A. Bui, T. Le, Q. H. Tran, H. Zhao, D. Phung",
        title="A Unified Wasserstein Distributional Robustness Framework for Adversarial Training",
        venue="ICLR",
        year=2022,
        url="https://arxiv.org/abs/2202.13437",
    ),
    recipes={
        "pgd-at+awp": PaperRecipe(
            arch="wrn-34-10",
            recipe=AT_RECIPE.recipe,
            options=AT_RECIPE.options,
            checkpoint=AT_RECIPE.checkpoint,
            test_set=AT_RECIPE.test_set,
            source="tuananhbui89/Unified-Distributional-Robustness @ 8faaf4d, "
            "Cifar10-WideResNet/train_cifar10_udr.py",
        ),
        "pgd-at": PaperRecipe(
            arch="resnet18",
            recipe=CGRM_RECIPE.model_copy(update={"attack": CGRM_ATTACK}),
            options={"udr.natural": 1.0, "udr.scale": 4.0, "udr.stuck": True, "udr.floor": 0.0},
            checkpoint=AT_RECIPE.checkpoint,
            source=CGRM_SOURCE,
        ),
        "trades": PaperRecipe(
            arch="resnet18",
            recipe=CGRM_RECIPE.model_copy(update={"attack": CGRM_ATTACK}),
            options={
                "beta": 4.0,
                "repeat_clean": False,
                "detached": True,
                "udr.stuck": True,
                "udr.floor": 0.0,
            },
            checkpoint=AT_RECIPE.checkpoint,
            source=CGRM_SOURCE,
        ),
    },
    released={"floor": None},
    quirks=(
        "lambda falls whenever mean |d| is below eps, that is as long as most pixels stay inside; "
        "floor: none: the authors' code lets it fall below 0, where the ball pushes outwards",
        "leak, not rebuilt: the authors report the best epoch by PGD-20 on the test set",
        "the authors' network sees input normalised by mean and standard deviation; here it does "
        "not",
        "the authors publish it on AWP only, with AWP's train-mode attack and extra passes: "
        "write pgd-at+awp+udr for it",
        "udr on pgd-at and on trades is a third party's version (CGRm): natural, scale: on "
        "PGD-AT the loss is CE(f(x), y) + 4 CE(f(x'), y); its lambda moves after batches 9, 19, "
        "... and the last of an epoch, here after 0, 10, ...",
        "stuck: the third party clips to the image inside the differentiated pass, where torch "
        "gives no gradient at 0 and 1, so that a pixel that got there stays; in the stored cases "
        "about 1% of the pixels end elsewhere without it, by up to 0.056",
        "on TRADES the third party's divergence has a detached clean side, and its attack runs in "
        "eval mode, unlike the authors'",
        "mean |d| is per pixel, after the clipping to the image, so that dark and bright pixels "
        "lower it",
    ),
    passes="base",
)
@dataclass
class UDR(Modifier):
    """Bui et al. 2022: a soft ball whose firmness lambda is learned.

    Attributes:
        lamda: lambda at the beginning; 1 is the usual ball.
        rate: learning rate of lambda.
        period: batches from one update of lambda to the next.
        floor: lambda stays at least this; None: it may fall below 0, as in the authors' code.
        tau: temperature of the ball: a step pulls back by lambda step / tau; None: by lambda.
        natural: weight of CE on clean images that is added to the loss (third party).
        scale: factor of the base's loss (third party).
        stuck: leave pixels where they are once they have reached 0 or 1 (third party).
    """

    lamda: float = 1.0
    rate: float = 0.02
    period: int = 10
    floor: float | None = 0.0
    tau: float | None = None
    natural: float = 0.0
    scale: float = 1.0
    stuck: bool = False

    def __post_init__(self) -> None:
        self._lamda = torch.tensor(self.lamda, dtype=torch.float64)
        self.gaps: list[Tensor] = []  # eps - mean |d| of the batches since the last update
        self._gap: Tensor | None = None  # that of this step

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The base's, in a soft ball."""
        self._lamda = self._lamda.to(x)
        radii: list[Tensor] = []
        soft = ctx.changed(
            ball=soft_ball(self._lamda, tau=self.tau, stuck=self.stuck),
            told_radius=lambda eps: radii.append((torch.zeros_like(x) + eps).sum()),
        )
        x_adv = self.base.attack(model, x, y, soft)
        self._gap = None
        if radii:
            self._gap = torch.stack(radii).sum() / x.numel() - (x_adv - x).abs().mean()
        return x_adv

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The base's, and what the third party adds."""
        natural = F.cross_entropy(model(x), y, reduction="none") if self.natural else None
        found = {
            key: self.scale * term for key, term in self.base.terms(model, x, y, x_adv, ctx).items()
        }
        if natural is not None:
            found["natural"] = self.natural * natural + found.get("natural", 0.0)
        return found

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context) -> Tensor:
        """The base's, and what the third party adds."""
        natural = self.natural * F.cross_entropy(model(x), y) if self.natural else 0.0
        return natural + self.scale * self.base.loss(model, x, y, x_adv, ctx)

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """What is due for the base, and lambda's update."""
        self.base.after_step(model, x, y, x_adv, ctx)
        if self._gap is not None:
            self.gaps.append(self._gap.clone())
        if self.gaps and ctx.batch % self.period == 0:
            gap = torch.stack([gap.to(x) for gap in self.gaps]).mean()
            lamda = self._lamda - self.rate * gap
            # in place: a recorded step reads it where it was
            self._lamda.copy_(lamda if self.floor is None else lamda.clamp_min(self.floor))
            self.gaps = []

    def own_state(self) -> dict[str, Any]:
        """lambda, and what its next update will be made of."""
        return {"lamda": self._lamda, "gaps": list(self.gaps)}

    def load_own_state(self, state: dict[str, Any]) -> None:
        """Take back what `own_state` returned."""
        self._lamda, self.gaps = state["lamda"], list(state["gaps"])


def soft_ball(lamda: Tensor, *, tau: float | None = None, stuck: bool = False) -> Ball:
    """A ball that pulls a pixel outside eps back by the share `lamda` of what is too much.

    Args:
        lamda: a scalar.
        tau: temperature; None: the step size, which then has no part in it.
        stuck: take no step where a pixel is at 0 or 1.
    """

    def ball(
        x: Tensor, eps: float | Tensor, step_size: float | Tensor
    ) -> tuple[Advance, Callable[[Tensor], Tensor]]:
        step, _ = linf_ball(x, eps, step_size)
        share = lamda if tau is None else lamda * step_size / tau
        radius = torch.zeros_like(x) + eps

        def advance(direction: Tensor, images: Tensor) -> Tensor:
            if stuck:
                direction = direction * ((images > 0) & (images < 1))
            return step(direction, images)

        def project(images: Tensor) -> Tensor:
            change = images - x
            beyond = change - change.clamp(-radius, radius)
            return (change - share * beyond).add_(x).clamp_(0, 1)

        return advance, project

    return ball
