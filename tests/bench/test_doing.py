"""Where a plan is done: in this process or by a launcher, with which threads, and tables beside."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch.distributed import HashStore

from ltrobust.bench import doing
from ltrobust.bench.crew import LAUNCHED, Launched
from ltrobust.bench.doing import Doing, how_to_do
from ltrobust.bench.launch.local import Local
from ltrobust.bench.plan import make_plan
from ltrobust.bench.settings import make_settings
from ltrobust.errors import UserError
from ltrobust.results.store import SuiteStore


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrobust.bench.plan.cores", lambda: 8)


def done_how(place: Path, **settings: Any) -> Doing:
    asked = {"methods": "pgd-at,at-bsl", "device": "cpu", "output": place, **settings}
    return how_to_do(make_plan(make_settings(asked)), SuiteStore(place))


@pytest.mark.parametrize("settings", [{}, {"jobs": 1}, {"threads": 2}])
def test_one_slot_is_this_process(tmp_path: Path, settings: dict[str, Any]) -> None:
    found = done_how(tmp_path, **settings)
    assert found.launcher is None
    assert found.plan.threads is None
    assert found.at_once == 1
    assert found.words() == ""


@pytest.mark.parametrize(("jobs", "threads"), [(2, 4), (3, 2), (8, 1), (20, 1)])
def test_several_share_the_cores(tmp_path: Path, jobs: int, threads: int) -> None:
    found = done_how(tmp_path, jobs=jobs)
    assert isinstance(found.launcher, Local)
    assert found.at_once == jobs
    assert found.plan.threads == threads
    assert found.words() == f" by local, {jobs} at once"


def test_threads_that_are_asked_for_win_whatever_the_number_of_jobs(tmp_path: Path) -> None:
    plans = [done_how(tmp_path, jobs=jobs, threads=3).plan for jobs in (2, 4)]
    assert [plan.settings.threads or plan.threads for plan in plans] == [3, 3]


def test_several_cuda_devices_are_used_without_being_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltrobust.bench.plan.resolve_device", lambda name: "cuda")
    monkeypatch.setattr("ltrobust.bench.launch.local.visible_devices", lambda: ["0", "1", "2"])
    asked = {"device": "auto", "precision": "fp32"}
    assert done_how(tmp_path, **asked).at_once == 3
    assert done_how(tmp_path, **asked, jobs=2).at_once == 2
    assert done_how(tmp_path, **asked, methods="pgd-at").launcher is None


@pytest.fixture
def four_devices_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("ltrobust.bench.plan.resolve_device", lambda name: "cuda")
    monkeypatch.setattr("ltrobust.bench.launch.local.visible_devices", lambda: list("0123"))
    token = LAUNCHED.set(Launched(HashStore(), 0, 4))
    yield
    LAUNCHED.reset(token)


@pytest.mark.usefixtures("four_devices_under_torchrun")
def test_under_torchrun_every_run_is_done_by_its_processes(tmp_path: Path) -> None:
    assert done_how(tmp_path, precision="fp32").launcher is None
    for asked in ({"launcher": "local"}, {"launcher": "slurm"}, {"jobs": 2}):
        with pytest.raises(UserError, match=r"under a torchrun of 4 processes.*leave one"):
            done_how(tmp_path, precision="fp32", **asked)


def test_choosing_among_trained_runs_cannot_be_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Local, "survives", True)
    with pytest.raises(UserError, match=r"--select val .* cannot go with --detach"):
        done_how(tmp_path, jobs=2, detach=True, select="val")


class Process:
    """A process that ends when it is told to."""

    begun: list[Any]

    def __init__(self, words: Any, **_: Any) -> None:
        self.begun.append(words)
        self.code: int | None = None
        self.killed = False

    def poll(self) -> int | None:
        return self.code

    def kill(self) -> None:
        self.killed = True

    def wait(self) -> int:
        return 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    Process.begun = []
    monkeypatch.setattr(doing, "time", SimpleNamespace(monotonic=lambda: now[0]))
    fake = SimpleNamespace(Popen=Process, DEVNULL=subprocess.DEVNULL, STDOUT=subprocess.STDOUT)
    monkeypatch.setattr(doing, "subprocess", fake)
    return now


def test_tables_are_made_beside_when_there_is_something_new_and_seldom(
    tmp_path: Path, clock: list[float]
) -> None:
    def attack(name: str) -> None:
        folder = tmp_path / "runs" / "one" / "attacks"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").touch()

    tables = doing._Tables(tmp_path)

    def at(time: float) -> int:
        clock[0] = time
        tables()
        return len(Process.begun)

    attack("a")
    assert at(doing.FIRST_TABLES - 1) == 0
    assert at(doing.FIRST_TABLES + 1) == 1
    assert Process.begun[0][2:] == ["ltrobust", "report", str(tmp_path)]
    attack("b")
    assert at(1000) == 1  # the first are still being made
    assert tables._process is not None
    tables._process.code = 0
    assert at(1010) == 1  # they took 950 s
    second = 1010 + doing.SHARE * 950
    assert at(second) == 2
    assert tables._process is not None
    tables._process.code = 0
    assert at(second + 10) == 2
    assert at(second + 1000) == 2  # nothing new
    attack("c")
    assert at(second + 1010) == 3
    last = tables._process
    tables.end()
    assert last.killed
