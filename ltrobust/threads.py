"""How many threads the CPU computes with: the last bits of its sums depend on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def computing_with(threads: int | None) -> Iterator[int]:
    """Compute with so many threads in the block (None: with those that torch takes); yield them.

    The number is set even where it is the present one: torch's libraries may choose fewer on their
    own, case by case, until they are told.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
