"""GAIRAT: images that the attack fools in few steps count more. As a defense, and as gairat-w.

    x'    = argmax_{|x' - x| <= eps} CE(f(x'), y)     (PGD, eval mode)
    kappa = at how many of x_0 .. x_{K-1} the image is classified correctly
    v     = (1 + tanh(Lambda + 5 (1 - 2 kappa / K))) / 2
    L     = mean_i [w_i CE(f(x'), y)],  w = B v / sum v,  Lambda = -1

Zhang et al. 2021. Before half of the epochs w = 1. gairat-w puts the weights on all terms of
any loss that is told image by image, with the attack of its own; that has no paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from ltrobust.methods.pgd_at import PGDAT
from torch import Tensor, nn

from ltrobust.config import Recipe, TrainingAttack
from ltrobust.context import Observer
from ltrobust.losses import gairat_offset, gairat_weights
from ltrobust.losses.gairat import Assignment
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.modifier import Modifier
from ltrobust.training.schedule import Schedule

PAPER = Citation(
    authors="J. Zhang, J. Zhu, G. Niu, B. Han, M. Sugiyama, M. Kankanhalli",
    title="Geometry-aware Instance-reweighted Adversarial Training",
    venue="ICLR",
    year=2021,
    url="https://arxiv.org/abs/2010.01736",
)
QUIRKS = (
    "halve_down: 5 (1 - kappa / int(K / 2)); differs from the paper for odd K only",
    "its gain under PGD vanishes under AutoAttack without extra data, as its author agrees "
    "(GAIRAT, issue 1): trust AutoAttack",
)


class Watch:
    """Counts at how many iterates of an attack each image is classified correctly.

    Args:
        y: labels (B,) of the batch.
        then: another observer, told of every step as well.
    """

    def __init__(self, y: Tensor, then: Observer | None) -> None:
        self.kappa = torch.zeros(len(y), device=y.device)
        self._seen = 0
        self._then = then

    def __call__(self, logits: Tensor, labels: Tensor, positions: Tensor) -> None:
        """Take note of one step."""
        self.kappa[positions] += (logits.argmax(1) == labels).float()
        self._seen += len(labels)
        if self._then is not None:
            self._then(logits, labels, positions)

    @property
    def steps(self) -> int:
        """K, the steps that each image was attacked with."""
        return self._seen // len(self.kappa)


@dataclass
class Weighing(Method):
    """What the defense and the modifier share: they weigh the terms of what stands behind them.

    Attributes:
        offset: Lambda.
        assignment: how kappa becomes a weight: tanh, sigmoid or discrete.
        begin: share of the epochs that is trained without weights first.
        linear_from: Lambda goes down in proportion to the epochs from this value to `offset`.
        halve_down: the released code's int(K / 2).
    """

    offset: float = -1.0
    assignment: Assignment = "tanh"
    begin: float = 0.5
    linear_from: float | None = None
    halve_down: bool = False

    def __post_init__(self) -> None:
        self.watch: Watch | None = None
        self.given: Tensor | None = None

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The attack behind it, with an observer that counts for the images of this step."""
        self.watch = Watch(y, ctx.observer)
        return super().attack(model, x, y, ctx.changed(observer=self.watch))

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """The terms behind it, each weighted."""
        terms = super().terms(model, x, y, x_adv, ctx)
        weights = self.image_weights(next(iter(terms.values())), ctx)
        if weights is None:
            return terms
        return {name: weights * term for name, term in terms.items()}

    def image_weights(self, like: Tensor, ctx: Context) -> Tensor | None:
        """Weights (B,) by the last attack, in the dtype of `like`; None: all are 1."""
        self.given = None
        number, first = ctx.epoch + 1, round(self.begin * ctx.epochs)
        if self.watch is not None and self.watch.steps and number >= first:
            offset = gairat_offset(
                number, ctx.epochs, first=first, offset=self.offset, start=self.linear_from
            )
            self.given = gairat_weights(
                self.watch.kappa.to(like.dtype),
                steps=self.watch.steps,
                offset=offset,
                assignment=self.assignment,
                halve_down=self.halve_down,
            )
        return self.given


@register_method(
    "gairat",
    paper=PAPER,
    recipe=PaperRecipe(
        arch="wrn-34-10",
        recipe=Recipe(
            epochs=120,
            batch_size=128,
            lr=0.1,
            momentum=0.9,
            nesterov=False,
            weight_decay=2e-4,
            schedule=Schedule(
                kind="multistep",
                milestones=(60, 90, 110),
                factors=(0.1, 0.01, 0.005),
                counted_from=1,
                published_epochs=120,
            ),
            attack=TrainingAttack(eps=0.031, step_size=0.007, steps=10, start="uniform-clipped"),
            drop_last=False,
        ),
        datasets=("cifar10-lt",),
        options={"halve_down": True},
        source="zjfheart/Geometry-aware-Instance-reweighted-Adversarial-Training @ 16813b5, "
        "GAIRAT.py",
        sources={"arch": "theirs is Madry's WRN-32-10; wrn-34-10 is the nearest that ships"},
        checkpoint="best epoch by PGD-20 on the test set: it leaks; the last is kept too",
        test_set="balanced (the paper has no long-tailed runs)",
    ),
    quirks=(
        *QUIRKS,
        "the start is drawn in float32 and clipped to [0, 1]",
        "weights begin at epoch 60 whatever the length; the ResNet-18 schedule (100 epochs, rate "
        "x 0.1 at 30 and 60) lets Lambda start at 30, which has no effect before 60. Here they "
        "begin at a share of the epochs",
        "of the piecewise schedule of Lambda the later branches cannot be reached, so that it "
        "equals the fixed one",
    ),
    passes="K + 1",
)
@dataclass
class GAIRAT(Weighing, PGDAT):
    """Zhang et al. 2021.

    Attributes:
        offset: Lambda.
        assignment: how kappa becomes a weight: tanh, sigmoid or discrete.
        begin: share of the epochs that is trained without weights first.
        linear_from: Lambda goes down in proportion to the epochs from this value to `offset`.
        halve_down: the released code's int(K / 2).
    """


@register_method(
    "gairat-w",
    paper=PAPER,
    released={"halve_down": True},
    quirks=(
        "no paper: GAIRAT's weights on all terms of another loss, kappa counted in its attack; "
        "without a PGD attack of the recipe there are no weights",
        *QUIRKS,
    ),
    passes="base",
)
@dataclass
class GAIRATWeights(Weighing, Modifier):
    """GAIRAT's weights on another defense's loss (no paper).

    Attributes:
        offset: Lambda.
        assignment: how kappa becomes a weight: tanh, sigmoid or discrete.
        begin: share of the epochs that is trained without weights first.
        linear_from: Lambda goes down in proportion to the epochs from this value to `offset`.
        halve_down: the released code's int(K / 2).
    """

    @classmethod
    def refuses(cls, base: Method) -> str | None:
        """A loss that is no mean over images has nothing to weigh."""
        if base.has_terms():
            return None
        return f"gairat-w weighs images, and the loss of {base.name} is no mean over them"
