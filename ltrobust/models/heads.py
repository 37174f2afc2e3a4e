"""Classifier heads of the field: from features (B, D) to logits (B, C).

A head is trained with the network or put on top of a trained one; attacks see through it either
way. Adjustments by class counts wrap any other head. Losses are not here. The released cosine head
also keeps a running mean of the features that nothing reads; it is left out.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# a dead feature vector then gives zero logits instead of NaN
_TINY = 1e-12


def _norm(rows: Tensor) -> Tensor:
    """Euclidean norm of every row, shape (rows, 1)."""
    return torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(_TINY)


def prior_log_odds(class_counts: Tensor) -> Tensor:
    """Initial bias for sigmoid losses: -log((1 - p_c) / p_c) with p_c = n_c / N, (C,) float32.

    Lin et al. 2017, "Focal loss", with the class priors, as in RoBal's repository.
    """
    prior = class_counts.double() / class_counts.sum()
    return torch.logit(prior).float()


def frozen_bias_linear(in_features: int, num_classes: int) -> nn.Linear:
    """Linear layer whose bias keeps its random initial value: RoBal's "Dot" classifier."""
    head = nn.Linear(in_features, num_classes)
    head.bias.requires_grad_(False)
    return head


class CosineHead(nn.Module):
    """Cosine classifier: scale <f / ||f||^eta, w / (||w||^eta + gamma)> (+ bias).

    Wu et al. 2021 (RoBal), the scale-invariant classifier; gamma is added to the weight norm only,
    and 0 gives the plain cosine classifier. Weights start uniform in +-1/sqrt(D), the bias at 0, as
    in the released code.

    Args:
        in_features: D.
        num_classes: C.
        gamma: RoBal uses 1/32, or 1/16 in its CIFAR-100 R setting.
        scale: factor of the cosine; RoBal trains with 1, its loss scales inside.
        eta: exponent of the norms.
        bias: learn a bias; the released code keeps one frozen at 0, which is the same as none.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        gamma: float,
        scale: float = 1.0,
        eta: float = 1.0,
        bias: bool = False,
    ) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(torch.empty(num_classes, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(num_classes)) if bias else None
        self.gamma, self.scale, self.eta = gamma, scale, eta

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        unit_features = features / _norm(features) ** self.eta
        unit_weight = self.weight / (_norm(self.weight) ** self.eta + self.gamma)
        logits = self.scale * F.linear(unit_features, unit_weight)
        return logits if self.bias is None else logits + self.bias

    def extra_repr(self) -> str:
        """Constants for the printed model."""
        return f"gamma={self.gamma}, scale={self.scale}, eta={self.eta}"


class TauNormHead(nn.Module):
    """Linear classifier with normalised rows: (w_c / ||w_c||^tau) . f / T * scale_c (+ b_c / T).

    Kang et al. 2020, "Decoupling representation and classifier": tau-normalisation and, with a
    learned `class_scale`, learnable weight scaling (LWS). The norm carries no gradient. tau = 0
    leaves the rows alone.

    Args:
        in_features: D.
        num_classes: C.
        tau: exponent of the weight norm.
        temperature: T, divides everything but the class scale.
        bias: add the bias; a published checkpoint holds one even where it is unused.
        learn_scale: train `class_scale` (LWS); otherwise it stays at its value, initially 1.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        *,
        tau: float = 1.0,
        temperature: float = 1.0,
        bias: bool = False,
        learn_scale: bool = False,
    ) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, num_classes, bias=bias)
        self.class_scale = nn.Parameter(torch.ones(num_classes), requires_grad=learn_scale)
        self.tau, self.temperature = tau, temperature

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        weight = self.fc.weight / _norm(self.fc.weight.detach()) ** self.tau
        logits = F.linear(features, weight) / self.temperature * self.class_scale
        return logits if self.fc.bias is None else logits + self.fc.bias / self.temperature


class ScaledLinear(nn.Linear):
    """Linear classifier with a learned factor per class: scale_c (w_c . f + b_c).

    Kang et al. 2020, learnable weight scaling (LWS) as in the authors' code: the factors, which
    start at 1, scale weight and bias, and these two stay as they are.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.weight.requires_grad_(False)
        self.bias.requires_grad_(False)
        self.class_scale = nn.Parameter(torch.ones(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        return self.class_scale * super().forward(features)


class UnitFeatures(nn.Module):
    """Features divided by their norm; put before a head in an nn.Sequential."""

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to unit vectors (B, D)."""
        return features / _norm(features)


class PriorShift(nn.Module):
    """Any head minus tau log p, in training and evaluation alike: post-hoc logit adjustment.

    Menon et al. 2021; RoBal's inference adjustment (Wu et al. 2021).

    Args:
        head: module from features to logits.
        class_counts: (C,) training images per class.
        tau: weight of the log prior.
    """

    shift: Tensor

    def __init__(self, head: nn.Module, class_counts: Tensor, *, tau: float) -> None:
        super().__init__()
        self.head = head
        prior = class_counts.double() / class_counts.sum()
        self.register_buffer("shift", (tau * prior.log()).float(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        logits: Tensor = self.head(features)
        return logits - self.shift


class CountTemperature(nn.Module):
    """Any head divided by n_c^tau, in training and evaluation alike: post-hoc re-scaling."""

    divisor: Tensor

    def __init__(self, head: nn.Module, class_counts: Tensor, *, tau: float) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("divisor", (class_counts.double() ** tau).float(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        logits: Tensor = self.head(features)
        return logits / self.divisor


class TrainingTemperature(nn.Module):
    """Any head divided by (n_max / n_c)^tau in train mode only (CDT, Ye et al. 2020)."""

    divisor: Tensor

    def __init__(self, head: nn.Module, class_counts: Tensor, *, tau: float) -> None:
        super().__init__()
        self.head = head
        divisor = (class_counts.max() / class_counts.double()) ** tau
        self.register_buffer("divisor", divisor.float(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, C)."""
        logits: Tensor = self.head(features)
        return logits / self.divisor if self.training else logits
