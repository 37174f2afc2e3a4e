"""Which results are set against each other: two runs, or the best method against every other.

Reads runs, matches their attacks and test images, and leaves the statistics to
`evaluation.compare`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ltrobust.bench.evaluations import Evaluation, JudgedRun, outcomes_there, read_run
from ltrobust.bench.store import RunStore
from ltrobust.errors import UserError
from ltrobust.evaluation.compare import (
    COLUMNS,
    UNKNOWN,
    compare_outcomes,
    paired_counts,
    paired_row,
    seeds_row,
)
from ltrobust.evaluation.concerns import concerns
from ltrobust.evaluation.metrics import THIRDS, Grouping, class_groups
from ltrobust.report.estimate import Estimate
from ltrobust.report.groups import Group
from ltrobust.report.setting import group_estimates, holm, tail_images

LEAD_COLUMNS = [
    *("setting", "attack", "eps", "group", "best", "other", "best_run_id", "other_run_id", "n"),
    *("difference", "low", "high", "p", "verdict", "basis", "p_holm"),
]
CONTESTED = {"balanced": "balanced_accuracy", "tail": "tail"}
PAIRED, SEEDS = "paired images", "seeds"


@dataclass(frozen=True)
class Comparison:
    """Two runs side by side.

    Attributes:
        a: run id of A.
        b: run id of B.
        groups: how head, medium and tail were cut.
        rows: `attack`, `eps`, `attack_id` and the columns of `compare_outcomes`.
        notes: what was left out and why, one line each.
    """

    a: str
    b: str
    groups: str
    rows: pd.DataFrame
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Everything as plain values; missing numbers are None."""
        rows = self.rows.astype(object).where(self.rows.notna(), None).to_dict("records")
        return {
            "a": self.a,
            "b": self.b,
            "groups": self.groups,
            "notes": list(self.notes),
            "rows": rows,
        }


def compare_runs(
    a: RunStore, b: RunStore, grouping: Grouping = THIRDS, *, per_class: bool = False
) -> Comparison:
    """Compare two runs, maybe of different suites, under every attack that both stood.

    Attacks match when their settings and the choice of test images (`attack_id`) and the images
    themselves (`test_sha256`) agree. Seeds of one attack that both have are taken together.

    Raises:
        UserError: the classes differ, no attack matches, or a file is damaged.
    """
    records = a.read(), b.read()
    there = outcomes_there(a), outcomes_there(b)
    for run, record, found in zip((a, b), records, there, strict=True):
        if not record.get("evaluations"):
            raise UserError(f"{run.run_id} has not been evaluated; run ltrobust evaluate on it")
        if not found:
            raise UserError(
                f"the outcomes of {run.run_id} are gone; put its outcomes.parquet back, or run "
                "ltrobust evaluate on it"
            )
    names = [list(record["data"]["class_names"]) for record in records]
    if names[0] != names[1]:
        raise UserError(
            f"the classes of {a.run_id} ({len(names[0])}) and {b.run_id} ({len(names[1])}) "
            "differ; only runs on the same data can be compared"
        )
    if len({str(record["config"]["data"].get("fingerprint", "")) for record in records}) > 1:
        raise UserError(
            f"{a.run_id} and {b.run_id} were judged on different images (their data sets differ); "
            "only runs on the same data can be compared"
        )
    common, notes = _matching(*there)
    notes += [
        f"{_name(record['evaluations'][attack_id])} left out: its outcomes are gone from {side}"
        for side, record, found in zip("AB", records, there, strict=True)
        for attack_id in record["evaluations"]
        if attack_id not in found
    ]
    one, other = read_run(a, common), read_run(b, common)
    by_id = {evaluation.attack_id: evaluation for evaluation in other.evaluations}
    pairs = [
        (found, by_id[found.attack_id]) for found in one.evaluations if found.attack_id in by_id
    ]
    notes += [
        f"{_name(found.facts)} left out: its seeds were run with different versions"
        for found in one.evaluations
        if found.attack_id not in by_id
    ]
    if not pairs:
        raise UserError(
            f"{a.run_id} and {b.run_id} have no attack in common ({'; '.join(notes)}); evaluate "
            "one with the other's attacks, eps and test images"
        )
    if one.train_counts != other.train_counts:
        notes.append("the training counts of A and B differ: head, medium and tail are those of A")
    groups = class_groups(one.train_counts, grouping)
    classes = range(len(one.class_names)) if per_class else ()
    parts = [
        compare_outcomes(left.rows, right.rows, groups, one.class_names, classes).assign(
            attack=left.facts["attack"], eps=float(left.facts["eps"]), attack_id=left.attack_id
        )
        for left, right in pairs
    ]
    notes += [
        f"† reliability checks flagged for {side} ({run.run_id}): {', '.join(flags)}; "
        "see docs/evaluation.md"
        for side, run in (("A", a), ("B", b))
        if (flags := _doubts(run, {str(left.facts["attack"]) for left, _ in pairs}))
    ]
    rows = pd.concat(parts, ignore_index=True)[["attack", "eps", "attack_id", *COLUMNS]]
    text = grouping.text(one.train_counts)
    return Comparison(a.run_id, b.run_id, text, rows, tuple(notes))


