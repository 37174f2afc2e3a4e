"""The soft logit margin of MMA training, and label smoothing with a share for the true class."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.counts import label_mask
from ltrobust.losses.reduction import Reduction, reduced


def soft_logit_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """log sum_{j != y} exp z_j - z_y; below 0 where the true class has more than half the mass.

    Ding et al. 2020, "MMA Training", eq. 8. It bounds the hard margin max_j z_j - z_y from above.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64.

    Returns:
        (B,).
    """
    others = logits.masked_fill(label_mask(labels, logits.shape[1]), -torch.inf)
    return others.logsumexp(1) - logits.gather(1, labels[:, None])[:, 0]


def smoothed_cross_entropy(
    logits: Tensor, labels: Tensor, *, share: float = 0.7, reduction: Reduction = "mean"
) -> Tensor:
    """CE against labels that give the true class a share f and each other (1 - f) / (C - 1).

    Jia et al. 2022, "LAS-AT", whose code writes 9 for C - 1.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64.
        share: mass f of the true class.
        reduction: "none" leaves the images apart.

    Returns:
        Scalar, mean over the batch; or (B,).
    """
    other = (1 - share) / max(1, logits.shape[1] - 1)
    true = F.cross_entropy(logits, labels, reduction="none")
    every = -logits.log_softmax(1).sum(1)
    return reduced((share - other) * true + other * every, reduction)
