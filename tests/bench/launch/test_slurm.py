"""The SLURM launcher against a SLURM of files, and its job script in a shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from bench_helpers import Cli

from ltrobust.bench.launch import Launcher, Seen, Site, Task, find_launcher, log_of, work_command
from ltrobust.bench.launch.sbatch import job_script
from ltrobust.bench.plan_file import read_plan
from ltrobust.errors import Notice, RunError, UserError
from ltrobust.results.store import SuiteStore

FAKE = Path(__file__).with_name("fake_slurm.py")


class Fake:
    """The SLURM of files that is on the path."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set(jobs={}, calls=[])

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "state.json").read_text())
        return found

    def set(self, **values: object) -> None:
        file = self.folder / "state.json"
        before = self.state if file.is_file() else {}
        file.write_text(json.dumps({**before, **values}))

    def change(self, job: str, index: int, task: str | None) -> None:
        """A new state of a task; None: it is out of the queue."""
        jobs = self.state["jobs"]
        jobs[job]["tasks"].pop(str(index))
        if task is not None:
            jobs[job]["tasks"][str(index)] = task
        self.set(jobs=jobs)

    @property
    def jobs(self) -> list[str]:
        return list(self.state["jobs"])

    def words(self, job: str) -> list[str]:
        """What sbatch was called with."""
        found: list[str] = self.state["jobs"][job]["words"]
        return found

    def array(self, job: str) -> str:
        (found,) = (word for word in self.words(job) if word.startswith("--array="))
        return found.removeprefix("--array=")


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sbatch", "squeue", "scancel", "scontrol"):
        program = programs / name
        program.write_text(f"#!{sys.executable} -IS\n{FAKE.read_text()}")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    monkeypatch.setattr("ltrobust.bench.launch.slurm.Slurm.pause", 0.0)
    return Fake(tmp_path)


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "a suite of 5%"
    path.mkdir()
    return path


def slurm(suite: Path, **site: Any) -> Launcher:
    return find_launcher("slurm", Site(suite, "cuda", **site))


def tasks_of(suite: Path, runs: Sequence[str]) -> list[Task]:
    return [Task(run, work_command(suite, run), log_of(suite, run)) for run in runs]


def states(launcher: Launcher) -> list[str]:
    return [one.state for _, one in sorted(launcher.look().items())]


def test_runs_are_one_array_longest_first_and_options_pass_through(fake: Fake, suite: Path) -> None:
    options = ("partition=gpu", "gres=gpu:1", "comment=a b", "exclusive")
    launcher = slurm(suite, threads=3, at_once=2, slurm=options)
    launcher.submit(tasks_of(suite, ["long", "middle", "short"]))
    (job,) = fake.jobs
    assert fake.array(job) == "0-2%2"
    words = fake.words(job)
    assert words[-4:] == ["--partition=gpu", "--gres=gpu:1", "--comment=a b", "--exclusive"]
    assert "--cpus-per-task=3" in words
    assert f"--output={tmp_of(suite)}/logs/slurm-%A.log" in words
    assert "runs=(\n    long\n    middle\n    short\n)" in fake.state["jobs"][job]["script"]
    assert set(launcher.look().values()) == {Seen("waiting", f"waits: Priority (job {job}_0)")} | {
        Seen("waiting", f"waits: Priority (job {job}_{i})") for i in (1, 2)
    }


def test_every_process_of_a_run_has_its_threads(fake: Fake, suite: Path) -> None:
    shown = slurm(suite, threads=3, devices=4).preview(tasks_of(suite, ["a"]))
    assert "--cpus-per-task=12 " in shown


def tmp_of(suite: Path) -> str:
    return str(suite).replace("%", "%%")


def test_states_are_told_in_words(fake: Fake, suite: Path) -> None:
    launcher = slurm(suite)
    launcher.submit(tasks_of(suite, ["a", "b", "c"]))
    (job,) = fake.jobs
    fake.change(job, 0, "RUNNING n17")
    fake.change(job, 1, "COMPLETING n3")
    fake.change(job, 2, "PENDING (launch failed requeued held)")
    assert launcher.look() == {
        "a": Seen("running", f"n17 (job {job}_0)"),
        "b": Seen("running", f"n3 (job {job}_1, completing)"),
        "c": Seen("waiting", f"waits: launch failed requeued held (job {job}_2)"),
    }


