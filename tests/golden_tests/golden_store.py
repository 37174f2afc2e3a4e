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


class GoldenSet:
    """A folder of golden numbers.

    Args:
        variable: environment variable that names another folder of the same kind.
        own: name of the set's folder below tests/.
    """

    def __init__(self, variable: str, own: str) -> None:
        self._variable, self._own = variable, Path(__file__).parents[1] / own
        self.document = functools.cache(self._document)
        self.arrays = functools.cache(self._arrays)

    def path(self, name: str) -> Path:
        """A file of the set; one that does not depend on the set may be left out of it."""
        folder = Path(os.environ.get(self._variable) or self._own)
        if not folder.is_dir():
            raise FileNotFoundError(f"{self._variable}={folder} is no folder")
        chosen = folder / name
        return chosen if chosen.exists() else self._own / name

    def _document(self, name: str) -> dict[str, Any]:
        return json.loads(self.path(f"{name}.json").read_text())

    def _arrays(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.path(f"{name}.npz")) as stored:
            return dict(stored)

    def tensor(self, name: str, key: str, dtype: torch.dtype = torch.float64) -> Tensor:
        """An array as a fresh tensor, floats in `dtype`."""
        value = torch.from_numpy(self.arrays(name)[key].copy())
        return value.to(dtype) if value.is_floating_point() else value

    def each_case(self, name: str) -> pytest.MarkDecorator:
        """Parametrise a test over all cases of a file."""
        cases = self.document(name)["cases"]
        return pytest.mark.parametrize("case", cases, ids=[case["name"] for case in cases])


FIRST = GoldenSet("LTROBUST_GOLDEN_DIR", "golden")
SECOND = GoldenSet("LTROBUST_GOLDEN2_DIR", "golden2")
path, document, arrays = FIRST.path, FIRST.document, FIRST.arrays
tensor, each_case = FIRST.tensor, FIRST.each_case


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
