"""Chooses what stands in the tables of a report, and says so in captions.

It decides columns, order and titles, for readers and in the frames behind the CSV files. Numbers
come from the board, the wording of captions from `captions.py`, the look from `markup.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import pandas as pd

from ltrobust.report.captions import (
    fewer_note,
    gaps_note,
    reading,
    setting_words,
    spread_note,
    test_images,
)
from ltrobust.report.confusion import tail_predictions
from ltrobust.report.cost import BUSY, CPU, WALL, Conditions
from ltrobust.report.estimate import Estimate, Quantity, percent, points
from ltrobust.report.groups import attack_order
from ltrobust.report.marks import (
    grouping_note,
    near_best,
    reliability_note,
    score_signs,
    sign_of,
)
from ltrobust.report.markup import Table
from ltrobust.report.ranking import class_attacks
from ltrobust.report.ratios import Family, n_train, training_images
from ltrobust.report.setting import CONTESTS, Setting
from ltrobust.results.custom import own_metrics

_UNITS = ((7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))
"""From so many seconds on, seconds in the unit, its name."""
_GIGABYTE = 1e9
_DESTINATIONS = ("1st", "2nd", "3rd")
Row = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A score of one attack, the title of its column, and its name for machines.

    Attributes:
        fewer: whose score it is, if not the table's own setting.
    """

    title: str
    attack: str
    score: str
    name: str
    fewer: Setting | None = None


def setting_tables(setting: Setting) -> list[Table]:
    """All tables of one setting, in reading order; those that nothing is known for are left out."""
    tables = [
        leaderboard_table(setting),
        balanced_table(setting),
        group_table(setting),
        error_table(setting),
        interval_table(setting),
        leads_table(setting),
        per_class_table(setting) if setting.classes.facts else None,
        confusion_table(setting),
        cost_table(setting),
    ]
    return [table for table in tables if table is not None]


def leaderboard_table(setting: Setting) -> Table:
    """Ranking at a glance: both accuracies by attack, tail accuracy under the strongest one."""
    strongest, ranked = setting.robust or "clean", setting.ranking
    tail = Column(f"{strongest} tail", strongest, "tail", f"{strongest}_tail")
    table = _column_table(
        setting,
        [*_both(setting.attacks), tail, *_on_fewer(setting)],
        "leaderboard",
        "Leaderboard",
        grouping_note(setting) + fewer_note(setting),
    )
    ranks = list(ranked.ranks.values())
    table.frame.insert(0, "rank", ["-" if rank is None else rank for rank in ranks])
    assert table.data is not None
    table.data.insert(1, "rank", pd.Series(ranks, dtype="Int64"))
    scores = [ranked.scores[label] for label in ranked.labels]
    return replace(table, data=table.data.assign(ranked_by=ranked.name, ranking_score=scores))


def _on_fewer(setting: Setting) -> list[Column]:
    """Balanced accuracies on fewer images, where AutoAttack was made on these alone."""
    if (fewer := setting.fewer) is None:
        return []
    n, score = int(fewer.key["n"]), "balanced_accuracy"
    return [
        Column(f"{attack} bal. (n = {n:,})", attack, score, f"{attack}_{score}_n{n}", fewer)
        for attack in setting.on_fewer
    ]


def balanced_table(setting: Setting, attacks: Sequence[str] | None = None) -> Table:
    """Accuracy and balanced accuracy side by side, for each method and attack (default: all)."""
    wanted = _both(setting.attacks if attacks is None else attacks)
    return _column_table(setting, wanted, "balanced", "Accuracy and balanced accuracy")


GROUP_COLUMNS = {
    "acc.": "accuracy",
    "bal.": "balanced_accuracy",
    "head": "head",
    "medium": "medium",
    "tail": "tail",
    "worst class": "worst_class",
    "gap": "robust_gap",
}