def test_silence_is_unknown_and_missing_once_is_not_gone(fake: Fake, suite: Path) -> None:
    launcher = slurm(suite)
    launcher.submit(tasks_of(suite, ["a", "b"]))
    (job,) = fake.jobs
    fake.change(job, 0, "RUNNING n1")
    log_of(suite, "a").write_text(f"turn 0 of job {job}_0 on n1\n")
    launcher.look()
    fake.set(silent="slurm_load_jobs error: Unable to contact slurm controller")
    for _ in range(3):
        seen = launcher.look()
        assert {one.state for one in seen.values()} == {"unknown"}
        assert "Unable to contact slurm controller" in seen["a"].where
    queue = fake.state["jobs"]
    fake.set(silent=None, jobs={})  # a controller that has just been started
    assert states(launcher) == ["running", "waiting"]
    fake.set(jobs=queue)
    assert states(launcher) == ["running", "waiting"]
    fake.change(job, 0, None)
    assert launcher.look()["a"].state == "running"
    assert launcher.look()["a"] == Seen("ended", f"n1 (job {job}_0)")
    assert launcher.look()["b"].state == "waiting"


@pytest.mark.parametrize(
    ("task", "code", "how"),
    [
        ("FAILED n1 19200", 75, "failed"),
        ("COMPLETED n1 0", 0, "completed"),
        ("TIMEOUT n1 0", None, "timeout"),
        ("OUT_OF_MEMORY n1 9", None, "out_of_memory"),
        ("FAILED n1 2:0", 2, "failed"),
    ],
)
def test_how_a_task_ended_is_told_as_far_as_it_is_known(
    fake: Fake, suite: Path, task: str, code: int | None, how: str
) -> None:
    launcher = slurm(suite)
    launcher.submit(tasks_of(suite, ["a"]))
    (job,) = fake.jobs
    fake.change(job, 0, task)
    assert states(launcher) == ["waiting"]
    assert launcher.look() == {"a": Seen("ended", f"n1 (job {job}_0, {how})", code)}
    assert slurm(suite).attach() == set()


@pytest.mark.parametrize("state", ["CANCELLED", "PREEMPTED", "NODE_FAIL"])
def test_only_what_somebody_cancelled_is_not_tried_again(
    fake: Fake, suite: Path, state: str
) -> None:
    launcher = slurm(suite)
    launcher.submit(tasks_of(suite, ["a"]))
    (job,) = fake.jobs
    fake.change(job, 0, f"{state} n1 15")
    launcher.look()
    final = launcher.look()["a"].final
    cancelled = f"job {job}_0 was cancelled; the same command submits it again"
    assert final == (cancelled if state == "CANCELLED" else "")


def test_a_waiting_task_that_is_gone_from_its_array_was_cancelled(fake: Fake, suite: Path) -> None:
    launcher = slurm(suite)
    launcher.submit(tasks_of(suite, ["a", "b", "c"]))
    (job,) = fake.jobs
    log_of(suite, "b").write_text(f"turn 0 of job {job}_1 on n1\n")  # it began and was purged
    for index in (0, 1):
        fake.change(job, index, None)
    launcher.look()
    seen = launcher.look()
    assert seen["a"].final == "its task was cancelled before it began"
    assert seen["b"] == Seen("ended")


def test_a_retry_while_slurm_is_silent_counts_as_submitted(fake: Fake, suite: Path) -> None:
    launcher = slurm(suite)
    tasks = tasks_of(suite, ["a", "b"])
    fake.set(silent="down")
    with pytest.raises(UserError, match=r"^sbatch: down, and squeue: down; give the same command"):
        launcher.submit(tasks)
    fake.set(silent=None)
    assert launcher.attach() == set()
    launcher.submit(tasks)
    fake.change(fake.jobs[0], 1, "FAILED n1 9")
    launcher.look()
    launcher.look()
    fake.set(silent="down")
    launcher.submit(tasks[1:])
    assert states(launcher) == ["unknown"] * 2
    fake.set(silent=None)
    assert [states(launcher) for _ in range(2)] == [["waiting"] * 2, ["waiting", "ended"]]


def test_a_run_is_submitted_again_as_an_array_of_its_own(fake: Fake, suite: Path) -> None:
    launcher = slurm(suite)
    tasks = tasks_of(suite, ["a", "b"])
    launcher.submit(tasks)
    first = fake.jobs[0]
    fake.change(first, 1, None)
    launcher.look()
    assert launcher.look()["b"].state == "ended"
    launcher.submit(tasks[1:])
    second = fake.jobs[1]
    assert fake.array(second) == "0-0"
    assert launcher.look() == {
        "a": Seen("waiting", f"waits: Priority (job {first}_0)"),
        "b": Seen("waiting", f"waits: Priority (job {second}_0)"),
    }


