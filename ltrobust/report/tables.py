"""Chooses what stands in the tables of one group of comparable results, and says so in captions.

It decides columns, order and wording; averages come from `aggregate.py`, the look from `markup.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ltrobust.report.aggregate import (
    Spread,
    class_scores,
    ranked_labels,
    ranking_score,
    records_by_cell,
    scores,
    strongest_attack,
)
from ltrobust.report.confusion import Confusions, confusions, destinations
from ltrobust.report.groups import Group, format_eps, settings_of
from ltrobust.report.marks import grouping_note, near_best, reliability_note, shown_names
from ltrobust.report.markup import Cell, Table, by_column, by_row, percent

CONTESTS = {"balanced_accuracy": "balanced", "tail": "tail"}
"""Scores whose distance to the best is marked when it is within noise."""


def leaderboard_table(group: Group, comparisons: pd.DataFrame | None = None) -> Table:
    """Ranking at a glance: both accuracies by attack, tail accuracy under the strongest one.

    Args:
        group: the results.
        comparisons: rows of comparisons.csv, which say what is within noise of the best.
    """
    frame = scores(group)
    strongest = strongest_attack(group.attacks) or "clean"
    wanted = [
        (f"{attack} {short}", attack, score)
        for attack in group.attacks
        for short, score in (("acc.", "accuracy"), ("bal.", "balanced_accuracy"))
    ]
    wanted.append((f"{strongest} tail", strongest, "tail"))
    order = [ranking_score(frame, label) for label in ranked_labels(frame)]
    rows = [
        {"rank": order.index(score) + 1, **row}
        for score, row in zip(order, _score_rows(frame, wanted, shown_names(group)), strict=True)
    ]
    table = _column_table("leaderboard", "Leaderboard", group, rows, grouping_note(group))
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
    rows = _score_rows(scores(group), wanted, shown_names(group))
    table = _column_table("balanced", "Accuracy and balanced accuracy", group, rows)
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
    contests = [
        contest
        for start, end in zip(sections, [*sections[1:], len(rows)], strict=True)
        for contest in by_column(ranked, range(start, end))
    ]
    caption = f"{describe(group)}{grouping_note(group)} gap: head minus tail, in points."
    return Table(
        "groups",
        "Accuracy by class frequency",
        caption + _reading(group),
        pd.DataFrame(rows),
        tuple(contests),
        tuple(sections[1:]),
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
        f"less is better.{_spread_note(group)}{reliability_note(group)}"
    )
    title = "Natural and boundary error"
    return Table("errors", title, caption, pd.DataFrame(rows), (), tuple(sections[1:]))


def per_class_table(group: Group, per_class: pd.DataFrame) -> Table:
    """Accuracy of every class, one column a method: clean, the longest PGD, then AutoAttack."""
    classes = class_scores(group, per_class)
    shown = shown_names(group)
    labels = [name for name in ranked_labels(scores(group)) if name in set(classes["label"])]
    columns = [shown[label] for label in labels]
    rows: list[dict[str, Any]] = []
    sections = []
    for attack in _class_attacks(group):
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
            rows.append(
                row
                | {shown[name]: cells.get((fact["class_index"], name), missing) for name in labels}
            )
    return Table(
        "per-class",
        "Accuracy by class",
        f"{describe(group)} Classes from most to least frequent." + _reading(group),
        pd.DataFrame(rows, columns=["attack", "class", "n_train", *columns]),
        by_row(columns, range(len(rows))),
        tuple(sections[1:]),
    )


def interval_table(group: Group) -> Table | None:
    """95% confidence interval of balanced accuracy; None when no method has exactly one seed."""
    rows = []
    for label in ranked_labels(scores(group)):
        if len(group.runs(label)) > 1:
            continue
        own = group.rows[group.rows["label"] == label]
        scored = {row["attack"]: row for row in own.to_dict("records")}
        row = {"method": shown_names(group)[label]}
        for attack in group.attacks:
            there = attack in scored
            row[f"{attack} acc."] = percent(float(scored[attack]["accuracy"])) if there else "-"
            row[f"{attack} bal."] = _interval(scored[attack]) if there else "-"
        rows.append(row)
    if not rows:
        return None
    caption = f"{describe(group)} One seed; the interval covers the choice of test images only."
    title = "Balanced accuracy with its 95% confidence interval"
    caption = f"{caption} Percent.{reliability_note(group)}"
    return Table("intervals", title, caption, pd.DataFrame(rows))


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
    ]
    return [table for table in tables if table is not None]


def _confusion_table(group: Group, mistakes: Confusions) -> Table:
    """Where the images of the tail classes end up: three most frequent predictions a class."""
    shown = shown_names(group)
    rows: list[dict[str, Any]] = []
    sections = []
    for label in mistakes.counts:
        sections.append(len(rows))
        rows += [{"method": shown[label], **row} for row in destinations(mistakes, label)]
    caption = (
        f"{describe(group)} Tail classes under {mistakes.attack}: share of a class's images that "
        "are still right, and the classes that most of the others fall into, with their shares."
        f"{grouping_note(group)} Percent.{reliability_note(group)}"
    )
    title = f"Where tail images fall under {mistakes.attack}"
    return Table("confusion", title, caption, pd.DataFrame(rows), (), tuple(sections[1:]))


SELECT_WORDS = {
    "last": "last epoch",
    "best": "best epoch on held-out training images",
    "best-on-test": "best epoch CHOSEN ON THE TEST SET, which leaks into these figures",
}


def describe(group: Group) -> str:
    """State the setting of a group in a few plain sentences."""
    key = group.key
    parts = [
        f"{key['dataset']}, imbalance ratio {key['imbalance_ratio']:g}",
        f"{key['test_protocol']} test set of {int(key['n']):,} images",
        *([f"eps {format_eps(key['eps'])}"] if key["eps"] > 0 else []),
        str(key["arch"]),
        f"{key['recipe']} recipe",
        f"{key['epochs']} epochs",
        SELECT_WORDS.get(str(key["select"]), f"checkpoint {key['select']}"),
        f"augmentation {key['augment']}",
        str(key["precision"]),
        f"split seed {key['split_seed']}",
        _seeds(group),
        *(
            [f"adversarial images looked for in {key['search']}, verdicts in fp32"]
            if key["search"] != "fp32"
            else []
        ),
    ]
    return f"{', '.join(parts)}.{_libraries(group)}{_attack_seeds(group)}"


def _attack_sections(
    group: Group, attacks: Sequence[str], columns: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows of all methods, attack after attack, and the position at which each attack begins."""
    frame = scores(group)
    rows: list[dict[str, Any]] = []
    sections = []
    for attack in attacks:
        wanted = [(name, attack, score) for name, score in columns.items()]
        sections.append(len(rows))
        own = _score_rows(frame, wanted, shown_names(group))
        rows += [{"attack": attack, **row} for row in own]
    return rows, sections


