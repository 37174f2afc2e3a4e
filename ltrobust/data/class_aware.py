"""Class-aware sampling: first a class, then one of its images, each in shuffled cycles.

Shen, Lin, Huang 2016, "Relay Backpropagation for Effective Learning of Deep Convolutional Neural
Networks", as RoBal's and Facebook's code have it. Where randomness comes from is the
caller's choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Shuffle = Callable[[list[int]], None]
"""Puts a list into another order, in place."""


def shuffled_by(generator: torch.Generator) -> Shuffle:
    """Shuffles that are drawn from a generator on the CPU."""

    def shuffle(values: list[int]) -> None:
        order = torch.randperm(len(values), generator=generator).tolist()
        values[:] = [values[i] for i in order]

    return shuffle


def cycle(values: list[int], shuffle: Shuffle) -> Iterator[int]:
    """All values over and over; before every round the last order is shuffled once more."""
    values = list(values)
    while True:
        shuffle(values)
        yield from values


class ClassAware:
    """A sampler that shows all classes equally often; an epoch has C n_max images.

    Args:
        labels: labels of the training set (N,), int64, on the CPU.
        shuffle: source of randomness.
        images_per_class: images that are taken in a row of a class once it is drawn. An epoch that
            ends within a row drops the rest of it.
    """

    def __init__(self, labels: Tensor, shuffle: Shuffle, *, images_per_class: int = 1) -> None:
        counts = torch.bincount(labels)
        present = counts.nonzero().flatten().tolist()
        self._images = {
            c: cycle((labels == c).nonzero().flatten().tolist(), shuffle) for c in present
        }
        self._classes = cycle(present, shuffle)
        self._in_a_row = images_per_class
        self._row: list[int] = []
        self._length = int(counts.max()) * len(present)

    def __len__(self) -> int:
        return self._length

    def take(self, n: int) -> Tensor:
        """Positions of the next n images, int64 (n,)."""
        while len(self._row) < n:
            images = self._images[next(self._classes)]
            self._row += [next(images) for _ in range(self._in_a_row)]
        taken, self._row = self._row[:n], self._row[n:]
        return torch.tensor(taken, dtype=torch.int64)

    def end_epoch(self) -> None:
        """Drop the rest of a begun row, as a new epoch begins with a new class."""
        self._row = []
