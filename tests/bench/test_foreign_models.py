"""`evaluate --model module:callable` and plain tensors: anybody's model, judged like ours."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from bench_helpers import Cli, Finished, attacks_of, content, error_of, outcomes_of, tree
from torch import nn

import ltrobust
from ltrobust.bench.checks import lacks_reliability
from ltrobust.bench.runner import load_defended
from ltrobust.config import Run
from ltrobust.data import load_data, to_float
from ltrobust.errors import UserError
from ltrobust.evaluation.evaluate import DefendedModel
from ltrobust.evaluation.foreign import model_sha256
from ltrobust.results.store import RunStore
from ltrobust.training.checkpoint import from_bytes

pytestmark = pytest.mark.usefixtures("without_figures", "without_page", "few_checks")

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
    findings = content(run / "reliability.json")["findings"]
    assert {"check", "flagged", "value", "threshold", "explanation", "concerns"} == set(findings[0])
    assert findings[0]["check"] in outcome.stdout.replace("\n", "")


def test_a_mended_model_is_a_new_one(cli: Cli, module: str) -> None:
    """Old verdicts must not be served for a model whose code or plain settings have changed."""
    words = (*EVALUATE, "--model", f"{module}:plain", "--output", "out")
    assert cli(*words).code == 0
    changed = MODULE.replace("mean=0.0, std=1.0", "mean=0.0, std=1000.0")
    Path(f"{module}.py").write_text(changed)
    del sys.modules[module]
    assert cli(*words).code == 0
    assert len(list(Path("out/runs").iterdir())) == 2


def test_what_tells_models_apart() -> None:
    def scaled(scale: float) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        model.scale = scale  # type: ignore[assignment]
        return model

    one = model_sha256(scaled(1.0), "a:f")
    assert model_sha256(scaled(1.0), "a:f") == one
    assert model_sha256(scaled(2.0), "a:f") != one
    assert model_sha256(scaled(1.0), "a:g") != one
    other = scaled(1.0)
    other[1].bias.data += 1  # type: ignore[operator]
    assert model_sha256(other, "a:f") != one


def reliability() -> dict[str, dict[str, object]]:
    findings = content(only_run("out") / "reliability.json")["findings"]
    return {finding["check"]: finding for finding in findings}


@pytest.mark.usefixtures("all_checks")
def test_a_small_evaluation_wipes_out_no_mark(cli: Cli, module: str) -> None:
    changed = MODULE.replace("mean=0.0, std=1.0", "mean=0.0, std=3000.0")
    Path(f"{module}.py").write_text(changed)
    words = ("evaluate", "--dataset", "digits-lt", "--model", f"{module}:plain", "--output", "out")
    assert cli(*words, "--limit-test", "60", "--attacks", "clean,pgd2").code == 0
    before = {name for name, found in reliability().items() if found["flagged"]}
    assert "vanishing-gradients" in before
    assert cli(*words, "--limit-test", "10", "--attacks", "fgsm@0.001").code == 0
    assert {name for name, found in reliability().items() if found["flagged"]} >= before


@pytest.mark.usefixtures("all_checks")
def test_attacks_in_other_balls_are_checked_too(cli: Cli, module: str) -> None:
    words = ("evaluate", "--dataset", "digits-lt", "--limit-test", "20", "--output", "out")
    assert cli(*words, "--model", f"{module}:plain", "--attacks", "pgd2-l2,pgd2@0").code == 0
    assert reliability()["random-outputs"]["value"] is not None
    assert reliability()["vanishing-gradients"]["value"] is not None


def test_searches_in_two_precisions_never_share_a_table(cli: Cli, module: str) -> None:
    words = ("evaluate", "--dataset", "digits-lt", "--limit-test", "20", "--output", "out")
    model = ("--model", f"{module}:plain")
    assert cli(*words, *model, "--attacks", "clean,pgd2").code == 0
    assert cli(*words, *model, "--attacks", "fgsm", "--precision", "bf16").code == 0
    tables = [path.read_text() for path in Path("out/tables").glob("balanced*.md")]
    assert len(tables) == 2
    coarse = [text for text in tables if "looked for in bf16" in text]
    assert len(coarse) == 1
    assert "FGSM" in coarse[0]
    assert "pgd2" not in coarse[0]
    assert set(pd.read_csv("out/leaderboard.csv")["search"]) == {"fp32", "bf16"}


def test_a_report_that_a_kill_left_behind_is_made_up_for(
    cli: Cli, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("evaluate", "--dataset", "digits-lt", "--limit-test", "20", "--output", "out")
    model = ("--model", f"{module}:plain")
    assert cli(*words, *model, "--attacks", "clean,pgd2").code == 0
    with monkeypatch.context() as patched:
        patched.setattr("ltrobust.bench.runner.check_reliability", _killed)
        assert cli(*words, *model, "--attacks", "clean,pgd2,pgd12").code == 130
    assert lacks_reliability(RunStore(only_run("out")))
    assert cli(*words, *model, "--attacks", "clean,pgd2,pgd12").code == 0
    assert not lacks_reliability(RunStore(only_run("out")))


def _killed(*words: object) -> None:
    raise KeyboardInterrupt


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
    expected, found = (outcomes_of(only_run(name)) for name in ("a", "b"))
    assert expected["pred"].tolist() == found["pred"].tolist()


def test_seed_changes_the_start_and_precision_is_recorded(cli: Cli, module: str) -> None:
    words = (*EVALUATE, "--model", f"{module}:plain", "--output", "out")
    assert cli(*words).code == 0
    assert cli(*words, "--seed", "5", "--precision", "bf16").code == 0
    made = attacks_of(only_run("out")).values()
    settings = [one["settings"] for one in made if one["attack"] == "pgd2"]
    assert [s["seed"] for s in settings] == [0, 5]
    assert [s.get("search") for s in settings] == [None, "bf16"]


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--model", "no_such_module_here:f"), ("no_such_module_here", "cannot be imported")),
        (("--model", "{module}:absent"), ("no callable", "'absent'")),
        (("--model", "{module}:number"), ("no callable", "'number'")),
        (("--model", "{module}"), ("module:callable",)),
        (("--model", "{module}:no_model"), ("must return a torch.nn.Module", "int")),
        (("--model", "{module}:broken"), ("weights are not there",)),
        (("--model", "{module}:few_logits"), ("3 logits", "10 classes")),
        (("--model", "{module}:plain", "--arch", "resnet18"), ("--arch",)),
        (("--model", "{module}:plain", "--model-args", "depth=3"), ("unexpected", "depth")),
        (("--checkpoint", "x.pt", "--model-args", "depth=3"), ("goes with --model",)),
        (("--model", "{module}:plain", "--checkpoint-key", "ema"), ("goes with --checkpoint",)),
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
    run = store.begun_record().run
    assert isinstance(run, Run)
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
        ((torch.tensor(0.5), LABELS), {"eps": 0.1}, r"\(N, ...\) and \(N,\)"),
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


class Coin(nn.Module):
    """A random layer; right and wrong change from pass to pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x.flatten(1)) + torch.randn(len(x), 4)


