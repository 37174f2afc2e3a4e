"""Losses image by image, or their mean over the batch."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Reduction = Literal["mean", "none"]


def reduced(losses: Tensor, reduction: Reduction) -> Tensor:
    """Losses (B,) as they are, or their mean, a scalar."""
    return losses.mean() if reduction == "mean" else losses