def test_another_driver_finds_the_jobs_of_one_that_is_gone(fake: Fake, suite: Path) -> None:
    assert slurm(suite).attach() == set()
    slurm(suite).submit(tasks_of(suite, ["a", "b", "c"]))
    (job,) = fake.jobs
    fake.change(job, 1, None)
    another = slurm(suite)
    assert another.attach() == {"a", "c"}
    assert set(another.look()) == {"a", "c"}
    another.cancel()
    assert fake.jobs == []
    assert slurm(suite).attach() == set()


def test_one_empty_answer_is_no_news_to_another_driver(fake: Fake, suite: Path) -> None:
    slurm(suite).submit(tasks_of(suite, ["a"]))
    fake.change(fake.jobs[0], 0, "RUNNING n1")
    another = slurm(suite)
    fake.set(empty=1)
    assert another.attach() == {"a"}
    fake.set(empty=1)
    assert [states(another) for _ in range(2)] == [["running"]] * 2
    fake.set(empty=2)
    assert slurm(suite).attach() == set()
    assert list((suite / "jobs").iterdir()) == []


def test_two_drivers_forget_nothing_of_each_other(fake: Fake, suite: Path) -> None:
    first, second = slurm(suite), slurm(suite)
    first.submit(tasks_of(suite, ["a"]))
    second.submit(tasks_of(suite, ["b"]))
    first.submit(tasks_of(suite, ["c"]))
    assert slurm(suite).attach() == {"a", "b", "c"}
    second.cancel()
    assert slurm(suite).attach() == {"a", "c"}


def test_jobs_of_other_users_are_attached_to_and_never_forgotten(fake: Fake, suite: Path) -> None:
    slurm(suite).submit(tasks_of(suite, ["a"]))
    (file,), jobs = (suite / "jobs").iterdir(), fake.state["jobs"]
    other = os.getuid() + 1
    file.write_text(json.dumps({**json.loads(file.read_text()), "user": other}))
    fake.set(jobs={job: {**what, "user": other} for job, what in jobs.items()})
    launcher = slurm(suite)
    assert launcher.attach() == {"a"}
    assert states(launcher) == ["waiting"]
    launcher.cancel()
    assert len(fake.jobs) == 1
    fake.set(hidden=[other])
    assert slurm(suite).attach() == set()
    assert file.is_file()


def test_a_job_whose_sbatch_did_not_answer_is_not_submitted_twice(fake: Fake, suite: Path) -> None:
    fake.set(lost="sbatch: error: Batch job submission failed: Socket timed out")
    launcher = slurm(suite)
    launcher.submit(tasks_of(suite, ["a"]))
    (job,) = fake.jobs
    assert launcher.look() == {"a": Seen("waiting", f"waits: Priority (job {job}_0)")}
    assert slurm(suite).attach() == {"a"}
    launcher.cancel()
    assert fake.jobs == []


def test_who_is_gone_between_sbatch_and_its_answer_is_found_too(fake: Fake, suite: Path) -> None:
    slurm(suite).submit(tasks_of(suite, ["a"]))
    (file,) = (suite / "jobs").iterdir()
    file.write_text(json.dumps({**json.loads(file.read_text()), "job": ""}))
    assert slurm(suite).attach() == {"a"}


def test_nothing_is_submitted_while_nobody_knows_what_runs(fake: Fake, suite: Path) -> None:
    slurm(suite).submit(tasks_of(suite, ["a"]))
    fake.set(silent="squeue: error: timed out")
    with pytest.raises(UserError, match=r"^SLURM does not answer \(squeue: error: timed out\), so"):
        slurm(suite).attach()
    (file,) = (suite / "jobs").iterdir()
    file.write_text('{"name": 1}')
    with pytest.raises(UserError, match=r"\.json is damaged \(KeyError.*; delete it"):
        slurm(suite).attach()


def test_sbatch_refuses_in_its_own_words(fake: Fake, suite: Path) -> None:
    fake.set(refuse="sbatch: error: invalid partition specified: gpu\nsbatch: error: failed")
    launcher = slurm(suite, slurm=("partition=gpu",))
    refusal = r"^sbatch refused: sbatch: error: invalid partition specified: gpu sbatch: error"
    with pytest.raises(UserError, match=refusal):
        launcher.submit(tasks_of(suite, ["a"]))
    assert list((suite / "jobs").iterdir()) == []
    assert launcher.look() == {}


