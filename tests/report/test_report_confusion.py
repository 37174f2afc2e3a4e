"""Confusions under the strongest attack: counts, the table of tail classes, and the heat maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from report_fixtures import METHODS, charts, class_name, confused, render, settings, suite
from test_report_figures import MANY, assert_readable

from ltrobust.report.classes import ClassFact
from ltrobust.report.confusion import Confusions
from ltrobust.report.names import method_title
from ltrobust.report.printed import draw
from ltrobust.report.setting import Setting
from ltrobust.report.tables import confusion_table

pytestmark = pytest.mark.usefixtures("light_figures")

ATTACKS = ("clean", "pgd20", "autoattack")


def setting_of(classes: int = 10, **case: object) -> tuple[Setting, pd.DataFrame]:
    metrics, per_class, _ = suite(classes=classes, attacks=ATTACKS, **case)
    metrics, per_class, confusion = confused(metrics, per_class, classes)
    return settings(metrics, per_class, confusion=confusion)[0], per_class


def collected(classes: int = 10, **case: object) -> tuple[Confusions, pd.DataFrame]:
    setting, per_class = setting_of(classes, **case)
    assert setting.mistakes is not None
    return setting.mistakes, per_class


def test_counts_are_those_of_the_strongest_attack_most_frequent_class_first():
    found, per_class = collected()
    assert found.attack == "autoattack"
    sizes = [fact.n_train for fact in found.classes]
    assert sizes == sorted(sizes, reverse=True)
    for method in METHODS:
        rows = per_class[(per_class["method"] == method) & (per_class["attack"] == "autoattack")]
        counts = found.counts[method]
        assert counts.shape == (10, 10)
        assert counts.sum(axis=1).tolist() == rows["n_test"].tolist()
        assert counts.diagonal().tolist() == (rows["accuracy"] * rows["n_test"]).round().tolist()
        assert counts.sum() == counts.diagonal().sum() + counts[1:, 0].sum() + counts[0, 1]


def test_seeds_of_a_method_are_added_up():
    found, per_class = collected(methods=("taet",), seeds=(0, 1))
    rows = per_class[per_class["attack"] == "autoattack"]
    right = (rows["accuracy"] * rows["n_test"]).round().groupby(rows["class_index"]).sum()
    assert found.counts["taet"].diagonal().tolist() == right.tolist()
    assert found.counts["taet"].sum() == 2000


def test_the_strongest_attack_that_all_seeds_have_is_shown():
    metrics, per_class, _ = suite(methods=("taet", "trades"), seeds=(0, 1), attacks=ATTACKS)
    metrics, per_class, confusion = confused(metrics, per_class)
    gone = (metrics["method"] == "taet") & (metrics["seed"] == 1)
    metrics = metrics[~(gone & (metrics["attack"] == "autoattack"))]
    found = settings(metrics, per_class, confusion=confusion)[0].mistakes
    assert found is not None
    assert found.attack == "pgd20"
    assert sorted(found.counts) == ["taet", "trades"]


def test_destinations_by_hand():
    setting, _ = setting_of(methods=("taet",))
    dog, cat, ant = (
        ClassFact(2, "dog", 9, "head"),
        ClassFact(0, "cat", 5, "tail"),
        ClassFact(1, "ant", 1, "tail"),
    )
    counts = np.array([[8, 1, 1], [5, 2, 3], [0, 10, 0]])
    mistakes = Confusions("pgd20", (dog, cat, ant), {"taet": counts})
    table = confusion_table(replace(setting, mistakes=mistakes))
    assert table is not None
    columns = ["class", "n_train", "right", "1st", "2nd", "3rd"]
    assert table.frame[columns].to_numpy().tolist() == [
        ["cat", 5, 0.2, "dog 50.00", "ant 30.00", "-"],
        ["ant", 1, 0.0, "cat 100.00", "-", "-"],
    ]
    assert table.data is not None
    assert table.data["prediction"].tolist() == ["dog", "ant", "cat", "cat"]


def test_the_table_has_every_tail_class_of_every_method():
    metrics, per_class, histories = suite(attacks=ATTACKS)
    metrics, per_class, confusion = confused(metrics, per_class)
    files = render(metrics, per_class, histories, None, confusion)
    table = files["tables/confusion.md"]
    assert isinstance(table, str)
    rows = [line for line in table.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(METHODS) * 3
    for index in (7, 8, 9):
        assert sum(f"| {class_name(index)} |" in row for row in rows) == len(METHODS)
    assert "Tail classes under AutoAttack" in table
    for kind in ("png", "pdf"):
        assert f"figures/confusion.{kind}" in files
    without = render(metrics, per_class, histories)
    assert not [name for name in without if "confusion" in name]


def test_nothing_is_made_of_clean_results_alone():
    metrics, per_class, _ = suite(attacks=("clean",))
    metrics, per_class, confusion = confused(metrics, per_class)
    assert settings(metrics, per_class, confusion=confusion)[0].mistakes is None


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"methods": ("pgd-at",), "classes": 2},
        {"methods": ("pgd-at", "taet"), "classes": 100},
        {"methods": MANY, "classes": 100},
        {"methods": MANY},
        {"methods": MANY[:1], "classes": 20},
        {"methods": MANY[:5], "classes": 16},
        {"methods": ("my $method_" + "x" * 40, r"c\frac$")},
    ],
)
def test_heat_maps_are_readable(case):
    setting, _ = setting_of(**case)
    found, figure = setting.mistakes, draw(charts(setting)["confusion"])
    assert_readable(figure, f"confusion of {case}")
    images = [axes for axes in figure.axes if axes.images]
    assert len(images) == len(found.counts)
    for axes, counts in zip(images, found.counts.values(), strict=True):
        shares = axes.images[0].get_array()
        assert shares.sum(axis=1).tolist() == pytest.approx([100] * len(counts))


def test_classes_that_have_numbers_are_named_below():
    def below(case):
        figure = draw(charts(setting_of(**case)[0])["confusion"])
        return (figure.get_supxlabel() or "").replace("\n", " ")

    many = below({"methods": MANY})
    assert many.startswith(f"classes: 1 {class_name(0)}, 2 {class_name(1)}")
    assert many.endswith(f", 10 {class_name(9)}")
    assert below({}) == "", "their names stand beside the squares"
    assert below({"methods": MANY, "classes": 100}) == ""


def test_names_of_classes_stay_on_a_wide_canvas():
    figure = draw(charts(setting_of(methods=MANY[:13])[0])["confusion"], 6.9)
    assert_readable(figure, "confusion of two columns")


def test_a_long_name_of_a_combination_stands_in_two_lines():
    methods = [f"at-bsl+{name}" for name in ("awp", "robustlt", "robustlt+awp", *"abcdefgh")]
    figure = draw(charts(setting_of(methods=tuple(methods))[0])["confusion"])
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert "AT-BSL+\nRobustLT+AWP" in titles
    assert len(set(titles)) == len(methods)


def test_many_classes_have_few_tick_labels():
    setting, _ = setting_of(methods=("taet",), classes=100)
    figure = draw(charts(setting)["confusion"])
    figure.draw_without_rendering()
    texts = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert texts == ["1", "21", "41", "61", "81"]


def test_heat_maps_carry_the_mark_of_a_flagged_method():
    metrics, per_class, _ = suite(attacks=ATTACKS)
    metrics, per_class, confusion = confused(metrics, per_class)
    metrics["reliability"] = ["noise" if name == "taet" else "" for name in metrics["method"]]
    (setting,) = settings(metrics, per_class, confusion=confusion)
    titles = {axes.get_title() for axes in draw(charts(setting)["confusion"]).axes}
    assert titles - {""} == {*map(method_title, METHODS), "TAET†"} - {"TAET"}
