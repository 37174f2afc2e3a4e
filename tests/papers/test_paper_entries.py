"""The shipped entries: they load, name what exists, and find published values for what they say."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import yaml
from papers_fixtures import CIFAR

from ltrobust.combination import canonical
from ltrobust.errors import UserError
from ltrobust.evaluation.metrics import class_groups
from ltrobust.method import load_builtin_methods
from ltrobust.papers.claims import published_difference
from ltrobust.papers.entries import (
    SCALES,
    entry_names,
    read_entry,
    read_scales,
    shipped_folder,
)
from ltrobust.papers.published import TORCHATTACKS, find, read_values, select
from ltrobust.papers.reproduce import make_jobs

FOLDER = shipped_folder()
NAMES = entry_names(FOLDER)
VALUES = read_values(FOLDER)
UNPUBLISHED = "Not published: "
"""How the text of an ordering begins that no source has values for."""


def test_there_are_entries_of_each_paper() -> None:
    papers = ("robal-", "at-bsl-", "taet-", "robustlt-", "overfitting-")
    assert {paper for name in NAMES for paper in papers if paper in name} == set(papers)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_without_results_says_so(name: str) -> None:
    stored = Path(__file__).parents[2] / "results" / "papers" / name / "comparison.csv"
    assert ("Not run yet" in read_entry(FOLDER, name).note) == (not stored.is_file())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", SCALES)
def test_an_entry_can_be_planned_at_each_scale(name: str, scale, tmp_path: Path) -> None:
    (job,) = make_jobs([name], FOLDER, scale, {"output": tmp_path, "device": "cpu"})
    assert job.runs()
    archs = {planned.run.arch for planned in job.runs()}
    assert ("small-cnn" in archs) == (scale == "cpu")


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_compares_with_runs_that_it_plans(name: str, tmp_path: Path) -> None:
    entry = read_entry(FOLDER, name)
    (job,) = make_jobs([name], FOLDER, "cpu", {"output": tmp_path, "device": "cpu"})
    load_builtin_methods()
    planned = {
        (p.run.method, p.run.data.imbalance_ratio, spec.name)
        for plan in job.plans
        for p in plan.runs
        for spec in p.attacks
    }
    for value in select(entry, VALUES):
        if value.ours is not None:
            assert value.ours.method == canonical(value.ours.method)
            assert (value.ours.method, value.ratio, value.attack) in planned


@pytest.mark.parametrize("name", NAMES)
def test_every_selector_finds_published_values(name: str) -> None:
    entry = read_entry(FOLDER, name)
    for selector in entry.published:
        one = entry.model_copy(update={"published": (selector,)})
        assert select(one, VALUES)


@pytest.mark.parametrize("name", NAMES)
def test_published_values_imply_every_claim(name: str) -> None:
    entry = read_entry(FOLDER, name)
    published = select(entry, VALUES)
    for claim in entry.claims:
        difference = published_difference(claim, published)
        if claim.text.startswith(UNPUBLISHED):
            assert math.isnan(difference), claim.text
        else:
            assert difference > 0, claim.text


@pytest.mark.parametrize("name", NAMES)
def test_no_claim_rests_on_a_doubtful_value_or_on_torchattacks(name: str) -> None:
    entry = read_entry(FOLDER, name)
    published = select(entry, VALUES)
    for claim in entry.claims:
        if claim.text.startswith(UNPUBLISHED):
            continue
        for cell in (*claim.more, *claim.less):
            value = find(published, cell)
            assert value is not None
            assert not value.doubt
            assert value.published_attack != TORCHATTACKS


def test_robal_by_ratio_is_never_a_target_where_the_table_does_not_say_which_robal() -> None:
    reasons = {
        value.method: value.selector.reason
        for value in select(read_entry(FOLDER, "robal-by-ratio"), VALUES)
    }
    assert reasons == {
        "PGD-AT": "",
        "TRADES": "",
        "RoBal": "the table does not say N or R, and differs from Table 2",
    }


def test_two_measurements_of_best_and_last_epoch_are_told() -> None:
    entry = read_entry(FOLDER, "at-bsl-overfitting")
    logged = ["in-train log" in value.notes for value in select(entry, VALUES)]
    assert len(set(logged)) == 2  # one of the two is no log
    assert "mixes two measurements" in entry.note


def values_of(name: str, **wanted: object) -> dict[str, float]:
    """Published values of an entry in percent, by method, of those that have these fields."""
    found = [
        value
        for value in select(read_entry(FOLDER, name), VALUES)
        if all(getattr(value, key) == wish for key, wish in wanted.items())
    ]
    return {value.method: round(100 * value.value, 2) for value in found}


def test_robustlts_table_has_its_bases_with_and_without_it() -> None:
    tail = "mean:bird,cat,deer,dog,frog,horse,ship,truck"
    assert values_of("robustlt-table", attack="pgd20", metric="accuracy") == {
        "PGD-AT": 27.28,
        "PGD-AT+RobustLT": 28.97,
        "AWP": 28.50,
        "AWP+RobustLT": 29.11,
        "RoBal": 32.29,
        "RoBal+RobustLT": 36.08,
        "AT-BSL": 37.98,
        "AT-BSL+RobustLT": 42.11,
    }
    assert values_of("robustlt-table", attack="pgd20", metric=tail)["AT-BSL+RobustLT"] == 35.98
    shown = select(read_entry(FOLDER, "robustlt-table"), VALUES)
    assert {value.ours for value in shown if value.ours is None} == set()
    assert all(value.ratio == 50 for value in shown)


def test_taets_scatter_has_all_eleven_methods() -> None:
    entry = read_entry(FOLDER, "taet-eleven")
    assert len(entry.suites[0]["methods"]) == 11
    balanced = values_of("taet-eleven", attack="pgd20", metric="balanced")
    assert len(balanced) == 11
    assert balanced["TAET"] == 30.12  # of the table, not the 35.1 of the figure
    assert balanced["LAS-AT"] == 27.8
    tail = "mean:dog,frog,horse,ship,truck"
    assert len(values_of("taet-eleven", attack="pgd20", metric=tail)) == 11
    assert values_of("taet-eleven", attack="clean", metric=tail)["TAET"] == 73.0
    assert all(value.selector.reason for value in select(entry, VALUES))


def test_robals_tricks_are_sixteen_and_each_has_a_run_of_ours() -> None:
    clean = values_of("robal-tricks", attack="clean")
    assert len(clean) == 16
    assert clean["PGD-AT post-hoc re-scaling"] == 73.84
    shown = select(read_entry(FOLDER, "robal-tricks"), VALUES)
    methods = {value.ours.method for value in shown if value.ours}
    assert len(methods) == 16
    base = values_of("robal-tricks", attack="pgd20")["PGD-AT vanilla FC"]
    assert values_of("robal-tricks", attack="pgd20")["PGD-AT post-hoc re-scaling"] - base == (
        pytest.approx(9.75)
    )


def test_the_groups_of_the_overfitting_are_those_of_the_reports() -> None:
    claims = read_entry(FOLDER, "overfitting-by-group").claims
    groups = class_groups([5000, 3237, 2096, 1357, 878, 568, 368, 238, 154, 100])
    for group, members in groups.items():
        (claim,) = (
            c for c in claims if c.text.endswith(f"one on the {group} classes under PGD-20")
        )
        assert claim.more[0].classes == tuple(CIFAR[c] for c in members)


def test_a_papers_tail_needs_its_classes(tmp_path: Path) -> None:
    entry = read_entry(FOLDER, "robustlt-table")
    (selector,) = entry.published
    untold = entry.model_copy(update={"published": (selector.model_copy(update={"tail": ()}),)})
    metrics = {value.metric for value in select(untold, VALUES)}
    assert metrics == {"accuracy", "tail80_accuracy"}  # which no number of ours is


def test_values_are_percent_with_a_source() -> None:
    accuracies = VALUES[VALUES["metric"].str.contains("accuracy|robustness")]
    assert accuracies["value"].between(0, 100).all()
    assert (VALUES["source"] != "").all()


def test_suite_settings_win_over_those_of_the_scale() -> None:
    entry = read_entry(FOLDER, "robal-table")
    first, second = entry.settings(read_scales(FOLDER), "cpu")
    assert (first["limit_test"], second["limit_test"]) == (1000, 200)
    full = entry.settings(read_scales(FOLDER), "full")[1]
    assert full["arch"] == "wrn-34-10"
    assert "limit_test" not in full
    assert not {"full", "cpu"} & full.keys()


def write(folder: Path, **changes) -> Path:
    """A folder with one small entry, and published values of two methods."""
    folder.mkdir(exist_ok=True)
    entry = {
        "title": "A table",
        "method": "at-bsl",
        "draw": "bars",
        "suites": [{"dataset": "digits-lt", "methods": ["at-bsl"], "attacks": ["clean"]}],
        "published": [{"where": {"method": "AT-BSL"}, "ours": {"AT-BSL": "at-bsl"}}],
        **changes,
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(entry))
    (folder / "_scales.yaml").write_text("cpu: {arch: small-cnn}\nfull: {}\n")
    row = dict(VALUES.iloc[0]) | {"method": "AT-BSL", "value": "50", "setting_notes": ""}
    pd.DataFrame([row]).to_csv(folder / "published_numbers.csv", index=False)
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draw": "pie"}, "unknown drawing in mine.yaml: 'pie'"),
        ({"titel": "x"}, "mine.yaml: titel"),
        ({"published": []}, "mine.yaml: published"),
        ({"published": [{"where": {"methods": "AT-BSL"}}]}, "did you mean 'method'"),
        ({"published": [{"where": {"method": "Nobody"}}]}, "no published value has method: Nobody"),
        ({"claims": [{"text": "x", "more": {"attack": "clean"}}]}, "claims.0.less"),
    ],
)
def test_a_mistake_in_an_entry_is_one_clear_line(tmp_path, changes, message) -> None:
    folder = write(tmp_path, **changes)
    with pytest.raises(UserError) as error:
        select(read_entry(folder, "mine"), read_values(folder))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_claim_compares_cells_with_cells_and_gains_with_gains(tmp_path) -> None:
    cell = {"method": "at-bsl", "attack": "clean"}
    folder = write(tmp_path, claims=[{"text": "x", "more": [cell, cell], "less": cell}])
    with pytest.raises(UserError, match="both a gain"):
        read_entry(folder, "mine")


def test_a_value_that_is_no_number_is_named_by_its_line(tmp_path) -> None:
    file = write(tmp_path) / "published_numbers.csv"
    file.write_text(file.read_text().replace(",50,", ",fifty,"))
    with pytest.raises(UserError, match="line 2: value 'fifty'"):
        read_values(tmp_path)
