"""Memory on the command line: the estimate of a dry run, warnings, and running out of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_helpers import QUICK, Cli, is_done, only_run

from ltrobust.bench import estimate, runner
from ltrobust.bench.estimate import TrainingSet, training_set
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.data import load_data

CPU = ("--device", "cpu")


def planned(cli: Cli, *more: object) -> list[dict[str, Any]]:
    outcome = cli("bench", "--dry-run", "--json", *CPU, *more)
    assert outcome.code == 0, outcome.stderr
    return json.loads(outcome.stdout)["runs"]


def test_a_dry_run_tells_memory_without_any_data(cli: Cli) -> None:
    """There is no CIFAR-10 here, and loading it would say so."""
    (plain,) = planned(cli, "--dataset", "cifar10-lt", "--methods", "trades", "--batch-size", 512)
    thrifty = ("--grad-checkpointing", "--micro-batch", 32)
    (less,) = planned(
        cli, "--dataset", "cifar10-lt", "--methods", "trades", "--batch-size", 512, *thrifty
    )
    assert less["run_id"] == plain["run_id"]
    assert 1e9 < less["memory_bytes"] < 0.8 * plain["memory_bytes"]
    table = cli("bench", "--dry-run", *CPU, "--dataset", "cifar10-lt", "--methods", "trades")
    assert "GPU memory" in " ".join(table.stdout.split())
    assert " GB" in table.stdout


def test_memory_that_is_not_known_is_left_open(cli: Cli, tmp_path: Path) -> None:
    from PIL import Image

    for part in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for number in range(3):
                Image.new("RGB", (16, 16), (number, 0, 0)).save(folder / f"{number}.png")
    (run,) = planned(cli, "--dataset", f"folder:{tmp_path}", "--methods", "pgd-at")
    assert run["memory_bytes"] is None
    assert "-" in cli("bench", "--dry-run", *CPU, "--dataset", f"folder:{tmp_path}").stdout


@pytest.mark.parametrize("kind", ["exp", "step"])
def test_an_unread_training_set_is_the_one_that_is_loaded(kind: Any) -> None:
    run = make_plan(make_settings({"imbalance_type": kind, "device": "cpu"})).runs[0].run
    data, guessed = load_data("digits-lt", imbalance_type=kind), training_set(run.data)
    assert guessed is not None
    assert guessed.class_counts == data.train_counts
    assert guessed.image_shape == data.image_shape


def test_a_plan_too_large_for_the_device_is_warned_of_in_one_line(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "device_memory", lambda device: 3_500_000_000)
    flags = ("--dataset", "cifar10-lt", "--methods", "pgd-at,at-bsl", "--batch-size", 512)
    flags = (*flags, "--arch", "preactresnet18")  # its attack needs more than checkpointed blocks
    outcome = cli("bench", "--dry-run", *CPU, *flags)
    assert outcome.code == 0
    (line,) = [line for line in outcome.stderr.splitlines() if "warning" in line]
    assert "pgd-at-" in line
    assert "(and 1 more)" in line
    proposals = [
        line.index(flag) for flag in ("--grad-checkpointing", "--micro-batch", "--batch-size")
    ]
    assert proposals == sorted(proposals)
    assert line.count(" GB)") == 3
    monkeypatch.setattr(estimate, "device_memory", lambda device: 80_000_000_000)
    assert "warning" not in cli("bench", "--dry-run", *CPU, *flags).stderr


@pytest.mark.parametrize(("limit", "there"), [(80_000_000_000, True), (8_000_000_000, False)])
def test_images_that_come_batch_by_batch_do_not_count(
    limit: int, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "device_memory", lambda device: limit)
    plan = make_plan(make_settings({"methods": "pgd-at", "device": "cpu"}))
    large = TrainingSet((10_000_000,) * 10, (1, 8, 8))
    (need,) = estimate.memory_needs(plan, lambda planned: large).values()
    assert need.data_bytes == (10**8 * (64 + 8) if there else 0)


def test_a_cpu_is_not_warned_of(cli: Cli) -> None:
    flags = ("--dataset", "cifar10-lt", "--methods", "trades", "--batch-size", 100_000)
    assert "warning" not in cli("bench", "--dry-run", *CPU, *flags).stderr


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "python", "cpu", "cublas"])
@pytest.mark.usefixtures("without_reports")
def test_out_of_memory_in_training_names_the_run_and_the_way_out(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = runner.train

    def train(run: Any, *rest: Any, **more: Any) -> Any:
        if run.method == "pgd-at":
            raise error
        return real(run, *rest, **more)

    monkeypatch.setattr(runner, "train", train)
    outcome = cli("bench", "--methods", "pgd-at,at-bsl", *QUICK, *CPU, "--output", "suite")
    assert outcome.code == 1
    (line,) = [line for line in outcome.stderr.splitlines() if line]
    assert line.startswith("failed: pgd-at-")
    assert "out of memory in the training" in line
    assert "--grad-checkpointing, then --micro-batch 16, then a --batch-size below 64" in line
    states = {
        path.parent.name.split("-")[0]: is_done(path.parent)
        for path in Path("suite/runs").glob("*/run.json")
    }
    assert states == {"pgd": False, "at": True}


@pytest.mark.usefixtures("without_reports")
def test_what_is_on_already_is_not_advised(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*rest: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(runner, "train", train)
    flags = ("--grad-checkpointing", "--micro-batch", 4, "--output", "suite")
    outcome = cli("bench", "--methods", "pgd-at", *QUICK, *CPU, *flags)
    assert "--grad-checkpointing" not in outcome.stderr
    assert "--micro-batch 1," in outcome.stderr


@pytest.mark.usefixtures("without_reports")
def test_out_of_memory_in_an_attack_keeps_the_training(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*rest: Any, **more: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(runner.Evaluator, "run", run)
        outcome = cli("bench", "--methods", "pgd-at", *QUICK, *CPU, "--output", "suite")
    assert outcome.code == 1
    assert "out of memory in the evaluation" in outcome.stderr
    assert "--device" in outcome.stderr
    weights = only_run(Path("suite")) / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert cli("bench", "--methods", "pgd-at", *QUICK, *CPU, "--output", "suite").code == 0
    assert weights.stat().st_mtime_ns == before


@pytest.mark.usefixtures("without_reports")
def test_the_flags_reach_the_training(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = runner.train

    def train(*rest: Any, **more: Any) -> Any:
        seen.append(more["thrift"])
        return real(*rest, **more)

    monkeypatch.setattr(runner, "train", train)
    flags = ("--grad-checkpointing", "--micro-batch", 7)
    tiny = ("--limit-train", 60, "--epochs", 1, "--output", "suite")
    assert cli("train", "pgd-at", *tiny, *CPU, *flags).code == 0
    (thrift,) = seen
    assert (thrift.grad_checkpointing, thrift.micro_batch) == (True, 7)
