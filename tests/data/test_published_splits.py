"""Counts and chosen images against numbers from the published code."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ltrobust.data import load_data, long_tail_counts, long_tail_indices
from ltrobust.data.cifar import cifar_source
from ltrobust.data.layouts import CIFAR10

Golden = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def real_data_dir() -> Path:
    folder = os.environ.get("LTROBUST_DATA_DIR")
    if not folder or cifar_source(CIFAR10, Path(folder)) is None:
        pytest.skip("set LTROBUST_DATA_DIR to a folder with the real CIFAR-10")
    return Path(folder)


@pytest.fixture(scope="module")
def real_labels(real_data_dir: Path) -> np.ndarray:
    source = cifar_source(CIFAR10, real_data_dir)
    assert source is not None
    return source.train.labels


def sha256(values: np.ndarray) -> str:
    return hashlib.sha256(values.astype("<i8").tobytes()).hexdigest()


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
@pytest.mark.parametrize("kind", ["exp", "step"])
def test_counts_are_those_of_ldam_and_robal(golden_json: Golden, dataset: str, kind: Any):
    golden = golden_json("long_tail_counts.json")[dataset]
    assert golden[kind]
    for key, case in golden[kind].items():
        ratio = float(key.removeprefix("IR"))
        counts = long_tail_counts(golden["n_max"], golden["num_classes"], ratio, kind)
        assert counts == case["counts"], key


@pytest.mark.parametrize(("part", "n_max"), [("train", 5000), ("test", 1000)])
def test_counts_are_those_of_taet(golden_json: Golden, part: str, n_max: int):
    cases = golden_json("long_tail_counts.json")["taet_cifar10"][part]
    assert cases
    for key, case in cases.items():
        ratio = float(key.removeprefix("IR"))
        assert long_tail_counts(n_max, 10, ratio, "exp") == case["counts"], key


def test_counts_of_robustlts_published_splits(golden_json: Golden):
    cases = golden_json("long_tail_indices.json")["robustlt_published_splits"]["cases"]
    for case in cases.values():
        counts = long_tail_counts(5000, 10, case["imb_rate"], "exp")
        assert counts == case["counts_train_plus_val"]


def test_chosen_images_are_robals(golden_json: Golden, real_labels: np.ndarray):
    golden = golden_json("long_tail_indices.json")
    assert sha256(real_labels) == golden["train_labels_sha256_int64_le"]
    for key, case in golden["cases"].items():
        counts = long_tail_counts(5000, 10, 1 / case["imb_factor"], case["imb_type"])
        assert counts == case["counts"], key
        index = long_tail_indices(real_labels, counts, case["seed"])
        assert sha256(index) == case["sha256_int64_le"], key
        first = {str(c): index[real_labels[index] == c][:10].tolist() for c in range(10)}
        assert first == case["first10_per_class"], key


def test_loading_real_cifar10_gives_robals_images(golden_json: Golden, real_data_dir: Path):
    data = load_data("cifar10-lt", data_dir=real_data_dir)
    case = golden_json("long_tail_indices.json")["cases"]["exp_0.02"]
    assert data.split_sha256 == case["sha256_int64_le"]
    assert list(data.train_counts) == case["counts"]
    assert data.train_images.shape == (case["total"], 3, 32, 32)
    assert data.imbalance_ratio == 50
    assert data.class_names[0] == "airplane"
    mean = data.train_images[data.train_labels == 0].float().mean(dim=(0, 2, 3)) / 255
    # all 5,000 airplanes are kept: their mean colour is known and blue-ish
    assert mean.tolist() == pytest.approx([0.5256, 0.5603, 0.5889], abs=2e-3)
