"""The leaderboard: averages by hand, refused partial means, and what never mixes."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from report_fixtures import leaderboard, metric_row, settings, suite

from ltrobust.errors import UserError
from ltrobust.report.groups import comparable_groups, format_eps
from ltrobust.report.ranking import strongest_attack
from ltrobust.report.setting import Setting


def rows(*specs: dict) -> pd.DataFrame:
    return pd.DataFrame([metric_row(**spec) for spec in specs])


def run(run_id: str, scores: dict[str, float], **values: object) -> list[dict]:
    return [
        {"run_id": run_id, "attack": attack, "balanced_accuracy": score, **values}
        for attack, score in scores.items()
    ]


def test_mean_and_sample_std_over_seeds_by_hand():
    board = leaderboard(
        rows(
            *run("a", {"clean": 0.70, "pgd20": 0.30}, seed=0),
            *run("b", {"clean": 0.72, "pgd20": 0.32}, seed=1),
            *run("c", {"clean": 0.77, "pgd20": 0.31}, seed=2),
        )
    )
    assert len(board) == 1
    row = board.iloc[0]
    assert row["clean_balanced_accuracy_mean"] == pytest.approx(0.73)
    # deviations -.03, -.01, .04: squares sum to .0026, over n - 1 = 2
    assert row["clean_balanced_accuracy_std"] == pytest.approx(math.sqrt(0.0013))
    assert row["pgd20_tail_mean"] == pytest.approx(0.31)
    assert (row["n_seeds"], row["seeds"], row["rank"]) == (3, "0,1,2", 1)


def test_one_seed_has_no_deviation():
    row = leaderboard(rows(*run("a", {"clean": 0.7}))).iloc[0]
    assert row["clean_accuracy_mean"] == 0.7
    assert math.isnan(row["clean_accuracy_std"])


@pytest.mark.parametrize("lacking", [{"clean": 0.7}, {"clean": 0.7, "pgd20": 0.3}])
def test_mean_over_a_part_of_the_seeds_is_refused(lacking):
    full = {"clean": 0.7, "pgd20": 0.3, "autoattack": 0.25}
    board = leaderboard(rows(*run("a", full, seed=0), *run("b", lacking, seed=1)))
    assert len(board) == 1
    row = board.iloc[0]
    assert row["n_seeds"] == 2
    assert math.isnan(row["autoattack_balanced_accuracy_mean"])
    assert math.isnan(row["autoattack_accuracy_std"])
    assert row["clean_balanced_accuracy_mean"] == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("column", "other"),
    [
        ("eps", 4 / 255),
        ("n", 500),
        ("test_protocol", "long-tailed"),
        ("recipe", "paper"),
        ("select", "best"),
        ("augment", "autoaugment"),
        ("epochs", 14),
        ("precision", "fp32"),
        ("split_seed", 1),
        ("split_sha256", "cd" * 32),
        ("arch", "wrn-34-10"),
        ("imbalance_ratio", 100.0),
        ("imbalance_type", "step"),
    ],
)
def test_rows_that_differ_in_a_setting_never_mix(column, other):
    scores = {"clean": 0.7, "pgd20": 0.3}
    changed = {"clean": 0.5, "pgd20": 0.2}
    board = leaderboard(rows(*run("a", scores), *run("b", changed, seed=1, **{column: other})))
    assert sorted(board["pgd20_balanced_accuracy_mean"]) == [0.2, 0.3]
    assert list(board["n_seeds"]) == [1, 1]
    assert list(board["rank"]) == [1, 1]
    assert board["group"].nunique() == 2


def test_one_run_at_two_budgets_gives_two_rows_that_share_its_clean_accuracy():
    large = {"run_id": "a", "attack": "pgd20", "balanced_accuracy": 0.3}
    small = large | {"balanced_accuracy": 0.5, "eps": 4 / 255}
    board = leaderboard(rows(*run("a", {"clean": 0.7}), large, small))
    assert list(board["pgd20_balanced_accuracy_mean"]) == [0.5, 0.3]
    assert list(board["clean_balanced_accuracy_mean"]) == [0.7, 0.7]
    assert list(board["eps"]) == [4 / 255, 8 / 255]


@pytest.mark.parametrize("column", ["attack_settings", "attack_library"])
def test_one_attack_with_two_settings_gives_two_rows(column):
    first = {"run_id": "a", "attack": "autoattack", "balanced_accuracy": 0.3, column: '{"steps":1}'}
    second = first | {"balanced_accuracy": 0.2, column: '{"steps":2}'}
    board = leaderboard(rows(*run("a", {"clean": 0.7}), first, second))
    assert sorted(board["autoattack_balanced_accuracy_mean"]) == [0.2, 0.3]
    assert board["group"].nunique() == 2


def test_attack_seeds_are_no_setting():
    board = leaderboard(
        rows(
            *run("a", {"pgd20": 0.3}, seed=0, attack_settings='{"seed":1,"steps":20}'),
            *run("b", {"pgd20": 0.4}, seed=1, attack_settings='{"steps":20,"seed":2}'),
        )
    )
    assert list(board["n_seeds"]) == [2]
    assert json.loads(board.loc[0, "attack_settings"]) == {"pgd20": {"steps": 20}}


def test_same_seed_twice_is_not_averaged():
    board = leaderboard(rows(*run("aaa", {"clean": 0.7}), *run("bbb", {"clean": 0.5})))
    assert list(board["clean_accuracy_mean"]) == [0.7, 0.5]
    assert list(board["run_ids"]) == ["aaa", "bbb"]


def test_row_order_of_the_input_does_not_matter():
    metrics, _, _ = suite(seeds=(0, 1))
    shuffled = metrics.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(leaderboard(metrics), leaderboard(shuffled))


def test_two_different_results_for_one_run_and_attack_are_an_error():
    twice = rows(*run("a", {"pgd20": 0.3}), *run("a", {"pgd20": 0.4}))
    with pytest.raises(UserError, match="two different results"):
        leaderboard(twice)


def test_no_rows_are_a_user_error():
    metrics = rows(*run("a", {"clean": 0.7}))
    with pytest.raises(UserError, match="no rows"):
        leaderboard(metrics.iloc[:0])


def class_means(setting: Setting) -> dict[str, float]:
    """Attack to the mean of its class accuracies."""
    lines = {a: setting.classes.line("trades", a) for a in setting.attacks}
    return {a: float(np.mean([cell.value for cell in line])) for a, line in lines.items()}


def test_classes_come_from_the_evaluation_of_their_group():
    small, classes_small, _ = suite(methods=("trades",), attacks=("clean", "pgd20"), eps=4 / 255)
    large = small[small["attack"] == "pgd20"].assign(eps=8 / 255, attack_id="at-8")
    classes_large = classes_small[classes_small["attack"] == "pgd20"].assign(attack_id="at-8")
    classes_large["accuracy"] = classes_large["accuracy"] / 2
    per_class = pd.concat([classes_small, classes_large])
    groups = settings(pd.concat([small, large]), per_class)
    means = [class_means(group) for group in groups]
    assert [group.key["eps"] for group in groups] == [4 / 255, 8 / 255]
    assert means[1]["pgd20"] == pytest.approx(means[0]["pgd20"] / 2)
    assert means[1]["clean"] == pytest.approx(means[0]["clean"])


def test_class_mean_over_a_part_of_the_seeds_is_refused():
    metrics, per_class, _ = suite(methods=("trades",), seeds=(0, 1), attacks=("clean", "pgd20"))
    gone = (per_class["seed"] == 1) & (per_class["attack"] == "pgd20")
    (setting,) = settings(metrics, per_class[~gone])
    assert not any(cell.known for cell in setting.classes.line("trades", "pgd20"))
    assert all(cell.known for cell in setting.classes.line("trades", "clean"))


def test_slugs_are_short_and_tell_in_what_a_group_differs_from_the_main_one():
    metrics, _, _ = suite(methods=("trades",))
    other = metrics.assign(test_protocol="long-tailed", run_id="x")
    third = metrics.assign(dataset="folder:/My Data", run_id="y")
    slugs = {group.slug for group in comparable_groups(pd.concat([metrics, other, third]))}
    assert slugs == {
        "cifar10-lt-ir50-resnet18-unified",
        "cifar10-lt-ir50-resnet18-unified-long-tailed",
        "folder-my-data-ir50-resnet18-unified",
    }


@pytest.mark.parametrize(("eps", "text"), [(8 / 255, "8/255"), (0.1, "0.1"), (0.031, "0.031")])
def test_budget_is_written_as_a_pixel_step_when_it_is_one(eps, text):
    assert format_eps(eps) == text


def test_robust_means_autoattack_then_the_longest_pgd():
    assert strongest_attack(["clean", "pgd20", "pgd100", "autoattack"]) == "autoattack"
    assert strongest_attack(["clean", "fgsm", "pgd20", "pgd100", "cw20"]) == "pgd100"
    assert strongest_attack(["clean"]) is None
    assert strongest_attack(["clean", "noise", "noisex3"]) is None
