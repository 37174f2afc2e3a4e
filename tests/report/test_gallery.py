"""Every table and every figure at the extremes of size: all comes out, and all text is readable.

Text counts as drawn when matplotlib draws it, so nothing is forgotten: titles, ticks, legends,
labels of points.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from report_fixtures import METHODS, board, confused, suite

from ltrobust.report.board import Board
from ltrobust.report.charts import setting_charts, spanning_charts
from ltrobust.report.images import adversarial_figures
from ltrobust.report.printed import print_chart
from ltrobust.report.setting import Setting
from ltrobust.report.style import styled
from ltrobust.report.tables import cost_table, ratio_table, setting_tables

MANY = tuple(f"defense-number-{place}" for place in range(20))
ODD = (
    *("my $method_" + "x" * 40, r"c\frac$_{2}$", "100%_<b>bold</b>", "a|b & #c ~^"),
    "W" * 40,
)
ODD_CLASSES = (
    "M" * 30,
    "<b>cat</b> of 100%",
    r"$\alpha$_{1}",
    "a_very_long_class_name_" * 3,
    "a|b & #c",
)


@dataclass(frozen=True)
class Case:
    """The size of a stored result."""

    classes: int = 10
    methods: tuple[str, ...] = METHODS
    seeds: tuple[int, ...] = (0,)
    attacks: tuple[str, ...] = ("clean", "pgd20", "autoattack")
    names: tuple[str, ...] = ()


CASES = {
    "10 classes, 5 methods": Case(
        attacks=("clean", "fgsm", "pgd5", "pgd10", "pgd20", "pgd100", "cw20", "autoattack")
    ),
    "three seeds": Case(seeds=(0, 1, 2)),
    "2 classes, 1 method, clean alone": Case(2, ("pgd-at",), attacks=("clean",)),
    "2 classes, 20 methods, no clean": Case(2, MANY, attacks=("pgd10", "pgd20", "pgd40")),
    "100 classes, 1 method": Case(100, ("trades",), attacks=("clean", "pgd20")),
    "100 classes, 20 methods": Case(100, MANY, attacks=("clean", "pgd10", "pgd20")),
    "odd names": Case(12, ODD, attacks=("clean", "pgd1", "pgd20"), names=ODD_CLASSES),
}


each_case = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow if "20 methods" in c else ()) for c in CASES],
)
"""Twenty methods take twenty seconds."""


@dataclass
class Stored:
    """A result in memory, as reports read it."""

    metrics: pd.DataFrame
    per_class: pd.DataFrame
    histories: dict[str, pd.DataFrame]
    confusion: pd.DataFrame
    examples: dict[str, pd.DataFrame] = field(default_factory=dict)

    @cached_property
    def board(self) -> Board:
        return board(
            self.metrics, self.per_class, self.histories, None, self.confusion, self.examples
        )

    @cached_property
    def usual(self) -> Setting:
        """The setting at 8/255 and the first imbalance ratio."""
        known = [one for one in self.board.settings if one.key["imbalance_ratio"] == 50]
        return min(known, key=lambda one: abs(one.key["eps"] - 8 / 255))


@cache
def stored(case: Case) -> Stored:
    """Results of a case at three radii and, in smaller part, at two more imbalance ratios."""
    size = {"classes": case.classes, "seeds": case.seeds}
    metrics, per_class, histories = suite(case.methods, attacks=case.attacks, **size)
    metrics, per_class, confusion = confused(metrics, per_class, case.classes)
    parts = [metrics.assign(eps=_eps(metrics, 8 / 255))]
    for eps in (4 / 255, 16 / 255):
        attacked = metrics[metrics["attack"].isin(["pgd20", "autoattack"])]
        parts.append(attacked.assign(eps=eps, balanced_accuracy=0.6 - 8 * eps))
    for ratio in (10.0, 100.0):
        other = metrics.assign(imbalance_ratio=ratio, split_sha256=f"{ratio:g}" * 8)
        parts.append(other.assign(run_id=other["run_id"] + f"-{ratio:g}"))
    everything = pd.concat(parts, ignore_index=True)
    rng = np.random.default_rng(0)
    everything["train_seconds"] = everything["run_id"].map(
        {run: 900 * (1 + rng.random()) for run in everything["run_id"].unique()}
    )
    if case.names:
        everything["device"] = "NVIDIA $W_{2}$ " + "W" * 40
    everything["reliability"] = np.where(everything["method"] == case.methods[0], "black-box", "")
    for place, history in enumerate(histories.values()):
        best = 6 + place % 3
        history["val_robust_acc"] = 0.3 + 0.01 * place - 0.002 * (history["epoch"] - best) ** 2
    if case.names:
        named = dict(enumerate(case.names))
        per_class["class_name"] = (
            per_class["class_index"].map(named).fillna(per_class["class_name"])
        )
    examples = {run: _examples(case, rng) for run in histories}
    return Stored(everything, per_class, histories, confusion, examples)


def _eps(metrics: pd.DataFrame, eps: float) -> np.ndarray:
    return np.where(metrics["attack"] == "clean", 0.0, eps)


def _examples(case: Case, rng: np.random.Generator) -> pd.DataFrame:
    count = min(10, case.classes)
    labels = np.linspace(0, case.classes - 1, count).round().astype(int)
    clean = rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    change = rng.uniform(-8 / 255, 8 / 255, clean.shape)
    attacks = [name for name in case.attacks if name.startswith("pgd")]
    return pd.DataFrame(
        {
            "index": labels,
            "label": labels,
            "pred_clean": labels,
            "pred_adv": (labels + rng.integers(0, 2, count)) % case.classes,
            "attack": (attacks or ["pgd20"])[0],
            "eps": 8 / 255,
            "clean": list(clean),
            "adversarial": list(np.clip(clean / 255 + change, 0, 1).astype(np.float32)),
        }
    )


def figures(result: Stored) -> Iterator[tuple[str, Figure]]:
    """Every figure of a report; what there is nothing for is left out."""
    board = result.board
    charts = [*setting_charts(result.usual)]
    charts += [chart for _, _, chart in spanning_charts(board.radii, board.families)]
    for chart in charts:
        if chart.printed:
            yield from print_chart(chart).items()
    yield from adversarial_figures(result.usual).items()


@contextmanager
def recorded() -> Iterator[list[tuple[str, Bbox]]]:
    """Collect every text that is drawn, with its box in pixels."""
    drawn: list[tuple[str, Bbox]] = []
    draw = Text.draw

    def record(self: Text, renderer: Any, *args: Any, **how: Any) -> None:
        if self.get_visible() and self.get_text().strip():
            drawn.append((self.get_text(), Text.get_window_extent(self, renderer)))
        draw(self, renderer, *args, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        yield drawn


def faults(figure: Figure) -> list[str]:
    """Texts that touch each other or leave the canvas."""
    with styled(), recorded() as drawn:
        figure.draw_without_rendering()
    assert drawn, "no text at all"
    canvas = figure.bbox.padded(0.5)
    found = [
        f"'{text}' leaves the canvas"
        for text, box in drawn
        if not (canvas.x0 <= box.x0 and box.x1 <= canvas.x1)
        or not (canvas.y0 <= box.y0 and box.y1 <= canvas.y1)
    ]
    for (first, a), (second, b) in itertools.combinations(drawn, 2):
        if a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1:
            found.append(f"'{first}' on '{second}'")
    return found


@each_case
def test_no_text_of_any_figure_overlaps_or_leaves_the_canvas(case: str) -> None:
    wrong = {
        name: found for name, figure in figures(stored(CASES[case])) if (found := faults(figure))
    }
    assert wrong == {}


@each_case
def test_every_table_comes_out_as_markdown_latex_csv_and_in_the_terminal(case: str) -> None:
    result = stored(CASES[case])
    tables = setting_tables(result.usual)
    cost = cost_table(result.usual)
    assert cost is not None
    families = result.board.families
    assert families
    tables = [*tables, cost, *(ratio_table(family) for family in families)]
    assert {"leaderboard", "balanced", "per-class", "cost", "ratios"} <= {t.name for t in tables}
    for table in tables:
        rows = len(table.frame)
        assert rows > 0, table.name
        lines = [line for line in table.to_markdown().splitlines() if line.startswith("|")]
        assert len(lines) == rows + 2, table.name
        assert table.to_latex().count(r"\\") >= rows, table.name
        assert table.to_csv().count("\n") > rows / 2, table.name
        assert all(part.row_count >= rows for part in table.rich_parts(80)), table.name


def test_the_check_finds_texts_that_overlap_or_leave_the_canvas() -> None:
    figure = Figure(figsize=(2, 1))
    figure.text(0.5, 0.5, "one")
    figure.text(0.52, 0.5, "other")
    figure.text(0.95, 0.1, "far to the right")
    assert sorted(faults(figure)) == ["'far to the right' leaves the canvas", "'one' on 'other'"]
