"""Figures at the extremes of size: all text on the canvas, no two labels on each other."""

from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox
from report_fixtures import METHODS, charts, metric_row, render, settings, suite

from ltrobust.errors import Notice, UserError
from ltrobust.report import figure_bytes, printed, style
from ltrobust.report.labels import Point, count_ticks, freeze, label_points
from ltrobust.report.names import method_title
from ltrobust.report.style import Look, new_figure, parse_look

MANY = tuple(f"defense-number-{place}" for place in range(20))
EVERY_ATTACK = (
    "clean",
    "fgsm",
    "pgd20",
    "pgd100",
    "mim20",
    "cw20",
    "lsa20",
    "aa-apgd",
    "autoattack",
)
CASES = {
    "usual": {},
    "seeds": {"seeds": (0, 1, 2), "attacks": ("clean", "pgd20", "autoattack")},
    "two classes, one method, clean only": {
        "methods": ("pgd-at",),
        "classes": 2,
        "attacks": ("clean",),
    },
    "one class": {"methods": ("pgd-at",), "classes": 1},
    "100 classes, 20 methods": {"methods": MANY, "classes": 100, "attacks": ("clean", "pgd20")},
    "10 classes, 20 methods, 9 attacks": {"methods": MANY, "attacks": EVERY_ATTACK},
    "long names with signs": {"methods": ("my $method_" + "x" * 40, "b" * 40, r"c\frac$")},
    "one epoch": {"methods": ("trades",), "epochs": 1},
}


def draw(**case) -> dict[str, Figure]:
    return draw_frames(*suite(**case))


def draw_frames(*frames) -> dict[str, Figure]:
    return {
        name: figure
        for chart in charts(settings(*frames)[0]).values()
        if chart.printed
        for name, figure in printed.print_chart(chart).items()
    }


def shown(texts: list[Text]) -> list[Text]:
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


def boxes(texts: list[Text]) -> list[Bbox]:
    return [Text.get_window_extent(text) for text in shown(texts)]


def assert_apart(texts: list[Text], what: str) -> None:
    for first, second in itertools.combinations(boxes(texts), 2):
        assert not first.overlaps(second), what


def drawn_tick_labels(axis) -> list[Text]:
    low, high = sorted(axis.get_view_interval())
    margin = 1e-9 * (high - low)
    ticks = [t for t in axis.get_major_ticks() if low - margin <= t.get_loc() <= high + margin]
    return [label for tick in ticks for label in (tick.label1, tick.label2)]


def assert_readable(figure: Figure, name: str) -> None:
    figure.draw_without_rendering()
    canvas = figure.bbox.padded(0.5)
    axes = [panel for panel in figure.axes if panel.get_visible()]
    ticks = [drawn_tick_labels(axis) for panel in axes for axis in (panel.xaxis, panel.yaxis)]
    free = [
        text
        for panel in axes
        for text in (panel.title, panel.xaxis.label, panel.yaxis.label, *panel.texts)
    ]
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    for group in ticks:
        assert_apart(group, f"{name}: tick labels overlap")
    everything = [*free, *legends, *figure.texts, *itertools.chain(*ticks)]
    assert_apart(everything, f"{name}: texts overlap")
    assert boxes(everything)
    for text, box in zip(shown(everything), boxes(everything), strict=True):
        inside = canvas.x0 <= box.x0 and box.x1 <= canvas.x1
        inside = inside and canvas.y0 <= box.y0 and box.y1 <= canvas.y1
        assert inside, f"{name}: '{text.get_text()}' leaves the canvas"


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=pytest.mark.slow if "20 methods" in c else ()) for c in CASES]
)
def test_all_text_is_on_the_canvas_and_apart(case):
    for name, figure in draw(**CASES[case]).items():
        assert_readable(figure, f"{case}, {name}")


