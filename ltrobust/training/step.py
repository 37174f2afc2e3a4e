"""One training step: attack a batch, take the gradients of the outer loss, step.

Its first part can be recorded and repeated (`captured`); what the optimizer does and what follows
it cannot, for learning rates and running averages change. Nothing here knows of epochs or data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ltrobust.method import Context, Method
from ltrobust.training.engine import TrainingModel
from ltrobust.training.profile import UNTIMED, Clock


def train_step(
    model: nn.Module,
    method: Method,
    x: Tensor,
    y: Tensor,
    ctx: Context,
    optimizer: torch.optim.Optimizer | None = None,
    clock: Clock = UNTIMED,
) -> Tensor:
    """Attack a batch and take one step on the outer loss; its gradients stay in the parameters.

    Args:
        model: maps images to logits; put in train mode here.
        method: the defense.
        x: images (B, ...), float in [0, 1].
        y: labels (B,), int64.
        ctx: what the defense may know of the step.
        optimizer: takes the step; None: nobody does.
        clock: told of the phases.

    Returns:
        The outer loss, a scalar.
    """
    ctx = ctx.changed(optimizer=optimizer)
    value, x_adv = find_gradients(model, method, x, y, ctx, clock)
    take_step(model, method, x, y, x_adv, ctx, clock)
    return value


def find_gradients(
    model: nn.Module, method: Method, x: Tensor, y: Tensor, ctx: Context, clock: Clock = UNTIMED
) -> tuple[Tensor, Tensor]:
    """The outer loss and the attacked images; the gradients are left in the parameters."""
    model.train()
    with clock.phase("attack"):
        x_adv = method.attack(model, x, y, ctx)
    if isinstance(model, TrainingModel):
        model.watch(x_adv if x_adv is not x else None, y)
    model.zero_grad(set_to_none=True)

    def loss() -> Tensor:
        with clock.phase("forward"):
            return method.loss(model, x, y, x_adv, ctx)

    with clock.phase("backward"):
        value = method.backward(loss, model, ctx)
    return value, x_adv


def take_step(
    model: nn.Module,
    method: Method,
    x: Tensor,
    y: Tensor,
    x_adv: Tensor,
    ctx: Context,
    clock: Clock = UNTIMED,
) -> None:
    """Step along the gradients, and do what the method does after it."""
    with clock.phase("optimizer"):
        if ctx.optimizer is not None:
            ctx.optimizer.step()
        method.after_step(model, x, y, x_adv, ctx)
