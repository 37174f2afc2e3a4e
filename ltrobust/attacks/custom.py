"""Attacks from outside: one function, registered under a name, that changes images.

The evaluation attacks the images that are right without an attack, holds what it gets to the radius
and takes the verdict with the float32 network; an attack need not and cannot decide it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ltrobust.errors import RunError, UserError
from ltrobust.registry import Registry

AttackFunction = Callable[[nn.Module, Tensor, Tensor, float, torch.Generator], Tensor]
"""`attack(model, x, y, eps, generator)`: images (B, ...) in [0, 1] and labels (B,) to images of the
same shape within eps (L-inf) of x and within [0, 1]. The model is in eval mode and maps images to
logits; gradients are off until `torch.enable_grad()`. Draw from the generator only."""

ATTACKS: Registry[AttackFunction] = Registry("attack")
BATCH = 250
"""Images at a time: an attack may depend on its batch, so it is part of the settings."""
ROUNDING = 1e-6
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")


def register_attack(name: str) -> Callable[[AttackFunction], AttackFunction]:
    """Register an attack under `name`, which `--attacks` then takes, also as `name@EPS`.

    Raises:
        UserError: the name is taken, or holds what means something in `--attacks`.
    """
    check_attack_name(name)
    return ATTACKS.register(name)


def check_attack_name(name: str) -> None:
    """Raise UserError for a name that no attack from outside can have."""
    from ltrobust.attacks.suite import GRAMMAR  # which looks up what is registered here

    if not NAME.fullmatch(name):
        raise UserError(f"attack name '{name}' may hold letters, digits, '-' and '_' only")
    if GRAMMAR.fullmatch(name):
        raise UserError(f"attack '{name}' has the name of one that ships; choose another")


def attacked_images(
    name: str, model: nn.Module, x: Tensor, y: Tensor, eps: float, generator: torch.Generator
) -> Tensor:
    """Run a registered attack and hold it to its radius.

    Raises:
        RunError: it returns something else than images near `x`.
    """
    found = ATTACKS.get(name)(model, x.clone(), y.clone(), eps, generator)
    if not isinstance(found, Tensor) or found.shape != x.shape or not found.is_floating_point():
        raise RunError(f"attack {name} must return float images of shape {tuple(x.shape)}")
    found = found.detach().to(x.dtype)
    found = torch.where(found.isfinite(), found, x)
    change = float((found - x).abs().max()) if len(x) else 0.0
    if change > eps + ROUNDING:
        raise RunError(f"attack {name} changes pixels by {change:.4g}, eps {eps:.4g}")
    if len(x) and (found.min() < -ROUNDING or found.max() > 1 + ROUNDING):
        raise RunError(f"attack {name} leaves [0, 1]")
    return found.clamp(0, 1)
