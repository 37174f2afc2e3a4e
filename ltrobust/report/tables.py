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

from ltrobust.report.captions import reading, setting_words, spread_note, test_images
from ltrobust.report.confusion import confused_shares, destinations
from ltrobust.report.cost import Conditions, Cost
from ltrobust.report.estimate import Estimate, percent
from ltrobust.report.groups import attack_order
from ltrobust.report.marks import (
    grouping_note,
    near_best,
    near_sign,
    reliability_note,
    sign_of,
)
from ltrobust.report.markup import Cell, Quantity, Table, by_column, by_row, by_section
from ltrobust.report.ranking import class_attacks
from ltrobust.report.ratios import Family, n_train, training_images
from ltrobust.report.setting import Setting
from ltrobust.results.custom import own_metrics

CONTESTS = {"balanced_accuracy": "balanced", "tail": "tail"}
"""Scores whose distance to the best is marked when it is within noise."""
_UNITS = ((7200.0, 3600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))
"""From so many seconds on, seconds in the unit, its name."""
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Column:
    """A score of one attack and the title of its column."""

    title: str
    attack: str
    score: str


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
    wanted = [*_both(setting.attacks), Column(f"{strongest} tail", strongest, "tail")]
    ranks = [ranked.ranks[label] for label in ranked.labels]
    rows = [
        {"rank": "-" if rank is None else rank, **row}
        for rank, row in zip(ranks, _score_rows(setting, wanted), strict=True)
    ]
    data = _method_data(setting, wanted)
    data.insert(1, "rank", pd.Series(ranks, dtype="Int64"))
    data["ranked_by"] = ranked.name
    data["ranking_score"] = [ranked.scores[label] for label in ranked.labels]
    note = grouping_note(setting)
    return _column_table("leaderboard", "Leaderboard", setting, wanted, rows, data, note)


def balanced_table(setting: Setting, attacks: Sequence[str] | None = None) -> Table:
    """Accuracy and balanced accuracy side by side, for each method and attack (default: all)."""
    wanted = _both(setting.attacks if attacks is None else attacks)
    title = "Accuracy and balanced accuracy"
    rows, data = _score_rows(setting, wanted), _method_data(setting, wanted)
    return _column_table("balanced", title, setting, wanted, rows, data)


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
    own = own_metrics(setting.rows)
    columns = GROUP_COLUMNS | {metric.name: metric.column for metric in own}
    rows, sections = _attack_sections(setting, setting.attacks, columns)
    ranked = [name for name in columns if name != "gap"]  # which gap is best is no contest
    caption = f"{setting.protocol}{grouping_note(setting)} gap: head minus tail, in points."
    caption = " ".join([caption, *(metric.meaning for metric in own)])
    return Table(
        "groups",
        "Accuracy by class frequency",
        caption + reading(setting),
        pd.DataFrame(rows),
        by_section(ranked, sections, len(rows)),
        tuple(sections[1:]),
        data=_attack_data(setting, setting.attacks, list(columns.values())),
        less=frozenset(metric.name for metric in own if metric.better == "less"),
    )


def error_table(setting: Setting) -> Table | None:
    """Natural and boundary error of each method and attack; None when nothing tells them apart."""
    attacks = [name for name in setting.attacks if name != "clean"]
    columns = {"natural": "natural_error", "boundary": "boundary_error", "accuracy": "accuracy"}
    rows, sections = _attack_sections(setting, attacks, columns)
    if not any(row["natural"].known for row in rows):
        return None
    for row in rows:
        kept = row.pop("accuracy")
        row["robust error"] = Estimate(1 - kept.value, std=kept.std, n_seeds=kept.n_seeds)
    caption = (
        f"{setting.protocol} natural: share of images misclassified without an attack, boundary: "
        "right without it and broken by it; their sum is the robust error, 1 - accuracy. Percent; "
        f"less is better.{spread_note([setting])}{reliability_note(setting, attacks)}"
    )
    data = _attack_data(setting, attacks, list(columns.values()))
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