@pytest.mark.parametrize("attack", ["aa-rand", "aa-apgd"])
def test_random_models_are_judged_and_marked(attack: str) -> None:
    torch.manual_seed(0)
    data = (torch.rand(12, 1, 4, 4), torch.arange(12) % 4)
    table = ltrobust.evaluate(Coin(), data, ["clean", attack], eps=0.01, device="cpu")
    assert table["accuracy"][1] <= table["accuracy"][0]
    flagged = {f["check"] for f in table.attrs["reliability"] if f["flagged"]}
    assert "random-outputs" in flagged


class Numpy(nn.Module):
    """Leaves torch, where autograd cannot follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(x.numpy()).flatten(1)[:, :4] * 5


def double() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 4)).double()


@pytest.mark.parametrize("make", [Numpy, double])
def test_unusual_models_are_evaluated(make: Callable[[], nn.Module]) -> None:
    data = (torch.rand(12, 1, 4, 4, dtype=torch.float64), torch.arange(12) % 4)
    counts = np.array([5, 4, 3, 2])
    table = ltrobust.evaluate(
        make(), data, "clean,pgd2x2", eps=0.1, device="cpu", train_counts=counts
    )
    assert table["head"].notna().all()


def test_no_module_is_no_model() -> None:
    with pytest.raises(UserError, match=r"must be a torch.nn.Module, got function"):
        ltrobust.evaluate(lambda x: x, (IMAGES, LABELS), "clean", eps=0.1)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="give one of: model, checkpoint="):
        ltrobust.evaluate(None, (IMAGES, LABELS), "clean", eps=0.1)


def weights_of(finished: Finished) -> Path:
    return finished.runs[0] / "model.safetensors"


def test_a_checkpoint_that_normalises_gives_what_the_flag_gives(
    cli: Cli, finished: Finished
) -> None:
    """RobustBench's buffers are used, noted and recorded; never dropped."""
    weights = from_bytes(weights_of(finished).read_bytes(), "it")
    torch.save(weights, "plain.pt")
    buffers = {"mu": torch.full((1, 1, 1, 1), 0.25), "sigma": torch.full((1, 1, 1, 1), 0.5)}
    torch.save({"state_dict": {**weights, **buffers}}, "normalises.pt")
    words = (*EVALUATE, "--arch", "small-cnn")
    flag = cli(*words, "--checkpoint", "plain.pt", "--normalize", "0.25,0.5", "--output", "a")
    file = cli(*words, "--checkpoint", "normalises.pt", "--output", "b")
    assert (flag.code, file.code) == (0, 0), file.stderr
    assert "normalise its images: (x - 0.25) / 0.5" in file.stdout
    expected, found = (outcomes_of(only_run(name)) for name in ("a", "b"))
    assert expected["pred"].tolist() == found["pred"].tolist()
    assert content(only_run("b") / "run.json")["run"]["normalize"] == "0.25,0.5"
    both = cli(*words, "--checkpoint", "normalises.pt", "--normalize", "0.25,0.5")
    assert both.code == 2
    assert "leave it out" in both.stderr


