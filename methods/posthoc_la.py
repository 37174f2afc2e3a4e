"""Post-hoc logit adjustment: the log prior is taken off the logits of a trained network.

    z_c <- z_c - tau log p_c

Menon et al. 2021; p_c is the share of class c in the training images. Nothing is trained;
attacks see the new logits. RoBal compares it as the post-hoc class bias.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.at_la import MENON
from torch import Tensor

from ltrobust.losses.counts import log_prior
from ltrobust.method import register_method
from ltrobust.modifier import PostHoc


@register_method(
    "posthoc-la",
    paper=MENON,
    quirks=(
        "attacks see the adjusted logits; RoBal's configuration has a last layer whose bias is "
        "frozen at its random start, here it is the trained one",
    ),
    passes="base, none of its own",
)
@dataclass
class PosthocLA(PostHoc):
    """Menon et al. 2021 on a trained network of any head.

    Attributes:
        tau: weight of the log prior.
    """

    tau: float = 1.0

    def adjust(self, logits: Tensor) -> Tensor:
        """The base's logits minus tau log p."""
        return self.base.adjust(logits) - self.tau * log_prior(self.class_counts, logits)
