"""Every kind of figure renders from stored results, with and without ours, all text apart."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from papers_fixtures import job, store_results

from ltrobust.bench.store import SuiteStore
from ltrobust.papers.compare import compare
from ltrobust.papers.entries import entry_names, read_scales, shipped_folder
from ltrobust.papers.figures import entry_figure
from ltrobust.papers.ours import Ours
from ltrobust.papers.published import read_values

FOLDER = shipped_folder()
VALUES = read_values(FOLDER)


def draw(name: str, output: Path, *, done: bool = True) -> Figure:
    made = job(name, output)
    store = store_results(made, output) if done else SuiteStore(output)
    ours = Ours(made.plans, store)
    frame = compare(made.entry, VALUES, ours, "cpu")
    return entry_figure(made.entry, frame, VALUES, ours, "cpu")


def shown_texts(figure: Figure) -> list[Text]:
    """Every text that is drawn; tick labels outside an axis' limits are not."""
    texts = [*figure.texts, *(t for legend in figure.legends for t in legend.get_texts())]
    if figure._suptitle is not None and figure._suptitle not in texts:  # type: ignore[attr-defined]
        texts.append(figure._suptitle)  # type: ignore[attr-defined]
    for axes in figure.axes:
        texts += [axes.title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            slack = 1e-9 * (high - low)
            ticks = axis.get_major_ticks()
            texts += [t.label1 for t in ticks if low - slack <= t.get_loc() <= high + slack]
    return [text for text in texts if text.get_visible() and text.get_text().strip()]


@pytest.mark.parametrize("name", entry_names(FOLDER))
@pytest.mark.parametrize("done", [True, False], ids=["with ours", "before any run"])
def test_a_figure_renders_with_all_text_apart_and_on_the_canvas(name, done, tmp_path) -> None:
    figure = draw(name, tmp_path, done=done)
    figure.draw_without_rendering()
    boxes = [(text, Text.get_window_extent(text)) for text in shown_texts(figure)]
    assert boxes
    canvas = figure.bbox.padded(0.5)
    for text, box in boxes:
        inside = canvas.x0 <= box.x0 and box.x1 <= canvas.x1
        inside = inside and canvas.y0 <= box.y0 and box.y1 <= canvas.y1
        assert inside, f"'{text.get_text()}' leaves the canvas"
    for (one, first), (other, second) in itertools.combinations(boxes, 2):
        assert not first.overlaps(second), f"'{one.get_text()}' on '{other.get_text()}'"


def test_a_figure_at_cpu_scale_says_so(tmp_path) -> None:
    texts = [text.get_text() for text in shown_texts(draw("robal-table", tmp_path))]
    (note,) = [text for text in texts if "CPU scale" in text]
    cpu = read_scales(FOLDER)["cpu"]
    trained = f"{cpu['epochs']} epochs, {cpu['limit_train']:,} training images"
    assert f"{cpu['arch']}, {trained}" in note
    assert "values do not" in note


def test_every_run_of_ours_is_drawn_as_a_bar_of_its_height(tmp_path) -> None:
    made = job("robal-table", tmp_path)
    ours = Ours(made.plans, store_results(made, tmp_path))
    frame = compare(made.entry, VALUES, ours, "cpu")
    figure = entry_figure(made.entry, frame, VALUES, ours, "cpu")
    heights = sorted(round(bar.get_height(), 6) for bar in figure.axes[0].patches)
    expected = sorted(round(100 * v, 6) for v in [*frame["ours"], *frame["published"]])
    assert heights == expected


def test_a_published_trick_keeps_its_name_in_the_gain_figure(tmp_path) -> None:
    texts = {text.get_text() for text in shown_texts(draw("robal-fake-gain", tmp_path))}
    assert {"post-hoc re-scaling", "re-weighting (CB)", "robal-r", "robal-n"} <= texts