def group_table(setting: Setting) -> Table:
    """Accuracy on head, medium and tail classes and on the worst class, attack by attack."""
    own = own_metrics(setting.rows[0])
    columns = GROUP_COLUMNS | {metric.name: metric.column for metric in own}
    rows, records = _by_attack(setting, setting.attacks, columns)
    caption = f"{setting.protocol}{grouping_note(setting)} gap: head minus tail, in points."
    caption = " ".join([caption, *(metric.meaning for metric in own)])
    return Table(
        "groups",
        "Accuracy by class frequency",
        caption + reading(setting),
        pd.DataFrame(rows),
        [name for name in columns if name != "gap"],  # which gap is best is no contest
        "attack",
        pd.DataFrame(records),
        [metric.name for metric in own if metric.better == "less"],
    )


def error_table(setting: Setting) -> Table | None:
    """Natural and boundary error of each method and attack; None when nothing tells them apart."""
    attacks = [name for name in setting.attacks if name != "clean"]
    parts = ("natural", "boundary", "robust error")
    columns = dict(zip(parts, ("natural_error", "boundary_error", "robust_error"), strict=True))
    rows, records = _by_attack(setting, attacks, columns)
    if not any(row["natural"].known for row in rows):
        return None
    caption = (
        f"{setting.protocol} natural: share of images misclassified without an attack, boundary: "
        "right without it and broken by it; their sum is the robust error, 1 - accuracy. Percent; "
        f"less is better.{spread_note([setting])}{reliability_note((setting, attacks))}"
    )
    title, frame, data = "Natural and boundary error", pd.DataFrame(rows), pd.DataFrame(records)
    return Table("errors", title, caption, frame, section="attack", data=data)


def interval_table(setting: Setting) -> Table | None:
    """95% confidence interval of balanced accuracy; None when no method has exactly one seed."""
    rows: list[Row] = []
    records: list[Row] = []
    for label in (name for name in setting.ranked if len(setting.runs(name)) == 1):
        row = {"method": label, **setting.told(label)}
        for attack in setting.attacks:
            accuracy, balanced = (
                setting.estimate(label, attack, score)
                for score in ("accuracy", "balanced_accuracy")
            )
            sign = sign_of(setting, label, attack) if accuracy.known else ""
            ends = f" [{percent(balanced.low)}, {percent(balanced.high)}]" if accuracy.known else ""
            row[f"{attack} acc."] = percent(accuracy.value) + sign
            row[f"{attack} bal."] = percent(balanced.value) + ends + sign
            if accuracy.known:
                records.append(
                    {
                        "setting": setting.slug,
                        "method": label,
                        **setting.own(label),
                        "seed": setting.seeds(label)[0],
                        "attack": attack,
                        "n": accuracy.n,
                        "accuracy": accuracy.value,
                        "balanced_accuracy": balanced.value,
                        "ci_low": balanced.low,
                        "ci_high": balanced.high,
                    }
                )
        rows.append(row)
    if not rows:
        return None
    caption = f"{setting.protocol} One seed; the interval covers the choice of test images only."
    title = "Balanced accuracy with its 95% confidence interval"
    caption = f"{caption} Percent.{reliability_note((setting, setting.attacks))}"
    frame, data = pd.DataFrame(rows), pd.DataFrame(records)
    return Table("intervals", title, caption, frame, data=data)


def leads_table(setting: Setting) -> Table | None:
    """The best method's leads, with p values as they are and corrected; None without any."""
    rows, records = [], []
    for (attack, contest), leads in setting.leads.items():
        for lead in leads:
            rows.append(
                {
                    "attack": attack,
                    "of": f"{contest} accuracy",
                    "best": lead.best,
                    "other": lead.other,
                    "lead": points(lead.difference),
                    "95%": f"{points(lead.low)} to {points(lead.high)}",
                    "p": _p_value(lead.p),
                    "p (Holm)": _p_value(lead.p_holm),
                    "verdict": lead.verdict.replace("A better", "best leads"),
                }
            )
            told = {"setting": setting.slug, "attack": attack, "group": contest}
            records.append(told | asdict(lead))
    if not rows:
        return None
    caption = (
        f"{setting.protocol} Leads in points with their 95% interval, by which the verdict goes. "
        "p: McNemar's exact test over the same images, Welch's t test over seeds; Holm: corrected "
        "for all methods that the best is set against under one attack, balanced and tail accuracy "
        "apart."
    )
    frame = pd.DataFrame(rows)
    return Table("leads", "Leads of the best", caption, frame, data=pd.DataFrame(records))


