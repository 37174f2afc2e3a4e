"""When a published value agrees, differs or cannot be compared, and what a claim comes to."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from papers_fixtures import CIFAR, job, store_flags, store_results

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.errors import UserError
from ltrobust.papers.claims import judge
from ltrobust.papers.compare import AGREES, DIFFERS, compare, verdict, why_not
from ltrobust.papers.entries import (
    Cell,
    Claim,
    Variant,
    read_entry,
    read_scales,
    shipped_folder,
)
from ltrobust.papers.ours import Measured, Ours
from ltrobust.papers.published import read_values, select
from ltrobust.papers.reliability import reliability_note
from ltrobust.papers.tables import markdown, short_tables
from ltrobust.report.estimate import Estimate

FOLDER = shipped_folder()
VALUES = read_values(FOLDER)


def measured(value: float, half: float = 0.0196) -> Measured:
    return Measured(Estimate(value, value - half, value + half, n_seeds=1, n=1000), "balanced")


@pytest.mark.parametrize(
    ("published", "expected"),
    [
        (0.300, AGREES),
        # interval 1.96 + tolerance 1.5 + two standard errors of 1 = 5.46 points
        (0.354, AGREES),
        (0.246, AGREES),
        (0.355, DIFFERS),
        (0.245, DIFFERS),
    ],
)
def test_agrees_within_interval_tolerance_and_two_standard_errors(published, expected) -> None:
    assert verdict(published, measured(0.3), "") == expected


def test_a_reason_makes_a_value_not_comparable_however_near_it_is() -> None:
    assert verdict(0.3, measured(0.3), "cpu scale") == "not comparable: cpu scale"


@pytest.fixture(scope="module")
def values():
    """Published values of RoBal's table by (method, attack)."""
    found = select(read_entry(FOLDER, "robal-table"), VALUES)
    return {(value.method, value.attack): value for value in found}


@pytest.fixture(scope="module")
def full_runs(tmp_path_factory):
    """The runs of RoBal's table at full scale, by method."""
    made = job("robal-table", tmp_path_factory.mktemp("full"), scale="full")
    return {planned.run.method: planned.run for planned in made.runs()}


def test_the_same_training_and_test_set_can_be_compared(values, full_runs) -> None:
    run = full_runs["pgd-at"]
    assert why_not(values["PGD-AT", "pgd20"], [run], measured(0.3), "full") == ""


def test_no_value_is_a_target_at_cpu_scale(values, full_runs) -> None:
    run = full_runs["pgd-at"]
    assert why_not(values["PGD-AT", "pgd20"], [run], measured(0.3), "cpu") == "cpu scale"


def test_other_training_is_a_reason(values, full_runs) -> None:
    value, run = values["PGD-AT", "pgd20"], full_runs["pgd-at"]
    other = run.model_copy(update={"arch": "resnet18"})
    assert why_not(value, [other], measured(0.3), "full") == "architecture WRN-34-10, ours resnet18"
    shorter = run.model_copy(update={"recipe": run.recipe.model_copy(update={"epochs": 76})})
    assert why_not(value, [shorter], measured(0.3), "full") == "80 epochs, ours 76"
    chosen = run.model_copy(update={"select": "best-on-test"})
    assert "epoch: the last" in why_not(value, [chosen], measured(0.3), "full")


def test_another_test_set_or_none_is_a_reason_but_not_its_size(values, full_runs) -> None:
    value, run = values["PGD-AT", "pgd20"], full_runs["pgd-at"]
    tailed = dataclasses.replace(measured(0.3), test_protocol="long-tailed")
    assert why_not(value, [run], tailed, "full") == "balanced test set, ours long-tailed"
    small = Measured(Estimate(0.3, 0.2, 0.4, n_seeds=1, n=200), "balanced")
    assert why_not(value, [run], small, "full") == ""
    assert why_not(value, [run], None, "full") == "ours is missing"


def everything(name: str):
    return select(read_entry(FOLDER, name), VALUES)


@pytest.mark.parametrize("scale", ["cpu", "full"])
def test_doubtful_values_and_torchattacks_are_never_targets(scale, full_runs) -> None:
    seen = set()
    for value in [*everything("taet-scatter"), *everything("at-bsl-table")]:
        reason = why_not(value, list(full_runs.values()), measured(0.3), scale)
        if value.doubt:
            assert reason == value.doubt
            seen.add(reason.split(":")[0])
        elif "torchattacks" in value.published_attack:
            assert "another attack than the reference's" in reason
            seen.add("torchattacks")
    assert seen == {"SUSPECT", "CONFLICT", "torchattacks"}


