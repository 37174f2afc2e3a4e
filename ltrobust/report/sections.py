"""What stands on the page, as plain values: a section for each group, a row for each method.

All texts are ready to show and none is escaped: that is the template's part. Numbers come from the
group's averages (`readings`) and from the metric rows, never from new averages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ltrobust.report.across import EXTERNAL
from ltrobust.report.aggregate import robust_attack, scores, tail_images
from ltrobust.report.captions import describe
from ltrobust.report.cards import Card, method_card
from ltrobust.report.chart_parts import DARK, Chart, attack_title, duration, method_key
from ltrobust.report.charts import group_charts
from ltrobust.report.class_charts import class_results, method_figure
from ltrobust.report.explain import Advice, advice
from ltrobust.report.groups import Group, format_eps, imbalance
from ltrobust.report.marks import (
    Near,
    flagged_checks,
    grouping_note,
    near_best,
    reliability_note,
    shown_names,
    sign_of,
)
from ltrobust.report.markup import percent
from ltrobust.report.ranking import ranking
from ltrobust.report.readings import Reading, Readings, readings
from ltrobust.report.style import marks_for
from ltrobust.report.tables import CONTESTS

GLYPHS = {"o": "●", "s": "■", "^": "▲", "D": "◆", "v": "▼", "P": "✚", "X": "✖"}
"""The charts' markers as text, for legends."""
SCORE_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced",
    "head": "Head",
    "medium": "Medium",
    "tail": "Tail",
    "worst_class": "Worst class",
    "robust_gap": "Head − tail",
}
FACETS = {
    "dataset": "Data set",
    "imbalance_ratio": "Imbalance ratio",
    "imbalance_type": "Imbalance type",
    "arch": "Architecture",
    "recipe": "Recipe",
}
"""Keys of a group by which the page filters."""


@dataclass(frozen=True)
class Cell:
    """A score as shown.

    Attributes:
        text: percent, or "–".
        sort: the percentage to sort by; "" when missing.
        bar: length of its bar in percent of the longest of the table.
        spread: deviation or interval.
        sign: stands behind the score.
        best: whether none of its column is better.
    """

    text: str
    sort: str
    bar: str = ""
    spread: str = ""
    sign: str = ""
    best: bool = False


@dataclass(frozen=True)
class Column:
    """A score of one attack."""

    attack: str
    score: str

    @property
    def title(self) -> str:
        """What stands above the column, below its attack's name."""
        return SCORE_TITLES[self.score]


@dataclass(frozen=True)
class Row:
    """One method of a group: its line of the leaderboard and everything in its detail."""

    ident: str
    key: str
    label: str
    shown: str
    glyph: str
    colour: str
    dark: str
    rank: int | None
    cells: tuple[Cell, ...]
    seeds: str
    n_seeds: int
    checks: tuple[tuple[str, Advice], ...]
    card: Card | None
    differing: str
    setting: tuple[tuple[str, str], ...]
    attacks: tuple[tuple[str, tuple[Cell, ...]], ...]
    runs: tuple[tuple[tuple[str, str], ...], ...]
    evaluations: tuple[tuple[str, ...], ...]
    figure: str


@dataclass(frozen=True)
class Leader:
    """The best of one score: value, who has it, who is within noise of it, images, seeds.

    `n` counts the test images that the score is over; None where that is not known.
    """

    title: str
    value: str
    spread: str
    names: str
    near: str
    n: int | None
    seeds: int


@dataclass(frozen=True)
class Section:
    """A leaderboard of comparable results with its charts."""

    ident: str
    slug: str
    title: str
    protocol: str
    notes: tuple[str, ...]
    facets: Mapping[str, str]
    n: int
    ranked_by: str
    columns: tuple[tuple[str, tuple[Column, ...]], ...]
    rows: tuple[Row, ...]
    leaders: tuple[Leader, ...]
    checks: tuple[tuple[str, Advice], ...]
    charts: tuple[Chart, ...]
    figures: Mapping[str, Any]