def per_class_table(setting: Setting) -> Table:
    """Accuracy of every class, one column a method: clean, the longest PGD, then AutoAttack."""
    classes, attacks = setting.classes, class_attacks(setting.attacks)
    scored = {label for label, _ in classes.scored}
    labels = [name for name in setting.ranked if name in scored]
    rows: list[Row] = []
    records: list[Row] = []
    for attack in attacks:
        if not any((label, attack) in classes.scored for label in labels):
            continue
        signs = {label: sign_of(setting, label, attack) for label in labels}
        lines = {label: classes.line(label, attack) for label in labels}
        for place, fact in enumerate(classes.facts):
            cells = {one: replace(line[place], sign=signs[one]) for one, line in lines.items()}
            rows.append({"attack": attack, "class": fact.name, "n_train": fact.n_train, **cells})
            records += [
                {
                    "setting": setting.slug,
                    "attack": attack,
                    "class_index": fact.index,
                    "class_name": fact.name,
                    "n_train": fact.n_train,
                    "method": label,
                    "n_seeds": cell.n_seeds,
                    **means({"accuracy": cell}),
                }
                for label, cell in cells.items()
                if (label, attack, fact.index) in classes.cells
            ]
    return Table(
        "per-class",
        "Accuracy by class",
        f"{setting.protocol} Classes from most to least frequent." + reading(setting, attacks),
        pd.DataFrame(rows, columns=["attack", "class", "n_train", *labels]),
        labels,
        "attack",
        pd.DataFrame(records),
        by_row=True,
    )


def confusion_table(setting: Setting) -> Table | None:
    """Where the images of the tail classes end up: three most frequent predictions a class."""
    mistakes = setting.mistakes
    if mistakes is None:
        return None
    rows: list[Row] = []
    records: list[Row] = []
    for label, fact, found in tail_predictions(mistakes):
        n = sum(found.values())
        wrong = [f"{c.name} {percent(k / n)}" for c, k in found.items() if c != fact]
        rows.append(
            {
                "method": label + sign_of(setting, label, mistakes.attack),
                "class": fact.name,
                "n_train": fact.n_train,
                "right": found.get(fact, 0) / n,
                **dict(zip(_DESTINATIONS, [*wrong, "-", "-", "-"], strict=False)),
            }
        )
        records += [
            {
                "setting": setting.slug,
                "attack": mistakes.attack,
                "method": label,
                "class_index": fact.index,
                "class_name": fact.name,
                "n_train": fact.n_train,
                "prediction": guess.name,
                "n": n,
                "share": count / n,
            }
            for guess, count in found.items()
        ]
    caption = (
        f"{setting.protocol} Tail classes under {mistakes.attack}: share of a class's images that "
        "are still right, and the classes that most of the others fall into, with their shares."
        f"{grouping_note(setting)} Percent.{reliability_note((setting, [mistakes.attack]))}"
    )
    title = f"Where tail images fall under {mistakes.attack}"
    frame, data = pd.DataFrame(rows), pd.DataFrame(records)
    return Table("confusion", title, caption, frame, section="method", data=data)


