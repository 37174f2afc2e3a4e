"""GAIRAT's instance weights: images near the decision boundary count more."""

from __future__ import annotations

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

    Zhang et al. 2021, "Geometry-aware instance-reweighted adversarial training", eq. 6: with
    u = Lambda + 5 (1 - 2 kappa / K) they are proportional to (1 + tanh u) / 2, or to sigmoid(u);
    discrete weights are 1 - kappa / (K + 1).

    Args:
        kappa: (B,) at how many of the attack's K iterates, the start included and the last point
            not, the image is classified correctly; float.
        steps: K.
        offset: Lambda; the larger, the more equal the weights.
        assignment: which function.
        halve_down: the released code's int(K / 2) for K / 2, which differs for odd K and is
            undefined for K = 1.

    Returns:
        (B,), without a gradient.
    """
    half = steps // 2 if halve_down else steps / 2
    scaled = offset + 5 * (1 - kappa / half)
    if assignment == "tanh":
        weights = (1 + scaled.tanh()) / 2
    elif assignment == "sigmoid":
        weights = scaled.sigmoid()
    else:
        weights = 1 - kappa / (steps + 1)
    return weights * (len(weights) / weights.sum())
