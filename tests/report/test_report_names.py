"""What keeps its name, file or look when others join: tables of the main setting, marks."""

from __future__ import annotations

import pandas as pd
import pytest
from report_fixtures import METHODS, render, suite

from ltrobust.method import METHODS as REGISTRY
from ltrobust.method import load_builtin_methods
from ltrobust.report.groups import comparable_groups
from ltrobust.report.names import MARKED
from ltrobust.report.style import MARKERS, PALETTE, marks_for

pytestmark = pytest.mark.usefixtures("light_figures")

ATTACKS = ("clean", "pgd20", "autoattack")
COMPARED = ("at-bsl", "taet")


@pytest.fixture(autouse=True)
def _without_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)


def tables(metrics: pd.DataFrame) -> dict[str, str]:
    files = render(metrics, pd.DataFrame(columns=["run_id", "attack", "class_index"]), {})
    return {name: str(text) for name, text in files.items() if name.startswith("tables/")}


def one_radius(metrics: pd.DataFrame) -> pd.DataFrame:
    attacked = metrics[metrics["attack"] != "clean"]
    return attacked.assign(eps=4 / 255, balanced_accuracy=0.5 * attacked["balanced_accuracy"] + 0.3)


def other_runs(metrics: pd.DataFrame, **values: object) -> pd.DataFrame:
    return metrics.assign(run_id=metrics["run_id"] + "x", **values)


JOINING = {
    "one more radius on every run": one_radius,
    "one more radius of one run": lambda m: one_radius(m[m["method"] == "taet"]).head(1),
    "a smaller ratio": lambda m: other_runs(m, imbalance_ratio=10.0, split_sha256="cd" * 32),
    "step": lambda m: other_runs(m, imbalance_type="step", split_sha256="cd" * 32),
    "fewer test images": lambda m: m[m["attack"] == "pgd20"].assign(n=300),
    "another recipe": lambda m: other_runs(m, recipe="paper"),
    "changed values": lambda m: other_runs(m, recipe_changes="lr=0.05"),
    "one method elsewhere": lambda m: other_runs(m[m["method"] == "taet"], arch="wrn-34-10"),
}


@pytest.mark.parametrize("case", JOINING)
def test_the_main_settings_tables_keep_their_names_and_content(case: str) -> None:
    metrics, _, _ = suite(COMPARED, attacks=ATTACKS)
    before = tables(metrics)
    assert "tables/leaderboard.tex" in before
    joined = pd.concat([metrics, JOINING[case](metrics)], ignore_index=True)
    assert len(comparable_groups(joined)) == 2
    after = tables(joined)
    assert before.items() <= after.items()
    assert len([name for name in after if name.startswith("tables/leaderboard-")]) == 3


def test_a_group_keeps_its_name_when_a_third_joins() -> None:
    metrics, _, _ = suite(COMPARED, attacks=ATTACKS)
    second = pd.concat([metrics, one_radius(metrics)], ignore_index=True)
    third = pd.concat([second, other_runs(metrics, recipe="paper")], ignore_index=True)
    before, after = ({g.slug for g in comparable_groups(rows)} for rows in (second, third))
    assert before < after


# marks ------------------------------------------------------------------------------------------


def test_every_shipped_method_has_a_place_of_its_own() -> None:
    load_builtin_methods()
    defenses = {
        name: REGISTRY.get(name) for name in REGISTRY if REGISTRY.get(name).kind == "defense"
    }
    shipped = [n for n, cls in defenses.items() if cls.__module__.startswith("ltrobust.methods.")]
    assert set(shipped) <= set(MARKED), "append new methods to style.MARKED"
    assert len(set(marks_for(MARKED).values())) == len(MARKED) == len(set(MARKED))


@pytest.mark.parametrize("company", [(), METHODS, ("a", "b", "zzz"), ("taet+awp", "mine", "taet2")])
def test_a_shipped_method_looks_the_same_in_any_company(company: tuple[str, ...]) -> None:
    alone = {name: marks_for([name])[name] for name in MARKED}
    for name in MARKED:
        assert marks_for([name, *company])[name] == alone[name]


def test_variants_have_the_colour_of_their_method_and_marks_of_their_own() -> None:
    labels = ["taet", "taet (3f2a1b)", "taet+awp", "at-bsl+awp", "pgd-at"]
    marks = marks_for(labels)
    assert len(set(marks.values())) == len(labels)
    assert len({marks[name].colour for name in labels[:3]}) == 1
    assert marks["at-bsl+awp"].colour == marks_for(["at-bsl"])["at-bsl"].colour
    assert marks["at-bsl+awp"] != marks_for(["at-bsl"])["at-bsl"]


def test_many_variants_of_one_method_can_be_told_apart() -> None:
    labels = ["pgd-at", "trades", *(f"pgd-at+m{n:02}" for n in range(20)), "trades+awp", "mine"]
    marks = marks_for(labels)
    assert len({(mark.colour, mark.marker) for mark in marks.values()}) == len(labels)
    assert len({(mark.colour, mark.dash) for mark in marks.values()}) == len(labels)
    same = [name for name in labels if marks[name].colour == marks["pgd-at"].colour]
    assert same[:6] == ["pgd-at", *labels[2:7]], "as many as its colour has"


def test_all_looks_are_used_before_one_comes_again() -> None:
    marks = marks_for([*(f"at-bsl+m{n:02}" for n in range(30)), *(f"m{n:02}" for n in range(19))])
    assert len({(mark.colour, mark.marker) for mark in marks.values()}) == 49


def test_other_names_of_a_shipped_method_have_its_mark() -> None:
    assert marks_for(["TAET"], {"TAET": "taet"})["TAET"] == marks_for(["taet"])["taet"]


def test_forty_methods_can_be_told_apart_in_every_kind_of_figure() -> None:
    marks = marks_for([*MARKED, *(f"m{n:02}" for n in range(40 - len(MARKED)))]).values()
    assert len({(mark.colour, mark.marker) for mark in marks}) == 40
    assert len({(mark.colour, mark.dash) for mark in marks}) == 40
    assert len({(mark.colour, mark.hatch) for mark in marks}) == 40
    many = marks_for(f"m{n:03}" for n in range(300)).values()
    assert len(set(many)) == 300
    assert {mark.colour for mark in many} == set(PALETTE)
    assert {mark.marker for mark in many} == set(MARKERS)