def _doubts(run: RunStore, attacks: Collection[str]) -> list[str]:
    """Flagged checks that put numbers under these attacks in doubt, with the attacks."""
    found = []
    for one in run.reliability():
        check = str(one["check"])
        doubted = sorted(attack for attack in attacks if concerns(check, attack))
        if one["flagged"] and doubted:
            found.append(
                check if len(doubted) == len(attacks) else f"{check} ({' '.join(doubted)})"
            )
    return found


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
        for contested in CONTESTED
        for row in _against_best(group, estimates, attack, contested, found, grouping, tails)
    ]
    return pd.DataFrame(records, columns=LEAD_COLUMNS).astype({"n": "Int64"})


def _matching(
    a: Mapping[str, dict[str, Any]], b: Mapping[str, dict[str, Any]]
) -> tuple[list[str], list[str]]:
    """Attack ids that both have on the same images, and a line for each that is left out."""
    common, notes = [], []
    only_a = {attack_id: facts for attack_id, facts in a.items() if attack_id not in b}
    only_b = {attack_id: facts for attack_id, facts in b.items() if attack_id not in a}
    for attack_id in (attack_id for attack_id in a if attack_id in b):
        if a[attack_id].get("test_sha256") == b[attack_id].get("test_sha256"):
            common.append(attack_id)
        else:
            notes.append(f"{_name(a[attack_id])} left out: the test images differ")
    for facts in only_a.values():
        rivals = [other for other in only_b.values() if other["attack"] == facts["attack"]]
        why = f"B has it with {_difference(facts, rivals[0])}" if rivals else "only in A"
        notes.append(f"{_name(facts)} left out: {why}")
    known = {facts["attack"] for facts in only_a.values()}
    lonely = [facts for facts in only_b.values() if facts["attack"] not in known]
    return common, [*notes, *(f"{_name(facts)} left out: only in B" for facts in lonely)]


def _difference(facts: dict[str, Any], rival: dict[str, Any]) -> str:
    mine, theirs = (
        {**one["settings"], **{k: one.get(k) for k in ("test_protocol", "limit_test", "library")}}
        for one in (facts, rival)
    )
    different = [
        f"{name} {_short(theirs.get(name))} instead of {_short(mine.get(name))}"
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]
    return ", ".join(different) or "another choice of test images"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _name(facts: dict[str, Any]) -> str:
    """The attack with what else tells one evaluation from another."""
    settings, limit = facts["settings"], facts.get("limit_test")
    more = [
        *([f"eps {facts['eps']:.4g}"] if facts["eps"] else []),
        *([f"seed {settings['seed']}"] if settings.get("seed") else []),
        *([f"search {settings['search']}"] if settings.get("search") else []),
        *([f"limit {limit}"] if limit else []),
    ]
    return f"{facts['attack']} ({', '.join(more)})" if more else str(facts["attack"])


def _against_best(
    group: Group,
    estimates: Mapping[tuple[str, str, str], Estimate],
    attack: str,
    contested: str,
    found: Mapping[tuple[str, str], tuple[JudgedRun, Evaluation]],
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
    rows = {label: _rows(group, label, attack) for label in order}
    images: Any = int(group.key["n"])
    if contested == "tail":  # missing where neither outcomes nor classes tell
        first = rows[best].iloc[0]
        images = tails.get((first["run_id"], first["attack_id"]), pd.NA)
    made = [
        {
            "eps": float(rows[best]["eps"].iloc[0]),
            "best": best,
            "other": label,
            "best_run_id": ",".join(rows[best]["run_id"]),
            "other_run_id": ",".join(rows[label]["run_id"]),
            "n": images,
            **_lead(rows[best], rows[label], contested, found, grouping),
        }
        for label in order[1:]
    ]
    corrected = holm([row["p"] for row in made])
    return [{**row, "p_holm": p} for row, p in zip(made, corrected, strict=True)]


def _rows(group: Group, label: str, attack: str) -> pd.DataFrame:
    rows = group.by_label[label]
    return rows[rows["attack"] == attack].sort_values("seed")


def _lead(
    best: pd.DataFrame,
    other: pd.DataFrame,
    contested: str,
    found: Mapping[tuple[str, str], tuple[JudgedRun, Evaluation]],
    grouping: Grouping,
) -> dict[str, Any]:
    score = CONTESTED[contested]
    if max(len(best), len(other)) > 1:
        return {**seeds_row(best[score].to_list(), other[score].to_list()), "basis": SEEDS}
    mine, theirs = (
        found.get((rows["run_id"].iloc[0], rows["attack_id"].iloc[0])) for rows in (best, other)
    )
    if mine is None or theirs is None or _images(mine) != _images(theirs):
        nothing = dict.fromkeys(("low", "high", "p"), math.nan)
        difference = float(best[score].iloc[0] - other[score].iloc[0])
        return {"difference": difference, **nothing, "verdict": UNKNOWN, "basis": PAIRED}
    (run, one), (_, two) = mine, theirs
    counts = paired_counts(one.rows, two.rows, len(run.train_counts))
    if contested == "tail":
        counts = counts.iloc[class_groups(run.train_counts, grouping)["tail"]]
    row = paired_row(counts, contested)
    names = ("n", "difference", "low", "high", "p", "verdict")
    return {**{name: row[name] for name in names}, "basis": PAIRED}


def _images(judged: tuple[JudgedRun, Evaluation]) -> object:
    """What tells one choice of test images from another."""
    return judged[1].facts.get("test_sha256")
