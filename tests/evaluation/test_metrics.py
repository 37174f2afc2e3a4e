"""Accuracies, groups and intervals, against values worked out by hand."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.errors import UserError
from ltrobust.evaluation.metrics import (
    CUTS_TIES,
    NO_GROUPS,
    Z95,
    Grouping,
    class_groups,
    error_parts,
    intervals,
    mean_interval,
    parse_groups,
    per_class,
    summary,
    wilson,
    worst_case,
)


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
        ((5, 5, 5, 5, 5), [], [], []),
        ((7,), [], [], []),
        ((9, 9, 9, 9, 9, 2, 2, 2, 2, 2), [0, 1, 2, 3, 4], [], [5, 6, 7, 8, 9]),
        ((2, 9, 2, 9, 2, 9, 2, 9, 2, 9), [1, 3, 5, 7, 9], [], [0, 2, 4, 6, 8]),
        ((9, 9, 9, 9, 9, 9, 9, 2), [0, 1, 2, 3, 4, 5, 6], [], [7]),
        ((9, 2, 2, 2, 2, 2), [0], [], [1, 2, 3, 4, 5]),
        # most of the tied ones lie in the medium third, in the head, equally in head and medium
        ((9, 8, 5, 5, 5, 5, 3, 2, 1), [0, 1], [2, 3, 4, 5], [6, 7, 8]),
        ((9, 8, 8, 8, 4, 3, 2, 1, 0), [0, 1, 2, 3], [4, 5], [6, 7, 8]),
        ((9, 8, 8, 8, 8, 4, 3, 2, 1), [0, 1, 2, 3, 4], [5], [6, 7, 8]),
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
    every = sorted(c for members in groups.values() for c in members)
    if len(set(counts)) == 1:
        assert every == []
        return
    assert every == list(range(len(counts)))
    assert groups["head"]
    assert groups["tail"]
    found = [counts[c] for name in groups for c in sorted(groups[name], key=lambda c: -counts[c])]
    assert found == sorted(counts, reverse=True)
    # equal-sized classes are never cut apart
    assert sum(len({counts[c] for c in members}) for members in groups.values()) == len(set(counts))
    if len(set(counts)) == len(counts):
        third = max(1, round(len(counts) / 3))
        assert len(groups["head"]) == len(groups["tail"]) == third


@given(st.lists(st.integers(1, 6), min_size=2, max_size=30), st.randoms())
@settings(deadline=None)
def test_the_order_of_classes_changes_no_group_number(counts: list[int], random: Random) -> None:
    order = list(range(len(counts)))
    random.shuffle(order)
    accuracy = [(c * 7) % 11 / 10 for c in range(len(counts))]

    def means(places: list[int]) -> dict[str, float]:
        groups = class_groups([counts[c] for c in places])
        sums = {k: [accuracy[places[c]] for c in members] for k, members in groups.items()}
        return {k: round(sum(v) / len(v), 9) if v else -1 for k, v in sums.items()}

    assert means(order) == means(sorted(order))


def test_without_unequal_classes_there_is_no_number_for_head_and_tail() -> None:
    outcomes = frame((1, 2), (0, 2), (2, 2))
    numbers, bounds = summary(outcomes, [5, 5, 5]), intervals(outcomes, [5, 5, 5])
    for name in ("head", "medium", "tail"):
        assert math.isnan(numbers[name])
        assert math.isnan(bounds[f"{name}_ci_low"])
    assert numbers["balanced_accuracy"] == 0.5
    assert parse_groups(None).text([5, 5, 5]) == NO_GROUPS


def test_given_sizes_that_part_equal_classes_are_kept_and_say_so() -> None:
    step = [9] * 5 + [2] * 5
    assert class_groups(step, parse_groups("3,4,3"))["head"] == [0, 1, 2]
    assert parse_groups("3,4,3").text(step) == f"3,4,3{CUTS_TIES}"
    assert parse_groups("5,0,5").text(step) == "5,0,5"
    assert parse_groups("3,4,3").text(range(10, 0, -1)) == "3,4,3"


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


@pytest.mark.parametrize(
    ("right", "n"),
    [
        (np.zeros(30), np.full(30, 100.0)),  # three rounds: the upper bound off by 0.02 points
        (np.array([0.0] * 9 + [60.0]), np.full(10, 100.0)),
        (np.array([35.0, 68.0, 170.0, 0.0, 3.0]), np.array([35.0, 70.0, 171.0, 8.0, 40.0])),
    ],
)
def test_interval_has_settled_on_the_quantile_that_its_own_bounds_give(
    right: np.ndarray, n: np.ndarray
) -> None:
    """The reference halves an interval of quantiles until the definition holds."""

    def excess(z: float, side: int) -> float:
        bound = wilson(right, n, z)[side]
        spread = np.clip(bound * (1 - bound), 1e-12, None) / n
        return Z95 * np.sqrt(spread.sum()) / np.sqrt(spread).sum() - z

    for side, found in enumerate(mean_interval(right, n)):
        low, high = 1e-6, Z95 + 1
        assert excess(low, side) > 0 > excess(high, side)
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if excess(middle, side) > 0 else (low, middle)
        assert found == pytest.approx(float(wilson(right, n, low)[side].mean()), abs=1e-9)


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


# groups -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "grouping", "head", "medium", "tail"),
    [
        ("1,3,1", Grouping(sizes=(1, 3, 1)), [1], [0, 3, 4], [2]),
        (" 2, 0 ,3 ", Grouping(sizes=(2, 0, 3)), [1, 3], [], [0, 2, 4]),
        ("100/20", Grouping(limits=(100, 20)), [1], [0, 3, 4], [2]),
        ("1000/1", Grouping(limits=(1000, 1)), [], [0, 1, 2, 3, 4], []),
        ("50/50", Grouping(limits=(50, 50)), [1, 3], [], [0, 2, 4]),
    ],
)
def test_groups_by_sizes_and_by_limits(
    text: str, grouping: Grouping, head: list[int], medium: list[int], tail: list[int]
) -> None:
    found = parse_groups(text)
    assert found == grouping
    groups = class_groups([20, 500, 5, 100, 40], found)
    assert groups == {"head": head, "medium": medium, "tail": tail}
    assert parse_groups(found.text([20, 500, 5, 100, 40])) == found


def test_classes_at_a_limit_are_medium() -> None:
    groups = class_groups([101, 100, 20, 19], parse_groups("100/20"))
    assert groups == {"head": [0], "medium": [1, 2], "tail": [3]}


@given(st.lists(st.integers(1, 50), min_size=2, max_size=120))
@settings(deadline=None, max_examples=30)
def test_thirds_are_written_as_sizes_that_give_the_same_groups(counts: list[int]) -> None:
    text = parse_groups(None).text(counts)
    if text != NO_GROUPS:
        assert class_groups(counts, parse_groups(text)) == class_groups(counts)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "cannot be read"),
        ("3,4", "cannot be read"),
        ("3,4,3,1", "cannot be read"),
        ("-3,4,9", "cannot be read"),
        ("a/b", "cannot be read"),
        ("100/20/3", "cannot be read"),
        ("0,5,5", "at least one class"),
        ("5,5,0", "at least one class"),
        ("20/100", "must not be below"),
        ("5/0", "at least 1"),
    ],
)
def test_bad_groups_are_one_clear_line(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        parse_groups(text)
    assert f"groups '{text}'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_must_sum_to_the_number_of_classes() -> None:
    with pytest.raises(UserError, match=r"name 10 classes, but the data has 3; give .* sum to 3"):
        class_groups([3, 2, 1], parse_groups("3,4,3"))


def test_an_empty_group_has_no_number_and_no_interval() -> None:
    outcomes, grouping = frame((1, 2), (1, 2)), parse_groups("1000/1")
    numbers = summary(outcomes, [9, 5], grouping)
    bounds = intervals(outcomes, [9, 5], grouping)
    for name in ("head", "tail"):
        assert math.isnan(numbers[name])
        assert math.isnan(bounds[f"{name}_ci_low"])
        assert math.isnan(bounds[f"{name}_ci_high"])
    assert numbers["medium"] == 0.5
    assert bounds["medium_ci_low"] < 0.5 < bounds["medium_ci_high"]


# intervals --------------------------------------------------------------------------------------


def test_intervals_by_hand() -> None:
    # accuracy 81/263 and worst class 1/29 are in Newcombe 1998, table I
    bounds = intervals(frame((80, 234), (1, 29)), train_counts=[9, 5])
    assert (bounds["acc_ci_low"], bounds["acc_ci_high"]) == pytest.approx(
        (0.2553, 0.3662), abs=1e-4
    )
    worst = (bounds["worst_class_ci_low"], bounds["worst_class_ci_high"])
    assert worst == pytest.approx((0.0061, 0.1718), abs=1e-4)
    # one class a group: its own Wilson interval
    assert (bounds["tail_ci_low"], bounds["tail_ci_high"]) == pytest.approx(worst)
    assert math.isnan(bounds["medium_ci_low"])


def test_interval_of_a_group_is_the_stratified_one_of_its_classes() -> None:
    bounds = intervals(frame((9, 10), (5, 8), (2, 10), (0, 10)), [9, 8, 7, 6], Grouping((2, 1, 1)))
    expected = mean_interval(np.array([9.0, 5.0]), np.array([10.0, 8.0]))
    assert (bounds["head_ci_low"], bounds["head_ci_high"]) == pytest.approx(expected)


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda p: (min(p), max(p))),
        min_size=3,
        max_size=9,
    ).filter(lambda classes: any(n for _, n in classes))
)
@settings(deadline=None, max_examples=50)
def test_every_interval_holds_its_number(classes: list[tuple[int, int]]) -> None:
    counts = list(range(len(classes), 0, -1))
    numbers, bounds = summary(frame(*classes), counts), intervals(frame(*classes), counts)
    for name, key in (
        ("acc", "accuracy"),
        *((key, key) for key in ("head", "medium", "tail", "worst_class")),
    ):
        low, high = bounds[f"{name}_ci_low"], bounds[f"{name}_ci_high"]
        if math.isnan(numbers[key]):
            assert math.isnan(low)
            assert math.isnan(high)
        else:
            assert 0 <= low <= numbers[key] + 1e-12
            assert numbers[key] - 1e-12 <= high <= 1
            assert low < high


# natural and boundary error ---------------------------------------------------------------------


def test_errors_are_split_by_what_broke_each_image() -> None:
    parts = error_parts(natural=1, right=1, n=4)
    assert parts == {"natural_error": 0.25, "boundary_error": 0.5}
    assert sum(parts.values()) == 1 - 1 / 4


# worst case over seeds --------------------------------------------------------------------------


def test_worst_case_takes_the_first_seed_that_broke_an_image() -> None:
    columns = ["index", "label", "pred", "correct", "fell"]
    first = pd.DataFrame(
        [
            (7, 0, 0, True, ""),
            (8, 0, 2, False, "a"),
            (9, 1, 1, True, ""),
            (5, 1, 0, False, "clean"),
        ],
        columns=columns,
    )
    second = pd.DataFrame(
        [
            (5, 1, 0, False, "clean"),
            (9, 1, 3, False, "b"),
            (8, 0, 1, False, "b"),
            (7, 0, 0, True, ""),
        ],
        columns=columns,
    )
    worst = worst_case([first, second])
    assert worst["index"].tolist() == [7, 8, 9, 5]
    assert worst["correct"].tolist() == [True, False, False, False]
    assert worst["pred"].tolist() == [0, 2, 3, 0]
    assert worst["fell"].tolist() == ["", "a", "b", "clean"]
