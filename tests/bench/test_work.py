"""The worker: one planned run in one process, its exit codes, and how it ends when told to."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_helpers import Cli, write_plugin
from filelock import FileLock

from ltrobust.bench.launch import WITH_PARENT
from ltrobust.bench.loader import Loader
from ltrobust.bench.plan import Plan, make_plan
from ltrobust.bench.plan_file import fixed_plan, write_plan
from ltrobust.bench.runner import run_plan
from ltrobust.bench.settings import make_settings
from ltrobust.bench.work import DONE, FAILED, HELD, NO_DEVICE, STOPPED, work
from ltrobust.progress import Reporter
from ltrobust.results.store import SuiteStore

pytestmark = pytest.mark.usefixtures("few_checks")

ONE = {
    "methods": "pgd-at",
    "dataset": "digits-lt",
    "limit_train": 40,
    "limit_test": 10,
    "epochs": 2,
    "attacks": "clean",
    "device": "cpu",
    "threads": 1,
}


def planned(place: Path, **settings: Any) -> tuple[Plan, SuiteStore, list[str]]:
    """A plan that is written to a suite's directory, and the ids of its runs."""
    plan = make_plan(make_settings({**ONE, "output": place, **settings}))
    suite = SuiteStore(place)
    suite.prepare()
    write_plan(plan, suite)
    return plan, suite, [one.run.run_id for one in plan.runs]


def test_a_planned_run_is_done_and_done_again_it_is_done_before(tmp_path: Path) -> None:
    _, suite, (run_id,) = planned(tmp_path)
    said: list[str] = []
    reporter = Reporter()
    with reporter.copy_to(said.append):
        assert work(tmp_path, run_id, reporter) == DONE
        assert work(tmp_path, run_id, reporter) == DONE
    assert suite.run(run_id).trained
    assert said[-1] == f"{run_id}: done before"
    assert list(suite.claims.glob("*.json")) == []


def test_a_run_that_fails_says_why_in_its_log_and_by_its_exit_code(
    tmp_path: Path, cli: Cli
) -> None:
    plugin = write_plugin(tmp_path / "mine.py", "mine", " * float('nan')")
    _, suite, (run_id,) = planned(tmp_path / "suite", methods="mine", plugin=[plugin])
    outcome = cli("work", suite.path, run_id)
    assert outcome.code == FAILED
    assert "failed: " in outcome.stdout
    assert suite.run(run_id).failure in outcome.stdout.replace("\n", " ")


