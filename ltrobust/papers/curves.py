"""The kinds of an entry's figure with lines and points; see `draw.py`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ltrobust.papers.draw import (
    PUBLISHED_ONLY,
    finish,
    interval_bars,
    note_height,
    published_marks,
)
from ltrobust.papers.entries import class_metric
from ltrobust.report.labels import Point, freeze, label_points, legend_height
from ltrobust.report.marks import FLAG
from ltrobust.report.style import PALETTE, PERCENT, WIDTH, Mark, in_style, marks_for, new_figure

AUTOATTACK = "aa-apgd"
"""What RoBal calls AA: APGD-CE and APGD-T."""
RATIO_ATTACKS = ("clean", "pgd20", AUTOATTACK)


@in_style
def ratio_figure(frame: pd.DataFrame, note: str = "") -> Figure:
    """Accuracy against the imbalance ratio: ours above, published below, one column an attack.

    Args:
        frame: from `compare.compare`; rows of clean, PGD-20 and APGD-CE + APGD-T are drawn.
        note: written above the figure; "" for none.
    """
    rows = frame[frame["metric"] == "accuracy"]
    labels = list(dict.fromkeys(rows["label"]))
    marks = published_marks(rows)
    figure = new_figure(3.6 + legend_height(labels, WIDTH) + note_height(note))
    panels = figure.subplots(2, 3, sharex=True)
    ratios = sorted(rows["ratio"].unique())
    for line, column in enumerate(("ours", "published")):
        for axes, attack in zip(panels[line], RATIO_ATTACKS, strict=True):
            for label in labels:
                own = rows[(rows["label"] == label) & (rows["attack"] == attack)]
                own = own.drop_duplicates("ratio").sort_values("ratio")
                axes.errorbar(
                    [ratios.index(ratio) for ratio in own["ratio"]],
                    PERCENT * own[column].to_numpy(float),
                    yerr=interval_bars(own) if column == "ours" else None,
                    color=marks[label].colour,
                    marker=marks[label].marker,
                    markerfacecolor=marks[label].colour if column == "ours" else "white",
                    linestyle="-" if column == "ours" else "--",
                    elinewidth=0.7,
                )
            axes.set_xticks(range(len(ratios)), [f"{ratio:g}" for ratio in ratios])
            axes.set_xlim(-0.4, len(ratios) - 0.6)
            axes.locator_params(axis="y", nbins=5)
            if line == 0:
                axes.set_title(attack, pad=3)
            else:
                axes.set_xlabel("imbalance ratio")
        panels[line][0].set_ylabel(f"{column} (%)")
    handles = [
        Line2D([], [], color=marks[label].colour, marker=marks[label].marker) for label in labels
    ]
    finish(figure, handles, labels, note)
    return figure


@in_style
def gain_figure(
    gains: pd.DataFrame, baseline: str, note: str = "", flagged: Collection[str] = ()
) -> Figure:
    """Gain under PGD-20 against gain under APGD-CE and APGD-T; on the line nothing is lost.

    Args:
        gains: from `claims.gains`.
        baseline: the method that gains count from.
        note: written above the figure; "" for none.
        flagged: labels whose runs of ours get a †.
    """
    known = gains[gains["kind"] != "published only"]
    marks = marks_for(known["label"], dict(zip(known["label"], known["method"], strict=True)))
    names = ["ours, 95%", "published", "published only"]
    figure = new_figure(6.2 + legend_height(names, WIDTH) + note_height(note))
    panels = figure.subplots(2, 1, height_ratios=(1.5, 1))
    drawn = []
    for axes, mine, title in zip(panels, (False, True), ("published", "ours"), strict=True):
        drawn.append(_gain_points(axes, gains[(gains["kind"] == "ours") == mine], marks, flagged))
        axes.set_title(title, pad=3)
        axes.grid(visible=True, axis="both")
        axes.axhline(0, color="#B0B0B0", linewidth=0.7)
        axes.axvline(0, color="#B0B0B0", linewidth=0.7)
        axes.axline((0, 0), slope=1, color="#B0B0B0", linewidth=0.8, linestyle=":")
        axes.set_ylabel(f"gain under {AUTOATTACK} (points)")
        axes.margins(0.12)
        axes.locator_params(nbins=7)
    panels[1].set_xlabel(f"gain over {baseline} under PGD-20 (points)")
    handles = [
        Line2D([], [], color="#404040", marker="s", linestyle="-"),
        Line2D([], [], color="#404040", marker="s", markerfacecolor="white", linestyle=""),
        Line2D([], [], color=PUBLISHED_ONLY, marker="o", markerfacecolor="white", linestyle=""),
    ]
    finish(figure, handles, names, note)
    freeze(figure)
    for axes, points in zip(panels, drawn, strict=True):
        label_points(axes, points, size=7)
    return figure


def _gain_points(
    axes: Axes, gains: pd.DataFrame, marks: Mapping[str, Mark], flagged: Collection[str]
) -> list[Point]:
    """Draw the points of one panel; return them to be named."""
    points = []
    for row in gains.to_dict("records"):
        x, y = PERCENT * float(row["pgd"]), PERCENT * float(row["aa"])
        mine, only = row["kind"] == "ours", row["kind"] == "published only"
        colour = PUBLISHED_ONLY if only else marks[row["label"]].colour
        half = (0.0, 0.0)
        if mine:
            width, height = (row[f"{axis}_high"] - row[f"{axis}_low"] for axis in ("pgd", "aa"))
            half = (PERCENT * width / 2, PERCENT * height / 2)
            axes.errorbar(
                x,
                y,
                xerr=[[x - PERCENT * row["pgd_low"]], [PERCENT * row["pgd_high"] - x]],
                yerr=[[y - PERCENT * row["aa_low"]], [PERCENT * row["aa_high"] - y]],
                color=colour,
                elinewidth=0.6,
            )
        axes.plot(
            x,
            y,
            linestyle="",
            marker="o" if only else marks[row["label"]].marker,
            color=colour,
            markerfacecolor=colour if mine else "white",
            markersize=5,
        )
        sign = FLAG if mine and row["label"] in flagged else ""
        points.append(Point(str(row["label"]).removeprefix("PGD-AT ") + sign, x, y, *half))
    return points


@in_style
def overfitting_figure(
    history: pd.DataFrame, frame: pd.DataFrame, chosen: int | None, note: str = ""
) -> Figure:
    """Robust accuracy by epoch, and best against last epoch on the test set.

    The held-out curve is the mean over classes, by which the epoch is chosen; all else is the share
    of images, and the legend says so. Published points are not joined: the two may have been
    measured in different ways.

    Args:
        history: of a run with `select: best`, as in history.csv; may be empty.
        frame: from `compare.compare`; PGD-20 rows of the series "best epoch" and "last epoch".
            Labels that end in † mark ours.
        chosen: the epoch that the held-out images choose.
        note: written above the figure; "" for none.
    """
    sign = FLAG if frame["label"].str.endswith(FLAG).any() else ""
    names = [
        "training, PGD, all images",
        "held out, PGD-10, mean of classes",
        f"test, PGD-20 (ours{sign})",
        "test, PGD-20 (published)",
    ]
    figure = new_figure(2.5 + 0.44 + note_height(note))
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    for column, colour, dash in (
        ("train_robust_acc", PALETTE[0], "--"),
        ("val_robust_acc", PALETTE[1], "-"),
    ):
        if column in history:
            robust = PERCENT * history[column].to_numpy(float)
            left.plot(history["epoch"], robust, color=colour, linestyle=dash)
    if chosen is not None and "val_robust_acc" in history:
        best = history[history["epoch"] == chosen]
        left.plot(chosen, PERCENT * best["val_robust_acc"], marker="o", color=PALETTE[1])
    left.set_title("ours, by epoch", pad=3)
    left.set_xlabel("epoch")
    left.set_ylabel("robust accuracy (%)")
    left.locator_params(nbins=6, integer=True)
    _best_and_last(right, frame)
    handles = [
        Line2D([], [], color=PALETTE[0], linestyle="--"),
        Line2D([], [], color=PALETTE[1]),
        Line2D([], [], color=PALETTE[2], marker="s"),
        Line2D([], [], color=PALETTE[2], marker="s", markerfacecolor="white", linestyle=""),
    ]
    # names that tell what is measured must not be cut, as the usual legend does
    figure.legend(handles, names, loc="outside lower center", ncols=2, columnspacing=1.2)
    finish(figure, (), (), note)
    return figure


def _best_and_last(axes: Axes, frame: pd.DataFrame) -> None:
    rows = frame[(frame["attack"] == "pgd20") & (frame["metric"] == "accuracy")]
    rows = rows.drop_duplicates("series").set_index("series")
    rows = rows.reindex(["best epoch", "last epoch"])
    for column, dash, face in (("ours", "-", PALETTE[2]), ("published", "", "white")):
        axes.errorbar(
            [0, 1],
            PERCENT * rows[column].to_numpy(float),
            yerr=interval_bars(rows) if column == "ours" else None,
            color=PALETTE[2],
            marker="s",
            markerfacecolor=face,
            linestyle=dash,
            elinewidth=0.7,
        )
    axes.set_title("chosen on the test set", pad=3)
    axes.set_ylabel("robust, all images (%)")
    axes.set_xticks([0, 1], ["best", "last"])
    axes.set_xlabel("epoch")
    axes.set_xlim(-0.4, 1.4)
    axes.locator_params(axis="y", nbins=6)


@in_style
def scatter_figure(frame: pd.DataFrame, classes: Sequence[str], note: str = "") -> Figure:
    """Balanced accuracy against balanced robustness (PGD-20), over all classes and over some.

    Args:
        frame: from `compare.compare`. Points of doubtful values are crosses.
        classes: the classes of the second panel.
        note: written above the figure; "" for none.
    """
    metrics = ("balanced", class_metric(tuple(classes)))
    rows = frame[frame["metric"].isin(metrics)]
    marks = published_marks(rows)
    labels = [label for label in marks if marks[label].colour != PUBLISHED_ONLY]
    names = [*labels, "published", "in doubt"]
    figure = new_figure(2.7 + legend_height(names, WIDTH) + note_height(note))
    panels = figure.subplots(1, 2)
    drawn = []
    titles = ("all classes", f"the {len(classes)} rarest classes")
    for axes, metric, title in zip(panels, metrics, titles, strict=True):
        drawn.append(_scatter(axes, rows[rows["metric"] == metric]))
        axes.set_title(title, pad=3)
        axes.set_xlabel("accuracy, mean of classes (%)")
        axes.grid(visible=True, axis="both")
        axes.margins(0.16)
        axes.locator_params(nbins=5)
    panels[0].set_ylabel("under PGD-20 (%)")
    handles = [
        Line2D([], [], color=marks[label].colour, marker=marks[label].marker, linestyle="")
        for label in labels
    ]
    handles.append(Line2D([], [], color="#404040", marker="o", mfc="white", linestyle=""))
    handles.append(Line2D([], [], color="#404040", marker="x", linestyle=""))
    finish(figure, handles, names, note)
    freeze(figure)
    for axes, points in zip(panels, drawn, strict=True):
        label_points(axes, points, size=7)
    return figure


def _scatter(axes: Axes, rows: pd.DataFrame) -> list[Point]:
    """Draw ours and the published points of one panel; return all, named where needed."""
    marks = published_marks(rows)
    points = []
    for (label, _), own in rows.groupby(["label", "series"], sort=False):
        cells = own.drop_duplicates("attack").set_index("attack").reindex(["clean", "pgd20"])
        mark = marks[str(label)]
        only = mark.colour == PUBLISHED_ONLY
        x, y = (PERCENT * float(value) for value in cells["published"])
        if not (math.isnan(x) or math.isnan(y)):
            doubtful = bool((cells["doubt"].fillna("") != "").any())
            marker = "x" if doubtful else mark.marker
            axes.plot(x, y, marker=marker, color=mark.colour, mfc="white", linestyle="", ms=5)
            points.append(Point(str(label) if only else "", x, y))
        bars = interval_bars(cells)
        x, y = (PERCENT * float(value) for value in cells["ours"])
        if np.isfinite([x, y]).all():
            xerr, yerr = bars[:, :1], bars[:, 1:]
            points.append(Point("", x, y, float(xerr.max()), float(yerr.max())))
            axes.errorbar(
                x,
                y,
                xerr=xerr,
                yerr=yerr,
                color=mark.colour,
                marker=mark.marker,
                markersize=5,
                elinewidth=0.5,
            )
    return points
