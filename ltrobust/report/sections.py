"""What stands on the page, as plain values: a section for each group, a row for each method.

All texts are ready to show and none is escaped: that is the template's part. Numbers come from the
setting's estimates and from the metric rows, never from new averages.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import pandas as pd

from ltrobust.data import dataset_spec
from ltrobust.errors import UserError
from ltrobust.report.across import EXTERNAL
from ltrobust.report.board import Board
from ltrobust.report.captions import fewer_note
from ltrobust.report.cards import method_card
from ltrobust.report.chart import Chart, Panel
from ltrobust.report.charts import (
    confusion_chart,
    duration,
    method_panel,
    setting_charts,
    shown,
    spanning_charts,
)
from ltrobust.report.estimate import Estimate, percent
from ltrobust.report.explain import advice
from ltrobust.report.groups import Group, format_eps, imbalance
from ltrobust.report.images import example_sheet
from ltrobust.report.marks import grouping_note, near_best, reliability_note, score_signs, sign_of
from ltrobust.report.markup import cell_text
from ltrobust.report.names import (
    attack_title,
    dataset_title,
    field_names,
    method_title,
    writer,
)
from ltrobust.report.screen import DARK, show_panel
from ltrobust.report.setting import CONTESTS, Setting
from ltrobust.report.style import marks_for
from ltrobust.results.custom import own_metrics

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


def score_titles() -> dict[str, str]:
    """The same, and metrics from outside."""
    return SCORE_TITLES | {metric.column: metric.name for metric in own_metrics()}


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
    """A score of one attack.

    Attributes:
        of: whose score it is: the section's setting, or the one beside it on fewer images.
    """

    attack: str
    score: str
    of: Setting

    def estimate(self, setting: Setting, label: str) -> Estimate:
        """The score of a row that the section's setting calls `label`."""
        return self.of.estimate(self.of.label_of(setting, label), self.attack, self.score)

    @property
    def title(self) -> str:
        """What stands above the column, below its attack's name."""
        return score_titles()[self.score]


def build_sections(board: Board) -> list[dict[str, Any]]:
    """Put all settings into words and figures; what spans settings stands with its main one.

    Returns:
        What the template takes: a leaderboard of comparable results with its charts each.
    """
    spanning: dict[str, list[Chart]] = {}
    for home, _, chart in spanning_charts(board.radii, board.families):
        spanning.setdefault(home, []).append(chart)
    return [
        _section(place, setting, spanning.get(setting.slug, ()))
        for place, setting in enumerate(board.settings)
    ]


def _section(place: int, setting: Setting, spanning: Sequence[Chart]) -> dict[str, Any]:
    keys = {label: f"m{number}" for number, label in enumerate(setting.labels)}
    charts = [chart for chart in (*setting_charts(setting), *spanning) if chart.on_screen]
    panels = {label: method_panel(setting, label) for label in setting.labels}
    columns = _columns(setting)
    flat = [column for _, block in columns for column in block]
    flagged = {name for names in setting.checks.values() for name in names}
    dataset = str(setting.key["dataset"])
    write = writer(field_names(setting.labels, setting.shown_attacks, dataset))
    return {
        "ident": f"setting-{place + 1}",
        "slug": setting.slug,
        "title": _title(setting),
        "protocol": write(setting.protocol),
        "notes": [write(note) for note in _notes(setting, {column.attack for column in flat})],
        "facets": {name: facet(setting.key[name]) for name in FACETS},
        "n": int(setting.key["n"]),
        "ranked_by": write(setting.ranking.basis),
        "columns": columns,
        "rows": list(_rows(place, setting, flat, keys)),
        "leaders": list(_leaders(setting)),
        "checks": [(name, advice(name)) for name in sorted(flagged)],
        "charts": charts,
        "figures": {
            **{
                f"s{place}-{chart.name}-{number}": show_panel(panel, keys)
                for chart in charts
                for number, panel in enumerate(chart.panels)
            },
            **{
                f"s{place}-{keys[label]}": show_panel(panel, {}, legend=True)
                for label, panel in panels.items()
                if panel is not None
            },
            **{
                f"s{place}-{keys[label]}-confusion": show_panel(panel, {})
                for label, panel in _confusions(setting).items()
            },
        },
    }


def _confusions(setting: Setting) -> dict[str, Panel]:
    """Label to its heat map of confusions, of the labels that have one."""
    chart = confusion_chart(setting)
    if chart is None or setting.mistakes is None:
        return {}
    return dict(zip(setting.mistakes.counts, chart.panels, strict=True))


