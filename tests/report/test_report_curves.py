"""Figures along one setting, of cost, of overfitting and of images: what they show, by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from report_fixtures import board, charts, metric_row, render, settings, suite

from ltrobust.report.chart import Series
from ltrobust.report.charts import eps_chart, spanning_charts, steps_chart
from ltrobust.report.images import adversarial_figure, adversarial_figures
from ltrobust.report.labels import apart
from ltrobust.report.printed import draw, print_chart
from ltrobust.report.style import marks_for
from ltrobust.report.sweeps import Sweep, ratio_sweep, steps_sweep

pytestmark = pytest.mark.usefixtures("light_figures")


def row(run: str, attack: str, score: float, eps: float = 8 / 255, **values: Any) -> dict[str, Any]:
    """A metric row whose attack has the settings that such an attack has."""
    settings: dict[str, Any] = {"norm": "Linf", "seed": 0}
    if attack.startswith("pgd"):
        steps = int(attack[3:].partition("-")[0])
        settings |= {"eps": eps, "step_size": eps / 4, "steps": steps, "loss": "ce"}
    values = {"method": run.partition("-")[0], "attack_settings": json.dumps(settings), **values}
    return metric_row(run, attack=attack, eps=eps, balanced_accuracy=score, **values)


def points(sweep: Sweep, label: str, attack: str | None = None) -> dict[float, float]:
    return {
        round(x, 6): score.value
        for name, lines in sweep.lines.items()
        if attack in (None, name)
        for x, score in lines[label]
    }


def eps_sweep(*rows: dict[str, Any]) -> Sweep:
    (sweep,) = board(pd.DataFrame(rows)).radii
    return sweep


def ticks(axes: Axes) -> list[str]:
    return [label.get_text() for label in axes.get_xticklabels()]


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """Legend entry to the points of its line in the first panel."""
    axes, legend = figure.axes[0], figure.legends[0]
    found = {}
    for text, handle in zip(legend.get_texts(), legend.get_lines(), strict=True):
        for line in axes.get_lines():
            caps = line.get_linestyle() == "None"
            if line.get_color() == handle.get_color() and len(line.get_xdata()) > 1 and not caps:
                pairs = zip(line.get_xdata(), line.get_ydata(), strict=True)
                found[text.get_text()] = [(float(x), float(y)) for x, y in pairs]
    return found


# radius -----------------------------------------------------------------------------------------


def test_eps_sweep_joins_the_radii_of_one_attack_and_begins_without_attack():
    sweep = eps_sweep(
        row("a", "clean", 0.8),
        row("a", "pgd20", 0.6, 4 / 255),
        row("a", "pgd20", 0.5),
        row("a", "pgd20", 0.2, 16 / 255),
        row("a", "fgsm", 0.55),
    )
    assert list(sweep.lines) == ["pgd20"]
    known = {0: 0.8, 4: 0.6, 8: 0.5, 16: 0.2}
    assert points(sweep, "a") == {round(k / 255, 6): v for k, v in known.items()}


def test_one_radius_is_no_sweep():
    rows = [row("a", "clean", 0.8), row("a", "pgd20", 0.5), row("a", "pgd10", 0.6, 4 / 255)]
    assert board(pd.DataFrame(rows)).radii == ()


def test_eps_sweep_averages_over_all_seeds_or_leaves_a_gap():
    rows = [row(f"a-{seed}", "pgd20", 0.4 + 0.1 * seed, seed=seed) for seed in (0, 1)]
    rows += [row(f"a-{seed}", "pgd20", 0.6, 4 / 255, seed=seed) for seed in (0, 1)]
    sweep = eps_sweep(*rows, row("a-0", "pgd20", 0.1, 16 / 255))
    found = [score for _, score in sweep.lines["pgd20"]["a"]]
    assert [score.n_seeds for score in found] == [2, 2, 2]
    assert [round(score.value, 6) for score in found[:2]] == [0.6, 0.45]
    assert found[1].std == pytest.approx(math.sqrt(0.005))
    assert not found[2].known


def test_eps_sweep_keeps_other_settings_and_other_attacks_apart():
    rows = [
        *(row("a", "pgd20", 0.9 - 9 * eps, eps) for eps in (4 / 255, 8 / 255)),
        *(row("b", "pgd20", 0.1, eps, recipe="paper", method="a") for eps in (2 / 255, 8 / 255)),
        *(row("a", "pgd20-l2", 0.4 - eps / 10, eps) for eps in (0.25, 0.5)),
    ]
    sweeps = board(pd.DataFrame(rows)).radii
    assert [list(sweep.lines) for sweep in sweeps] == [["pgd20"], ["pgd20", "pgd20-l2"]]
    slugs = {sweep.group.slug for sweep in sweeps}
    assert len(slugs) == 2
    assert all("eps" not in slug for slug in slugs)


def test_an_attack_of_other_settings_is_no_point_of_the_line():
    other = json.dumps({"eps": 16 / 255, "step_size": 0.01, "steps": 20, "loss": "ce", "norm": "x"})
    sweep = eps_sweep(
        row("a", "pgd20", 0.6, 4 / 255),
        row("a", "pgd20", 0.5),
        row("a", "pgd20", 0.9, 16 / 255, attack_settings=other),
    )
    assert len(sweep.lines["pgd20"]["a"]) == 2


def test_eps_axis_counts_in_255ths_where_all_radii_are_such():
    rows = [row("a", "clean", 0.8), *(row("a", "pgd20", 0.5, k / 255) for k in (2, 8, 16))]
    axes = draw(eps_chart(eps_sweep(*rows))).axes[0]
    assert (axes.get_xlabel(), ticks(axes)) == ("eps (1/255)", ["0", "2", "8", "16"])
    rows = [row("a", "pgd20", 0.5, eps) for eps in (0.1, 0.25)]
    axes = draw(eps_chart(eps_sweep(*rows))).axes[0]
    assert (axes.get_xlabel(), ticks(axes)) == ("eps", ["0.1", "0.25"])


def test_lines_are_in_percent_under_the_names_as_shown():
    rows = [
        row(run, "pgd20", score, eps, reliability="masking" if run == "a" else "")
        for run, score in (("a", 0.5), ("b", 0.25))
        for eps in (0.1, 0.2)
    ]
    figure = draw(eps_chart(eps_sweep(*rows)))
    assert lines(figure) == {"a†": [(0.1, 50), (0.2, 50)], "b": [(0.1, 25), (0.2, 25)]}


def test_a_method_keeps_its_colour_when_others_have_no_sweep():
    rows = [row("b", "pgd20", 0.5, eps) for eps in (0.1, 0.2)]
    others = [*rows, row("a", "fgsm", 0.5, 0.1)]
    figures = [draw(eps_chart(eps_sweep(*known))) for known in (rows, others)]
    colours = [figure.legends[0].get_lines()[0].get_color() for figure in figures]
    assert colours[0] != colours[1]


# steps ------------------------------------------------------------------------------------------


def steps_of(*rows: dict[str, Any]) -> Sweep:
    (setting,) = settings(pd.DataFrame(rows))
    return steps_sweep(setting)


def test_steps_sweep_takes_the_attacks_that_differ_in_steps_alone():
    sweep = steps_of(
        row("a", "clean", 0.8),
        *(row("a", f"pgd{n}", 0.6 - n / 1000) for n in (1, 10, 100)),
        row("a", "cw20", 0.5),
        row("a", "autoattack", 0.4),
    )
    assert list(sweep.lines) == ["pgdN"]
    assert points(sweep, "a") == {1: 0.599, 10: 0.59, 100: 0.5}


def test_pgd_with_restarts_is_another_line_and_one_number_of_steps_is_none():
    rows = [row("a", name, 0.5) for name in ("cw5", "cw20", "mim20")]
    assert list(steps_of(*rows).lines) == ["cwN"]
    assert steps_of(row("a", "pgd20", 0.5), row("a", "mim10", 0.5)).lines == {}


@pytest.mark.parametrize(("steps", "scale"), [((5, 10, 20), "linear"), ((1, 5, 20), "log")])
def test_steps_axis_is_logarithmic_beyond_a_tenfold_span(steps: tuple[int, ...], scale: str):
    (setting,) = settings(pd.DataFrame([row("a", f"pgd{n}", 0.5) for n in steps]))
    chart = steps_chart(setting)
    assert chart is not None
    axes = draw(chart).axes[0]
    assert axes.get_xscale() == scale
    assert ticks(axes) == [str(n) for n in steps]


# imbalance ratio --------------------------------------------------------------------------------


def at_ratio(ratio: float, attack: str, score: float, **values: Any) -> dict[str, Any]:
    split = f"{ratio:g}" * 4
    values = {"imbalance_ratio": ratio, "split_sha256": split, "imbalance_type": "exp", **values}
    return row(f"a-{ratio:g}", attack, score, **values)


def test_ratio_sweep_takes_clean_and_the_strongest_attack_that_stands_at_two_ratios():
    rows = [at_ratio(r, a, s / r) for r in (10, 50, 100) for a, s in (("clean", 8), ("pgd20", 5))]
    rows += [at_ratio(50, "autoattack", 0.01), at_ratio(10, "fgsm", 0.7)]
    known = board(pd.DataFrame(rows))
    sweep = ratio_sweep(known.families[0])
    assert list(sweep.lines) == ["clean", "pgd20"]
    assert points(sweep, "a", "pgd20") == {10: 0.5, 50: 0.1, 100: 0.05}
    ((*_, chart),) = spanning_charts((), known.families)
    figure = draw(chart)
    assert [axes.get_title() for axes in figure.axes] == ["Clean", "PGD-20"]
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    assert ticks(figure.axes[0]) == ["10", "50", "100"]


def test_of_two_splits_at_one_ratio_the_larger_is_drawn():
    rows = [at_ratio(10, "clean", 0.8, n_train=900), at_ratio(50, "clean", 0.6, n_train=700)]
    small = at_ratio(50, "clean", 0.1, n_train=70)
    rows.append({**small, "run_id": "a-small", "split_sha256": "small"})
    (family,) = board(pd.DataFrame(rows)).families
    assert points(ratio_sweep(family), "a") == {10: 0.8, 50: 0.6}


# what spans groups, in a whole report -----------------------------------------------------------


def spanning(rows: list[dict[str, Any]]) -> dict[str, Figure]:
    """Figures of a report that span settings, by name."""
    known = board(pd.DataFrame(rows))
    return {
        name: figure
        for _, _, chart in spanning_charts(known.radii, known.families)
        for name, figure in print_chart(chart).items()
    }


def legend(figure: Figure) -> dict[str, Any]:
    (known,) = figure.legends
    pairs = zip(known.get_texts(), known.get_lines(), strict=True)
    return {text.get_text(): line.get_color() for text, line in pairs}


def test_eps_figure_of_a_report_has_its_daggers_and_keeps_colours():
    rows = [row("a", "fgsm", 0.7)]  # one radius: not in the figure
    rows += [row("b", "pgd20", 0.5, k / 255, reliability="masking") for k in (4, 8)]
    rows += [row("c", "pgd20", 0.4, k / 255, reliability="") for k in (4, 8)]
    marks = marks_for(("a", "b", "c"))
    figure = spanning(rows)["eps"]
    assert legend(figure) == {"b†": marks["b"].colour, "c": marks["c"].colour}


@pytest.mark.parametrize("flagged", [10.0, 50.0])
def test_ratio_figure_of_a_report_has_the_daggers_of_any_ratio(flagged):
    rows = []
    for ratio in (10.0, 50.0):
        for method, score in (("b", 0.5), ("c", 0.4)):
            checks = "masking" if (method, ratio) == ("b", flagged) else ""
            known = {"method": method, "reliability": checks, "n_train": 700}
            made = at_ratio(ratio, "clean", score, **known)
            rows.append(made | {"run_id": f"{method}-{ratio:g}"})
    small = at_ratio(50.0, "clean", 0.3, method="a", n_train=70)  # not in the figure
    rows.append(small | {"run_id": "a-50", "split_sha256": "small"})
    marks = marks_for(("a", "b", "c"))
    figure = spanning(rows)["ratios"]
    assert legend(figure) == {"b†": marks["b"].colour, "c": marks["c"].colour}


# cost -------------------------------------------------------------------------------------------


def cost_rows(seconds: dict[str, float]) -> pd.DataFrame:
    rows = [
        row(run, attack, score, train_seconds=time, seed=number)
        for number, (run, time) in enumerate(seconds.items())
        for attack, score in (("clean", 0.8), ("pgd20", 0.5), ("autoattack", 0.4))
    ]
    return pd.DataFrame(rows)


def cost_points(seconds: dict[str, float]) -> tuple[Series, ...]:
    (setting,) = settings(cost_rows(seconds))
    return charts(setting)["cost"].panels[0].series


def test_cost_is_training_time_against_the_strongest_attack_averaged_over_seeds():
    (point,) = cost_points({"a-0": 3600.0, "a-1": 10800.0})
    assert (point.name, point.x, point.y) == ("a", (2.0,), (pytest.approx(40),))
    reach = 1 * math.sqrt(2)
    assert point.x_ends == ((pytest.approx(2 - reach), pytest.approx(2 + reach)),)


def test_cost_is_shown_under_the_strongest_attack_that_all_methods_have():
    rows = cost_rows({"a-0": 3000.0, "b-0": 10.0})
    lacking = (rows["method"] == "b") & (rows["attack"] == "autoattack")
    (setting,) = settings(rows[~lacking])
    (panel,) = charts(setting)["cost"].panels
    assert {point.name for point in panel.series} == {"a", "b"}
    assert "PGD-20" in panel.y.title


def test_a_method_of_unknown_time_is_left_out():
    known = cost_points({"a-0": 3000.0, "a-1": math.nan, "b-0": 10.0})
    assert [point.name for point in known] == ["b"]


@pytest.mark.parametrize(
    ("seconds", "unit"), [(90.0, "seconds"), (600.0, "minutes"), (7300.0, "hours")]
)
def test_time_is_told_in_the_unit_that_fits(seconds: float, unit: str):
    (setting,) = settings(cost_rows({"a-0": seconds}))
    figure = draw(charts(setting)["cost"])
    axes = figure.axes[0]
    assert axes.get_xlabel() == f"training time ({unit})"
    assert figure.get_supxlabel() == "cpu, commit 00000000, wall time"
    assert axes.get_ylabel() == "balanced accuracy, AutoAttack (%)"
    assert [text.get_text() for text in axes.texts] == ["a"]


def test_without_an_attack_there_is_no_cost_figure():
    (setting,) = settings(pd.DataFrame([row("a", "clean", 0.5, train_seconds=60.0)]))
    assert "cost" not in charts(setting)


# overfitting ------------------------------------------------------------------------------------


def judged(best: int) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    metrics, _, histories = suite(methods=("trades", "at-bsl"), epochs=10)
    run = metrics.loc[metrics["method"] == "trades", "run_id"].iloc[0]
    epochs = histories[run]["epoch"]
    histories[run]["val_robust_acc"] = 0.3 - 0.01 * (epochs - best).abs()
    return metrics, histories


def test_overfitting_is_seen_where_epochs_were_judged_with_the_best_one_marked():
    metrics, histories = judged(best=4)
    (setting,) = settings(metrics, None, histories)
    figure = draw(charts(setting)["training"])
    assert len(figure.axes) == 3
    curves = {tuple(line.get_xdata()): line for line in figure.axes[2].get_lines()}
    assert len(figure.axes[2].get_lines()) == 3  # training, validation, best
    marked = curves[(4,)]
    assert marked.get_ydata()[0] == pytest.approx(30)
    first = next(line for line in figure.axes[2].get_lines() if len(line.get_xdata()) == 10)
    assert first.get_alpha() == 0.4


def test_without_judged_epochs_the_training_figure_has_no_third_panel():
    metrics, _, histories = suite(methods=("trades",))
    (setting,) = settings(metrics, None, histories)
    assert not setting.curves["trades"].known("val_robust_acc")
    assert len(draw(charts(setting)["training"]).axes) == 2


# images -----------------------------------------------------------------------------------------


def images(shape: tuple[int, ...], shift: float, count: int = 3) -> pd.DataFrame:
    clean = [np.full(shape, 100, dtype=np.uint8) for _ in range(count)]
    return pd.DataFrame(
        {
            "index": range(count),
            "label": range(count),
            "pred_clean": 0,
            "pred_adv": 1,
            "attack": "pgd20",
            "eps": 8 / 255,
            "clean": clean,
            "adversarial": [(image / 255 + shift).astype(np.float32) for image in clean],
        }
    )


def example_suite(classes: int = 10, **case: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    metrics, per_class, _ = suite(classes=classes, attacks=("clean", "pgd20"), **case)
    return metrics, per_class


def rows_of(
    metrics: pd.DataFrame, per_class: pd.DataFrame, examples: dict[str, pd.DataFrame]
) -> pd.DataFrame:
    return settings(metrics, per_class, examples=examples)[0].examples


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(axes.get_images()[0].get_array()) for axes in figure.axes]


@pytest.mark.parametrize("shape", [(3, 6, 6), (1, 6, 6), (6, 6)])
def test_the_change_fills_the_range_at_eps_and_is_grey_at_none(shape: tuple[int, ...]):
    metrics, per_class = example_suite(methods=("trades",))
    run = metrics["run_id"].iloc[0]
    for shift, grey in ((8 / 255, 1.0), (0.0, 0.5), (-8 / 255, 0.0)):
        figure = adversarial_figure(rows_of(metrics, per_class, {run: images(shape, shift)}))
        clean, adversarial, change = pictures(figure)[:3]
        np.testing.assert_allclose(clean, 100 / 255, atol=1e-6)
        np.testing.assert_allclose(adversarial, 100 / 255 + shift, atol=1e-6)
        np.testing.assert_allclose(change, grey, atol=1e-5)
        assert "magnified 15.9 times" in figure.texts[-1].get_text()
        assert "PGD-20, eps 8/255" in figure.texts[-1].get_text()


def test_an_l2_change_is_scaled_by_the_largest_pixel():
    rows = images((1, 4, 4), 0.05)
    rows["adversarial"] = [image * 0 + (100 / 255 - 0.05) for image in rows["adversarial"]]
    rows = rows.assign(label="a", class_name="x", pred_clean="x", attack="pgd20-l2", eps=0.5)
    figure = adversarial_figure(rows)
    np.testing.assert_allclose(pictures(figure)[2], 0, atol=1e-5)
    assert "magnified 10.0 times" in figure.texts[-1].get_text()


def test_examples_stand_most_frequent_class_first_best_method_first_with_names():
    metrics, per_class = example_suite(methods=("trades", "taet"))
    per_class["n_train"] = 100 + per_class["class_index"]
    metrics.loc[metrics["method"] == "taet", "balanced_accuracy"] = 0.9
    examples = {run: images((1, 4, 4), 0.01) for run in metrics["run_id"].unique()}
    rows = rows_of(metrics, per_class, examples)
    assert rows["label"].tolist() == ["taet"] * 3 + ["trades"] * 3
    assert rows["class_name"].tolist()[:3] == ["bird", "automobile", "airplane"]
    assert set(rows["pred_clean"]) == {"airplane"}
    assert set(rows["pred_adv"]) == {"automobile"}
    texts = [text.get_text() for text in adversarial_figure(rows, {"taet": "taet†"}).texts]
    assert {"taet†", "trades", "bird", "✗ airplane", "airplane"} <= set(texts)


def test_examples_of_attacks_that_are_not_in_the_group_are_left_out():
    metrics, per_class = example_suite(methods=("trades",))
    run = metrics["run_id"].iloc[0]
    for other in ({"attack": "pgd7"}, {"eps": 0.5}):
        assert rows_of(metrics, per_class, {run: images((1, 4, 4), 0).assign(**other)}).empty
    assert rows_of(metrics, per_class, {}).empty


def test_every_method_is_drawn_four_a_figure_and_what_is_left_out_is_named():
    metrics, per_class = example_suite(methods=tuple("abcdefg"))
    metrics["reliability"] = np.where(metrics["method"] == "g", "masking", "")
    known = metrics.loc[metrics["method"] != "g", "run_id"].unique()
    examples = {run: images((1, 4, 4), 0, count=10) for run in known}
    (setting,) = settings(metrics, per_class, examples=examples)
    first, second = adversarial_figures(setting).values()
    assert (len(first.axes), len(second.axes)) == (4 * 6 * 3, 2 * 6 * 3)
    names = [text.get_text() for text in first.texts][:6]
    assert (names[0], names[-1]) == ("airplane", "truck")
    written = {text.get_text() for figure in (first, second) for text in figure.texts}
    assert set("abcdef") <= written
    notes = [" ".join(figure.texts[-1].get_text().split()) for figure in (first, second)]
    assert "Methods 1 to 4 of 6." in notes[0]
    assert "Methods 5 to 6 of 6." in notes[1]
    for note in notes:
        assert "6 of 10 stored classes, evenly spaced." in note
        assert "No stored examples under this attack: g†." in note


def test_a_report_has_a_file_for_each_figure_of_images():
    metrics, per_class = example_suite(methods=tuple("abcde"))
    examples = {run: images((1, 4, 4), 0, count=2) for run in metrics["run_id"].unique()}
    names = {name for name in render(metrics, per_class, {}, examples=examples) if "advers" in name}
    assert names == {
        f"figures/adversarial{page}.{kind}" for page in ("", "-2") for kind in ("png", "pdf")
    }


# ticks ------------------------------------------------------------------------------------------


def test_ticks_that_would_touch_are_left_out():
    assert apart([0.0, 0.5, 1.0], ["1", "10", "100"], 2.0) == [0, 1, 2]
    assert apart([0.0, 0.01, 0.02, 1.0], ["19", "20", "21", "100"], 2.0) == [0, 3]


# names as shown ---------------------------------------------------------------------------------


def test_names_stand_as_shown_in_every_figure_that_names_methods():
    metrics, per_class, histories = suite(methods=("trades", "taet"), classes=3)
    metrics["reliability"] = np.where(metrics["method"] == "trades", "masking", "")
    drawn = charts(settings(metrics, per_class, histories)[0])
    for name, flagged in (("per-class", "TRADES†"), ("balance", "TRADES†"), ("training", "TRADES")):
        texts = {text.get_text() for text in draw(drawn[name]).findobj(Text)}
        assert {flagged, "TAET"} <= texts
        assert not {"trades", "taet"} & texts


@pytest.mark.parametrize("lines", [1, 2, 4])
def test_the_legend_of_many_methods_stands_above_the_lines_below(lines: int):
    names = [f"m{number:02}" for number in range(40)]
    rows = [row for name in names for row in cost_rows({f"{name}-0": 60.0}).to_dict("records")]
    (setting,) = settings(pd.DataFrame(rows))
    chart = charts(setting)["cost"]
    figure = draw(replace(chart, foot=chart.foot * lines))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box, foot = legend.get_window_extent(), figure._supxlabel.get_window_extent()
    assert len(legend.get_texts()) == 40
    assert box.y0 >= foot.y1
    assert foot.y0 >= 0
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert lowest >= box.y1