def test_checkpoints_and_names_are_taken_from_python(finished: Finished, module: str) -> None:
    data = load_data("digits-lt", limit_train=60, limit_test=20)
    network = ltrobust.evaluate(trained_model(finished), data, "clean,fgsm", device="cpu")
    file = ltrobust.evaluate(
        None,
        data,
        "clean,fgsm",
        device="cpu",
        checkpoint=weights_of(finished),
        arch="small-cnn",
        method=finished.runs[0].name.rpartition("-")[0],
    )
    assert file["accuracy"].tolist() == network["accuracy"].tolist()
    named = ltrobust.evaluate(f"{module}:Mine", data, "clean", model_args={"mean": 0.0})
    assert 0 <= named["accuracy"][0] <= 1
    with pytest.raises(UserError, match="go with checkpoint="):
        ltrobust.evaluate(f"{module}:Mine", data, "clean", arch="small-cnn")


def test_an_average_beside_the_weights_is_chosen_by_key(cli: Cli, finished: Finished) -> None:
    weights = from_bytes(weights_of(finished).read_bytes(), "it")
    torch.save({"state_dict": weights, "state_dict_ema": weights}, "ema.pt")
    words = (*EVALUATE, "--arch", "small-cnn", "--checkpoint", "ema.pt", "--output", "out")
    asked = cli(*words)
    assert asked.code == 2
    assert "--checkpoint-key state_dict_ema" in asked.stderr
    assert not Path("out").exists()
    assert cli(*words, "--checkpoint-key", "state_dict_ema").code == 0
    model = content(only_run("out") / "run.json")["run"]["model"]
    assert model["checkpoint_key"] == "state_dict_ema"


