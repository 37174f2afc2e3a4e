"""The board and the charts made of it: leads, shared ranks, one description for two renderers."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest
from report_fixtures import board, charts, leaderboard, metric_row, settings, suite

from ltrobust.report import render_board
from ltrobust.report.chart import MANY
from ltrobust.report.names import dataset_title, method_title
from ltrobust.report.printed import draw, print_chart
from ltrobust.report.screen import show_panel
from ltrobust.report.setting import Setting, holm
from ltrobust.report.tables import leads_table

SCORES = {"a": 0.5, "b": 0.49, "c": 0.48, "d": 0.3}


def compared(verdicts: dict[str, str], attack: str = "autoattack") -> Setting:
    """Four methods, each of the others set against the best."""
    rows = [
        metric_row(name, method=name, attack=one, balanced_accuracy=score)
        for name, score in SCORES.items()
        for one in ("clean", "autoattack")
    ]
    metrics = pd.DataFrame(rows)
    leads = [
        {
            "setting": settings(metrics)[0].slug,
            "attack": attack,
            "group": "balanced",
            "best": "a",
            "other": other,
            "difference": SCORES["a"] - SCORES[other],
            "n": 1000,
            "low": -0.01,
            "high": 0.03,
            "p": p,
            "p_holm": 3 * p,
            "verdict": verdicts[other],
            "basis": "paired images",
        }
        for other, p in (("b", 0.04), ("c", 0.03), ("d", 0.01))
    ]
    return settings(metrics, comparisons=pd.DataFrame(leads))[0]


NEAR, FAR = "within noise", "A better"


@pytest.mark.parametrize(
    ("verdicts", "ranks"),
    [
        ((NEAR, NEAR, FAR), [1, 1, 1, 4]),
        ((NEAR, FAR, FAR), [1, 1, 3, 4]),
        ((FAR, NEAR, FAR), [1, 2, 3, 4]),  # no rank is better than that of a better score
        ((FAR, FAR, FAR), [1, 2, 3, 4]),
    ],
)
def test_who_is_within_noise_of_the_best_shares_its_rank(verdicts, ranks):
    setting = compared(dict(zip("bcd", verdicts, strict=True)))
    assert list(setting.ranking.ranks.values()) == ranks
    shared = "Within noise of the best, and so of its rank: "
    assert (shared in setting.ranking.sentence) == (ranks[1] == 1)


def test_noise_under_another_attack_than_the_deciding_one_shares_no_rank():
    setting = compared(dict.fromkeys("bcd", NEAR), attack="clean")
    assert list(setting.ranking.ranks.values()) == [1, 2, 3, 4]


def test_p_values_are_corrected_by_holm():
    assert holm([0.01, 0.04, 0.03]) == [pytest.approx(p) for p in (0.03, 0.06, 0.06)]
    assert holm([0.5, math.nan, 0.9])[::2] == [1.0, 1.0]
    assert holm([]) == []


def test_the_table_of_leads_has_both_p_values_and_full_precision_beside():
    table = leads_table(compared(dict.fromkeys("bcd", FAR)))
    assert table is not None
    assert list(table.frame["p"]) == ["0.040", "0.030", "0.010"]
    assert list(table.frame["p (Holm)"]) == ["0.120", "0.090", "0.030"]
    data = pd.read_csv(io.StringIO(table.to_csv()))
    assert list(data["p_holm"]) == pytest.approx([0.12, 0.09, 0.03])
    assert leads_table(settings(suite()[0])[0]) is None


def test_the_leaderboard_shares_ranks_where_comparisons_are_given():
    metrics = pd.DataFrame(
        [metric_row(n, method=n, balanced_accuracy=s) for n, s in SCORES.items()]
    )
    lead = {"setting": settings(metrics)[0].slug, "attack": "clean", "group": "balanced"}
    lead |= {"best": "a", "other": "b", "verdict": NEAR, "basis": "paired images"}
    assert list(leaderboard(metrics)["rank"]) == [1, 2, 3, 4]
    assert list(leaderboard(metrics, comparisons=pd.DataFrame([lead]))["rank"]) == [1, 1, 3, 4]


# one description, two renderers -----------------------------------------------------------------


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_print_and_screen_show_the_same_intervals(seeds):
    (setting,) = settings(*suite(methods=("trades", "taet"), seeds=seeds))
    chart = charts(setting)["attacks"]
    panel = chart.panels[0]
    figure = draw(chart)
    drawn = show_panel(panel, {})["data"]
    for series, bars, trace in zip(
        panel.series, figure.axes[0].containers[1::2], drawn, strict=True
    ):
        segments = bars.errorbar.lines[2][0].get_segments()
        ends = [(float(low), float(high)) for (_, low), (_, high) in segments]
        assert ends == [pytest.approx(pair) for pair in series.y_ends]
        above = [high - y for y, (_, high) in zip(series.y, series.y_ends, strict=True)]
        assert trace["error_y"]["array"] == pytest.approx(above, abs=1e-3)
    cell = setting.estimate("taet", "autoattack", "balanced_accuracy")
    reach = cell.std if len(seeds) > 1 else cell.high - cell.value
    taet = next(series for series in panel.series if series.key == "taet")
    assert taet.y_ends[-1][1] - taet.y[-1] == pytest.approx(100 * reach)


def test_many_methods_have_heat_maps_and_small_multiples():
    names = tuple(f"m{place:02}" for place in range(MANY + 1))
    metrics, per_class, histories = suite(methods=names, epochs=4)
    (setting,) = settings(metrics, per_class, histories)
    found = charts(setting)
    assert "classes" not in found
    heats = [panel.heat for name in ("per-class", "attacks") for panel in found[name].printed]
    assert [len(heat.rows) for heat in heats if heat] == [MANY + 1] * 3
    heat = found["per-class"].printed[0].heat
    assert heat is not None
    line = setting.classes.line(setting.ranked[0], "clean")
    assert heat.values[0] == tuple(100 * cell.value for cell in line)
    figures = print_chart(found["training"])
    assert list(figures) == ["training", "training-2"]
    titles = [axes.get_title() for axes in figures["training"].axes if axes.get_title()]
    assert titles == list(setting.ranked)


def test_a_figure_is_drawn_again_only_where_its_data_changed(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "ltrobust.report.print_chart",
        lambda chart, look: drawn.append(chart.name) or {chart.name: None},
    )
    monkeypatch.setattr("ltrobust.report.figure_bytes", lambda figure, kind, dpi: b"")
    metrics, per_class, histories = suite(methods=("trades", "taet"), attacks=("clean", "pgd20"))
    first = render_board(board(metrics, per_class, histories), {})
    assert {"balance", "attacks", "training", "per-class"} <= set(drawn)
    drawn.clear()
    again = render_board(board(metrics, per_class, histories), first.drawn)
    assert drawn == []
    assert again.drawn == first.drawn
    assert not [name for name in again.files if name.startswith("figures/")]
    changed = metrics.assign(tail=np.where(metrics["method"] == "taet", 0.1, metrics["tail"]))
    render_board(board(changed, per_class, histories), first.drawn)
    assert set(drawn) == {"balance", "attacks"}  # that show the tail


def test_names_are_written_as_the_field_does():
    written = {
        "at-bsl": "AT-BSL",
        "robal-r": "RoBal-R",
        "he-trades": "HE-TRADES",
        "trades+awp": "TRADES+AWP",
        "taet (3f2a1b)": "TAET (3f2a1b)",
        "mine": "mine",
    }
    assert {name: method_title(name) for name in written} == written
    assert dataset_title("cifar10-lt") == "CIFAR-10-LT"
    assert dataset_title("folder:/x") == "folder:/x"
