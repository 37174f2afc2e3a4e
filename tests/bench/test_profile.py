"""`--profile`: what is measured, over which epochs, and that nothing is measured without it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_helpers import QUICK, Cli, attacks_of, content, only_run
from torch import Tensor

from ltrobust.bench import runner
from ltrobust.context import Context
from ltrobust.training import profile as profiling
from ltrobust.training import trainer
from ltrobust.training.profile import PHASES, UNTIMED, Clock, StepProfile

pytestmark = pytest.mark.usefixtures("without_reports", "few_checks")


@pytest.fixture(autouse=True)
def _quick_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiling, "PEAK_SECONDS", 0.0)


def bench(cli: Cli, *more: object, method: str = "pgd-at") -> Any:
    return cli("bench", "--methods", method, *QUICK, "--device", "cpu", "--output", "suite", *more)


def profile(suite: str = "suite") -> dict[str, Any]:
    return content(only_run(Path(suite)) / "profile.json")


def record(name: str = "run") -> dict[str, Any]:
    return content(only_run(Path("suite")) / f"{name}.json")


def test_a_profile_adds_up(cli: Cli) -> None:
    outcome = bench(cli, "--profile")
    assert outcome.code == 0
    assert "where the time went" in outcome.stdout
    training = profile()["training"]
    assert training["epochs"] == training["of_epochs"] == 2
    assert training["images"] == 2 * sum(record()["data"]["train_counts"])
    assert set(training["seconds"]) == {*PHASES, "other"}
    assert all(training["seconds"][name] > 0 for name in PHASES)
    assert sum(training["seconds"].values()) == pytest.approx(
        record("trained")["train_seconds"], rel=1e-6
    )
    # ten attack steps against one step of the weights
    assert training["seconds"]["attack"] > training["seconds"]["forward"]
    rate = training["images_per_second"] * training["flop_per_image"]
    assert rate / training["matrix_peak_flop_per_second"] == pytest.approx(
        training["share_of_matrix_peak"]
    )
    assert training["peak_memory_bytes"] > 10**7
    evaluation, made = profile()["evaluation"], attacks_of(only_run(Path("suite")))
    assert set(evaluation["seconds"]) == set(made)
    for key, seconds in evaluation["seconds"].items():
        assert seconds == made[key]["seconds"]


def test_operations_are_those_of_a_step(cli: Cli) -> None:
    """A small-cnn on 8 x 8 images: ten attack steps, forward and back to the images, one outer."""
    bench(cli, "--profile")
    layers = [(1, 32, 8), (32, 64, 4), (64, 128, 2), (128, 128, 2)]
    forward = sum(2 * 9 * a * b * size * size for a, b, size in layers) + 2 * 128 * 10
    first = 2 * 9 * 1 * 32 * 8 * 8
    outer = 3 * forward - first  # images need no gradient here
    found = profile()["training"]["flop_per_image"]
    assert found == pytest.approx(10 * 2 * forward + outer, rel=0.02)


def test_without_the_flag_nothing_is_measured(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "StepProfile", None)  # building one would fail
    monkeypatch.setattr(runner, "matrix_peak", None)
    outcome = bench(cli)
    assert outcome.code == 0
    assert "where the time went" not in outcome.stdout
    assert profile() == {}


def test_a_run_found_done_is_not_profiled_and_says_so(cli: Cli) -> None:
    bench(cli)
    outcome = bench(cli, "--profile")
    assert outcome.code == 0
    assert "done before; nothing to profile" in outcome.stdout
    assert profile() == {}


def test_a_resumed_training_is_profiled_over_its_own_epochs(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = trainer._train_epoch

    def stop(*arguments: Any) -> float:
        (ctx,) = (one for one in arguments if isinstance(one, Context))
        if ctx.epoch == 1:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "_train_epoch", stop)
        assert bench(cli, "--profile", "--save-every", 0).code == 130
    assert profile() == {}
    outcome = bench(cli, "--profile")
    assert "resuming after epoch 1" in outcome.stdout
    training = profile()["training"]
    assert (training["epochs"], training["of_epochs"]) == (1, 2)
    assert training["images"] == sum(record()["data"]["train_counts"])
    assert sum(training["seconds"].values()) < record("trained")["train_seconds"]


def test_a_later_attack_joins_the_profile_of_the_training(cli: Cli) -> None:
    bench(cli, "--profile")
    before = profile()
    outcome = bench(cli, "--profile", "--attacks", "clean,pgd2,pgd3")
    assert outcome.code == 0
    after = profile()
    assert after["training"] == before["training"]
    assert len(after["evaluation"]["seconds"]) == 3
    kept = before["evaluation"]["seconds"]
    assert kept.items() <= after["evaluation"]["seconds"].items()


def test_profiling_changes_no_weight(cli: Cli) -> None:
    bench(cli)
    plain = (only_run(Path("suite")) / "model.safetensors").read_bytes()
    bench(cli, "--profile", "--overwrite", "all")
    assert (only_run(Path("suite")) / "model.safetensors").read_bytes() == plain


def test_a_method_without_an_attack_has_a_cheaper_epoch(cli: Cli) -> None:
    """TAET's first stage: operations are counted in every epoch, not once for all."""
    bench(cli, "--profile", "--epochs", 5, method="taet")
    mixed = profile()["training"]["flop_per_image"]
    bench(cli, "--profile", "--epochs", 5, "--output", "other")
    attacked = profile("other")
    assert mixed < 0.8 * attacked["training"]["flop_per_image"]


