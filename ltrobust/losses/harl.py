"""TAET's hierarchical adversarial robustness loss (HARL) and its three terms.

The loss alone: TAET's two stages and its attack are the method's business.
"""

from __future__ import annotations

from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.counts import label_mask

# keeps the normalisation finite when every loss is exactly 0, as in the released code
_TINY = 1e-10


class HarlTerms(NamedTuple):
    """The unweighted terms of HARL, scalars: BCL, HDL and RCEL in the paper's words."""

    balanced: Tensor
    hierarchical: Tensor
    rare: Tensor


def class_mean_losses(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of each class in the batch.

    Args:
        logits: (B, C) floating point.
        labels: (B,) int64.

    Returns:
        losses (C,), 0 for classes without an example, and present (C,), boolean.
    """
    mask = label_mask(labels, logits.shape[1])
    losses = F.cross_entropy(logits, labels, reduction="none")
    examples = mask.sum(dim=0)
    sums = (mask * losses[:, None]).sum(dim=0)
    return sums / examples.clamp_min(1), examples > 0


def harl_terms(logits: Tensor, labels: Tensor, *, count_absent: bool) -> HarlTerms:
    """BCL = mean_c l_c, HDL = mean_c (l_c - mean l)^2, RCEL = sum_c (l_c / sum l)^2.

    Wang et al. 2025, "TAET: two-stage adversarial equalization training"; l_c is the mean
    cross-entropy of class c in the batch.

    Args:
        logits: (B, C) on the adversarial inputs.
        labels: (B,) int64.
        count_absent: True is the released code, where a class without an example in the batch
            has loss 0 and still counts in both means; False takes them over the present classes.
    """
    losses, present = class_mean_losses(logits, labels)
    counted = present | count_absent
    number = counted.sum()
    mean = losses.sum() / number
    spread = (counted * (losses - mean) ** 2).sum() / number
    return HarlTerms(mean, spread, ((losses / (losses.sum() + _TINY)) ** 2).sum())


def harl_loss(
    logits: Tensor,
    labels: Tensor,
    *,
    alpha: float = 0.1,
    beta: float = 0.1,
    gamma: float = 0.1,
    count_absent: bool = False,
) -> Tensor:
    """HARL: alpha BCL + beta HDL + gamma RCEL (Wang et al. 2025).

    Arguments as in `harl_terms`. With the paper's weights of 0.1 it is about ten times smaller
    than a cross-entropy.
    """
    terms = harl_terms(logits, labels, count_absent=count_absent)
    return alpha * terms.balanced + beta * terms.hierarchical + gamma * terms.rare
