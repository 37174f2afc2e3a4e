"""Accuracies from outcomes: overall, balanced, per class, head / medium / tail, with intervals.

Pure pandas and numpy; this module never sees a model. An accuracy under attack is the share of
images still classified correctly on their adversarial version.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ltrobust.errors import UserError

Z95 = 1.959963984540054
"""97.5% quantile of the standard normal distribution."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Grouping:
    """How classes are cut into head, medium and tail; in thirds when neither field is given.

    Thirds never part classes of equal size (`class_groups` has the rule); sizes that a user gives
    are kept to the letter, and `text` says when they part such classes.

    Attributes:
        sizes: number of classes in head, medium and tail; head and tail hold at least one.
        limits: (many, few): head classes have more than `many` training images, tail classes fewer
            than `few` (the many-, medium- and few-shot classes of ImageNet-LT are 100/20).
    """

    sizes: tuple[int, int, int] | None = None
    limits: tuple[int, int] | None = None

    def text(self, train_counts: Sequence[int]) -> str:
        """Say how classes with these training counts are cut.

        Returns:
            Limits such as "100/20", or the sizes of the groups such as "3,4,3", which
            `parse_groups` reads; behind sizes that part classes of equal size stands `CUTS_TIES`.
            `NO_GROUPS` where thirds find all classes equal.
        """
        if self.limits is not None:
            return "{}/{}".format(*self.limits)
        groups = class_groups(train_counts, self)
        if not groups["head"]:
            return NO_GROUPS
        sizes = ",".join(str(len(members)) for members in groups.values())
        counts = [{train_counts[c] for c in members} for members in groups.values()]
        cut = sum(map(len, counts)) > len(set(train_counts))
        return f"{sizes}{CUTS_TIES if cut else ''}"


THIRDS = Grouping()
NO_GROUPS = "none"
"""All classes have the same number of training images: there is no head and no tail."""
CUTS_TIES = " (cuts through classes of equal size)"


def parse_groups(text: str | None) -> Grouping:
    """Read "3,4,3" (sizes of head, medium and tail) or "100/20" (limits of training images).

    None gives thirds.

    Raises:
        UserError: the text is neither, or its numbers make no sense.
    """
    if text is None:
        return THIRDS
    wrong = f"groups '{text}'"
    hint = "give three sizes such as 3,4,3 or two limits of training images such as 100/20"
    if re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*){2}", text):
        head, medium, tail = (int(part) for part in text.split(","))
        if min(head, tail) < 1:
            raise UserError(f"{wrong}: head and tail need at least one class each")
        return Grouping(sizes=(head, medium, tail))
    if re.fullmatch(r"\s*\d+\s*/\s*\d+\s*", text):
        many, few = (int(part) for part in text.split("/"))
        if not 1 <= few <= many:
            raise UserError(
                f"{wrong}: the first limit (head: more images) must not be below the second "
                "(tail: fewer images), and both must be at least 1"
            )
        return Grouping(limits=(many, few))
    raise UserError(f"{wrong} cannot be read; {hint}")


def class_groups(train_counts: Sequence[int], grouping: Grouping = THIRDS) -> dict[str, list[int]]:
    """Split classes into head, medium and tail by their number of training images.

    Classes are ranked by count, largest first; by default head is the first max(1, round(C / 3)),
    tail the last max(1, round(C / 3)), medium the rest, but classes of equal size stay together:
    the most frequent ones are head, the rarest tail, and others that a border would part go where
    most of them lie (equally many: away from medium; as many in head as in tail: medium). So
    medium may be empty, and where all classes are equal every group is. Limits may leave any group
    empty. Given sizes are taken to the letter, ties by class index.

    Returns:
        Class indices, increasing, of "head", "medium" and "tail".

    Raises:
        UserError: the grouping's sizes do not sum to the number of classes.
    """
    if grouping.limits is not None:
        many, few = grouping.limits
        limited: dict[str, list[int]] = {"head": [], "medium": [], "tail": []}
        for c, count in enumerate(train_counts):
            limited["head" if count > many else "tail" if count < few else "medium"].append(c)
        return limited
    if grouping.sizes is None:
        return _thirds(train_counts)
    if sum(grouping.sizes) != len(train_counts):
        raise UserError(
            f"groups '{','.join(map(str, grouping.sizes))}' name {sum(grouping.sizes)} classes, "
            f"but the data has {len(train_counts)}; give sizes that sum to {len(train_counts)}"
        )
    ranked = sorted(range(len(train_counts)), key=lambda c: (-train_counts[c], c))
    first, last = grouping.sizes[0], len(ranked) - grouping.sizes[2]
    parts = {"head": ranked[:first], "medium": ranked[first:last], "tail": ranked[last:]}
    return {name: sorted(members) for name, members in parts.items()}