@pytest.mark.parametrize(("columns", "inches"), [(1, 3.25), (2, 6.9)])
@pytest.mark.parametrize("methods", [METHODS, pytest.param(MANY, marks=pytest.mark.slow)])
def test_figures_for_a_papers_columns_have_all_text_apart(columns, inches, methods):
    look = Look(columns=columns)
    frames = suite(methods=methods, attacks=("clean", "pgd20", "autoattack"), epochs=5)
    for chart in charts(settings(*frames)[0]).values():
        for name, figure in printed.print_chart(chart, look).items() if chart.printed else ():
            assert figure.get_figwidth() == inches
            assert_readable(figure, name)
            for legend in figure.legends:
                box = legend.get_window_extent()
                assert not any(box.overlaps(axes.bbox) for axes in figure.axes), name


def test_fonts_are_embedded_and_text_stays_text():
    figure = draw(methods=("trades",))["balance"]
    pdf = figure_bytes(figure, "pdf")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


def test_words_for_looks_are_checked():
    assert parse_look("slides", "1") == Look("slides", 1)
    assert parse_look(None, None) == Look()
    assert Look("slides", 2).dpi == 2 * Look(columns=2).dpi
    for words in (("poster", None), (None, "3")):
        with pytest.raises(UserError, match="known: "):
            parse_look(*words)


def test_one_panel_a_method_and_one_label_a_point():
    figures = draw()
    known = sorted(map(method_title, METHODS))
    titles = [axes.get_title() for axes in figures["per-class"].axes if axes.get_title()]
    assert sorted(titles) == known
    for axes in figures["balance"].axes:
        names = [text.get_text() for text in axes.texts if isinstance(text, Annotation)]
        assert sorted(names) == known


def test_a_method_keeps_its_colour_when_another_has_no_history():
    metrics, per_class, histories = suite()
    full = draw_frames(metrics, per_class, histories)["training"]
    del histories[metrics.loc[metrics["method"] == "at-bsl", "run_id"].iloc[0]]
    part = draw_frames(metrics, per_class, histories)["training"]

    def colours(figure: Figure) -> dict[str, str]:
        legend = figure.legends[0]
        pairs = zip(legend.get_texts(), legend.get_lines(), strict=True)
        return {text.get_text(): line.get_color() for text, line in pairs}

    assert colours(part) == {k: v for k, v in colours(full).items() if k != "AT-BSL"}


def test_curves_stop_where_a_seed_has_no_epoch():
    metrics, _, histories = suite(methods=("trades",), seeds=(0, 1))
    short = settings(metrics)[0].runs("trades")[1]
    (setting,) = settings(metrics, None, {**histories, short: histories[short].head(5)})
    assert setting.curves["trades"].epochs.tolist() == [0, 1, 2, 3, 4]


def test_drawing_leaves_global_matplotlib_state_alone():
    before = dict(plt.rcParams)
    draw(methods=("trades",))
    assert dict(plt.rcParams) == before
    assert plt.get_fignums() == []


def test_user_settings_do_not_change_a_figure():
    plain = figure_bytes(draw(methods=("trades",))["attacks"], "png")
    with plt.rc_context({"font.size": 20, "axes.facecolor": "red"}):
        assert figure_bytes(draw(methods=("trades",))["attacks"], "png") == plain


@pytest.mark.parametrize(("low", "high"), [(50, 7500), (6, 180), (1, 2), (0.5, 1.5), (3, 90_000)])
def test_count_axis_has_few_round_ticks(low, high):
    ticks = count_ticks(low, high)
    assert 1 <= len(ticks) <= 4
    assert all(low <= tick <= high for tick in ticks)