BENCH = (
    *("bench", "--methods", "pgd-at", "--dataset", "digits-lt", "--no-report", "--device", "cpu"),
    *("--launcher", "slurm", "--output", "out"),
)


def test_a_refusal_ends_the_command_in_one_line(fake: Fake, cli: Cli) -> None:
    fake.set(refuse="sbatch: error: invalid partition specified: gpu")
    outcome = cli(*BENCH)
    assert outcome.code == 2
    assert outcome.stderr == (
        "error: sbatch refused: sbatch: error: invalid partition specified: gpu\n"
    )
    assert list(Path("out/jobs").iterdir()) == []
    assert list(Path("out/claims").glob("*.json")) == []


def test_a_command_that_leaves_tells_by_its_code_what_failed_before(fake: Fake, cli: Cli) -> None:
    assert cli(*BENCH, "--detach").code == 0
    (plan,) = Path("out/plans").iterdir()
    (run_id,) = read_plan(SuiteStore(Path("out")), plan)
    SuiteStore(Path("out")).run(run_id).fail("no memory")
    fake.set(jobs={})
    outcome = cli(*BENCH, "--detach", "--overwrite", "never")
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"failed: {run_id}: no memory (kept")


def test_large_arrays_are_split_and_share_what_may_run_at_once(fake: Fake, suite: Path) -> None:
    fake.set(largest=4)
    launcher = slurm(suite, at_once=5)
    runs = [f"r{i}" for i in range(10)]
    launcher.submit(tasks_of(suite, runs))
    assert [fake.array(job) for job in fake.jobs] == ["0-3%1", "0-2%2", "0-2%2"]
    assert set(launcher.look()) == set(runs)
    first = fake.state["jobs"][fake.jobs[0]]["script"]
    assert "    r0\n    r3\n    r6\n    r9\n" in first  # each array has long and short ones


def test_no_more_are_at_once_than_wanted_over_several_arrays(fake: Fake, suite: Path) -> None:
    fake.set(largest=2)
    launcher = slurm(suite, at_once=2)
    with pytest.warns(Notice, match=r"^--at-once 2; 2 runs are submitted later"):
        launcher.submit(tasks_of(suite, list("abcdef")))
    assert [fake.array(job) for job in fake.jobs] == ["0-1%1", "0-1%1"]
    assert launcher.look()["f"] == Seen("waiting", "waits: --at-once 2")
    with pytest.warns(Notice, match=r"^--at-once 2; 3 runs"):
        launcher.submit(tasks_of(suite, ["again"]))
    another = slurm(suite, at_once=3)
    assert len(another.attach()) == 4
    another.submit(tasks_of(suite, ["other"]))
    assert fake.array(fake.jobs[-1]) == "0-0%1"
    for index in (0, 1):
        fake.change(fake.jobs[0], index, "COMPLETED n1")
    assert len(fake.jobs) == 3
    states(launcher), states(launcher)
    assert [fake.array(job) for job in fake.jobs[3:]] == ["0-1%1"]


def test_a_limit_on_jobs_holds_the_others_back(fake: Fake, suite: Path) -> None:
    fake.set(most=3)
    launcher = slurm(suite)
    with pytest.warns(Notice, match="^sbatch refused: .*SubmitJob.*; 2 runs are submitted later"):
        launcher.submit(tasks_of(suite, list("abcde")))
    assert [fake.array(job) for job in fake.jobs] == ["0-1", "0-0"]
    seen = launcher.look()
    assert [seen[run].where for run in "de"] == ["waits: no more jobs of this user"] * 2
    fake.change(fake.jobs[0], 0, None)
    launcher.look()
    launcher.look()
    assert [fake.array(job) for job in fake.jobs] == ["0-1", "0-0", "0-0"]
    seen = launcher.look()
    assert [seen[run].state for run in "abcde"] == ["ended", *["waiting"] * 4]
    assert seen["d"].where.startswith("waits: Priority")
    fake.set(most=0, jobs={})
    other = slurm(suite)
    with pytest.raises(UserError, match=r"^sbatch refused: .*submit limit"):
        other.submit(tasks_of(suite, ["a"]))


