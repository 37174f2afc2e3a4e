"""Adversarial training with a cosine classifier.

    f(x) = scale <h / ||h||, w_c / ||w_c||>
    x'   = argmax_{|x' - x| <= eps} CE(f(x'), y)               (PGD, eval mode)
    L    = CE(f(x'), y)

Gidaris and Komodakis 2018, under PGD-AT as RoBal compares it: frequent classes cannot
win by longer weights. The scale stands inside the network, so the attack sees it. The head also
keeps the moving sum of the unit features, which changes nothing here; `at-cosine+tde` uses it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ltrobust.methods.pgd_at import PGDAT, ROBAL_QUIRKS, robal_recipe
from torch import nn

from ltrobust.method import Citation, register_method
from ltrobust.models.cosine_heads import TDEHead


@register_method(
    "at-cosine",
    paper=Citation(
        authors="S. Gidaris, N. Komodakis",
        title="Dynamic Few-Shot Visual Learning without Forgetting",
        venue="CVPR",
        year=2018,
        url="https://arxiv.org/abs/1804.09458",
    ),
    recipe=robal_recipe(),
    quirks=ROBAL_QUIRKS,
    passes="K + 1",
)
@dataclass
class ATCosine(PGDAT):
    """A cosine head on PGD examples, as RoBal's repository compares it.

    Attributes:
        scale: factor of the cosine.
        gamma: added to the norms of the weights.
    """

    scale: float = 16.0
    gamma: float = 0.0

    def head(self, in_features: int, num_classes: int) -> nn.Module:
        """A cosine head."""
        return TDEHead(in_features, num_classes, scale=self.scale, gamma=self.gamma)
