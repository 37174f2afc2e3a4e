"""The one projected-gradient core; training and evaluation both call it.

FGSM, PGD, MIM, CW and LSA are settings of `pgd`: a loss, a number of steps, a start, a momentum.
This module knows nothing of data sets, recipes or where verdicts are stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

LossFn = Callable[[Tensor, Tensor], Tensor]
"""Maps logits (B, C) and labels (B,) to what the attack maximises, summed over the batch."""


@contextmanager
def attack_mode(model: nn.Module) -> Iterator[None]:
    """Put `model` in eval mode with frozen parameters, and restore both afterwards.

    Batch statistics are neither used nor updated inside, and no parameter gradient is computed.
    """
    training = {module: module.training for module in model.modules()}
    frozen = [p for p in model.parameters() if p.requires_grad]
    model.eval()
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)
        for module, mode in training.items():
            module.training = mode


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
) -> Tensor:
    """Maximise a loss inside the L-inf ball by signed gradient steps (Madry et al. 2018).

    x_{t+1} = clip(x_t + step_size * sign(g_t), x - eps, x + eps), then clipped to [0, 1]. With
    `momentum` mu, g_t is replaced by mu * g_{t-1} + grad_t / mean|grad_t| (MIM, Dong et al. 2018,
    eq. 6; the mean instead of the sum scales all entries alike and leaves the sign as it is).

    The model is in eval mode with frozen parameters while this runs (see `attack_mode`).

    Args:
        model: maps images to logits (B, C).
        x: clean images (B, ...), float in [0, 1]. Not changed.
        y: labels (B,), int64.
        eps: radius in [0, 1] image units, a number or a tensor that broadcasts against `x`.
        step_size: length of a step, in the same units.
        steps: number of gradient steps; 0 returns the projected start.
        loss: what to maximise.
        start: offset added to `x` before the first step, same shape as `x`; None starts at `x`.
            As in the published attacks, the first gradient is taken there without clipping.
        momentum: decay factor of MIM; None is plain PGD.

    Returns:
        Adversarial images, same shape and dtype as `x`, within eps of `x` and in [0, 1].
    """
    lower, upper = (x - eps).clamp_(0, 1), (x + eps).clamp_(0, 1)
    x_adv = x.clone() if start is None else x + start
    velocity: Tensor | None = None
    with attack_mode(model):
        for _ in range(steps):
            direction = input_gradient(model, x_adv, y, loss)
            if momentum is not None:
                direction = direction / _mean_size(direction)
                if velocity is not None:
                    direction = direction.add_(velocity, alpha=momentum)
                velocity = direction
            x_adv = torch.sign(direction).mul_(step_size).add_(x_adv)
            x_adv = torch.clamp_(x_adv, lower, upper)
    return x_adv if steps else torch.clamp(x_adv, lower, upper)


def _mean_size(gradient: Tensor) -> Tensor:
    size = gradient.abs().flatten(1).mean(1)
    # a gradient of exact zeros stays zero instead of turning into nan
    return size.clamp_min(torch.finfo(size.dtype).tiny).view(-1, *[1] * (gradient.dim() - 1))