def test_arguments_reach_the_model_and_its_record(cli: Cli, module: str) -> None:
    words = (*EVALUATE, "--model", f"{module}.py:Mine", "--output", "out")
    assert cli(*words, "--model-args", "mean=0.25,std=0.5").code == 0
    model = content(only_run("out") / "run.json")["run"]["model"]
    assert model["model_args"] == {"mean": "0.25", "std": "0.5"}
    assert model["callable"] == f"{module}:Mine"


def test_an_attack_that_cannot_run_is_refused_before_the_first_one() -> None:
    model, images = nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), torch.rand(6, 1, 4, 4)
    with pytest.raises(UserError, match="three logits"):
        ltrobust.evaluate(model, (images, torch.arange(6) % 2), "pgd2,dlr3", eps=0.1, device="cpu")
    with pytest.raises(UserError, match=r"needs images \(N, C, H, W\)"):
        ltrobust.evaluate(
            nn.Linear(64, 10), (torch.rand(6, 64), torch.arange(6)), "autoattack", eps=0.1
        )


def test_a_model_that_fails_under_attack_leaves_one_line_and_a_failed_run(
    cli: Cli, module: str
) -> None:
    text = (
        MODULE
        + """

class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        if len(x) > 4:
            raise ValueError("only\\nfour")
        return self.linear(x.flatten(1))
"""
    )
    Path(f"{module}.py").write_text(text)
    outcome = cli(*EVALUATE, "--model", f"{module}:Small", "--output", "out")
    assert outcome.code == 1
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert "the model failed under attack (ValueError: only four)" in outcome.stderr
    assert error_of(only_run("out")) == "ValueError: only four"


# names, and one table with ours -------------------------------------------------------------------


def foreign_checkpoint(finished: Finished, name: str, change: float = 0.0) -> str:
    """The network of a run of ours as somebody else's file, its weights maybe changed a little."""
    run = next((finished.suite / "runs").glob("pgd-at-*"))
    weights = ltrobust.load(run).model.net.state_dict()
    last = list(weights)[-1]
    torch.save({**weights, last: weights[last] + change}, name)
    return name


def foreign_words(file: str, *more: str) -> tuple[str, ...]:
    return (*EVALUATE, "--checkpoint", file, "--arch", "small-cnn", "--output", "ext", *more)


def methods_of(output: str) -> list[str]:
    return sorted(set(pd.read_csv(f"{output}/metrics.csv")["method"]))


def test_a_foreign_model_stands_in_one_ranking_with_ours(finished: Finished, cli: Cli) -> None:
    """The same network under two names on the same images: the same scores in one table."""
    file = foreign_checkpoint(finished, "theirs.pt")
    assert cli(*foreign_words(file, "--name", "Theirs 2024")).code == 0
    before = tree(finished.suite)
    words = ("report", str(finished.suite), "ext", "--across", "recipe,arch,epochs")
    outcome = cli(*words, "--output", "both")
    assert outcome.code == 0, outcome.stderr
    board = pd.read_csv("both/leaderboard.csv").set_index("method")
    assert board["group"].nunique() == 1
    ours, theirs = board.loc["pgd-at"], board.loc["Theirs 2024"]
    assert ours["pgd2_accuracy_mean"] == theirs["pgd2_accuracy_mean"]
    assert (theirs["recipe"], theirs["epochs"]) == ("external", 0)
    leads = pd.read_csv("both/comparisons.csv")
    assert (leads["basis"] == "paired images").all()
    assert (leads["verdict"] != "unknown").all()
    assert tree(finished.suite) == before
    alone = cli("report", str(finished.suite), "ext", "--output", "apart")
    assert alone.code == 0
    assert pd.read_csv("apart/leaderboard.csv")["group"].nunique() == 2
    again = ltrobust.report([finished.suite, "ext"], across="all")
    assert again.leaderboard["group"].nunique() == 1
    wrong = cli("report", str(finished.suite), "--across", "recipes")
    assert (wrong.code, "did you mean 'recipe'" in wrong.stderr) == (2, True)