def test_a_run_that_another_does_is_left_to_it(
    tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltrobust.bench.work.WAIT_HERE", 0.0)
    _, suite, (run_id,) = planned(tmp_path)
    suite.claims.mkdir(exist_ok=True)
    with FileLock(suite.claims / f"{run_id}.lock"):
        outcome = cli("work", tmp_path, run_id)
    assert outcome.code == HELD
    assert "another ltrobust is doing it" in outcome.stdout
    assert not suite.run(run_id).begun


def test_a_run_is_waited_for_while_its_holder_may_be_a_turn_that_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, suite, (run_id,) = planned(tmp_path)
    suite.claims.mkdir(exist_ok=True)
    lock = FileLock(suite.claims / f"{run_id}.lock")
    lock.acquire()
    monkeypatch.setattr("ltrobust.bench.work.time.sleep", lambda seconds: lock.release())
    assert work(tmp_path, run_id, Reporter()) == DONE


def test_a_run_that_is_not_planned_is_one_line(tmp_path: Path, cli: Cli) -> None:
    planned(tmp_path)
    outcome = cli("work", tmp_path, "trades-000000000000")
    assert outcome.code == 2
    assert "trades-000000000000 is not planned in" in outcome.stderr.replace("\n", " ")


def test_a_device_that_is_not_on_this_machine_is_one_line(tmp_path: Path, cli: Cli) -> None:
    plan, suite, (run_id,) = planned(tmp_path)
    write_plan(replace(plan, device="cuda:9"), suite)
    outcome = cli("work", tmp_path, run_id)
    assert outcome.code == NO_DEVICE
    assert "lost: device cuda:9 is not there" in outcome.stdout


def test_what_another_bench_plans_is_nothing_to_a_job_that_is_queued(tmp_path: Path) -> None:
    plan, suite, (run_id,) = planned(tmp_path, attacks="pgd2", epochs=1)
    file = fixed_plan(plan, suite)
    planned(tmp_path, attacks="clean", epochs=1)
    write_plan(replace(plan, device="cuda:9"), suite)
    assert work(tmp_path, run_id, Reporter(), file) == DONE
    assert set(plan.runs[0].attack_ids()) <= set(suite.run(run_id).attack_ids())


def test_a_missing_base_is_trained_first_under_its_own_claim(tmp_path: Path) -> None:
    _, suite, (base, after) = planned(tmp_path, methods="pgd-at+tau-norm")
    claims: set[str] = set()

    def watch() -> None:
        claims.update(file.stem for file in suite.claims.glob("*.json"))

    assert work(tmp_path, after, Reporter(watch=watch)) == DONE
    assert claims == {base, after}
    assert suite.run(base).trained
    assert suite.run(base).attack_ids() == []  # its own worker's to make


def test_a_base_that_fails_fails_what_acts_on_it(tmp_path: Path) -> None:
    plugin = write_plugin(tmp_path / "mine.py", "mine", " * float('nan')")
    made = planned(tmp_path / "suite", methods="mine+tau-norm", plugin=[plugin])
    _, suite, (base, after) = made
    said: list[str] = []
    reporter = Reporter()
    with reporter.copy_to(said.append):
        assert work(suite.path, after, reporter) == FAILED
    assert suite.run(base).failure is not None
    assert f"acts on {base}, which failed" in said[-1]


def test_paths_of_the_plan_hold_in_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_plugin(Path("mine.py"), "mine")
    _, suite, (run_id,) = planned(Path("suite"), methods="mine", plugin=["mine.py"])
    path = suite.path.absolute()
    monkeypatch.chdir("/")
    assert work(path, run_id, Reporter()) == DONE


# told to end --------------------------------------------------------------------------------------

SIGNALS = [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]


def after_epochs(suite: SuiteStore, run_id: str, epochs: int, act: Callable[[], None]) -> Reporter:
    """A reporter that does something once, when an epoch is about to be saved."""
    done: list[bool] = []

    def watch() -> None:
        if not done and len(suite.run(run_id).history()) == epochs:
            done.append(True)
            act()

    return Reporter(watch=watch)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of five epochs."""
    place = tmp_path_factory.mktemp("unbroken")
    plan, suite, (run_id,) = planned(place, epochs=5)
    assert run_plan(plan, suite, Loader(plan), Reporter()) == []
    return suite.run(run_id).weights()


@pytest.mark.parametrize("kind", SIGNALS)
def test_told_to_end_it_saves_the_epoch_that_it_is_in_and_goes_on_from_it(
    tmp_path: Path, kind: signal.Signals, unbroken: bytes
) -> None:
    _, suite, (run_id,) = planned(tmp_path, epochs=5, save_every=1000)
    run, before = suite.run(run_id), signal.getsignal(kind)
    reporter = after_epochs(suite, run_id, 2, lambda: os.kill(os.getpid(), kind))
    with pytest.raises(KeyboardInterrupt):
        work(tmp_path, run_id, reporter)
    assert signal.getsignal(kind) is before
    assert run.begun
    assert not run.trained
    assert len(run.history()) == 3
    assert run.failure is None
    said: list[str] = []
    reporter = Reporter()
    with reporter.copy_to(said.append):
        assert work(tmp_path, run_id, reporter) == DONE
    assert "  resuming after epoch 3, with 1 CPU threads" in said
    assert run.weights() == unbroken


TRAINING_FOR_EVER = """
import sys, time
from pathlib import Path
from ltrobust.bench import work
from ltrobust.results.claims import claimed
work.GRACE = 0.5
with work.stopping(Path(sys.argv[1])) as stop, claimed(Path(sys.argv[1]), "run", stop=stop):
    stop.unsaved = sys.argv[2] == "unsaved"
    print("ready", flush=True)
    time.sleep(60)
"""


def waiting_worker(tmp_path: Path, unsaved: str, **env: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", TRAINING_FOR_EVER, str(tmp_path), unsaved],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("unsaved", ["saved", "unsaved"])
def test_it_ends_at_once_where_nothing_is_lost_and_in_time_where_something_is(
    tmp_path: Path, unsaved: str
) -> None:
    process = waiting_worker(tmp_path, unsaved)
    assert (tmp_path / "run.json").is_file()
    process.terminate()
    assert process.wait(20) == STOPPED
    process.communicate()
    assert not (tmp_path / "run.json").exists()


def test_near_a_time_limit_an_epoch_has_longer_unless_a_sigterm_follows(tmp_path: Path) -> None:
    process = waiting_worker(tmp_path, "unsaved")
    process.send_signal(signal.SIGUSR2)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.2)
    process.terminate()
    assert process.wait(20) == STOPPED
    process.communicate()


def test_how_long_before_a_time_limit_a_job_is_told_is_heeded(tmp_path: Path) -> None:
    process = waiting_worker(tmp_path, "unsaved", LTROBUST_LIMIT_GRACE="0")
    process.send_signal(signal.SIGUSR2)
    assert process.wait(20) == STOPPED
    process.communicate()


ORPHAN = """
import os, subprocess, sys
env = {**os.environ, sys.argv.pop(1): str(os.getpid())}
process = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], stdout=1, env=env)
print(process.pid, flush=True)
sys.stdin.readline()
os._exit(1)
"""


def test_a_worker_of_a_driver_that_was_killed_ends_itself(tmp_path: Path) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, WITH_PARENT, TRAINING_FOR_EVER, str(tmp_path), "saved"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert driver.stdout is not None
    pid, ready = driver.stdout.readline(), driver.stdout.readline()
    assert ready == "ready\n"
    said = json.loads((tmp_path / "run.json").read_text())
    assert (said["pid"], said["host"]) == (int(pid), socket.gethostname())
    driver.kill()
    driver.communicate()  # to the end of the worker's output, which is its own end
    assert not (tmp_path / "run.json").exists()


def test_a_worker_whose_driver_was_killed_before_it_began_ends_itself(tmp_path: Path) -> None:
    gone = 2**22 + 1  # above the highest process number
    process = waiting_worker(tmp_path, "saved", **{WITH_PARENT: str(gone)})
    assert process.wait(20) == STOPPED
    process.communicate()


def test_the_last_epoch_is_always_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, (run_id,) = planned(tmp_path, epochs=2, save_every=1000)
    saved: list[int] = []
    monkeypatch.setattr(
        "ltrobust.bench.runner.save_state", lambda run, state: saved.append(len(state["history"]))
    )
    assert work(tmp_path, run_id, Reporter()) == DONE
    assert saved == [2]


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "the bench that wrote it|holds no plan.json"),
        *((text, "plan.json is damaged") for text in ("", "{", "[]", '{"schema": 1, "runs": []}')),
    ],
)
def test_a_plan_that_is_missing_or_damaged_is_one_line(
    tmp_path: Path, cli: Cli, own: bool, content: str | None, said: str
) -> None:
    file = tmp_path / ("plans" if own else "") / "plan.json"
    if content is not None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(content)
    outcome = cli("work", tmp_path, "pgd-at-000000000000", *(("--plan", file) if own else ()))
    assert outcome.code == 2
    assert re.search(said, outcome.stderr)
    assert len(outcome.stderr.splitlines()) == 1
