"""The charts of entries, ours beside the published values, each described once.

Ours are solid with their 95% intervals, published values hollow; methods that are published only
are grey. Which chart an entry gets is decided in `figures.py`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from ltrobust.papers.entries import PUBLISHED, class_metric
from ltrobust.report.chart import Axis, Chart, Counts, Ends, Panel, Series
from ltrobust.report.charts import names_axis, slot_places
from ltrobust.report.estimate import PERCENT
from ltrobust.report.groups import attack_order
from ltrobust.report.marks import FLAG
from ltrobust.report.names import attack_title, method_title
from ltrobust.report.screen import GREY
from ltrobust.report.style import BAR_COLOUR, PALETTE, Dash, Mark, marks_for

AUTOATTACK = "aa-apgd"
"""What RoBal calls AA: APGD-CE and APGD-T."""
RATIO_ATTACKS = ("clean", "pgd20", AUTOATTACK)
FREQUENCY = "training images (%)"
"""Of the most frequent class's."""
_INK = Mark("#404040", "s")
_DIAMOND = replace(_INK, marker="D")
DASHED: dict[str, Dash] = {"clean": "-", "pgd20": "--"}
"""Lines of the attacks that share a panel."""
_SHARES = tuple((float(share), f"{share}") for share in (0, 25, 50, 75, 100))


def bars_chart(frame: pd.DataFrame) -> Chart:
    """Accuracy under each attack: ours solid, published hatched, 95% intervals on ours.

    Args:
        frame: from `compare.compare`; rows of accuracy over images are drawn. Values of a second
            published series are diamonds over the bars of the first.
    """
    rows = frame[frame["metric"] == "accuracy"]
    attacks = sorted(rows["attack"].unique(), key=attack_order)
    across = names_axis([attack_title(attack) for attack in attacks])
    marks = published_marks(rows)
    bars = _paired_bars(rows, "attack", attacks, marks, marks_in(rows))
    panel = Panel("Accuracy", "", across, Axis("accuracy (%)"), bars)
    more = _bar_legend(rows, marks)
    return Chart("figure", "", "", (panel,), 1, 2.5, more=more, cut=34)


def tail_chart(frame: pd.DataFrame, classes: Sequence[str]) -> Chart:
    """Accuracy of some classes, clean and under PGD-20: ours solid, published hatched.

    Args:
        frame: from `compare.compare`.
        classes: their names, in order.
    """
    metrics = [class_metric((name,)) for name in classes]
    rows = frame[frame["metric"].isin(metrics)]
    marks, panels = published_marks(rows), []
    for attack in ("clean", "pgd20"):
        own = rows[rows["attack"] == attack]
        bars = _paired_bars(own, "metric", metrics, marks, marks_in(rows))
        title = attack_title(attack)
        panels.append(Panel(title, title, names_axis(classes), Axis("accuracy (%)"), bars))
    more = _bar_legend(rows, marks)
    return Chart("figure", "", "", tuple(panels), 1, 1.9, more=more, cut=34)


def class_chart(frame: pd.DataFrame, classes: Sequence[str], counts: Sequence[int]) -> Chart:
    """Accuracy of every class over class frequencies, clean and PGD-20: ours, then published.

    Args:
        frame: from `compare.compare`.
        classes: names, most frequent first.
        counts: training images of each.
    """
    metrics = [class_metric((name,)) for name in classes]
    rows = frame[frame["metric"].isin(metrics) & (frame["method"] != "")]
    marks, most = published_marks(rows), max(max(counts, default=1), 1)
    behind = Counts(tuple(classes), tuple(100 * n / most for n in counts), False, FREQUENCY)
    up, panels = Axis("accuracy (%)", _SHARES, span=(0, 104)), []
    for column in ("ours", "published"):
        lines = []
        for label in marks_in(rows):
            for attack, dash in DASHED.items():
                known = _cells(_under(rows, label, attack), "metric", metrics)
                look = replace(marks[label], dash=dash)
                name = f"{label}, {attack_title(attack).replace('Clean', 'clean')}"
                lines.append(_values(name, look, range(len(metrics)), known, column))
        across = names_axis(classes)
        panels.append(Panel(column.capitalize(), column, across, up, tuple(lines), behind))
    grey = Mark(BAR_COLOUR, "s")
    more = (Series(FREQUENCY, grey, (), (), kind="bars"),)
    return Chart("figure", "", "", tuple(panels), 2, 2.4, more=more)


