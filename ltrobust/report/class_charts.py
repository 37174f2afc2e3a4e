"""Charts of per-class accuracy: lines over bars of training images, classes from most to least.

The averages are those of `aggregate.class_scores`; this module adds what per_class.csv knows of
their precision, and draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ltrobust.report.aggregate import class_attacks, class_scores, robust_attack, scores
from ltrobust.report.chart_parts import (
    DASHES,
    Chart,
    View,
    as_percent,
    attack_title,
    error_bars,
    hover,
    hover_text,
    identity,
    marker,
    new_chart,
    plain,
    quantity,
    ranked_marks,
)
from ltrobust.report.groups import Group
from ltrobust.report.marks import shown_names
from ltrobust.report.readings import Reading
from ltrobust.report.style import BAR_COLOUR, CLEAN_COLOUR, ROBUST_COLOUR, short

NAMED_CLASSES = 20
"""Up to so many classes have their names on the axis, markers and error bars."""


@dataclass(frozen=True)
class ClassTest:
    """Test images of a class; for a single run also the 95% interval of its accuracy."""

    n: int
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ClassResults:
    """Per-class results of a group.

    Attributes:
        frame: from `class_scores`.
        tests: label, attack and class index to the class's test images.
    """

    frame: pd.DataFrame
    tests: Mapping[tuple[str, str, int], ClassTest]

    @property
    def order(self) -> pd.DataFrame:
        """One row a class, most frequent first."""
        return self.frame.drop_duplicates("class_index")

    @property
    def places(self) -> dict[int, int]:
        """Class index to its place on the axis."""
        return {int(index): place for place, index in enumerate(self.order["class_index"])}

    def readings(self, rows: pd.DataFrame) -> list[Reading]:
        """One reading for each of some rows of `frame`."""
        found = []
        for row in rows.to_dict("records"):
            test = self.test(row)
            interval = (test.low, test.high) if test is not None else (None, None)
            low, high = (math.nan if end is None else end for end in interval)
            mean, std = float(row["accuracy_mean"]), float(row["accuracy_std"])
            found.append(Reading(mean, std, int(row["n_seeds"]), low, high))
        return found

    def test(self, row: Mapping[Any, Any]) -> ClassTest | None:
        """The test images behind a row of `frame`, where they are known for sure."""
        return self.tests.get((row["label"], row["attack"], int(row["class_index"])))


def class_results(group: Group, per_class: pd.DataFrame) -> ClassResults:
    """Average per-class accuracies and look up the test images behind them.

    Args:
        group: the results.
        per_class: rows of per_class.csv; may be empty, even without columns.
    """
    if "run_id" not in per_class:
        per_class = pd.DataFrame(columns=["run_id", "attack", "class_index", "n_test"])
    return ClassResults(class_scores(group, per_class), _tests(group, per_class))


def class_chart(group: Group, results: ClassResults) -> Chart | None:
    """All methods' classes under clean images, the longest PGD and the strongest attack.

    Returns:
        The chart, one view an attack, or None without per-class results.
    """
    if results.frame.empty:
        return None
    marks, views = ranked_marks(group), []
    for attack in class_attacks(group.attacks):
        shown = shown_names(group, [attack])
        figure = _class_frame(results)
        for label, mark in marks.items():
            rows = _rows(results, label, attack)
            if rows.empty:
                continue
            figure.add_trace(_line(results, rows, shown[label]))
            figure.data[-1].update(
                line={"color": mark.colour, "dash": DASHES[mark.dash], "width": 2},
                marker=marker(mark, 7),
                **identity(group, label),
            )
        views.append(View(attack_title(attack), figure))
    note = (
        "Classes from most to least frequent; grey bars are training images on the logarithmic "
        "right axis. Lines join classes only to guide the eye."
    )
    return Chart("classes", "Accuracy by class", note, tuple(views))


def method_figure(group: Group, results: ClassResults, label: str) -> go.Figure | None:
    """One method's classes, clean and under the strongest attack; None without results."""
    robust = robust_attack(scores(group))
    drawn = [("clean", CLEAN_COLOUR, "circle"), (robust or "", ROBUST_COLOUR, "square")]
    found = [(_rows(results, label, attack), colour, mark) for attack, colour, mark in drawn]
    if all(rows.empty for rows, *_ in found):
        return None
    figure = _class_frame(results)
    for rows, colour, symbol in found:
        if rows.empty:
            continue
        name = attack_title(str(rows["attack"].iloc[0]))
        figure.add_trace(_line(results, rows, name))
        few = len(results.places) <= NAMED_CLASSES
        figure.data[-1].update(
            line={"color": colour, "width": 2},
            marker={"color": colour, "symbol": symbol, "size": 7},
            error_y=error_bars(results.readings(rows) if few else [], colour),
            showlegend=True,
        )
    figure.update_layout(
        showlegend=True,
        legend={"orientation": "h", "x": 0, "y": 1.02, "xanchor": "left", "yanchor": "bottom"},
        margin={"t": 36},
        height=340,
    )
    return figure


