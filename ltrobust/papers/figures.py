"""Which figure an entry gets, and what it must say of its scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ltrobust.bench.plan import Plan
from ltrobust.papers.claims import gains
from ltrobust.papers.curves import gain_figure, overfitting_figure, ratio_figure, scatter_figure
from ltrobust.papers.draw import bars_figure, class_figure, tail_figure
from ltrobust.papers.entries import Entry, Scale, Variant
from ltrobust.papers.ours import Ours


def entry_figure(
    entry: Entry, frame: pd.DataFrame, values: pd.DataFrame, ours: Ours, scale: Scale
) -> Figure:
    """Draw an entry.

    Args:
        frame: from `compare.compare`.
        values: from `published.read_values`.
    """
    note = scale_note(ours.plans) if scale == "cpu" else ""
    if entry.draw == "ratios":
        return ratio_figure(frame, note)
    if entry.draw == "gains":
        return gain_figure(gains(entry, values, ours), entry.baseline, note)
    if entry.draw == "overfitting":
        history = ours.history(Variant(method=entry.method, select="best"))
        return overfitting_figure(history, frame, _chosen_epoch(history), note)
    if entry.draw == "per-class":
        return class_figure(frame, entry.classes, ours.train_counts(entry.classes), note)
    if entry.draw == "scatter":
        return scatter_figure(frame, entry.classes, note)
    if entry.draw == "tail-bars":
        return tail_figure(frame, entry.classes, note)
    return bars_figure(frame, note)


def scale_note(plans: Sequence[Plan]) -> str:
    """What a CPU-scale figure says: network, epochs and images, and what may be compared."""
    runs = [planned.run for plan in plans for planned in plan.runs]
    archs = ", ".join(sorted({run.arch for run in runs}))
    epochs = sorted({run.recipe.epochs for run in runs})
    images = sorted({run.data.limit_train or 0 for run in runs})
    trained = f"{_span(images)} training images" if all(images) else "all training images"
    return f"CPU scale: {archs}, {_span(epochs)} epochs, {trained};\nshapes compare, values do not"


def _span(numbers: Sequence[int]) -> str:
    ends = (numbers[0], numbers[-1])
    return " to ".join(f"{number:,}" for number in dict.fromkeys(ends))


def _chosen_epoch(history: pd.DataFrame) -> int | None:
    """The epoch with the best score on held-out images, the first of equal ones."""
    if "val_robust_acc" not in history or history["val_robust_acc"].isna().all():
        return None
    best = int(np.nanargmax(history["val_robust_acc"].to_numpy(float)))
    return int(history["epoch"].iloc[best])