def ratio_chart(frame: pd.DataFrame) -> Chart:
    """Accuracy against the imbalance ratio: ours above, published below, one column an attack.

    Args:
        frame: from `compare.compare`; rows of clean, PGD-20 and APGD-CE + APGD-T are drawn.
    """
    rows = frame[frame["metric"] == "accuracy"]
    marks = published_marks(rows)
    ratios = sorted(rows["ratio"].unique())
    ticks = tuple((float(place), f"{ratio:g}") for place, ratio in enumerate(ratios))
    panels = []
    for column in ("ours", "published"):
        for attack in RATIO_ATTACKS:
            lines = []
            for label in marks_in(rows):
                own = _under(rows, label, attack)
                known = own.drop_duplicates("ratio").sort_values("ratio")
                dash: Dash = "-" if column == "ours" else "--"
                look = replace(marks[label], dash=dash)
                places = [ratios.index(ratio) for ratio in known["ratio"]]
                lines.append(_values(label, look, places, known, column))
            span = (-0.4, len(ratios) - 0.6)
            across = Axis("imbalance ratio", ticks, span=span)
            title = attack_title(attack)
            up = Axis(f"{column} (%)")
            panels.append(Panel(f"{title}, {column}", title, across, up, tuple(lines)))
    return Chart("figure", "", "", tuple(panels), 3, 1.9)


def gain_chart(gains: pd.DataFrame, baseline: str, flagged: Collection[str] = ()) -> Chart:
    """Gain under PGD-20 against gain under APGD-CE and APGD-T; on the line nothing is lost.

    Args:
        gains: from `claims.gains`.
        baseline: the method that gains count from.
        flagged: labels whose runs of ours get a †.
    """
    known = gains[gains["kind"] != "published only"]
    marks = marks_for(known["label"], dict(zip(known["label"], known["method"], strict=True)))
    across = Axis(f"gain over {method_title(baseline)} under PGD-20 (points)")
    up = Axis(f"gain under {attack_title(AUTOATTACK)} (points)")
    panels = []
    for title, mine in (("published", False), ("ours", True)):
        points = []
        for row in gains[(gains["kind"] == "ours") == mine].to_dict("records"):
            only = row["kind"] == "published only"
            mark = Mark(GREY) if only else marks[row["label"]]
            sign = FLAG if mine and row["label"] in flagged else ""
            name = method_title(str(row["label"]).removeprefix("PGD-AT ")) + sign
            points.append(_gain(name, mark, {str(k): v for k, v in row.items()}, mine))
        own = tuple(points)
        panels.append(Panel(title.capitalize(), title, across, up, own, named=True, guides=True))
    more = (
        Series("ours, 95%", _INK, (), ()),
        Series("published", _INK, (), (), kind="points", hollow=True),
        Series("published only", Mark(GREY), (), (), kind="points", hollow=True),
    )
    return Chart("figure", "", "", tuple(panels), 1, 3.1, more=more)


