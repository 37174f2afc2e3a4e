"""Reads a set of golden numbers: which cases there are, and their arrays as tensors.

Knows nothing about the code under test.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

OWN = Path(__file__).parents[1] / "golden"


def path(name: str) -> Path:
    """A file of the set; one that does not depend on the set may be left out of it."""
    folder = Path(os.environ.get("LTROBUST_GOLDEN_DIR") or OWN)
    if not folder.is_dir():
        raise FileNotFoundError(f"LTROBUST_GOLDEN_DIR={folder} is no folder")
    chosen = folder / name
    return chosen if chosen.exists() else OWN / name


@functools.cache
def document(name: str) -> dict[str, Any]:
    return json.loads(path(f"{name}.json").read_text())


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(path(f"{name}.npz")) as stored:
        return dict(stored)


def tensor(name: str, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """An array as a fresh tensor, floats in `dtype`."""
    value = torch.from_numpy(arrays(name)[key].copy())
    return value.to(dtype) if value.is_floating_point() else value


def each_case(name: str) -> pytest.MarkDecorator:
    """Parametrise a test over all cases of a file."""
    cases = document(name)["cases"]
    return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


def assert_close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """|actual - expected| <= tolerance * max(1, |expected|), entry by entry."""
    assert actual.shape == expected.shape
    error = (actual.detach().double() - expected.double()).abs()
    worst = (error / expected.double().abs().clamp_min(1)).max().item()
    assert worst <= tolerance, f"off by {worst:.3g}, allowed {tolerance:g}"


class Arguments:
    """The `args` of a case. It notes which were read, so that none can be overlooked."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values
        self._read: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self._read.add(key)
        return self._values.get(key, default)

    def given(self, *keys: str) -> dict[str, Any]:
        """Those of `keys` that the case sets."""
        return {key: self.get(key) for key in keys if key in self._values}

    def must_be(self, key: str, *allowed: Any) -> None:
        """Note an argument whose other values nobody uses."""
        assert self.get(key, allowed[0]) in allowed, f"{key} = {self.get(key)!r} is not handled"

    def assert_all_read(self) -> None:
        assert set(self._values) <= self._read, f"not read: {set(self._values) - self._read}"
