"""Losses that evaluation attacks maximise, summed over the batch; no defense trains on them.

The sum, unlike the mean, makes an example's gradient independent of its batch. The cross-entropy
that most attacks maximise is torch's own.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.counts import label_mask


def cross_entropy_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy summed over the batch: the usual thing for an attack to maximise."""
    return F.cross_entropy(logits, labels, reduction="sum")


def cw_margin_loss(logits: Tensor, labels: Tensor, *, confidence: float = 50.0) -> Tensor:
    """CW margin: -sum_b max(z_y - max_{j != y} z_j + confidence, 0), to be maximised.

    Carlini and Wagner 2017, "Towards evaluating the robustness of neural networks", f_6, in the
    form of the field's CW-PGD (L-inf). It is not the CW-L2 attack.

    Args:
        logits: (B, C) floating point, C >= 2.
        labels: (B,) int64.
        confidence: an example whose margin is below -confidence has no gradient any more.

    Returns:
        Scalar, the sum over the batch.
    """
    mask = label_mask(labels, logits.shape[1])
    true = torch.where(mask, logits, 0).sum(dim=1)
    other = logits.masked_fill(mask, -torch.inf).amax(dim=1)
    return -(true - other + confidence).clamp_min(0).sum()


def dlr_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio: -sum_b (z_y - max_{j != y} z_j) / (z_pi1 - z_pi3).

    Croce and Hein 2020, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks"; pi sorts the logits in decreasing order. Neither shifting nor
    scaling the logits changes it.

    Args:
        logits: (B, C) floating point, C >= 3.
        labels: (B,) int64.

    Returns:
        Scalar, the sum over the batch.
    """
    mask = label_mask(labels, logits.shape[1])
    true = torch.where(mask, logits, 0).sum(dim=1)
    other = logits.masked_fill(mask, -torch.inf).amax(dim=1)
    largest = logits.topk(3, dim=1).values
    # as in the reference: keeps the ratio finite where three logits are equal
    return -((true - other) / (largest[:, 0] - largest[:, 2] + 1e-12)).sum()


def targeted_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """-CE(z, t), summed over the batch: to be maximised towards the target classes t, (B,)."""
    return -F.cross_entropy(logits, targets, reduction="sum")


def scaled_cross_entropy(logits: Tensor, labels: Tensor, *, alpha: float = 10.0) -> Tensor:
    """CE(alpha z, y), summed over the batch: the loss of the logit scaling attack (LSA).

    Hitaj et al. 2021, "Evaluating the robustness of geometry-aware instance-reweighted
    adversarial training". It undoes the small logits that hide gradients.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64.
        alpha: factor of the logits.
    """
    return F.cross_entropy(alpha * logits, labels, reduction="sum")
