"""Class counts and chosen images against the published code."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from golden_store import arrays, document

from ltrobust.data.split import long_tail_counts, long_tail_indices

pytestmark = pytest.mark.golden
INDICES = document("long_tail_indices")
PUBLISHED = INDICES.get("robustlt_published_splits", {"cases": {}})["cases"]


def sha256(values: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(values, dtype="<i8").tobytes()).hexdigest()


def count_cases() -> Iterator[Any]:
    """All count entries: (kind, entry, n_max), with the place in the json as the id."""
    for dataset, content in document("long_tail_counts").items():
        for part, entries in content.items():
            if part not in ("exp", "step", "train", "test") or "source" in content.get(part, {}):
                continue
            if dataset.startswith("rule"):
                continue
            kind = part if part in ("exp", "step") else "exp"
            for ratio, entry in entries.items():
                n_max = content.get("n_max", max(entry["counts"]))
                yield pytest.param(kind, entry, n_max, id=f"{dataset}-{part}-{ratio}")


@pytest.mark.parametrize(("kind", "entry", "n_max"), count_cases())
def test_counts(kind: Any, entry: dict[str, Any], n_max: int) -> None:
    counts = long_tail_counts(n_max, len(entry["counts"]), 1 / entry["imb_factor"], kind)
    assert counts == entry["counts"]
    assert sum(counts) == entry["total"]
    assert max(counts) / min(counts) == pytest.approx(
        entry.get("max_over_min", max(counts) / min(counts))
    )


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    stored = arrays("cifar10_train_labels")["labels"].astype(np.int64)
    assert sha256(stored) == INDICES["train_labels_sha256_int64_le"]
    return stored


@pytest.mark.parametrize("name", INDICES["cases"])
def test_chosen_images(name: str, labels: np.ndarray) -> None:
    case = INDICES["cases"][name]
    kept = np.bincount(labels)
    counts = long_tail_counts(max(kept), len(kept), 1 / case["imb_factor"], case["imb_type"])
    assert counts == case["counts"]
    chosen = long_tail_indices(labels, counts, case["seed"])
    assert len(chosen) == case["total"]
    assert sha256(chosen) == case["sha256_int64_le"]
    assert sha256(np.sort(chosen)) == case["sha256_sorted_int64_le"]
    assert chosen.sum() == case["sum_of_indices"]
    for label, first in case["first10_per_class"].items():
        of_class = chosen[labels[chosen] == int(label)].tolist()
        assert of_class[: len(first)] == first
        last = case["last3_per_class"][label]
        assert of_class[-len(last) :] == last


@pytest.mark.parametrize("name", PUBLISHED)
def test_robustlt_images(name: str, labels: np.ndarray) -> None:
    from ltrobust.data.split import robustlt_indices

    case = PUBLISHED[name]
    kept = np.bincount(labels)
    counts = long_tail_counts(max(kept), len(kept), case["imb_rate"], "exp")
    assert counts == case["counts_train_plus_val"]
    train, validation = robustlt_indices(labels, counts, case["seed"])
    assert (len(train), len(validation)) == (case["n_train"], case["n_val"])
    both = np.concatenate([train, validation])
    assert sha256(both) == case["sha256_int64_le_train_then_val"]
    assert sha256(np.sort(both)) == case["sha256_sorted_int64_le"]
    for label, first in case["first10_per_class_of_train"].items():
        assert train[labels[train] == int(label)][: len(first)].tolist() == first
