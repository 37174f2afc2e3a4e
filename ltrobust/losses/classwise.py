"""Losses whose terms are weighted by the class of the image, or by pairs of classes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.consistency import trades_kl
from ltrobust.losses.counts import label_mask
from ltrobust.losses.reduction import Reduction, reduced


def classwise_trades_loss(
    logits: Tensor,
    labels: Tensor,
    logits_adv: Tensor,
    *,
    natural: Tensor,
    consistency: Tensor,
    reduction: Reduction = "mean",
) -> Tensor:
    """TRADES weighted by class: u_y CE(z, y) + v_y KL(softmax z || softmax z_adv).

    CFA (Wei et al. 2023) has u = 1 - b and v = b, DAFA (Lee et al. 2024) u = W and v = beta.

    Args:
        logits: (B, C) on the clean images.
        labels: (B,) int64.
        logits_adv: (B, C) on the attacked images.
        natural: u, (C,).
        consistency: v, (C,).
        reduction: "none" leaves the images apart.

    Returns:
        Scalar, or (B,).
    """
    cross_entropy = F.cross_entropy(logits, labels, reduction="none")
    divergence = trades_kl(logits, logits_adv, reduction="none")
    return reduced(natural[labels] * cross_entropy + consistency[labels] * divergence, reduction)


def cfa_beta(accuracy: Tensor, *, beta: float, offset: float) -> Tensor:
    """CFA's weight b of the divergence, (C,): t / (1 + t) with t = (lambda_2 + accuracy) beta.

    Wei et al. 2023, "CFA: class-wise calibrated fair adversarial training".

    Args:
        accuracy: (C,) robust accuracy of each class, in [0, 1].
        beta: TRADES' beta.
        offset: lambda_2.
    """
    t = (offset + accuracy) * beta
    return t / (1 + t)


def pairwise_margin_loss(
    logits: Tensor,
    labels: Tensor,
    class_weights: Tensor,
    graph: Tensor,
    *,
    m: float = 0.5,
    reduction: Reduction = "mean",
) -> Tensor:
    """CGR's margins between classes that are confused: w_y sum_k G_yk relu(m - z_y + z_k).

    Args:
        logits: (B, C), raw.
        labels: (B,) int64.
        class_weights: w, (C,).
        graph: G, (C, C): row by row how much each other class matters; its diagonal is not read.
        m: margin in logit units.
        reduction: "none" leaves the images apart.

    Returns:
        Scalar, or (B,).
    """
    true = logits.gather(1, labels[:, None])
    short = (m - true + logits).clamp_min(0).masked_fill(label_mask(labels, logits.shape[1]), 0)
    return reduced(class_weights[labels] * (graph[labels] * short).sum(dim=1), reduction)