def build_section(
    place: int,
    group: Group,
    per_class: pd.DataFrame,
    histories: Mapping[str, pd.DataFrame],
    comparisons: pd.DataFrame | None,
) -> Section:
    """Put one group of comparable results into words and figures.

    Args:
        place: number of the section on the page, from 0.
        group: the results.
        per_class: rows of per_class.csv; may be empty.
        histories: run id to its history.csv; runs may be missing.
        comparisons: rows of comparisons.csv; without them nothing is marked as within noise.
    """
    found, classes = readings(group), class_results(group, per_class)
    columns = _columns(group)
    flat = [column for _, block in columns for column in block]
    contested = {column.attack for column in flat}
    near = near_best(group, comparisons, contested, CONTESTS.values())
    flagged = {name for names in flagged_checks(group).values() for name in names}
    charts = group_charts(group, found, classes, histories)
    drawn = {label: method_figure(group, classes, label) for label in group.labels}
    return Section(
        ident=f"setting-{place + 1}",
        slug=group.slug,
        title=_title(group),
        protocol=describe(group),
        notes=tuple(_notes(group, near)),
        facets={name: _facet(group.key[name]) for name in FACETS},
        n=int(group.key["n"]),
        ranked_by=ranking(scores(group)).basis,
        columns=columns,
        rows=tuple(_rows(place, group, found, flat, near, set(_known(drawn)))),
        leaders=tuple(_leaders(group, found, near, per_class)),
        checks=tuple((name, advice(name)) for name in sorted(flagged)),
        charts=tuple(charts),
        figures={
            **{
                f"s{place}-{chart.name}-{number}": view.figure
                for chart in charts
                for number, view in enumerate(chart.views)
            },
            **{_figure_name(place, group, label): drawn[label] for label in _known(drawn)},
        },
    )


def _known(drawn: Mapping[str, Any]) -> list[str]:
    return [label for label, figure in drawn.items() if figure is not None]


def _figure_name(place: int, group: Group, label: str) -> str:
    return f"s{place}-{method_key(group, label)}"


def _title(group: Group) -> str:
    key = group.key
    eps = f", eps {format_eps(key['eps'])}" if key["eps"] > 0 else ""
    if group.differing:
        across = ", ".join(name.replace("_", " ") for name in group.differing)
        return f"{key['dataset']}, {imbalance(key)}{eps}, across {across}"
    return f"{key['dataset']}, {imbalance(key)}, {key['arch']}, {key['recipe']} recipe{eps}"


