"""The class-aware sampler against the published code, with Python's random numbers."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import pytest
import torch
from golden_store import SECOND, Arguments
from torch import Tensor

from ltrobust.data.class_aware import ClassAware

pytestmark = pytest.mark.golden
DOCUMENT = SECOND.document("samplers")
CASES = DOCUMENT["cases"]


def digest(indices: Tensor) -> str:
    return hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()


def identity(case: dict[str, Any]) -> str:
    return f"{case['repo']}-{case['args']['num_samples_cls']}-{case['python_random_seed']}"


@pytest.mark.parametrize("case", CASES, ids=[identity(case) for case in CASES])
def test_order_of_two_epochs(case: dict[str, Any]) -> None:
    assert case["function"] == "ClassAwareSampler", "no sampler of ours stands for this case"
    labels, args = torch.tensor(DOCUMENT["labels"]), Arguments(case["args"])
    draw = random.Random(case["python_random_seed"])
    in_a_row = args.get("num_samples_cls")
    args.assert_all_read()
    sampler = ClassAware(labels, draw.shuffle, images_per_class=in_a_row)
    assert len(sampler) == case["length"]
    first = sampler.take(len(sampler))
    sampler.end_epoch()
    second = sampler.take(len(sampler))
    assert first[:40].tolist() == case["first_40"]
    assert torch.bincount(labels[first]).tolist() == case["class_histogram"]
    assert digest(first) == case["sha256_epoch1"]
    assert digest(second) == case["sha256_epoch2"]


def test_an_epoch_taken_in_batches_is_the_same() -> None:
    labels = torch.tensor(DOCUMENT["labels"])
    whole, parts = (
        ClassAware(labels, random.Random(0).shuffle, images_per_class=3) for _ in range(2)
    )
    batches = [parts.take(n) for n in (1, 4, 7, 8)]
    assert torch.equal(torch.cat(batches), whole.take(20))
