"""Paired differences and tests, against published examples and a small simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.errors import UserError
from ltrobust.evaluation.compare import (
    CELLS,
    COLUMNS,
    compare_outcomes,
    mcnemar,
    paired_counts,
    paired_interval,
    paired_row,
    seeds_row,
)
from ltrobust.evaluation.metrics import mean_interval

BENTUR = (1, 1, 7, 12)
"""Airway hyper-responsiveness before and after (Bentur et al. 2009), in Fagerland et al. 2014."""


def counts(*strata: tuple[int, ...]) -> pd.DataFrame:
    return pd.DataFrame(strata, columns=CELLS)


def outcomes(labels: list[int], correct: list[int]) -> pd.DataFrame:
    return pd.DataFrame(
        {"index": range(10, 10 + len(labels)), "label": labels, "correct": np.array(correct) > 0}
    )


# McNemar ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (1, 7, 18 / 256),  # Bentur: 0.0703 in Fagerland, Lydersen and Laake 2013
        (7, 1, 18 / 256),
        (0, 5, 2 / 32),
        (4, 4, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar_against_binomial_sums(only_a: int, only_b: int, p: float) -> None:
    assert mcnemar(only_a, only_b) == pytest.approx(p, abs=1e-12)


# intervals --------------------------------------------------------------------------------------


def test_interval_against_the_published_one() -> None:
    # Newcombe's square-and-add interval in Fagerland et al. 2014: -0.507 to -0.026
    assert paired_interval(counts(BENTUR)) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_interval_with_correlation_by_hand() -> None:
    # 36 both, 12 only A, 2 only B, 0 neither: ad - bc = -24, so no continuity correction
    wilson_a, wilson_b = (
        mean_interval(np.array([right]), np.array([50.0])) for right in (48.0, 38.0)
    )
    phi = -24 / math.sqrt(48 * 2 * 38 * 12)
    below, above = (
        (0.96 - wilson_a[0], wilson_b[1] - 0.76),
        (wilson_a[1] - 0.96, 0.76 - wilson_b[0]),
    )
    low, high = (
        math.sqrt(one**2 - 2 * phi * one * other + other**2) for one, other in (below, above)
    )
    assert paired_interval(counts((36, 12, 2, 0))) == pytest.approx((0.2 - low, 0.2 + high))


@given(
    st.lists(
        st.tuples(*[st.integers(0, 8)] * 4).filter(lambda cells: sum(cells) > 0),
        min_size=1,
        max_size=6,
    )
)
@settings(deadline=None, max_examples=100)
def test_interval_holds_the_difference_never_vanishes_and_turns_with_its_sign(
    strata: list[tuple[int, ...]],
) -> None:
    row = paired_row(counts(*strata), "balanced")
    assert -1 <= row["low"] <= row["difference"] <= row["high"] <= 1
    assert row["high"] - row["low"] > 0
    turned = paired_row(counts(*[(a, c, b, d) for a, b, c, d in strata]), "balanced")
    assert (turned["low"], turned["high"]) == pytest.approx((-row["high"], -row["low"]))
    swap = {"A better": "B better", "B better": "A better"}
    assert turned["verdict"] == swap.get(row["verdict"], row["verdict"])


@pytest.mark.parametrize(("n", "least"), [(1, 0.5), (10, 0.05), (1000, 0.001)])
def test_without_discordant_images_the_interval_shrinks_with_their_number(
    n: int, least: float
) -> None:
    low, high = paired_interval(counts((n, 0, 0, 0)))
    assert low < -least < least < high
    assert high < 8 / n


def test_equal_strata_are_about_as_good_as_one_of_their_size() -> None:
    low, high = paired_interval(counts(*[(20, 8, 4, 18)] * 4))
    alone = paired_interval(counts((80, 32, 16, 72)))
    assert (low, high) == pytest.approx(alone, abs=0.006)


def test_common_images_make_the_interval_narrower_than_two_side_by_side() -> None:
    low, high = paired_interval(counts((400, 30, 20, 550)))
    apart = [mean_interval(np.array([n]), np.array([1000.0])) for n in (430.0, 420.0)]
    assert high - low < 0.5 * sum(top - bottom for bottom, top in apart)


@pytest.mark.parametrize("shared", [0.0, 0.9])
@pytest.mark.parametrize(
    ("a", "b", "n"),
    [
        (np.array([0.3]), np.array([0.25]), [200]),
        (np.linspace(0.9, 0.05, 10), np.linspace(0.8, 0.1, 10), [40] * 10),
        (
            np.linspace(0.9, 0.02, 10),
            np.linspace(0.7, 0.02, 10),
            [60, 50, 40, 30, 20, 15, 10, 8, 6, 5],
        ),
    ],
)
def test_interval_covers_the_true_difference_about_as_often_as_it_says(
    a: np.ndarray, b: np.ndarray, n: list[int], shared: float
) -> None:
    rng, covered = np.random.default_rng(0), []
    for _ in range(500):
        strata = []
        for share_a, share_b, size in zip(a, b, n, strict=True):
            draw = rng.random(size)
            other = np.where(rng.random(size) < shared, draw, rng.random(size))
            one, two = draw < share_a, other < share_b
            cells = (one & two, one & ~two, ~one & two, ~one & ~two)
            strata.append(tuple(int(cell.sum()) for cell in cells))
        low, high = paired_interval(counts(*strata))
        covered.append(low <= (a - b).mean() <= high)
    assert 0.92 <= np.mean(covered) <= 0.995


# rows -------------------------------------------------------------------------------------------


def test_rows_by_hand() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2]
    a = outcomes(labels, [1, 1, 1, 0, 1, 0, 0])
    b = outcomes(labels, [1, 0, 0, 0, 1, 1, 0]).sample(frac=1, random_state=0)
    groups = {"head": [0], "medium": [], "tail": [1, 2]}
    rows = compare_outcomes(a, b, groups, ["x", "y", "z"], [1]).set_index("images")
    assert ["images", *rows.columns] == COLUMNS
    assert list(rows.index) == ["all", "balanced", "head", "medium", "tail", "class y"]
    assert rows["n"].tolist() == [7, 7, 4, 0, 3, 2]
    assert rows.loc["all", ["a", "b"]].tolist() == pytest.approx([4 / 7, 3 / 7])
    assert rows.loc["balanced", "difference"] == pytest.approx((3 / 4 + 1 / 2 - 1 / 4 - 1) / 3)
    assert rows.loc["tail", ["a", "b"]].tolist() == [0.25, 0.5]
    assert rows["only_a"].tolist() == [2, 2, 2, 0, 0, 0]
    assert rows["only_b"].tolist() == [1, 1, 0, 0, 1, 1]
    assert rows.loc["all", "p"] == 1.0
    assert rows.loc["head", "p"] == 0.5
    assert rows.loc["medium", "verdict"] == "unknown"
    assert rows.loc["medium", ["a", "low", "p"]].isna().all()


def test_verdicts_follow_the_interval() -> None:
    assert paired_row(counts((50, 40, 5, 5)), "all")["verdict"] == "A better"
    assert paired_row(counts((50, 5, 40, 5)), "all")["verdict"] == "B better"
    assert paired_row(counts((50, 6, 5, 39)), "all")["verdict"] == "within noise"


@pytest.mark.parametrize(
    "other",
    [
        outcomes([0, 1], [1, 1]),
        outcomes([0, 1, 0], [1, 1, 1]),
        outcomes([0, 1, 1], [1, 1, 1]).assign(index=[1, 2, 3]),
        outcomes([0, 1, 1, 1], [1, 1, 1, 1]),
    ],
)
def test_other_images_or_labels_are_refused(other: pd.DataFrame) -> None:
    with pytest.raises(UserError, match="same test images and labels"):
        paired_counts(outcomes([0, 1, 1], [1, 0, 1]), other, 2)


# seeds ------------------------------------------------------------------------------------------


def test_welch_interval_by_hand() -> None:
    # means .30 and .20, variances 1e-4 each over 3: standard error sqrt(2e-4 / 3), 4 degrees
    row = seeds_row([0.29, 0.30, 0.31], [0.19, 0.20, 0.21])
    half = 2.7764451 * math.sqrt(2e-4 / 3)
    assert (row["low"], row["high"]) == pytest.approx((0.1 - half, 0.1 + half), abs=1e-7)
    assert row["verdict"] == "A better"
    assert row["p"] < 0.001
    assert seeds_row([0.29, 0.31], [0.28, 0.33])["verdict"] == "within noise"


@pytest.mark.parametrize(("a", "b"), [([0.3], [0.2, 0.1]), ([0.3, 0.3], [0.2, 0.2])])
def test_too_few_seeds_or_no_spread_give_no_verdict(a: list[float], b: list[float]) -> None:
    row = seeds_row(a, b)
    assert row["verdict"] == "unknown"
    assert math.isnan(row["low"])
    assert row["difference"] == pytest.approx(np.mean(a) - np.mean(b))
