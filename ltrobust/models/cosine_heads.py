"""Heads on normalised features: hypersphere embedding, and causal de-biasing of the features.

The plain cosine head is in `ltrobust.models.heads`. Losses with margins, which these heads are
trained with, are not here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TINY = 1e-12


def _uniform_weight(in_features: int, num_classes: int) -> nn.Parameter:
    bound = 1 / math.sqrt(in_features)
    return nn.Parameter(torch.empty(num_classes, in_features).uniform_(-bound, bound))


class HEHead(nn.Module):
    """Hypersphere embedding: scale <f / ||f||, w / ||w||>, without bias.

    Pang et al. 2020, "Boosting adversarial training with hypersphere embedding", eq. 6. The
    released code overwrites the weight by its normalised rows and then acts as a linear layer, so
    that the Jacobian of the weights' normalisation is missing from the gradient.

    Args:
        in_features: D.
        num_classes: C.
        scale: factor of the cosine.
        differentiate: differentiate the weights' normalisation; False is the released code. It then
            overwrites in train mode only: in eval mode the same function needs no new weight, and
            an attack leaves the network as it is.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        scale: float = 1.0,
        differentiate: bool = True,
    ) -> None:
        super().__init__()
        self.weight = _uniform_weight(in_features, num_classes)
        self.scale, self.differentiate = scale, differentiate

    def unit_weight(self) -> Tensor:
        """The weight that acts, rows of length 1, (C, D); its gradient goes to `weight`."""
        if self.differentiate:
            return F.normalize(self.weight, eps=_TINY)
        # through .data: an earlier pass of the step may have saved the weight for its gradient
        unit = F.normalize(self.weight.data, eps=_TINY)
        if self.training:
            self.weight.data.copy_(unit)
            return self.weight
        return self.weight + (unit - self.weight).detach()

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        return self.scale * F.linear(F.normalize(features, eps=_TINY), self.unit_weight())

    def extra_repr(self) -> str:
        """Constants for the printed model."""
        return f"scale={self.scale}, differentiate={self.differentiate}"
