"""Runs on this machine: slots with plain commands, and real workers that are killed and stopped."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bench_helpers import Cli, attacks_of, command, environment
from rich.console import Console

from ltrobust.bench.launch import WITH_PARENT, Seen, Site, Task, local, ray, work_command
from ltrobust.bench.launch.drive import Drive
from ltrobust.bench.launch.local import Local, slot_count
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import Plan, cores, make_plan, threads_each
from ltrobust.bench.runner import run_plan
from ltrobust.bench.settings import make_settings
from ltrobust.bench.work import GRACE, NO_DEVICE
from ltrobust.errors import UserError
from ltrobust.progress import Reporter
from ltrobust.results.claims import holder
from ltrobust.results.store import SuiteStore

EPOCHS = 8
TWO = {
    "methods": "pgd-at,at-bsl",
    "dataset": "digits-lt",
    "limit_train": 40,
    "limit_test": 10,
    "epochs": EPOCHS,
    "attacks": "clean,pgd2",
    "device": "cpu",
    "precision": "fp32",
    "threads": 1,
    "no_checks": True,
    "no_report": True,
    "save_every": 0,
}
PATIENCE = 120.0


def heed_ctrl_c() -> None:
    """A shell's background jobs, and all they start, ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "never came to the point"
        time.sleep(0.002)


# slots --------------------------------------------------------------------------------------------


def shell(place: Path, run_id: str, script: str) -> Task:
    return Task(run_id, ("sh", "-c", script), place / "logs" / f"{run_id}.log")


def look_until(launcher: Local, condition: Callable[[Mapping[str, Seen]], bool]) -> dict[str, Seen]:
    wait_until(lambda: condition(launcher.look()))
    return dict(launcher.look())


def states(seen: Mapping[str, Seen]) -> dict[str, str]:
    return {run_id: one.state for run_id, one in seen.items()}


def all_ended(seen: Mapping[str, Seen]) -> bool:
    return all(one.state == "ended" for one in seen.values())


def test_tasks_take_turns_on_the_slots_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    launcher = Local(Site(tmp_path, "cpu", threads=3, jobs=2))
    wait = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; echo threads $OMP_NUM_THREADS"
    launcher.submit([shell(tmp_path, name, wait) for name in "abcd"])
    assert states(launcher.look()) == {
        "a": "running",
        "b": "running",
        "c": "waiting",
        "d": "waiting",
    }
    assert {seen.where for seen in launcher.look().values()} == {"slot 0", "slot 1", ""}
    (tmp_path / "go").touch()
    seen = look_until(launcher, all_ended)
    assert {one.code for one in seen.values()} == {0}
    assert (tmp_path / "logs" / "d.log").read_text() == "threads 3\n"


def test_codes_and_signals_are_told_and_logs_follow_each_other(tmp_path: Path) -> None:
    launcher = Local(Site(tmp_path, "cpu", jobs=3))
    scripts = {"a": "echo one; exit 3", "b": "kill -9 $$", "c": "echo bad >&2"}
    launcher.submit([shell(tmp_path, name, script) for name, script in scripts.items()])
    seen = look_until(launcher, all_ended)
    assert {name: one.code for name, one in seen.items()} == {"a": 3, "b": -9, "c": 0}
    launcher.submit([shell(tmp_path, "a", "echo two")])
    assert look_until(launcher, all_ended)["a"].code == 0
    assert (tmp_path / "logs" / "a.log").read_text() == "one\ntwo\n"
    assert (tmp_path / "logs" / "c.log").read_text() == "bad\n"


def test_workers_are_told_the_process_that_they_end_with(tmp_path: Path) -> None:
    launcher = Local(Site(tmp_path, "cpu", jobs=1))
    launcher.submit([shell(tmp_path, "a", f"echo ${WITH_PARENT}")])
    look_until(launcher, all_ended)
    assert (tmp_path / "logs" / "a.log").read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_commands_begin_warm_where_a_fork_is_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    class Warm:
        """In the place of the process that workers come from."""

        def __init__(self, *_: object) -> None: ...

        def start(self, *_: object) -> str:
            return "warm"

    monkeypatch.setattr("ltrobust.bench.launch.local.Nursery", Warm)
    monkeypatch.setattr("ltrobust.bench.launch.local._start_cold", lambda *_: "cold")
    monkeypatch.setattr(local, "sys", SimpleNamespace(platform=platform))
    launcher = Local(Site(tmp_path, "cpu", jobs=1))
    task = Task("a", work_command(tmp_path, "a"), tmp_path / "log")
    assert str(launcher._start(task, launcher._free[0])) == (
        "warm" if platform == "linux" else "cold"
    )


def test_cancelled_nothing_is_left_not_even_who_does_not_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltrobust.bench.launch.local.PATIENCE", 0.2)
    launcher = Local(Site(tmp_path, "cpu", jobs=2))
    deaf = f"trap '' TERM; echo $$ > {tmp_path}/deaf; exec sleep 60"
    polite = f"echo $$ > {tmp_path}/polite; exec sleep 60"
    launcher.submit([shell(tmp_path, "a", deaf), shell(tmp_path, "b", polite)])
    launcher.submit([shell(tmp_path, "c", f"touch {tmp_path}/begun")])
    pids = [tmp_path / "deaf", tmp_path / "polite"]
    wait_until(lambda: all(file.exists() and file.read_text().strip() for file in pids))
    launcher.cancel()
    for file in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)
    assert not (tmp_path / "begun").exists()


@pytest.mark.parametrize("launcher", [local, ray])
def test_workers_are_given_the_time_to_save_before_they_are_killed(launcher: Any) -> None:
    assert launcher.PATIENCE > GRACE


