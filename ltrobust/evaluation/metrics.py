"""Accuracies from outcomes: overall, balanced, per class, head / medium / tail, with intervals.

Pure pandas and numpy; this module never sees a model. An accuracy under attack is the share of
images still classified correctly on their adversarial version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Z95 = 1.959963984540054
"""97.5% quantile of the standard normal distribution."""

FloatArray = NDArray[np.float64]


def class_groups(train_counts: Sequence[int]) -> dict[str, list[int]]:
    """Split classes into head, medium and tail by their number of training images.

    Classes are ranked by count, largest first (ties by class index); head is the first
    max(1, round(C / 3)), tail the last max(1, round(C / 3)), medium the rest, which may be empty.
    """
    ranked = sorted(range(len(train_counts)), key=lambda c: (-train_counts[c], c))
    size = max(1, round(len(ranked) / 3))
    return {
        "head": sorted(ranked[:size]),
        "medium": sorted(ranked[size:-size]),
        "tail": sorted(ranked[-size:]),
    }


def wilson(right: FloatArray, n: FloatArray, z: float = Z95) -> tuple[FloatArray, FloatArray]:
    """95% Wilson score interval of the share right / n, elementwise; n must be positive."""
    share = right / n
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def mean_interval(right: FloatArray, n: FloatArray) -> tuple[float, float]:
    """95% interval of the mean over classes of right / n.

    The stratified Wilson interval (Yan and Su 2010): Wilson intervals of the classes at a smaller
    quantile, chosen so that their mean covers at 95%. One class gives the Wilson interval itself,
    and classes at 0 or 1 do not make it vanish.
    """
    bounds = []
    for side in (0, 1):
        bound = wilson(right, n)[side]
        for _ in range(ROUNDS if len(n) > 1 else 0):
            spread = np.clip(bound * (1 - bound), 1e-12, None) / n
            z = Z95 * math.sqrt(float(spread.sum())) / float(np.sqrt(spread).sum())
            bound = wilson(right, n, z)[side]
        bounds.append(float(bound.mean()))
    mean = float((right / n).mean())  # rounding must not put the mean outside
    return min(bounds[0], mean), max(bounds[1], mean)


ROUNDS = 3
"""Rounds of the quantile's fixed point; it has settled by then."""


def per_class(outcomes: pd.DataFrame, num_classes: int) -> pd.DataFrame:
    """Per-class accuracy of one attack.

    Args:
        outcomes: rows with `label` and `correct`, one per test image.
        num_classes: C.

    Returns:
        Columns class_index, n_test, right, accuracy (nan for a class without test images).
    """
    labels = outcomes["label"].to_numpy()
    right = np.bincount(labels, weights=outcomes["correct"].to_numpy(), minlength=num_classes)
    n = np.bincount(labels, minlength=num_classes)
    with np.errstate(invalid="ignore"):
        accuracy = right / n
    return pd.DataFrame(
        {
            "class_index": np.arange(num_classes),
            "n_test": n,
            "right": right.astype(int),
            "accuracy": accuracy,
        }
    )


def summary(outcomes: pd.DataFrame, train_counts: Sequence[int]) -> dict[str, float]:
    """Summarise the outcomes of one attack.

    Returns:
        n, accuracy, balanced_accuracy (mean over classes of per-class accuracy; under attack this
        is TAET's balanced robustness), head, medium, tail (means over their classes), worst_class,
        ci_low and ci_high (95%, of balanced_accuracy). Shares in [0, 1]; nan where undefined.
        Classes without test images are left out of every mean.
    """
    classes = per_class(outcomes, len(train_counts))
    shown = classes[classes["n_test"] > 0]
    accuracy = classes["accuracy"].to_numpy()
    groups = {
        name: float(np.nanmean(accuracy[members])) if np.isfinite(accuracy[members]).any() else nan
        for name, members in class_groups(train_counts).items()
    }
    low, high = mean_interval(
        shown["right"].to_numpy(dtype=float), shown["n_test"].to_numpy(dtype=float)
    )
    return {
        "n": float(len(outcomes)),
        "accuracy": float(outcomes["correct"].mean()),
        "balanced_accuracy": float(shown["accuracy"].mean()),
        **groups,
        "worst_class": float(shown["accuracy"].min()),
        "ci_low": low,
        "ci_high": high,
    }


nan = float("nan")