def begun(suite: Path, fake: Fake) -> Launcher:
    """A launcher with one run in SLURM, and another that SLURM is to refuse."""
    launcher = slurm(suite)
    launcher.submit(tasks_of(suite, ["a"]))
    return launcher


def test_what_is_refused_later_is_tried_again_and_its_runs_alone_fail(
    fake: Fake, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ltrobust.bench.launch.slurm.REFUSALS", 3)
    launcher = begun(suite, fake)
    fake.set(refuse="sbatch: error: Socket timed out on send/recv operation")
    with pytest.warns(Notice, match=r"^sbatch refused: .*Socket timed out.*; 2 runs are submitted"):
        launcher.submit(tasks_of(suite, ["b", "c"]))
    assert states(launcher) == ["waiting"] * 3
    fake.set(refuse=None)
    assert states(launcher) == ["waiting"] * 3
    assert launcher.look()["b"].where == f"waits: Priority (job {fake.jobs[1]}_0)"
    fake.set(refuse="sbatch: error: Invalid account")
    with pytest.warns(Notice, match="Invalid account"):
        launcher.submit(tasks_of(suite, ["d"]))
    assert [states(launcher)[-1] for _ in range(2)] == ["waiting"] * 2
    seen = launcher.look()
    assert seen["d"] == Seen("ended", final="sbatch refused: sbatch: error: Invalid account")
    assert [seen[run].state for run in "abc"] == ["waiting"] * 3
    fake.set(refuse=None)
    launcher.submit(tasks_of(suite, ["d"]))
    assert states(launcher) == ["waiting"] * 4


GENERAL = "sbatch: error: Job violates accounting/QOS policy (job submit limit, time limits)"


@pytest.mark.parametrize(
    ("words", "lasts"),
    [
        (GENERAL, False),  # nothing of ours can make room
        (f"sbatch: error: QOSMaxWallDurationPerJobLimit {GENERAL}", False),
        (f"sbatch: error: AssocMaxSubmitJobLimit {GENERAL}", True),
    ],
)
def test_only_a_limit_on_jobs_is_waited_for(
    fake: Fake, suite: Path, monkeypatch: pytest.MonkeyPatch, words: str, lasts: bool
) -> None:
    monkeypatch.setattr("ltrobust.bench.launch.slurm.REFUSALS", 2)
    launcher = begun(suite, fake)
    fake.set(refuse=words)
    with pytest.warns(Notice, match="submit limit"):
        launcher.submit(tasks_of(suite, ["b"]))
    fake.set(jobs={})
    found = [launcher.look()["b"] for _ in range(4)]
    assert found[0].state == "waiting"
    assert (found[-1].state == "waiting") is lasts
    assert lasts or words in found[-1].final


def test_a_silent_slurm_cannot_be_told_to_end_jobs(fake: Fake, suite: Path) -> None:
    launcher = slurm(suite)
    launcher.submit(tasks_of(suite, ["a"]))
    (job,) = fake.jobs
    fake.set(silent="down")
    with pytest.raises(RunError, match=f"end the jobs later: scancel {job}$"):
        launcher.cancel()


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("partition gpu", "give key=value"),
        ("--partition=gpu", "give key=value"),
        ("array=0-9", "array: this one is ltrobust's own"),
        ("wrap=hostname", "wrap: this one is ltrobust's own"),
    ],
)
def test_options_that_are_none(fake: Fake, suite: Path, option: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        slurm(suite, slurm=(option,))


def test_a_machine_without_slurm(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match=r"^--launcher slurm: sbatch is not here; .*login node"):
        slurm(suite)


def test_the_preview_is_what_would_be_submitted(fake: Fake, suite: Path) -> None:
    shown = slurm(suite, slurm=("gres=gpu:1",)).preview(tasks_of(suite, ["a"]))
    assert "--array=0-0" in shown
    assert "--gres=gpu:1 <<'END'\n#!/bin/bash\n" in shown
    assert f"{sys.executable} -m ltrobust work '{suite}' \"$run\" &" in shown
    assert fake.jobs == []


# the job script in a shell ------------------------------------------------------------------------

CHILD = """
import os, signal, sys, time
def stop(number, _):
    grace = os.environ["LTROBUST_LIMIT_GRACE"] + " s" if number == signal.SIGUSR2 else "at once"
    os.write(1, f"saves {grace}\\n".encode())  # print may be at work
    if sys.argv[3]:
        open(sys.argv[3], "a").write("an epoch")
    sys.exit(int(sys.argv[2]))
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGUSR2, stop)
print("works on", sys.argv[1], flush=True)
for _ in range(100 if sys.argv[2] != "7" else 0):
    time.sleep(0.1)
sys.exit(7)
"""


def start_script(
    suite: Path, code: int, *, writes: str = "state.pt", options: Sequence[str] = ()
) -> subprocess.Popen[str]:
    """A task whose process ends with a code, when it is told to or, with 7, by itself."""
    file = suite / "runs" / "b" / writes
    words = (sys.executable, "-ISc", CHILD, "b", str(code), str(file) if writes else "")
    tasks = [Task(run, words, suite / "logs" / f"{run}.log") for run in ("a", "b")]
    (suite / "logs").mkdir()
    (suite / "runs" / "b").mkdir(parents=True)
    script = suite / "script"
    script.write_text(job_script(suite, tasks, options))
    env = {"SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "1", "SLURMD_NODENAME": "n1"}
    return subprocess.Popen(["bash", str(script)], env={**os.environ, **env}, text=True)


def wait_for(file: Path, text: str) -> None:
    end = time.monotonic() + 20
    while not (file.is_file() and text in file.read_text()):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_script_does_the_run_of_its_task(fake: Fake, suite: Path) -> None:
    assert start_script(suite, 7).wait(20) == 7
    assert (suite / "logs" / "b.log").read_text() == "turn 0 of job 12_1 on n1\nworks on b\n"
    assert fake.state["calls"] == []


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2"])
def test_near_the_time_limit_the_run_is_stopped_and_requeued(
    fake: Fake, suite: Path, name: str
) -> None:
    script = start_script(suite, 130)
    wait_for(suite / "logs" / "b.log", "works on b")
    script.send_signal(getattr(signal, name))
    assert script.wait(20) == 130
    said = (suite / "logs" / "b.log").read_text()
    assert "time limit near\nsaves 100 s\nanother turn\n" in said
    assert fake.state["calls"][-1] == ["scontrol", "requeue", "12_1"]


def test_an_earlier_warning_is_time_for_the_run(fake: Fake, suite: Path) -> None:
    script = start_script(suite, 130, options=("signal=USR1@60", "time=5", "signal=B:USR2@300"))
    wait_for(suite / "logs" / "b.log", "works on b")
    script.send_signal(signal.SIGUSR2)
    assert script.wait(20) == 130
    assert "saves 280 s\n" in (suite / "logs" / "b.log").read_text()


@pytest.mark.parametrize("writes", ["", "history.csv"])  # epochs without a saved state are lost
def test_a_turn_that_saved_nothing_is_left_to_the_driver(
    fake: Fake, suite: Path, writes: str
) -> None:
    script = start_script(suite, 130, writes=writes)
    wait_for(suite / "logs" / "b.log", "works on b")
    script.send_signal(signal.SIGUSR2)
    assert script.wait(20) == 130
    assert "this turn got no further" in (suite / "logs" / "b.log").read_text()
    assert fake.state["calls"] == []


def test_a_run_that_ends_by_itself_near_the_limit_is_not_requeued(fake: Fake, suite: Path) -> None:
    script = start_script(suite, 0)
    wait_for(suite / "logs" / "b.log", "works on b")
    script.send_signal(signal.SIGUSR2)
    assert script.wait(20) == 0
    assert fake.state["calls"] == []


def test_a_site_that_forbids_requeues_is_told_of_in_the_log(fake: Fake, suite: Path) -> None:
    fake.set(disabled="scontrol: error: Requested operation is presently disabled")
    script = start_script(suite, 130)
    wait_for(suite / "logs" / "b.log", "works on b")
    script.send_signal(signal.SIGUSR2)
    assert script.wait(20) == 130
    said = (suite / "logs" / "b.log").read_text()
    assert "presently disabled\nno other turn from SLURM; the same bench command goes on" in said


@pytest.mark.parametrize(("state", "asks"), [("COMPLETING", False), ("RUNNING", True)])
def test_sigterm_reaches_the_run_and_a_cancelled_job_stays_so(
    fake: Fake, suite: Path, state: str, asks: bool
) -> None:
    fake.set(shown=state)
    script = start_script(suite, 130)
    wait_for(suite / "logs" / "b.log", "works on b")
    script.terminate()
    assert script.wait(20) == 130
    assert "told to stop\nsaves at once\n" in (suite / "logs" / "b.log").read_text()
    assert (["scontrol", "requeue", "12_1"] in fake.state["calls"]) is asks
