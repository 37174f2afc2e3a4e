"""Training curves say of which images and over what their accuracies are."""

from __future__ import annotations

import re

import pytest
from report_fixtures import charts, settings, suite

from ltrobust.report.chart import Chart
from ltrobust.report.printed import draw


def judged(select: str) -> Chart:
    """The training chart of a setting whose runs chose their epoch by `select`."""
    metrics, _, histories = suite(methods=("trades",), epochs=5, select=select)
    if select != "last":
        for history in histories.values():
            history["val_robust_acc"] = 0.3
    (setting,) = settings(metrics, None, histories)
    return charts(setting)["training"]


@pytest.mark.parametrize(
    ("select", "images", "measured", "other"),
    [
        ("best", "held-out training images", "mean of classes under PGD-10", "test images"),
        ("best-on-test", "test images", "share of images under PGD-20", "mean of classes"),
    ],
)
def test_the_chart_says_what_the_deciding_score_is(select, images, measured, other) -> None:
    chart = judged(select)
    axis = next(panel for panel in chart.panels if panel.name == "Deciding images").y.title
    assert images in axis
    assert measured in axis
    assert other not in axis
    assert f"Deciding images: the {images}" in chart.note
    assert measured in chart.note
    assert "share of images" in chart.note.partition("Deciding")[0]


def test_on_training_images_is_said_of_the_training_alone() -> None:
    for select in ("last", "best"):
        chart = judged(select)
        said = re.search(r"([^.]*): on training images", chart.note)
        assert said is not None
        assert said[1] == "Robust accuracy and loss"
        assert ("Deciding" in chart.note) == (select == "best")


def test_the_figure_says_which_curve_is_a_mean_over_classes() -> None:
    figure = draw(judged("best"))
    titles = [axes.get_title() for axes in figure.axes]
    assert "held-out images: mean of classes" in titles[2]
    assert "test images and training: of images" in titles[2]
