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


def check_test_protocol(protocol: str) -> None:
    """Raise UserError, with the nearest match, unless `protocol` is a known one."""
    if protocol not in get_args(TestProtocol):
        raise unknown("test protocol", protocol, get_args(TestProtocol))


def select_train(
    pools: Sequence[IndexArray],
    n_max: int | None,
    ratio: float | None,
    kind: ImbalanceType,
    limit: int | None,
) -> IndexArray:
    """Choose the training images, (N,) int64 in selection order.

    Args:
        pools: each class's candidates in selection order.
        n_max: size of the largest class; None takes the largest that every class can serve.
        ratio: largest / smallest class; None keeps every candidate.
        kind: "exp" or "step".
        limit: scale the counts down to about this many, at least one a class.

    Raises:
        UserError: a class has too few candidates, or `ratio` or `limit` cannot be met.
    """
    counts = [len(pool) for pool in pools]
    if ratio is not None:
        if n_max is None:
            n_max = largest_n_max(counts, ratio, kind)
        if ratio > n_max:
            raise UserError(
                f"imbalance ratio {ratio:g} needs at least {ratio:g} images in the largest class, "
                f"but there are {n_max}; use a ratio of at most {n_max}"
            )
        counts = long_tail_counts(n_max, len(pools), ratio, kind)
    if limit is not None:
        counts = scale_counts(counts, _check_limit("--limit-train", limit, len(pools)))
    return keep_first(pools, counts)


def select_test(
    pools: Sequence[IndexArray],
    train_counts: Sequence[int],
    ratio: float | None,
    kind: ImbalanceType,
    protocol: TestProtocol,
    limit: int | None,
) -> IndexArray:
    """Choose the test images, (M,) int64 in canonical order.

    The long-tailed protocol starts from the smallest test class and cuts by the ratio of the
    training set, the largest training class keeping most.

    Args:
        pools: each class's test candidates, in any order.
        train_counts: training images of each class.
        ratio: the training set's ratio; None takes the one that `train_counts` have.
        kind: "exp" or "step".
        protocol: "balanced" or "long-tailed".
        limit: keep about this many: equally per class, or scaled under "long-tailed".

    Raises:
        UserError: the protocol is unknown, the limit is below one a class, or a class is empty
            under the long-tailed protocol.
    """
    check_test_protocol(protocol)
    sizes = [len(pool) for pool in pools]
    if limit is not None:
        _check_limit("--limit-test", limit, len(pools))
    if protocol == "long-tailed":
        if ratio is None:
            ratio = max(train_counts) / min(train_counts)
        counts = _long_tailed_test_counts(sizes, train_counts, ratio, kind)
        counts = counts if limit is None else scale_counts(counts, limit)
    else:
        counts = sizes if limit is None else _equal_counts(sizes, limit)
    return np.sort(keep_first([np.sort(pool) for pool in pools], counts))


def _long_tailed_test_counts(
    sizes: Sequence[int], train_counts: Sequence[int], ratio: float, kind: ImbalanceType
) -> list[int]:
    """Cut the test classes by the rule, ranked by their training counts (ties by class index)."""
    if min(sizes) < 1:
        raise UserError(
            f"class {sizes.index(0)} has no test images; the long-tailed test protocol needs some "
            "of every class, use the balanced one"
        )
    counts = long_tail_counts(min(sizes), len(sizes), ratio, kind)
    by_rank = sorted(range(len(sizes)), key=lambda c: -train_counts[c])
    rank = {c: position for position, c in enumerate(by_rank)}
    return [counts[rank[c]] for c in range(len(sizes))]


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