def interval_table(setting: Setting) -> Table | None:
    """95% confidence interval of balanced accuracy; None when no method has exactly one seed."""
    rows: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    signs: dict[Cell, str] = {}
    for label in (name for name in setting.ranked if len(setting.runs(name)) == 1):
        row = {"method": label, **setting.told(label)}
        for attack in setting.attacks:
            cells = setting.cells.get((label, attack))
            sign = sign_of(setting, label, attack) if cells else ""
            signs |= {(len(rows), f"{attack} {score}"): sign for score in ("acc.", "bal.")}
            row[f"{attack} acc."] = percent(float(cells[0]["accuracy"])) if cells else "-"
            row[f"{attack} bal."] = _interval(cells[0]) if cells else "-"
            scored = ("seed", "attack", "n", "accuracy", "balanced_accuracy", "ci_low", "ci_high")
            head = {"setting": setting.slug, "method": label, **setting.own(label)}
            records += [head | {name: cells[0][name] for name in scored}] if cells else []
        rows.append(row)
    if not rows:
        return None
    caption = f"{setting.protocol} One seed; the interval covers the choice of test images only."
    title = "Balanced accuracy with its 95% confidence interval"
    caption = f"{caption} Percent.{reliability_note(setting, setting.attacks)}"
    data = pd.DataFrame(records)
    return Table("intervals", title, caption, pd.DataFrame(rows), signs=signs, data=data)


def leads_table(setting: Setting) -> Table | None:
    """The best method's leads, with p values as they are and corrected; None without any."""
    names = {"balanced": "balanced accuracy", "tail": "tail accuracy"}
    rows = []
    for attack in setting.attacks:
        for contest, title in names.items():
            for lead in setting.leads.get((attack, contest), ()):
                rows.append(
                    {
                        "attack": attack,
                        "of": title,
                        "best": lead.best,
                        "other": lead.other,
                        "lead": _points(lead.difference),
                        "95%": f"{_points(lead.low)} to {_points(lead.high)}",
                        "p": _p_value(lead.p),
                        "p (Holm)": _p_value(lead.p_holm),
                        "verdict": lead.verdict.replace("A better", "best leads"),
                    }
                )
    if not rows:
        return None
    caption = (
        f"{setting.protocol} Leads in points with their 95% interval, by which the verdict goes. "
        "p: McNemar's exact test over the same images, Welch's t test over seeds; Holm: corrected "
        "for all methods that the best is set against under one attack."
    )
    data = [
        {"setting": setting.slug, "attack": attack, "group": contest, **asdict(lead)}
        for (attack, contest), leads in setting.leads.items()
        for lead in leads
    ]
    frame = pd.DataFrame(rows)
    return Table("leads", "Leads of the best", caption, frame, data=pd.DataFrame(data))


def per_class_table(setting: Setting) -> Table:
    """Accuracy of every class, one column a method: clean, the longest PGD, then AutoAttack."""
    classes, attacks = setting.classes, class_attacks(setting.attacks)
    scored = {label for label, _ in classes.scored}
    labels = [name for name in setting.ranked if name in scored]
    rows: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    signs: dict[Cell, str] = {}
    sections = []
    for attack in attacks:
        lines = {
            label: classes.line(label, attack)
            for label in labels
            if (label, attack) in classes.scored
        }
        if not lines:
            continue
        sections.append(len(rows))
        for place, fact in enumerate(classes.facts):
            signs |= {(len(rows), label): sign_of(setting, label, attack) for label in labels}
            head = {"attack": attack, "class": fact.name, "n_train": fact.n_train}
            found = {
                label: lines[label][place] if label in lines else Estimate(math.nan)
                for label in labels
            }
            rows.append({**head, **found})
            records += [
                {
                    "setting": setting.slug,
                    "attack": attack,
                    "class_index": fact.index,
                    "class_name": fact.name,
                    "n_train": fact.n_train,
                    "method": label,
                    "n_seeds": cell.n_seeds,
                    "accuracy_mean": cell.value,
                    "accuracy_std": cell.std,
                }
                for label, cell in found.items()
                if (label, attack, fact.index) in classes.cells
            ]
    return Table(
        "per-class",
        "Accuracy by class",
        f"{setting.protocol} Classes from most to least frequent." + reading(setting, attacks),
        pd.DataFrame(rows, columns=["attack", "class", "n_train", *labels]),
        by_row(labels, range(len(rows))),
        tuple(sections[1:]),
        signs,
        data=pd.DataFrame(records),
    )


