"""--select val: settings are judged on held-out training images, never on the test set."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_helpers import Cli, attacks_of, content

from ltrobust.bench.plan import make_grid
from ltrobust.bench.settings import make_cells
from ltrobust.bench.tuning import trials, tuned
from ltrobust.data import load_data
from ltrobust.errors import UserError
from ltrobust.results.collect import collect
from ltrobust.results.frames import metrics_table
from ltrobust.training.trainer import train

TINY = ("--dataset", "digits-lt", "--limit-train", "60", "--limit-test", "20", "--epochs", "1")


def grid(**flags: Any) -> Any:
    common = {"dataset": "digits-lt", "device": "cpu", "select": "val"}
    return make_grid(make_cells({**common, **flags}))


def test_the_best_mean_over_seeds_is_chosen_for_each_method():
    plan = grid(methods="trades,mart", option=["trades.beta=1,3", "mart.beta=2,4,6"], seeds="0-1")
    scores = {}
    for planned in plan.runs:
        run = planned.run
        wins = (run.method, run.options["beta"]) in (("trades", 3), ("mart", 2))
        # one seed of a loser is the best of all
        scores[run.run_id] = 0.5 if wins else 0.9 if run.seed else 0.0
    found = trials(plan.runs, scores)
    chosen = {(t.runs[0].run.method, t.runs[0].run.options["beta"]) for t in found if t.chosen}
    assert chosen == {("trades", 3), ("mart", 2)}
    assert {t.runs[0].run.method: t.tried for t in found} == {"trades": 2, "mart": 3}
    assert all(len(t.runs) == 2 for t in found)


def test_data_ratios_and_networks_are_chosen_for_apart():
    plan = grid(
        methods="trades",
        option="trades.beta=1,3",
        imbalance_ratio="2,4",
        arch="small-cnn,small-cnn:width=8",
    )
    found = trials(plan.runs, dict.fromkeys((p.run.run_id for p in plan.runs), 0.5))
    assert sum(t.chosen for t in found) == 4
    assert {t.tried for t in found} == {2}
    assert {t.runs[0].run.options["beta"] for t in found if t.chosen} == {1}  # the first of equals


def test_other_epochs_and_other_radii_do_not_compete():
    for option in ("recipe.epochs=1,2", "recipe.attack.eps=0.1,0.2"):
        plan = grid(methods="pgd-at", option=option)
        found = trials(plan.runs, dict.fromkeys((p.run.run_id for p in plan.runs), 0.5))
        assert [(trial.tried, trial.chosen) for trial in found] == [(1, True)] * 2


def test_the_test_images_have_no_part_in_the_judgement():
    (planned,) = grid(methods="pgd-at", epochs=1, limit_train=60).runs
    data = load_data("digits-lt", limit_train=60, limit_test=20, hold_out=True)
    # one class alone: whatever is predicted, the accuracy is another
    others = {"test_images": 255 - data.test_images, "test_labels": data.test_labels.clamp(max=0)}
    columns = ("val_acc", "val_robust_acc", "train_loss")
    found = []
    for one in (data, replace(data, **others)):
        trained = train(planned.run, one, device=torch.device("cpu"))
        found.append([trained.history[-1][name] for name in columns])
    assert found[0] == found[1]


def test_values_of_the_recipe_are_settings_and_failures_are_not_chosen():
    plan = grid(methods="pgd-at", option="recipe.lr=0.05,0.1")
    first, second = (planned.run.run_id for planned in plan.runs)
    found = trials(plan.runs, {first: math.nan, second: 0.1})
    assert [t.chosen for t in found] == [False, True]
    assert not any(t.chosen for t in trials(plan.runs, dict.fromkeys((first, second), math.nan)))


def test_post_hoc_modifiers_are_refused():
    with pytest.raises(UserError, match="does not judge pgd-at"):
        tuned(grid(methods="pgd-at+tau-norm"))
    assert not tuned(grid(methods="pgd-at", select="last"))


@pytest.mark.usefixtures("without_reports", "few_checks")
def test_only_the_chosen_setting_meets_the_test_images(cli: Cli):
    words = ("bench", "--methods", "trades", *TINY, "--device", "cpu", "--attacks", "clean,pgd2")
    words = (*words, "--option", "trades.beta=1,3", "--select", "val", "--output", "out")
    done = cli(*words)
    assert done.code == 0
    assert "1 of 2 tried, chosen" in " ".join(done.stdout.split())
    runs = list(Path("out/runs").iterdir())
    assert sorted(len(attacks_of(run)) for run in runs) == [0, 2]
    trials = [content(run / "tuning.json") for run in runs]
    for run, tuning in zip(runs, trials, strict=True):
        assert tuning["tried"] == 2
        assert tuning["chosen"] == bool(attacks_of(run))
        assert 0 <= tuning["score"] <= 1
        counts = content(run / "run.json")["data"]["train_counts"]
        assert sum(counts) < 57  # the held-out images were not trained on
    best = max(trials, key=lambda one: one["score"])
    assert best["score"] == max(one["score"] for one in trials if one["chosen"])
    assert cli(*words).code == 0
    metrics, _ = metrics_table(collect([Path("out")]))
    assert metrics["settings_tried"].to_list() == [2, 2]  # clean and pgd2 of the chosen one
    # a third one, by another bench in the same directory
    more = [word.replace("=1,3", "=6") for word in words]
    assert "1 of 3 tried, chosen" in " ".join(cli(*more).stdout.split())
    trials = [content(run / "tuning.json") for run in Path("out/runs").iterdir()]
    assert [trial["tried"] for trial in trials] == [3, 3, 3]
    (best,) = (trial for trial in trials if trial["chosen"])
    assert best["score"] == max(trial["score"] for trial in trials)
    assert attacks_of(Path("out/runs", best["run_id"]))
