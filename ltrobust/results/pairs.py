"""Two runs side by side, under every attack that both stood on the same test images.

Matches attacks and images, and leaves the statistics to `evaluation.compare`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ltrobust.errors import UserError
from ltrobust.evaluation.compare import COLUMNS, compare_outcomes
from ltrobust.evaluation.concerns import concerns
from ltrobust.evaluation.metrics import THIRDS, Grouping, class_groups
from ltrobust.results.collect import Evaluation, read_run
from ltrobust.results.records import AttackRecord
from ltrobust.results.store import RunStore


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
    records = a.begun_record(), b.begun_record()
    attacks = a.attacks(), b.attacks()
    for run, made in zip((a, b), attacks, strict=True):
        if not made:
            raise UserError(f"{run.run_id} has not been evaluated; run ltrobust evaluate on it")
        if not any(run.has_outcomes(attack_id) for attack_id in made):
            raise UserError(
                f"the outcomes of {run.run_id} are gone; put {run.path / 'attacks'}/*.parquet back"
            )
    names = [record.data.class_names for record in records]
    if names[0] != names[1]:
        raise UserError(
            f"the classes of {a.run_id} ({len(names[0])}) and {b.run_id} ({len(names[1])}) "
            "differ; only runs on the same data can be compared"
        )
    if len({record.run.data.fingerprint for record in records}) > 1:
        raise UserError(
            f"{a.run_id} and {b.run_id} were judged on different images (their data sets differ); "
            "only runs on the same data can be compared"
        )
    there = [
        {one: found for one, found in made.items() if run.has_outcomes(one)}
        for run, made in zip((a, b), attacks, strict=True)
    ]
    common, notes = _matching(*there)
    notes += [
        f"{_name(record)} left out: its outcomes are gone from {side}"
        for side, made, found in zip("AB", attacks, there, strict=True)
        for attack_id, record in made.items()
        if attack_id not in found
    ]
    one, other = read_run(a, only=common), read_run(b, only=common)
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
        compare_outcomes(_rows(left), _rows(right), groups, one.class_names, classes).assign(
            attack=left.attack, eps=float(left.eps), attack_id=left.attack_id
        )
        for left, right in pairs
    ]
    notes += [
        f"† reliability checks flagged for {side} ({run.run_id}): {', '.join(flags)}; "
        "see docs/evaluation.md"
        for side, run in (("A", a), ("B", b))
        if (flags := _doubts(run, {left.attack for left, _ in pairs}))
    ]
    rows = pd.concat(parts, ignore_index=True)[["attack", "eps", "attack_id", *COLUMNS]]
    text = grouping.text(one.train_counts)
    return Comparison(a.run_id, b.run_id, text, rows, tuple(notes))


def _rows(evaluation: Evaluation) -> pd.DataFrame:
    """Outcomes that are there."""
    outcomes = evaluation.outcomes()
    if outcomes is None:
        raise UserError(f"the outcomes of {evaluation.attack_id} are gone")
    return outcomes


def _doubts(run: RunStore, attacks: Collection[str]) -> list[str]:
    """Flagged checks that put numbers under these attacks in doubt, with the attacks."""
    report = run.reliability()
    found = []
    for one in report.findings if report is not None else ():
        doubted = sorted(attack for attack in attacks if concerns(one.check, attack))
        if one.flagged and doubted:
            known = (
                one.check if len(doubted) == len(attacks) else f"{one.check} ({' '.join(doubted)})"
            )
            found.append(known)
    return found


def _matching(
    a: Mapping[str, AttackRecord], b: Mapping[str, AttackRecord]
) -> tuple[list[str], list[str]]:
    """Attack ids that both have on the same images, and a line for each that is left out."""
    common, notes = [], []
    only_a = {attack_id: record for attack_id, record in a.items() if attack_id not in b}
    only_b = {attack_id: record for attack_id, record in b.items() if attack_id not in a}
    for attack_id in (attack_id for attack_id in a if attack_id in b):
        if a[attack_id].test_sha256 == b[attack_id].test_sha256:
            common.append(attack_id)
        else:
            notes.append(f"{_name(a[attack_id])} left out: the test images differ")
    for record in only_a.values():
        rivals = [other for other in only_b.values() if other.attack == record.attack]
        why = f"B has it with {_difference(record, rivals[0])}" if rivals else "only in A"
        notes.append(f"{_name(record)} left out: {why}")
    known = {record.attack for record in only_a.values()}
    lonely = [record for record in only_b.values() if record.attack not in known]
    return common, [*notes, *(f"{_name(record)} left out: only in B" for record in lonely)]


def _difference(record: AttackRecord, rival: AttackRecord) -> str:
    mine, theirs = (
        {**one.settings, **{k: getattr(one, k) for k in ("test_protocol", "limit_test", "library")}}
        for one in (record, rival)
    )
    different = [
        f"{name} {_short(theirs.get(name))} instead of {_short(mine.get(name))}"
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]
    return ", ".join(different) or "another choice of test images"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _name(record: AttackRecord) -> str:
    """The attack with what else tells one evaluation from another."""
    settings, limit = record.settings, record.limit_test
    more = [
        *([f"eps {record.eps:.4g}"] if record.eps else []),
        *([f"seed {settings['seed']}"] if settings.get("seed") else []),
        *([f"search {settings['search']}"] if settings.get("search") else []),
        *([f"limit {limit}"] if limit else []),
    ]
    return f"{record.attack} ({', '.join(more)})" if more else record.attack
