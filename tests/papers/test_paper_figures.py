"""Every kind of figure renders from stored results, with and without ours, all text apart."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from papers_fixtures import job, store_flags, store_results

from ltrobust.bench.plan import PlannedRun
from ltrobust.papers.compare import compare
from ltrobust.papers.entries import entry_names, read_scales, shipped_folder
from ltrobust.papers.figures import entry_chart, figure_note, scale_note
from ltrobust.papers.ours import Ours
from ltrobust.papers.published import read_values
from ltrobust.report import printed
from ltrobust.results.records import to_bytes
from ltrobust.results.store import SuiteStore

FOLDER = shipped_folder()
VALUES = read_values(FOLDER)


def draw(name: str, output: Path, *, done: bool = True) -> Figure:
    made = job(name, output)
    store = store_results(made, output) if done else SuiteStore(output)
    ours = Ours(made.plans, store)
    frame = compare(made.entry, VALUES, ours, "cpu")
    return printed.draw(entry_chart(made.entry, frame, VALUES, ours, "cpu"))


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


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "robal-tricks" else ())
        for name in entry_names(FOLDER)
    ],
)
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
    realised = sum(int(500 * 10 ** (-c / 9)) for c in range(10))  # as stored, not as asked
    assert realised != cpu["limit_train"]
    trained = f"{cpu['epochs']} epochs, {realised:,} training images"
    assert f"{cpu['arch']}, {trained}" in note
    assert "test images: 400; AA-APGD 200" in note
    assert "values do not" in note


def test_every_run_of_ours_is_drawn_as_a_bar_of_its_height(tmp_path) -> None:
    made = job("robal-table", tmp_path)
    ours = Ours(made.plans, store_results(made, tmp_path))
    frame = compare(made.entry, VALUES, ours, "cpu")
    figure = printed.draw(entry_chart(made.entry, frame, VALUES, ours, "cpu"))
    heights = sorted(round(bar.get_height(), 6) for bar in figure.axes[0].patches)
    expected = sorted(round(100 * v, 6) for v in [*frame["ours"], *frame["published"]])
    assert heights == expected


def test_a_published_trick_keeps_its_name_in_the_gain_figure(tmp_path) -> None:
    texts = {text.get_text() for text in shown_texts(draw("robal-fake-gain", tmp_path))}
    assert {"post-hoc re-scaling", "re-weighting (CB)", "RoBal-R", "RoBal-N"} <= texts


def test_the_range_is_told_where_runs_had_different_training_images(tmp_path) -> None:
    made = job("robal-table", tmp_path)
    store = store_results(made, tmp_path)
    run = next(iter(store.runs()))
    record = run.begun_record()
    data = record.data.model_copy(update={"train_counts": [100] * 10})
    (run.path / "run.json").write_bytes(to_bytes(record.model_copy(update={"data": data})))
    assert "1,000 to 2,040 training images" in scale_note(Ours(made.plans, store))


def test_a_figure_at_full_scale_tells_its_test_images_and_no_scale(tmp_path) -> None:
    made = job("taet-tail", tmp_path)
    ours = Ours(made.plans, store_results(made, tmp_path))
    frame = compare(made.entry, VALUES, ours, "full")
    note = figure_note(made.entry, frame, ours, "full")
    assert note == "test images: 400 (200 in the 5 classes drawn, 40 a class)"


@pytest.mark.parametrize("name", ["robal-table", "robal-by-ratio", "taet-tail", "taet-scatter"])
def test_a_flagged_run_has_a_dagger_that_is_explained(name, tmp_path) -> None:
    made = job(name, tmp_path)
    store = store_results(made, tmp_path)
    store_flags(store, {"robal-r": "tiny-logits"})
    ours = Ours(made.plans, store)
    frame = compare(made.entry, VALUES, ours, "cpu")
    figure = printed.draw(entry_chart(made.entry, frame, VALUES, ours, "cpu"))
    texts = [text.get_text() for text in shown_texts(figure)]
    assert [text for text in texts if "RoBal-R" in text] == ["RoBal-R†"]
    assert not any("†" in text for text in texts if "PGD-AT" in text)
    assert any("† a reliability check puts a number" in text for text in texts)


def test_a_gain_of_ours_has_the_dagger_and_the_published_one_has_not(tmp_path) -> None:
    made = job("robal-fake-gain", tmp_path)
    store = store_results(made, tmp_path)
    store_flags(store, {"robal-r": "tiny-logits"})
    ours = Ours(made.plans, store)
    frame = compare(made.entry, VALUES, ours, "cpu")
    figure = printed.draw(entry_chart(made.entry, frame, VALUES, ours, "cpu"))
    published, mine = ({text.get_text() for text in axes.texts} for axes in figure.axes)
    assert "RoBal-R" in published
    assert {"RoBal-R†", "RoBal-N"} <= mine


def test_overfitting_names_what_is_a_mean_over_classes_and_joins_no_published_points(
    tmp_path,
) -> None:
    figure = draw("at-bsl-overfitting", tmp_path)
    names = {text.get_text() for text in shown_texts(figure)}
    assert {"held out, PGD-10, mean of classes", "training, PGD, all images"} <= names
    assert figure.axes[1].get_ylabel() == "robust, all images (%)"
    hollow = [
        line
        for line in figure.axes[1].get_lines()
        if line.get_markerfacecolor() == "white" and len(line.get_xdata()) == 2
    ]
    assert [line.get_linestyle() for line in hollow] == ["None"]


@pytest.mark.parametrize("panel", [0, 1])
def test_no_name_in_the_scatter_lies_on_a_point(panel, tmp_path) -> None:
    """Ours spread the axes so far that REAT's name would meet a published point beside it."""
    ours_at = {"robal-r": (0.55, 0.42), "at-bsl": (0.45, 0.33), "taet": (0.22, 0.12)}

    def chance(planned: PlannedRun, attack: str, labels: np.ndarray) -> np.ndarray:
        return np.full(len(labels), ours_at.get(planned.run.method, (0, 0))[attack != "clean"])

    made = job("taet-scatter", tmp_path)
    ours = Ours(made.plans, store_results(made, tmp_path, chance))
    frame = compare(made.entry, VALUES, ours, "cpu")
    figure = printed.draw(entry_chart(made.entry, frame, VALUES, ours, "cpu"))
    figure.draw_without_rendering()
    axes = figure.axes[panel]
    names = [text for text in axes.texts if text.get_text()]
    assert {text.get_text() for text in names} == {"MART", "REAT"}
    half = 2.5 * figure.dpi / 72  # of a marker of five points
    for line in axes.get_lines():
        for x, y in axes.transData.transform(line.get_xydata()):
            box = Bbox.from_extents(x - half, y - half, x + half, y + half)
            for text in names:
                assert not Text.get_window_extent(text).overlaps(box), text.get_text()
