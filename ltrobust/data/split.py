"""Long-tailed splits: how many images each class keeps, and which ones.

The rule is the one of LDAM (Cao et al. 2019) as RoBal (Wu et al. 2021) applies it to adversarial
training; counts and chosen images are those of the published code. No image is read here.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from ltrobust.errors import UserError, unknown

IndexArray = npt.NDArray[np.int64]
ImbalanceType = Literal["exp", "step"]

MAX_SEED = 2**32 - 1


def check_imbalance_ratio(ratio: float) -> float:
    """Return `ratio`; raise UserError unless it is finite and at least 1."""
    if not math.isfinite(ratio) or ratio < 1:
        raise UserError(
            f"imbalance ratio {ratio:g} is not allowed; it is largest / smallest class, "
            "a finite number >= 1 (1 keeps the classes balanced)"
        )
    return ratio


def check_split_seed(seed: int) -> int:
    """Return `seed`; raise UserError unless numpy's legacy generator takes it."""
    if not 0 <= seed <= MAX_SEED:
        raise UserError(f"split seed {seed} is not allowed; use 0 to {MAX_SEED}")
    return seed


def check_imbalance_type(kind: str) -> None:
    """Raise UserError, with the nearest match, unless `kind` is "exp" or "step"."""
    if kind not in get_args(ImbalanceType):
        raise unknown("imbalance type", kind, get_args(ImbalanceType))


def long_tail_counts(
    n_max: int, num_classes: int, imbalance_ratio: float, kind: ImbalanceType = "exp"
) -> list[int]:
    """Count the images that each class keeps; classes are ordered from head to tail.

    `exp`: trunc(n_max * f^(c / (C - 1))) with f = 1 / imbalance_ratio. `step`: n_max for the first
    C // 2 classes, trunc(n_max * f) for the rest. No class gets fewer than one image.

    Args:
        n_max: images of the largest class, >= 1.
        num_classes: C, >= 2.
        imbalance_ratio: largest / smallest class, >= 1.
        kind: "exp" or "step".

    Raises:
        UserError: a value is out of range, or `kind` is unknown.
    """
    check_imbalance_type(kind)
    factor = 1.0 / check_imbalance_ratio(imbalance_ratio)
    if num_classes < 2:
        raise UserError(f"a long-tailed split needs at least 2 classes, not {num_classes}")
    if n_max < 1:
        raise UserError(
            f"a long-tailed split needs at least 1 image in its largest class, {n_max=}"
        )
    if kind == "exp":
        sizes = [n_max * factor ** (c / (num_classes - 1.0)) for c in range(num_classes)]
    else:
        head = num_classes // 2
        sizes = [float(n_max)] * head + [n_max * factor] * (num_classes - head)
    return [max(1, int(size)) for size in sizes]


def shuffled_classes(labels: IndexArray, num_classes: int, split_seed: int) -> list[IndexArray]:
    """Shuffle the positions of each class, class after class, from one random stream.

    The stream is numpy's legacy one, as after `numpy.random.seed(split_seed)`, which the published
    code uses; the global generator is left alone.

    Args:
        labels: (N,) int64 class of every image.
        num_classes: number of classes.
        split_seed: 0 .. 2^32 - 1.

    Returns:
        For each class its positions in `labels`, int64, in selection order.

    Raises:
        UserError: the seed is out of range.
    """
    rng = np.random.RandomState(check_split_seed(split_seed))
    orders = [np.flatnonzero(labels == c).astype(np.int64) for c in range(num_classes)]
    for order in orders:
        rng.shuffle(order)
    return orders


def keep_first(orders: Sequence[IndexArray], counts: Sequence[int]) -> IndexArray:
    """Join the first `counts[c]` positions of every class c, in class order, as int64.

    Raises:
        UserError: a class has fewer positions than its count.
    """
    for c, (order, count) in enumerate(zip(orders, counts, strict=True)):
        if len(order) < count:
            raise UserError(
                f"class {c} has {len(order)} training images, but the split takes {count} of it; "
                "add images or check that the data set is complete"
            )
    return np.concatenate([order[:n] for order, n in zip(orders, counts, strict=True)])


def long_tail_indices(labels: IndexArray, counts: Sequence[int], split_seed: int) -> IndexArray:
    """Choose `counts[c]` images of each class c as RoBal's released code does (its seed is 0).

    Args:
        labels: (N,) int64 class of every image in canonical order.
        counts: images to keep, one count a class.
        split_seed: seed of the shuffle, 0 .. 2^32 - 1.

    Returns:
        (sum(counts),) int64 positions in `labels`, in selection order.

    Raises:
        UserError: a class has too few images, or the seed is out of range.
    """
    return keep_first(shuffled_classes(labels, len(counts), split_seed), counts)


def robustlt_indices(
    labels: IndexArray, counts: Sequence[int], seed: int
) -> tuple[IndexArray, IndexArray]:
    """Choose images as RobustLT's released code does, which differ for every training seed.

    Args:
        labels: (N,) int64 class of every image in canonical order.
        counts: images to keep, one count a class.
        seed: seed of numpy's default generator; the authors use 102, 103 and 104.

    Returns:
        Training and validation positions, int64, each in class order: the last fifth of a class
        (rounded down) is for validation. The authors' configuration joins the two again.
    """
    rng = np.random.default_rng(seed)
    train, validation = [], []
    for c, count in enumerate(counts):
        order = np.flatnonzero(labels == c).astype(np.int64)
        rng.shuffle(order)
        cut = count - int(0.2 * count)
        train.append(order[:cut])
        validation.append(order[cut:count])
    return np.concatenate(train), np.concatenate(validation)


def largest_n_max(sizes: Sequence[int], imbalance_ratio: float, kind: ImbalanceType) -> int:
    """Find the largest n_max whose long-tailed counts every class can serve.

    Args:
        sizes: images there are, one count a class from head to tail, each >= 1.
        imbalance_ratio: largest / smallest class, >= 1.
        kind: "exp" or "step".
    """
    return _largest(sizes, lambda n: long_tail_counts(n, len(sizes), imbalance_ratio, kind))


def proportional_counts(sizes: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Count the most images that classes can serve in the proportions of `shape`.

    A class gets trunc(n * shape / largest shape) images, at least one, n as large as can be.

    Args:
        sizes: images there are, one count a class, each >= 1.
        shape: relative class sizes, each >= 1.
    """
    head = max(range(len(shape)), key=shape.__getitem__)

    def counts(n: int) -> list[int]:
        return [max(1, n * part // shape[head]) for part in shape]

    order = [head, *(c for c in range(len(shape)) if c != head)]
    n = _largest([sizes[c] for c in order], lambda n: [counts(n)[c] for c in order])
    return counts(n)


def _largest(sizes: Sequence[int], counts_of: Callable[[int], list[int]]) -> int:
    """Find the largest n whose counts fit in `sizes`; the first class gets n, no count falls in n.

    Counts of n = 1 must fit.
    """

    def too_many(n: int) -> bool:
        return any(count > size for count, size in zip(counts_of(n), sizes, strict=True))

    return bisect_left(range(1, sizes[0] + 1), True, key=too_many)


def scale_counts(counts: Sequence[int], limit: int) -> list[int]:
    """Scale `counts` to a total of about `limit`, rounding down, at least one image a class."""
    total = sum(counts)
    if limit >= total:
        return list(counts)
    return [max(1, count * limit // total) for count in counts]
