"""Settings that differ in nothing but the imbalance ratio, so that they may be set side by side.

They agree in everything else, but for what follows from the ratio. Nothing is averaged over ratios.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ltrobust.report.groups import Group, with_slugs
from ltrobust.report.setting import Setting

LONG_TAILED = "long-tailed"


@dataclass(frozen=True)
class Family:
    """Settings that differ in nothing but the imbalance ratio.

    Attributes:
        together: all rows under one key; only for names and notes, never to average.
        members: by rising imbalance ratio; at least two ratios. Two members share a ratio where
            their training images were chosen in different ways.
    """

    together: Group
    members: tuple[Setting, ...]

    @property
    def ranked(self) -> list[str]:
        """Labels in their order at the largest ratio, then those that it lacks."""
        orders = [member.ranked for member in reversed(self.members)]
        return list(dict.fromkeys(label for order in orders for label in order))

    @property
    def columns(self) -> list[str]:
        """What each member is called: its ratio, with its training images where ratios repeat."""
        names = [f"IR {group.key['imbalance_ratio']:g}" for group in self.members]
        for facts in (training_images, lambda group: f"split {group.key['split_sha256'][:8]}"):
            seen = Counter(names)
            names = [
                f"{name} ({facts(group)})" if seen[name] > 1 else name
                for name, group in zip(names, self.members, strict=True)
            ]
        return names


def ratio_families(groups: Sequence[Setting]) -> list[Family]:
    """Bring groups together that agree in everything but the imbalance ratio.

    What follows from the ratio may differ too: the split, and the number of test images where the
    test set is long-tailed. Attacks that several groups have must agree in their settings and
    library; where they do not, each combination is a family of its own.

    Returns:
        The families with at least two ratios, in the order of `groups`.
    """
    blocks: defaultdict[tuple[Any, ...], list[Setting]] = defaultdict(list)
    for group in groups:
        own = {"imbalance_ratio", "split_sha256"}
        if group.key["test_protocol"] == LONG_TAILED:
            own |= {"n", "test_sha256"}
        blocks[tuple(value for name, value in group.key.items() if name not in own)].append(group)
    found = [part for block in blocks.values() for part in _by_attack_settings(block)]
    found = [part for part in found if len({g.key["imbalance_ratio"] for g in part}) > 1]
    named = with_slugs([_together(part) for part in found])
    return [Family(one, tuple(part)) for one, part in zip(named, found, strict=True)]


def _by_attack_settings(block: Sequence[Setting]) -> list[list[Setting]]:
    """Split groups by the settings of those attacks that have several."""
    settings = [{row["attack"]: row["signature"] for row in one.rows} for one in block]
    pairs = {pair for own in settings for pair in own.items() if pair[0] != "clean"}
    kinds = Counter(attack for attack, _ in pairs)
    contested = sorted(attack for attack, count in kinds.items() if count > 1)
    parts: defaultdict[tuple[str, ...], list[Setting]] = defaultdict(list)
    for group, own in zip(block, settings, strict=True):
        parts[tuple(own.get(attack, "") for attack in contested)].append(group)
    return [sorted(part, key=lambda g: float(g.key["imbalance_ratio"])) for part in parts.values()]


def _together(members: Sequence[Setting]) -> Group:
    key = {**members[0].key, "imbalance_ratio": math.nan, "split_sha256": ""}
    if key["test_protocol"] == LONG_TAILED:
        key |= {"n": 0, "test_sha256": ""}
    rows = [row for group in members for row in group.rows]
    return Group(key, rows, differing=members[0].differing)


def training_images(group: Setting) -> str:
    """Say how many training images there are."""
    count = n_train(group)
    return "training images unknown" if count is None else f"{count:,} training images"


def n_train(group: Setting) -> int | None:
    """Training images of all runs; None where they differ or are not known."""
    counts = {row["n_train"] for row in group.rows if not math.isnan(row["n_train"])}
    return int(counts.pop()) if len(counts) == 1 else None