def cost_table(setting: Setting, attacks: Sequence[str] | None = None) -> Table | None:
    """Cost of every method; None where nothing was measured.

    Args:
        setting: the results.
        attacks: those whose evaluation is shown; default all.
    """
    found = setting.costs
    times = [{"training": cost.train_seconds, **cost.attack_seconds} for cost in found]
    known = [value.known for own in times for value in own.values()]
    known += [cost.memory_bytes.known or not math.isnan(cost.parameters) for cost in found]
    if not any(known):
        return None
    conditions = list(dict.fromkeys(cost.conditions for cost in found))
    rows: list[Row] = []
    for cost in found:
        told = {one: getattr(cost.conditions, one) or "unknown" for one in _differing(conditions)}
        rows.append({"method": cost.label, **setting.told(cost.label), **told})
    for name in ("training", *(setting.attacks if attacks is None else attacks)):
        longest = max((own[name].value for own in times if own[name].known), default=0.0)
        seconds, unit = next((size, word) for start, size, word in _UNITS if longest >= start)
        for row, own in zip(rows, times, strict=True):
            row[f"{name} ({unit})"] = _quantity(own[name], seconds)
    for row, cost in zip(rows, found, strict=True):
        row["memory (GB)"] = _quantity(cost.memory_bytes, _GIGABYTE)
        row["parameters"] = Quantity(cost.parameters, n_seeds=1, digits=0)
    gaps = any(isinstance(one, Quantity) and not one.known for row in rows for one in row.values())
    missing = " - marks what is not known of every run of the row." if gaps else ""
    caption = f"{setting.protocol}{_measured(conditions)}{missing}{spread_note([setting])}"
    records = [
        {
            "setting": setting.slug,
            "method": cost.label,
            **setting.own(cost.label),
            **asdict(cost.conditions),
            "n_seeds": len(cost.runs),
            "run_ids": ",".join(cost.runs),
            "parameters": cost.parameters,
            **means({"train_seconds": cost.train_seconds, "peak_memory_bytes": cost.memory_bytes}),
            **means({f"{name}_seconds": time for name, time in cost.attack_seconds.items()}),
        }
        for cost in found
    ]
    data = pd.DataFrame(records).astype({"parameters": "Int64"})
    return Table("cost", "Cost of training and evaluation", caption, pd.DataFrame(rows), data=data)


def ratio_table(family: Family) -> Table:
    """Balanced accuracy of each method, one column an imbalance ratio: clean, PGD, AutoAttack."""
    columns, members = family.columns, family.members
    wanted = {attack for member in members for attack in class_attacks(member.attacks)}
    attacks = sorted(wanted, key=attack_order)
    rows: list[Row] = []
    records: list[Row] = []
    for attack in attacks:
        for label in family.ranked:
            own = [member.estimate(label, attack, "balanced_accuracy") for member in members]
            signed = (
                replace(found, sign=sign_of(member, label, attack)) if found.n_seeds else found
                for member, found in zip(members, own, strict=True)
            )
            told = {"attack": attack, "method": label, **family.together.told(label)}
            rows.append(told | dict(zip(columns, signed, strict=True)))
            records += [
                {
                    "setting": member.slug,
                    "attack": attack,
                    "method": label,
                    "imbalance_ratio": member.key["imbalance_ratio"],
                    "n_train": n_train(member),
                    "split_sha256": member.key["split_sha256"],
                    "n": member.key["n"],
                    "n_seeds": found.n_seeds,
                    **means({"balanced_accuracy": found}),
                }
                for member, found in zip(members, own, strict=True)
            ]
    return Table(
        "ratios",
        "Balanced accuracy by imbalance ratio",
        _ratio_caption(family, attacks, rows),
        pd.DataFrame(rows),
        columns,
        "attack",
        pd.DataFrame(records),
    )


def means(scores: Mapping[str, Estimate]) -> dict[str, float]:
    """Mean and deviation of each score, for machines."""
    found: dict[str, float] = {}
    for name, one in scores.items():
        found |= {f"{name}_mean": one.value, f"{name}_std": one.std}
    return found


# rows ---------------------------------------------------------------------------------------------


def _both(attacks: Iterable[str]) -> list[Column]:
    """Accuracy and balanced accuracy of each attack."""
    kinds = (("acc.", "accuracy"), ("bal.", "balanced_accuracy"))
    return [
        Column(f"{attack} {short}", attack, score, f"{attack}_{score}")
        for attack in attacks
        for short, score in kinds
    ]


def _scored(setting: Setting, columns: Sequence[Column]) -> tuple[list[Row], list[Row]]:
    """A row a method, best first, with what rows differ in: as shown, and for machines."""
    rows, records = [], []
    for label in setting.ranked:
        cells = {}
        for one in columns:
            of = one.fewer or setting
            cells[one] = of.estimate(of.label_of(setting, label), one.attack, one.score)
        titled = {one.title: cell for one, cell in cells.items()}
        rows.append({"method": label, **setting.told(label), **titled})
        records.append(
            {
                "setting": setting.slug,
                "method": label,
                **setting.own(label),
                "n_seeds": len(setting.runs(label)),
                **means({one.name: cell for one, cell in cells.items()}),
                **{
                    f"{one.name}_n_seeds": cell.n_seeds
                    for one, cell in cells.items()
                    if one.fewer is not None
                },
            }
        )
    return rows, records


