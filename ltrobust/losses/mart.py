"""MART's loss: boosted cross-entropy on attacked images, and a divergence weighted by doubt."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.counts import label_mask

# of the released code: keep logarithms finite, and are part of the numbers
_LOG, _WRONG, _DOUBT = 1e-12, 1.0001, 1.0000001


class MartTerms(NamedTuple):
    """The two terms of MART, image by image (B,), the second without its weight."""

    boosted: Tensor
    divergence: Tensor


def mart_terms(logits: Tensor, labels: Tensor, logits_adv: Tensor) -> MartTerms:
    """BCE = -log q_y - log(1 - q_k), and KL(p || q) (1 - p_y).

    Wang et al. 2020, "Improving adversarial robustness requires revisiting misclassified examples",
    p and q are the softmax of clean and attacked logits, k is the wrong class
    that q holds most likely. Nothing is detached. With the constants of the released code.

    Args:
        logits: (B, C) on the clean images.
        labels: (B,) int64.
        logits_adv: (B, C) on the attacked images.
    """
    mask = label_mask(labels, logits.shape[1])
    clean, attacked = F.softmax(logits, dim=1), F.softmax(logits_adv, dim=1)
    wrong = attacked.masked_fill(mask, -1).argmax(dim=1, keepdim=True)
    rest = _WRONG - attacked.gather(1, wrong).squeeze(1)
    boosted = F.cross_entropy(logits_adv, labels, reduction="none") - (rest + _LOG).log()
    divergence = (torch.special.xlogy(clean, clean) - clean * (attacked + _LOG).log()).sum(dim=1)
    doubt = _DOUBT - torch.where(mask, clean, 0).sum(dim=1)
    return MartTerms(boosted, divergence * doubt)


def mart_loss(logits: Tensor, labels: Tensor, logits_adv: Tensor, *, beta: float = 5.0) -> Tensor:
    """MART: the mean over the batch of BCE + beta KL (1 - p_y); arguments as in `mart_terms`."""
    terms = mart_terms(logits, labels, logits_adv)
    return (terms.boosted + beta * terms.divergence).mean()
