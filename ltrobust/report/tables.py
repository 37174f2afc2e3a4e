"""Chooses what stands in the tables of one group of comparable results, and says so in captions.

It decides columns, order and titles; averages come from `aggregate.py`, the wording of captions
from `captions.py`, the look from `markup.py`, the frames behind the CSV files from `plain.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ltrobust.report.aggregate import (
    Spread,
    class_attacks,
    class_scores,
    ranked_labels,
    records_by_cell,
    robust_attack,
    scores,
)
from ltrobust.report.captions import describe, reading, spread_note
from ltrobust.report.confusion import Confusions, confused_shares, confusions, destinations
from ltrobust.report.cost import cost_table
from ltrobust.report.groups import Group
from ltrobust.report.marks import grouping_note, near_best, reliability_note, shown_names, sign_of
from ltrobust.report.markup import Cell, Table, by_column, by_row, by_section, percent
from ltrobust.report.plain import attack_scores, method_scores
from ltrobust.report.ranking import ranking

CONTESTS = {"balanced_accuracy": "balanced", "tail": "tail"}
"""Scores whose distance to the best is marked when it is within noise."""


def leaderboard_table(group: Group, comparisons: pd.DataFrame | None = None) -> Table:
    """Ranking at a glance: both accuracies by attack, tail accuracy under the strongest one.

    Args:
        group: the results.
        comparisons: rows of comparisons.csv, which say what is within noise of the best.
    """
    frame = scores(group)
    strongest, ranked = robust_attack(frame) or "clean", ranking(frame)
    wanted = [
        (f"{attack} {short}", attack, score)
        for attack in group.attacks
        for short, score in (("acc.", "accuracy"), ("bal.", "balanced_accuracy"))
    ]
    wanted.append((f"{strongest} tail", strongest, "tail"))
    ranks = [ranked.ranks[label] for label in ranked.labels]
    rows = [
        {"rank": "-" if rank is None else rank, **row}
        for rank, row in zip(ranks, _score_rows(group, wanted), strict=True)
    ]
    data = method_scores(group, [(attack, score) for _, attack, score in wanted])
    data.insert(1, "rank", pd.Series(ranks, dtype="Int64"))
    data["ranked_by"] = ranked.name
    data["ranking_score"] = [ranked.scores[label] for label in ranked.labels]
    table = _column_table("leaderboard", "Leaderboard", group, rows, data, grouping_note(group))
    return _with_noise(table, group, wanted, comparisons)


def balanced_table(
    group: Group,
    attacks: Sequence[str] | None = None,
    comparisons: pd.DataFrame | None = None,
) -> Table:
    """Accuracy and balanced accuracy side by side, for each method and attack (default: all)."""
    wanted = [
        (f"{attack} {short}", attack, score)
        for attack in (group.attacks if attacks is None else attacks)
        for short, score in (("acc.", "accuracy"), ("bal.", "balanced_accuracy"))
    ]
    rows = _score_rows(group, wanted)
    data = method_scores(group, [(attack, score) for _, attack, score in wanted])
    table = _column_table("balanced", "Accuracy and balanced accuracy", group, rows, data)
    return _with_noise(table, group, wanted, comparisons)


GROUP_COLUMNS = {
    "acc.": "accuracy",
    "bal.": "balanced_accuracy",
    "head": "head",
    "medium": "medium",
    "tail": "tail",
    "worst class": "worst_class",
    "gap": "robust_gap",
}


def group_table(group: Group) -> Table:
    """Accuracy on head, medium and tail classes and on the worst class, attack by attack."""
    rows, sections = _attack_sections(group, group.attacks, GROUP_COLUMNS)
    ranked = [name for name in GROUP_COLUMNS if name != "gap"]  # which gap is best is no contest
    caption = f"{describe(group)}{grouping_note(group)} gap: head minus tail, in points."
    return Table(
        "groups",
        "Accuracy by class frequency",
        caption + reading(group),
        pd.DataFrame(rows),
        by_section(ranked, sections, len(rows)),
        tuple(sections[1:]),
        data=attack_scores(group, group.attacks, list(GROUP_COLUMNS.values())),
    )


def error_table(group: Group) -> Table | None:
    """Natural and boundary error of each method and attack; None when nothing tells them apart."""
    attacks = [name for name in group.attacks if name != "clean"]
    columns = {"natural": "natural_error", "boundary": "boundary_error", "accuracy": "accuracy"}
    rows, sections = _attack_sections(group, attacks, columns)
    if all(math.isnan(row["natural"].mean) for row in rows):
        return None
    for row in rows:
        kept = row.pop("accuracy")
        row["robust error"] = Spread(1 - kept.mean, kept.std, kept.n)
    caption = (
        f"{describe(group)} natural: share of images misclassified without an attack, boundary: "
        "right without it and broken by it; their sum is the robust error, 1 - accuracy. Percent; "
        f"less is better.{spread_note([group])}{reliability_note(group, attacks)}"
    )
    data = attack_scores(group, attacks, ["natural_error", "boundary_error", "accuracy"])
    data["accuracy_mean"] = 1 - data["accuracy_mean"]
    robust = {f"accuracy_{part}": f"robust_error_{part}" for part in ("mean", "std")}
    return Table(
        "errors",
        "Natural and boundary error",
        caption,
        pd.DataFrame(rows),
        (),
        tuple(sections[1:]),
        data=data.rename(columns=robust),
    )


def per_class_table(group: Group, per_class: pd.DataFrame) -> Table:
    """Accuracy of every class, one column a method: clean, the longest PGD, then AutoAttack."""
    classes = class_scores(group, per_class)
    attacks = class_attacks(group.attacks)
    labels = [name for name in ranked_labels(scores(group)) if name in set(classes["label"])]
    rows: list[dict[str, Any]] = []
    signs: dict[Cell, str] = {}
    sections = []
    for attack in attacks:
        sections.append(len(rows))
        block = classes[classes["attack"] == attack]
        cells = {
            (index, label): Spread(mean, std, int(n))
            for index, label, mean, std, n in block[
                ["class_index", "label", "accuracy_mean", "accuracy_std", "n_seeds"]
            ].itertuples(index=False)
        }
        facts = block.drop_duplicates("class_index").to_dict("records")
        missing = Spread(math.nan, math.nan, 0)
        for fact in facts:
            name, count = str(fact["class_name"]), int(fact["n_train"])
            row = {"attack": attack, "class": name, "n_train": count}
            signs |= {(len(rows), label): sign_of(group, label, attack) for label in labels}
            scored = {label: cells.get((fact["class_index"], label), missing) for label in labels}
            rows.append(row | scored)
    return Table(
        "per-class",
        "Accuracy by class",
        f"{describe(group)} Classes from most to least frequent." + reading(group, attacks),
        pd.DataFrame(rows, columns=["attack", "class", "n_train", *labels]),
        by_row(labels, range(len(rows))),
        tuple(sections[1:]),
        signs,
        data=_class_data(group, classes),
    )


def _class_data(group: Group, classes: pd.DataFrame) -> pd.DataFrame:
    """The per-class table with a row a cell."""
    columns = ["attack", "class_index", "class_name", "n_train", "method", "n_seeds"]
    classes = classes[classes["attack"].isin(class_attacks(group.attacks))]
    data = classes.rename(columns={"label": "method"})[[*columns, "accuracy_mean", "accuracy_std"]]
    order = {attack: place for place, attack in enumerate(group.attacks)}
    data = data.sort_values("attack", key=lambda s: s.map(order), kind="stable", ignore_index=True)
    data.insert(0, "setting", group.slug)
    return data


def interval_table(group: Group) -> Table | None:
    """95% confidence interval of balanced accuracy; None when no method has exactly one seed."""
    rows: list[dict[str, Any]] = []
    signs: dict[Cell, str] = {}
    single = [name for name in ranked_labels(scores(group)) if len(group.runs(name)) == 1]
    for label in single:
        own = group.rows[group.rows["label"] == label]
        scored = {row["attack"]: row for row in own.to_dict("records")}
        row = {"method": label, **group.told(label)}
        for attack in group.attacks:
            there = attack in scored
            sign = sign_of(group, label, attack) if there else ""
            signs |= {(len(rows), f"{attack} {score}"): sign for score in ("acc.", "bal.")}
            row[f"{attack} acc."] = percent(float(scored[attack]["accuracy"])) if there else "-"
            row[f"{attack} bal."] = _interval(scored[attack]) if there else "-"
        rows.append(row)
    if not rows:
        return None
    caption = f"{describe(group)} One seed; the interval covers the choice of test images only."
    title = "Balanced accuracy with its 95% confidence interval"
    caption = f"{caption} Percent.{reliability_note(group, group.attacks)}"
    data = _interval_data(group, single)
    return Table("intervals", title, caption, pd.DataFrame(rows), signs=signs, data=data)


def _interval_data(group: Group, labels: Sequence[str]) -> pd.DataFrame:
    """The table of intervals with a row a method and attack that was run."""
    scored = ["accuracy", "balanced_accuracy", "ci_low", "ci_high"]
    rows = group.rows.drop(columns="method").rename(columns={"label": "method"})
    order = {cell: place for place, cell in enumerate(itertools.product(labels, group.attacks))}
    cells = zip(rows["method"], rows["attack"], strict=True)
    rows = rows.assign(setting=group.slug, place=[order.get(cell, -1) for cell in cells])
    rows = rows[rows["place"] >= 0].sort_values("place", ignore_index=True)
    return rows[["setting", "method", *group.differing, "seed", "attack", "n", *scored]]


def group_tables(
    group: Group,
    per_class: pd.DataFrame,
    comparisons: pd.DataFrame | None = None,
    confusion: pd.DataFrame | None = None,
) -> list[Table]:
    """All tables of one group, in reading order; those that nothing is known for are left out."""
    classes = per_class_table(group, per_class)
    mistakes = confusions(group, per_class, confusion)
    tables = [
        leaderboard_table(group, comparisons),
        balanced_table(group, comparisons=comparisons),
        group_table(group),
        error_table(group),
        interval_table(group),
        classes if len(classes.frame) else None,
        _confusion_table(group, mistakes) if mistakes else None,
        cost_table(group),
    ]
    return [table for table in tables if table is not None]


def _confusion_table(group: Group, mistakes: Confusions) -> Table:
    """Where the images of the tail classes end up: three most frequent predictions a class."""
    shown = shown_names(group, [mistakes.attack])
    rows: list[dict[str, Any]] = []
    sections = []
    for label in mistakes.counts:
        sections.append(len(rows))
        rows += [{"method": shown[label], **row} for row in destinations(mistakes, label)]
    data = confused_shares(mistakes)
    data.insert(0, "setting", group.slug)
    caption = (
        f"{describe(group)} Tail classes under {mistakes.attack}: share of a class's images that "
        "are still right, and the classes that most of the others fall into, with their shares."
        f"{grouping_note(group)} Percent.{reliability_note(group, [mistakes.attack])}"
    )
    title = f"Where tail images fall under {mistakes.attack}"
    frame = pd.DataFrame(rows)
    return Table("confusion", title, caption, frame, (), tuple(sections[1:]), data=data)


def _attack_sections(
    group: Group, attacks: Sequence[str], columns: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows of all methods, attack after attack, and the position at which each attack begins."""
    rows: list[dict[str, Any]] = []
    sections = []
    for attack in attacks:
        wanted = [(name, attack, score) for name, score in columns.items()]
        sections.append(len(rows))
        shown = shown_names(group, [attack])
        own = _score_rows(group, wanted)
        rows += [{"attack": attack, **row, "method": shown[row["method"]]} for row in own]
    return rows, sections


