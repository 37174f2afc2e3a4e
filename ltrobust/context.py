"""What the trainer tells a defense about a step, and the recipe's attack as it is to be run.

Modifiers change the attack of whatever they wrap through copies of the context (`changed`): radii
and step sizes image by image, the mode of the network, the shape of the ball. The attack itself is
the one PGD core.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ltrobust.attacks.pgd import Ball, Mode, pgd
from ltrobust.config import TrainingAttack

Observer = Callable[[Tensor, Tensor, Tensor], None]
"""Told of every step of an attack: logits (b, C), labels (b,), positions (b,) in the batch."""
Radius = float | Tensor
Fill = Callable[[Tensor, torch.Generator], Tensor]
"""Fills a tensor with random numbers from a generator, and returns it."""


@dataclass(frozen=True)
class HeldOut:
    """Images that judge a training while it goes on: training images that are held out of it.

    Classes that are too small to spare any are judged on the images that they are trained on.

    Attributes:
        images: float (V, C, H, W) in [0, 1], not augmented.
        labels: int64 (V,).
    """

    images: Tensor
    labels: Tensor


@dataclass
class Context:
    """What the trainer tells a defense about the step.

    Attributes:
        class_counts: training images per class, int64 (C,), on the device of the batch.
        epoch: number of the epoch, from 0; in a fine-tuning it goes on from the base's last.
        epochs: number of epochs of the run, those of a fine-tuning's base included.
        attack: the recipe's inner attack.
        generator: source of the attack's randomness, on the device of the batch.
        micro_batch: how many images `pgd` attacks at a time, to save memory; None: all.
        first_epoch: the first epoch of the run itself: 0, or in a fine-tuning its base's epochs.
        model: the network in training; for what is done between steps.
        index: positions (B,) of the batch's images in the training set, int64.
        sampling: source of randomness for a sampler, on the CPU.
        held_out: images for feedback, for methods that ask for them.
        lr: the learning rate of the epoch.
        batch: number of the batch in its epoch, from 0.
        optimizer: what takes the step, for methods that look at its settings and state.
        eps_factor: factor (B,) of the recipe's eps for each image; None: 1.
        step_factor: the same for the step size.
        start_factor: the same for the random start.
        mode: how the network is run in attacks.
        ball: other steps and another projection than those of the L-inf ball.
        observer: told of every step of an attack.
        project_start: bring the random start into the ball before the first gradient.
    """

    class_counts: Tensor
    epoch: int
    epochs: int
    attack: TrainingAttack
    generator: torch.Generator
    micro_batch: int | None = None
    first_epoch: int = 0
    model: nn.Module | None = None
    index: Tensor | None = None
    sampling: torch.Generator | None = None
    held_out: HeldOut | None = None
    lr: float = 0.0
    batch: int = 0
    optimizer: torch.optim.Optimizer | None = None
    eps_factor: Tensor | None = None
    step_factor: Tensor | None = None
    start_factor: Tensor | None = None
    mode: Mode = "eval"
    ball: Ball | None = None
    observer: Observer | None = None
    project_start: bool = False

    def changed(self, **changes: Any) -> Context:
        """A copy with other values; randomness is still drawn from the same generators."""
        return replace(self, **changes)

    def scaled(
        self, eps: Tensor, *, step_size: Tensor | None = None, start: Tensor | None = None
    ) -> Context:
        """A copy whose attack has other radii, image by image; factors multiply earlier ones.

        Args:
            eps: factor (B,) of the radius.
            step_size: factor (B,) of the step size; None: as it is.
            start: factor (B,) of the random start; None: as it is.
        """
        return self.changed(
            eps_factor=_product(self.eps_factor, eps),
            step_factor=_product(self.step_factor, step_size),
            start_factor=_product(self.start_factor, start),
        )

    def drawn(self, like: Tensor, fill: Fill) -> Tensor:
        """Random numbers shaped like `like`, in its dtype: all that attack and loss draw.

        Where the step is recorded and repeated (`training.captured`), they come from outside.

        Args:
            like: gives shape, dtype and device.
            fill: draws them, such as `normal`; it must not depend on the step.
        """
        return fill(torch.empty_like(like), self.generator)

    def start(self, x: Tensor) -> Tensor | None:
        """Draw the random start offset that the recipe asks for, shaped like `x`."""
        kind, eps = self.attack.start, self.attack.eps
        if kind == "none":
            return None
        if kind == "gaussian":
            noise = self.drawn(x, normal).mul_(0.001)
        else:
            reach = eps * self.attack.start_scale
            low = 0.0 if kind == "one-sided" else -reach
            noise = self.drawn(x, lambda values, g: values.uniform_(low, reach, generator=g))
        factor = self._unclipped(self.start_factor)
        if factor is not None:
            noise.mul_(_column(factor, x))
        return noise.clamp_(-x, 1 - x) if kind == "uniform-clipped" else noise

    def pgd(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        loss: Callable[..., Tensor],
        *rows: Tensor,
        eps: Radius | None = None,
        step_size: Radius | None = None,
        steps: int | None = None,
    ) -> Tensor:
        """Run the recipe's PGD on `loss` from a fresh random start, drawn for the whole batch.

        The batch may be attacked in pieces (`micro_batch`), so a loss must not look at tensors of
        the whole batch on its own: it is given its rows of them.

        Args:
            model: maps images to logits.
            x: clean images (B, ...), float in [0, 1].
            y: labels (B,), int64.
            loss: maps logits (b, C), labels (b,), and its b rows of each of `rows`, to what is
                maximised, summed over the b images.
            rows: further tensors (B, ...) that the loss needs, such as clean logits.
            eps: another radius than the recipe's, a number or (B,); the context's factors apply,
                and images are kept within it whatever the recipe says.
            step_size: another step size, likewise.
            steps: another number of steps.

        Returns:
            Adversarial images, shaped like `x`.
        """
        start = self.start(x)
        step_size = self.attack.step_size if step_size is None else step_size
        free = eps is None and not self.attack.project
        sizes = (
            math.inf if free else _sized(self.attack.eps if eps is None else eps, self.eps_factor),
            _sized(step_size, self._unclipped(self.step_factor)),
        )
        steps = self.attack.steps if steps is None else steps
        pieces = self.pieces(len(x))
        attacked = [self._attacked(model, x, y, loss, rows, p, start, sizes, steps) for p in pieces]
        return attacked[0] if len(attacked) == 1 else torch.cat(attacked)

    def _unclipped(self, factor: Tensor | None) -> Tensor | None:
        """A factor of start or step; where nothing clips to the radius, that one's makes up for it.

        So a modifier that gives images other radii still does so under N-FGSM.
        """
        return self.eps_factor if factor is None and not self.attack.project else factor

    def pieces(self, n: int) -> list[slice]:
        """The parts of a batch of n images that are attacked one after the other."""
        size = self.micro_batch or n
        if size >= n or self.mode != "eval":  # batch statistics are those of the whole batch
            size = max(1, n)
        return [slice(first, first + size) for first in range(0, max(1, n), size)]

    def radius(self, x: Tensor) -> Radius:
        """The attack's radius of each image, as it broadcasts against `x` (B, ...)."""
        eps = _sized(self.attack.eps, self.eps_factor)
        return _column(eps, x) if isinstance(eps, Tensor) else eps

    def _attacked(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        loss: Callable[..., Tensor],
        rows: tuple[Tensor, ...],
        piece: slice,
        start: Tensor | None,
        sizes: tuple[Radius, Radius],
        steps: int,
    ) -> Tensor:
        eps, step_size = (
            _column(size[piece], x) if isinstance(size, Tensor) else size for size in sizes
        )
        few = [tensor[piece] for tensor in rows]
        positions = torch.arange(len(x), device=x.device)[piece]

        def watched(logits: Tensor, labels: Tensor) -> Tensor:
            if self.observer is not None:
                self.observer(logits.detach(), labels, positions)
            return loss(logits, labels, *few)

        return pgd(
            model,
            x[piece],
            y[piece],
            eps=eps,
            step_size=step_size,
            steps=steps,
            loss=watched,
            start=None if start is None else start[piece],
            mode=self.mode,
            ball=self.ball,
            project_start=self.project_start,
        )


def normal(values: Tensor, generator: torch.Generator) -> Tensor:
    """Fill with standard normal numbers."""
    return values.normal_(generator=generator)


def _product(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    return other if one is None else one if other is None else one * other


def _sized(size: Radius, factor: Tensor | None) -> Radius:
    return size if factor is None else size * factor


def _column(values: Tensor, x: Tensor) -> Tensor:
    """Values of images (B,) as they broadcast against images (B, ...), in their dtype."""
    return values.to(x.dtype).view(-1, *[1] * (x.dim() - 1))
