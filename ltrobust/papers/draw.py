"""An entry's figure, ours beside the published values: which kind it is, and the kinds with bars.

Functions of frames that return matplotlib Figures on their own canvas; `curves.py` holds the kinds
with lines and points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ltrobust.papers.entries import PUBLISHED, class_metric
from ltrobust.report.groups import attack_order
from ltrobust.report.labels import category_ticks, legend_below, legend_height
from ltrobust.report.style import (
    BAR_COLOUR,
    PERCENT,
    WIDTH,
    Mark,
    in_style,
    marks_for,
    new_figure,
    short,
)

PUBLISHED_ONLY = "#8C8C8C"
HATCH = "////"
NOTE_LINE = 0.15


@in_style
def bars_figure(frame: pd.DataFrame, note: str = "") -> Figure:
    """Accuracy under each attack: ours solid, published hatched, 95% intervals on ours.

    Args:
        frame: from `compare.compare`; rows of accuracy over images are drawn. Values of a second
            published series are diamonds over the bars of the first.
        note: written above the figure; "" for none.
    """
    rows = frame[frame["metric"] == "accuracy"]
    attacks = sorted(rows["attack"].unique(), key=attack_order)
    labels = list(dict.fromkeys(rows["label"]))
    marks = published_marks(rows)
    handles, names = _bar_legend(rows, labels, marks)
    figure = new_figure(2.5 + legend_height(names, WIDTH) + note_height(note))
    axes = figure.subplots()
    _paired_bars(axes, rows, "attack", attacks, labels, marks)
    category_ticks(axes, attacks, WIDTH - 0.7)
    axes.set_ylabel("accuracy (%)")
    finish(figure, handles, names, note)
    return figure


@in_style
def tail_figure(frame: pd.DataFrame, classes: Sequence[str], note: str = "") -> Figure:
    """Accuracy of some classes, clean and under PGD-20: ours solid, published hatched.

    Args:
        frame: from `compare.compare`.
        classes: their names, in order.
        note: written above the figure; "" for none.
    """
    metrics = [class_metric((name,)) for name in classes]
    rows = frame[frame["metric"].isin(metrics)]
    labels = list(dict.fromkeys(rows["label"]))
    marks = published_marks(rows)
    handles, names = _bar_legend(rows, labels, marks)
    figure = new_figure(3.8 + legend_height(names, WIDTH) + note_height(note))
    panels = figure.subplots(2, 1, sharex=True)
    for axes, attack, title in zip(panels, ("clean", "pgd20"), ("clean", "PGD-20"), strict=True):
        own = rows[rows["attack"] == attack]
        _paired_bars(axes, own, "metric", metrics, labels, marks)
        axes.set_title(title, pad=3)
        axes.set_ylabel("accuracy (%)")
    category_ticks(panels[1], classes, WIDTH - 0.7)
    panels[0].tick_params(axis="x", length=0)
    finish(figure, handles, names, note)
    return figure


@in_style
def class_figure(
    frame: pd.DataFrame, classes: Sequence[str], counts: Sequence[int], note: str = ""
) -> Figure:
    """Accuracy of every class over class frequencies, clean and PGD-20: ours, then published.

    Args:
        frame: from `compare.compare`.
        classes: names, most frequent first.
        counts: training images of each.
        note: written above the figure; "" for none.
    """
    metrics = [class_metric((name,)) for name in classes]
    rows = frame[frame["metric"].isin(metrics) & (frame["method"] != "")]
    labels = list(dict.fromkeys(rows["label"]))
    marks = published_marks(rows)
    names = [f"{label}, {attack}" for label in labels for attack in ("clean", "PGD-20")]
    figure = new_figure(3.0 + legend_height([*names, FREQUENCY], WIDTH) + note_height(note))
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column, title in zip(
        panels, ("ours", "published"), ("ours", "published"), strict=True
    ):
        share = [100 * count / max(max(counts, default=1), 1) for count in counts]
        axes.bar(range(len(share)), share, 0.86, color=BAR_COLOUR, zorder=0)
        for label in labels:
            for attack, dash in (("clean", "-"), ("pgd20", "--")):
                own = rows[(rows["label"] == label) & (rows["attack"] == attack)]
                line = own.drop_duplicates("metric").set_index("metric").reindex(metrics)
                axes.errorbar(
                    range(len(metrics)),
                    PERCENT * line[column].to_numpy(float),
                    yerr=interval_bars(line) if column == "ours" else None,
                    color=marks[label].colour,
                    marker=marks[label].marker,
                    markerfacecolor=marks[label].colour if column == "ours" else "white",
                    linestyle=dash,
                    markersize=3.5,
                    elinewidth=0.6,
                )
        axes.set_title(title, pad=3)
        axes.set_ylim(0, 104)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_xticks(range(len(classes)), [short(name, 14) for name in classes])
        axes.tick_params(axis="x", rotation=90, length=2)
    panels[0].set_ylabel("accuracy (%)")
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=marks[label].colour, marker=marks[label].marker, linestyle=dash)
        for label in labels
        for dash in ("-", "--")
    ]
    finish(figure, [*handles, Patch(facecolor=BAR_COLOUR)], [*names, FREQUENCY], note)
    return figure


FREQUENCY = "training images (%)"
"""Of the most frequent class's."""


