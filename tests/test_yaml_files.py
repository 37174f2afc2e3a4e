"""YAML and settings are read as a person means them, or refused in one line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from torch import nn
from typer.testing import CliRunner

import ltrobust
from ltrobust import cli
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import Settings, make_settings
from ltrobust.errors import UserError
from ltrobust.papers.entries import SCALES_FILE, read_scales
from ltrobust.yaml_files import parse, read_mapping


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("0008", 8),
        ("+5", 5),
        ("1e-3", 0.001),
        (".5E+1", 5.0),
        ("1:40", "1:40"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2024-01-01", "2024-01-01"),
        ("8/255", "8/255"),
        ("10,50", "10,50"),
        ("yes", "yes"),
        ("Off", "Off"),
        ("n", "n"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("=", "="),
    ],
)
def test_plain_values(text: str, value: Any) -> None:
    found = parse(f"key: {text}")["key"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["a: 1\nb: 2\na: 3\n", "a: 1\n'a': 3\n", "top:\n  a: 1\n  a: 2\n", "- {a: 1, a: 2}\n"],
)
def test_a_key_that_stands_twice_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"^it is not valid YAML: key 'a' stands twice, in lines"):
        read_mapping(file, "it")


def test_an_anchor_may_be_overridden() -> None:
    text = "base: &base {a: 1, b: 2}\nmore: {<<: *base, b: 3}\n"
    assert parse(text)["more"] == {"a": 1, "b": 3}


@pytest.mark.parametrize("text", ["a: !!bool maybe", "a: !!int x", "a: " + "[" * 2000, "a: [1"])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match="it is not valid YAML") as caught:
        read_mapping(file, "it")
    assert "\n" not in str(caught.value)


def test_entries_go_through_the_same_loader(tmp_path: Path) -> None:
    (tmp_path / SCALES_FILE).write_text("full: {epochs: 010}\n")
    assert read_scales(tmp_path) == {"full": {"epochs": 10}}
    (tmp_path / SCALES_FILE).write_text("full: {epochs: 1}\nfull: {epochs: 2}\n")
    with pytest.raises(UserError, match="'full' stands twice"):
        read_scales(tmp_path)


# --- flags, suite files and Python alike ------------------------------------------------------

GOOD = {
    "a fraction": ("eps", "8/255", 8 / 255),
    "a fraction with spaces": ("eps", "8 / 255", 8 / 255),
    "a range": ("seeds", "0-4", (0, 1, 2, 3, 4)),
    "a range among numbers": ("seeds", "0,2-4", (0, 2, 3, 4)),
    "a range of one, twice": ("seeds", "3-3,3", (3,)),
    "two ratios": ("imbalance_ratio", "10,50", (10.0, 50.0)),
    "one ratio, twice": ("imbalance_ratio", "10,10.0", (10.0,)),
    "leading zeros": ("epochs", "010", 10),
}
BAD = {
    "a range backwards": ("seeds", "4-0", "--seeds: '4-0' is no range of seeds"),
    "a huge range": ("seeds", "0-1000000000", "no more than 1,000"),
    "a range without an end": ("seeds", "0-", "--seeds"),
    "three ends": ("seeds", "0-1-2", "--seeds"),
    "division by zero": ("eps", "8/0", "--eps: '8/0' divides by 0"),
    "two fractions": ("eps", "8/255/2", "--eps"),
    "half a fraction": ("eps", "8/", "--eps"),
    "negative fraction": ("eps", "-8/255", "greater than or equal to 0"),
    "eps in pixels": ("eps", "8", "such as 8/255"),
    "a range of ratios": ("imbalance_ratio", "10-50", "--imbalance-ratio"),
    "a ratio too small": ("imbalance_ratio", "10,0.5", ">= 1"),
    "sexagesimal": ("limit_train", "1:40", "limit-train"),
}


def by_flag(name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    seen: list[Settings] = []

    def note(cells: Sequence[Settings]) -> None:
        seen.append(cells[0])
        raise typer.Exit

    monkeypatch.setattr("ltrobust.bench.plan.make_grid", note)
    flag = f"--{name.replace('_', '-')}"
    outcome = CliRunner().invoke(cli.app, ["bench", flag, text], standalone_mode=False)
    if isinstance(outcome.exception, UserError):
        raise outcome.exception
    if not seen:  # typer's own refusal, such as of an integer
        raise UserError(outcome.exception.format_message())  # type: ignore[union-attr]
    return seen[0]


def by_suite(name: str, text: str, tmp_path: Path) -> Settings:
    suite = tmp_path / "mine.yaml"
    suite.write_text(f"{name}: {text}\n")
    return make_settings({}, suite)


@pytest.mark.parametrize("case", GOOD.values(), ids=GOOD.keys())
def test_values_as_a_person_writes_them(
    case: tuple[str, str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, text, value = case
    found = (by_flag(name, text, monkeypatch), by_suite(name, text, tmp_path))
    for settings in (*found, make_settings({name: text})):
        assert getattr(settings, name) == value


@pytest.mark.parametrize("case", BAD.values(), ids=BAD.keys())
def test_nonsense_is_one_line(
    case: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, text, words = case
    for ask in (
        lambda: by_flag(name, text, monkeypatch),
        lambda: by_suite(name, text, tmp_path),
        lambda: make_settings({name: text}),
    ):
        with pytest.raises(UserError) as caught:
            ask()
        assert words in str(caught.value)
        assert "\n" not in str(caught.value).strip()


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("seeds", [0, "2-4"], (0, 2, 3, 4)),
        ("seeds", range(3), (0, 1, 2)),
        ("seeds", np.arange(2), (0, 1)),
        ("imbalance_ratio", ["10,50", 100], (10.0, 50.0, 100.0)),
        ("methods", ["pgd-at,taet", "trades"], ("pgd-at", "taet", "trades")),
    ],
)
def test_lists_in_python_and_repeated_flags(name: str, value: Any, read: tuple[Any, ...]) -> None:
    assert getattr(make_settings({name: value}), name) == read


@pytest.mark.parametrize("name", ["epochs", "eps", "seeds", "imbalance_ratio", "limit_test"])
@pytest.mark.parametrize("value", ["true", "yes"])
def test_a_truth_value_is_no_number(tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')}"):
        by_suite(name, value, tmp_path)


def test_yes_and_no_are_truth_values_where_these_are_asked_for(tmp_path: Path) -> None:
    assert by_suite("profile", "yes", tmp_path).profile is True
    assert by_suite("download", "off", tmp_path).download is False


def test_options_are_read_by_the_same_rules() -> None:
    options = ("recipe.lr=1e-3", "recipe.attack.eps=8/255", "recipe.epochs=010")
    asked = make_settings({"methods": "pgd-at", "option": options, "device": "cpu"})
    recipe = make_plan(asked).runs[0].run.recipe
    assert (recipe.lr, recipe.attack.eps, recipe.epochs) == (0.001, 8 / 255, 10)
    bad = make_settings({"methods": "pgd-at", "option": ["recipe.attack.eps=8/0"]})
    with pytest.raises(UserError, match=r"recipe\.attack\.eps.*divides by 0"):
        make_plan(bad)


def test_python_takes_the_same_texts() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    asked = {"attacks": "clean,fgsm", "limit_test": 10, "device": "cpu"}
    table = ltrobust.evaluate(model, eps="8/255", imbalance_ratio="20", **asked)
    assert table["eps"].tolist() == [0.0, 8 / 255]
    with pytest.raises(UserError, match="one ratio"):
        ltrobust.evaluate(model, imbalance_ratio="10,50", **asked)
    with pytest.raises(UserError, match="make 5"):
        ltrobust.train("pgd-at", seeds="0-4", eps="8/255")
    with pytest.raises(UserError, match="make 2"):
        ltrobust.train("pgd-at", imbalance_ratio="10,50")
