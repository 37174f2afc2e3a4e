"""Losses that tie the predictions on clean and on adversarial inputs together.

Nothing is detached: as in the released code the gradient flows into both sets of logits.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ltrobust.losses.reduction import Reduction, reduced


def trades_kl(logits: Tensor, logits_adv: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """KL(softmax z || softmax z_adv), by default the mean over the batch.

    Zhang et al. 2019, "Theoretically principled trade-off between robustness and accuracy", the
    regulariser without its weight. The sum over the batch has the same maximiser and is
    what TRADES' attack climbs.

    Args:
        logits: (B, C) on the clean inputs.
        logits_adv: (B, C) on the adversarial inputs.
        reduction: "none" leaves the images apart.

    Returns:
        Scalar, or (B,).
    """
    by_class = F.kl_div(
        F.log_softmax(logits_adv, dim=1),
        F.log_softmax(logits, dim=1),
        reduction="none",
        log_target=True,
    )
    return reduced(by_class.sum(dim=1), reduction)


def trades_loss(logits: Tensor, labels: Tensor, logits_adv: Tensor, *, beta: float = 6.0) -> Tensor:
    """TRADES: CE(z, y) + beta KL(softmax z || softmax z_adv) (Zhang et al. 2019).

    Shapes as in `trades_kl`; labels is (B,) int64.
    """
    return F.cross_entropy(logits, labels) + beta * trades_kl(logits, logits_adv)


def robal_kl(logits: Tensor, logits_adv: Tensor) -> Tensor:
    """RoBal's regulariser: (1/B) sum p (log p - log(p_adv + 1e-12)) with p = softmax z.

    Wu et al. 2021 (RoBal), with the constant of the released code. Shapes as in `trades_kl`.
    """
    adversarial = F.softmax(logits_adv, dim=1) + 1e-12
    clean = F.log_softmax(logits, dim=1)
    return F.kl_div(adversarial.log(), clean, reduction="batchmean", log_target=True)
