"""Cross-entropy of logits that were shifted or divided by a function of the class counts.

Training-time adjustments only; those applied to a trained classifier are in
`ltrobust.models.heads`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.counts import float_counts, log_prior
from ltrobust.losses.reduction import Reduction


def balanced_softmax_loss(
    logits: Tensor, labels: Tensor, class_counts: Tensor, *, reduction: Reduction = "mean"
) -> Tensor:
    """Balanced softmax: CE(z + log n, y).

    Ren et al. 2020, "Balanced Meta-Softmax for long-tailed visual recognition"; the outer loss of
    AT-BSL (Yue et al. 2024) and of REAT (Li et al. 2023).

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64.
        class_counts: (C,) training images per class; counts below 1 are taken as 1.
        reduction: "none" leaves the images apart.

    Returns:
        Scalar, mean over the batch; or (B,).
    """
    return F.cross_entropy(
        logits + float_counts(class_counts, logits).log(), labels, reduction=reduction
    )


def logit_adjusted_loss(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    tau: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Logit adjustment: CE(z + tau log p, y) with p the class prior.

    Menon et al. 2021, "Long-tail learning via logit adjustment". Shapes as in
    `balanced_softmax_loss`, which it equals at tau = 1.
    """
    return F.cross_entropy(
        logits + tau * log_prior(class_counts, logits), labels, reduction=reduction
    )


def cdt_loss(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    tau: float = 1.0,
    reduction: Reduction = "mean",
) -> Tensor:
    """Class-dependent temperatures: CE(z / a, y) with a_c = (n_max / n_c)^tau.

    Ye et al. 2020, "Identifying and compensating for feature deviation in imbalanced deep
    learning". Shapes as in `balanced_softmax_loss`.
    """
    counts = float_counts(class_counts, logits)
    return F.cross_entropy(logits / (counts.max() / counts) ** tau, labels, reduction=reduction)
