"""The number of CPU threads is set, recorded, and kept to when a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bench_helpers import TINY, Cli, only_run

import ltrobust
from ltrobust.bench.settings import make_settings
from ltrobust.bench.store import RunStore
from ltrobust.errors import UserError
from ltrobust.threads import computing_with
from ltrobust.training import captured

BENCH = ("bench", "--methods", "pgd-at", *TINY, "--attacks", "clean", "--device", "cpu")
OUT = Path("out")
RESUME = (*BENCH, "--output", OUT, "--save-every", "0")
pytestmark = pytest.mark.usefixtures("without_reports", "few_checks")


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Threads that torch is told to compute with in each training step; one to begin with.

    It goes on computing with one: waiting for others is slow where several tests run.
    """
    told, numbers = [1], []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: told[-1])
    step = captured.train_step

    def watched(*args: Any) -> torch.Tensor:
        numbers.append(torch.get_num_threads())
        return step(*args)

    monkeypatch.setattr(captured, "train_step", watched)
    yield numbers
    assert told[-1] == 1, "not given back"


Stop = Callable[..., None]


@pytest.fixture
def stopped(cli: Cli, seen: list[int], monkeypatch: pytest.MonkeyPatch) -> Stop:
    """Begin a bench and stop it with Ctrl-C at the end of its first epoch."""
    save = RunStore.save_state

    def begin(*words: object, saved: bool = True) -> None:
        def stop(store: RunStore, state: dict[str, Any]) -> None:
            if saved:
                save(store, state)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(RunStore, "save_state", stop)
            assert cli(*RESUME, *words).code == 130
        seen.clear()

    return begin


def record() -> dict[str, Any]:
    return json.loads((only_run(OUT) / "run.json").read_text())


def attacked_with() -> list[int]:
    return [one["provenance"]["threads"] for one in record()["evaluations"].values()]


def test_a_stopped_run_goes_on_with_the_threads_it_began_with(
    cli: Cli, seen: list[int], stopped: Stop
) -> None:
    stopped("--threads", "2")
    outcome = cli(*RESUME)
    assert outcome.code == 0, outcome.stderr
    assert "  resuming after epoch 1, with 2 CPU threads\n" in outcome.stdout
    assert "it began with" not in outcome.stdout
    assert set(seen) == {2}
    assert record()["provenance"]["threads"] == 2
    assert "earlier_threads" not in record()["provenance"]
    assert attacked_with() == [2]


def test_other_threads_on_resuming_are_told_and_recorded(
    cli: Cli, seen: list[int], stopped: Stop
) -> None:
    stopped("--threads", "2")
    outcome = cli(*RESUME, "--threads", "1")
    assert "warning: it began with 2 CPU threads; " in outcome.stdout
    assert set(seen) == {1}
    origin = record()["provenance"]
    assert origin["threads"] == 1
    assert origin["earlier_threads"] == [{"threads": 2, "until_epoch": 1}]


@pytest.mark.parametrize("words", [("--overwrite", "all"), ()])
def test_what_begins_anew_takes_the_threads_of_now(
    cli: Cli, seen: list[int], stopped: Stop, words: tuple[str, ...]
) -> None:
    stopped("--threads", "2", saved=bool(words))
    assert cli(*RESUME, *words).code == 0
    assert set(seen) == {1}
    assert record()["provenance"]["threads"] == 1


def test_what_is_added_to_a_finished_run_takes_the_threads_of_now(
    cli: Cli, seen: list[int]
) -> None:
    assert cli(*RESUME, "--threads", "2").code == 0
    assert set(seen) == {2}
    cli(*RESUME, "--attacks", "clean,fgsm", "--no-checks")
    cli("evaluate", only_run(OUT), "--attacks", "noise", "--threads", "2", "--no-checks")
    assert record()["provenance"]["threads"] == 2
    assert attacked_with() == [2, 1, 2]


def test_threads_are_those_of_torch_and_given_back() -> None:
    before = torch.get_num_threads()
    with computing_with(before + 1) as threads:
        assert threads == torch.get_num_threads() == before + 1
    with computing_with(None) as threads:
        assert threads == before
    assert torch.get_num_threads() == before


def test_python_sets_threads_and_gives_them_back(seen: list[int]) -> None:
    trained = ltrobust.train("pgd-at", epochs=1, limit_train=60, device="cpu", threads=2)
    assert set(seen) == {2}
    during = []
    model = trained.model
    model.register_forward_hook(lambda *args: during.append(torch.get_num_threads()))
    ltrobust.evaluate(model, attacks="clean", limit_test=20, device="cpu", threads=2)
    assert 2 in during


@pytest.mark.parametrize("value", [0, -1, 1.5, 10**9, "many"])
def test_a_number_that_is_none_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="--threads: "):
        make_settings({"threads": value})
