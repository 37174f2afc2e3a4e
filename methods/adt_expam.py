"""ADT-EXP-AM: adversarial distributional training with a generator of the distributions.

    mu, rho = G(x, grad_x CE, grad_x' CE),  x' = x + eps sign(grad_x CE)   (network in eval mode)
    delta   = eps tanh(mu + sigma r), sigma = softplus(rho), r ~ N(0, 1), per pixel
    min over f, max over G of  CE(f(x + delta), y) + lambda H(delta),     lambda = 0.01

Dong et al. 2020, the amortised variant of ADT-EXP. Both networks learn from one
backward pass, whose gradient at x + delta is reversed for G. H is the mean entropy per pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from ltrobust.methods.adt import ADT_PAPER, ADT_QUIRKS, ADT_RECIPE
from torch import Tensor, nn

from ltrobust.attacks.pgd import attack_mode, input_gradient
from ltrobust.context import normal
from ltrobust.losses import cross_entropy_sum, tanh_gaussian
from ltrobust.method import Context, Loss, Method, PaperRecipe, register_method
from ltrobust.part import Part

BLOCKS = 3


class Generator(nn.Sequential):
    """A residual network from images and two gradients (B, 3c, H, W) to mu and rho (B, 2c, H, W).

    Args:
        channels: channels c of the images.
        width: channels inside.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(
            *_layer(3 * channels, width),
            *(Residual(width) for _ in range(BLOCKS)),
            nn.Conv2d(width, 2 * channels, 3, padding=1),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*_layer(width, width), *_layer(width, width)[:2])

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, width, H, W) to the same shape."""
        return x + self.layers(x)


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU()


@register_method(
    "adt-expam",
    paper=ADT_PAPER,
    recipe=PaperRecipe(
        arch="wrn-28-10",
        recipe=ADT_RECIPE,
        options={"width": 256},
        source="dongyp13/Adversarial-Distributional-Training @ be5464a, adt_expam.py",
        sources={"step_size": "unused", "steps": "unused: the generator is asked once"},
        checkpoint="every fifth epoch, and each from 71 on, are kept",
        test_set="balanced (the paper has no long-tailed runs)",
    ),
    quirks=(
        *ADT_QUIRKS,
        "the generator reads raw gradients of the batch's mean loss, which shrink with the batch "
        "size and as training goes on",
        "the generator here is a plain residual network of three blocks (width 256 in the paper's "
        "recipe); that of the release also works at lower resolutions inside",
    ),
    passes="2 + 1",
    aliases=("adt-exp-am",),
)
@dataclass
class ADTExpAM(Method):
    """Dong et al. 2020, explicit variant with a generator that is trained along.

    Attributes:
        entropy: weight lambda of the entropy.
        width: channels inside the generator.
        generator_lr: learning rate of its Adam, whose betas are 0.5 and 0.999.
    """

    entropy: float = 0.01
    width: int = 64
    generator_lr: float = 2e-4

    def __post_init__(self) -> None:
        self.part = Part(
            self.make_generator,
            lambda parameters: torch.optim.Adam(
                parameters, lr=self.generator_lr, betas=(0.5, 0.999)
            ),
        )
        self._generated: tuple[Tensor, Tensor] | None = None
        self._attacked: Tensor | None = None

    def make_generator(self, x: Tensor) -> nn.Module:
        """Build the generator for images like `x` (B, c, H, W)."""
        return Generator(x.shape[1], self.width)

    def noise(self, x: Tensor, ctx: Context) -> Tensor:
        """Draw standard normal noise shaped like `x`."""
        return ctx.drawn(x, normal)

    def attack(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Draw an image from the distribution that the generator finds."""
        eps = ctx.radius(x)
        with attack_mode(model, ctx.mode):
            first = self._gradient(model, x, y, ctx)
            second = self._gradient(model, (x + eps * first.sign()).clamp(0, 1), y, ctx)
        with torch.enable_grad():
            mean, raw = self.part.ready(x, ctx)(torch.cat([x, first, second], 1)).chunk(2, 1)
            sample, entropy = tanh_gaussian(mean, raw, self.noise(x, ctx))
            x_adv = (x + eps * sample).clamp(0, 1)
        self._generated = (x_adv, entropy.flatten(1).mean(1))
        return x_adv.detach()

    def _gradient(self, model: nn.Module, x: Tensor, y: Tensor, ctx: Context) -> Tensor:
        """Gradient of the batch's mean cross-entropy, shaped like `x`."""

        def of(piece: slice) -> tuple[Tensor, ...]:
            return (input_gradient(model, x[piece], y[piece], cross_entropy_sum),)

        return ctx.by_pieces(len(x), of)[0] / len(x)

    def terms(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> dict[str, Tensor]:
        """CE of the drawn images minus lambda times the entropy, in which f has no part."""
        assert self._generated is not None
        self._attacked = x_adv.requires_grad_()
        losses = F.cross_entropy(model(x_adv), y, reduction="none")
        return {"attacked": losses - self.entropy * self._generated[1].detach()}

    def backward(self, loss: Loss, model: nn.Module, ctx: Context) -> Tensor:
        """Gradients of the classifier, and, reversed, those of the generator."""
        value = loss()
        assert self._attacked is not None
        assert self._generated is not None
        self._attacked.grad = None
        value.backward()
        reached = self._attacked.grad
        x_adv, entropy = self._generated
        self.part.zero_grad()
        upstream = torch.zeros_like(x_adv) if reached is None else -reached
        torch.autograd.backward(
            [x_adv, entropy], [upstream, torch.full_like(entropy, -self.entropy / len(entropy))]
        )
        self._attacked = self._generated = None
        return value

    def after_step(
        self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor, ctx: Context
    ) -> None:
        """Let the generator take its step."""
        self.part.step()

    def state_dict(self) -> dict[str, Any]:
        """The generator and its optimizer."""
        return self.part.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them back."""
        self.part.load_state_dict(state)

    def inference_state(self) -> dict[str, Tensor]:
        """Nothing: the generator is for training."""
        return {}
