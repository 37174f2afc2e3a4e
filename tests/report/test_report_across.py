"""Ranking across recipes, architectures and epochs: what may differ then, and what never does."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pytest
from report_fixtures import leaderboard, metric_row, page, render, settings, suite

from ltrobust.errors import UserError
from ltrobust.report.across import parse_across
from ltrobust.report.groups import comparable_groups
from ltrobust.report.markup import cell_text
from ltrobust.report.tables import leaderboard_table, setting_tables

pytestmark = pytest.mark.usefixtures("light_figures")

ALL = ("recipe", "arch", "epochs")
FOREIGN: dict[str, Any] = {
    **dict.fromkeys(("recipe", "select", "augment", "precision"), "external"),
    "epochs": 0,
    "batch_size": 0,
    "train_eps": 0.0,
    "method": "Theirs 2024",
}
OURS: dict[str, Any] = {"batch_size": 128, "train_eps": 8 / 255, "test_sha256": "aa"}


def rows(run_id: str, score: float, **values: Any) -> list[dict[str, Any]]:
    return [
        metric_row(run_id, attack=attack, balanced_accuracy=score * strength, **{**OURS, **values})
        for attack, strength in (("clean", 1.0), ("autoattack", 0.5))
    ]


def three() -> pd.DataFrame:
    return pd.DataFrame(
        [
            *rows("a", 0.6, method="at-bsl"),
            *rows("b", 0.8, method="taet", recipe="paper", arch="wrn-34-10", epochs=60),
            *rows("x", 0.7, **FOREIGN),
        ]
    )


def no_classes() -> pd.DataFrame:
    return suite(("taet",))[1].iloc[:0]


def test_what_is_asked_for_is_read_and_checked() -> None:
    assert parse_across(None) == ()
    assert parse_across("all") == parse_across(["epochs", "recipe", "arch"]) == ALL
    assert parse_across("epochs, arch") == ("arch", "epochs")
    with pytest.raises(UserError, match="did you mean 'recipe'"):
        parse_across("recipes")
    with pytest.raises(UserError, match="empty item"):
        parse_across("arch,")


def test_without_it_a_foreign_model_and_other_recipes_stand_alone() -> None:
    labels = sorted(group.labels for group in comparable_groups(three()))
    assert labels == [["Theirs 2024"], ["at-bsl"], ["taet"]]


def test_one_table_ranks_all_with_what_differs_in_columns() -> None:
    (setting,) = settings(three(), across=ALL)
    table = leaderboard_table(setting)
    columns = ("rank", "method", "arch", "recipe", "epochs")
    told = [
        tuple(cell_text(row[name]) for name in columns) for row in table.frame.to_dict("records")
    ]
    assert told == [
        ("1", "taet", "wrn-34-10", "paper", "60"),
        ("2", "Theirs 2024", "resnet18", "external", "-"),
        ("3", "at-bsl", "resnet18", "unified", "100"),
    ]
    assert "Ranked across arch, recipe, epochs on the same test images" in table.caption
    assert "external: trained elsewhere" in table.caption
    assert "resnet18," not in table.caption
    assert "last epoch, augmentation none, bf16" in table.caption
    assert list(table.data["recipe"]) == ["paper", "external", "unified"]
    for other in setting_tables(setting):
        assert "recipe" in other.frame.columns, other.name


def test_the_leaderboard_file_keeps_the_values_of_each_row() -> None:
    board = leaderboard(three(), across=ALL)
    assert board["group"].nunique() == 1
    assert dict(zip(board["method"], board["batch_size"], strict=True)) == {
        "taet": 128,
        "Theirs 2024": 0,
        "at-bsl": 128,
    }
    assert set(board["recipe"]) == {"unified", "paper", "external"}
    assert set(board["test_sha256"]) == {"aa"}


@pytest.mark.parametrize(
    "changes",
    [
        {"test_sha256": "bb"},
        {"data_fingerprint": "other"},
        {"n": 500},
        {"test_protocol": "long-tailed"},
        {"dataset": "cifar100-lt"},
        {"imbalance_ratio": 10.0},
    ],
)
def test_other_test_images_never_share_a_table(changes: dict[str, Any]) -> None:
    other = rows("x", 0.7, **{**FOREIGN, **changes})
    found = comparable_groups(pd.DataFrame([*rows("a", 0.6), *other]), ALL)
    assert [len(group.labels) for group in found] == [1, 1]


def test_other_attack_settings_never_share_a_table() -> None:
    other = rows("x", 0.7, **FOREIGN, attack_settings='{"restarts":5}')
    found = comparable_groups(pd.DataFrame([*rows("a", 0.6), *other]), ALL)
    attacked = [{r["run_id"] for r in group.rows if r["attack"] != "clean"} for group in found]
    assert {"a", "x"} not in attacked


def test_equal_numbers_of_other_images_stand_apart_always() -> None:
    metrics = pd.DataFrame([*rows("a", 0.6), *rows("b", 0.7, method="taet", test_sha256="bb")])
    assert len({group.slug for group in comparable_groups(metrics)}) == 2


def test_only_what_was_asked_for_may_differ() -> None:
    metrics = three().iloc[:4]
    assert len(comparable_groups(metrics, ("arch", "recipe"))) == 2
    assert len(comparable_groups(metrics, ALL)) == 1


def test_a_foreign_model_joins_every_choice_of_training_images() -> None:
    """Which images it was trained on is not known; of ours, choices never mix."""
    other = rows("b", 0.5, method="taet", split_sha256="other")
    metrics = pd.DataFrame([*rows("a", 0.6), *other, *rows("x", 0.7, **FOREIGN)])
    assert sorted(group.labels for group in comparable_groups(metrics, ("recipe",))) == [
        ["Theirs 2024", "pgd-at"],
        ["Theirs 2024", "taet"],
    ]
    limits = metrics.assign(groups="100/20")
    found = sorted(group.labels for group in comparable_groups(limits, ("recipe",)))
    assert found == [["Theirs 2024", "pgd-at"], ["taet"]]  # tail means other classes there


def test_runs_of_one_method_are_told_apart_and_never_averaged_over_what_differs() -> None:
    metrics = pd.DataFrame(
        [
            *rows("a", 0.6, seed=0, config_id="c1"),
            *rows("b", 0.7, seed=1, config_id="c1"),
            *rows("c", 0.8, seed=0, arch="wrn-34-10", config_id="c2"),
            *rows("x", 0.5, **{**FOREIGN, "method": "pgd-at"}, config_id="c3"),
        ]
    )
    (group,) = comparable_groups(metrics, ALL)
    assert group.labels == [
        "pgd-at (resnet18, external)",
        "pgd-at (resnet18, unified, 100 epochs)",
        "pgd-at (wrn-34-10, unified, 100 epochs)",
    ]
    assert group.runs(group.labels[1]) == ["a", "b"]
    without_ids = metrics.assign(config_id="")
    assert comparable_groups(without_ids, ALL)[0].labels == group.labels


def test_two_foreign_models_of_one_name_are_two_rows() -> None:
    both = [*rows("x1", 0.5, **FOREIGN, config_id="1"), *rows("x2", 0.6, **FOREIGN, config_id="2")]
    (group,) = comparable_groups(pd.DataFrame(both), ALL)
    assert len(group.labels) == 2


def test_every_file_of_such_a_report_can_be_made() -> None:
    files = render(three(), no_classes(), {}, across=ALL)
    board = pd.read_csv(io.StringIO(str(files["leaderboard.csv"])))
    assert list(board["rank"]) == [1, 2, 3]
    assert "| 2 | Theirs 2024 | resnet18 | external |" in str(files["tables/leaderboard.md"])
    text = page(three(), no_classes(), {}, title="both", across=ALL)
    assert "across arch, recipe, epochs" in text
    assert "arch wrn-34-10, recipe paper, epochs 60" in text