def confusion_table(setting: Setting) -> Table | None:
    """Where the images of the tail classes end up: three most frequent predictions a class."""
    mistakes = setting.mistakes
    if mistakes is None:
        return None
    rows: list[dict[str, Any]] = []
    sections = []
    for label in mistakes.counts:
        sections.append(len(rows))
        shown = label + sign_of(setting, label, mistakes.attack)
        rows += [{"method": shown, **row} for row in destinations(mistakes, label)]
    data = confused_shares(mistakes)
    data.insert(0, "setting", setting.slug)
    caption = (
        f"{setting.protocol} Tail classes under {mistakes.attack}: share of a class's images that "
        "are still right, and the classes that most of the others fall into, with their shares."
        f"{grouping_note(setting)} Percent.{reliability_note(setting, [mistakes.attack])}"
    )
    title = f"Where tail images fall under {mistakes.attack}"
    frame = pd.DataFrame(rows)
    return Table("confusion", title, caption, frame, (), tuple(sections[1:]), data=data)


def cost_table(setting: Setting, attacks: Sequence[str] | None = None) -> Table | None:
    """Cost of every method; None where nothing was measured.

    Args:
        setting: the results.
        attacks: those whose evaluation is shown; default all.
    """
    found = setting.costs
    attacks = setting.attacks if attacks is None else attacks
    known = [
        value.known
        for cost in found
        for value in (cost.train_seconds, cost.memory_bytes, *cost.attack_seconds.values())
    ]
    if not any(known) and all(math.isnan(cost.parameters) for cost in found):
        return None
    conditions = list(dict.fromkeys(cost.conditions for cost in found))
    train, unit = _in_units([cost.train_seconds for cost in found])
    rows: list[dict[str, Any]] = [
        {"method": cost.label, **setting.told(cost.label)} for cost in found
    ]
    columns: dict[str, Sequence[Quantity | str]] = {}
    for name in _differing(conditions):
        columns[name] = [getattr(cost.conditions, name) or "unknown" for cost in found]
    columns[f"training ({unit})"] = train
    for attack in attacks:
        times, unit = _in_units([cost.attack_seconds[attack] for cost in found])
        columns[f"{attack} ({unit})"] = times
    columns["memory (GB)"] = [_quantity(cost.memory_bytes, _GIGABYTE) for cost in found]
    columns["parameters"] = [Quantity(cost.parameters, n_seeds=1, digits=0) for cost in found]
    for name, cells in columns.items():
        for row, cell in zip(rows, cells, strict=True):
            row[name] = cell
    caption = f"{setting.protocol}{_measured(conditions)}{_gaps(rows)}{spread_note([setting])}"
    data = _cost_data(setting, found)
    return Table("cost", "Cost of training and evaluation", caption, pd.DataFrame(rows), data=data)


def ratio_table(family: Family) -> Table:
    """Balanced accuracy of each method, one column an imbalance ratio: clean, PGD, AutoAttack."""
    columns, members = family.columns, family.members
    wanted = {attack for member in members for attack in class_attacks(member.attacks)}
    attacks = sorted(wanted, key=attack_order)
    signs: dict[Cell, str] = {}
    rows: list[dict[str, Any]] = []
    records: list[dict[str, Any]] = []
    sections = []
    for attack in attacks:
        sections.append(len(rows))
        for label in family.ranked:
            own = [member.estimate(label, attack, "balanced_accuracy") for member in members]
            for member, column in zip(members, columns, strict=True):
                if label in member.labels and attack in member.attacks:
                    signs[len(rows), column] = sign_of(member, label, attack)
            told = {"attack": attack, "method": label, **family.together.told(label)}
            rows.append(told | dict(zip(columns, own, strict=True)))
            records += [
                {
                    "setting": member.slug,
                    "attack": attack,
                    "method": label,
                    **dict.fromkeys(("imbalance_ratio",), member.key["imbalance_ratio"]),
                    "n_train": n_train(member),
                    "split_sha256": member.key["split_sha256"],
                    "n": member.key["n"],
                    "n_seeds": found.n_seeds,
                    "balanced_accuracy_mean": found.value,
                    "balanced_accuracy_std": found.std,
                }
                for member, found in zip(members, own, strict=True)
            ]
    return Table(
        "ratios",
        "Balanced accuracy by imbalance ratio",
        _ratio_caption(family, attacks, rows),
        pd.DataFrame(rows),
        by_section(columns, sections, len(rows)),
        tuple(sections[1:]),
        signs,
        data=pd.DataFrame(records),
    )


