"""The model zoo: what is listed, what a card says, and when weights may be rounded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

import ltrobust
from ltrobust import cli, zoo
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import make_plan
from ltrobust.bench.reports import gather
from ltrobust.bench.runner import run_plan
from ltrobust.bench.settings import make_settings
from ltrobust.cli import app
from ltrobust.errors import UserError
from ltrobust.progress import Reporter
from ltrobust.results.filters import Filters
from ltrobust.results.store import SuiteStore, suite_of

SMALL: dict[str, Any] = {"epochs": 1, "limit_train": 60, "limit_test": 20, "device": "cpu"}


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of one run with weights and numbers; its reports are left out."""
    folder = tmp_path_factory.mktemp("zoo") / "suite"
    settings = {**SMALL, "attacks": "clean,pgd2", "output": folder, "no_checks": True}
    plan = make_plan(make_settings({"methods": "at-bsl", "dataset": "digits-lt", **settings}))
    assert run_plan(plan, SuiteStore(folder), Loader(plan), Reporter()) == []
    return folder


@pytest.fixture
def run(suite: Path, tmp_path: Path) -> Path:
    """A copy of the run, in a suite of its own."""
    shutil.copytree(suite, tmp_path / "suite")
    (found,) = (tmp_path / "suite" / "runs").iterdir()
    return found


def planted(changed: int) -> Any:
    """What a comparison of verdicts found."""
    rows = [["clean", 20, 0, 0.5, 0.5], ["pgd20", 20, changed, 0.3, 0.3]]
    return lambda *_arguments, **_settings: pd.DataFrame(rows, columns=zoo.COLUMNS)


def test_models_are_found_below_a_directory_and_in_a_suite(run: Path) -> None:
    suite = run.parent.parent
    (one,) = zoo.list_models([suite])
    (other,) = zoo.list_models([suite.parent])
    row = one.row()
    assert row == other.row()
    assert json.loads(json.dumps(row)) == row
    assert row["path"] == str(run)
    assert (row["method"], row["arch"], row["weights"]) == ("at-bsl", "small-cnn", "float32")
    assert [(number["attack"], number["n"]) for number in row["numbers"]] == [
        ("clean", 20),
        ("pgd2", 20),
    ]
    for number in row["numbers"]:
        assert number["ci_low"] <= number["balanced_accuracy"] <= number["ci_high"]
    assert row["parameters"] == sum(p.numel() for p in ltrobust.load(run).model.net.parameters())
    assert row["marks"] == ["reliability checks not made for every attack"]


def test_a_run_without_weights_is_no_model(run: Path) -> None:
    (run / "model.safetensors").unlink()
    assert zoo.list_models([run.parent.parent]) == []
    with pytest.raises(UserError, match=r"no model\.safetensors"):
        zoo.model_card(run)


def test_a_directory_without_results_is_refused_in_one_line(tmp_path: Path) -> None:
    for path, words in ((tmp_path, "holds no results"), (tmp_path / "none", "is no directory")):
        with pytest.raises(UserError, match=words) as error:
            zoo.list_models([path])
        assert "\n" not in str(error.value)


def test_rounding_changes_only_the_networks_real_numbers() -> None:
    weights = {
        "conv.weight": torch.tensor([0.1, 1e-9]),
        "bn.num_batches_tracked": torch.tensor(3),
        "method.counts": torch.tensor([0.1]),
    }
    rounded = zoo.half(weights)
    kinds = {name: value.dtype for name, value in rounded.items()}
    assert kinds == {
        "conv.weight": torch.float16,
        "bn.num_batches_tracked": torch.int64,
        "method.counts": torch.float32,
    }
    with pytest.raises(UserError, match=r"conv\.weight is too large"):
        zoo.half({"conv.weight": torch.tensor([1e6])})


