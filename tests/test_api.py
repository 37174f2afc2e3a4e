"""The Python interface: what `train` and `evaluate` return, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ltrobust
from ltrobust.data import load_data
from ltrobust.data.augment import to_float
from ltrobust.errors import RunError, UserError

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
    settings = {**TINY, "epochs": 3, "limit_train": 200, "limit_test": 20, "select": select}
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


def test_evaluate_takes_names_lists_loaded_data_and_any_module() -> None:
    data = load_data("digits-lt", limit_test=30)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    listed = ltrobust.evaluate(model, data, ["clean", "cw2"], eps=0.05, device="cpu")
    named = ltrobust.evaluate(
        model, "digits-lt", "clean,cw2", eps=0.05, limit_test=30, device="cpu"
    )
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
        ("all", {}, "train makes one run, these settings make 5"),
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
