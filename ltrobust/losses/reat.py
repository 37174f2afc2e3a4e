"""REAT's two parts: re-balancing weights for its attack (RBL) and the tail feature term (TAIL).

The tail term exists twice, as the paper writes it and as the released code computes it; the two
are different losses.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.counts import float_counts


def rbl_weights(class_counts: Tensor, adversarial_counts: Tensor) -> Tensor:
    """REAT's class weights: 1 / (E_c + 1e-5), summing to C; E_c = (1 - b^a_c) / (1 - b).

    Li et al. 2023, "Alleviating the effect of data imbalance on adversarial training", with
    b = (n_c - 1) / n_c. Rounded to float32 where the released code rounds. A class that is never
    predicted has E = 0 and takes practically all the weight. In eval mode the weights cannot
    change a sign-gradient attack.

    Args:
        class_counts: (C,) training images n_c per class, at least 1.
        adversarial_counts: (C,) a_c, how often each class was predicted for adversarial inputs in
            the epoch before (in the first epoch: the training images per class).

    Returns:
        (C,) float32. Computed once an epoch; float64 is used inside.
    """
    counts = class_counts.double()
    base = ((counts - 1) / counts).float()
    power = (base.double() ** adversarial_counts.double()).float()
    effective = (1 - power) / (1 - base)
    weights = 1 / (effective + 1e-5)
    return weights / weights.sum() * weights.numel()


def rbl_loss(logits: Tensor, labels: Tensor, class_weights: Tensor) -> Tensor:
    """Cross-entropy weighted by `rbl_weights` (C,), divided by the batch's sum of weights."""
    return F.cross_entropy(logits, labels, class_weights.to(logits))


def tail_class_mask(num_classes: int, device: torch.device | None = None) -> Tensor:
    """REAT's tail classes, boolean (C,): the indices from C // 3 * 2 + 1 on, whatever the counts.

    It assumes classes sorted by count; for other orders pass your own mask to the tail terms.
    """
    return torch.arange(num_classes, device=device) > num_classes // 3 * 2


def _root_inverse_prior(class_counts: Tensor, labels: Tensor, features: Tensor) -> Tensor:
    """sqrt(N / n_y) of each example, shape (B,)."""
    counts = float_counts(class_counts, features)
    return (counts.sum() / counts).sqrt()[labels]


def _pair_factors(labels: Tensor, weights: Tensor) -> Tensor:
    """(B, B) of sign times weight: -1 for pairs of one class, +1 for others, times w_i + w_j."""
    signs = torch.where(labels[:, None] == labels[None, :], -1.0, 1.0)
    return signs * (weights[:, None] + weights[None, :])


def _anchor_mean(values: Tensor, labels: Tensor, tail: Tensor) -> Tensor:
    """Mean of `values` (B,) over the examples of tail classes; 0 when there is none."""
    anchors = tail.to(labels.device)[labels]
    return torch.where(anchors, values, 0).sum() / anchors.sum().clamp_min(1)


def tail_term(features: Tensor, labels: Tensor, class_counts: Tensor, tail: Tensor) -> Tensor:
    """TAIL pair by pair: mean over tail anchors i of mean_j s_ij (w_i + w_j) KL(q_i || q_j).

    Li et al. 2023: q = softmax of the features, s_ij = -1 for equal labels and +1 for
    others, w_i = sqrt(N / n_{y_i}). The anchor's q_i carries no gradient.

    Args:
        features: (B, D) penultimate features of the adversarial inputs.
        labels: (B,) int64.
        class_counts: (C,) training images per class.
        tail: (C,) boolean, the tail classes; see `tail_class_mask`.

    Returns:
        Scalar, 0 when no example belongs to a tail class.
    """
    # a matrix product in bfloat16 would drown the small differences that a KL consists of
    with torch.autocast(features.device.type, enabled=False):
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        log_q = F.log_softmax(wide, dim=1)
        anchor = log_q.detach().exp()
        negative_entropy = torch.special.xlogy(anchor, anchor).sum(dim=1, keepdim=True)
        kl = negative_entropy - anchor @ log_q.T
        factors = _pair_factors(labels, _root_inverse_prior(class_counts, labels, wide))
        return _anchor_mean((factors * kl).mean(dim=1), labels, tail)


def tail_term_released(
    features: Tensor, labels: Tensor, class_counts: Tensor, tail: Tensor
) -> Tensor:
    """TAIL as REAT's released code computes it: the pairwise structure collapses.

    There the divergence of anchor i is one scalar, the mean over all B x D entries, so the signs
    and weights of its pairs only enter as their mean: mean over tail anchors of
    [mean_j s_ij (w_i + w_j)] [mean_jd q_id (log q_id - log q_jd)]. Arguments as in `tail_term`.
    """
    log_q = F.log_softmax(features, dim=1)
    anchor = log_q.detach().exp()
    divergence = (torch.special.xlogy(anchor, anchor) - anchor * log_q.mean(dim=0)).mean(dim=1)
    factors = _pair_factors(labels, _root_inverse_prior(class_counts, labels, features))
    return _anchor_mean(factors.mean(dim=1) * divergence, labels, tail)
