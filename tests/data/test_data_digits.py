"""digits-lt: sizes, test part, limits and protocols on an embedded data set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from ltrobust.data import load_data
from ltrobust.errors import UserError


def test_sizes_types_and_shape():
    data = load_data("digits-lt")
    assert data.train_counts == (120, 92, 71, 55, 43, 33, 25, 20, 15, 12)
    assert data.imbalance_ratio == 10
    assert data.image_shape == (1, 8, 8)
    assert data.num_classes == 10
    assert data.test_images.shape == (500, 1, 8, 8)
    assert data.train_images.dtype == data.test_images.dtype == torch.uint8
    assert data.train_labels.dtype == data.train_index.dtype == torch.int64
    assert data.test_labels.dtype == data.test_index.dtype == torch.int64


def test_index_points_into_scikit_learns_digits():
    raw = load_digits()
    data = load_data("digits-lt", split_seed=3)
    for images, labels, index in (
        (data.train_images, data.train_labels, data.train_index),
        (data.test_images, data.test_labels, data.test_index),
    ):
        expected = np.rint(raw.images[index] * 255 / 16)
        assert np.array_equal(images[:, 0].numpy(), expected)
        assert np.array_equal(labels.numpy(), raw.target[index])


@given(st.integers(0, 2**32 - 1), st.floats(1, 120), st.sampled_from(["exp", "step"]))
@settings(max_examples=15, deadline=None)
def test_train_and_test_are_disjoint_and_test_is_balanced(seed: int, ratio: float, kind: Any):
    data = load_data("digits-lt", split_seed=seed, imbalance_ratio=ratio, imbalance_type=kind)
    assert not set(data.train_index.tolist()) & set(data.test_index.tolist())
    assert torch.bincount(data.test_labels).tolist() == [50] * 10
    assert list(data.train_counts) == sorted(data.train_counts, reverse=True)
    assert data.train_counts[0] == 120


def test_a_larger_ratio_keeps_a_part_of_the_same_images():
    mild = load_data("digits-lt", imbalance_ratio=10)
    steep = load_data("digits-lt", imbalance_ratio=40)
    assert set(steep.train_index.tolist()) < set(mild.train_index.tolist())
    assert torch.equal(steep.test_index, mild.test_index)


def test_the_split_seed_changes_the_images_and_the_checksum():
    first, again, other = (load_data("digits-lt", split_seed=seed) for seed in (0, 0, 1))
    assert first.split_sha256 == again.split_sha256
    assert first.split_sha256 != other.split_sha256
    assert not torch.equal(first.test_index, other.test_index)


def test_limit_train_scales_the_counts_and_keeps_the_first_of_each_class():
    full = load_data("digits-lt")
    small = load_data("digits-lt", limit_train=40)
    assert small.train_counts == tuple(max(1, n * 40 // 486) for n in full.train_counts)
    for c in range(10):
        kept = small.train_index[small.train_labels == c]
        assert torch.equal(kept, full.train_index[full.train_labels == c][: len(kept)])


def test_limit_test_takes_the_first_of_each_class_and_gives_the_rest_to_the_first_classes():
    full = load_data("digits-lt")
    small = load_data("digits-lt", limit_test=23)
    assert torch.bincount(small.test_labels).tolist() == [3] * 3 + [2] * 7
    for c in range(10):
        kept = small.test_index[small.test_labels == c]
        assert torch.equal(kept, full.test_index[full.test_labels == c][: len(kept)])
    assert torch.equal(small.test_index, small.test_index.sort().values)


def test_long_tailed_test_protocol_cuts_the_test_set_by_the_training_ratio():
    full = load_data("digits-lt")
    data = load_data("digits-lt", test_protocol="long-tailed")
    counts = torch.bincount(data.test_labels).tolist()
    assert counts == [50, 38, 29, 23, 17, 13, 10, 8, 6, 5]
    for c in range(10):
        kept = data.test_index[data.test_labels == c]
        assert torch.equal(kept, full.test_index[full.test_labels == c][: len(kept)])
    limited = load_data("digits-lt", test_protocol="long-tailed", limit_test=20)
    assert torch.bincount(limited.test_labels).tolist() == [max(1, n * 20 // 199) for n in counts]


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"imbalance_ratio": 0.9}, "imbalance ratio 0.9"),
        ({"imbalance_ratio": float("nan")}, "imbalance ratio nan"),
        ({"imbalance_ratio": float("inf")}, "imbalance ratio inf"),
        ({"imbalance_ratio": 121}, "at most 120"),
        ({"imbalance_type": "linear"}, "unknown imbalance type 'linear'"),
        ({"test_protocol": "longtailed"}, "did you mean 'long-tailed'"),
        ({"split_seed": -1}, "split seed -1"),
        ({"limit_train": 9}, "--limit-train 9"),
        ({"limit_train": 0}, "--limit-train 0"),
        ({"limit_test": 9}, "--limit-test 9"),
        ({"limit_test": 9, "test_protocol": "long-tailed"}, "--limit-test 9"),
    ],
)
def test_bad_settings_are_one_clear_line(settings_: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message) as caught:
        load_data("digits-lt", **settings_)
    assert "\n" not in str(caught.value)


def test_an_unknown_data_set_is_refused():
    with pytest.raises(UserError, match="did you mean 'digits-lt'"):
        load_data("digit-lt")


def test_other_digits_than_those_of_the_splits_are_refused(monkeypatch: pytest.MonkeyPatch):
    raw = load_digits()
    raw.images[7, 3, 3] = (raw.images[7, 3, 3] + 1) % 17
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda: raw)
    with pytest.raises(UserError, match="not the 1,797 images"):
        load_data("digits-lt")