def published_marks(rows: pd.DataFrame) -> dict[str, Mark]:
    """A mark for each label; methods that are published only are grey."""
    ours = rows[rows["method"] != ""]
    own = marks_for(ours["label"], dict(zip(ours["label"], ours["method"], strict=True)))
    only = marks_for(rows.loc[rows["method"] == "", "label"])
    grey = {
        label: Mark(PUBLISHED_ONLY, mark.marker, mark.dash, mark.hatch)
        for label, mark in only.items()
    }
    return {**grey, **own}


def interval_bars(rows: pd.DataFrame) -> np.ndarray:
    """Lengths of error bars below and above ours, (2, rows), in percent; 0 where there is none."""
    below, above = rows["ours"] - rows["low"], rows["high"] - rows["ours"]
    return PERCENT * np.nan_to_num(np.stack([below, above]).astype(float)).clip(min=0)


def note_height(note: str) -> float:
    """Inches that `finish` needs for a note."""
    return NOTE_LINE * len(note.splitlines())


def finish(
    figure: Figure, handles: Sequence[Line2D | Patch], names: Sequence[str], note: str
) -> None:
    """Put the legend below and the note above."""
    legend_below(figure, handles, names)
    if note:
        figure.suptitle(note, fontsize=7, color="#606060")


def hollow_patch(colour: str) -> Patch:
    """The legend's sign of a published bar."""
    return Patch(facecolor="white", edgecolor=colour, hatch=HATCH, linewidth=0.7)


def _bar_legend(
    rows: pd.DataFrame, labels: Sequence[str], marks: Mapping[str, Mark]
) -> tuple[list[Line2D | Patch], list[str]]:
    own = [label for label in labels if marks[label].colour != PUBLISHED_ONLY]
    only = [label for label in labels if label not in own]
    handles: list[Line2D | Patch] = [Patch(facecolor=marks[label].colour) for label in own]
    names = list(own)
    series = list(dict.fromkeys(rows["series"]))
    handles.append(hollow_patch("#404040"))
    names.append(_series_name(series[0]) if series else PUBLISHED)
    if len(series) > 1:
        handles.append(Line2D([], [], **DIAMOND, linestyle="", markeredgecolor="#404040"))
        names.append(_series_name(series[1]))
    handles += [hollow_patch(marks[label].colour) for label in only]
    return handles, [*names, *(f"{label} (published only)" for label in only)]


def _series_name(title: str) -> str:
    return title if title == PUBLISHED else f"{PUBLISHED}, {title}"


DIAMOND: dict[str, Any] = {"marker": "D", "markersize": 4.0, "markerfacecolor": "white"}


def _paired_bars(
    axes: Axes,
    rows: pd.DataFrame,
    by: str,
    groups: Sequence[str],
    labels: Sequence[str],
    marks: Mapping[str, Mark],
) -> None:
    """For each group and label a solid bar of ours and a hatched one of the published value."""
    first = rows["series"].iloc[0] if len(rows) else ""
    slots = [
        (label, column)
        for label in labels
        for column in ("ours", "published")
        if column == "published" or marks[label].colour != PUBLISHED_ONLY
    ]
    width = 0.84 / max(len(slots), 1)
    for place, (label, column) in enumerate(slots):
        centres = np.arange(len(groups)) + (place - (len(slots) - 1) / 2) * width
        own = rows[rows["label"] == label]
        main = own[own["series"] == first].drop_duplicates(by).set_index(by)
        values = own.drop_duplicates(by).set_index(by) if column == "ours" else main
        values = values.reindex(list(groups))
        heights = PERCENT * values[column].to_numpy(float)
        colour = marks[label].colour
        if column == "ours":
            there = np.isfinite(heights)
            axes.bar(
                centres[there],
                heights[there],
                0.94 * width,
                yerr=interval_bars(values)[:, there],
                color=colour,
                error_kw={"elinewidth": 0.7, "capsize": min(1.5, 18 * width)},
            )
            continue
        axes.bar(
            centres,
            heights,
            0.8 * width,
            facecolor="white",
            edgecolor=colour,
            hatch=HATCH,
            linewidth=0.7,
        )
        other = own[own["series"] != first].drop_duplicates(by).set_index(by).reindex(list(groups))
        more = PERCENT * other["published"].to_numpy(float)
        axes.plot(centres, more, linestyle="", **DIAMOND, markeredgecolor=colour)
    axes.locator_params(axis="y", nbins=6)
