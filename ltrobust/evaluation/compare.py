"""Two models on the same test images: differences of accuracy with paired intervals and tests.

Pure functions of outcomes. Both models saw the same images, so that what they have in common
cancels: a paired interval is narrower than two intervals side by side. Which runs and attacks may
be compared is decided elsewhere (`results.pairs`). Nothing here corrects for many comparisons.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ltrobust.errors import UserError
from ltrobust.evaluation.metrics import FloatArray, mean_interval

ROUNDING = 1e-9
"""Scores of seeds that lie closer are equal."""
A_BETTER, B_BETTER, NOISE = "A better", "B better", "within noise"
UNKNOWN = "unknown"
CELLS = ["both", "only_a", "only_b", "neither"]
COLUMNS = [
    *("images", "n", "a", "b", "difference", "low", "high"),
    *("only_a", "only_b", "p", "verdict"),
]


def paired_counts(a: pd.DataFrame, b: pd.DataFrame, num_classes: int) -> pd.DataFrame:
    """Count, class by class, the images that both, one or neither of two models got right.

    Args:
        a: outcomes of model A: `index`, `label`, `correct`, one row per image.
        b: outcomes of model B on the same images, in any order.
        num_classes: C.

    Returns:
        C rows, int64 columns `both, only_a, only_b, neither`.

    Raises:
        UserError: the images or their labels differ.
    """
    other = b
    if len(a) != len(b) or (a["index"].to_numpy() != b["index"].to_numpy()).any():
        other = b.set_index("index").reindex(a["index"])
    if len(a) != len(b) or (other["label"].to_numpy() != a["label"].to_numpy()).any():
        raise UserError("paired outcomes need the same test images and labels on both sides")
    labels = a["label"].to_numpy()
    right_a, right_b = a["correct"].to_numpy(dtype=bool), other["correct"].to_numpy(dtype=bool)
    kinds = {
        "both": right_a & right_b,
        "only_a": right_a & ~right_b,
        "only_b": ~right_a & right_b,
        "neither": ~right_a & ~right_b,
    }
    return pd.DataFrame(
        {name: np.bincount(labels[kind], minlength=num_classes) for name, kind in kinds.items()}
    )


def paired_interval(counts: pd.DataFrame | FloatArray) -> tuple[float, float]:
    """95% interval of the mean over strata of accuracy A - accuracy B.

    Newcombe's square-and-add interval for paired proportions (1998, method 10): the score
    intervals of both accuracies, put together with the correlation of the two models' outcomes,
    whose numerator is moved towards 0 by 1 / (2N) where it is positive. For several strata the
    score intervals are the stratified ones of `mean_interval` and the correlation is that of the
    two stratified means. It has a width even when no image is decided differently.

    Args:
        counts: a row a stratum (class), columns `CELLS` in their order; every stratum has images.

    Returns:
        low and high, in [-1, 1].
    """
    both, only_a, only_b, neither = np.asarray(counts, dtype=float).T
    n = both + only_a + only_b + neither
    share_a, share_b = (both + only_a) / n, (both + only_b) / n
    mean_a, mean_b = float(share_a.mean()), float(share_b.mean())
    low_a, high_a = mean_interval(both + only_a, n)
    low_b, high_b = mean_interval(both + only_b, n)
    rho = _correlation((both * neither - only_a * only_b) / n**2, share_a, share_b, n)
    difference = mean_a - mean_b
    below = _square_and_add(mean_a - low_a, high_b - mean_b, rho)
    above = _square_and_add(high_a - mean_a, mean_b - low_b, rho)
    return max(-1.0, difference - below), min(1.0, difference + above)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar p-value: are A and B equally often the only one that is right?"""
    from scipy.stats import binom  # reading results does without scipy

    discordant, fewer = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    tails = binom.cdf(fewer, discordant, 0.5) + binom.sf(discordant - fewer - 1, discordant, 0.5)
    return float(tails)


