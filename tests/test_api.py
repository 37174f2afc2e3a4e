"""The Python interface: what `train` and `evaluate` return, and what they refuse."""

from __future__ import annotations

import inspect
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import ltrobust
import ltrobust.bench.plan  # binds the package under the function's name
from ltrobust.attacks.pgd import pgd
from ltrobust.attacks.suite import LOSSES
from ltrobust.data import load_data
from ltrobust.data.augment import to_float
from ltrobust.errors import RunError, UserError

pytestmark = pytest.mark.usefixtures("light_figures")

TINY: dict[str, Any] = {"epochs": 2, "limit_train": 60, "batch_size": 16, "device": "cpu"}
COLUMNS = [
    *("attack", "eps", "n", "accuracy", "balanced_accuracy", "head", "medium", "tail"),
    *("worst_class", "ci_low", "ci_high", "seconds", "robust_gap"),
    *("natural_error", "boundary_error"),
    *(
        f"{name}_ci_{side}"
        for name in ("acc", "head", "medium", "tail", "worst_class")
        for side in ("low", "high")
    ),
]


@pytest.fixture(scope="module")
def trained() -> ltrobust.TrainedModel:
    return ltrobust.train("at-bsl", limit_test=20, **TINY)


def weights(model: nn.Module) -> list[torch.Tensor]:
    return list(model.state_dict().values())