# rows ---------------------------------------------------------------------------------------------


def _both(attacks: Iterable[str]) -> list[Column]:
    """Accuracy and balanced accuracy of each attack."""
    kinds = (("acc.", "accuracy"), ("bal.", "balanced_accuracy"))
    return [
        Column(f"{attack} {short}", attack, score) for attack in attacks for short, score in kinds
    ]


def _score_rows(setting: Setting, wanted: Sequence[Column]) -> list[dict[str, Any]]:
    """One row a method, best first, with what rows differ in."""
    return [
        {
            "method": label,
            **setting.told(label),
            **{one.title: setting.estimate(label, one.attack, one.score) for one in wanted},
        }
        for label in setting.ranked
    ]


def _attack_sections(
    setting: Setting, attacks: Sequence[str], columns: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows of all methods, attack after attack, and the position at which each attack begins."""
    rows: list[dict[str, Any]] = []
    sections = []
    for attack in attacks:
        sections.append(len(rows))
        for row in _score_rows(setting, [Column(n, attack, s) for n, s in columns.items()]):
            shown = row["method"] + sign_of(setting, row["method"], attack)
            rows.append({"attack": attack, **row, "method": shown})
    return rows, sections


def _method_data(setting: Setting, wanted: Sequence[Column]) -> pd.DataFrame:
    """For machines a row a method, best first."""
    rows = []
    for label in setting.ranked:
        row = _head(setting, label)
        for one in wanted:
            found = setting.estimate(label, one.attack, one.score)
            name = f"{one.attack}_{one.score}"
            row |= {f"{name}_mean": found.value, f"{name}_std": found.std}
        rows.append(row)
    return pd.DataFrame(rows)


def _attack_data(setting: Setting, attacks: Sequence[str], names: Sequence[str]) -> pd.DataFrame:
    """For machines a row an attack and method, attack after attack, best method first."""
    rows = []
    for attack in attacks:
        for label in setting.ranked:
            row = {"attack": attack, **_head(setting, label)}
            for name in names:
                found = setting.estimate(label, attack, name)
                row |= {f"{name}_mean": found.value, f"{name}_std": found.std}
            rows.append(row)
    columns = ["setting", "attack", "method", *setting.differing, "n_seeds"]
    scored = [f"{name}_{part}" for name in names for part in ("mean", "std")]
    return pd.DataFrame(rows, columns=[*columns, *scored])


def _head(setting: Setting, label: str) -> dict[str, Any]:
    count = len(setting.runs(label))
    return {"setting": setting.slug, "method": label, **setting.own(label), "n_seeds": count}


def _column_table(
    name: str,
    title: str,
    setting: Setting,
    wanted: Sequence[Column],
    rows: list[dict[str, Any]],
    data: pd.DataFrame,
    note: str = "",
) -> Table:
    """A table with a column a score; marked are those in doubt, and within noise of the best."""
    signs: dict[Cell, str] = {}
    for place, label in enumerate(setting.ranked):
        for one in wanted:
            near = near_sign(setting, label, one.attack, CONTESTS.get(one.score))
            signs[place, one.title] = sign_of(setting, label, one.attack) + near
    contested = [one for one in wanted if one.score in CONTESTS]
    attacks, contests = {c.attack for c in contested}, {CONTESTS[c.score] for c in contested}
    shown = [attack for attack in setting.attacks if any(one.attack == attack for one in wanted)]
    caption = (
        f"{setting.protocol} acc.: mean over images, bal.: mean over classes.{note}"
        f"{reading(setting, shown)}{near_best(setting, attacks, contests)}"
    )
    ranked = by_column([one.title for one in wanted], range(len(rows)))
    return Table(name, title, caption, pd.DataFrame(rows), ranked, signs=signs, data=data)


def _interval(row: Mapping[str, Any]) -> str:
    low, high = percent(float(row["ci_low"])), percent(float(row["ci_high"]))
    return f"{percent(float(row['balanced_accuracy']))} [{low}, {high}]"


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.2f}"


def _p_value(p: float) -> str:
    """A p value to three decimals, very small ones as such."""
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


# cost ---------------------------------------------------------------------------------------------


def _in_units(times: Sequence[Estimate]) -> tuple[list[Quantity], str]:
    """Times in the one unit that fits the longest of them."""
    longest = max((time.value for time in times if time.known), default=0.0)
    seconds, unit = next((size, name) for start, size, name in _UNITS if longest >= start)
    return [_quantity(time, seconds) for time in times], unit


def _quantity(found: Estimate, unit: float) -> Quantity:
    return Quantity(found.value / unit, std=found.std / unit, n_seeds=found.n_seeds)


def _differing(conditions: Sequence[Conditions]) -> list[str]:
    """In which of device, threads and commit the rows of a table differ."""
    names = [field.name for field in fields(Conditions)]
    return [name for name in names if len({getattr(one, name) for one in conditions}) > 1]


def _measured(conditions: Sequence[Conditions]) -> str:
    differing = _differing(conditions)
    shared = str(replace(conditions[0], **dict.fromkeys(differing, "")))
    on = "with" if "device" in differing else "on"
    where = f" Measured {on} {shared}." if shared else ""
    if differing:
        where += (
            f" Each row holds one {' and '.join(differing)}: only rows that agree in these can be "
            "compared, and they are never averaged."
        )
    return (
        f"{where} Wall time of the training, and of each attack on all test images. Peak memory: "
        "of the allocator on CUDA, else of the whole process, earlier runs of it included."
    )


def _gaps(rows: Sequence[dict[str, Any]]) -> str:
    cells = [cell for row in rows for cell in row.values() if isinstance(cell, Quantity)]
    missing = not all(cell.known for cell in cells)
    return " - marks what is not known of every run of the row." if missing else ""


def _cost_data(setting: Setting, found: Sequence[Cost]) -> pd.DataFrame:
    records = []
    for cost in found:
        measured = {
            "train_seconds": cost.train_seconds,
            "peak_memory_bytes": cost.memory_bytes,
            **{f"{attack}_seconds": time for attack, time in cost.attack_seconds.items()},
        }
        record = {
            "setting": setting.slug,
            "method": cost.label,
            **setting.own(cost.label),
            **asdict(cost.conditions),
            "n_seeds": len(cost.runs),
            "run_ids": ",".join(cost.runs),
            "parameters": cost.parameters,
        }
        for name, time in measured.items():
            record |= {f"{name}_mean": time.value, f"{name}_std": time.std}
        records.append(record)
    return pd.DataFrame(records).astype({"parameters": "Int64"})


# by ratio -----------------------------------------------------------------------------------------


def _ratio_caption(family: Family, attacks: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    members = family.members
    ratios = ", ".join(
        f"{member.key['imbalance_ratio']:g} ({training_images(member)})" for member in members
    )
    test_set = "; ".join(dict.fromkeys(test_images(member) for member in members))
    kind = str(members[0].key["imbalance_type"])
    gaps = any(isinstance(c, Estimate) and not c.known for row in rows for c in row.values())
    missing = " - marks a score that not every seed has." if gaps else ""
    told = setting_words(members, f"{kind} imbalance ratios {ratios}".strip(), test_set)
    return (
        f"{told} Mean over classes. Methods in their order at ratio "
        f"{members[-1].key['imbalance_ratio']:g}. Percent; "
        f"best of a column bold, second underlined.{spread_note(members)}{missing}"
        f"{reliability_note(family.together, attacks)}"
    )
