"""Distributions of perturbations: Gaussians squeezed into the L-inf ball by tanh."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TINY = 1e-8
"""Added inside logarithms."""


def tanh_gaussian(mean: Tensor, raw_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """A sample t = tanh(mean + sigma r), sigma = softplus(raw_std), and its entropy, per pixel.

    Dong et al. 2020, "Adversarial Distributional Training": -log p of the sample
    without constants is r^2 / 2 + log sigma + log(1 - t^2), which on average is the entropy.

    Args:
        mean: (B, ...) floating point.
        raw_std: standard deviation before the softplus, shaped alike.
        noise: r, standard normal, shaped alike.

    Returns:
        The sample in (-1, 1), to be multiplied by eps, and -log p, both shaped alike.
    """
    std = F.softplus(raw_std)
    sample = torch.tanh(mean + std * noise)
    entropy = noise.square() / 2 + (std + TINY).log() + (1 - sample.square() + TINY).log()
    return sample, entropy