def _score_rows(group: Group, wanted: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """One row a method, with what rows differ in; `wanted` lists (column title, attack, score)."""
    frame = scores(group)
    cells = records_by_cell(frame)
    rows = []
    for label in ranked_labels(frame):
        row: dict[str, Any] = {"method": label, **group.told(label)}
        for title, attack, score in wanted:
            cell = cells[label, attack]
            row[title] = Spread(cell[f"{score}_mean"], cell[f"{score}_std"], int(cell["n_seeds"]))
        rows.append(row)
    return rows


def _with_noise(
    table: Table,
    group: Group,
    wanted: list[tuple[str, str, str]],
    comparisons: pd.DataFrame | None,
) -> Table:
    """Mark the scores that are in doubt, and those within noise of the best of their column."""
    contested = [(title, attack, CONTESTS[s]) for title, attack, s in wanted if s in CONTESTS]
    attacks, contests = {attack for _, attack, _ in contested}, {c for _, _, c in contested}
    near = near_best(group, comparisons, attacks, contests)
    signs: dict[Cell, str] = {
        (place, title): sign_of(group, label, attack)
        for place, label in enumerate(ranked_labels(scores(group)))
        for title, attack, _ in wanted
    }
    for place, label in enumerate(ranked_labels(scores(group))):
        for title, attack, contest in contested:
            signs[place, title] += near.sign(label, attack, contest)
    return replace(table, caption=table.caption + near.sentence, signs=signs)


def _column_table(
    name: str,
    title: str,
    group: Group,
    rows: list[dict[str, Any]],
    data: pd.DataFrame,
    note: str = "",
) -> Table:
    ranked = [name for name, cell in rows[0].items() if isinstance(cell, Spread)]
    contests = by_column(ranked, range(len(rows)))
    attacks = [
        attack for attack in group.attacks if any(c.startswith(f"{attack} ") for c in ranked)
    ]
    caption = f"{describe(group)} acc.: mean over images, bal.: mean over classes.{note}"
    return Table(
        name, title, caption + reading(group, attacks), pd.DataFrame(rows), contests, data=data
    )


def _interval(row: Mapping[Any, Any]) -> str:
    low, high = percent(float(row["ci_low"])), percent(float(row["ci_high"]))
    return f"{percent(float(row['balanced_accuracy']))} [{low}, {high}]"
