"""The charts of one group of comparable results, as plotly figures with hover values.

Each chart has one or more views of which a reader sees one at a time. Averages come from
`aggregate.py`; nothing here writes HTML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from ltrobust.evaluation.concerns import concerns
from ltrobust.report.aggregate import robust_attack, scores, training_curves
from ltrobust.report.chart_parts import (
    BAR_ERROR,
    DASHES,
    HATCHES,
    Chart,
    View,
    as_percent,
    attack_title,
    duration,
    error_bars,
    facts,
    hover,
    hover_text,
    identity,
    marker,
    new_chart,
    plain,
    quantity,
    ranked_marks,
    rounded,
    seeds_text,
)
from ltrobust.report.class_charts import ClassResults, class_chart
from ltrobust.report.cost_figure import drawn_costs, training_costs
from ltrobust.report.groups import Group
from ltrobust.report.marks import FLAG, doubted, flagged_checks, shown_names, sign_of
from ltrobust.report.readings import Reading, Readings
from ltrobust.report.style import Mark, short

_LABELLED_POINTS = 7
_MARKED_EPOCHS = 30
_DECIDING = {
    "best": ("held-out training images", "mean of classes under PGD-10"),
    "val": ("held-out training images", "mean of classes under PGD-10"),
    "best-on-test": ("test images", "share of images under PGD-20"),
}
"""By what an epoch is chosen, by `select`: the images, and what is measured on them."""
_DECIDING_UNKNOWN = ("images", "score")


def group_charts(
    group: Group,
    found: Readings,
    classes: ClassResults,
    histories: Mapping[str, pd.DataFrame],
) -> list[Chart]:
    """All charts of a group, in reading order; those that nothing is known for are left out.

    Args:
        group: the results.
        found: its `readings`.
        classes: its `class_results`.
        histories: run id to its history.csv; runs may be missing.
    """
    charts = [
        _balance_chart(group, found),
        class_chart(group, classes),
        _attack_chart(group, found),
        _training_chart(group, histories),
        _cost_chart(group, found),
    ]
    return [chart for chart in charts if chart is not None]


def _balance_chart(group: Group, found: Readings) -> Chart | None:
    robust = robust_attack(scores(group))
    if robust is None or "clean" not in group.attacks:
        return None
    views = []
    for name, score in (("All classes", "balanced_accuracy"), ("Tail classes", "tail")):
        what = "balanced accuracy" if score != "tail" else "tail accuracy"
        figure = new_chart(f"clean {what} (%)", f"{what} under {attack_title(robust)} (%)")
        for label, mark in ranked_marks(group).items():
            x, y = found[label, "clean", score], found[label, robust, score]
            if x.known and y.known:
                figure.add_trace(_point(group, label, mark, x, y, robust, what))
        _turn_labels(figure)
        views.append(View(name, figure))
    note = (
        "Up and to the right is better: right on clean images, and still right under "
        f"{attack_title(robust)}. {_bars_note(group)}"
    )
    return Chart("balance", "Balanced accuracy against balanced robustness", note, tuple(views))


def _point(
    group: Group, label: str, mark: Mark, x: Reading, y: Reading, robust: str, what: str
) -> go.Scatter:
    lines = [
        f"Clean {what}: {quantity(x)}",
        f"Under {attack_title(robust)}: {quantity(y)}",
        facts(group, label),
    ]
    point = _named_point(group, label, mark, as_percent(x.mean), y, lines, ["clean", robust])
    return point.update(error_x=error_bars([x], mark.colour))


def _named_point(
    group: Group,
    label: str,
    mark: Mark,
    x: float | None,
    y: Reading,
    lines: list[str],
    attacks: Sequence[str],
) -> go.Scatter:
    """One method as a point with its name, where there are few, and its hover text."""
    shown = shown_names(group, attacks)[label]
    return go.Scatter(
        x=[x],
        y=[as_percent(y.mean)],
        mode="markers+text" if len(group.labels) <= _LABELLED_POINTS else "markers",
        text=[plain(short(shown))],
        cliponaxis=False,
        error_y=error_bars([y], mark.colour),
        marker=marker(mark, 11),
        **identity(group, label),
        **hover([hover_text(shown, lines)]),
    )


def _turn_labels(figure: go.Figure) -> None:
    """Let the names of points in the right half stand to their left, inside the chart."""
    places = [float(trace.x[0]) for trace in figure.data]
    middle = (min(places, default=0) + max(places, default=0)) / 2
    for trace, x in zip(figure.data, places, strict=True):
        trace.textposition = "top left" if x > middle else "top right"


def _attack_chart(group: Group, found: Readings) -> Chart | None:
    attacks = [name for name in group.attacks if name != "clean"]
    if not attacks:
        return None
    scored = (("Balanced", "balanced_accuracy"), ("Image", "accuracy"), ("Tail", "tail"))
    flagged, views = flagged_checks(group), []
    for name, score in scored:
        figure = new_chart("", f"{name.lower()} accuracy (%)")
        for label, mark in ranked_marks(group).items():
            cells = [found[label, attack, score] for attack in attacks]
            texts = [
                hover_text(
                    label + sign_of(group, label, attack),
                    [
                        f"{name} accuracy under {attack_title(attack)}: {quantity(cell)}",
                        facts(group, label),
                        *(f"{FLAG} {plain(c)}" for c in flagged[label] if concerns(c, attack)),
                    ],
                )
                for attack, cell in zip(attacks, cells, strict=True)
            ]
            figure.add_trace(
                go.Bar(
                    x=[plain(attack_title(attack)) for attack in attacks],
                    y=[as_percent(cell.mean) for cell in cells],
                    text=[
                        sign_of(group, label, attack) if cell.known else ""
                        for attack, cell in zip(attacks, cells, strict=True)
                    ],
                    textposition="inside",
                    insidetextanchor="start",
                    textangle=0,
                    error_y=error_bars(cells, BAR_ERROR),
                    marker={
                        "color": mark.colour,
                        "pattern": {"shape": HATCHES[mark.hatch], "fillmode": "overlay"},
                    },
                    **identity(group, label),
                    **hover(texts),
                )
            )
        figure.update_layout(barmode="group", bargap=0.22, bargroupgap=0.06)
        figure.update_yaxes(rangemode="tozero")
        views.append(View(name, figure))
    mark_note = (
        f" {FLAG} in a bar: a flagged reliability check puts it in doubt."
        if any(attack != "clean" for _, attack in doubted(group))
        else ""
    )
    note = f"Weakest attack on the left. {_bars_note(group)}{mark_note}"
    return Chart("attacks", "Accuracy under each attack", note, tuple(views))


def _training_chart(group: Group, histories: Mapping[str, pd.DataFrame]) -> Chart | None:
    curves = training_curves(group, histories)
    images, measured = _DECIDING.get(str(group.key["select"]), _DECIDING_UNKNOWN)
    views = []
    for name, column, axis, scale in (
        ("Robust accuracy", "train_robust_acc", "robust training accuracy, of images (%)", 100.0),
        ("Loss", "train_loss", "training loss", 1.0),
        ("Deciding images", "val_robust_acc", f"robust accuracy, {images}, {measured} (%)", 100.0),
    ):
        if curves.empty or curves[f"{column}_mean"].isna().all():
            continue
        figure = new_chart("epoch", axis)
        for label, mark in ranked_marks(group).items():
            known = curves[f"{column}_mean"].notna()
            own = curves[(curves["label"] == label) & known]
            if not own.empty:
                figure.add_trace(_curve(group, label, mark, own, column, scale))
        views.append(View(name, figure))
    if not views:
        return None
    several = any(len(group.seeds(label)) > 1 for label in group.labels)
    shown = {view.name for view in views}
    deciding = (
        f" Deciding images: the {images} that the epoch is chosen by; its accuracy is the "
        f"{measured}, so that its height does not compare with the training's."
    )
    note = (
        "Robust accuracy and loss: on training images, from the training passes themselves; the "
        "accuracy is the share of images. Methods have losses of their own: loss curves compare "
        "shapes, not heights."
        f"{deciding if 'Deciding images' in shown else ''}"
        f"{' Means over seeds.' if several else ''}"
    )
    return Chart("training", "Training curves", note, tuple(views))


def _curve(
    group: Group, label: str, mark: Mark, own: pd.DataFrame, column: str, scale: float
) -> go.Scatter:
    seeds = seeds_text(group, label)
    texts = []
    for epoch, mean, std in own[["epoch", f"{column}_mean", f"{column}_std"]].itertuples(
        index=False
    ):
        unit = "%" if scale > 1 else ""
        spread = "" if math.isnan(std) else f" ± {scale * std:.2f}{unit}"
        lines = [f"Epoch {int(epoch)}: {scale * mean:.2f}{unit}{spread}", seeds]
        texts.append(hover_text(label, lines))
    return go.Scatter(
        x=[int(epoch) for epoch in own["epoch"]],
        y=[rounded(scale * value) for value in own[f"{column}_mean"]],
        mode="lines+markers" if len(own) <= _MARKED_EPOCHS else "lines",
        line={"color": mark.colour, "dash": DASHES[mark.dash], "width": 2},
        marker=marker(mark, 6),
        **identity(group, label),
        **hover(texts),
    )


def _cost_chart(group: Group, found: Readings) -> Chart | None:
    frame, others = drawn_costs(training_costs(group))
    if frame.empty:
        return None
    marks = ranked_marks(group)
    robust = attack_title(str(frame["attack"].iloc[0]))
    figure = new_chart("training time (minutes)", f"balanced accuracy under {robust} (%)")
    for row in frame.to_dict("records"):
        label = str(row["label"])
        reading = found[label, str(row["attack"]), "balanced_accuracy"]
        lines = [
            f"Training: {duration(row['seconds_mean'])}",
            f"Under {robust}: {quantity(reading)}",
            facts(group, label),
            plain(row["conditions"]),
        ]
        minutes = rounded(row["seconds_mean"] / 60)
        attacks = [str(row["attack"])]
        figure.add_trace(_named_point(group, label, marks[label], minutes, reading, lines, attacks))
    _turn_labels(figure)
    figure.update_xaxes(rangemode="tozero")
    note = (
        f"Up and to the left is better. Times are means over seeds. {_bars_note(group)} Measured "
        f"on {frame['conditions'].iloc[0] or 'an unknown device'}; times of a busy machine say "
        "little about a method."
    )
    if others:
        shown = shown_names(group, [str(frame["attack"].iloc[0])])
        names = ", ".join(shown[label] for label in others)
        note += f" Not drawn, because measured on another device, threads or commit: {names}."
    return Chart("cost", "Cost against robustness", note, (View("Training time", figure),))


def _bars_note(group: Group) -> str:
    several = {len(group.runs(label)) > 1 for label in group.labels}
    texts = {
        True: "one sample standard deviation over seeds",
        False: "the 95% interval over test images (one seed)",
    }
    return f"Error bars: {' or '.join(texts[kind] for kind in sorted(several, reverse=True))}."
