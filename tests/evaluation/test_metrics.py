"""Accuracies, groups and intervals, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.evaluation.metrics import class_groups, mean_interval, per_class, summary, wilson


def frame(*classes: tuple[int, int]) -> pd.DataFrame:
    """Outcomes of classes given as (right, n)."""
    rows = [
        {"label": label, "correct": i < right}
        for label, (right, n) in enumerate(classes)
        for i in range(n)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("counts", "head", "medium", "tail"),
    [
        ((9, 4), [0], [], [1]),
        ((4, 9), [1], [], [0]),
        ((9, 4, 1), [0], [1], [2]),
        ((1, 9, 4, 3), [1], [2, 3], [0]),
        ((5, 5, 5, 5, 5), [0, 1], [2], [3, 4]),
        (tuple(range(10, 0, -1)), [0, 1, 2], [3, 4, 5, 6], [7, 8, 9]),
    ],
)
def test_groups(
    counts: tuple[int, ...], head: list[int], medium: list[int], tail: list[int]
) -> None:
    assert class_groups(counts) == {"head": head, "medium": medium, "tail": tail}


def test_groups_of_a_hundred_classes() -> None:
    groups = class_groups(range(100, 0, -1))
    assert [len(groups[name]) for name in ("head", "medium", "tail")] == [33, 34, 33]
    assert groups["head"] == list(range(33))
    assert groups["tail"] == list(range(67, 100))


@given(st.lists(st.integers(1, 50), min_size=2, max_size=120))
@settings(deadline=None)
def test_groups_part_the_classes_by_their_counts(counts: list[int]) -> None:
    groups = class_groups(counts)
    assert sorted(c for members in groups.values() for c in members) == list(range(len(counts)))
    assert len(groups["head"]) == len(groups["tail"]) == max(1, round(len(counts) / 3))
    assert min(counts[c] for c in groups["head"]) >= max(counts[c] for c in groups["tail"])


def test_summary_by_hand() -> None:
    # three classes with 2/2, 1/2 and 1/4 right; the first is the tail by its training count
    numbers = summary(frame((2, 2), (1, 2), (1, 4)), train_counts=[5, 100, 50])
    assert numbers["n"] == 8
    assert numbers["accuracy"] == 4 / 8
    assert numbers["balanced_accuracy"] == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert (numbers["head"], numbers["medium"], numbers["tail"]) == (0.5, 0.25, 1.0)
    assert numbers["worst_class"] == 0.25
    assert numbers["ci_low"] < numbers["balanced_accuracy"] < numbers["ci_high"]


def test_group_of_several_classes_is_the_mean_of_its_classes() -> None:
    numbers = summary(frame((1, 1), (0, 3), (2, 2), (0, 1), (1, 2)), train_counts=[9, 8, 7, 6, 5])
    assert (numbers["head"], numbers["medium"], numbers["tail"]) == (0.5, 1.0, 0.25)


def test_per_class_rows() -> None:
    rows = per_class(frame((1, 2), (0, 0), (3, 3)), num_classes=4)
    assert list(rows) == ["class_index", "n_test", "right", "accuracy"]
    assert rows["n_test"].tolist() == [2, 0, 3, 0]
    assert rows["right"].tolist() == [1, 0, 3, 0]
    assert rows["accuracy"].tolist()[::2] == [0.5, 1.0]
    assert rows["accuracy"].isna().tolist() == [False, True, False, True]


def test_classes_without_test_images_are_left_out_of_every_mean() -> None:
    numbers = summary(frame((1, 2), (0, 0), (1, 1)), train_counts=[9, 5, 1])
    assert numbers["balanced_accuracy"] == 0.75
    assert (numbers["head"], numbers["tail"], numbers["worst_class"]) == (0.5, 1.0, 0.5)
    assert math.isnan(numbers["medium"])
    assert all(math.isfinite(numbers[key]) for key in ("ci_low", "ci_high"))


def test_two_classes_have_no_medium() -> None:
    numbers = summary(frame((1, 2), (1, 1)), train_counts=[9, 5])
    assert math.isnan(numbers["medium"])


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        # (k + z^2/2 -+ z sqrt(k (n - k) / n + z^2 / 4)) / (n + z^2), z^2 = 3.841459
        (0, 10, 0.0, 3.841459 / 13.841459),
        (10, 10, 10 / 13.841459, 1.0),
        (5, 10, 0.236593, 0.763407),
        (81, 263, 0.255300, 0.366242),  # Newcombe 1998, table I: 0.2553 to 0.3662
        (1, 29, 0.006113, 0.171755),  # Newcombe 1998, table I: 0.0061 to 0.1718
    ],
)
def test_wilson_against_published_values(right: int, n: int, low: float, high: float) -> None:
    found = wilson(np.array([float(right)]), np.array([float(n)]))
    assert found[0][0] == pytest.approx(low, abs=1e-4)
    assert found[1][0] == pytest.approx(high, abs=1e-4)


def test_interval_of_one_class_is_its_wilson_interval() -> None:
    right, n = np.array([3.0]), np.array([8.0])
    low, high = wilson(right, n)
    assert mean_interval(right, n) == pytest.approx((low[0], high[0]))


def test_interval_of_equal_classes_shrinks_with_their_number() -> None:
    one = mean_interval(np.full(1, 20.0), np.full(1, 40.0))
    four = mean_interval(np.full(4, 20.0), np.full(4, 40.0))
    assert four[1] - four[0] == pytest.approx((one[1] - one[0]) / 2, rel=0.1)


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 30)).map(lambda p: (min(p), max(p))),
        min_size=1,
        max_size=12,
    )
)
@settings(deadline=None)
def test_interval_holds_the_mean_and_never_vanishes(classes: list[tuple[int, int]]) -> None:
    right, n = (np.array(part, dtype=float) for part in zip(*classes, strict=True))
    low, high = mean_interval(right, n)
    assert 0 <= low <= (right / n).mean() <= high <= 1
    assert low < high


@pytest.mark.parametrize(
    ("shares", "n"),
    [
        (np.linspace(0.95, 0.2, 10), np.full(10, 100)),
        (np.linspace(0.9, 0.02, 10), np.full(10, 10)),
        (np.full(10, 0.99), np.full(10, 20)),
        (np.full(100, 0.05), np.full(100, 10)),
        (np.array([0.8, 0.3]), np.array([200, 10])),
    ],
)
def test_interval_covers_the_true_mean_about_as_often_as_it_says(
    shares: np.ndarray, n: np.ndarray
) -> None:
    draws = np.random.default_rng(0).binomial(n, shares, size=(3000, len(n)))
    intervals = (mean_interval(right.astype(float), n.astype(float)) for right in draws)
    covered = np.mean([low <= shares.mean() <= high for low, high in intervals])
    assert 0.92 <= covered <= 0.995


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.randoms())
@settings(max_examples=20, deadline=None)
def test_order_of_the_rows_does_not_matter(correct: list[bool], draw: object) -> None:
    rows = pd.DataFrame({"label": [i % 3 for i in range(len(correct))], "correct": correct})
    shuffled = rows.sample(frac=1, random_state=0)
    one, other = summary(rows, [3, 2, 1]), summary(shuffled, [3, 2, 1])
    assert {k: v for k, v in one.items() if v == v} == {k: v for k, v in other.items() if v == v}
