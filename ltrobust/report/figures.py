"""The figures of a report, each a function of a tidy frame from `aggregate.py`.

They return matplotlib Figures on their own canvas and save nothing. A figure without data says so
instead of failing, since a report must come out when an attack was left away.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ltrobust.report.aggregate import (
    ranked_labels,
    records_by_cell,
    robust_attack,
    strongest_attack,
)
from ltrobust.report.groups import attack_order
from ltrobust.report.labels import (
    Point,
    category_ticks,
    count_ticks,
    fit,
    freeze,
    label_points,
    legend_below,
    legend_height,
    thin,
)
from ltrobust.report.marks import FLAG
from ltrobust.report.style import (
    BAR_COLOUR,
    CLEAN_COLOUR,
    PERCENT,
    ROBUST_COLOUR,
    WIDTH,
    Mark,
    empty_figure,
    in_style,
    marks_for,
    new_figure,
    short,
)


@in_style
def per_class_figure(classes: pd.DataFrame, shown: Mapping[str, str] | None = None) -> Figure:
    """Clean and robust accuracy of each class over its number of training images.

    Args:
        classes: from `class_scores`. Robust is AutoAttack, else the longest PGD, else any attack.
        shown: label to label as written; default as it is.

    Returns:
        One panel a label, classes from most to least frequent, accuracy in percent on the left
        axis, training images on the logarithmic right one.
    """
    labels = list(dict.fromkeys(classes["label"]))
    if not labels:
        return empty_figure("no per-class results")
    order = classes.drop_duplicates("class_index")
    shown = shown or {}
    columns = min(len(labels), 2 if len(labels) <= 6 else 3)
    rows = math.ceil(len(labels) / columns)
    room = (WIDTH - 1.2) / columns
    names = [short(str(name), 14) for name in order["class_name"]]
    below = 0.065 * max(map(len, names)) if len(names) <= 20 else 0.2
    figure = new_figure(1.3 * rows + 0.6 + below)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    robust = strongest_attack(sorted(classes["attack"].unique(), key=attack_order))
    for place, (axes, label) in enumerate(zip(panels, labels, strict=False)):
        own = classes[classes["label"] == label]
        _count_bars(axes, order, show_counts=place % columns == columns - 1)
        _class_lines(axes, own, order, robust)
        size = 9 if columns < 3 else 8
        axes.set_title(fit(shown.get(label, label), room, size), pad=3, fontsize=size)
        axes.set_ylabel("accuracy (%)" if place % columns == 0 else "")
        _class_ticks(axes, names, show_names=place + columns >= len(labels))
        # names above an unused panel hang into it and need no room of their own
        axes.xaxis.set_in_layout(place // columns == rows - 1)
    for axes in panels[len(labels) :]:
        axes.set_visible(False)
    legend_below(figure, *_class_legend(robust))
    return figure


@in_style
def balance_figure(scores: pd.DataFrame, shown: Mapping[str, str] | None = None) -> Figure:
    """Balanced accuracy against balanced robustness: over all classes, and over the tail classes.

    Args:
        scores: from `scores`. The robust axis is `robust_attack`.
        shown: label to label as written; default as it is.
    """
    robust = robust_attack(scores)
    if robust is None or "clean" not in set(scores["attack"]):
        return empty_figure("needs clean results and an attack")
    labels = ranked_labels(scores)
    side_by_side = len(labels) <= 6 and max(map(len, labels)) <= 12
    figure = new_figure(2.6) if side_by_side else new_figure(6.6)
    panels = figure.subplots(*((1, 2) if side_by_side else (2, 1)))
    for axes, (title, score) in zip(
        panels, (("all classes", "balanced_accuracy"), ("tail classes", "tail")), strict=True
    ):
        axes.set_title(title)
        axes.set_xlabel("balanced accuracy (%)" if score != "tail" else "tail accuracy (%)")
        axes.set_ylabel(f"under {robust} (%)")
        axes.grid(visible=True, axis="both")
    drawn = [
        _scatter(axes, scores, labels, robust, score)
        for axes, score in zip(panels, ("balanced_accuracy", "tail"), strict=True)
    ]
    freeze(figure)
    for axes, points in zip(panels, drawn, strict=True):
        named = [replace(point, name=(shown or {}).get(point.name, point.name)) for point in points]
        label_points(axes, named)
    return figure


@in_style
def training_figure(
    curves: pd.DataFrame, labels: Sequence[str] = (), shown: Mapping[str, str] | None = None
) -> Figure:
    """Training loss and robust training accuracy by epoch, a band of one deviation over seeds.

    Where epochs were judged (`select` is not `last`), a panel below shows the robust validation
    accuracy over the faint robust training accuracy, so that overfitting is seen: the one falls
    while the other rises. The two are measured on different images, under different attacks, and
    the former as the mean over classes where the images were held out; compare their courses, not
    their heights.

    Args:
        curves: from `training_curves`.
        labels: all labels of the report, so that each keeps its colour when some have no history.
        shown: label to label as written in the legend; default as it is.
    """
    if curves.empty:
        return empty_figure("no training history")
    drawn = set(curves["label"])
    marks = {name: mark for name, mark in marks_for([*labels, *drawn]).items() if name in drawn}
    names = [(shown or {}).get(label, label) for label in marks]
    judged = curves.groupby("label").filter(lambda own: own["val_robust_acc_mean"].notna().any())
    below = 2.2 if len(judged) else 0.0
    figure = new_figure(2.4 + below + legend_height(names, WIDTH))
    panels = figure.subplot_mosaic(
        [["loss", "train"], ["val", "val"]] if below else [["loss", "train"]]
    )
    for axes, column, title, scale in (
        (panels["loss"], "train_loss", "training loss", 1.0),
        (panels["train"], "train_robust_acc", "robust training accuracy (%)", PERCENT),
    ):
        _epochs_axis(axes, title)
        for label, mark in marks.items():
            _curve(axes, curves[curves["label"] == label], column, mark, scale)
    if below:
        _overfitting(panels["val"], judged, marks)
    handles = [Line2D([], [], color=mark.colour, linestyle=mark.dash) for mark in marks.values()]
    legend_below(figure, handles, names)
    return figure


def _epochs_axis(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlabel("epoch")
    axes.locator_params(nbins=5)
    axes.locator_params(axis="x", integer=True)


def _curve(axes: Axes, own: pd.DataFrame, column: str, mark: Mark, scale: float) -> None:
    mean, std = scale * own[f"{column}_mean"], scale * own[f"{column}_std"]
    dot = mark.marker if mean.notna().sum() == 1 else None
    axes.plot(own["epoch"], mean, color=mark.colour, linestyle=mark.dash, marker=dot)
    axes.fill_between(
        own["epoch"], mean - std, mean + std, color=mark.colour, alpha=0.15, linewidth=0
    )


def _overfitting(axes: Axes, judged: pd.DataFrame, marks: Mapping[str, Mark]) -> None:
    """Robust accuracy on validation images, its best epoch marked, over that of the training."""
    _epochs_axis(
        axes,
        "robust accuracy (%): validation, its best epoch marked; training faint\n"
        "(held-out images: mean of classes; test images and training: of images)",
    )
    for label, own in judged.groupby("label", sort=False):
        mark = marks[str(label)]
        train = PERCENT * own["train_robust_acc_mean"]
        axes.plot(own["epoch"], train, color=mark.colour, linewidth=0.9, alpha=0.4)
        _curve(axes, own, "val_robust_acc", mark, PERCENT)
        best = int(own["val_robust_acc_mean"].argmax())
        axes.plot(
            own["epoch"].iloc[best],
            PERCENT * own["val_robust_acc_mean"].iloc[best],
            color=mark.colour,
            marker=mark.marker,
            markersize=6,
            markeredgecolor="white",
        )


@in_style
def attack_figure(
    scores: pd.DataFrame, doubted: Collection[tuple[str, str]] = frozenset()
) -> Figure:
    """Balanced accuracy under each attack, one bar a method, deviation over seeds as error bar.

    Args:
        scores: from `scores`.
        doubted: pairs of label and attack whose bars get a †.
    """
    attacks = [
        name for name in sorted(scores["attack"].unique(), key=attack_order) if name != "clean"
    ]
    if not attacks:
        return empty_figure("no attack was evaluated")
    labels = ranked_labels(scores)
    marks = marks_for(labels)
    figure = new_figure(2.4 + legend_height(labels, WIDTH))
    axes = figure.subplots()
    table = scores.set_index(["label", "attack"])
    width = 0.82 / len(labels)
    for place, label in enumerate(labels):
        own = table.loc[[(label, attack) for attack in attacks]]
        centres = np.arange(len(attacks)) + (place - (len(labels) - 1) / 2) * width
        axes.bar(
            centres,
            PERCENT * own["balanced_accuracy_mean"],
            0.92 * width,
            yerr=_deviation(own["balanced_accuracy_std"]),
            color=marks[label].colour,
            hatch=marks[label].hatch,
            edgecolor="white",
            linewidth=0,
            error_kw={"elinewidth": 0.8, "capsize": min(2.0, 20 * width)},
        )
        for centre, attack in zip(centres, attacks, strict=True):
            if (label, attack) in doubted:
                axes.text(centre, 0, FLAG, ha="center", va="bottom", color="white")
    category_ticks(axes, attacks, WIDTH - 0.7)
    axes.set_ylabel("balanced accuracy (%)")
    axes.locator_params(axis="y", nbins=6)
    handles = [
        Patch(facecolor=marks[name].colour, hatch=marks[name].hatch, edgecolor="white", linewidth=0)
        for name in labels
    ]
    legend_below(figure, handles, labels)
    return figure


def _deviation(values: pd.Series) -> np.ndarray | None:
    """Error bar lengths in percent, or None where every row has one seed."""
    return None if values.isna().all() else PERCENT * values.fillna(0).to_numpy(dtype=float)


def _count_bars(axes: Axes, order: pd.DataFrame, show_counts: bool) -> None:
    counts = order["n_train"].clip(lower=1).to_numpy(dtype=float)
    low, high = counts.min() / 2, counts.max() * 1.5
    right = axes.twinx()
    if len(counts) <= 20:
        right.bar(range(len(counts)), counts - low, 0.86, bottom=low, color=BAR_COLOUR)
    else:
        edges = np.arange(len(counts) + 1) - 0.5
        right.stairs(counts, edges, baseline=low, fill=True, color=BAR_COLOUR, linewidth=0)
    right.set_yscale("log")
    right.set_ylim(low, high)
    right.grid(visible=False)
    right.minorticks_off()
    ticks = count_ticks(low, high) if show_counts else []
    right.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
    right.spines[:].set_visible(False)
    right.tick_params(axis="y", length=0, colors="#707070")
    # the lines belong over the bars, although the bars' axes were made later
    axes.set_zorder(right.get_zorder() + 1)
    axes.patch.set_visible(False)


def _class_lines(axes: Axes, own: pd.DataFrame, order: pd.DataFrame, robust: str | None) -> None:
    for attack, colour, marker in (
        ("clean", CLEAN_COLOUR, "o"),
        (robust, ROBUST_COLOUR, "s"),
    ):
        line = own[own["attack"] == attack].set_index("class_index")
        line = line.reindex(order["class_index"])
        axes.errorbar(
            range(len(line)),
            PERCENT * line["accuracy_mean"].to_numpy(dtype=float),
            yerr=_deviation(line["accuracy_std"]),
            color=colour,
            marker=marker if len(line) <= 20 else None,
            markersize=3,
            linewidth=1.2 if len(line) <= 20 else 0.9,
            elinewidth=0.7,
        )
    axes.set_ylim(0, 104)  # room for the marks at 100
    axes.set_yticks([0, 50, 100])


def _class_ticks(axes: Axes, names: Sequence[str], show_names: bool) -> None:
    axes.set_xlim(-0.6, len(names) - 0.4)
    if len(names) <= 20:
        axes.set_xticks(range(len(names)), names)
        axes.tick_params(axis="x", rotation=90)
    else:
        places = thin(len(names), 5)
        axes.set_xticks(places, [str(place + 1) for place in places])
        axes.set_xlabel("class rank" if show_names else "")
    axes.tick_params(axis="x", labelbottom=show_names, length=2 if show_names else 0)


def _class_legend(robust: str | None) -> tuple[list[Line2D | Patch], list[str]]:
    handles: list[Line2D | Patch] = [Line2D([], [], color=CLEAN_COLOUR, marker="o", markersize=3)]
    names = ["clean"]
    if robust is not None:
        handles.append(Line2D([], [], color=ROBUST_COLOUR, marker="s", markersize=3))
        names.append(robust)
    return [*handles, Patch(facecolor=BAR_COLOUR)], [*names, "training images (right)"]


def draw_point(axes: Axes, point: Point, mark: Mark) -> None:
    """Draw a point with its error bars, if it has any."""
    axes.errorbar(
        point.x,
        point.y,
        xerr=point.xerr or None,
        yerr=point.yerr or None,
        color=mark.colour,
        marker=mark.marker,
        markersize=5,
        elinewidth=0.7,
    )


def _scatter(
    axes: Axes, scores: pd.DataFrame, labels: Sequence[str], robust: str, score: str
) -> list[Point]:
    """Draw one marker a label; return the points drawn (labels with a missing score have none)."""
    cells = records_by_cell(scores)
    marks = marks_for(labels)
    points = []
    for label in labels:
        clean, attacked = cells[label, "clean"], cells[label, robust]
        x, y = PERCENT * clean[f"{score}_mean"], PERCENT * attacked[f"{score}_mean"]
        if math.isnan(x) or math.isnan(y):
            continue
        xerr, yerr = (np.nan_to_num(PERCENT * row[f"{score}_std"]) for row in (clean, attacked))
        points.append(Point(label, float(x), float(y), float(xerr), float(yerr)))
        draw_point(axes, points[-1], marks[label])
    axes.margins(0.18)
    # an automatic number of ticks would follow the layout, and the layout the ticks
    axes.locator_params(nbins=5)
    return points
