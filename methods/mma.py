"""MMA: max-margin adversarial training, with a radius of its own for every image.

    m(x)  = log sum_{j != y} exp f_j(x) - f_y(x); an image is right where m(x) < 0
    right: x' = PGD on m within the margin found last, e = bisection for m(x + u e) = 0 along
           u = (x' - x) / margin, trained at x + u e with CE while e < d_max
    wrong: trained clean with CE
    L = (1 - c) mean[those terms] + c CE(f(x), y),     c = 1/3

Ding et al. 2020. d_max is 1.5 eps (12/255 at 8/255); the bisection ends
at 1.05 d_max, and each image remembers its margin e from epoch to epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.attacks.pgd import Mode, attack_logits
from ltrobust.config import Recipe, TrainingAttack
from ltrobust.losses import soft_logit_margin
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.training.schedule import Schedule


@register_method(
    "mma",
    paper=Citation(
        authors="G. W. Ding, Y. Sharma, K. Y. C. Lui, R. Huang",
        title="MMA Training: Direct Input Space Margin Maximization through Adversarial Training",
        venue="ICLR",
        year=2020,
        url="https://arxiv.org/abs/1812.02637",
    ),
    recipe=PaperRecipe(
        arch="wrn-28-10",
        recipe=Recipe(
            epochs=142,
            batch_size=128,
            lr=0.3,
            momentum=0.9,
            nesterov=False,
            weight_decay=2e-4,
            schedule=Schedule(
                kind="multistep",
                milestones=(57, 85, 114),
                factors=(0.3, 0.1, 0.03),
                counted_from=0,
                published_epochs=142,
            ),
            attack=TrainingAttack(eps=8 / 255, step_size=2 / 255, steps=10, start="uniform"),
            drop_last=False,
        ),
        options={"train_mode": True},
        source="BorealisAI/mma_training @ 328e2e5, config.py, train.py",
        sources={
            "arch": "the release's is WRN-28-4, which is not among ours: the next wider one",
            "epochs": "50,000 steps of 128 of 45,000 training images",
            "schedule": "0.3, 0.09, 0.03, 0.009 from steps 20k, 30k, 40k on",
            "step_size": "unused: 2.5 margin / steps",
        },
        checkpoint="best mean margin on held-out training images",
        test_set="balanced (the paper has no long-tailed runs)",
    ),
    quirks=(
        "train_mode: an image is right or wrong by batch statistics, and the bisection runs in "
        "train mode on the right images of the batch alone: 12 more updates of the running "
        "statistics a step, and a margin that depends on the batch (of nine right images of one "
        "batch three end at a thousandth of their radius)",
        "an image is right only where its class has more than half of the mass, which with many "
        "classes few images reach early on; all others are trained clean",
        "images whose margin reached d_max leave the sum but not the divisor of the mean",
        "the largest margins are float32, so that the search ends 1e-9 elsewhere",
        "12 more passes a step than PGD-AT, 11 of them forward only",
    ),
    passes="K + 13",
)
@dataclass
class MMA(Method):
    """Ding et al. 2020. Radii are in units of the recipe's eps.

    Attributes:
        d_max: margins up to here are trained; 12/255 where eps is 8/255.
        search_max: where the bisection ends, in units of d_max.
        min_margin: least radius of the attack; 0.005 where eps is 8/255.
        step_scale: step size, in units of the image's radius / steps.
        search_steps: steps of the bisection.
        clean_weight: weight c of the clean loss.
        train_mode: judge and bisect in train mode, as the code does.
    """

    d_max: float = 1.5
    search_max: float = 1.05
    min_margin: float = 0.159375
    step_scale: float = 2.5
    search_steps: int = 10
    clean_weight: float = 1 / 3
    train_mode: bool = False

    def __post_init__(self) -> None:
        self.margins: Tensor | None = None
        self._counted: Tensor | None = None

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Move the images that are right to where they stop being so, or to d_max."""
        if self.margins is None:
            self.margins = torch.zeros(int(self.class_counts.sum()))
        assert ctx.index is not None
        self.margins = self.margins.to(x.device)
        unit = ctx.attack.eps * (1.0 if ctx.eps_factor is None else ctx.eps_factor.to(x))
        right = self._score(model, x, y, ctx) < 0
        radius = self.margins[ctx.index].to(x).maximum(_on_device(unit * self.min_margin, x))
        plain = ctx.changed(
            eps_factor=None,
            step_factor=None,
            start_factor=radius / max(ctx.attack.eps, 1e-12),
        )
        steps = max(1, ctx.attack.steps)
        found = plain.pgd(
            model, x, y, _margins, eps=radius, step_size=self.step_scale / steps * radius
        )
        direction = (found - x) / radius.clamp_min(1e-12).view(-1, *[1] * (x.dim() - 1))
        limit = _on_device(unit * self.d_max, x).expand(len(x))
        margin = self._bisected(model, x, y, direction, radius, limit, right, ctx)
        self.margins[ctx.index] = margin.to(self.margins.dtype)
        self._counted = ~right | (margin < limit)
        return _moved(x, direction, margin)

    def _score(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """The soft logit margin (B,); below 0 an image is right."""
        mode: Mode = "train" if self.train_mode else ctx.mode

        def of(piece: slice) -> tuple[Tensor, ...]:
            return (soft_logit_margin(attack_logits(model, x[piece], mode), y[piece]),)

        return ctx.changed(mode=mode).by_pieces(len(x), of)[0]

    def _bisected(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        direction: Tensor,
        radius: Tensor,
        limit: Tensor,
        right: Tensor,
        ctx: Context,
    ) -> Tensor:
        """Distance (B,) along `direction` at which an image stops being right; wrong ones: 0."""
        judged = right.nonzero()[:, 0] if self.train_mode else torch.arange(len(x), device=x.device)
        end = radius.new_zeros(len(x))
        if self.train_mode and not len(judged):
            return end

        def crossed(at: Tensor) -> Tensor:
            moved = _moved(x[judged], direction[judged], at)
            return self._score(model, moved, y[judged], ctx) >= 0

        first = radius[judged]
        past = crossed(first)
        low = torch.where(past, 0, first)
        high = torch.where(past, first, (self.search_max * limit)[judged])
        for _ in range(self.search_steps):
            middle = (low + high) / 2
            past = crossed(middle)
            low, high = torch.where(past, low, middle), torch.where(past, middle, high)
        end[judged] = high
        return torch.where(right, end, 0)

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE of clean images, and of all that are wrong or below d_max where they now are."""
        assert self._counted is not None
        with _still_statistics(model, self.train_mode):  # the attack's first pass moved them
            clean = F.cross_entropy(model(x), y, reduction="none")
        moved = F.cross_entropy(model(x_adv), y, reduction="none")
        return {
            "natural": self.clean_weight * clean,
            "attacked": (1 - self.clean_weight) * self._counted * moved,
        }

    def state_dict(self) -> dict[str, Any]:
        """The margin of every training image."""
        return {} if self.margins is None else {"margins": self.margins}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.margins = state.get("margins")

    def inference_state(self) -> dict[str, Tensor]:
        """Nothing: margins are for training."""
        return {}


def _on_device(value: float | Tensor, x: Tensor) -> Tensor:
    """A number, or one for each image, as a tensor beside `x` and in its dtype."""
    return value.to(x) if isinstance(value, Tensor) else x.new_full((), value)


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    """What the attack maximises, summed over the images."""
    return soft_logit_margin(logits, labels).sum()


def _moved(x: Tensor, direction: Tensor, distance: Tensor) -> Tensor:
    """Images at a distance (B,) from `x` along a direction."""
    return (x + direction * distance.view(-1, *[1] * (x.dim() - 1))).clamp(0, 1)


@contextmanager
def _still_statistics(model: nn.Module, still: bool) -> Iterator[None]:
    """Normalise by batch statistics without moving the running ones."""
    tracking = [m for m in model.modules() if still and getattr(m, "track_running_stats", False)]
    for module in tracking:
        module.track_running_stats = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in tracking:
            module.track_running_stats = True  # type: ignore[assignment]
