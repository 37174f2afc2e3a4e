"""Heads on normalised features: hypersphere embedding, and causal de-biasing of the features.

The plain cosine head is in `ltrobust.models.heads`. Losses with margins, which these heads are
trained with, are not here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ltrobust.errors import UserError

_TINY = 1e-12


def _uniform_weight(in_features: int, num_classes: int) -> nn.Parameter:
    bound = 1 / math.sqrt(in_features)
    return nn.Parameter(torch.empty(num_classes, in_features).uniform_(-bound, bound))


class HEHead(nn.Module):
    """Hypersphere embedding: scale <f / ||f||, w / ||w||>, without bias.

    Pang et al. 2020, "Boosting adversarial training with hypersphere embedding". The
    released code overwrites the weight by its normalised rows and then acts as a linear layer, so
    that the Jacobian of the weights' normalisation is missing from the gradient.

    Args:
        in_features: D.
        num_classes: C.
        scale: factor of the cosine.
        differentiate: differentiate the weights' normalisation; False is the released code. It then
            overwrites in passes that train the weight only: elsewhere the same function needs no
            new one, and an attack leaves the network as it is.
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
        if self.training and self.weight.requires_grad and torch.is_grad_enabled():
            self.weight.data.copy_(unit)
            return self.weight
        return self.weight + (unit - self.weight).detach()

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        return self.scale * F.linear(F.normalize(features, eps=_TINY), self.unit_weight())

    def extra_repr(self) -> str:
        """Constants for the printed model."""
        return f"scale={self.scale}, differentiate={self.differentiate}"


class TDEHead(nn.Module):
    """Cosine head that in eval mode takes away what all features share: the total direct effect.

    Train: (scale / K) sum_k <x_k, u_k>, with x_k the k-th of K equal parts of the features, divided
    by its norm, and u_k that of the weights, divided by its norm + gamma. Eval: x_k is replaced by
    x_k - alpha cos(x_k, d_k) d_k. The direction d is a moving sum, d <- mu d + batch mean of x,
    kept in train mode. Tang et al. 2020, "Long-tailed classification by keeping the good and
    removing the bad momentum causal effect".

    Args:
        in_features: D, a multiple of `groups`.
        num_classes: C.
        scale: factor of the cosine.
        gamma: added to the norms of the weights.
        alpha: how much of the direction is taken away; 0 gives a plain cosine head.
        mu: momentum of the direction.
        groups: K; Tang's code uses 2, RoBal's 1.
        unit: divide the direction by its norm, as Tang; RoBal's code takes the sum itself, which is
            some 1 / (1 - mu) times as long as a feature.
    """

    direction: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        scale: float = 16.0,
        gamma: float = 1 / 32,
        alpha: float = 0.0,
        mu: float = 0.9,
        groups: int = 1,
        unit: bool = True,
    ) -> None:
        super().__init__()
        if in_features % groups:
            raise UserError(
                f"{in_features} features cannot be split into {groups} groups; choose a divisor"
            )
        self.weight = _uniform_weight(in_features, num_classes)
        self.register_buffer("direction", torch.zeros(in_features))
        self.scale, self.gamma, self.alpha = scale, gamma, alpha
        self.mu, self.groups, self.unit = mu, groups, unit

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        parts = F.normalize(self._parts(features), dim=2, eps=_TINY)
        if self.training:
            with torch.no_grad():
                mean = parts.detach().mean(0).flatten().to(self.direction.dtype)
                self.direction.mul_(self.mu).add_(mean)
        elif self.alpha:
            direction = self._parts(self.direction[None])
            unit = F.normalize(direction, dim=2, eps=_TINY)
            along = (parts * unit).sum(dim=2, keepdim=True)
            parts = parts - self.alpha * along * (unit if self.unit else direction)
        weight = self._parts(self.weight)
        weight = weight / (torch.linalg.vector_norm(weight, dim=2, keepdim=True) + self.gamma)
        return self.scale / self.groups * F.linear(parts.flatten(1), weight.flatten(1))

    def _parts(self, rows: Tensor) -> Tensor:
        """Rows (R, D) as (R, K, D / K)."""
        return rows.unflatten(1, (self.groups, -1))

    def extra_repr(self) -> str:
        """Constants for the printed model."""
        return (
            f"scale={self.scale}, gamma={self.gamma}, alpha={self.alpha}, mu={self.mu}, "
            f"groups={self.groups}, unit={self.unit}"
        )