def overfitting_chart(history: pd.DataFrame, frame: pd.DataFrame, chosen: int | None) -> Chart:
    """Robust accuracy by epoch, and best against last epoch on the test set.

    The held-out curve is the mean over classes, by which the epoch is chosen; all else is the share
    of images, and the legend says so. Published points are not joined: the two may have been
    measured in different ways.

    Args:
        history: of a run with `select: best`, as in history.csv; may be empty.
        frame: from `compare.compare`; PGD-20 rows of the series "best epoch" and "last epoch".
            Labels that end in † mark ours.
        chosen: the epoch that the held-out images choose.
    """
    sign = FLAG if frame["label"].str.endswith(FLAG).any() else ""
    training, held_out = Mark(PALETTE[0], dash="--"), Mark(PALETTE[1])
    test = Mark(PALETTE[2], "s")
    lines = []
    for column, look, name in (
        ("train_robust_acc", training, "training, PGD, all images"),
        ("val_robust_acc", held_out, "held out, PGD-10, mean of classes"),
    ):
        known = history if column in history else pd.DataFrame({"epoch": [], column: []})
        robust = tuple(PERCENT * known[column].to_numpy(float))
        told = ((name, "Epoch {x}: {y}%"),)
        places = tuple(float(epoch) for epoch in known["epoch"])
        lines.append(Series(name, look, places, robust, hover=told, points=False))
    if chosen is not None and "val_robust_acc" in history:
        best = PERCENT * float(history.loc[history["epoch"] == chosen, "val_robust_acc"].iloc[0])
        told = ((f"epoch {chosen}", "chosen on held-out images"),)
        lines.append(Series("", held_out, (chosen,), (best,), kind="points", hover=told, legend=""))
    rows = frame[(frame["attack"] == "pgd20") & (frame["metric"] == "accuracy")]
    rows = _cells(rows, "series", ["best epoch", "last epoch"])
    ours = _values(f"test, PGD-20 (ours{sign})", test, (0, 1), rows, "ours")
    published = _values("test, PGD-20 (published)", test, (0, 1), rows, "published")
    ends = Axis("epoch", ((0.0, "best"), (1.0, "last")), span=(-0.4, 1.4))
    tested = (ours, replace(published, kind="points"))
    panels = (
        Panel(
            "By epoch", "ours, by epoch", Axis("epoch", whole=True),
            Axis("robust accuracy (%)"), tuple(lines),
        ),
        Panel(
            "Best and last", "chosen on the test set", ends,
            Axis("robust, all images (%)"), tested,
        ),
    )  # fmt: skip
    return Chart("figure", "", "", panels, 2, 2.5, cut=40)


def scatter_chart(frame: pd.DataFrame, classes: Sequence[str]) -> Chart:
    """Balanced accuracy against balanced robustness (PGD-20), over all classes and over some.

    Args:
        frame: from `compare.compare`. Points of doubtful values are crosses.
        classes: the classes of the second panel.
    """
    titles = {"balanced": "all classes"}
    titles[class_metric(tuple(classes))] = f"the {len(classes)} rarest classes"
    rows = frame[frame["metric"].isin(list(titles))]
    marks = published_marks(rows)
    across, up = Axis("accuracy, mean of classes (%)"), Axis("under PGD-20 (%)")
    panels = []
    for metric, title in titles.items():
        points = tuple(_scatter(rows[rows["metric"] == metric], marks))
        panels.append(Panel(title.capitalize(), title, across, up, points, named=True))
    own = [label for label in marks if marks[label].colour != GREY]
    more = (
        *(Series(label, marks[label], (), (), kind="points") for label in own),
        Series("published", replace(_INK, marker="o"), (), (), kind="points", hollow=True),
        Series("in doubt", _INK, (), (), kind="points", cross=True),
    )
    return Chart("figure", "", "", tuple(panels), 2, 2.7, more=more, cut=34)


def published_marks(rows: pd.DataFrame) -> dict[str, Mark]:
    """A mark for each label; methods that are published only are grey."""
    ours = rows[rows["method"] != ""]
    own = marks_for(ours["label"], dict(zip(ours["label"], ours["method"], strict=True)))
    only = marks_for(rows.loc[rows["method"] == "", "label"])
    return {**{label: replace(mark, colour=GREY) for label, mark in only.items()}, **own}


def marks_in(rows: pd.DataFrame) -> list[str]:
    """The labels of rows, in the order in which they come."""
    return [str(label) for label in dict.fromkeys(rows["label"])]


def _values(
    name: str, look: Mark, places: Iterable[float], rows: pd.DataFrame, column: str
) -> Series:
    """A line of ours with its intervals, or of published values, hollow and without."""
    mine = column == "ours"
    x = tuple(float(place) for place in places)
    y = tuple(PERCENT * rows[column].to_numpy(float))
    told = tuple((name, f"{column}: {value:.2f}%") for value in y)
    return Series(name, look, x, y, _ends(rows) if mine else (), hover=told, hollow=not mine)


def _under(rows: pd.DataFrame, label: str, attack: str) -> pd.DataFrame:
    return rows[(rows["label"] == label) & (rows["attack"] == attack)]