def equal(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_train_returns_a_model_in_eval_mode_with_its_history_and_data(
    trained: ltrobust.TrainedModel,
) -> None:
    assert not any(module.training for module in trained.model.modules())
    logits = trained.model(to_float(trained.data.test_images))
    assert logits.shape == (20, 10)
    assert logits.isfinite().all()
    assert trained.history["epoch"].tolist() == [1, 2]
    assert trained.run_id.startswith("at-bsl-")
    assert len(trained.data.train_labels) <= 60
    assert trained.path is None


def test_without_output_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ltrobust.train("pgd-at", **{**TINY, "epochs": 1})
    assert list(tmp_path.iterdir()) == []


def test_with_output_the_run_is_stored_equal_and_found_again(
    tmp_path: Path, trained: ltrobust.TrainedModel
) -> None:
    stored = ltrobust.train("at-bsl", limit_test=20, output=tmp_path, **TINY)
    assert stored.path == tmp_path / "runs" / stored.run_id
    assert stored.run_id == trained.run_id
    assert (stored.path / "model.safetensors").is_file()
    assert equal(stored.model, trained.model)
    assert not stored.model.training
    file = stored.path / "model.safetensors"
    before = file.stat().st_mtime_ns
    again = ltrobust.train("at-bsl", limit_test=20, output=tmp_path, **TINY)
    assert file.stat().st_mtime_ns == before
    assert equal(again.model, stored.model)
    assert again.history["train_loss"].tolist() == stored.history["train_loss"].tolist()


def test_the_seed_decides_the_weights(trained: ltrobust.TrainedModel) -> None:
    same = ltrobust.train("at-bsl", limit_test=20, **TINY)
    other = ltrobust.train("at-bsl", limit_test=20, seeds=1, **TINY)
    assert equal(same.model, trained.model)
    assert not equal(other.model, trained.model)
    assert other.run_id != trained.run_id


@pytest.mark.parametrize("select", ["best", "best-on-test"])
def test_a_chosen_checkpoint_is_the_same_in_memory_and_on_disk(tmp_path: Path, select: str) -> None:
    more = {"epochs": 3, "limit_train": 200, "limit_test": 20, "batch_size": 64}
    settings = {**TINY, **more, "select": select}
    in_memory = ltrobust.train("pgd-at", **settings)
    stored = ltrobust.train("pgd-at", output=tmp_path, **settings)
    assert equal(in_memory.model, stored.model)


def test_a_model_with_an_inference_adjustment_carries_it() -> None:
    trained = ltrobust.train("robal-n", limit_test=20, **TINY)
    x = to_float(trained.data.test_images)
    raw = trained.model.net(x)
    counts = torch.tensor(trained.data.train_counts)
    expected = 10 * raw - 0.1 * (counts / counts.sum()).log()
    assert torch.allclose(trained.model(x), expected, atol=1e-5)


def test_evaluate_gives_one_row_an_attack_and_one_outcome_an_image(
    trained: ltrobust.TrainedModel,
) -> None:
    table = ltrobust.evaluate(trained.model, trained.data, "clean,pgd2,fgsm", device="cpu")
    assert list(table) == COLUMNS
    assert table["attack"].tolist() == ["clean", "pgd2", "fgsm"]
    assert table["eps"].tolist() == [0.0, 0.1, 0.1]
    assert table["n"].tolist() == [20] * 3
    accuracy = table["accuracy"].tolist()
    assert accuracy[0] == max(accuracy)
    outcomes = table.attrs["outcomes"]
    assert len(outcomes) == 60
    by_attack = outcomes.groupby("attack")["correct"].mean()
    assert by_attack["pgd2"] == pytest.approx(accuracy[1])

    # pandas compares attrs as it joins tables, also of what was made from them
    other = ltrobust.evaluate(trained.model, trained.data, "clean", device="cpu")
    for one, two in ((table, other), (table.round(3), other.round(3)), (table, table.copy())):
        joined = pd.concat([one, two], keys=["one", "two"])
        assert len(joined) == len(one) + len(two)
    assert (outcomes == outcomes.assign(pred=-1)) is False
    assert (outcomes == outcomes.copy()) is True
    assert (outcomes == pd.DataFrame(outcomes)).to_numpy().all()
    assert not (outcomes["pred"] == -1).any()


def test_evaluate_takes_names_lists_loaded_data_and_any_module() -> None:
    data = load_data("digits-lt", limit_test=30)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    words = {"eps": 0.05, "device": "cpu", "no_checks": True}
    listed = ltrobust.evaluate(model, data, ["clean", "cw2"], **words)
    named = ltrobust.evaluate(model, "digits-lt", "clean,cw2", limit_test=30, **words)
    assert listed["eps"].tolist() == [0.0, 0.05]
    both = (frame.drop(columns="seconds") for frame in (listed, named))
    assert next(both).equals(next(both))


def test_evaluate_leaves_weights_and_gradients_alone(trained: ltrobust.TrainedModel) -> None:
    before = [value.clone() for value in weights(trained.model)]
    ltrobust.evaluate(trained.model, trained.data, "pgd2", device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(before, weights(trained.model), strict=True))


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("at-bls", {}, "did you mean 'at-bsl'"),
        ("at-bsl", {"epoch": 5}, "unknown setting 'epoch'; did you mean 'epochs'"),
        ("at-bsl", {"epochs": 0}, "--epochs"),
        ("at-bsl", {"batch_size": 0}, "--batch-size"),
        ("at-bsl", {"eps": -0.1}, "--eps"),
        ("at-bsl", {"imbalance_ratio": 0.5}, "--imbalance-ratio"),
        ("at-bsl", {"imbalance_ratio": float("nan")}, "--imbalance-ratio"),
        ("at-bsl", {"seeds": "1,2"}, "train makes one run, these settings make 2"),
        ("at-bsl", {"seeds": "one"}, "--seeds"),
        ("core", {}, "train makes one run, these settings make 5"),
        ("at-bsl", {"dataset": "digit-lt"}, "did you mean 'digits-lt'"),
        ("at-bsl", {"device": "gpu"}, "unknown device 'gpu'"),
        ("at-bsl", {"arch": "resnet81"}, "did you mean 'resnet18'"),
        ("at-bsl", {"precision": "fp16"}, "unknown precision 'fp16'"),
        ("at-bsl", {"plugin": "no_such_file.py"}, "no such file"),
    ],
)
def test_train_refuses_bad_settings_in_one_line(
    method: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ltrobust.train(method, **settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"attacks": "pdg20"}, "did you mean 'pgd20'"),
        ({"attacks": "clean,,pgd2"}, "empty item"),
        ({"attacks": []}, "empty item"),
        ({"attacks": "pgd2", "eps": -0.1}, "eps"),
        ({"attacks": "pgd2", "eps": 1.5}, "eps"),
        ({"attacks": "pgd2", "eps": float("nan")}, "eps"),
        ({"dataset": "digit-lt"}, "did you mean 'digits-lt'"),
        ({"device": "gpu"}, "unknown device"),
        ({"limit_test": 3}, "--limit-test"),
        ({"test_protocol": "longtailed"}, "did you mean 'long-tailed'"),
        ({"no_such_setting": 3}, "no_such_setting"),
    ],
)
def test_evaluate_refuses_bad_settings_in_one_line(settings: dict[str, Any], message: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(UserError, match=message) as caught:
        ltrobust.evaluate(model, **{"attacks": "clean", "device": "cpu", **settings})
    assert "\n" not in str(caught.value)


def test_data_settings_with_loaded_data_are_refused() -> None:
    data = load_data("digits-lt", limit_test=10)
    with pytest.raises(UserError, match="apply to a data set's name"):
        ltrobust.evaluate(nn.Identity(), data, "clean", limit_test=10)


def test_a_training_that_cannot_go_on_is_a_run_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*arguments: Any, **more: Any) -> Any:
        raise RunError("the loss is not finite in epoch 1")

    monkeypatch.setattr("ltrobust.bench.runner.train", failing)
    with pytest.raises(RunError, match="not finite in epoch 1"):
        ltrobust.train("pgd-at", output=tmp_path, **TINY)


