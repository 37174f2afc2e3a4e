"""What robustness costs: training time against balanced accuracy under the strongest attack."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ltrobust.report.aggregate import records_by_cell, robust_attack, scores
from ltrobust.report.cost import costs
from ltrobust.report.figures import draw_point
from ltrobust.report.groups import Group
from ltrobust.report.labels import Point, fit, freeze, label_points
from ltrobust.report.style import PERCENT, empty_figure, in_style, marks_for, new_figure, short

COLUMNS = [
    *("label", "attack", "seconds_mean", "seconds_std", "mean", "std", "n_seeds"),
    *("conditions", "comparable"),
]
_LINE = 4.2
"""Width in inches of a line below the figure."""
_UNITS = (("hours", 3600.0), ("minutes", 60.0), ("seconds", 1.0))


def training_costs(group: Group) -> pd.DataFrame:
    """Training time and balanced robustness of each label, averaged over seeds.

    Returns:
        Columns `COLUMNS`, best label first: `seconds_*` of the training, `mean` and `std` of the
        balanced accuracy under `attack`, the strongest that all have, `conditions` of the
        measurement in words, and whether they are those of most labels (`comparable`), of equals
        those of the best label. Labels of which a seed lacks its training time or the attack, or
        whose seeds were trained under several conditions, are left out.
    """
    averages = scores(group)
    attack, cells = robust_attack(averages), records_by_cell(averages)
    records = []
    for cost in costs(group) if attack is not None else []:
        robust = cells[cost.label, str(attack)]
        time, mean = cost.train_seconds, robust["balanced_accuracy_mean"]
        if len(cost.runs) < robust["n_seeds"] or math.isnan(time.mean) or math.isnan(mean):
            continue
        std = robust["balanced_accuracy_std"]
        where = str(cost.conditions)
        records.append((cost.label, attack, time.mean, time.std, mean, std, time.n, where))
    ((most, _),) = Counter(record[-1] for record in records).most_common(1) or (("", 0),)
    rows = [(*record, record[-1] == most) for record in records]
    return pd.DataFrame(rows, columns=COLUMNS)


def drawn_costs(frame: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Rows of `training_costs` that may stand on one axis, and the labels of the others."""
    fits = frame["comparable"].astype(bool)
    return frame[fits], list(frame.loc[~fits, "label"])


@in_style
def cost_figure(
    frame: pd.DataFrame, shown: Mapping[str, str] | None = None, labels: Sequence[str] = ()
) -> Figure:
    """Training time against balanced robustness, one named point a label.

    Labels that were measured under other conditions than most are named, not drawn.

    Args:
        frame: from `training_costs`.
        shown: label to label as written; default as it is.
        labels: all labels of the report, so that each keeps its colour when some are not here.
    """
    if frame.empty:
        return empty_figure("needs training times and an attack")
    frame, others = drawn_costs(frame)
    unit, size = _unit(frame["seconds_mean"].max())
    marks = marks_for([*labels, *frame["label"]])
    figure = new_figure(3.0 if len(frame) <= 10 else 4.2)
    axes = figure.subplots()
    points = []
    for row in frame.to_dict("records"):
        name = str(row["label"])
        x, y = row["seconds_mean"] / size, PERCENT * row["mean"]
        xerr = float(np.nan_to_num(row["seconds_std"])) / size
        yerr = PERCENT * float(np.nan_to_num(row["std"]))
        points.append(Point((shown or {}).get(name, name), x, y, xerr, yerr))
        draw_point(axes, points[-1], marks[name])
    lines = [f"training time ({unit})", str(frame["conditions"].iloc[0])]
    if others:
        names = ", ".join((shown or {}).get(name, name) for name in others)
        lines.append(f"measured otherwise, not drawn: {names}")
    axes.set_xlabel("\n".join(fit(line, _LINE, 9) for line in lines if line))
    axes.set_ylabel(f"balanced accuracy, {short(str(frame['attack'].iloc[0]), 14)} (%)")
    axes.grid(visible=True, axis="both")
    axes.margins(0.18)
    axes.locator_params(nbins=5)
    freeze(figure)
    label_points(axes, points)
    return figure


def _unit(seconds: float) -> tuple[str, float]:
    """Largest unit in which the longest training takes at least two."""
    return next((unit for unit in _UNITS if seconds >= 2 * unit[1]), _UNITS[-1])