def _cells(rows: pd.DataFrame, by: str, wanted: Sequence[str]) -> pd.DataFrame:
    """One row for each that is wanted, the first there is."""
    return rows.drop_duplicates(by).set_index(by).reindex(list(wanted))


def _ends(rows: pd.DataFrame) -> tuple[Ends, ...]:
    low, high = (PERCENT * rows[name].to_numpy(float) for name in ("low", "high"))
    return tuple(zip(low.tolist(), high.tolist(), strict=True))


def _paired_bars(
    rows: pd.DataFrame,
    by: str,
    groups: Sequence[str],
    marks: Mapping[str, Mark],
    labels: Sequence[str],
) -> tuple[Series, ...]:
    """For each group and label a solid bar of ours and a hatched one of the published value."""
    first = rows["series"].iloc[0] if len(rows) else ""
    slots = [
        (label, column)
        for label in labels
        for column in ("ours", "published")
        if column == "published" or marks[label].colour != GREY
    ]
    made = []
    for (offset, width), (label, column) in zip(slot_places(len(slots), 0.84), slots, strict=True):
        mine, own = column == "ours", rows[rows["label"] == label]
        main = own["series"] == first
        places = [place + offset for place in range(len(groups))]
        cells = _cells(own if mine else own[main], by, groups)
        bars = _values(label, marks[label], places, cells, column)
        made.append(replace(bars, kind="bars", width=width, legend=None if mine else ""))
        if not mine and not main.all():
            look = replace(marks[label], marker="D")
            points = _values(label, look, places, _cells(own[~main], by, groups), column)
            made.append(replace(points, kind="points", legend=""))
    return tuple(made)


def _bar_legend(rows: pd.DataFrame, marks: Mapping[str, Mark]) -> tuple[Series, ...]:
    """What the legend says of published bars."""
    series = list(dict.fromkeys(rows["series"]))
    first = _series_name(series[0]) if series else PUBLISHED
    made = [Series(first, _INK, (), (), kind="bars", hollow=True)]
    if len(series) > 1:
        second = _series_name(series[1])
        made.append(Series(second, _DIAMOND, (), (), kind="points", hollow=True))
    made += [
        Series(f"{label} (published only)", marks[label], (), (), kind="bars", hollow=True)
        for label in marks_in(rows)
        if marks[label].colour == GREY
    ]
    return tuple(made)


def _series_name(title: str) -> str:
    return title if title == PUBLISHED else f"{PUBLISHED}, {title}"


def _gain(name: str, mark: Mark, row: Mapping[str, Any], mine: bool) -> Series:
    """One point of the gain chart."""
    x, y = PERCENT * float(row["pgd"]), PERCENT * float(row["aa"])
    reach = {
        axis: ((PERCENT * row[f"{axis}_low"], PERCENT * row[f"{axis}_high"]),) if mine else ()
        for axis in ("pgd", "aa")
    }
    told = ((name, f"under PGD-20: {x:+.2f}", f"under {attack_title(AUTOATTACK)}: {y:+.2f}"),)
    return Series(
        name, mark, (x,), (y,), reach["aa"], reach["pgd"],
        kind="points", hover=told, hollow=not mine, legend="",
    )  # fmt: skip


def _scatter(rows: pd.DataFrame, marks: Mapping[str, Mark]) -> Iterable[Series]:
    """Ours and the published points of one panel; named are those that the legend does not."""
    for (label, _), own in rows.groupby(["label", "series"], sort=False):
        cells = _cells(own, "attack", ["clean", "pgd20"])
        mark = marks[str(label)]
        name = str(label) if mark.colour == GREY else ""
        doubtful = bool((cells["doubt"].fillna("") != "").any())
        for column in ("published", "ours"):
            x, y = (PERCENT * float(value) for value in cells[column])
            if math.isnan(x + y):
                continue
            mine = column == "ours"
            reach = _ends(cells) if mine else ()
            told = ((str(label), f"{column}: clean {x:.2f}%, under PGD-20 {y:.2f}%"),)
            yield Series(
                "" if mine else name, mark, (x,), (y,), reach[1:], reach[:1],
                kind="points", hover=told, hollow=not mine, legend="",
                cross=doubtful and not mine,
            )  # fmt: skip