def _facet(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _notes(group: Group, near: Near) -> list[str]:
    several = any(len(group.runs(label)) > 1 for label in group.labels)
    spread = (
        "± is the sample standard deviation over seeds; "
        if several
        else "Below each score its 95% interval over the choice of test images, not of seeds; "
    )
    notes = [
        f"Percent. {spread}bold is the best of a column, – a score that not every seed has. "
        "Bars are drawn on one scale for the whole table.",
        ranking(scores(group)).sentence,
        grouping_note(group).strip(),
        near.sentence.strip(),
        reliability_note(group, group.attacks).strip(),
    ]
    return [note for note in notes if note]


def _columns(group: Group) -> tuple[tuple[str, tuple[Column, ...]], ...]:
    """Clean, PGD-20 (else the longest PGD) and the strongest attack, the last with tail scores."""
    strongest = robust_attack(scores(group))
    pgd = [name for name in group.attacks if name.startswith("pgd")]
    pgd = ["pgd20"] if "pgd20" in pgd else pgd[-1:]
    shown = [name for name in group.attacks if name in {"clean", *pgd, strongest}]
    blocks = []
    for attack in shown:
        names = ["accuracy", "balanced_accuracy"]
        if attack == (strongest or "clean"):
            names += ["tail", "worst_class"]
        blocks.append((attack_title(attack), tuple(Column(attack, name) for name in names)))
    return tuple(blocks)


def _rows(
    place: int,
    group: Group,
    found: Readings,
    columns: list[Column],
    near: Near,
    drawn: set[str],
) -> Iterable[Row]:
    flagged, marks = flagged_checks(group), marks_for(group.labels)
    ranked = ranking(scores(group))
    idents: set[str] = set()
    for label in ranked.labels:
        mine = group.rows[group.rows["label"] == label]
        mark = marks[label]
        yield Row(
            ident=_ident(place, label, idents),
            key=method_key(group, label),
            label=label,
            shown=label,
            glyph=GLYPHS[mark.marker],
            colour=mark.colour,
            dark=DARK[mark.colour],
            rank=ranked.ranks[label],
            cells=tuple(_cells(group, found, columns, near, label)),
            seeds=", ".join(map(str, group.seeds(label))),
            n_seeds=len(group.seeds(label)),
            checks=tuple((name, advice(name)) for name in flagged[label]),
            # a foreign checkpoint is named after its file, which may be called like a method
            card=None
            if mine["recipe"].iloc[0] == EXTERNAL
            else method_card(mine["method"].iloc[0]),
            differing=", ".join(f"{name} {text}" for name, text in group.told(label).items()),
            setting=tuple(_setting(mine.iloc[0])),
            attacks=tuple(_attack_lines(group, found, label)),
            runs=tuple(_runs(mine)),
            evaluations=tuple(_evaluations(mine)),
            figure=_figure_name(place, group, label) if label in drawn else "",
        )


def _ident(place: int, label: str, taken: set[str]) -> str:
    """A name for links: readable, safe, and no other row's."""
    words = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "method"
    base = f"{words}-{place + 1}" if place else words
    ident = next(
        name
        for name in (f"method-{base}{'' if turn == 0 else f'.{turn}'}" for turn in range(10**6))
        if name not in taken
    )
    taken.add(ident)
    return ident


def _cells(
    group: Group, found: Readings, columns: list[Column], near: Near, label: str
) -> Iterable[Cell]:
    wanted = {(column.attack, column.score) for column in columns}
    scale = max(
        (r.mean for (_, *cell), r in found.items() if r.known and tuple(cell) in wanted),
        default=0.0,
    )
    for column in columns:
        reading = found[label, column.attack, column.score]
        rivals = [found[other, column.attack, column.score] for other in group.labels]
        best = max((rival.mean for rival in rivals if rival.known), default=0.0)
        contest = CONTESTS.get(column.score)
        sign = sign_of(group, label, column.attack)
        sign += near.sign(label, column.attack, contest) if contest else ""
        apart = len({percent(rival.mean) for rival in rivals if rival.known}) > 1
        leads = percent(reading.mean) == percent(best) and apart
        if not reading.known:
            yield _cell(reading)
            continue
        bar = f"{100 * reading.mean / scale:.1f}" if scale > 0 else "0"
        yield replace(_cell(reading), sign=sign, best=leads, bar=bar)


def _cell(reading: Reading) -> Cell:
    if not reading.known:
        return Cell("–", "")
    return Cell(percent(reading.mean), f"{100 * reading.mean:.6f}", spread=reading.spread)


def _signed(group: Group, found: Readings, label: str, attack: str, score: str) -> Cell:
    cell = _cell(found[label, attack, score])
    return replace(cell, sign=sign_of(group, label, attack) if cell.sort else "")


def _attack_lines(
    group: Group, found: Readings, label: str
) -> Iterable[tuple[str, tuple[Cell, ...]]]:
    for attack in group.attacks:
        yield (
            attack_title(attack),
            tuple(_signed(group, found, label, attack, score) for score in SCORE_TITLES),
        )


def _leaders(
    group: Group, found: Readings, near: Near, per_class: pd.DataFrame
) -> Iterable[Leader]:
    tails = tail_images(per_class)
    strongest = robust_attack(scores(group))
    wanted = [("Balanced accuracy, clean", "clean", "balanced_accuracy")]
    if strongest is not None:
        name = attack_title(strongest)
        wanted += [
            (f"Balanced accuracy, {name}", strongest, "balanced_accuracy"),
            (f"Tail accuracy, {name}", strongest, "tail"),
        ]
    for title, attack, score in wanted:
        known = {
            label: found[label, attack, score]
            for label in group.labels
            if attack in group.attacks and found[label, attack, score].known
        }
        if len(known) < 2:
            continue
        shown = shown_names(group, [attack])
        best = max(reading.mean for reading in known.values())
        winners = [label for label, r in known.items() if percent(r.mean) == percent(best)]
        close = [
            label
            for label in known
            if label not in winners and near.sign(label, attack, CONTESTS[score])
        ]
        yield Leader(
            title,
            percent(best),
            known[winners[0]].spread if len(winners) == 1 else "",
            ", ".join(shown[label] for label in winners),
            ", ".join(shown[label] for label in close),
            int(group.key["n"]) if score != "tail" else _tail_n(group, attack, winners[0], tails),
            min(known[label].n_seeds for label in winners),
        )


def _tail_n(
    group: Group, attack: str, label: str, tails: Mapping[tuple[str, str], int]
) -> int | None:
    rows = group.rows[(group.rows["label"] == label) & (group.rows["attack"] == attack)]
    first = rows.iloc[0]
    return tails.get((str(first["run_id"]), str(first["attack_id"])))


def _setting(key: pd.Series) -> Iterable[tuple[str, str]]:
    """How a row's runs were trained, from any of its metric rows."""
    train_eps = float(key["train_eps"])
    changes = str(key["recipe_changes"]).replace(";", ", ")
    yield "Recipe", str(key["recipe"]) + (f" with {changes}" if changes else "")
    yield "Architecture", str(key["arch"])
    yield "Epochs", str(key["epochs"])
    if key["batch_size"]:
        yield "Batch size", str(key["batch_size"])
    if train_eps > 0:
        yield "Radius of the training attack", format_eps(train_eps)
    yield "Augmentation beyond crop and flip", str(key["augment"])
    yield "Epoch reported", str(key["select"])
    yield "Precision of the training", str(key["precision"])


_RUN_FACTS = {
    "Run": "run_id",
    "Seed": "seed",
    "Checkpoint": "checkpoint",
    "Split seed": "split_seed",
    "Split SHA-256": "split_sha256",
    "Git commit": "git_commit",
    "torch": "torch",
    "ltrobust": "ltrobust",
    "Device": "device",
}


def _runs(rows: pd.DataFrame) -> Iterable[tuple[tuple[str, str], ...]]:
    once = rows.sort_values(["seed", "run_id"]).drop_duplicates("run_id").to_dict("records")
    for row in once:
        facts = [(title, _text(row.get(name))) for title, name in _RUN_FACTS.items()]
        for title, name in (
            ("Threads", "threads"),
            ("Training time", "train_seconds"),
            ("Parameters", "parameters"),
        ):
            value = row.get(name)
            if value is not None and not pd.isna(value):
                text = duration(float(value)) if name == "train_seconds" else f"{int(value):,}"
                facts.append((title, text))
        memory = row.get("peak_memory_bytes")
        if memory is not None and not pd.isna(memory):
            facts.append(("Peak memory", f"{float(memory) / 2**20:,.0f} MiB"))
        yield tuple(facts)


def _evaluations(rows: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    """Run, attack, library, settings, attack id, time and device of every evaluation."""
    for row in rows.to_dict("records"):
        seconds, where = row.get("seconds"), row.get("attack_device")
        yield (
            _text(row["run_id"]),
            attack_title(str(row["attack"])),
            _text(row["attack_library"]),
            _settings(row["attack_settings"]),
            _text(row.get("attack_id")),
            _text(None) if seconds is None or pd.isna(seconds) else duration(float(seconds)),
            _text(where if isinstance(where, str) and where else row.get("device")),
        )


def _settings(text: object) -> str:
    """An attack's settings as "name value" pairs; what is no JSON object stays as it is."""
    if not isinstance(text, str):
        return _text(None)
    try:
        settings = json.loads(text)
    except json.JSONDecodeError:
        return text
    if not isinstance(settings, dict):
        return text
    return ", ".join(f"{name} {_setting_value(name, value)}" for name, value in settings.items())


def _setting_value(name: str, value: object) -> str:
    if isinstance(value, float) and name in ("eps", "step_size"):
        return format_eps(value)
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def _text(value: object) -> str:
    missing = value is None or value == "" or (isinstance(value, float) and pd.isna(value))
    return "not recorded" if missing else str(value)