def _thirds(train_counts: Sequence[int]) -> dict[str, list[int]]:
    """Thirds that keep classes of equal size together."""
    blocks: dict[int, list[int]] = {}
    for c in sorted(range(len(train_counts)), key=lambda c: -train_counts[c]):
        blocks.setdefault(train_counts[c], []).append(c)
    groups: dict[str, list[int]] = {"head": [], "medium": [], "tail": []}
    if len(blocks) < 2:
        return groups
    third = max(1, round(len(train_counts) / 3))
    last, start = len(train_counts) - third, 0
    for count, members in blocks.items():
        end = start + len(members)
        in_head, in_tail = max(0, min(end, third) - start), max(0, end - max(start, last))
        most = max(in_head, in_tail) >= len(members) - in_head - in_tail and in_head != in_tail
        if start == 0 or (most and in_head > in_tail):
            name = "head"
        elif count == min(blocks) or most:
            name = "tail"
        else:
            name = "medium"
        groups[name] += members
        start = end
    return {name: sorted(members) for name, members in groups.items()}


def wilson(right: FloatArray, n: FloatArray, z: float = Z95) -> tuple[FloatArray, FloatArray]:
    """95% Wilson score interval of the share right / n, elementwise; n must be positive."""
    return _wilson_end(right / n, n, z, 0), _wilson_end(right / n, n, z, 1)


def _wilson_end(share: FloatArray, n: FloatArray, z: float, side: int) -> FloatArray:
    """The lower (0) or upper (1) end; rounding must not put the share outside."""
    scale = 1 + z**2 / n
    middle = (share + z**2 / (2 * n)) / scale
    half = z / scale * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    if side == 0:  # np.clip takes several times as long, and a large report has 400,000 of these
        return np.minimum(np.maximum(middle - half, 0), share)
    return np.minimum(np.maximum(middle + half, share), 1)


def mean_interval(right: FloatArray, n: FloatArray) -> tuple[float, float]:
    """95% interval of the mean over classes of right / n.

    The stratified Wilson interval (Yan and Su 2010): Wilson intervals of the classes at a smaller
    quantile, chosen so that their mean covers at 95%. One class gives the Wilson interval itself,
    and classes at 0 or 1 do not make it vanish.
    """
    share = right / n
    bounds = [
        float(_wilson_end(share, n, _quantile(share, n, side), side).mean()) for side in (0, 1)
    ]
    mean = float(share.mean())  # rounding must not put the mean outside
    return min(bounds[0], mean), max(bounds[1], mean)


def _quantile(share: FloatArray, n: FloatArray, side: int) -> float:
    """The quantile of `mean_interval` at which the bounds (0: lower, 1: upper) agree with it.

    It depends on the bounds and they on it: a fixed point, which rounds approach until it settles.
    """
    z = Z95
    for _ in range(ROUNDS):
        bound = _wilson_end(share, n, z, side)
        spread = np.maximum(bound * (1 - bound), 1e-12) / n
        before, z = z, Z95 * math.sqrt(float(spread.sum())) / float(np.sqrt(spread).sum())
        if abs(z - before) < SETTLED:
            break
    return z


SETTLED = 1e-12
"""A round that changes the quantile by less was the last; bounds are then exact to rounding."""
ROUNDS = 1000
"""No end of rounds where rounding itself keeps the quantile moving."""


def per_class(outcomes: pd.DataFrame, num_classes: int) -> pd.DataFrame:
    """Per-class accuracy of one attack.

    Args:
        outcomes: rows with `label` and `correct`, one per test image.
        num_classes: C.

    Returns:
        Columns class_index, n_test, right, accuracy (nan for a class without test images).
    """
    labels = outcomes["label"].to_numpy()
    right = np.bincount(labels, weights=outcomes["correct"].to_numpy(), minlength=num_classes)
    n = np.bincount(labels, minlength=num_classes)
    with np.errstate(invalid="ignore"):
        accuracy = right / n
    return pd.DataFrame(
        {
            "class_index": np.arange(num_classes),
            "n_test": n,
            "right": right.astype(int),
            "accuracy": accuracy,
        }
    )


def summary(
    outcomes: pd.DataFrame, train_counts: Sequence[int], grouping: Grouping = THIRDS
) -> dict[str, float]:
    """Summarise the outcomes of one attack; see `summary_of`."""
    return summary_of(*_counts(outcomes, len(train_counts)), train_counts, grouping)


def intervals(
    outcomes: pd.DataFrame, train_counts: Sequence[int], grouping: Grouping = THIRDS
) -> dict[str, float]:
    """95% intervals of the outcomes of one attack; see `intervals_of`."""
    return intervals_of(*_counts(outcomes, len(train_counts)), train_counts, grouping)


