"""`evaluate --model module:callable` and plain tensors: anybody's model, judged like ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bench_helpers import Cli, Finished
from torch import nn

import ltrobust
from ltrobust.bench.runner import load_defended
from ltrobust.bench.store import RunStore
from ltrobust.config import Run
from ltrobust.data import load_data, to_float
from ltrobust.errors import UserError
from ltrobust.evaluation.evaluate import DefendedModel

EVALUATE = ("evaluate", "--dataset", "digits-lt", "--limit-test", "20", "--attacks", "clean,pgd2")
MODULE = """
import torch
from torch import nn


class Mine(nn.Module):
    def __init__(self, mean=0.0, std=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 10)
        self.mean, self.std = mean, std

    def forward(self, x):
        return self.linear(((x * self.std + self.mean)).flatten(1))


def plain():
    return Mine().eval()


def wants_normalised():
    return Mine(0.25, 0.5).eval()


def few_logits():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def no_model():
    return 3


def broken():
    raise RuntimeError("weights are not there")


number = 3
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, of a name of its own."""
    Path("my_models_for_tests.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    monkeypatch.delitem(__import__("sys").modules, "my_models_for_tests", raising=False)
    return "my_models_for_tests"


def only_run(output: str) -> Path:
    (run,) = (Path(output) / "runs").iterdir()
    return run


def test_a_callable_of_the_current_folder_gives_a_run_like_any_other(cli: Cli, module: str) -> None:
    outcome = cli(*EVALUATE, "--model", f"{module}:plain", "--output", "out")
    assert outcome.code == 0, outcome.stderr
    run = only_run("out")
    metrics = pd.read_csv("out/metrics.csv")
    assert metrics["method"].tolist() == ["plain", "plain"]
    assert metrics["arch"].tolist() == ["Mine", "Mine"]
    assert metrics["checkpoint"].iloc[0] == f"{module}:plain"
    table = ltrobust.evaluate(
        __import__(module).plain(), "digits-lt", "clean,pgd2", limit_test=20, device="cpu"
    )
    assert metrics["accuracy"].tolist() == table["accuracy"].tolist()
    findings = json.loads((run / "reliability.json").read_text())
    assert {"check", "flagged", "value", "threshold", "explanation"} == set(findings[0])
    assert findings[0]["check"] in outcome.stdout.replace("\n", "")


def test_normalize_gives_the_model_what_it_expects(cli: Cli, module: str) -> None:
    plain = cli(*EVALUATE, "--model", f"{module}:plain", "--output", "a")
    other = cli(
        *EVALUATE,
        "--model",
        f"{module}:wants_normalised",
        "--normalize",
        "0.25,0.5",
        "--output",
        "b",
    )
    assert (plain.code, other.code) == (0, 0)
    expected, found = (pd.read_parquet(only_run(name) / "outcomes.parquet") for name in ("a", "b"))
    assert expected["pred"].tolist() == found["pred"].tolist()


def test_seed_changes_the_start_and_precision_is_recorded(cli: Cli, module: str) -> None:
    words = (*EVALUATE, "--model", f"{module}:plain", "--output", "out")
    assert cli(*words).code == 0
    assert cli(*words, "--seed", "5", "--precision", "bf16").code == 0
    record = json.loads((only_run("out") / "run.json").read_text())
    settings = [e["settings"] for e in record["evaluations"].values() if e["attack"] == "pgd2"]
    assert [s["seed"] for s in settings] == [0, 5]
    assert [s.get("search") for s in settings] == [None, "bf16"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--model", "no_such_module_here:f"), ("no_such_module_here", "cannot be imported")),
        (("--model", "{module}:absent"), ("no callable 'absent'",)),
        (("--model", "{module}:number"), ("no callable 'number'",)),
        (("--model", "{module}"), ("module:callable",)),
        (("--model", "{module}:no_model"), ("must return a torch.nn.Module", "int")),
        (("--model", "{module}:broken"), ("weights are not there",)),
        (("--model", "{module}:few_logits"), ("3 logits", "10 classes")),
        (("--model", "{module}:plain", "--arch", "resnet18"), ("--arch",)),
        (("--model", "{module}:plain", "--normalize", "0.5"), ("--normalize", "cifar10")),
        (("--model", "{module}:plain", "--normalize", "0.5,0"), ("positive",)),
        (("--model", "{module}:plain", "--precision", "fp16"), ("unknown precision",)),
        (("--model", "{module}:plain", "--seed", "-1"), ("--attack-seed",)),
        (("--model", "{module}:plain", "--attacks", "pdg2"), ("did you mean",)),
    ],
)
def test_bad_models_get_one_line_and_leave_nothing(
    cli: Cli, module: str, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    outcome = cli(*EVALUATE, *(w.format(module=module) for w in words), "--output", "out")
    assert outcome.code == 2
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert all(part in outcome.stderr for part in parts), outcome.stderr
    assert not Path("out").exists()


def trained_model(finished: Finished) -> DefendedModel:
    store = RunStore(finished.runs[0])
    run = Run.model_validate(store.read()["config"])
    data = load_data("digits-lt", limit_train=60, limit_test=20)
    return load_defended(run, data, store, torch.device("cpu"))


def test_plain_tensors_give_what_the_data_set_gives(finished: Finished) -> None:
    model, data = trained_model(finished), load_data("digits-lt", limit_test=20)
    named = ltrobust.evaluate(model, data, "clean,fgsm", device="cpu")
    images = to_float(data.test_images)
    plain = ltrobust.evaluate(
        model,
        (images, data.test_labels),
        "clean,fgsm",
        eps=0.1,
        device="cpu",
        train_counts=data.train_counts,
    )
    columns = ["attack", "accuracy", "balanced_accuracy", "head", "tail", "ci_low"]
    assert named[columns].equals(plain[columns])
    bare = ltrobust.evaluate(model, (images, data.test_labels), "clean,fgsm", eps=0.1, device="cpu")
    assert bare["balanced_accuracy"].equals(plain["balanced_accuracy"])
    assert bare[["head", "medium", "tail"]].isna().to_numpy().all()


def test_plain_numbers_have_their_reliability_beside_them(finished: Finished) -> None:
    model, data = trained_model(finished), load_data("digits-lt", limit_test=20)
    table = ltrobust.evaluate(model, data, "clean,pgd2", device="cpu")
    assert {finding["check"] for finding in table.attrs["reliability"]} >= {"pgd-above-autoattack"}
    assert ltrobust.evaluate(model, data, "clean", device="cpu").attrs["reliability"] == []


IMAGES, LABELS = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ((IMAGES, LABELS), {}, "plain tensors have no radius"),
        ((IMAGES * 3, LABELS), {"eps": 0.1}, r"must lie in \[0, 1\]"),
        ((IMAGES * np.nan, LABELS), {"eps": 0.1}, r"must lie in \[0, 1\]"),
        ((IMAGES, LABELS[:3]), {"eps": 0.1}, r"\(N, ...\) and \(N,\)"),
        ((IMAGES, LABELS + 8), {"eps": 0.1}, "out of range for a model of 3 logits"),
        ((IMAGES, LABELS - 1), {"eps": 0.1}, "integers from 0"),
        ((IMAGES, LABELS.float()), {"eps": 0.1}, "integers from 0"),
        ((IMAGES, LABELS), {"eps": 0.1, "limit_test": 2}, "apply to a data set's name"),
        ((IMAGES, LABELS), {"eps": 0.1, "train_counts": [5, 4]}, "3 logits, the data 2 classes"),
        (IMAGES, {"eps": 0.1}, "two tensors"),
    ],
)
def test_bad_tensors_get_one_line(data: object, more: dict[str, object], message: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(UserError, match=message) as caught:
        ltrobust.evaluate(model, data, "clean", device="cpu", **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("attack", "norm"), [("pgd3-l2@0.5", 2.0), ("mim3-l2@0.3", 2.0), ("pgd3x2@0.1", float("inf"))]
)
def test_stronger_settings_break_no_less(finished: Finished, attack: str, norm: float) -> None:
    model, data = trained_model(finished), load_data("digits-lt", limit_test=50)
    table = ltrobust.evaluate(model, data, ["clean", attack], device="cpu")
    assert table["accuracy"][1] <= table["accuracy"][0]
    fell = table.attrs["outcomes"].groupby("attack")["fell"].agg(set)
    assert fell["clean"] <= {"", "clean"}
    assert "clean" in fell[table["attack"][1]]