@pytest.mark.usefixtures("without_reports")
def test_a_name_belongs_to_one_model_and_is_no_part_of_its_identity(
    finished: Finished, cli: Cli
) -> None:
    file = foreign_checkpoint(finished, "theirs.pt")
    assert cli(*foreign_words(file)).code == 0
    (run,) = Path("ext/runs").iterdir()
    verdicts = tree(run / "attacks")
    assert methods_of("ext") == ["theirs"]
    assert cli(*foreign_words(file, "--name", "Theirs 2024")).code == 0
    assert tree(run / "attacks") == verdicts  # nothing attacked again
    assert methods_of("ext") == ["Theirs 2024"]
    assert cli(*foreign_words(file)).code == 0
    assert methods_of("ext") == ["Theirs 2024"]
    assert len(list(Path("ext/runs").iterdir())) == 1
    other = foreign_checkpoint(finished, "other.pt", change=0.01)
    refused = cli(*foreign_words(other, "--name", "Theirs 2024"))
    assert refused.code == 2
    assert "has another model of this name; choose another name" in refused.stderr
    assert len(list(Path("ext/runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "printable"),
        ("a,b", "without commas"),
        (" a", "without blanks"),
        ("a\nb", "printable"),
        ("a" * 61, "1 to 60"),
        ("at-bsl", "that is a method of ltrobust"),
    ],
)
def test_bad_names_are_refused(cli: Cli, module: str, name: str, message: str) -> None:
    outcome = cli(*EVALUATE, "--model", f"{module}:plain", "--output", "out", "--name", name)
    assert outcome.code == 2
    assert message in outcome.stderr
    assert not Path("out/runs").exists()


def test_a_run_of_ours_takes_no_name(finished: Finished, cli: Cli) -> None:
    run = next((finished.suite / "runs").iterdir())
    outcome = cli("evaluate", str(run), "--name", "mine")
    assert (outcome.code, "leave it out" in outcome.stderr) == (2, True)


@pytest.mark.usefixtures("all_checks")
def test_checks_can_be_left_out_and_made_later(
    cli: Cli, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (*EVALUATE, "--model", f"{module}:plain", "--output", "out")
    with monkeypatch.context() as patched:
        patched.setattr("ltrobust.bench.checks.probe", _killed)
        outcome = cli(*words, "--no-checks")
    assert outcome.code == 0, outcome.stderr
    assert not (only_run("out") / "reliability.json").exists()
    assert "reliability not checked" in outcome.stdout
    assert "? reliability not checked: Plain." in Path("out/tables/balanced.md").read_text()
    assert cli(*words).code == 0
    assert (only_run("out") / "reliability.json").exists()
    assert "not checked" not in Path("out/tables/balanced.md").read_text()


def test_an_attack_without_checks_says_so_beside_one_with_checks(cli: Cli, module: str) -> None:
    words = ("evaluate", "--dataset", "digits-lt", "--limit-test", "20", "--output", "out")
    model = ("--model", f"{module}:plain")
    assert cli(*words, *model, "--attacks", "clean,pgd2").code == 0
    assert cli(*words, *model, "--attacks", "pgd4", "--no-checks").code == 0
    rows = pd.read_csv("out/metrics.csv").set_index("attack")["reliability_report"]
    assert rows.to_dict() == {"clean": "yes", "pgd2": "yes", "pgd4": "no"}


def test_checks_can_be_left_out_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrobust.api.probe", _killed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    table = ltrobust.evaluate(
        model, "digits-lt", "pgd2", limit_test=20, device="cpu", no_checks=True
    )
    assert table.attrs["reliability"] == []
