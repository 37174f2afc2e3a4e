"""The sigmoid focal loss and its class-balanced form.

Both sum over all B x C binary problems and divide by B, as RoBal's repository does. The log-odds
bias that goes with them is in `ltrobust.models.heads`.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.counts import float_counts, label_mask
from ltrobust.losses.reduction import Reduction, reduced


def _focal_sums(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """Sum of the C binary focal losses of each example, shape (B,)."""
    signed = torch.where(label_mask(labels, logits.shape[1]), logits, -logits)
    return -(torch.sigmoid(-signed) ** gamma * F.logsigmoid(signed)).sum(dim=1)


def focal_loss(
    logits: Tensor, labels: Tensor, *, gamma: float = 2.0, reduction: Reduction = "mean"
) -> Tensor:
    """Focal loss: -(1/B) sum_bc (1 - q_bc)^gamma log q_bc, q = sigmoid(+z) if c = y, else (-z).

    Lin et al. 2017, "Focal loss for dense object detection".

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64.
        gamma: focusing exponent, >= 0.
        reduction: "none" leaves the images apart.

    Returns:
        Scalar: the sum over all entries divided by the batch size; or (B,).
    """
    return reduced(_focal_sums(logits, labels, gamma), reduction)


def class_balanced_weights(class_counts: Tensor, like: Tensor, *, beta: float = 0.9999) -> Tensor:
    """Class weights w_c proportional to (1 - beta) / (1 - beta^n_c), normalised to sum to C.

    Cui et al. 2019, "Class-balanced loss based on effective number of samples".

    Args:
        class_counts: (C,) training images per class.
        like: tensor whose device and dtype the weights take (float32 at least).
        beta: in [0, 1); 0 gives equal weights.

    Returns:
        (C,) weights.
    """
    counts = float_counts(class_counts, like)
    log_beta = math.log(beta) if beta > 0 else -math.inf
    # expm1 keeps 1 - beta^n exact where beta^n is close to 1; the constant 1 - beta cancels
    weights = -1 / torch.expm1(counts * log_beta)
    return weights / weights.sum() * counts.numel()


def class_balanced_loss(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    beta: float = 0.9999,
    gamma: float = 2.0,
    alpha: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Class-balanced focal loss: alpha (1/B) sum_b w_{y_b} focal_b.

    Cui et al. 2019, with the focal loss. Shapes as in `focal_loss`; class_counts is (C,),
    `beta` is that of `class_balanced_weights`.
    """
    weights = class_balanced_weights(class_counts, logits, beta=beta)
    return alpha * reduced(weights[labels] * _focal_sums(logits, labels, gamma), reduction)
