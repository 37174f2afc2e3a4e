"""Attacks and networks from outside: registered, held to their contract, part of the keys."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from ltrobust.attacks.custom import register_attack
from ltrobust.attacks.suite import attack_spec
from ltrobust.bench.estimate import estimate
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import make_plan
from ltrobust.bench.plan_file import read_plan, write_plan
from ltrobust.bench.settings import make_settings
from ltrobust.bench.standing import standings
from ltrobust.cli import main
from ltrobust.combination import find
from ltrobust.config import TestSpec
from ltrobust.errors import UserError
from ltrobust.method import METHODS
from ltrobust.models import ARCHS, arch_source
from ltrobust.plugins import load_plugin
from ltrobust.results.store import SuiteStore
from ltrobust.scaffold import TEMPLATES, write_new
from ltrobust.testing import check_method
from ltrobust.testing_parts import check_attack, check_dataset, check_metric, check_network

CHECKS = {
    "method": check_method,
    "attack": check_attack,
    "network": check_network,
    "dataset": check_dataset,
    "metric": check_metric,
}
DOCS = Path(__file__).parents[2] / "docs" / "plugins.md"
ATTACK = """
import torch
from ltrobust.attacks.custom import register_attack

@register_attack("theirs")
def theirs(model, x, y, eps, generator):
    return {body}
"""
NETWORK = """
import torch
from torch import nn
from ltrobust.models import Network, register_network

@register_network("theirs-net")
class Theirs(Network):
    def __init__(self, spec):
        super().__init__(spec, feature_dim=4)
        self.conv = nn.Conv2d(spec.in_channels, 4, 3)
        self.spare = nn.Linear(2, 2) if {spare} else nn.Identity()
        self.attach_head(spec.head)

    def features(self, x):
        maps = self.conv(x).mean(dim=(2, 3))
        return {body}
"""


def plugin(folder: Path, text: str, **words: object) -> Path:
    file = folder / "theirs.py"
    file.write_text(text.format(**words))
    return file


@pytest.mark.parametrize("kind", TEMPLATES)
def test_what_new_writes_keeps_the_contract(kind: str, tmp_path: Path) -> None:
    file, test = write_new(kind, "my-own", tmp_path)
    CHECKS[kind]("my-own", plugin=file)
    compile(test.read_text(), str(test), "exec")
    assert (
        f'check_{kind}("my-own", plugin=Path(__file__).with_name("my_own.py"))' in test.read_text()
    )
    with pytest.raises(UserError, match="is there already"):
        write_new(kind, "my-own", tmp_path)


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        ("methods", "mine", "did you mean 'method'"),
        ("method", "My Own", "small letters"),
        ("method", "../x", "small letters"),
    ],
)
def test_new_refuses_what_cannot_be(kind: str, name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        write_new(kind, name, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x + 2 * eps", "changes pixels by 0.2"),
        ("x - eps / 2", r"leaves \[0, 1\]|changes images"),
        ("x[:, :1]", "must return float images"),
        ("(x + eps * (torch.rand_like(x) - 0.5)).clamp(0, 1)", "draws from a global generator"),
        ("None", "must return float images"),
        ("model.head.weight.zero_() is None or x", "changes the weights"),
    ],
)
def test_an_attack_that_breaks_its_contract_is_found(
    body: str, message: str, tmp_path: Path
) -> None:
    file = plugin(tmp_path, ATTACK, body=body)
    with pytest.raises(AssertionError, match=message):
        check_attack("theirs", plugin=file)


@pytest.mark.parametrize(
    ("body", "spare", "message"),
    [
        ("maps - maps.mean(0)", False, "depend on its batch"),
        ("maps", True, "no gradient reaches spare.weight"),
        ("maps / 0", False, "logits are not finite"),
        ("maps + torch.rand_like(maps)", False, r"is not head\(features"),
    ],
)
def test_a_network_that_breaks_its_contract_is_found(
    body: str, spare: bool, message: str, tmp_path: Path
) -> None:
    file = plugin(tmp_path, NETWORK, body=body, spare=spare)
    with pytest.raises(AssertionError, match=message):
        check_network("theirs-net", plugin=file)


@pytest.mark.parametrize("name", ["small-cnn", "resnet18:width=8"])
def test_networks_that_ship_keep_the_contract(name: str) -> None:
    check_network(name)
    assert arch_source(name) == ""


def test_an_edited_file_is_another_attack_and_another_network(tmp_path: Path) -> None:
    load_plugin(plugin(tmp_path, ATTACK, body="x"))
    first = attack_spec("theirs", 0.1)
    load_plugin(plugin(tmp_path, ATTACK, body="x + 0"))
    again = attack_spec("theirs", 0.1)
    assert first.attack_id(TestSpec()) != again.attack_id(TestSpec())
    assert attack_spec("theirs@0.05", 0.1).eps == 0.05
    load_plugin(plugin(tmp_path, NETWORK, body="maps", spare=False))
    before = arch_source("theirs-net")
    load_plugin(plugin(tmp_path, NETWORK, body="maps + 0", spare=False))
    assert len(before) == 64
    assert arch_source("theirs-net") != before


@pytest.mark.parametrize("name", ["a+b", "a@1", "8/255", ""])
def test_names_that_mean_something_are_refused(name: str) -> None:
    with pytest.raises(UserError, match="may hold letters"):
        register_attack(name)


def test_a_plugin_takes_no_name_of_ours(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has the name of one that ships"):
        load_plugin(plugin(tmp_path, ATTACK.replace('"theirs"', '"pgd20"'), body="x"))
    assert attack_spec("pgd20", 0.1).kind == "first-order", "nothing of it is left"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("method", "trades"), ("attack", "pgd20"), ("attack", "fgsm"), ("network", "resnet18")),
        *(("dataset", "digits-lt"), ("metric", "accuracy"), ("metric", "worst-class")),
        *(("method", "core"), ("method", "all"), ("dataset", "folder"), ("dataset", "hf")),
    ],
)
def test_nothing_is_written_under_a_name_that_is_taken(
    kind: str, name: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"'{name}'"):
        write_new(kind, name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    file = plugin(tmp_path, NETWORK + "\n1 / 0\n", body="maps", spare=False)
    with pytest.raises(UserError, match="ZeroDivisionError"):
        load_plugin(file)
    assert "theirs-net" not in ARCHS


def test_the_page_of_plugins_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    # most of a tiny bench's time
    monkeypatch.setattr("ltrobust.report._draw_all", lambda *args: None)
    monkeypatch.chdir(tmp_path)
    for body in re.findall(r"^```python\n(# (\w+\.py)\n.*?)^```$", DOCS.read_text(), re.M | re.S):
        Path(body[1]).write_text(body[0])
    check_attack("sign-noise", plugin="sign_noise.py")
    check_network("pooled", plugin="pooled.py")
    check_dataset("blobs", plugin="blobs.py")
    check_metric("class-spread", plugin="class_spread.py")
    tiny = "--epochs 1 --limit-train 60 --limit-test 20 --no-checks --output results/x"
    written = re.findall(r"^\$ ltrobust ((?:new|bench).*)$", DOCS.read_text(), re.M)
    assert len(written) == 7
    for line in written:
        words = line if line.startswith("new") else f"{line} {tiny}"
        words = words if "--attacks" in words or "new" in words[:3] else f"{words} --attacks clean"
        monkeypatch.setattr("sys.argv", ["ltrobust", *words.split()])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 0, capsys.readouterr().err
    runs = Path("results/x/runs")
    made = [json.loads(file.read_text()) for file in runs.glob("*/attacks/*.json")]
    assert {one["attack"] for one in made} == {"clean", "my-attack"}
    records = [json.loads(file.read_text()) for file in runs.glob("*/run.json")]
    assert {one["run"]["arch"] for one in records} == {"small-cnn", "my-net:width=16"}
    assert {one["run"]["data"]["name"] for one in records} == {"digits-lt", "my-data"}
    metrics = pd.read_csv("results/x/metrics.csv")
    assert metrics["my_metric"].between(0, 1).all()


# methods ----------------------------------------------------------------------------------------

OWN = """from dataclasses import dataclass
import math
import torch
from ltrobust.method import Citation, Method, register_method

