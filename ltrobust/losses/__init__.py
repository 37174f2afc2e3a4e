"""The losses of the field as pure functions of logits (or features), labels and class counts.

One calling convention everywhere: `fn(logits, labels, class_counts, *, hyper-parameters)`, with
the arguments that a loss does not need left out. Nothing here knows a model, an attack or a
training loop, changes its inputs, or waits for the device.
"""

from ltrobust.losses.adjusted import balanced_softmax_loss, cdt_loss, logit_adjusted_loss
from ltrobust.losses.attacking import (
    cross_entropy_sum,
    cw_margin_loss,
    dlr_loss,
    scaled_cross_entropy,
    targeted_cross_entropy,
)
from ltrobust.losses.classwise import cfa_beta, classwise_trades_loss, pairwise_margin_loss
from ltrobust.losses.consistency import robal_kl, trades_kl, trades_loss
from ltrobust.losses.distributional import tanh_gaussian
from ltrobust.losses.focal import class_balanced_loss, class_balanced_weights, focal_loss
from ltrobust.losses.gairat import gairat_offset, gairat_weights
from ltrobust.losses.harl import class_mean_losses, harl_loss, harl_terms
from ltrobust.losses.margins import (
    ldam_loss,
    robal_margin_loss,
    soft_logit_margin,
    softmax_margin,
    unimargin_loss,
)
from ltrobust.losses.mart import mart_loss, mart_terms
from ltrobust.losses.reat import (
    rbl_loss,
    rbl_weights,
    tail_class_mask,
    tail_term,
    tail_term_released,
)
from ltrobust.losses.soft import label_smoothing_loss, soft_cross_entropy, soft_labels

__all__ = [
    "balanced_softmax_loss",
    "cdt_loss",
    "cfa_beta",
    "class_balanced_loss",
    "class_balanced_weights",
    "class_mean_losses",
    "classwise_trades_loss",
    "cross_entropy_sum",
    "cw_margin_loss",
    "dlr_loss",
    "focal_loss",
    "gairat_offset",
    "gairat_weights",
    "harl_loss",
    "harl_terms",
    "label_smoothing_loss",
    "ldam_loss",
    "logit_adjusted_loss",
    "mart_loss",
    "mart_terms",
    "pairwise_margin_loss",
    "rbl_loss",
    "rbl_weights",
    "robal_kl",
    "robal_margin_loss",
    "scaled_cross_entropy",
    "soft_cross_entropy",
    "soft_labels",
    "soft_logit_margin",
    "softmax_margin",
    "tail_class_mask",
    "tail_term",
    "tail_term_released",
    "tanh_gaussian",
    "targeted_cross_entropy",
    "trades_kl",
    "trades_loss",
    "unimargin_loss",
]