def test_a_slot_whose_device_is_gone_is_given_no_other_task(tmp_path: Path) -> None:
    launcher = Local(Site(tmp_path, "cpu", jobs=2))
    goes_on = f"while [ ! -e {tmp_path}/go ]; do sleep 0.01; done"
    broken = f"exit {NO_DEVICE}"
    launcher.submit([shell(tmp_path, "a", broken), shell(tmp_path, "b", goes_on)])
    look_until(launcher, lambda seen: seen["a"].state == "ended")
    launcher.submit([shell(tmp_path, "c", broken), shell(tmp_path, "d", "true")])
    assert states(launcher.look())["c"] == "waiting"
    (tmp_path / "go").touch()
    seen = look_until(launcher, all_ended)  # the last slot is kept: each task has its turn
    assert {seen[name].where for name in "bcd"} == {"slot 1"}


def test_each_cuda_device_is_a_slot_and_a_run_sees_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltrobust.bench.launch.local.visible_devices", lambda: ["4", "6"])
    launcher = Local(Site(tmp_path, "cuda", threads=2))
    assert launcher.at_once == 2
    launcher.submit([shell(tmp_path, name, "echo $CUDA_VISIBLE_DEVICES") for name in "ab"])
    seen = look_until(launcher, all_ended)
    assert [seen[name].where for name in "ab"] == ["cuda:4", "cuda:6"]
    logs = [(tmp_path / "logs" / f"{name}.log").read_text() for name in "ab"]
    assert logs == ["4\n", "6\n"]


def test_there_are_no_more_slots_than_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ltrobust.bench.launch.local.visible_devices", lambda: ["0", "1"])
    assert [slot_count(*given) for given in (("cuda", None), ("cuda", 1), ("cuda:1", None))] == [
        *(2, 1, 1)
    ]
    assert [slot_count("cpu", jobs) for jobs in (None, 3)] == [1, 3]
    with pytest.raises(UserError, match=r"--jobs 3: .* 2 CUDA devices; give --jobs 2 or fewer"):
        slot_count("cuda", 3)


def test_runs_that_share_the_cores_have_an_equal_part_each() -> None:
    assert threads_each(1) is None
    assert threads_each(cores()) == 1
    assert threads_each(10 * cores()) == 1


# real workers -------------------------------------------------------------------------------------


def plan_of(**settings: Any) -> Plan:
    return make_plan(make_settings({**TWO, **settings}))


def bits(suite: Path) -> dict[str, tuple[str, ...]]:
    """Checksums of every run's weights and outcomes."""
    found = {}
    for run in sorted((suite / "runs").iterdir()):
        weights = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
        made = attacks_of(run).values()
        found[run.name] = (weights, *sorted(one["outcomes_sha256"] for one in made))
    return found


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, ...]]:
    """What the two runs come to in one process, one after the other."""
    place = tmp_path_factory.mktemp("serial")
    plan = plan_of(output=place)
    assert run_plan(plan, SuiteStore(place), Loader(plan), Reporter()) == []
    return bits(place)


class Cruel(Local):
    """Kills the first worker that is in the middle of its training, or what workers come from."""

    pause = 0.01
    killed = ""
    all_of_them = False

    def look(self) -> Mapping[str, Seen]:
        seen = super().look()
        for run_id, (process, _) in self._running.items():
            run = SuiteStore(self._suite).run(run_id)
            if not self.killed and not run.trained and (run.path / "state.pt").is_file():
                (self._nursery._process if self.all_of_them and self._nursery else process).kill()
                self.killed = run_id
        return seen

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._suite = site.suite


@pytest.mark.parametrize("all_of_them", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_at_once_and_some_killed_the_bits_are_those_of_one_process(
    tmp_path: Path, serial: dict[str, tuple[str, ...]], all_of_them: bool
) -> None:
    launcher, lines = Cruel(Site(tmp_path, "cpu", threads=1, jobs=2)), list[str]()
    launcher.all_of_them = all_of_them
    reporter = Reporter(Console(quiet=True))
    with reporter.copy_to(lines.append):
        assert Drive(launcher)(plan_of(output=tmp_path), SuiteStore(tmp_path), reporter) == []
    assert launcher.killed
    told = [line for line in lines if "(signal 9), again" in line]
    assert launcher.killed in [line.partition(":")[0] for line in told]
    assert len(told) == 1 or all_of_them
    log = (tmp_path / "logs" / f"{launcher.killed}.log").read_text()
    assert "resuming after epoch" in log
    assert bits(tmp_path) == serial
    assert list((tmp_path / "claims").glob("[!.]*.json")) == []


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_the_same_command_goes_on(
    tmp_path: Path, serial: dict[str, tuple[str, ...]], cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = [
        part
        for key, value in {**TWO, "jobs": 2, "output": "suite"}.items()
        for part in (f"--{key.replace('_', '-')}", None if value is True else str(value))
        if part is not None
    ]
    suite = SuiteStore(tmp_path / "suite")
    driver = subprocess.Popen(
        command("bench", *flags),
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )
    ids = [planned.run.run_id for planned in plan_of().runs]
    try:
        wait_until(lambda: any(suite.run(one).begun for one in ids))
        workers = [found.pid for one in ids if (found := holder(suite.claims, one)) is not None]
        driver.send_signal(signal.SIGINT)
        _, said = driver.communicate(timeout=PATIENCE)
    finally:
        driver.kill()
        driver.communicate()
    assert driver.returncode == 130
    assert "stopped; the same command goes on from here" in said
    assert workers
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    states = [planned["state"] for planned in json.loads(cli("status", "suite", "--json").stdout)]
    assert set(states) <= {"waiting", "done"}
    assert "waiting" in states
    plan = plan_of(output=suite.path)
    assert run_plan(plan, suite, Loader(plan), Reporter()) == []
    assert bits(suite.path) == serial