@register_method("own", paper=Citation("A. Author", "A title", "A venue", 2026))
@dataclass
class Own(Method):
    {option}

    def __post_init__(self):
        self.class_weight = torch.linspace(1, 2, 10) / self.class_counts

    {loss}
"""
LOSS = "def loss(self, model, x, y, x_adv, ctx): return model(x_adv).square().mean()"


@pytest.mark.parametrize(
    ("option", "loss", "message"),
    [
        ("tau: float = math.inf", LOSS, "option tau of method own has the default inf"),
        ("tau: float = 1.0", "", "method own has no loss; write loss"),
    ],
)
def test_a_method_that_could_only_fail_later_is_refused(
    option: str, loss: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        load_plugin(plugin(tmp_path, OWN, option=option, loss=loss))


def test_an_option_without_a_default_has_to_be_given(tmp_path: Path) -> None:
    file = plugin(tmp_path, OWN, option="tau: float", loss=LOSS)
    asked = {"methods": "own", "dataset": "digits-lt", "plugin": str(file)}
    with pytest.raises(UserError, match=r"tau of method own has no default; .* own\.tau=VALUE"):
        make_plan(make_settings(asked))
    (planned,) = make_plan(make_settings({**asked, "option": "own.tau=0.5"})).runs
    assert planned.run.options["tau"] == 0.5


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "1e400"])
def test_options_without_a_name_in_json_are_refused(value: str) -> None:
    asked = {"methods": "at-bsl", "option": f"at-bsl.tau={value}"}
    with pytest.raises(UserError, match="option tau of method at-bsl must be finite"):
        make_plan(make_settings(asked))


def test_a_run_of_a_plugin_is_planned_without_its_data_and_watched_without_its_code(
    tmp_path: Path,
) -> None:
    file = plugin(tmp_path, OWN, option="tau: float = 1.0", loss=LOSS)
    asked = {"methods": "own", "dataset": "digits-lt", "epochs": 7, "plugin": str(file)}
    plan = make_plan(make_settings(asked))
    suite = SuiteStore(tmp_path / "suite")
    write_plan(plan, suite)
    expected = estimate(
        plan, suite, Loader(plan)
    )  # it fits no other number of classes than its own
    assert expected.seconds > 0
    METHODS.discard("own")
    (found,) = standings(read_plan(suite), suite)
    assert (found.state, found.epochs) == ("waiting", 7)
    with pytest.raises(UserError, match="one of your own comes with --plugin FILE"):
        find("own")
