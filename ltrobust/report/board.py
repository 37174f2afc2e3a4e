"""The board: everything that a report shows, made from its tables by one pure function.

Settings (what may be compared) with their estimates, ranks, leads, costs and curves, and what spans
settings. Tables, charts, page and files read it and compute nothing. It takes one pass over each
table: time grows with the rows, not with rows times settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import pandas as pd

from ltrobust.report.captions import describe
from ltrobust.report.confusion import confusions, counted_rows
from ltrobust.report.cost import costs
from ltrobust.report.groups import Group, comparable_groups
from ltrobust.report.images import example_rows
from ltrobust.report.leaderboard import leaderboard_frame
from ltrobust.report.ranking import ranking, robust_attack
from ltrobust.report.ratios import Family, ratio_families
from ltrobust.report.setting import (
    NOISE,
    Setting,
    balanced_means,
    class_rows,
    group_classes,
    group_curves,
    group_estimates,
    group_leads,
    tail_images,
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
    metrics: pd.DataFrame,
    per_class: pd.DataFrame | None = None,
    histories: Mapping[str, pd.DataFrame] | None = None,
    comparisons: pd.DataFrame | None = None,
    confusion: pd.DataFrame | None = None,
    examples: Mapping[str, pd.DataFrame] | None = None,
    across: Sequence[str] = (),
    groups: Sequence[Group] | None = None,
) -> Board:
    """Make the board of a report.

    Args:
        metrics: rows of metrics.csv.
        per_class: rows of per_class.csv; may be empty.
        histories: run id to its history.csv; runs may be missing.
        comparisons: rows of comparisons.csv; without them no score is marked as within noise.
        confusion: rows of confusion.csv; without them nothing is told of mistakes.
        examples: run id to its examples.parquet as read by the store; runs may be missing.
        across: what rows of one table may differ in, from `parse_across`.
        groups: the same metrics as `comparable_groups` sorts them, where that is done.

    Raises:
        UserError: metrics is empty, lacks columns, or contradicts itself.
    """
    groups = comparable_groups(metrics, across) if groups is None else groups
    classes = pd.DataFrame() if per_class is None else per_class
    rows, counted, tails = class_rows(classes), counted_rows(confusion), tail_images(classes)
    known = comparisons is not None and not comparisons.empty
    leads = dict(list(comparisons.groupby("setting"))) if known and comparisons is not None else {}
    settings = []
    for group in groups:
        estimates = group_estimates(group)
        means = balanced_means(estimates)
        own = group_leads(leads[group.slug]) if group.slug in leads else {}
        near = {
            attack: {lead.other for lead in found if lead.verdict == NOISE}
            for (attack, contest), found in own.items()
            if contest == "balanced"
        }
        ranked = ranking(means, near)
        robust = robust_attack(means, group.attacks)
        tested = group_classes(group, rows, ranked.labels)
        settings.append(
            Setting(
                **{field.name: getattr(group, field.name) for field in fields(Group)},
                protocol=describe(group),
                estimates=estimates,
                ranking=ranked,
                robust=robust,
                leads=own,
                classes=tested,
                curves=group_curves(group, histories or {}),
                costs=costs(group, ranked.labels),
                mistakes=confusions(group, robust, ranked.labels, tested.facts, counted),
                examples=example_rows(group, ranked.labels, tested.facts, examples or {}),
                tails=tails,
            )
        )
    versions = list(metrics["ltrobust"].dropna()) if "ltrobust" in metrics else []
    return Board(
        tuple(settings),
        tuple(ratio_families(settings)),
        tuple(eps_sweeps(settings)),
        tuple(sorted({str(version) for version in versions})),
    )