def _rows(results: ClassResults, label: str, attack: str) -> pd.DataFrame:
    frame = results.frame
    return frame[(frame["label"] == label) & (frame["attack"] == attack)]


def _class_frame(results: ClassResults) -> go.Figure:
    """A figure with the bars of training images; lines go over them."""
    order = results.order
    counts = [max(1, int(count)) for count in order["n_train"]]
    few, places = len(order) <= NAMED_CLASSES, list(range(len(order)))
    figure = new_chart("" if few else "classes by training images", "accuracy (%)")
    names = [str(name) for name in order["class_name"]]
    figure.add_trace(
        go.Bar(
            x=places,
            y=[int(count) for count in order["n_train"]],
            yaxis="y2",
            marker={"color": BAR_COLOUR},
            name="training images",
            showlegend=False,
            **hover(
                [
                    hover_text(name, [f"{int(count):,} training images"])
                    for name, count in zip(names, order["n_train"], strict=True)
                ]
            ),
        )
    )
    ticks = {"tickvals": places, "ticktext": [plain(short(name, 14)) for name in names]}
    figure.update_layout(
        bargap=0.16 if few else 0,
        xaxis={"range": [-0.6, len(order) - 0.4], "showgrid": False, **(ticks if few else {})},
        yaxis={
            "range": [0, 104],  # room for the marks at 100
            "overlaying": "y2",
            "tickmode": "array",  # an overlaid axis would take its ticks from the other
            "tickvals": [0, 25, 50, 75, 100],
        },
        yaxis2={
            "side": "right",
            "type": "log",
            "range": [math.log10(min(counts) / 2), math.log10(max(counts) * 1.5)],
            "title": {"text": "training images"},
            "showgrid": False,
            "dtick": 1,
            "automargin": True,
        },
    )
    return figure


def _line(results: ClassResults, rows: pd.DataFrame, name: str) -> go.Scatter:
    places, hovers = results.places, []
    for row, reading in zip(rows.to_dict("records"), results.readings(rows), strict=True):
        test = results.test(row)
        images = f"{int(row['n_train']):,} training images"
        if test is not None:
            images += f", {test.n:,} test images"
        where = f"{plain(row['class_name'])}, {plain(attack_title(row['attack']))}"
        hovers.append(hover_text(name, [f"{where}: {quantity(reading)}", images]))
    return go.Scatter(
        x=[places[int(index)] for index in rows["class_index"]],
        y=[as_percent(value) for value in rows["accuracy_mean"]],
        mode="lines+markers" if len(places) <= NAMED_CLASSES else "lines",
        name=plain(name),
        **hover(hovers),
    )


def _tests(group: Group, per_class: pd.DataFrame) -> dict[tuple[str, str, int], ClassTest]:
    """Look up test images and intervals, where all rows of a label, attack and class agree.

    Evaluations of other test images are told by their `attack_id`. Without it per_class.csv may
    hold several of one run and attack, and intervals of several seeds differ: nothing is told
    where it is not certain.
    """
    labels = dict(zip(group.rows["run_id"], group.rows["label"], strict=True))
    alone = {label for label in group.labels if len(group.runs(label)) == 1}
    seen: dict[tuple[str, str, int], set[ClassTest]] = {}
    for row in _evaluated(group, per_class).to_dict("records"):
        label = labels.get(str(row["run_id"]))
        if label is None:
            continue
        ends = [row.get("ci_low"), row.get("ci_high")] if label in alone else [None, None]
        low, high = (None if end is None or math.isnan(end) else float(end) for end in ends)
        key = (label, str(row["attack"]), int(row["class_index"]))
        seen.setdefault(key, set()).add(ClassTest(int(row["n_test"]), low, high))
    return {key: next(iter(tests)) for key, tests in seen.items() if len(tests) == 1}


def _evaluated(group: Group, per_class: pd.DataFrame) -> pd.DataFrame:
    """Leave out rows of evaluations that another group holds, where attack ids say so."""
    if "attack_id" not in per_class:
        return per_class
    names = ["run_id", "attack", "attack_id"]
    known = group.rows[names].fillna("").astype(str)
    known = known[known["attack_id"] != ""]
    whole = set(known.itertuples(index=False, name=None))
    attacks = {(run, attack) for run, attack, _ in whole}
    rows = per_class[names].fillna("").astype(str).itertuples(index=False, name=None)
    keep = [not row[2] or row in whole or (row[0], row[1]) not in attacks for row in rows]
    return per_class[keep]