def paired_row(counts: pd.DataFrame, images: str) -> dict[str, Any]:
    """One row of a comparison: both accuracies as means over strata, difference, interval, test.

    Args:
        counts: a row a stratum, columns `CELLS`; strata without images are left out.
        images: what the row is called.

    Returns:
        `COLUMNS`. The verdict follows the interval; `p` is McNemar's test over the images of all
        strata, each image counting the same. NaN and "unknown" when there are no images.
    """
    cells = counts[CELLS].to_numpy()
    cells = cells[cells.sum(axis=1) > 0]
    if not len(cells):
        empty = dict.fromkeys(("a", "b", "difference", "low", "high", "p"), math.nan)
        return {"images": images, "n": 0, **empty, "only_a": 0, "only_b": 0, "verdict": UNKNOWN}
    n = cells.sum(axis=1)
    a = float(((cells[:, 0] + cells[:, 1]) / n).mean())
    b = float(((cells[:, 0] + cells[:, 2]) / n).mean())
    low, high = paired_interval(cells)
    _, only_a, only_b, _ = (int(count) for count in cells.sum(axis=0))
    return {
        "images": images,
        "n": int(n.sum()),
        "a": a,
        "b": b,
        "difference": a - b,
        "low": low,
        "high": high,
        "only_a": only_a,
        "only_b": only_b,
        "p": mcnemar(only_a, only_b),
        "verdict": verdict(low, high),
    }


def compare_outcomes(
    a: pd.DataFrame,
    b: pd.DataFrame,
    groups: Mapping[str, Sequence[int]],
    class_names: Sequence[str],
    single_classes: Iterable[int] = (),
) -> pd.DataFrame:
    """Compare two models under one attack.

    Args:
        a: outcomes of model A: `index`, `label`, `correct`, one row per image.
        b: outcomes of model B on the same images.
        groups: name to classes, such as head, medium and tail.
        class_names: C names.
        single_classes: classes that get a row of their own.

    Returns:
        Columns `COLUMNS`. `images` is "all" (each image counts the same), "balanced" (each class),
        a group (each of its classes) or "class NAME".

    Raises:
        UserError: the images or their labels differ.
    """
    counts = paired_counts(a, b, len(class_names))
    rows = [
        paired_row(counts.sum().to_frame().T, "all"),
        paired_row(counts, "balanced"),
        *(paired_row(counts.iloc[list(members)], name) for name, members in groups.items()),
        *(paired_row(counts.iloc[[c]], f"class {class_names[c]}") for c in single_classes),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def seeds_row(a: Sequence[float], b: Sequence[float]) -> dict[str, Any]:
    """Compare a score of two methods over their training seeds: Welch's t-interval at 95%.

    Args:
        a: scores of method A, one a seed.
        b: scores of method B.

    Returns:
        difference, low, high, p and verdict; "unknown" with fewer than two seeds on a side or
        without any spread.
    """
    from scipy.stats import ttest_ind

    difference = float(np.mean(a) - np.mean(b))
    nothing = {"low": math.nan, "high": math.nan, "p": math.nan, "verdict": UNKNOWN}
    if min(len(a), len(b)) < 2 or max(np.ptp(a), np.ptp(b)) < ROUNDING:
        return {"difference": difference, **nothing}

    with warnings.catch_warnings():  # scipy doubts a side whose seeds agree
        warnings.simplefilter("ignore", RuntimeWarning)
        test = ttest_ind(a, b, equal_var=False)
    low, high = (float(bound) for bound in test.confidence_interval(0.95))
    return {
        "difference": difference,
        "low": low,
        "high": high,
        "p": float(test.pvalue),
        "verdict": verdict(low, high),
    }


def verdict(low: float, high: float) -> str:
    """What an interval of A - B says."""
    return A_BETTER if low > 0 else B_BETTER if high < 0 else NOISE


def _correlation(
    covariance: FloatArray, share_a: FloatArray, share_b: FloatArray, n: FloatArray
) -> float:
    """Correlation of two stratified means; a positive one is corrected for continuity."""
    joint = float((covariance / n).sum())
    if joint > 0:
        joint = max(0.0, joint - float((1 / (2 * n.sum() * n)).sum()))
    spread = float((share_a * (1 - share_a) / n).sum() * (share_b * (1 - share_b) / n).sum())
    return joint / math.sqrt(spread) if spread > 0 else 0.0


def _square_and_add(one: float, other: float, rho: float) -> float:
    return math.sqrt(max(0.0, one**2 - 2 * rho * one * other + other**2))
