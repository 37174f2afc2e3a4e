"""Cross-entropy with a margin taken off the true class's logit: LDAM, uniform, and RoBal's.

The losses are meant for cosine or normalised logits; the scale `s` belongs to the loss, not to the
classifier. At the end, how far a prediction is from being wrong.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.counts import float_counts, label_mask, log_prior
from ltrobust.losses.reduction import Reduction


def _minus_margin(logits: Tensor, labels: Tensor, margins: Tensor) -> Tensor:
    """Subtract margins[y] from each row's true-class logit; margins is (C,)."""
    return torch.where(label_mask(labels, logits.shape[1]), logits - margins, logits)


def unimargin_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    m: float = 0.5,
    s: float = 10.0,
    class_weights: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """One margin for all classes: CE(s (z - m 1_y), y).

    Wang et al. 2018, "CosFace: large margin cosine loss", as used by RoBal's repository and, with
    other constants, by HE (Pang et al. 2020).

    Args:
        logits: (B, C) cosine logits.
        labels: (B,) int64.
        m: margin in logit units.
        s: scale applied after the margin.
        class_weights: (C,) or None; with weights the mean is divided by their batch sum.
        reduction: "none" leaves the images apart.

    Returns:
        Scalar, mean over the batch; or (B,).
    """
    shifted = torch.where(label_mask(labels, logits.shape[1]), logits - m, logits)
    return F.cross_entropy(s * shifted, labels, class_weights, reduction=reduction)


def ldam_loss(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    max_m: float = 0.5,
    s: float = 10.0,
    g: float = 0.25,
    class_weights: Tensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    """LDAM: CE(s (z - m_y 1_y), y) with m_c = max_m n_c^-g / max_k n_k^-g.

    Cao et al. 2019, "Learning imbalanced datasets with label-distribution-aware margin loss"
    (g = 1/4). Rare classes get the larger margin; a negative g turns that round.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64.
        class_counts: (C,) training images per class, in any order.
        max_m: the largest margin.
        s: scale applied after the margin.
        g: exponent of the counts.
        class_weights: (C,) or None; with weights the mean is divided by their batch sum.
        reduction: "none" leaves the images apart.

    Returns:
        Scalar, mean over the batch; or (B,).
    """
    margins = float_counts(class_counts, logits) ** -g
    margins = margins * (max_m / margins.max())
    margined = s * _minus_margin(logits, labels, margins)
    return F.cross_entropy(margined, labels, class_weights, reduction=reduction)


def robal_margin_loss(
    logits: Tensor,
    labels: Tensor,
    class_counts: Tensor,
    *,
    m: float = 0.0,
    s: float = 1.0,
    tau_b: float = 0.0,
    tau_m: float = 0.0,
) -> Tensor:
    """RoBal's loss: z_y -= m + tau_m log(n_y / n_min) / s; z *= s; z += tau_b log p; CE(z, y).

    Wu et al. 2021, "Adversarial robustness under long-tailed distribution", its class-aware
    margin and bias. Frequent classes get the larger margin, which offsets the bias tau_b log p. As
    in the released code tau_b <= 0 switches the bias off, and m <= 0 together with tau_m <= 0 the
    margins.

    Args:
        logits: (B, C) cosine logits of scale 1.
        labels: (B,) int64.
        class_counts: (C,) training images per class, in any order.
        m: margin shared by all classes.
        s: scale of the cosine logits inside the loss.
        tau_b: weight of the log prior, added after scaling.
        tau_m: weight of the class-aware margin.

    Returns:
        Scalar, mean over the batch.
    """
    scaled = logits
    if m > 0 or tau_m > 0:
        counts = float_counts(class_counts, logits)
        margins = m + tau_m * (counts / counts.min()).log() / s
        scaled = _minus_margin(scaled, labels, margins)
    scaled = scaled * s
    if tau_b > 0:
        scaled = scaled + tau_b * log_prior(class_counts, logits)
    return F.cross_entropy(scaled, labels)


def softmax_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Largest wrong softmax entry minus the true one, (B,) in [-1, 1] (FAAL, Zhang et al. 2024).

    Args:
        logits: (B, C) floating point, C >= 2.
        labels: (B,) int64.
    """
    mask = label_mask(labels, logits.shape[1])
    softmax = F.softmax(logits, dim=1)
    return softmax.masked_fill(mask, -torch.inf).amax(dim=1) - torch.where(mask, softmax, 0).sum(1)


def soft_logit_margin(logits: Tensor, labels: Tensor) -> Tensor:
    """log sum_{k != y} exp z_k - z_y, (B,); negative where the prediction is surely right.

    Ding et al. 2020, "MMA training", their SLM.

    Args:
        logits: (B, C) floating point, C >= 2.
        labels: (B,) int64.
    """
    mask = label_mask(labels, logits.shape[1])
    return logits.masked_fill(mask, -torch.inf).logsumexp(1) - torch.where(mask, logits, 0).sum(1)