def _by_attack(
    setting: Setting, attacks: Sequence[str], scores: Mapping[str, str]
) -> tuple[list[Row], list[Row]]:
    """The same, attack after attack; `scores` has a score by its title."""
    rows, records = [], []
    for attack in attacks:
        columns = [Column(title, attack, score, score) for title, score in scores.items()]
        for row, record in zip(*_scored(setting, columns), strict=True):
            shown = row["method"] + sign_of(setting, row["method"], attack)
            rows.append({"attack": attack, **row, "method": shown})
            records.append({"setting": setting.slug, "attack": attack, **record})
    return rows, records


def _column_table(
    setting: Setting, columns: Sequence[Column], name: str, title: str, note: str = ""
) -> Table:
    """A table with a column a score; marked are those in doubt, and within noise of the best."""
    rows, records = _scored(setting, columns)
    for row in rows:
        for one in columns:
            of = one.fewer or setting
            sign = score_signs(of, of.label_of(setting, row["method"]), one.attack, one.score)
            row[one.title] = replace(row[one.title], sign=sign)
    contested = [one for one in columns if one.score in CONTESTS and one.fewer is None]
    attacks, contests = {c.attack for c in contested}, {CONTESTS[c.score] for c in contested}
    shown = list(dict.fromkeys(one.attack for one in columns if one.fewer is None))
    fewer = next((one.fewer for one in columns if one.fewer is not None), None)
    contested_on_fewer = [] if fewer is None else [(fewer, setting.on_fewer, ["balanced"])]
    caption = (
        f"{setting.protocol} acc.: mean over images, bal.: mean over classes.{note}"
        f"{reading(setting, shown, fewer)}"
        f"{near_best((setting, attacks, contests), *contested_on_fewer)}"
    )
    frame, data = pd.DataFrame(rows), pd.DataFrame(records)
    return Table(name, title, caption, frame, [one.title for one in columns], data=data)


def _p_value(p: float) -> str:
    """A p value to three decimals, very small ones as such."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


# captions of cost and ratios ----------------------------------------------------------------------


def _quantity(found: Estimate, unit: float) -> Quantity:
    return Quantity(found.value / unit, std=found.std / unit, n_seeds=found.n_seeds)


def _differing(conditions: Sequence[Conditions]) -> list[str]:
    """In which of device, threads and commit the rows of a table differ."""
    names = [field.name for field in fields(Conditions)]
    return [name for name in names if len({getattr(one, name) for one in conditions}) > 1]


def _measured(conditions: Sequence[Conditions]) -> str:
    differing = _differing(conditions)
    shared = str(replace(conditions[0], **dict.fromkeys((*differing, "clock"), "")))
    on = "with" if "device" in differing else "on"
    where = f" Measured {on} {shared}." if shared else ""
    if differing:
        where += (
            f" Each row holds one {' and '.join(differing)}: only rows that agree in these can be "
            "compared, and they are never averaged."
        )
    clock = conditions[0].clock
    time = "CPU time, all threads together," if clock == CPU else "Wall time"
    return (
        f"{where} {time} of the training, and of each attack on all test "
        f"images.{BUSY if clock == WALL else ''} Peak memory: of the allocator on CUDA, else of "
        "the whole process, earlier runs of it included."
    )


def _ratio_caption(family: Family, attacks: Sequence[str], rows: Sequence[Row]) -> str:
    members = family.members
    ratios = ", ".join(
        f"{member.key['imbalance_ratio']:g} ({training_images(member)})" for member in members
    )
    test_set = "; ".join(dict.fromkeys(test_images(member) for member in members))
    kind = str(members[0].key["imbalance_type"])
    gaps = any(isinstance(c, Estimate) and not c.known for row in rows for c in row.values())
    told = setting_words(members, f"{kind} imbalance ratios {ratios}".strip(), test_set)
    return (
        f"{told} Mean over classes. Methods in their order at ratio "
        f"{members[-1].key['imbalance_ratio']:g}. Percent; "
        f"best of a column bold, second underlined.{spread_note(members)}{gaps_note(gaps)}"
        f"{reliability_note((family.together, attacks))}"
    )