def test_a_method_that_is_not_here_is_shown_without_a_number_of_ours(tmp_path) -> None:
    made = job("taet-tail", tmp_path)
    frame = compare(made.entry, VALUES, Ours(made.plans, store_results(made, tmp_path)), "full")
    reat = frame[frame["published_method"] == "REAT"]
    assert len(reat)
    assert set(reat["verdict"]) == {"not comparable: this entry has no run of the method"}
    assert reat["ours"].isna().all()


def test_autoattack_and_pgd_come_from_their_own_test_images(tmp_path) -> None:
    made = job("robal-table", tmp_path)
    ours = Ours(made.plans, store_results(made, tmp_path))
    frame = compare(made.entry, VALUES, ours, "cpu")
    n = frame.groupby("attack")["n"].unique().map(list).to_dict()
    assert n == {
        **{key: [400] for key in ("clean", "fgsm", "pgd20", "mim20", "cw20")},
        "aa-apgd": [200],
    }
    row = frame[(frame["method"] == "pgd-at") & (frame["attack"] == "pgd20")].iloc[0]
    assert row["low"] < row["ours"] < row["high"]
    assert row["difference"] == pytest.approx(row["ours"] - 0.2930)


def test_several_seeds_give_their_mean_and_students_interval(tmp_path) -> None:
    made = job("robal-fake-gain", tmp_path)
    plan = made.plans[0]
    more = [
        dataclasses.replace(p, run=p.run.model_copy(update={"seed": seed}))
        for p in plan.runs
        for seed in (0, 1, 2)
    ]
    plans = (dataclasses.replace(plan, runs=tuple(more)),)
    made = dataclasses.replace(made, plans=plans)
    ours = Ours(plans, store_results(made, tmp_path))
    found = ours.measure(Variant(method="pgd-at"), 50, "pgd20", "accuracy")
    assert found is not None
    assert [run.seed for run in found.runs] == [0, 1, 2]
    each = [
        one.evaluation.outcomes()["correct"].mean()
        for one in ours.find(Variant(method="pgd-at"), 50, "pgd20")
    ]
    assert found.value == pytest.approx(np.mean(each))
    half = 4.302652729911275 * np.std(each, ddof=1) / np.sqrt(3)
    assert found.interval == pytest.approx((found.value - half, found.value + half))
    assert found.estimate.error == pytest.approx(np.std(each, ddof=1) / np.sqrt(3))


def test_two_standard_errors_are_none_of_students_interval() -> None:
    """Two seeds: Student's half interval is 12.7 standard errors, and widens a verdict by 2."""
    wide = Measured(Estimate(0.3, std=0.01 * math.sqrt(2), n_seeds=2, n=1000), "balanced")
    edge = 0.3 + 0.12706 + 0.015 + 0.02
    assert verdict(edge - 0.001, wide, "") == AGREES
    assert verdict(edge + 0.001, wide, "") == DIFFERS


def test_one_seed_has_the_standard_error_of_its_wilson_interval(tmp_path) -> None:
    made = job("robal-fake-gain", tmp_path)
    ours = Ours(made.plans, store_results(made, tmp_path))
    found = ours.measure(Variant(method="pgd-at"), 50, "pgd20", "accuracy")
    assert found is not None
    low, high = found.interval
    assert found.estimate.error == pytest.approx((high - low) / 2 / 1.959963984540054)


def suites_with(tmp_path: Path, **changes) -> Ours:
    """What is stored for the fake-gain entry's one suite with some settings changed."""
    made = job("robal-fake-gain", tmp_path)
    settings = made.entry.settings(read_scales(FOLDER), "cpu")[0]
    plan = make_plan(make_settings({**settings, "output": tmp_path, **changes}))
    made = dataclasses.replace(made, plans=(plan,))
    return Ours(made.plans, store_results(made, tmp_path))


def test_two_radii_of_one_attack_are_not_averaged_as_if_they_were_seeds(tmp_path) -> None:
    ours = suites_with(tmp_path, attacks=["clean", "pgd5", "pgd5@0.05"])
    assert ours.measure(Variant(method="pgd-at"), 50, "clean", "accuracy") is not None
    with pytest.raises(UserError, match="2 evaluations of pgd-at under pgd5 with seed 0") as error:
        ours.measure(Variant(method="pgd-at"), 50, "pgd5", "accuracy")
    assert "eps 0.0313725, 0.05" in str(error.value)
    assert "\n" not in str(error.value)