def test_report_files_and_bytes_are_the_same_twice():
    data = suite(methods=("trades",), attacks=("clean", "pgd20"))
    first, second = render(*data), render(*data)
    assert first == second
    tables = [
        f"tables/{name}.{kind}"
        for name in ("leaderboard", "balanced", "groups", "intervals", "per-class", "cost")
        for kind in ("md", "tex", "csv")
    ]
    names = ("per-class", "balance", "training", "attacks")
    figures = [f"figures/{n}.{k}" for n in names for k in ("png", "pdf")]
    assert sorted(first) == sorted(["leaderboard.csv", "tables/references.bib", *tables, *figures])
    pdf, png = first["figures/balance.pdf"], first["figures/balance.png"]
    assert isinstance(pdf, bytes)
    assert isinstance(png, bytes)
    assert pdf.startswith(b"%PDF")
    assert b"CreationDate" not in pdf
    assert png.startswith(b"\x89PNG")


def test_file_names_carry_the_group_when_there_are_several(outlined):
    metrics, per_class, histories = suite(methods=("trades",), attacks=("clean", "pgd20"))
    other = metrics.assign(recipe="paper", run_id="other")
    import pandas as pd

    with outlined():
        files = render(pd.concat([metrics, other]), per_class, histories)
    assert "leaderboard.csv" in files
    assert "tables/balanced.md" in files  # of the main setting, whatever joins it
    assert "tables/balanced-cifar10-lt-ir50-resnet18-paper.md" in files
    assert "figures/attacks-cifar10-lt-ir50-resnet18-paper.pdf" in files
    assert "tables/balanced-cifar10-lt-ir50-resnet18-unified.md" not in files


def test_csv_keeps_full_precision(outlined):
    metrics, per_class, histories = suite(methods=("trades",), attacks=("clean",))
    metrics["accuracy"] = 1 / 3
    with outlined():
        text = render(metrics, per_class.iloc[:0], histories)["leaderboard.csv"]
    assert isinstance(text, str)
    assert repr(1 / 3) in text


@pytest.mark.parametrize("seed", range(4))
def test_no_line_to_a_name_runs_through_another_name(seed: int):
    generator = np.random.default_rng(seed)
    points = [
        Point(f"Defense-{n}" if n < 8 else "", *place, 1.5, 1.5)
        for n, place in enumerate(generator.normal(50, 3, (25, 2)).tolist())
    ]
    figure = new_figure(3.5)
    axes = figure.add_subplot()
    axes.set(xlim=(20, 80), ylim=(20, 80))
    freeze(figure)
    label_points(axes, points, 7)
    figure.draw_without_rendering()
    boxes = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}
    lines = {text.get_text(): text.arrow_patch for text in axes.texts if text.arrow_patch}
    assert len(boxes) == 8
    assert lines
    for name, line in lines.items():
        path = line.get_transform().transform_path(line.get_path())
        crossed = [other for other, box in boxes.items() if path.intersects_bbox(box, False)]
        assert set(crossed) <= {name}, f"the line of {name}"


def test_a_half_is_rounded_up_in_every_cell():
    means = [0.2555, 0.2505, *[0.1] * 7]  # of which one lies a bit below as binary number
    rows = [
        metric_row(f"{n}", method=f"m{n}", attack="pgd20", balanced_accuracy=mean)
        for n, mean in enumerate(means)
    ]
    (setting,) = settings(pd.DataFrame(rows))
    heat = charts(setting)["attacks"].panels[0].heat
    assert heat.values[:2] == ((25.6,), (25.1,))


def test_letters_that_the_font_lacks_are_told_once_in_words():
    metrics, per_class, _ = suite(("pgd-at",), attacks=("clean", "pgd20"))
    per_class["class_name"] = [f"猫{name}" for name in per_class["class_name"]]

    def drawn() -> None:
        for kind in ("png", "pdf"):
            figure_bytes(draw_frames(metrics, per_class)["per-class"], kind)

    style._TOLD.clear()
    with pytest.warns() as caught:
        drawn()
    told = [str(one.message) for one in caught if one.category is Notice]
    assert told == [
        "figures lack the letters 猫, which DejaVu Sans has not; tables and the page have them"
    ]
    assert not [one for one in caught if "Glyph" in str(one.message)]
