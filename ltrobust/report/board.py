"""The board: everything that a report shows, made from its tables by one pure function.

Settings (what may be compared) with their estimates, ranks, leads, costs and curves, and what spans
settings. Tables, charts, page and files read it and compute nothing. It takes one pass over each
table: time grows with the rows, not with rows times settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from ltrobust.report.captions import describe
from ltrobust.report.classes import class_rows, group_classes
from ltrobust.report.confusion import confusions, counted_rows
from ltrobust.report.cost import costs
from ltrobust.report.groups import Group, fewer_images
from ltrobust.report.images import example_rows
from ltrobust.report.leaderboard import leaderboard_frame
from ltrobust.report.ranking import ranking, robust_attack
from ltrobust.report.ratios import Family, ratio_families
from ltrobust.report.setting import (
    NOISE,
    Setting,
    balanced_means,
    group_curves,
    setting_leads,
)
from ltrobust.report.sweeps import Sweep, eps_sweeps


@dataclass(frozen=True)
class Board:
    """All that a report shows.

    Attributes:
        settings: results that may be compared, in a fixed order.
        families: settings that differ in nothing but the imbalance ratio.
        radii: sweeps over the radius of attacks.
        versions: of ltrobust that trained the models.
    """

    settings: tuple[Setting, ...]
    families: tuple[Family, ...]
    radii: tuple[Sweep, ...]
    versions: tuple[str, ...]

    @cached_property
    def leaderboard(self) -> pd.DataFrame:
        """One row per method and setting; see `leaderboard_frame` for its columns."""
        return leaderboard_frame(self.settings)


def make_board(
    groups: Sequence[Group],
    per_class: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    comparisons: pd.DataFrame,
    confusion: pd.DataFrame,
    examples: Mapping[str, pd.DataFrame],
) -> Board:
    """Make the board of a report.

    Args:
        groups: the rows of metrics.csv as `comparable_groups` sorts them.
        per_class: rows of per_class.csv.
        histories: run id to its history.csv; runs may be missing.
        comparisons: rows of comparisons.csv.
        confusion: rows of confusion.csv.
        examples: run id to its examples.parquet as read by the store; runs may be missing.
    """
    rows, counted, leads = (
        class_rows(per_class),
        counted_rows(confusion),
        setting_leads(comparisons),
    )
    beside = fewer_images(groups)
    made: dict[str, Setting] = {}
    for group in sorted(groups, key=lambda group: int(group.key["n"])):  # those beside others first
        means = balanced_means(group.estimates)
        own = leads.get(group.slug, {})
        near = {
            attack: {lead.other for lead in found if lead.verdict == NOISE}
            for (attack, contest), found in own.items()
            if contest == "balanced"
        }
        ranked = ranking(means, near)
        robust = robust_attack(means, group.attacks)
        classes = group_classes(group, rows, ranked.labels)
        made[group.slug] = Setting.of(
            group,
            protocol=describe(group),
            ranking=ranked,
            robust=robust,
            leads=own,
            classes=classes,
            curves=group_curves(group, histories),
            costs=costs(group, ranked.labels),
            mistakes=confusions(group, robust, ranked.labels, classes.facts, counted),
            examples=example_rows(group, ranked.labels, classes.facts, examples),
            fewer=made.get(beside.get(group.slug, "")),
        )
    settings = [made[group.slug] for group in groups]
    versions = {row["ltrobust"] for group in groups for row in group.rows}
    return Board(
        tuple(settings),
        tuple(ratio_families(settings)),
        tuple(eps_sweeps(settings)),
        tuple(sorted(str(name) for name in versions if not pd.isna(name))),
    )