def test_verdicts_of_rounded_weights_are_compared_image_by_image(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same = zoo.rounded_verdicts(run, "clean,pgd2")
    assert same["attack"].tolist() == ["clean", "pgd2"]
    assert same["n"].tolist() == [20, 20]
    monkeypatch.setattr(zoo, "half", lambda w: {k: torch.zeros_like(v) for k, v in w.items()})
    other = zoo.rounded_verdicts(run, "clean")
    (before,) = {row.accuracy for row in same.itertuples() if row.attack == "clean"}
    right_or_wrong = round(20 * abs(before - other["accuracy_rounded"].item()))
    assert other["changed"].item() >= max(1, right_or_wrong)


def test_weights_are_rounded_where_no_verdict_changes(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (before,) = zoo.list_models([run.parent.parent])
    model = ltrobust.load(run)
    images = model.test_images
    trained = (run / "trained.json").read_bytes()
    monkeypatch.setattr(zoo, "rounded_verdicts", planted(0))
    assert zoo.keep_half(run)["changed"].tolist() == [0, 0]
    (after,) = zoo.list_models([run.parent.parent])
    assert (before.dtype, after.dtype) == ("float32", "float16")
    assert after.size < 0.6 * before.size
    again = ltrobust.load(run)
    assert all(p.dtype == torch.float32 for p in again.model.net.parameters())
    with torch.no_grad():
        assert torch.allclose(again(images), model(images), atol=0.02)
        assert not torch.equal(again(images), model(images))
    assert (run / "trained.json").read_bytes() == trained
    rounded = suite_of(run)[1].rounded()
    assert rounded is not None
    weights = (run / "model.safetensors").read_bytes()
    assert rounded.weights_sha256 == hashlib.sha256(weights).hexdigest()
    words = "rounded to float16: no verdict changed under clean (n = 20), pgd20 (n = 20)"
    assert words in zoo.model_card(run)
    zoo.keep_half(run)
    assert (run / "model.safetensors").read_bytes() == weights


def test_a_run_and_its_rounded_copy_are_one_run(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.parent.parent, tmp_path / "copy")
    monkeypatch.setattr(zoo, "rounded_verdicts", planted(0))
    zoo.keep_half(run)
    both = gather([run.parent.parent, tmp_path / "copy"], Filters())
    assert both.tables["metrics.csv"]["attack"].tolist() == ["clean", "pgd2"]


def test_weights_stay_where_a_verdict_changes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run / "model.safetensors"
    before = file.read_bytes()
    monkeypatch.setattr(zoo, "rounded_verdicts", planted(2))
    with pytest.raises(UserError, match="2 of 20 verdicts under pgd20 change") as error:
        zoo.keep_half(run)
    assert "\n" not in str(error.value)
    assert file.read_bytes() == before


def test_a_card_tells_recipe_protocol_and_numbers_and_its_line_loads_the_model(run: Path) -> None:
    card = zoo.model_card(run)
    assert card.startswith(f"# {run.name}\n")
    record = suite_of(run)[1].begun_record()
    for fact in (
        "at-bsl: Yue et al. 2024",
        "digits-lt, imbalance ratio",
        record.data.split_sha256,
        "small-cnn, ",
        "float32, ",
        "recipe: unified, 1 epochs",
        "epoch chosen: last (epoch 1)",
        "reliability checks not made",
    ):
        assert fact in card, fact
    busy = suite_of(run)[1].training().train_cpu_seconds
    assert f" s ({busy:,.0f} s of CPU time), ltrobust " in card
    numbers = [line for line in card.splitlines() if re.match(r"\| (clean|pgd2) \|", line)]
    assert [line.split(" | ")[3] for line in numbers] == ["20", "20"]
    assert all(re.search(r"\d+\.\d \[\d+\.\d, \d+\.\d\]", line) for line in numbers)
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["model"].run_id == run.name


def test_marks_tell_a_leak_and_a_doubt(run: Path) -> None:
    store = suite_of(run)[1]
    explanation = "gradients vanish"
    said = {"value": None, "threshold": None, "explanation": explanation, "concerns": "all"}
    store.write_reliability(
        [{"check": "zero-gradients", "flagged": True, **said}], store.attack_ids()
    )
    (model,) = zoo.list_models([run.parent.parent])
    assert model.marks == [f"† zero-gradients: {explanation}"]
    assert "| pgd2† |" in zoo.model_card(run)
    leaking = model.run.model_copy(update={"select": "best-on-test"})
    model = dataclasses.replace(model, run=leaking)
    assert model.marks == [
        "epoch chosen on the test set: it leaks",
        f"† zero-gradients: {explanation}",
    ]


def test_the_command_lists_and_describes(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "out", Console(width=250))
    suite = str(run.parent.parent)
    listed = CliRunner().invoke(app, ["models", "--results", suite, "--json"])
    assert [row["run_id"] for row in json.loads(listed.stdout)] == [run.name]
    table = CliRunner().invoke(app, ["models", "--results", suite])
    assert table.exit_code == 0
    assert "float32, " in table.stdout
    card = CliRunner().invoke(app, ["models", "card", str(run)])
    assert card.stdout.strip() == zoo.model_card(run).strip()


def test_rounding_loads_the_code_of_a_method_of_ones_own(run: Path) -> None:
    done = CliRunner().invoke(app, ["models", "half", str(run), "--plugin", "none.py"])
    assert isinstance(done.exception, UserError)
    assert "plugin none.py: no such file" in str(done.exception)
