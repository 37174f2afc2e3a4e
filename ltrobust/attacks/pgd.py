"""The one projected-gradient core; training and evaluation both call it.

FGSM, PGD, MIM, CW, LSA and random noise are settings of `pgd`: a norm, a loss, a number of steps, a
start, a momentum.
This module knows nothing of data sets, recipes or where verdicts are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Literal, cast

import torch
from torch import Tensor, nn

Norm = Literal["Linf", "L2"]
LossFn = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (B, C) and labels (B,) to what the attack maximises, summed over the batch."""


Mode = Literal["eval", "train", "train-kept"]
"""How an attack runs the network: in eval mode; in train mode, where batches are normalised by
their own statistics and move the running ones; or so, but with the running ones put back after."""


@contextmanager
def attack_mode(model: nn.Module, mode: Mode = "eval") -> Iterator[None]:
    """Freeze a model's parameters and set its mode, and restore both afterwards.

    In eval mode batch statistics are neither used nor updated inside. In no mode is a parameter
    gradient computed.
    """
    modes = {module: module.training for module in model.modules()}
    frozen = [p for p in model.parameters() if p.requires_grad]
    model.train(mode != "eval")
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        with kept_buffers(model) if mode == "train-kept" else nullcontext():
            yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def attack_logits(model: nn.Module, x: Tensor, mode: Mode = "eval") -> Tensor:
    """Logits (B, C) of images as an attack sees them: in its mode, without a graph."""
    with attack_mode(model, mode):
        return cast(Tensor, model(x))


@contextmanager
def kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put a model's buffers, such as running statistics, back as they were before."""
    before = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: LossFn) -> Tensor:
    """Gradient of `loss(model(x), y)` with respect to `x`, same shape as `x`."""
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(loss(model(x), y), x)
    return gradient


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    eps: float | Tensor,
    step_size: float | Tensor,
    steps: int,
    loss: LossFn,
    start: Tensor | None = None,
    momentum: float | None = None,
    norm: Norm = "Linf",
    mode: Mode = "eval",
    ball: Ball | None = None,
    project_start: bool = False,
) -> Tensor:
    """Maximise a loss inside the eps ball by projected gradient steps (Madry et al. 2018).

    L-inf: x_{t+1} = clip(x_t + step_size * sign(g_t), x - eps, x + eps), then clipped to [0, 1].
    L2: x_{t+1} = x + project(x_t + step_size * g_t / |g_t| - x), the projection being onto the ball
    of radius eps, then clipped to [0, 1], which only shortens the change. With `momentum` mu, g_t
    is replaced by mu * g_{t-1} + grad_t / mean|grad_t| (MIM, Dong et al. 2018; the mean
    instead of the sum scales all entries alike and leaves the sign as it is).

    The model is in `mode` with frozen parameters while this runs (see `attack_mode`).

    Args:
        model: maps images to logits (B, C).
        x: clean images (B, ...), float in [0, 1]. Not changed.
        y: labels (B,), int64.
        eps: radius in [0, 1] image units (L2: of the whole image), a number or a tensor that
            broadcasts against `x`.
        step_size: length of a step, in the same units.
        steps: number of gradient steps; 0 returns the projected start.
        loss: what to maximise.
        start: offset added to `x` before the first step, same shape as `x`; None starts at `x`.
            As in the published attacks, the first gradient is taken there without clipping.
        momentum: decay factor of MIM; None is plain PGD.
        norm: which ball.
        mode: how the model is run; anything but "eval" is a quirk of released training code.
        ball: makes other steps and another projection than the norm's, from x, eps and step_size.
        project_start: bring the start into the ball and [0, 1] before the first gradient.

    Returns:
        Adversarial images, same shape and dtype as `x`, within eps of `x` and in [0, 1].
    """
    ball = ball or (linf_ball if norm == "Linf" else _l2)
    advance, project = ball(x, eps, step_size)
    x_adv = x.clone() if start is None else x + start
    if project_start:
        x_adv = project(x_adv)
    velocity: Tensor | None = None
    with attack_mode(model, mode):
        for _ in range(steps):
            direction = input_gradient(model, x_adv, y, loss)
            if momentum is not None:
                direction = direction / _mean_size(direction)
                if velocity is not None:
                    direction = direction.add_(velocity, alpha=momentum)
                velocity = direction
            x_adv = project(advance(direction, x_adv))
    return x_adv if steps else project(x_adv)


Advance = Callable[[Tensor, Tensor], Tensor]
"""Takes a direction and images, returns new images a step further; both may be overwritten."""
Ball = Callable[
    [Tensor, float | Tensor, float | Tensor], tuple[Advance, Callable[[Tensor], Tensor]]
]
"""Takes clean images, eps and step size; returns how to step and how to project images, which
includes the clipping to [0, 1]."""


def linf_ball(
    x: Tensor, eps: float | Tensor, step_size: float | Tensor
) -> tuple[Advance, Callable[[Tensor], Tensor]]:
    """Steps along the sign of the gradient, and the projection onto the L-inf ball."""
    lower, upper = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)
    return (
        lambda direction, images: torch.sign(direction).mul_(step_size).add_(images),
        lambda images: torch.clamp_(images, lower, upper),
    )


def _l2(
    x: Tensor, eps: float | Tensor, step_size: float | Tensor
) -> tuple[Advance, Callable[[Tensor], Tensor]]:
    def project(images: Tensor) -> Tensor:
        change = images - x
        # the least bit inside, so that rounding cannot put an image outside
        shrink = (eps * (1 - 1e-6) / length(change)).clamp_max(1)
        return torch.clamp_(change.mul_(shrink).add_(x), 0, 1)

    return lambda direction, images: direction / length(direction) * step_size + images, project


def length(change: Tensor) -> Tensor:
    """Euclidean length of each image's change, (B, 1, ...); never zero, so that it can divide."""
    size = change.flatten(1).norm(dim=1)
    return size.clamp_min(torch.finfo(size.dtype).tiny).view(-1, *[1] * (change.dim() - 1))


def _mean_size(gradient: Tensor) -> Tensor:
    size = gradient.abs().flatten(1).mean(1)
    # a gradient of exact zeros stays zero instead of turning into nan
    return size.clamp_min(torch.finfo(size.dtype).tiny).view(-1, *[1] * (gradient.dim() - 1))
