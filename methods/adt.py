"""ADT-EXP: train on samples of the worst distribution of perturbations around each image.

    delta = eps tanh(mu + sigma r), sigma = softplus(rho), r ~ N(0, 1), per pixel
    mu, rho = argmax mean CE(f(x + delta), y) + lambda H(delta)     (K steps, each of S samples)
    L = CE(f(x + delta), y) with one more sample,     lambda = 0.01, S = 5

Dong et al. 2020, the explicit variant (EXP), which needs no generator. x + delta is
clipped to [0, 1]. mu and rho start at 0 and take steps lr g / (|g| + 1e-8), lr = 0.3 (Adam with
both betas 0), whatever the step size of the recipe; H is the mean entropy per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_mode
from ltrobust.config import Recipe, TrainingAttack
from ltrobust.context import normal
from ltrobust.losses import tanh_gaussian
from ltrobust.method import Citation, Context, Method, PaperRecipe, register_method
from ltrobust.training.schedule import Schedule

ADT_PAPER = Citation(
    authors="Y. Dong, Z. Deng, T. Pang, J. Zhu, H. Su",
    title="Adversarial Distributional Training for Robust Deep Learning",
    venue="NeurIPS",
    year=2020,
    url="https://arxiv.org/abs/2002.05999",
)
ADT_RECIPE = Recipe(
    epochs=76,
    batch_size=64,
    lr=0.1,
    momentum=0.9,
    nesterov=False,
    weight_decay=2e-4,
    schedule=Schedule(
        kind="multistep", milestones=(75, 90, 100), counted_from=1, published_epochs=76
    ),
    attack=TrainingAttack(eps=8 / 255, step_size=0, steps=7, start="none"),
    drop_last=False,
)
ADT_QUIRKS = (
    "of the decays at epochs 75, 90 and 100 only the first falls within its 76 epochs",
    "no long-tailed paper that compares with ADT says which of its variants it ran",
)


@register_method(
    "adt",
    paper=ADT_PAPER,
    recipe=PaperRecipe(
        arch="wrn-28-10",
        recipe=ADT_RECIPE,
        options={"kept_gradients": True},
        source="dongyp13/Adversarial-Distributional-Training @ be5464a, adt_exp.py",
        sources={"step_size": "unused: mu and rho take steps of the option lr"},
        checkpoint="every fifth epoch, and each from 71 on, are kept",
        test_set="balanced (the paper has no long-tailed runs)",
    ),
    quirks=(
        *ADT_QUIRKS,
        "kept_gradients: the inner gradients are never cleared, so that each step follows the sum "
        "of all gradients so far; clearing them moves 38 to 51 % of the pixels by more than 0.001",
        "1e-8 beside |g| matters: the entropy is a mean over all pixels of the batch, so that its "
        "gradient in a pixel is tiny; kept in both recipes",
        "nothing is projected beyond tanh and [0, 1], and the image that is trained on is one more "
        "sample, not the worst seen",
        "S samples at each of the K steps: about three times the passes of PGD-AT in its own "
        "recipe (35 + 1), five times at an equal K",
    ),
    passes="5 K + 1",
    aliases=("adt-exp",),
)
@dataclass
class ADT(Method):
    """Dong et al. 2020, explicit variant.

    Attributes:
        samples: samples S a step.
        lr: step of mu and rho, in the argument of tanh.
        entropy: weight lambda of the entropy.
        kept_gradients: never clear the inner gradients, as the code does.
    """

    samples: int = 5
    lr: float = 0.3
    entropy: float = 0.01
    kept_gradients: bool = False

    def noise(self, x: Tensor, ctx: Context) -> Tensor:
        """Draw standard normal noise shaped like `x`."""
        return ctx.drawn(x, normal)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Find the worst distribution, and draw one image from it."""
        mean, raw = torch.zeros_like(x), torch.zeros_like(x)
        total: tuple[Tensor, Tensor] | None = None
        with attack_mode(model, ctx.mode):
            for _ in range(ctx.attack.steps):
                total = total if self.kept_gradients else None
                for _ in range(self.samples):
                    found = self._gradients(model, x, y, mean, raw, ctx)
                    total = found if total is None else (total[0] + found[0], total[1] + found[1])
                for values, gradient in zip((mean, raw), total or (), strict=True):
                    values.add_(gradient / (gradient.abs() + 1e-8), alpha=self.lr)
        sample, _ = tanh_gaussian(mean, raw, self.noise(x, ctx))
        return (x + ctx.radius(x) * sample).clamp(0, 1)

    def _gradients(
        self, model: nn.Module, x: Tensor, y: Tensor, mean: Tensor, raw: Tensor, ctx: Context
    ) -> tuple[Tensor, Tensor]:
        """Gradients of the inner objective at one sample, shaped like `x`."""
        noise, radius = self.noise(x, ctx), ctx.radius(x)

        def of(piece: slice) -> tuple[Tensor, ...]:
            eps = radius[piece] if isinstance(radius, Tensor) else radius
            at = tuple(values[piece].requires_grad_() for values in (mean, raw))
            with torch.enable_grad():
                sample, entropy = tanh_gaussian(*at, noise[piece])
                logits = model((x[piece] + eps * sample).clamp(0, 1))
                value = F.cross_entropy(logits, y[piece], reduction="sum") / len(x)
                value = value + self.entropy * entropy.sum() / x.numel()
                return torch.autograd.grad(value, at)

        means, raws = ctx.by_pieces(len(x), of)
        return means, raws

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE of the drawn images."""
        return {"attacked": F.cross_entropy(model(x_adv), y, reduction="none")}
