"""Training curves say of which images and over what their accuracies are."""

from __future__ import annotations

import re

import pytest
from report_fixtures import suite

from ltrobust.report.aggregate import training_curves
from ltrobust.report.charts import _training_chart
from ltrobust.report.figures import training_figure
from ltrobust.report.groups import comparable_groups


def judged(select: str):
    """One group whose runs chose their epoch by `select`, and its histories."""
    metrics, _, histories = suite(methods=("trades",), epochs=5, select=select)
    if select != "last":
        for history in histories.values():
            history["val_robust_acc"] = 0.3
    (group,) = comparable_groups(metrics)
    return group, histories


@pytest.mark.parametrize(
    ("select", "images", "measured", "other"),
    [
        ("best", "held-out training images", "mean of classes under PGD-10", "test images"),
        ("best-on-test", "test images", "share of images under PGD-20", "mean of classes"),
    ],
)
def test_the_chart_says_what_the_deciding_score_is(select, images, measured, other) -> None:
    chart = _training_chart(*judged(select))
    assert chart is not None
    view = next(view for view in chart.views if view.name == "Deciding images")
    axis = view.figure.layout.yaxis.title.text
    assert images in axis
    assert measured in axis
    assert other not in axis
    assert f"Deciding images: the {images}" in chart.note
    assert measured in chart.note
    assert "share of images" in chart.note.partition("Deciding")[0]


def test_on_training_images_is_said_of_the_training_alone() -> None:
    for select in ("last", "best"):
        chart = _training_chart(*judged(select))
        assert chart is not None
        said = re.search(r"([^.]*): on training images", chart.note)
        assert said is not None
        assert said[1] == "Robust accuracy and loss"
        assert ("Deciding" in chart.note) == (select == "best")


def test_the_figure_says_which_curve_is_a_mean_over_classes() -> None:
    group, histories = judged("best")
    figure = training_figure(training_curves(group, histories))
    titles = [axes.get_title() for axes in figure.axes]
    assert "held-out images: mean of classes" in titles[2]
    assert "test images and training: of images" in titles[2]