def test_two_ratios_are_not_averaged_where_none_is_named(tmp_path) -> None:
    ours = suites_with(tmp_path, imbalance_ratio=[10, 50])
    assert ours.measure(Variant(method="pgd-at"), 50, "pgd20", "accuracy") is not None
    with pytest.raises(UserError, match=r"imbalance ratio \(10, 50\): say which"):
        ours.measure(Variant(method="pgd-at"), None, "pgd20", "accuracy")


def test_flagged_checks_reach_comparison_and_claims(tmp_path) -> None:
    made = job("robal-fake-gain", tmp_path)
    store = store_results(made, tmp_path)
    store_flags(store, {"robal-r": "tiny-logits"})
    ours = Ours(made.plans, store)
    frame = compare(made.entry, VALUES, ours, "cpu")
    assert list(frame.columns)[-1] == "reliability"
    mine = frame[frame["method"] != ""].groupby(["method", "attack"])["reliability"].unique()
    flagged = {cell: list(checks) for cell, checks in mine.items() if list(checks) != [""]}
    assert flagged == {("robal-r", "pgd20"): ["tiny-logits"]}  # AutoAttack sees through the scale
    claims = judge(made.entry, VALUES, ours)
    about = claims["claim"].str.startswith("RoBal-R") & claims["claim"].str.endswith("PGD-20")
    assert set(claims.loc[about, "reliability"]) == {"tiny-logits"}
    assert set(claims.loc[~about, "reliability"]) == {""}
    page = markdown(made.entry, frame, claims, "")
    assert "| robal-r† |" in page
    assert "robal-n†" not in page
    assert "† reliability checks flagged: robal-r (tiny-logits)" in page
    assert "under PGD-20† |" in page
    short, _ = short_tables(made.entry, frame, claims, "")
    assert r"robal-r\textdagger{}" in short.to_latex()


def test_a_check_that_is_flagged_at_some_ratios_is_told_with_them() -> None:
    rows = [
        {"label": "robal-r", "ratio": ratio, "n": 200, "reliability": checks}
        for ratio, checks in ((10.0, "tiny-logits;bpda"), (50.0, "tiny-logits"), (50.0, ""))
    ]
    frame = pd.DataFrame([*rows, {"label": "taet", "ratio": 10.0, "n": 200, "reliability": "bpda"}])
    assert "robal-r (tiny-logits, bpda at imbalance ratio 10); taet (bpda)" in reliability_note(
        frame
    )


def test_runs_without_a_reliability_report_say_so(tmp_path) -> None:
    made = job("robal-fake-gain", tmp_path)
    ours = Ours(made.plans, store_results(made, tmp_path))
    frame = compare(made.entry, VALUES, ours, "cpu")
    assert set(frame.loc[frame["n"] > 0, "reliability"]) == {"no report"}
    assert "No reliability report for any run of ours." in markdown(
        made.entry, frame, judge(made.entry, VALUES, ours), ""
    )


MORE = Cell(method="robal-r", attack="pgd20")
LESS = Cell(method="pgd-at", attack="pgd20")


def judged(tmp_path: Path, chances: dict[str, float], claim: Claim | None = None):
    """The verdict on "RoBal-R is above PGD-AT under PGD-20" where each has this accuracy."""

    def chance(planned, attack, labels):
        return np.full(len(labels), chances[planned.run.method])

    made = job("robal-fake-gain", tmp_path)
    claim = claim or Claim(text="above", more=(MORE,), less=(LESS,))
    entry = made.entry.model_copy(update={"claims": (claim,)})
    store = store_results(made, tmp_path, chance, n=200)
    return judge(entry, VALUES, Ours(made.plans, store)).iloc[0]


EVEN = {"pgd-at": 0.4, "trades": 0.4, "robal-n": 0.4, "robal-r": 0.4}


@pytest.mark.parametrize(
    ("robal", "expected"), [(0.7, "agrees"), (0.4, "within noise"), (0.1, "differs")]
)
def test_a_claim_follows_the_interval_of_our_difference(tmp_path, robal, expected) -> None:
    row = judged(tmp_path, EVEN | {"robal-r": robal})
    assert row["verdict"] == expected
    assert row["basis"] == "paired images"
    assert row["low"] <= row["ours"] <= row["high"]
    assert row["published"] == pytest.approx(0.3387 - 0.2930)


