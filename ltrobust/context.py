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

from ltrobust.attacks.pgd import Advance, Ball, Mode, linf_ball, pgd
from ltrobust.config import TrainingAttack
from ltrobust.team import Team

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
        team: processes among which attacks are shared out; None: this one does all.
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
        told_radius: told the radius of each attack, as it broadcasts against the whole batch.
        project_start: bring the random start into the ball before the first gradient.
    """

    class_counts: Tensor
    epoch: int
    epochs: int
    attack: TrainingAttack
    generator: torch.Generator
    micro_batch: int | None = None
    team: Team | None = None
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
    told_radius: Callable[[Radius], None] | None = None
    project_start: bool = False

    def changed(self, **changes: Any) -> Context:
        """A copy with other values; randomness is still drawn from the same generators."""
        return replace(self, **changes)

    def whole(self) -> Context:
        """A copy that attacks a batch in one piece, for attacks in which images see each other."""
        return self.changed(micro_batch=None, team=None)

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
        rest: Tensor | None = None,
    ) -> Tensor:
        """Run the recipe's PGD on `loss` from a fresh random start, drawn for the whole batch.

        The batch may be attacked in pieces (`micro_batch`, `team`), so a loss must not look at
        tensors of the whole batch on its own: it is given its rows of them.

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
            rest: after how many of them each image (B,) stays where it is; None: none does.

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
        if self.told_radius is not None:
            self.told_radius(_column(sizes[0], x) if isinstance(sizes[0], Tensor) else sizes[0])

        def attacked(piece: slice) -> tuple[Tensor, ...]:
            return self._attacked(model, x, y, loss, rows, piece, start, sizes, steps, rest)

        x_adv, *logits = self.by_pieces(len(x), attacked)
        self._replay(logits, y)
        return x_adv

    def by_pieces(self, n: int, work: Callable[[slice], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Do what treats each image of a batch of n on its own, piece by piece.

        With a `team` each process does its pieces and gets those of the others.

        Args:
            n: images of the batch.
            work: takes the piece of the batch to do; returns tensors (b, ...) of its b images.

        Returns:
            The same tensors for all images, (n, ...).
        """
        share = self._share(n)
        own = slice(0, n) if share is None else share
        found = [work(piece) for piece in self._cut(own)]
        parts = tuple(
            one[0] if len(one) == 1 else torch.cat(one) for one in zip(*found, strict=True)
        )
        if share is None or self.team is None:
            return parts
        self.team.shared += 1
        return tuple(self.team.gathered(part) for part in parts)

    def _share(self, n: int) -> slice | None:
        """The rows that this process attacks; None: all, and nobody else has them."""
        if self.team is None or self.mode != "eval":  # batch statistics are of the whole batch
            return None
        return self.team.share(n)

    def _cut(self, rows: slice) -> list[slice]:
        """Some rows of a batch in pieces that are attacked one after the other."""
        n = rows.stop - rows.start
        size = self.micro_batch or n
        if size >= n or self.mode != "eval":  # as above
            return [rows]
        starts = range(rows.start, rows.stop, size)
        return [slice(first, min(first + size, rows.stop)) for first in starts]

    def _replay(self, logits: list[Tensor], y: Tensor) -> None:
        """Tell the observer of the steps of an attack that was shared out, for the whole batch."""
        if logits and self.observer is not None:
            positions = torch.arange(len(y), device=y.device)
            for step in logits[0].unbind(1):
                self.observer(step, y, positions)

    def _unclipped(self, factor: Tensor | None) -> Tensor | None:
        """A factor of start or step; where nothing clips to the radius, that one's makes up for it.

        So a modifier that gives images other radii still does so under N-FGSM.
        """
        return self.eps_factor if factor is None and not self.attack.project else factor

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
        rest: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """A piece's attacked images and, for an observer of shared rows, its steps' logits."""
        eps, step_size = (
            _column(size[piece], x) if isinstance(size, Tensor) else size for size in sizes
        )
        few = [tensor[piece] for tensor in rows]
        positions = torch.arange(len(x), device=x.device)[piece]
        shared = self._share(len(x)) is not None
        seen: list[Tensor] = []

        def watched(logits: Tensor, labels: Tensor) -> Tensor:
            if self.observer is not None and shared:
                seen.append(logits.detach())
            elif self.observer is not None:
                self.observer(logits.detach(), labels, positions)
            return loss(logits, labels, *few)

        x_adv = pgd(
            model,
            x[piece],
            y[piece],
            eps=eps,
            step_size=step_size,
            steps=steps,
            loss=watched,
            start=None if start is None else start[piece],
            mode=self.mode,
            ball=self.ball if rest is None else resting(rest[piece], self.ball or linf_ball),
            project_start=self.project_start,
        )
        return (x_adv, torch.stack(seen, 1)) if seen else (x_adv,)


def resting(steps: Tensor, ball: Ball) -> Ball:
    """A ball in which image i stays where it is after `steps[i]` steps.

    Args:
        steps: int64 (B,).
        ball: how images move before.
    """

    def build(
        x: Tensor, eps: float | Tensor, step_size: float | Tensor
    ) -> tuple[Advance, Callable[[Tensor], Tensor]]:
        advance, project = ball(x, eps, step_size)
        done = 0

        def moved(direction: Tensor, images: Tensor) -> Tensor:
            nonlocal done
            going, done = (steps > done).view(-1, *[1] * (x.dim() - 1)), done + 1
            return torch.where(going, advance(direction, images.clone()), images)

        return moved, project

    return build


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
