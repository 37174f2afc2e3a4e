"""The best method of each comparable setting against every other, image by image or over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ltrobust.evaluation.compare import UNKNOWN, paired_counts, paired_row, seeds_row
from ltrobust.evaluation.metrics import Grouping, class_groups
from ltrobust.report.estimate import Estimate
from ltrobust.report.groups import Group
from ltrobust.report.setting import group_estimates, holm, tail_images
from ltrobust.results.collect import Evaluation, JudgedRun

LEAD_COLUMNS = [
    *("setting", "attack", "eps", "group", "best", "other", "best_run_id", "other_run_id", "n"),
    *("difference", "low", "high", "p", "verdict", "basis", "p_holm"),
]
CONTESTED = {"balanced": "balanced_accuracy", "tail": "tail"}
PAIRED, SEEDS = "paired images", "seeds"
Judged = tuple[JudgedRun, Evaluation]


def leads(
    groups: Sequence[Group],
    runs: Sequence[JudgedRun],
    grouping: Grouping,
    classes: pd.DataFrame,
) -> pd.DataFrame:
    """Set the best method of each comparable setting and attack against every other.

    Methods with one training seed are compared over the same test images, methods with several
    over their seeds. A verdict is "unknown" where neither can be done, such as without outcomes.

    Args:
        groups: the results.
        runs: those whose outcomes are at hand; others may stand in `groups`.
        grouping: how head, medium and tail are cut.
        classes: rows of per_class.csv, which say how many images a group has; may be empty.

    Returns:
        Columns `LEAD_COLUMNS`; `group` is "balanced" or "tail" (what best means), A of the verdict
        is the best method.
    """
    found = {
        (run.run_id, evaluation.attack_id): (run, evaluation)
        for run in runs
        for evaluation in run.evaluations
    }
    tails = tail_images(classes)
    records = [
        {"setting": group.slug, "attack": attack, "group": contested, **row}
        for group in groups
        for estimates in [group_estimates(group)]
        for attack in group.attacks
        for pairs in [_Pairs()]
        for contested in CONTESTED
        for row in _against_best(group, estimates, attack, contested, found, pairs, grouping, tails)
    ]
    return pd.DataFrame(records, columns=LEAD_COLUMNS).astype({"n": "Int64"})


def _against_best(
    group: Group,
    estimates: Mapping[tuple[str, str, str], Estimate],
    attack: str,
    contested: str,
    found: Mapping[tuple[str, str], Judged],
    pairs: _Pairs,
    grouping: Grouping,
    tails: Mapping[tuple[str, str], int],
) -> list[dict[str, Any]]:
    score = CONTESTED[contested]
    cells = {label: estimates[label, attack, score] for label in group.labels}
    means = {label: cell.value for label, cell in cells.items() if cell.known}
    if len(means) < 2:
        return []
    order = sorted(means, key=lambda label: (-means[label], label))
    best = order[0]
    rows = {label: group.cells[label, attack] for label in order}
    first = rows[best][0]
    images: Any = int(group.key["n"])
    if contested == "tail":  # missing where neither outcomes nor classes tell
        images = tails.get((first["run_id"], first["attack_id"]), pd.NA)
    made = [
        {
            "eps": float(first["eps"]),
            "best": best,
            "other": label,
            "best_run_id": ",".join(row["run_id"] for row in rows[best]),
            "other_run_id": ",".join(row["run_id"] for row in rows[label]),
            "n": images,
            **_lead(rows[best], rows[label], contested, found, pairs, grouping),
        }
        for label in order[1:]
    ]
    corrected = holm([row["p"] for row in made])
    return [{**row, "p_holm": p} for row, p in zip(made, corrected, strict=True)]


def _lead(
    best: Sequence[Mapping[str, Any]],
    other: Sequence[Mapping[str, Any]],
    contested: str,
    found: Mapping[tuple[str, str], Judged],
    pairs: _Pairs,
    grouping: Grouping,
) -> dict[str, Any]:
    score = CONTESTED[contested]
    if max(len(best), len(other)) > 1:
        values = ([row[score] for row in rows] for rows in (best, other))
        return {**seeds_row(*values), "basis": SEEDS}
    mine, theirs = (found.get((row["run_id"], row["attack_id"])) for row in (best[0], other[0]))
    counts = None if mine is None or theirs is None else pairs.counts(mine, theirs)
    if counts is None or mine is None:
        nothing = dict.fromkeys(("low", "high", "p"), math.nan)
        difference = float(best[0][score] - other[0][score])
        return {"difference": difference, **nothing, "verdict": UNKNOWN, "basis": PAIRED}
    run, _ = mine
    if contested == "tail":
        counts = counts.iloc[class_groups(run.train_counts, grouping)["tail"]]
    row = paired_row(counts, contested)
    names = ("n", "difference", "low", "high", "p", "verdict")
    return {**{name: row[name] for name in names}, "basis": PAIRED}


class _Pairs:
    """Paired counts of evaluations by one attack, made once; outcomes are read once for them."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, ...], pd.DataFrame | None] = {}
        self._outcomes: dict[tuple[str, str], pd.DataFrame | None] = {}

    def counts(self, mine: Judged, theirs: Judged) -> pd.DataFrame | None:
        """Rows of `paired_counts`; None on different images, or where outcomes are gone."""
        key = (*_key(mine), *_key(theirs))
        if key not in self._counts:
            self._counts[key] = self._made(mine, theirs)
        return self._counts[key]

    def _made(self, mine: Judged, theirs: Judged) -> pd.DataFrame | None:
        if mine[1].facts.test_sha256 != theirs[1].facts.test_sha256:
            return None
        one, two = self._read(mine), self._read(theirs)
        if one is None or two is None:
            return None
        return paired_counts(one, two, len(mine[0].train_counts))

    def _read(self, judged: Judged) -> pd.DataFrame | None:
        key = _key(judged)
        if key not in self._outcomes:
            self._outcomes[key] = judged[1].outcomes()
        return self._outcomes[key]


def _key(judged: Judged) -> tuple[str, str]:
    return judged[0].run_id, judged[1].attack_id
