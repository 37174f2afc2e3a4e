"""GAIRAT's instance weights: images near the decision boundary count more."""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor

Assignment = Literal["tanh", "sigmoid", "discrete"]
"""How a number of steps becomes a weight."""


def gairat_weights(
    kappa: Tensor,
    *,
    steps: int,
    offset: float,
    assignment: Assignment = "tanh",
    halve_down: bool = False,
) -> Tensor:
    """Weights of the images of a batch, summing to their number.

    Zhang et al. 2021, "Geometry-aware instance-reweighted adversarial training": with
    u = Lambda + 5 (1 - 2 kappa / K) they are proportional to (1 + tanh u) / 2, or to sigmoid(u);
    discrete weights are 1 - kappa / (K + 1).

    Args:
        kappa: (B,) at how many of the attack's K iterates, the start included and the last point
            not, the image is classified correctly; float.
        steps: K.
        offset: Lambda; the larger, the more equal the weights.
        assignment: which function.
        halve_down: the released code's int(K / 2) for K / 2, which differs for odd K and is
            takes 1 for K = 1.

    Returns:
        (B,), without a gradient.
    """
    half = max(1, steps // 2) if halve_down else steps / 2
    scaled = offset + 5 * (1 - kappa / half)
    if assignment == "tanh":
        weights = (1 + scaled.tanh()) / 2
    elif assignment == "sigmoid":
        weights = scaled.sigmoid()
    else:
        weights = 1 - kappa / (steps + 1)
    return weights * (len(weights) / weights.sum())


def gairat_offset(
    number: int,
    epochs: int,
    *,
    first: int,
    offset: float,
    start: float | None = None,
) -> float:
    """GAIRAT's Lambda of an epoch, which shrinks so that the weights grow unequal late.

    Args:
        number: of the epoch, from 1.
        epochs: of the run.
        first: before this epoch it is `start`.
        offset: Lambda from then on, or in the last epoch.
        start: None: it is fixed from `first` on, and infinite before, where all weights are equal.
            Else it goes down from `start` in proportion to number / epochs, from `first` on.
    """
    if number < first:
        return math.inf if start is None else start
    return offset if start is None else start - number / epochs * (start - offset)