# what is public ----------------------------------------------------------------------------------


def test_everything_public_is_listed_and_there() -> None:
    names = {"train", "evaluate", "load", "bench", "compare", "report", "attack", "TrainedModel"}
    assert names <= set(dir(ltrobust))
    assert all(callable(getattr(ltrobust, name)) for name in names)
    assert "across" in inspect.signature(ltrobust.report).parameters
    assert "suite" in inspect.signature(ltrobust.bench).parameters


def test_packages_that_are_functions_stay_packages() -> None:
    from ltrobust.bench import settings
    from ltrobust.report import render_board

    assert callable(render_board)
    assert settings.make_settings({}).dataset == "digits-lt"
    assert callable(ltrobust.bench)
    assert callable(ltrobust.report)


def test_importing_costs_no_torch() -> None:
    code = "import sys, ltrobust; dir(ltrobust); ltrobust.bench; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# load --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, light_figures: None) -> Path:
    """A suite with a run of a method with an adjustment at inference, and one without."""
    suite = tmp_path_factory.mktemp("api") / "suite"
    for_each = {**TINY, "epochs": 1, "limit_test": 20, "attacks": "clean,pgd2"}
    results = ltrobust.bench(methods="robal-n,pgd-at", output=suite, no_checks=True, **for_each)
    assert set(results.metrics["method"]) == {"robal-n", "pgd-at"}
    assert set(results.leaderboard["method"]) == {"robal-n", "pgd-at"}
    assert (suite / "index.html").is_file()
    return suite


def run_of(suite: Path, method: str) -> Path:
    return next((suite / "runs").glob(f"{method}-*"))


def test_a_stored_run_comes_back_as_a_module_with_its_data(stored: Path) -> None:
    path = run_of(stored, "robal-n")
    run = ltrobust.load(str(path))
    trained = ltrobust.train("robal-n", limit_test=20, **{**TINY, "epochs": 1})
    assert isinstance(run, nn.Module)
    assert not any(module.training for module in run.modules())
    assert (run.run_id, run.path) == (path.name, path)
    assert run.test_images.shape == (20, 1, 8, 8)
    assert 0 <= run.test_images.min() <= run.test_images.max() <= 1
    assert torch.equal(run.test_labels, run.data.test_labels)
    assert torch.equal(run(run.test_images), trained(trained.test_images))
    assert not torch.equal(run(run.test_images), run.model.net(run.test_images))
    assert len(ltrobust.load(path, limit_test=40).test_labels) == 40
    table = ltrobust.evaluate(run, run.data, "clean,pgd2", device="cpu", no_checks=True)
    known = ltrobust.report(stored, methods="robal-n").metrics
    assert table["accuracy"].tolist() == known["accuracy"].tolist()


def test_a_module_comes_back_without_its_data(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*arguments: Any, **settings: Any) -> Any:
        raise UserError("the data is not there")

    monkeypatch.setattr("ltrobust.bench.loader.load_data", gone)
    run = ltrobust.load(run_of(stored, "pgd-at"))
    assert run(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    with pytest.raises(UserError, match="is not there"):
        _ = run.data


def change_weights(run: Path) -> None:
    """The same file with another number, as of another model."""
    file = run / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: (run / "model.safetensors").unlink(), "model.safetensors|not trained"),
        (lambda run: (run / "run.json").unlink(), r"run\.json is gone; put it back"),
        (lambda run: (run / "trained.json").unlink(), r"trained\.json is gone; put it back"),
        (lambda run: change_weights(run), "is not what was trained"),
        (lambda run: (run / "run.json").write_text("{}"), "is damaged: schema is missing"),
    ],
)
def test_what_is_no_stored_run_is_refused(
    tmp_path: Path, stored: Path, change: Any, message: str
) -> None:
    run = Path(shutil.copytree(run_of(stored, "pgd-at"), tmp_path / "runs" / "pgd-at-0"))
    change(run)
    with pytest.raises(UserError, match=message):
        ltrobust.load(run)