def test_a_claim_without_our_runs_is_not_measured(tmp_path) -> None:
    made = job("robal-fake-gain", tmp_path)
    from ltrobust.results.store import SuiteStore

    claims = judge(made.entry, VALUES, Ours(made.plans, SuiteStore(tmp_path)))
    assert set(claims["verdict"]) == {"not measured"}
    assert claims["published"].notna().all()


def test_a_claim_about_a_method_that_is_only_published_is_not_measured(tmp_path) -> None:
    made = job("robal-fake-gain", tmp_path)
    claims = judge(made.entry, VALUES, Ours(made.plans, store_results(made, tmp_path)))
    verdicts = claims.set_index("claim")["verdict"]
    assert verdicts.iloc[0] == "not measured"
    assert "re-scaling" in verdicts.index[0]
    assert "not measured" not in set(verdicts.iloc[1:])
    assert claims["published"].iloc[0] == pytest.approx((0.3905 - 0.2930) - (0.2823 - 0.2815))


def test_a_gain_against_itself_is_within_noise_with_a_width(tmp_path) -> None:
    gain = (MORE, LESS)
    claim = Claim(text="the same gain twice", more=gain, less=gain)
    row = judged(tmp_path, EVEN | {"robal-r": 0.7}, claim)
    assert row["ours"] == 0
    assert row["verdict"] == "within noise"
    assert row["low"] < 0 < row["high"]
    assert row["basis"] == "paired images"


def test_a_gain_that_the_same_images_lose_is_found_by_pairing(tmp_path) -> None:
    """RoBal-R gains under PGD-20 what it does not keep under APGD: both sides on 200 images."""

    def chance(planned, attack, labels):
        fake = planned.run.method == "robal-r" and attack == "pgd20"
        return np.where(labels < (7 if fake else 4), 1.0, 0.0)

    made = job("robal-fake-gain", tmp_path)
    claims = judge(
        made.entry, VALUES, Ours(made.plans, store_results(made, tmp_path, chance, n=200))
    )
    row = claims[claims["claim"].str.startswith("RoBal-R's gain")].iloc[0]
    assert row["ours"] == pytest.approx(0.3)
    # 60 of 200 images lose 1: (60 + .5 - .5) / 202 -+ 1.96 sqrt(((60 + 1) / 202 - mean^2) / 202)
    mean = 60 / 202
    half = 1.959963984540054 * np.sqrt((61 / 202 - mean**2) / 202)
    assert (row["low"], row["high"]) == pytest.approx((mean - half, mean + half))
    assert row["verdict"] == "agrees"


def test_best_against_last_epoch_takes_the_last_from_the_history(tmp_path) -> None:
    made = job("at-bsl-overfitting", tmp_path)
    ours = Ours(made.plans, store_results(made, tmp_path))
    frame = compare(made.entry, VALUES, ours, "cpu").set_index(["series", "attack"])
    assert frame.loc[("last epoch", "pgd20"), "ours"] == pytest.approx(0.3 * 0.5)
    assert frame.loc[("last epoch", "clean"), "ours"] == pytest.approx(0.6)
    assert frame.loc[("best epoch", "pgd20"), "published"] == pytest.approx(0.3693)
    claims = judge(made.entry, VALUES, ours)
    assert set(claims["basis"]) == {"two intervals"}


def test_class_means_are_over_the_named_classes(tmp_path) -> None:
    made = job("taet-tail", tmp_path)
    ours = Ours(made.plans, store_results(made, tmp_path))
    (found,) = ours.find(Variant(method="taet"), 10, "pgd20")
    rows = found.evaluation.outcomes()
    by_class = rows.groupby("label")["correct"].mean()
    rare = [CIFAR.index(name) for name in ("dog", "frog", "horse", "ship", "truck")]
    mean = ours.measure(Variant(method="taet"), 10, "pgd20", "mean:dog,frog,horse,ship,truck")
    assert mean is not None
    assert mean.value == pytest.approx(by_class[rare].mean())
    assert mean.n == rows["label"].isin(rare).sum()
    assert ours.measure(Variant(method="taet"), 10, "pgd20", "class:zebra") is None
