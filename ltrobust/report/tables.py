"""Chooses what stands in the tables of one group of comparable results, and says so in captions.

It decides columns, order and wording; averages come from `aggregate.py`, the look from `markup.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
from ltrobust.report.groups import Group, format_eps
from ltrobust.report.markup import Table, by_column, by_row, percent


def leaderboard_table(group: Group) -> Table:
    """Ranking at a glance: both accuracies by attack, tail accuracy under the strongest one."""
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
        for score, row in zip(order, _score_rows(frame, wanted), strict=True)
    ]
    return _column_table("leaderboard", "Leaderboard", group, rows)


def balanced_table(group: Group, attacks: Sequence[str] | None = None) -> Table:
    """Accuracy and balanced accuracy side by side, for each method and attack (default: all)."""
    wanted = [
        (f"{attack} {short}", attack, score)
        for attack in (group.attacks if attacks is None else attacks)
        for short, score in (("acc.", "accuracy"), ("bal.", "balanced_accuracy"))
    ]
    rows = _score_rows(scores(group), wanted)
    return _column_table("balanced", "Accuracy and balanced accuracy", group, rows)


GROUP_COLUMNS = {
    "acc.": "accuracy",
    "bal.": "balanced_accuracy",
    "head": "head",
    "medium": "medium",
    "tail": "tail",
    "worst class": "worst_class",
}


def group_table(group: Group) -> Table:
    """Accuracy on head, medium and tail classes and on the worst class, attack by attack."""
    frame = scores(group)
    rows: list[dict[str, Any]] = []
    sections = []
    for attack in group.attacks:
        wanted = [(name, attack, score) for name, score in GROUP_COLUMNS.items()]
        sections.append(len(rows))
        rows += [{"attack": attack, **row} for row in _score_rows(frame, wanted)]
    contests = [
        contest
        for start, end in zip(sections, [*sections[1:], len(rows)], strict=True)
        for contest in by_column(list(GROUP_COLUMNS), range(start, end))
    ]
    caption = f"{describe(group)} Head: the most frequent third of the classes, tail: the rarest."
    return Table(
        "groups",
        "Accuracy by class frequency",
        caption + _reading(group),
        pd.DataFrame(rows),
        tuple(contests),
        tuple(sections[1:]),
    )


def per_class_table(group: Group, per_class: pd.DataFrame) -> Table:
    """Accuracy of every class, one column a method: clean, the longest PGD, then AutoAttack."""
    classes = class_scores(group, per_class)
    labels = [name for name in ranked_labels(scores(group)) if name in set(classes["label"])]
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
                row | {name: cells.get((fact["class_index"], name), missing) for name in labels}
            )
    return Table(
        "per-class",
        "Accuracy by class",
        f"{describe(group)} Classes from most to least frequent." + _reading(group),
        pd.DataFrame(rows, columns=["attack", "class", "n_train", *labels]),
        by_row(labels, range(len(rows))),
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
        row = {"method": label}
        for attack in group.attacks:
            there = attack in scored
            row[f"{attack} acc."] = percent(float(scored[attack]["accuracy"])) if there else "-"
            row[f"{attack} bal."] = _interval(scored[attack]) if there else "-"
        rows.append(row)
    if not rows:
        return None
    caption = f"{describe(group)} One seed; the interval covers the choice of test images only."
    title = "Balanced accuracy with its 95% confidence interval"
    return Table("intervals", title, f"{caption} Percent.", pd.DataFrame(rows))


def group_tables(group: Group, per_class: pd.DataFrame) -> list[Table]:
    """All tables of one group, in reading order."""
    tables = [leaderboard_table(group), balanced_table(group), group_table(group)]
    intervals = interval_table(group)
    classes = per_class_table(group, per_class)
    return [
        *tables,
        *([intervals] if intervals else []),
        *([classes] if len(classes.frame) else []),
    ]


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
    ]
    return f"{', '.join(parts)}.{_libraries(group)}"


def _score_rows(frame: pd.DataFrame, wanted: list[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """One row a method; `wanted` lists (column title, attack, score)."""
    cells = records_by_cell(frame)
    rows = []
    for label in ranked_labels(frame):
        row: dict[str, Any] = {"method": label}
        for title, attack, score in wanted:
            cell = cells[label, attack]
            row[title] = Spread(cell[f"{score}_mean"], cell[f"{score}_std"], int(cell["n_seeds"]))
        rows.append(row)
    return rows


def _column_table(name: str, title: str, group: Group, rows: list[dict[str, Any]]) -> Table:
    ranked = [column for column in rows[0] if column not in ("rank", "method")]
    contests = by_column(ranked, range(len(rows)))
    caption = f"{describe(group)} acc.: mean over images, bal.: mean over classes."
    return Table(name, title, caption + _reading(group), pd.DataFrame(rows), contests)


def _reading(group: Group) -> str:
    several = any(len(group.runs(label)) > 1 for label in group.labels)
    spread = " ± is the sample standard deviation over n seeds." if several else ""
    runs = group.rows["run_id"].nunique()
    gaps = len(group.rows) < runs * len(group.attacks)
    missing = " - marks a score that not every seed has." if gaps else ""
    return f" Percent; best bold, second underlined.{spread}{missing}"


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


def _class_attacks(group: Group) -> list[str]:
    pgd = [name for name in group.attacks if name.startswith("pgd")]
    wanted = ["clean", *pgd[-1:], strongest_attack(group.attacks)]
    return [name for name in group.attacks if name in wanted]


def _interval(row: Mapping[Any, Any]) -> str:
    low, high = percent(float(row["ci_low"])), percent(float(row["ci_high"]))
    return f"{percent(float(row['balanced_accuracy']))} [{low}, {high}]"