def test_load_refuses_unknown_settings(stored: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'limit_test'"):
        ltrobust.load(run_of(stored, "pgd-at"), limit_tests=3)


# attack ------------------------------------------------------------------------------------------


class Halves(nn.Module):
    """Tells bright images from dark ones; exact, so that verdicts can be counted by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(10.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = self.gain * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-bright, bright, bright - 40, -bright - 40], dim=1)


SHADES = torch.tensor([0.1, 0.45, 0.55, 0.9, 0.7])
GREY = SHADES.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
CLASSES = torch.tensor([0, 0, 1, 1, 0])  # the last one is wrong without an attack


@pytest.mark.usefixtures("short_autoattack")
@pytest.mark.parametrize("attack", ["fgsm", "pgd5", "tpgd3x2", "autoattack", "noise", "clean"])
def test_predictions_on_attacked_images_are_the_verdicts(attack: str) -> None:
    found = ltrobust.attack(Halves(), GREY, CLASSES, attack, eps=0.1, device="cpu")
    assert (found - GREY).abs().max() <= 0.1 + 1e-6
    assert 0 <= found.min() <= found.max() <= 1
    words = {"eps": 0.1, "device": "cpu", "no_checks": True}
    table = ltrobust.evaluate(Halves(), (GREY, CLASSES), attack, **words)  # type: ignore[arg-type]
    right = Halves()(found).argmax(1) == CLASSES
    assert right.tolist() == table.attrs["outcomes"]["correct"].tolist()
    if attack not in ("noise", "clean"):
        assert right.tolist() == [True, False, False, True, False]
    assert torch.equal(found[4], GREY[4])


def test_the_search_is_the_plain_pgd_on_the_model() -> None:
    """Without a random start there is nothing else in it: one step of the sign of the gradient."""
    model = Halves()
    found = ltrobust.attack(model, GREY[:4], CLASSES[:4], "fgsm", eps=0.1, device="cpu")
    loss = LOSSES["ce"]
    expected = pgd(model, GREY[:4], CLASSES[:4], eps=0.1, step_size=0.1, steps=1, loss=loss)
    assert torch.allclose(found, expected)


def test_arrays_and_loaders_are_taken_wherever_tensors_are() -> None:
    model, words = Halves(), {"eps": 0.1, "device": "cpu"}
    unchecked = {**words, "no_checks": True}
    loader = DataLoader(TensorDataset(GREY, CLASSES), batch_size=2)
    plain = ltrobust.attack(model, GREY, CLASSES, "pgd5", **words)  # type: ignore[arg-type]
    arrays = GREY.double().numpy(), CLASSES.int().numpy()
    assert torch.equal(ltrobust.attack(model, *arrays, "pgd5", **words), plain)
    assert torch.equal(ltrobust.attack(model, loader, attack="pgd5", **words), plain)
    tables = [
        ltrobust.evaluate(model, data, "clean,pgd5", **unchecked)  # type: ignore[arg-type]
        for data in ((GREY, CLASSES), arrays, list(arrays), loader)
    ]
    assert all(table["accuracy"].tolist() == [0.8, 0.4] for table in tables)
    whole = (GREY * 255).round().to(torch.uint8)
    from_bytes = ltrobust.attack(model, whole.numpy(), arrays[1], "pgd5", **words)
    assert torch.equal(from_bytes, ltrobust.attack(model, whole, CLASSES, "pgd5", **words))
    assert from_bytes.dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "labels", "settings", "message"),
    [
        (GREY, None, {}, "labels: give the classes"),
        (GREY.numpy() * 255, CLASSES.numpy(), {}, r"must lie in \[0, 1\]"),
        (GREY.long(), CLASSES, {}, "uint8 or float"),
        (np.zeros((5, 32, 32, 3), np.uint8), CLASSES, {}, r"must be \(N, C, H, W\)"),
        (np.array(["a"] * 5), CLASSES, {}, "arrays"),
        (GREY, CLASSES[:3], {}, r"\(N,\)"),
        (GREY, CLASSES.float(), {}, "integers"),
        (GREY, CLASSES + 3, {}, "out of range"),
        (GREY, CLASSES, {"attack": "pdg20"}, "did you mean 'pgd20'"),
        (GREY, CLASSES, {"attack": "pgd2,cw2"}, "give one name"),
        (GREY, CLASSES, {"attack": ["pgd2"]}, "give one name"),
        (GREY, CLASSES, {"eps": None}, "give a radius"),
        (GREY, CLASSES, {"eps": 2.0}, "eps"),
        (DataLoader([]), None, {}, "yields no batch"),  # type: ignore[arg-type]
    ],
)
def test_attack_refuses_bad_input_in_one_line(
    images: Any, labels: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        ltrobust.attack(Halves(), images, labels, **{"eps": 0.1, "device": "cpu", **settings})
    assert "\n" not in str(caught.value)


# bench, compare, report --------------------------------------------------------------------------


@pytest.mark.usefixtures("without_page")
def test_compare_and_report_are_those_of_the_commands(stored: Path, tmp_path: Path) -> None:
    found = ltrobust.compare(run_of(stored, "robal-n"), str(run_of(stored, "pgd-at")))
    assert set(found.rows["attack"]) == {"clean", "pgd2"}
    assert set(found.rows["n"]) >= {20}
    only = ltrobust.report(stored, methods=["pgd-at"], output=tmp_path / "only")
    assert set(only.metrics["method"]) == {"pgd-at"}
    assert (tmp_path / "only" / "leaderboard.csv").is_file()
    assert len(ltrobust.report([stored, stored]).leaderboard) == 2


def ask(**words: Any) -> None:
    """Evaluate something, with further arguments."""
    images = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    given = {"dataset": images, "attacks": "clean", "eps": 0.1, "no_checks": True, **words}
    ltrobust.evaluate(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), **given)


def test_normalize_takes_numbers_as_the_command_line_takes_text() -> None:
    ask(normalize=(0.5, 0.25))
    ask(normalize="0.5,0.25")


@pytest.mark.parametrize("device", [None, "cpu", torch.device("cpu")])
def test_a_device_may_be_torchs(device: Any) -> None:
    ask(device=device)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda path: ltrobust.report([]), "at least one"),
        (lambda path: ltrobust.report(path / "none"), "holds no runs"),
        (lambda path: ltrobust.report(path, methods="pgd"), "unknown --methods"),
        (lambda path: ltrobust.report(path, across="recip"), "did you mean 'recipe'"),
        (lambda path: ltrobust.report(path, groups="x"), "cannot be read"),
        (lambda path: ltrobust.compare(path, path), "is no run directory"),
        (lambda path: ltrobust.bench(epoch=3), "did you mean 'epochs'"),
        (lambda path: ltrobust.bench("no-such-suite"), "no such file"),
        (lambda path: ltrobust.train("pgd-at", methods="trades"), "methods: the first argument"),
        (lambda path: ltrobust.train("pgd-at", attacks="clean"), "attacks: ltrobust.evaluate"),
        (lambda path: ltrobust.train("pgd-at", launcher="slurm"), "launcher: ltrobust.bench"),
        (lambda path: ltrobust.train("pgd-at", jobs=2), "jobs: ltrobust.bench"),
        (lambda path: ask(epochs=3), "unknown setting of evaluate 'epochs'"),
        (lambda path: ask(limit_tests=3), "unknown setting of evaluate 'limit_tests'"),
        (lambda path: ask(device="tpu"), "unknown device 'tpu'"),
        (lambda path: ask(train_counts=[math.inf, 1]), "give a list of whole numbers"),
        (lambda path: ask(train_counts=torch.ones(2, 2)), r"whole numbers, got tensor\(\[\[1"),
        (lambda path: ask(attacks=None), "attacks: give a list of names, got None"),
        (lambda path: ask(normalize=(0.5, "x")), "normalize: give a list of numbers"),
        (lambda path: ask(train_counts="abc"), "train_counts: give a list of whole numbers"),
        (lambda path: ask(train_counts=[1.5, 2]), "train_counts: give a list of whole numbers"),
        (lambda path: ask(train_counts=[-1, 2]), "a class cannot have -1 images"),
    ],
)
def test_wrong_settings_are_user_errors(stored: Path, call: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(stored)


@pytest.mark.usefixtures("without_page")
def test_failed_runs_are_a_run_error_after_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltrobust.bench import runner

    real = runner.train

    def failing(run: Any, *arguments: Any, **more: Any) -> Any:
        if run.method == "pgd-at":
            raise RunError("the loss is not finite in epoch 1")
        return real(run, *arguments, **more)

    monkeypatch.setattr(runner, "train", failing)
    words = {**TINY, "epochs": 1, "limit_test": 20, "attacks": "clean", "output": tmp_path}
    with pytest.raises(RunError, match=r"1 of 2 runs failed \(pgd-at-.*not finite"):
        ltrobust.bench(methods="pgd-at,at-bsl", no_checks=True, **words)
    assert set(ltrobust.report(tmp_path).metrics["method"]) == {"at-bsl"}


def test_results_of_runs_that_are_left_alone_are_not_returned(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"methods": "plain", "dataset": "digits-lt", "device": "cpu"}
    asked["output"] = tmp_path
    with pytest.raises(UserError, match=r"detach: the results .* are not there"):
        ltrobust.bench(**asked, launcher="slurm", detach=True)
    assert not any(tmp_path.iterdir())
