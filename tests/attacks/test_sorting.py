"""Rows are sorted right, and FAB's projection is the same with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pyautoattack.fab_projections import projection_linf

import ltrobust.attacks.sorting as sorting
from ltrobust.attacks.sorting import QuickArgsort, argsort_rows

FLOATS = st.one_of(st.floats(width=32, allow_nan=False), st.sampled_from([0.0, -0.0, 1.0, -1.0]))


@settings(deadline=None)
@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=FLOATS))
def test_rows_are_sorted_and_equal_entries_keep_their_order(values: np.ndarray) -> None:
    found = argsort_rows(torch.from_numpy(values.copy()))
    assert found.dtype == torch.int64
    assert np.array_equal(found.numpy(), np.argsort(values, axis=1, kind="stable"))


def test_the_argument_is_left_as_it_is() -> None:
    x = torch.randn(3, 5)
    before = x.clone()
    argsort_rows(x)
    assert torch.equal(x, before)


def test_only_rows_of_float32_on_a_cpu_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(sorting, "argsort_rows", lambda x: taken.append(x.shape) or x)
    with QuickArgsort():
        torch.argsort(torch.rand(2, 3), dim=1)
        torch.argsort(torch.rand(2, 3), dim=0)
        torch.argsort(torch.rand(2, 3), dim=1, descending=True)
        torch.argsort(torch.rand(2, 3).double(), dim=1)
        torch.argsort(torch.rand(4), dim=0)
    torch.argsort(torch.rand(5, 6), dim=1)
    assert taken == [(2, 3)]


def test_fabs_projection_is_the_same() -> None:
    """Up to the order of sums: many pixels are exactly 0 or 1, and equal entries have no order."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(20, 300, generator=draw)
    x[:, ::5], x[:, 1::7] = 0.0, 1.0
    w = torch.randn(20, 300, generator=draw)
    b = (w * x).sum(1) + torch.randn(20, generator=draw)
    expected = projection_linf(x, w, b)
    with QuickArgsort():
        found = projection_linf(x, w, b)
    assert float(expected.abs().max()) > 0
    assert torch.allclose(found, expected, atol=1e-5)
