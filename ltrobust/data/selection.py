"""Which training and test images a split keeps, given each class's candidates in order.

Counts and limits only; the long-tailed rule itself is in `ltrobust.data.split`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from ltrobust.data.split import (
    ImbalanceType,
    IndexArray,
    keep_first,
    largest_n_max,
    long_tail_counts,
    scale_counts,
)
from ltrobust.errors import UserError, unknown

TestProtocol = Literal["balanced", "long-tailed"]
LEAST_KEPT = 0.05
"""A ratio that would keep a smaller share of an image folder is refused."""


def check_test_protocol(protocol: str) -> None:
    """Raise UserError, with the nearest match, unless `protocol` is a known one."""
    if protocol not in get_args(TestProtocol):
        raise unknown("test protocol", protocol, get_args(TestProtocol))


def train_counts(
    sizes: Sequence[int], n_max: int | None, ratio: float | None, kind: ImbalanceType
) -> list[int]:
    """Count the training images that each class keeps before any limit.

    Args:
        sizes: each class's candidates.
        n_max: size of the largest class, which is the first one. None: classes are ranked by size
            (ties by index), and n_max is the largest that every class can serve.
        ratio: largest / smallest class; None keeps every candidate.
        kind: "exp" or "step".

    Raises:
        UserError: `ratio` cannot be met, or with `n_max` None leaves next to nothing.
    """
    if ratio is None:
        return list(sizes)
    if n_max is not None:
        if ratio > n_max:
            raise _too_imbalanced(ratio, n_max, n_max)
        return long_tail_counts(n_max, len(sizes), ratio, kind)
    ranked = _by_size(sizes)
    ordered = [sizes[c] for c in ranked]
    n_max = largest_n_max(ordered, ratio, kind)
    if ratio > n_max:
        raise _too_imbalanced(ratio, n_max, _largest_ratio(ordered, n_max, kind))
    counts = long_tail_counts(n_max, len(sizes), ratio, kind)
    if sum(counts) < LEAST_KEPT * sum(sizes):
        raise UserError(
            f"imbalance ratio {ratio:g} would keep {sum(counts):,} of {sum(sizes):,} training "
            f"images, because the smallest class has {ordered[-1]} (the largest {ordered[0]:,}); "
            "use a larger ratio, none at all (all images are kept), or leave small classes out"
        )
    return _ranked_back(counts, ranked)


def _too_imbalanced(ratio: float, n_max: int, most: int) -> UserError:
    return UserError(
        f"imbalance ratio {ratio:g} needs at least {ratio:g} images in the largest class, "
        f"but there are {n_max}; use a ratio of at most {most}"
    )


def _largest_ratio(ordered: Sequence[int], most: int, kind: ImbalanceType) -> int:
    """Find the largest whole ratio, at most `most`, that leaves the smallest class an image."""
    while (n_max := largest_n_max(ordered, most, kind)) < most:
        most = n_max
    return most


def select_train(
    pools: Sequence[IndexArray], counts: Sequence[int], limit: int | None
) -> IndexArray:
    """Choose the training images, (N,) int64 in selection order.

    Args:
        pools: each class's candidates in selection order.
        counts: images that each class keeps, see `train_counts`.
        limit: scale the counts down to about this many, at least one a class.

    Raises:
        UserError: a class has too few candidates, or `limit` cannot be met.
    """
    if limit is not None:
        counts = scale_counts(counts, _check_limit("--limit-train", limit, len(pools)))
    return keep_first(pools, counts)


def select_test(
    pools: Sequence[IndexArray], counts: Sequence[int] | None, limit: int | None
) -> IndexArray:
    """Choose the test images, (M,) int64 in canonical order.

    Args:
        pools: each class's test candidates, in any order.
        counts: images that each class keeps before any limit; None keeps every candidate.
        limit: keep about this many: in the proportions of `counts`, without them equally per class.

    Raises:
        UserError: the limit is below one a class.
    """
    sizes = [len(pool) for pool in pools]
    if limit is not None:
        _check_limit("--limit-test", limit, len(pools))
        counts = _equal_counts(sizes, limit) if counts is None else scale_counts(counts, limit)
    return np.sort(keep_first([np.sort(pool) for pool in pools], counts or sizes))


def ruled_test_counts(
    sizes: Sequence[int], train_counts: Sequence[int], ratio: float, kind: ImbalanceType
) -> list[int]:
    """Cut test classes of about one size by the rule that cut the training set.

    n_max is the smallest class; the largest training class keeps most (ties by class index).

    Raises:
        UserError: a class is empty.
    """
    if min(sizes) < 1:
        raise UserError(
            f"class {sizes.index(0)} has no test images; the long-tailed test protocol needs some "
            "of every class, use the balanced one"
        )
    counts = long_tail_counts(min(sizes), len(sizes), ratio, kind)
    return _ranked_back(counts, _by_size(train_counts))


def _by_size(sizes: Sequence[int]) -> list[int]:
    """Classes from the largest to the smallest, ties by index."""
    return sorted(range(len(sizes)), key=lambda c: -sizes[c])


def _ranked_back(counts: Sequence[int], ranked: Sequence[int]) -> list[int]:
    """Give counts, from head to tail, to the classes of these ranks, in the classes' order."""
    return [count for _, count in sorted(zip(ranked, counts, strict=True))]


def _equal_counts(sizes: Sequence[int], limit: int) -> list[int]:
    """Share `limit` equally, the remainder to the first classes, no more than a class has."""
    share, remainder = divmod(limit, len(sizes))
    return [min(size, share + (c < remainder)) for c, size in enumerate(sizes)]


def _check_limit(option: str, limit: int, num_classes: int) -> int:
    """Return `limit`; raise UserError when it is below one image a class."""
    if limit < num_classes:
        raise UserError(
            f"{option} {limit} is too small; {num_classes} classes need at least {num_classes}"
        )
    return limit