def _score_rows(
    frame: pd.DataFrame, wanted: list[tuple[str, str, str]], shown: Mapping[str, str]
) -> list[dict[str, Any]]:
    """One row a method; `wanted` lists (column title, attack, score), `shown` names as written."""
    cells = records_by_cell(frame)
    rows = []
    for label in ranked_labels(frame):
        row: dict[str, Any] = {"method": shown[label]}
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
    """Mark the scores that are within noise of the best of their column."""
    contested = [(title, attack, CONTESTS[s]) for title, attack, s in wanted if s in CONTESTS]
    attacks, contests = {attack for _, attack, _ in contested}, {c for _, _, c in contested}
    near = near_best(group, comparisons, attacks, contests)
    signs: dict[Cell, str] = {
        (place, title): near.sign(label, attack, contest)
        for place, label in enumerate(ranked_labels(scores(group)))
        for title, attack, contest in contested
    }
    return replace(table, caption=table.caption + near.sentence, signs=signs)


def _column_table(
    name: str, title: str, group: Group, rows: list[dict[str, Any]], note: str = ""
) -> Table:
    ranked = [column for column in rows[0] if column not in ("rank", "method")]
    contests = by_column(ranked, range(len(rows)))
    caption = f"{describe(group)} acc.: mean over images, bal.: mean over classes.{note}"
    return Table(name, title, caption + _reading(group), pd.DataFrame(rows), contests)


def _reading(group: Group) -> str:
    runs = group.rows["run_id"].nunique()
    gaps = len(group.rows) < runs * len(group.attacks)
    missing = " - marks a score that not every seed has." if gaps else ""
    marks = f"{_spread_note(group)}{missing}{reliability_note(group)}"
    return f" Percent; best bold, second underlined.{marks}"


def _spread_note(group: Group) -> str:
    several = any(len(group.runs(label)) > 1 for label in group.labels)
    return " ± is the sample standard deviation over n seeds." if several else ""


def _seeds(group: Group) -> str:
    seeds = {label: ", ".join(map(str, group.seeds(label))) for label in group.labels}
    if len(set(seeds.values())) == 1:
        text = seeds[group.labels[0]]
        return f"training seeds {text}" if "," in text else f"training seed {text}"
    return "training seeds " + "; ".join(f"{label}: {text}" for label, text in seeds.items())


def _libraries(group: Group) -> str:
    used = group.rows.loc[group.rows["attack"] == "autoattack", "attack_library"].dropna()
    names = sorted({str(name) for name in used})
    return f" AutoAttack from {', '.join(names)}." if names else ""


def _attack_seeds(group: Group) -> str:
    """Name the attacks of which each image keeps the worst of several seeds."""
    seeds = {
        attack: settings["seeds"]
        for attack, settings in zip(
            group.rows["attack"], group.rows["attack_settings"].map(settings_of), strict=True
        )
        if isinstance(settings, dict) and "seeds" in settings
    }
    texts = [f"{name}: worst of attack seeds {', '.join(map(str, s))}" for name, s in seeds.items()]
    return f" {'; '.join(texts)}." if texts else ""


def _class_attacks(group: Group) -> list[str]:
    pgd = [name for name in group.attacks if name.startswith("pgd")]
    wanted = ["clean", *pgd[-1:], strongest_attack(group.attacks)]
    return [name for name in group.attacks if name in wanted]


def _interval(row: Mapping[Any, Any]) -> str:
    low, high = percent(float(row["ci_low"])), percent(float(row["ci_high"]))
    return f"{percent(float(row['balanced_accuracy']))} [{low}, {high}]"
