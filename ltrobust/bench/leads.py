"""The best method of each comparable setting against every other, image by image or over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ltrobust.evaluation.compare import UNKNOWN, paired_counts, paired_row, seeds_row
from ltrobust.evaluation.metrics import Grouping, class_groups
from ltrobust.report.groups import Group
from ltrobust.report.setting import CONTESTS, holm
from ltrobust.results.collect import Evaluation, JudgedRun

LEAD_COLUMNS = [
    *("setting", "attack", "eps", "group", "best", "other", "best_run_id", "other_run_id", "n"),
    *("difference", "low", "high", "p", "verdict", "basis", "p_holm"),
]
PAIRED, SEEDS = "paired images", "seeds"
Rows = Sequence[Mapping[str, Any]]
"""Metric rows of one label under one attack, one a seed."""


def leads(groups: Sequence[Group], runs: Sequence[JudgedRun], grouping: Grouping) -> pd.DataFrame:
    """Set the best method of each comparable setting and attack against every other.

    Methods with one training seed are compared over the same test images, methods with several
    over their seeds. A verdict is "unknown" where neither can be done, such as without outcomes.

    Args:
        groups: the results.
        runs: what they are of.
        grouping: how head, medium and tail are cut.

    Returns:
        Columns `LEAD_COLUMNS`; `group` is "balanced" or "tail" (what best means), A of the verdict
        is the best method.
    """
    found = {(run.run_id, one.attack_id): one for run in runs for one in run.evaluations}
    tails = {run.run_id: class_groups(run.train_counts, grouping)["tail"] for run in runs}
    records = [
        {"setting": group.slug, "attack": attack, "group": CONTESTS[score], **row}
        for group in groups
        for attack in group.attacks
        for judged in [_Judged(found, tails)]
        for score in CONTESTS
        for row in judged.leads(group, attack, score)
    ]
    return pd.DataFrame(records, columns=LEAD_COLUMNS).astype({"n": "Int64"})


class _Judged:
    """Evaluations by one attack; their outcomes are read once, and paired once for both contests.

    Args:
        found: evaluations by run and attack id.
        tails: run id to its tail classes.
    """

    def __init__(
        self, found: Mapping[tuple[str, str], Evaluation], tails: Mapping[str, list[int]]
    ) -> None:
        self._found, self._tails = found, tails
        self._outcomes: dict[tuple[str, str], pd.DataFrame | None] = {}
        self._counts: dict[tuple[tuple[str, str], ...], pd.DataFrame | None] = {}

    def leads(self, group: Group, attack: str, score: str) -> list[dict[str, Any]]:
        """The leads of the best by one score; none where fewer than two have it."""
        cells = {label: group.estimates[label, attack, score] for label in group.labels}
        means = {label: cell.value for label, cell in cells.items() if cell.known}
        if len(means) < 2:
            return []
        best, *others = sorted(means, key=lambda label: (-means[label], label))
        mine = group.cells[best, attack]
        made: list[dict[str, Any]] = []
        for label in others:
            theirs = group.cells[label, attack]
            row: dict[str, Any] = {
                "eps": float(mine[0]["eps"]),
                "best": best,
                "other": label,
                "best_run_id": ",".join(row["run_id"] for row in mine),
                "other_run_id": ",".join(row["run_id"] for row in theirs),
                "n": self._images(mine[0], score),
            }
            made.append(row | self._lead(mine, theirs, score))
        corrected = holm([row["p"] for row in made])
        return [{**row, "p_holm": p} for row, p in zip(made, corrected, strict=True)]

    def _images(self, row: Mapping[str, Any], score: str) -> int:
        tested = self._found[row["run_id"], row["attack_id"]].digest.tested
        return sum(tested[c] for c in self._tails[row["run_id"]]) if score == "tail" else row["n"]

    def _lead(self, best: Rows, other: Rows, score: str) -> dict[str, Any]:
        if max(len(best), len(other)) > 1:
            return {
                **seeds_row(*([row[score] for row in rows] for rows in (best, other))),
                "basis": SEEDS,
            }
        counts = self._paired(best[0], other[0])
        if counts is None:
            nothing = dict.fromkeys(("low", "high", "p"), math.nan)
            difference = float(best[0][score] - other[0][score])
            return {"difference": difference, **nothing, "verdict": UNKNOWN, "basis": PAIRED}
        if score == "tail":
            counts = counts.iloc[self._tails[best[0]["run_id"]]]
        row = paired_row(counts, CONTESTS[score])
        names = ("n", "difference", "low", "high", "p", "verdict")
        return {**{name: row[name] for name in names}, "basis": PAIRED}

    def _paired(self, *rows: Mapping[str, Any]) -> pd.DataFrame | None:
        """Rows of `paired_counts`; None where outcomes are gone."""
        keys = tuple((str(row["run_id"]), str(row["attack_id"])) for row in rows)
        if keys not in self._counts:
            for key in keys:
                if key not in self._outcomes:
                    self._outcomes[key] = self._found[key].outcomes()
            best, rival = (self._outcomes[key] for key in keys)
            classes = len(self._found[keys[0]].digest.tested)
            self._counts[keys] = (
                None if best is None or rival is None else paired_counts(best, rival, classes)
            )
        return self._counts[keys]