def facet(value: object) -> str:
    """A value by which the page filters, as written there."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _title(group: Group) -> str:
    key = group.key
    eps = f", eps {format_eps(key['eps'])}" if key["eps"] > 0 else ""
    if group.differing:
        across = ", ".join(name.replace("_", " ") for name in group.differing)
        return f"{dataset_title(key['dataset'])}, {imbalance(key)}{eps}, across {across}"
    told = f"{imbalance(key)}, {key['arch']}, {key['recipe']} recipe{eps}"
    return f"{dataset_title(key['dataset'])}, {told}"


def _notes(setting: Setting, attacks: Iterable[str]) -> list[str]:
    spread = (
        "± is the sample standard deviation over seeds; "
        if setting.several
        else "Below each score its 95% interval over the choice of test images, not of seeds; "
    )
    fewer = [] if setting.fewer is None else [(setting.fewer, setting.on_fewer)]
    contested = [(setting, list(attacks), list(CONTESTS.values()))]
    contested += [(one, own, ["balanced"]) for one, own in fewer]
    notes = [
        f"Percent. {spread}bold is the best of a column, – a score that not every seed has. "
        "Bars are drawn on one scale for the whole table.",
        setting.ranking.sentence,
        grouping_note(setting).strip(),
        fewer_note(setting).strip(),
        near_best(*contested).strip(),
        reliability_note((setting, setting.attacks), *fewer).strip(),
        *(metric.meaning for metric in own_metrics(setting.rows[0])),
        _terms(str(setting.key["dataset"])),
    ]
    return [note for note in notes if note]


def _terms(dataset: str) -> str:
    """Citation, licence and published checksum of a data set; "" where they are not known."""
    try:
        about = dataset_spec(dataset).about
    except UserError:  # a plugin's that is not loaded
        return ""
    if not about.citation:
        return ""
    checksum = f" Published checksum: {about.checksum}." if about.checksum else ""
    return f"Data: {about.citation}. Licence: {about.licence}.{checksum}"


def _columns(setting: Setting) -> tuple[tuple[str, tuple[Column, ...]], ...]:
    """Clean, PGD-20 (else the longest PGD) and the strongest attack, the last with tail scores."""
    strongest = setting.robust
    pgd = [name for name in setting.attacks if name.startswith("pgd")]
    pgd = ["pgd20"] if "pgd20" in pgd else pgd[-1:]
    blocks = []
    for attack in setting.attacks:
        if attack not in {"clean", *pgd, strongest}:
            continue
        names = ["accuracy", "balanced_accuracy"]
        if attack == (strongest or "clean"):
            names += ["tail", "worst_class", *(metric.column for metric in own_metrics())]
        own = tuple(Column(attack, name, setting) for name in names)
        blocks.append((attack_title(attack), own))
    if (fewer := setting.fewer) is not None:
        for attack in setting.on_fewer:
            title = f"{attack_title(attack)}, n = {int(fewer.key['n']):,}"
            blocks.append((title, (Column(attack, "balanced_accuracy", fewer),)))
    return tuple(blocks)


def _rows(
    place: int, setting: Setting, columns: Sequence[Column], keys: Mapping[str, str]
) -> Iterable[dict[str, Any]]:
    """A row a method: its line of the leaderboard and everything in its detail.

    Args:
        keys: labels' names in the page's markup: safe, and the same in all charts of the setting.
    """
    drawn = {label for label, _ in setting.classes.scored}
    mistaken = set() if setting.mistakes is None else set(setting.mistakes.counts)
    marks, ranks, taken = marks_for(setting.labels), setting.ranking.ranks, Counter[str]()
    best = {
        column: [
            cell.value
            for label in setting.labels
            if (cell := column.estimate(setting, label)).known
        ]
        for column in columns
    }
    for label in setting.ranked:
        mine, mark = setting.records[label], marks[label]
        first = mine[0]
        words = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-") or "method"
        ident = f"method-{words}-{place + 1}" if place else f"method-{words}"
        taken[ident] += 1
        yield {
            # readable, safe, and no other row's
            "ident": ident if taken[ident] == 1 else f"{ident}.{taken[ident] - 1}",
            "key": keys[label],
            "label": label,
            "shown": method_title(label),
            "glyph": GLYPHS[mark.marker],
            "colour": mark.colour,
            "dark": DARK[mark.colour],
            "rank": ranks[label],
            "cells": list(_cells(setting, label, best)),
            "seeds": ", ".join(map(str, setting.seeds(label))),
            "n_seeds": len(setting.seeds(label)),
            "checks": [(name, advice(name)) for name in setting.checks[label]],
            # a foreign checkpoint is named after its file, which may be called like a method
            "card": None if first["recipe"] == EXTERNAL else _card(first["method"]),
            "differing": ", ".join(f"{name} {text}" for name, text in setting.told(label).items()),
            "setting": list(_setting(first)),
            "attacks": list(_attack_lines(setting, label)),
            "runs": list(_runs(mine)),
            "evaluations": list(_evaluations(mine)),
            "figure": f"s{place}-{keys[label]}" if label in drawn else "",
            "confusion": f"s{place}-{keys[label]}-confusion" if label in mistaken else "",
            "images": example_sheet(setting.examples[setting.examples["label"] == label]),
        }


_card = cache(method_card)


def _cells(setting: Setting, label: str, known: Mapping[Column, Sequence[float]]) -> Iterable[Cell]:
    """The row's scores with their signs; `known` has all labels' values of each column."""
    own = {metric.column: metric for metric in own_metrics()}
    bars = [column for column in known if column.score not in own]
    scale = max((value for column in bars for value in known[column]), default=0.0)
    for column, rivals in known.items():
        found = column.estimate(setting, label)
        if not found.known:
            yield _cell(found)
            continue
        metric = own.get(column.score)
        written = percent if metric is None or metric.share else "{:.2f}".format
        best = min(rivals) if metric is not None and metric.better == "less" else max(rivals)
        texts = {written(value) for value in rivals}
        leads = len(texts) > 1 and written(found.value) == written(best)
        theirs = column.of.label_of(setting, label)
        sign = score_signs(column.of, theirs, column.attack, column.score)
        bar = f"{100 * found.value / scale:.1f}" if scale > 0 else "0"
        bar = bar if metric is None else "0"
        yield replace(_cell(found), sign=sign, best=leads, bar=bar)


def _cell(found: Estimate) -> Cell:
    if not found.known:
        return Cell("–", "")
    text = cell_text(replace(found, n_seeds=1))
    return Cell(text, f"{100 * found.value:.6f}", spread=found.spread)


def _attack_lines(setting: Setting, label: str) -> Iterable[tuple[str, tuple[Cell, ...]]]:
    for attack in setting.attacks:
        cells = [_cell(setting.estimate(label, attack, score)) for score in score_titles()]
        sign = sign_of(setting, label, attack)
        signed = tuple(replace(cell, sign=sign if cell.sort else "") for cell in cells)
        yield attack_title(attack), signed


def _leaders(setting: Setting) -> Iterable[dict[str, Any]]:
    """The best of each score: value, who has it, who is within noise of it, images, seeds."""
    strongest = setting.robust
    wanted = [("Balanced accuracy, clean", "clean", "balanced_accuracy")]
    if strongest is not None:
        name = attack_title(strongest)
        wanted += [
            (f"Balanced accuracy, {name}", strongest, "balanced_accuracy"),
            (f"Tail accuracy, {name}", strongest, "tail"),
        ]
    for title, attack, score in wanted:
        cells = {label: setting.estimate(label, attack, score) for label in setting.labels}
        known = {label: cell for label, cell in cells.items() if cell.known}
        if len(known) < 2:
            continue
        best = percent(max(cell.value for cell in known.values()))
        winners = [label for label, cell in known.items() if percent(cell.value) == best]
        noise = setting.within_noise(attack, CONTESTS[score])
        tested = zip(setting.classes.facts, setting.classes.line(winners[0], attack), strict=True)
        images = [cell.n for fact, cell in tested if fact.group == "tail"]
        close = [label for label in known if label not in winners and label in noise]
        yield {
            "title": title,
            "value": best,
            "spread": known[winners[0]].spread if len(winners) == 1 else "",
            "names": ", ".join(shown(setting, label, attack) for label in winners),
            "near": ", ".join(shown(setting, label, attack) for label in close),
            "n": sum(images) if score == "tail" else int(setting.key["n"]),
            "seeds": min(known[label].n_seeds for label in winners),
        }


def _setting(key: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
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
    if not pd.isna(key["settings_tried"]):
        yield "Settings tried", str(key["settings_tried"])
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
_RUN_NUMBERS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("Threads", "threads", "{:.0f}".format),
    ("Training time", "train_seconds", duration),
    ("CPU time of the training", "train_cpu_seconds", duration),
    ("Parameters", "parameters", "{:,.0f}".format),
    ("Peak memory", "peak_memory_bytes", lambda size: f"{size / 2**20:,.0f} MiB"),
)


def _runs(rows: Sequence[Mapping[str, Any]]) -> Iterable[tuple[tuple[str, str], ...]]:
    once = {row["run_id"]: row for row in reversed(rows)}
    for row in sorted(once.values(), key=lambda row: (row["seed"], row["run_id"])):
        facts = [(title, _text(row[name])) for title, name in _RUN_FACTS.items()]
        facts += [(t, w(row[n])) for t, n, w in _RUN_NUMBERS if not pd.isna(row[n])]
        yield tuple(facts)


def _evaluations(rows: Sequence[Mapping[str, Any]]) -> Iterable[tuple[str, ...]]:
    """Run, attack, library, settings, attack id, time and device of every evaluation."""
    for row in rows:
        settings = json.loads(row["attack_settings"]).items()
        yield (
            row["run_id"],
            attack_title(row["attack"]),
            row["attack_library"],
            ", ".join(f"{name} {_setting_value(name, value)}" for name, value in settings),
            row["attack_id"],
            _text(None if pd.isna(row["seconds"]) else duration(row["seconds"])),
            _text(row["attack_device"]),
        )


def _setting_value(name: str, value: object) -> str:
    if isinstance(value, float) and name in ("eps", "step_size"):
        return format_eps(value)
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def _text(value: Any) -> str:
    return "not recorded" if value == "" or pd.isna(value) else str(value)
