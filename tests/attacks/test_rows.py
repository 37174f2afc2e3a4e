"""Rows are sorted and selected right, and FAB's projection is the same with them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pyautoattack.fab_projections import projection_linf

import ltrobust.attacks.rows as rows
from ltrobust.attacks.rows import QuickRows, argsort_rows

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
    monkeypatch.setattr(rows, "argsort_rows", lambda x: taken.append(x.shape) or x)
    with QuickRows():
        torch.argsort(torch.rand(2, 3), dim=1)
        torch.argsort(torch.rand(2, 3), dim=0)
        torch.argsort(torch.rand(2, 3), dim=1, descending=True)
        torch.argsort(torch.rand(2, 3).double(), dim=1)
        torch.argsort(torch.rand(4), dim=0)
    torch.argsort(torch.rand(5, 6), dim=1)
    assert taken == [(2, 3)]


@pytest.mark.parametrize("shape", [(6,), (6, 3), (6, 2, 4, 5)])
@pytest.mark.parametrize("chosen", [(), (1, 4), range(6)])
def test_masks_select_the_same_rows(shape: tuple[int, ...], chosen: Iterable[int]) -> None:
    x, mask = torch.randn(shape), torch.zeros(6, dtype=torch.bool)
    mask[list(chosen)] = True
    with QuickRows():
        found = x[mask]
    assert torch.equal(found, x[mask])
    found.zero_()
    assert bool((x != 0).all())


def test_other_ways_of_selecting_are_left_alone() -> None:
    x = torch.randn(4, 4)
    whole, index, row = x > 0, torch.tensor([3, -1]), torch.tensor([True, False, True, False])
    with QuickRows():
        found = [x[whole], x[index], x[1], x[:, row], x[None], x[row, 1]]
    expected = [x[whole], x[index], x[1], x[:, row], x[None], x[row, 1]]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_fabs_projection_is_the_same() -> None:
    """Up to the order of sums: many pixels are exactly 0 or 1, and equal entries have no order."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(20, 300, generator=draw)
    x[:, ::5], x[:, 1::7] = 0.0, 1.0
    w = torch.randn(20, 300, generator=draw)
    b = (w * x).sum(1) + torch.randn(20, generator=draw)
    expected = projection_linf(x, w, b)
    with QuickRows():
        found = projection_linf(x, w, b)
    assert float(expected.abs().max()) > 0
    assert torch.allclose(found, expected, atol=1e-5)
