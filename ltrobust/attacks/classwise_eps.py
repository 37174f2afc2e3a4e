"""RobustLT's class-wise perturbation budgets and their growth over the epochs, as pure functions.

It does not attack: multiply the two, index with the labels, and hand the result to the PGD core.
"""

from __future__ import annotations

import torch
from torch import Tensor


def classwise_epsilon(class_counts: Tensor, *, epsilon: float, alpha: float) -> Tensor:
    """eps_c = eps [(1 - alpha) + tau sqrt(log(n_max / n_c))], tau so that the mean is eps.

    Zhang et al. 2026, "Taming the long tail" (RobustLT), class-wise budgets:
    tau = alpha / sum_c p_c sqrt(log(n_max / n_c)), p_c = n_c / N.
    The largest class gets (1 - alpha) eps, rare classes exceed eps, and the mean over the training
    images stays eps. Equal counts give eps everywhere.

    Args:
        class_counts: (C,) training images per class, at least 1, in any order.
        epsilon: base budget in [0, 1] image units.
        alpha: share of the budget that is redistributed, in [0, 1].

    Returns:
        (C,) in class_counts' dtype if that is floating point, else in float32.
    """
    counts = class_counts if class_counts.is_floating_point() else class_counts.float()
    rarity = (counts.max() / counts).log().sqrt()
    mean = (counts / counts.sum() * rarity).sum()
    shares = torch.where(mean > 0, rarity / mean, torch.ones_like(rarity))
    return epsilon * ((1 - alpha) + alpha * shares)


def intensity(epoch: int, epochs: int, *, beta: float) -> float:
    """Fraction of the budget in force: min((t - 1) / (beta T), 1), and 1 when beta is 0.

    Zhang et al. 2026 (RobustLT). The first epoch has a budget of 0, that is clean training.

    Args:
        epoch: t, counted from 1.
        epochs: T, epochs of the whole run.
        beta: share of the run over which the budget grows, >= 0.
    """
    return min((epoch - 1) / (beta * epochs), 1.0) if beta > 0 else 1.0
