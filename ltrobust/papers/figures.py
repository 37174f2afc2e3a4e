"""Which figure an entry gets, and what it must say of scale, test images and reliability."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from ltrobust.papers.charts import (
    RATIO_ATTACKS,
    bars_chart,
    class_chart,
    gain_chart,
    overfitting_chart,
    ratio_chart,
    scatter_chart,
    tail_chart,
)
from ltrobust.papers.claims import GAINS, gains
from ltrobust.papers.entries import Entry, Scale, Variant
from ltrobust.papers.ours import Ours
from ltrobust.papers.reliability import flagged_labels
from ltrobust.report.chart import Chart
from ltrobust.report.marks import FLAG
from ltrobust.report.names import attack_title, method_title

DRAWN = {
    "ratios": RATIO_ATTACKS,
    "gains": tuple(GAINS.values()),
    "overfitting": ("pgd20",),
    **dict.fromkeys(("per-class", "scatter", "tail-bars"), ("clean", "pgd20")),
}
"""Attacks that a kind of figure shows; those that are not here show all of the entry."""


def entry_chart(
    entry: Entry, frame: pd.DataFrame, values: pd.DataFrame, ours: Ours, scale: Scale
) -> Chart:
    """Describe the chart of an entry.

    Args:
        frame: from `compare.compare`.
        values: from `published.read_values`.
    """
    flagged = flagged_labels(frame[frame["attack"].isin(_drawn(entry, frame))])
    chart = _chart(entry, _titled(frame, flagged), flagged, values, ours)
    note = figure_note(entry, frame, ours, scale)
    told = " ".join(line.rstrip(";") + "." for line in note.splitlines())
    head = "\n".join(part for line in note.splitlines() for part in textwrap.wrap(line, _WIDE))
    return replace(chart, name=entry.name, title=entry.title, head=head, note=told)


def _drawn(entry: Entry, frame: pd.DataFrame) -> list[str]:
    return list(DRAWN.get(entry.draw) or dict.fromkeys(frame["attack"]))


def _titled(frame: pd.DataFrame, flagged: Collection[str]) -> pd.DataFrame:
    """Labels as they are written, those of flagged runs of ours with a †."""
    names = [
        method_title(label) + FLAG if method and label in flagged else method_title(label)
        for label, method in zip(frame["label"], frame["method"], strict=True)
    ]
    return frame.assign(label=pd.Series(names, index=frame.index, dtype=object))


def _chart(
    entry: Entry, frame: pd.DataFrame, flagged: Collection[str], values: pd.DataFrame, ours: Ours
) -> Chart:
    if entry.draw == "gains":
        return gain_chart(gains(entry, values, ours), entry.baseline, flagged)
    if entry.draw == "ratios":
        return ratio_chart(frame)
    if entry.draw == "overfitting":
        history = ours.history(Variant(method=entry.method, select="best"))
        return overfitting_chart(history, frame, _chosen_epoch(history))
    if entry.draw == "per-class":
        return class_chart(frame, entry.classes, ours.train_counts(entry.classes))
    if entry.draw == "scatter":
        return scatter_chart(frame, entry.classes)
    if entry.draw == "tail-bars":
        return tail_chart(frame, entry.classes)
    return bars_chart(frame)


_WIDE = 90
"""Characters of a line above a figure."""


def figure_note(entry: Entry, frame: pd.DataFrame, ours: Ours, scale: Scale) -> str:
    """What stands above a figure, in lines: scale, test images, what † means."""
    attacks = _drawn(entry, frame)
    tested = images_note(frame, ours, attacks)
    compared = "shapes compare, values do not" if scale == "cpu" else ""
    lines = [
        f"{scale_note(ours)};" if scale == "cpu" else "",
        "; ".join(part for part in (tested, compared) if part),
        f"{FLAG} a reliability check puts a number of our run in doubt"
        if flagged_labels(frame[frame["attack"].isin(attacks)])
        else "",
    ]
    return "\n".join(line for line in lines if line)


def scale_note(ours: Ours) -> str:
    """The CPU scale in words: network, epochs and training images of the runs that are there."""
    runs = [planned.run for plan in ours.plans for planned in plan.runs]
    archs = ", ".join(sorted({run.arch for run in runs}))
    epochs = sorted({run.recipe.epochs for run in runs})
    asked = sorted({run.data.limit_train or 0 for run in runs})
    images = ours.train_sizes()
    if images:
        trained = f"{_span(images)} training images"
    else:
        trained = f"at most {_span(asked)} training images" if all(asked) else "all training images"
    return f"CPU scale: {archs}, {_span(epochs)} epochs, {trained}"


def images_note(frame: pd.DataFrame, ours: Ours, attacks: Sequence[str]) -> str:
    """Numbers of test images, attacks apart that have another; "" before any run.

    Where classes are drawn, alone or as a mean of some, the numbers of their images follow.
    """
    sizes = {attack: _span(numbers) for attack, numbers in ours.test_sizes(attacks).items()}
    if not sizes:
        return ""
    usual = Counter(sizes.values()).most_common(1)[0][0]
    others = [f"{attack_title(attack)} {text}" for attack, text in sizes.items() if text != usual]
    drawn = frame[frame["attack"].isin(attacks) & (frame["n"] > 0)]
    single = drawn[drawn["metric"].str.startswith("class:")].groupby("metric")["n"].max()
    means = drawn[drawn["metric"].str.startswith("mean:")].groupby("metric")["n"].max()
    if len(single):
        some = f"{single.sum():,}" != usual
        parts = [f"{single.sum():,} in the {len(single)} classes drawn"] if some else []
        parts.append(f"{_span(sorted(single.unique()))} a class")
    else:
        parts = [f"{n:,} in {str(metric).count(',') + 1} classes" for metric, n in means.items()]
    each = f" ({', '.join(parts)})" if parts else ""
    return f"test images: {'; '.join([f'{usual}{each}', *others])}"


def _span(numbers: Sequence[int]) -> str:
    ends = (numbers[0], numbers[-1])
    return " to ".join(f"{number:,}" for number in dict.fromkeys(ends))


def _chosen_epoch(history: pd.DataFrame) -> int | None:
    """The epoch with the best score on held-out images, the first of equal ones."""
    if "val_robust_acc" not in history or history["val_robust_acc"].isna().all():
        return None
    best = int(np.nanargmax(history["val_robust_acc"].to_numpy(float)))
    return int(history["epoch"].iloc[best])
