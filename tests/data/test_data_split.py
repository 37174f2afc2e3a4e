"""The long-tailed rule: counts, chosen images, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ltrobust.data import long_tail_counts, long_tail_indices
from ltrobust.data.split import largest_n_max, scale_counts
from ltrobust.errors import UserError

ratios = st.floats(1, 500)
kinds = st.sampled_from(["exp", "step"])


@given(st.integers(1, 5000), st.integers(2, 100), ratios, kinds)
@settings(deadline=None)
def test_counts_fall_from_n_max_to_the_ratio(n_max: int, classes: int, ratio: float, kind: Any):
    counts = long_tail_counts(n_max, classes, ratio, kind)
    assert len(counts) == classes
    assert counts[0] == n_max
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == max(1, math.trunc(n_max * (1 / ratio)))


def test_step_gives_the_middle_class_of_an_odd_number_to_the_tail():
    assert long_tail_counts(100, 5, 10, "step") == [100, 100, 10, 10, 10]


def test_no_class_vanishes():
    assert min(long_tail_counts(49, 10, 49)) == 1  # 49 * (1 / 49) is just below one in floats


@pytest.mark.parametrize("ratio", [0.5, 0, -1, math.nan, math.inf])
def test_a_ratio_below_one_or_not_finite_is_refused(ratio: float):
    with pytest.raises(UserError, match="imbalance ratio"):
        long_tail_counts(100, 10, ratio)


def test_an_unknown_type_is_refused_with_the_nearest_match():
    with pytest.raises(UserError, match="did you mean 'step'"):
        long_tail_counts(100, 10, 10, "stepp")  # type: ignore[arg-type]


@pytest.mark.parametrize(("n_max", "classes"), [(0, 10), (100, 1)])
def test_too_few_images_or_classes_are_refused(n_max: int, classes: int):
    with pytest.raises(UserError, match="at least"):
        long_tail_counts(n_max, classes, 10)


def test_indices_hold_each_class_in_order_and_repeat_for_a_seed():
    labels = np.tile(np.arange(4), 20)
    first = long_tail_indices(labels, [10, 5, 3, 1], 7)
    assert labels[first].tolist() == [0] * 10 + [1] * 5 + [2] * 3 + [3]
    assert len(set(first.tolist())) == 19
    assert np.array_equal(first, long_tail_indices(labels, [10, 5, 3, 1], 7))
    assert not np.array_equal(first, long_tail_indices(labels, [10, 5, 3, 1], 8))


def test_choosing_images_leaves_the_global_generator_alone():
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    long_tail_indices(np.tile(np.arange(4), 20), [10, 5, 3, 1], 0)
    assert np.random.rand() == expected


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(UserError, match=r"class 1 has 2 training images.*takes 3"):
        long_tail_indices(np.array([0, 0, 0, 1, 1]), [3, 3], 0)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed: int):
    with pytest.raises(UserError, match="split seed"):
        long_tail_indices(np.array([0, 1]), [1, 1], seed)


@given(st.lists(st.integers(1, 60), min_size=2, max_size=8), ratios, kinds)
@settings(deadline=None)
def test_largest_n_max_fits_and_one_more_does_not(sizes: list[int], ratio: float, kind: Any):
    def fits(n_max: int) -> bool:
        counts = long_tail_counts(n_max, len(sizes), ratio, kind)
        return all(count <= size for count, size in zip(counts, sizes, strict=True))

    n_max = largest_n_max(sizes, ratio, kind)
    assert fits(n_max)
    assert not fits(n_max + 1)


def test_scaled_counts_round_down_but_keep_every_class():
    assert scale_counts([100, 50, 1], 75) == [49, 24, 1]
    assert scale_counts([100, 50, 1], 151) == [100, 50, 1]
    assert scale_counts([100, 50, 1], 10_000) == [100, 50, 1]