def _counts(outcomes: pd.DataFrame, num_classes: int) -> tuple[list[int], list[int]]:
    classes = per_class(outcomes, num_classes)
    return classes["right"].to_list(), classes["n_test"].to_list()


def summary_of(
    right: Sequence[int],
    tested: Sequence[int],
    train_counts: Sequence[int],
    grouping: Grouping = THIRDS,
) -> dict[str, float]:
    """Summarise one attack.

    Args:
        right: images of each class (C) that stood.
        tested: test images of each class (C).
        train_counts: training images of each class (C).
        grouping: how head, medium and tail are cut.

    Returns:
        n, accuracy, balanced_accuracy (mean over classes of per-class accuracy; under attack this
        is TAET's balanced robustness), head, medium, tail (means over their classes), worst_class,
        ci_low and ci_high (95%, of balanced_accuracy). Shares in [0, 1]; nan where undefined.
        Classes without test images are left out of every mean.
    """
    stood, n = np.asarray(right, dtype=float), np.asarray(tested, dtype=float)
    with np.errstate(invalid="ignore"):
        accuracy = stood / n
    groups = {
        name: float(np.nanmean(accuracy[members])) if np.isfinite(accuracy[members]).any() else nan
        for name, members in class_groups(train_counts, grouping).items()
    }
    shown = accuracy[n > 0]
    low, high = _interval(stood[n > 0], n[n > 0])
    return {
        "n": float(n.sum()),
        "accuracy": float(stood.sum() / n.sum()) if len(shown) else nan,
        "balanced_accuracy": float(shown.mean()) if len(shown) else nan,
        **groups,
        "worst_class": float(shown.min()) if len(shown) else nan,
        "ci_low": low,
        "ci_high": high,
    }


def intervals_of(
    right: Sequence[int],
    tested: Sequence[int],
    train_counts: Sequence[int],
    grouping: Grouping = THIRDS,
) -> dict[str, float]:
    """95% intervals of the other numbers of `summary_of`, as `<name>_ci_low` and `<name>_ci_high`.

    Names: acc (Wilson), head, medium and tail (stratified Wilson, see `mean_interval`) and
    worst_class: the Wilson interval of the class that came out worst (the first of several), which
    takes no account of its having been picked for that. Shares in [0, 1]; nan where undefined.
    """
    stood, n = np.asarray(right, dtype=float), np.asarray(tested, dtype=float)
    shown = np.flatnonzero(n > 0)
    groups = class_groups(train_counts, grouping)
    parts = {
        **{name: [c for c in members if n[c] > 0] for name, members in groups.items()},
        "worst_class": [shown[(stood[shown] / n[shown]).argmin()]] if len(shown) else [],
    }
    bounds = {
        "acc": _interval(stood.sum(keepdims=True), n.sum(keepdims=True))
        if len(shown)
        else (nan, nan),
        **{name: _interval(stood[members], n[members]) for name, members in parts.items()},
    }
    return {
        f"{name}_ci_{side}": value
        for name, bound in bounds.items()
        for side, value in zip(("low", "high"), bound, strict=True)
    }


def error_parts(natural: int, right: int, n: int) -> dict[str, float]:
    """Split the error of one attack into natural and boundary error, as RoBal does.

    Args:
        natural: images misclassified without an attack.
        right: images that stood the attack.
        n: all images, at least one.

    Returns:
        natural_error: share of images misclassified without an attack. boundary_error: share of
        images right without an attack and broken by it. Since attacks count clean mistakes as
        broken, the two sum to 1 - accuracy.
    """
    return {"natural_error": natural / n, "boundary_error": (n - right - natural) / n}


def worst_case(seeds: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Combine outcomes of one attack under several seeds into the worst case of each image.

    Args:
        seeds: one frame a seed, in the order of the seeds: rows with `index`, `pred`, `correct`
            and perhaps `fell`, of the same images.

    Returns:
        The first frame with `correct` where an image stood under every seed, and `pred` (and
        `fell`) of the first seed that broke it.
    """
    first = seeds[0].reset_index(drop=True)
    aligned = [frame.set_index("index").loc[first["index"]] for frame in seeds]
    standing = np.stack([frame["correct"].to_numpy(dtype=bool) for frame in aligned])
    broken_by = (~standing).argmax(axis=0)  # the first seed where none broke it
    told = [name for name in ("pred", "fell") if all(name in frame for frame in aligned)]
    images = np.arange(len(first))
    picked = {
        name: np.stack([frame[name].to_numpy() for frame in aligned])[broken_by, images]
        for name in told
    }
    return first.assign(correct=np.logical_and.reduce(standing), **picked)


def _interval(right: FloatArray, n: FloatArray) -> tuple[float, float]:
    """Interval of the mean over classes, each with test images."""
    return mean_interval(right, n) if len(n) else (nan, nan)


nan = float("nan")
