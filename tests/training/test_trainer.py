"""The trainer: which images a step sees, resuming bit for bit, and what an epoch leaves behind."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.config import Run
from ltrobust.context import Context, HeldOut
from ltrobust.data import LongTailedData, load_data
from ltrobust.data.holdout import hold_out
from ltrobust.errors import RunError
from ltrobust.method import Method
from ltrobust.testing import make_trial
from ltrobust.training import captured, trainer
from ltrobust.training.checkpoint import state_from_bytes, state_to_bytes
from ltrobust.training.engine import TrainingModel
from ltrobust.training.trainer import Shuffled, Trained, _batch_sizes, build, train

CPU = torch.device("cpu")
COLUMNS = ["epoch", "lr", "train_loss", "train_acc", "train_robust_acc"]


def make_run(method: str = "taet", drop_last: bool = True, **flags: Any) -> Run:
    asked = {"methods": method, "epochs": 4, "batch_size": 16, "device": "cpu", **flags}
    run = make_plan(make_settings(asked)).runs[0].run
    return run.model_copy(update={"recipe": run.recipe.model_copy(update={"drop_last": drop_last})})


@pytest.fixture(scope="module")
def data() -> LongTailedData:
    return load_data("digits-lt", limit_train=60, limit_test=20)


def batches_of(run: Run, n: int, epoch: int) -> list[Tensor]:
    """Positions of the images of each batch of an epoch."""
    sampler = Shuffled(run, n, epoch)
    return [sampler.take(size) for size in _batch_sizes(run.recipe, len(sampler))]


@pytest.mark.parametrize(
    ("n", "drop_last", "sizes"),
    [
        (48, True, [16, 16, 16]),
        (50, True, [16, 16, 16]),
        (50, False, [16, 16, 16, 2]),
        (16, True, [16]),
        (7, True, [7]),  # an only batch is never dropped
        (7, False, [7]),
        (17, True, [16]),
        (17, False, [16, 1]),
    ],
)
def test_incomplete_last_batch(n: int, drop_last: bool, sizes: list[int]) -> None:
    batches = batches_of(make_run(drop_last=drop_last), n, epoch=0)
    assert [len(batch) for batch in batches] == sizes
    seen = torch.cat(batches).tolist()
    assert len(set(seen)) == len(seen)
    assert set(seen) <= set(range(n))


def test_what_is_dropped_changes_from_epoch_to_epoch() -> None:
    seen = [frozenset(torch.cat(batches_of(make_run(), 30, e)).tolist()) for e in range(8)]
    assert len(set(seen)) > 1
    assert frozenset().union(*seen) == set(range(30))


def test_fewer_images_than_a_batch_still_train(data: LongTailedData) -> None:
    run = make_run("pgd-at", epochs=1, batch_size=1000)
    before = build(run, data.train_counts, data.image_shape).net.conv1.weight
    trained = train(run, data, device=CPU)
    assert not torch.equal(trained.net.conv1.weight, before)


def states_of(run: Run, data: LongTailedData) -> tuple[Trained, list[bytes]]:
    """Train unbroken; the state after every epoch as it would lie on disk."""
    states: list[bytes] = []
    trained = train(run, data, device=CPU, save=lambda s: states.append(state_to_bytes(s)))
    return trained, states


def same_weights(one: Trained, other: Trained) -> bool:
    first, second = one.net.state_dict(), other.net.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


def learning_curve(trained: Trained) -> list[dict[str, float]]:
    rows = [{k: v for k, v in row.items() if "seconds" not in k} for row in trained.history]
    return [{k: -1.0 if v != v else v for k, v in row.items()} for row in rows]


@pytest.mark.parametrize(
    "more", [{}, {"precision": "bf16"}, {"augment": "randaugment"}, {"drop_last": False}]
)
def test_resumed_after_any_epoch_equals_unbroken(
    data: LongTailedData, more: dict[str, Any]
) -> None:
    run = make_run(epochs=3, **more)
    unbroken, states = states_of(run, data)
    for content in states:
        torch.rand(3)  # the global generator is elsewhere by then
        resumed = train(run, data, device=CPU, state=state_from_bytes(content))
        assert same_weights(resumed, unbroken)
        assert learning_curve(resumed) == learning_curve(unbroken)


@pytest.mark.parametrize("select", ["best", "best-on-test"])
def test_resumed_run_chooses_the_same_checkpoint(select: str) -> None:
    data = load_data("digits-lt", limit_train=200, limit_test=20)
    if select == "best":
        data = hold_out(data)
    run = make_run("pgd-at", select=select, batch_size=32, epochs=3)
    unbroken, states = states_of(run, data)
    for content in states:
        resumed = train(run, data, device=CPU, state=state_from_bytes(content))
        assert same_weights(resumed, unbroken)
        assert resumed.epoch == unbroken.epoch
        assert learning_curve(resumed) == learning_curve(unbroken)


def test_a_finished_state_trains_no_further(data: LongTailedData) -> None:
    run = make_run("pgd-at", epochs=2)
    unbroken, states = states_of(run, data)
    saved: list[Any] = []
    again = train(run, data, device=CPU, state=state_from_bytes(states[-1]), save=saved.append)
    assert saved == []
    assert same_weights(again, unbroken)


def test_a_non_finite_loss_stops_the_run_and_saves_nothing_of_it(
    data: LongTailedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0
    real = captured.train_step

    def step(*arguments: Any) -> Tensor:
        nonlocal steps
        steps += 1
        return real(*arguments) * (math.nan if steps > 3 else 1.0)

    monkeypatch.setattr(captured, "train_step", step)
    saved: list[Any] = []
    with pytest.raises(RunError, match=r"not finite in epoch 2; .*learning rate") as caught:
        train(make_run("pgd-at"), data, device=CPU, save=lambda s: saved.append(copy.deepcopy(s)))
    assert "\n" not in str(caught.value)
    assert [len(state["history"]) for state in saved] == [1]


def test_a_learning_rate_beyond_reason_is_found_out(data: LongTailedData) -> None:
    run = make_run("pgd-at")
    wild = run.recipe.model_copy(update={"lr": 1e30})
    with pytest.raises(RunError, match="not finite"):
        train(run.model_copy(update={"recipe": wild}), data, device=CPU)


def test_history_has_one_row_an_epoch_with_the_contracts_columns(data: LongTailedData) -> None:
    history = train(make_run("taet", epochs=10), data, device=CPU).history
    assert [row["epoch"] for row in history] == list(range(1, 11))
    assert all(list(row) == [*COLUMNS, "seconds", "cpu_seconds"] for row in history)
    assert [round(row["lr"], 6) for row in history] == [0.1] * 8 + [0.01, 0.001]
    # TAET attacks no image in the first four of ten epochs
    robust = [row["train_robust_acc"] for row in history]
    assert [math.isnan(value) for value in robust] == [True] * 4 + [False] * 6
    for row in history:
        assert math.isfinite(row["train_loss"])
        assert 0 <= row["train_acc"] <= 1
        assert row["seconds"] > 0
        assert row["cpu_seconds"] > 0


def test_training_leaves_its_data_and_the_global_generator_alone(data: LongTailedData) -> None:
    images, labels = data.train_images.clone(), data.train_labels.clone()
    before = torch.get_rng_state()
    train(make_run("trades", epochs=1), data, device=CPU)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(data.train_images, images)
    assert torch.equal(data.train_labels, labels)


def test_epochs_of_a_shorter_run_are_not_those_of_a_longer_one(data: LongTailedData) -> None:
    short = train(make_run("pgd-at", epochs=4), data, device=CPU).history
    long = train(make_run("pgd-at", epochs=8), data, device=CPU).history
    # same streams, same rate: the runs part only where the schedule does (epoch 3 of 4)
    assert [row["train_loss"] for row in short[:3]] == [row["train_loss"] for row in long[:3]]
    assert short[3]["lr"] < long[3]["lr"]


@pytest.mark.parametrize("name", ["pgd-at", "cgr", "pgd-at+frl"])
def test_conformance_tells_a_method_what_the_trainer_tells_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make_trial(name, {"feedback_steps": 1} if name == "cgr" else {})
    trained = trial.build()
    expected = list(trial.contexts(trained, TrainingModel(trained.net, "fp32")))
    told: list[Context] = []
    method = type(trained.method)
    on_epoch_end = method.on_epoch_end

    def note(self: Method, ctx: Context) -> None:
        told.append(ctx)
        on_epoch_end(self, ctx)

    monkeypatch.setattr(method, "on_epoch_end", note)
    trial.train()
    assert len(told) == len(expected)
    for ours, theirs in zip(expected, told, strict=True):
        for field in dataclasses.fields(Context):
            one, other = getattr(ours, field.name), getattr(theirs, field.name)
            if isinstance(one, torch.Generator):
                assert one.initial_seed() == other.initial_seed(), field.name
            elif isinstance(one, Tensor):
                assert torch.equal(one, other), field.name
            elif isinstance(one, HeldOut):
                assert torch.equal(one.images, other.images)
                assert torch.equal(one.labels, other.labels)
            elif not isinstance(one, TrainingModel):
                assert one == other, field.name


def test_watching_the_test_set_changes_nothing_else_and_nothing_chooses_by_it(
    data: LongTailedData,
) -> None:
    run = make_run("pgd-at", epochs=3)
    looked: list[int] = []

    def look(net: nn.Module, method: Method) -> dict[str, float]:
        looked.append(1)
        net.eval()
        return {f"{trainer.WATCHED}pgd20": 0.9 / len(looked)}

    watched = train(run, data, device=CPU, watch=trainer.Watch(look, every=2))
    plain = train(run, data, device=CPU)
    assert same_weights(watched, plain)
    assert watched.epoch == 3
    name = f"{trainer.WATCHED}pgd20"
    assert [name in row for row in watched.history] == [False, True, True]  # the last one always
    kept = [{k: v for k, v in row.items() if k != name} for row in learning_curve(watched)]
    assert kept == learning_curve(plain)