class Event:
    """A CUDA event of a device that needs a second between any two marks."""

    now = 0.0
    waited = False

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self, stream: object) -> None:
        Event.now += 1.0
        self.at = Event.now

    def elapsed_time(self, other: Event) -> float:
        assert Event.waited, "asked before the device was waited for"
        return 1000 * (other.at - self.at)


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> StepProfile:
    """A profile of a CUDA device whose events are a second apart."""

    def wait(device: object) -> None:
        Event.waited = True

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", wait)
    Event.now, Event.waited = 0.0, False
    return StepProfile(torch.device("cuda"), 1e12)


def test_on_cuda_events_are_resolved_at_the_end_of_the_epoch(on_cuda: StepProfile) -> None:
    clock = on_cuda
    clock.begin_epoch(3)
    for _ in range(3):
        with clock.step(4):
            for name in ("attack", "backward"):
                with clock.phase(name):
                    torch.ones(2, 2) @ torch.ones(2, 2)
    assert not Event.waited
    clock.end_epoch(10.0)
    assert clock.seconds["attack"] == clock.seconds["backward"] == 3.0
    assert clock.seconds["other"] == 4.0
    assert (clock.epochs, clock.steps, clock.images) == (1, 3, 12)
    # the second step, in which operations are counted, is left out of the rates
    assert clock.record()["images_per_second"] == 8 / 4
    assert clock.record()["flop_per_image"] == 2 * 16 / 4


def test_each_phase_interrupts_the_one_around_it(on_cuda: StepProfile) -> None:
    on_cuda.begin_epoch(1)
    phases = (on_cuda.phase(name) for name in ("attack", "forward", "backward"))
    with on_cuda.step(4), ExitStack() as inside:
        for phase in phases:
            inside.enter_context(phase)
    on_cuda.end_epoch(6.0)
    found = {name: on_cuda.seconds[name] for name in ("attack", "forward", "backward", "other")}
    assert found == {"attack": 2.0, "forward": 2.0, "backward": 1.0, "other": 1.0}


def test_the_idle_clock_costs_next_to_nothing() -> None:
    assert type(UNTIMED) is Clock
    with UNTIMED.step(1), UNTIMED.phase("data"):
        pass
    assert UNTIMED.phase("data") is UNTIMED.phase("attack")  # one object, made once


def test_the_peak_is_that_of_real_products() -> None:
    profiling.matrix_peak.cache_clear()
    found = profiling.matrix_peak("cpu", "fp32")
    a = torch.rand(512, 512)
    began = profiling.time.perf_counter()
    product: Tensor = a @ a
    slow = 2 * 512**3 / (profiling.time.perf_counter() - began)
    assert product.shape == (512, 512)
    assert 1e9 < found < 1e14
    assert found > slow / 20
