"""Cross-entropy with soft labels, and the soft labels of the field."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.counts import label_mask
from ltrobust.losses.reduction import Reduction, reduced


def soft_labels(labels: Tensor, num_classes: int, mass: Tensor | float) -> Tensor:
    """The true class gets `mass`, the C - 1 others share the rest equally.

    Label smoothing (Szegedy et al. 2016) as LAS-AT and AVmixup write it.

    Args:
        labels: (B,) int64.
        num_classes: C, at least 2.
        mass: in [0, 1], a number or one for each image (B,).

    Returns:
        (B, C), float64 if `mass` is, else float32.
    """
    shares = torch.as_tensor(mass, device=labels.device).reshape(-1, 1)
    return torch.where(label_mask(labels, num_classes), shares, (1 - shares) / (num_classes - 1))


def soft_cross_entropy(logits: Tensor, targets: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """-sum_c t_c log softmax(z)_c with soft labels t (B, C).

    Args:
        logits: (B, C) floating point.
        targets: (B, C), rows that sum to 1.
        reduction: "none" leaves the images apart.

    Returns:
        Scalar, mean over the batch; or (B,).
    """
    return reduced(-(targets * F.log_softmax(logits, dim=1)).sum(dim=1), reduction)


def label_smoothing_loss(
    logits: Tensor, labels: Tensor, *, mass: float = 0.7, reduction: Reduction = "mean"
) -> Tensor:
    """Cross-entropy with `mass` on the true class (LAS-AT, Jia et al. 2022: 0.7).

    Shapes as in `soft_cross_entropy`; labels is (B,) int64.
    """
    targets = soft_labels(labels, logits.shape[1], mass)
    return soft_cross_entropy(logits, targets.to(logits.dtype), reduction=reduction)
