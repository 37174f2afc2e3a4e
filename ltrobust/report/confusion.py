"""Into which classes images fall under the strongest attack: shares of a row, and heat maps.

Counts of runs that share a label (several training seeds) are added up. Captions and tables are
made in `tables.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ltrobust.report.aggregate import ranked_labels, robust_attack, scores
from ltrobust.report.groups import Group
from ltrobust.report.labels import fit, thin
from ltrobust.report.style import WIDTH, in_style, new_figure, short

LINE = 0.11
"""Inches that a class name needs on an axis; where names do not fit, a few ranks stand."""
_DESTINATIONS = ("1st", "2nd", "3rd")


@dataclass(frozen=True)
class Confusions:
    """Predictions under one attack.

    Attributes:
        attack: its name.
        classes: class_index, class_name, n_train, group; from most to least frequent.
        counts: label to images, int (C, C): true class by prediction, in the order of `classes`;
            labels best first.
    """

    attack: str
    classes: pd.DataFrame
    counts: Mapping[str, np.ndarray]


def confusions(
    group: Group, per_class: pd.DataFrame, confusion: pd.DataFrame | None
) -> Confusions | None:
    """Collect what the methods of a group predict under its strongest attack.

    Args:
        group: the results.
        per_class: rows of per_class.csv, which say how frequent classes are and their `group`.
        confusion: rows of confusion.csv.

    Returns:
        None without an attack or rows for it. Labels of which a run has no rows are left out.
    """
    attack = robust_attack(scores(group))
    if attack is None or confusion is None or confusion.empty or "group" not in per_class:
        return None
    rows = group.rows[group.rows["attack"] == attack]
    facts = per_class[per_class["run_id"].astype(str).isin(rows["run_id"])]
    classes = (
        facts.drop_duplicates("class_index")
        .sort_values(["n_train", "class_index"], ascending=[False, True])
        .reset_index(drop=True)[["class_index", "class_name", "n_train", "group"]]
    )
    blocks = dict(list(confusion.groupby([confusion["run_id"].astype(str), "attack_id"])))
    counts = {}
    for label in ranked_labels(scores(group)):
        own = rows[rows["label"] == label]
        keys = list(zip(own["run_id"], own["attack_id"], strict=True))
        if len(keys) == len(group.runs(label)) and all(key in blocks for key in keys):
            counts[label] = np.sum([_matrix(blocks[key], classes) for key in keys], axis=0)
    return Confusions(attack, classes, counts) if counts else None


def destinations(mistakes: Confusions, label: str) -> list[dict[str, Any]]:
    """Table rows of the tail classes: class, n_train, share right, the most frequent mistakes."""
    names = [str(name) for name in mistakes.classes["class_name"]]
    rows = []
    for place, fact in enumerate(mistakes.classes.to_dict("records")):
        counts = mistakes.counts[label][place]
        if fact["group"] != "tail" or not counts.sum():
            continue
        shares = counts / counts.sum()
        wrong = [c for c in np.argsort(-shares, kind="stable") if c != place and shares[c] > 0]
        cells = [f"{names[c]} {100 * shares[c]:.2f}" for c in wrong[: len(_DESTINATIONS)]]
        cells += ["-"] * (len(_DESTINATIONS) - len(cells))
        rows.append(
            {
                "class": names[place],
                "n_train": int(fact["n_train"]),
                "right": float(shares[place]),
                **dict(zip(_DESTINATIONS, cells, strict=True)),
            }
        )
    return rows


def confused_shares(mistakes: Confusions) -> pd.DataFrame:
    """Predictions on the tail classes, a row each that occurs, most frequent first in its class.

    Returns:
        Columns `attack, method, class_index, class_name, n_train, prediction, n` (test images of
        the class), `share`, a fraction in [0, 1].
    """
    facts = mistakes.classes.to_dict("records")
    rows = [
        {
            "attack": mistakes.attack,
            "method": label,
            "class_index": fact["class_index"],
            "class_name": fact["class_name"],
            "n_train": fact["n_train"],
            "prediction": facts[place]["class_name"],
            "n": int(counts.sum()),
            "share": counts[place] / counts.sum(),
        }
        for label, matrix in mistakes.counts.items()
        for fact, counts in zip(facts, matrix, strict=True)
        if fact["group"] == "tail"
        for place in np.argsort(-counts, kind="stable")
        if counts[place]
    ]
    return pd.DataFrame(rows)


@in_style
def confusion_figure(mistakes: Confusions, shown: Mapping[str, str]) -> Figure:
    """One heat map a method: rows are true classes, columns predictions, most frequent first.

    Args:
        mistakes: from `confusions`.
        shown: label to label as written.
    """
    labels = list(mistakes.counts)
    columns = min(len(labels), 2 if len(labels) <= 4 else 3)
    rows = math.ceil(len(labels) / columns)
    names = [short(str(name), 14) for name in mistakes.classes["class_name"]]
    room = 0.065 * max(map(len, names))
    side = (WIDTH - 0.4 - room) / columns
    named = len(names) * LINE <= side
    room = room if named else 0.2
    figure = new_figure(rows * (side + 0.2) + room + 0.8)
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    image = None
    for place, (axes, label) in enumerate(zip(panels, labels, strict=False)):
        counts = mistakes.counts[label]
        totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
        image = axes.imshow(100 * counts / totals, vmin=0, vmax=100, cmap="Blues", aspect="equal")
        axes.set_title(fit(shown.get(label, label), side, 8), pad=3, fontsize=8)
        axes.grid(visible=False)
        _class_ticks(axes, names if named else None, len(names))
        left, below = place % columns == 0, place + columns >= len(labels)
        axes.tick_params(axis="x", labelbottom=below, length=2 if below else 0)
        axes.tick_params(axis="y", labelleft=left, length=2 if left else 0)
        # names above an unused panel hang into it and need no room of their own
        axes.xaxis.set_in_layout(place // columns == rows - 1)
    for axes in panels[len(labels) :]:
        axes.set_visible(False)
    assert image is not None
    bar = figure.colorbar(
        image, ax=list(panels), orientation="horizontal", shrink=0.6, aspect=40, pad=0.02
    )
    attack = short(mistakes.attack, 14)
    bar.set_label(f"images of a class (row) taken for another (column), {attack} (%)", fontsize=8)
    bar.outline.set_visible(False)
    return figure


def _class_ticks(axes: Axes, names: list[str] | None, count: int) -> None:
    places = thin(count, 5) if names is None else range(count)
    texts = names or [str(place + 1) for place in places]
    axes.set_xticks(places, texts, rotation=0 if names is None else 90, fontsize=7)
    axes.set_yticks(places, texts, fontsize=7)
    axes.spines[:].set_visible(False)


def _matrix(rows: pd.DataFrame, classes: pd.DataFrame) -> np.ndarray:
    """Counts (C, C) of one run, classes in the given order."""
    place = {index: position for position, index in enumerate(classes["class_index"])}
    counts = np.zeros((len(place), len(place)), dtype=int)
    for label, pred, count in rows[["label", "pred", "count"]].itertuples(index=False):
        if pred in place:  # a foreign file may hold anything
            counts[place[label], place[pred]] += count
    return counts
