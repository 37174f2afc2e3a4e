"""The loop around a launcher that says what a script tells it to: no run is trained here."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ltrobust.bench.launch import Seen, Task, log_of
from ltrobust.bench.launch.drive import Drive
from ltrobust.bench.plan import Plan, make_plan
from ltrobust.bench.plan_file import read_plan, runs_in_use
from ltrobust.bench.runner import Failure
from ltrobust.bench.settings import make_settings
from ltrobust.bench.work import NO_DEVICE
from ltrobust.errors import UserError
from ltrobust.progress import Reporter
from ltrobust.results.store import SuiteStore

Step = Seen | Callable[[], Seen]
RUNNING, UNKNOWN = Seen("running", "n1"), Seen("unknown")
ENOUGH = 500
"""Looks after which a loop is taken to go round for ever."""


def ended(code: int | None = None) -> Seen:
    return Seen("ended", "n1", code)


@dataclass
class Scripted:
    """A launcher that follows a script: for each run its turns, for each turn what is seen.

    The last step of a turn is seen again and again.
    """

    turns: dict[str, list[list[Step]]]
    had: set[str] = field(default_factory=set)
    survives: bool = False
    refuses: str = ""
    at_once: int | None = 2
    pause: float = 1.0
    submitted: list[str] = field(default_factory=list)
    cancelled: int = 0
    looks: int = 0
    now: dict[str, list[Step]] = field(default_factory=dict)

    def attach(self) -> set[str]:
        for run_id in self.had:
            self.now[run_id] = list(self.turns[run_id].pop(0))
        return self.had

    def submit(self, tasks: Sequence[Task]) -> None:
        if self.refuses:
            raise UserError(self.refuses)
        for task in tasks:
            self.submitted.append(task.run_id)
            self.now[task.run_id] = list(self.turns[task.run_id].pop(0))

    def look(self) -> Mapping[str, Seen]:
        self.looks += 1
        assert self.looks < ENOUGH, "the loop never ends"
        seen = {}
        for run_id, steps in self.now.items():
            step = steps.pop(0) if len(steps) > 1 else steps[0]
            seen[run_id] = step() if callable(step) else step
        return seen

    def cancel(self) -> None:
        self.cancelled += 1

    def preview(self, tasks: Sequence[Task]) -> str:
        return f"{len(tasks)} tasks"


@dataclass
class Place:
    """A suite with a plan, and which of its runs count as finished."""

    plan: Plan
    suite: SuiteStore
    finished: set[str]
    lines: list[str] = field(default_factory=list)
    time: float = 0.0

    @property
    def ids(self) -> list[str]:
        return [planned.run.run_id for planned in self.plan.runs]

    def drive(self, launcher: Scripted, **more: Any) -> list[Failure]:
        """Drive the plan; a second passes with each look."""

        def sleep(seconds: float) -> None:
            self.time += seconds

        drive = Drive(launcher, clock=lambda: self.time, sleep=sleep, **more)
        reporter = Reporter(Console(quiet=True))
        with reporter.copy_to(self.lines.append):
            return drive(self.plan, self.suite, reporter)

    def done(self, run_id: str, code: int | None = 0) -> Callable[[], Seen]:
        """A step: the run is finished, and its task has ended."""

        def step() -> Seen:
            self.finished.add(run_id)
            return ended(code)

        return step

    def failed(self, run_id: str, reason: str) -> Callable[[], Seen]:
        def step() -> Seen:
            self.suite.run(run_id).fail(reason)
            return ended(1)

        return step

    def killed(self, run_id: str, epochs: int, code: int | None = -9) -> Callable[[], Seen]:
        """A step: the worker is killed after so many epochs in all."""

        def step() -> Seen:
            rows = [{"epoch": float(n + 1), "train_loss": 1.0} for n in range(epochs)]
            if rows:
                self.suite.run(run_id).write_history(rows)
            return ended(code)

        return step

    def claim(
        self, run_id: str, beats: int = 1, host: str = "n7", pid: int = 1, ago: float = 0
    ) -> None:
        """Another says that it does the run, so many seconds ago by its clock."""
        self.suite.claims.mkdir(parents=True, exist_ok=True)
        said = {"host": host, "pid": pid, "since": "", "token": "theirs", "beats": beats}
        file = self.suite.claims / f"{run_id}.json"
        file.write_text(json.dumps(said))
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - ago))

    def claimed_first(self, run_id: str, seen: Seen, **who: Any) -> Callable[[], Seen]:
        """A step: another has come first, since the task was submitted."""

        def step() -> Seen:
            self.claim(run_id, **who)
            return seen

        return step

    def unclaim(self, run_id: str) -> None:
        (self.suite.claims / f"{run_id}.json").unlink()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Place]:
    def make(methods: str = "pgd-at,at-bsl,taet", **settings: Any) -> Place:
        asked = {"epochs": 9, "device": "cpu", "attacks": "clean", "output": tmp_path, **settings}
        plan = make_plan(make_settings({"methods": methods, "dataset": "digits-lt", **asked}))
        done: set[str] = set()
        monkeypatch.setattr(
            "ltrobust.bench.launch.drive.finished",
            lambda planned, *_, **__: planned.run.run_id in done,
        )
        return Place(plan, SuiteStore(tmp_path), done)

    return make


def test_every_run_is_submitted_once_longest_first_and_written_to_the_plan(
    place: Callable[..., Place],
) -> None:
    here = place("pgd-at,pgd-at+awp,at-bsl")
    short = here.ids[0]
    here.suite.run(short).write_history([{"epoch": n + 1.0, "train_loss": 1.0} for n in range(8)])
    launcher = Scripted({one: [[RUNNING, here.done(one)]] for one in here.ids})
    assert here.drive(launcher) == []
    assert launcher.submitted[0] == here.ids[1]
    assert launcher.submitted[-1] == short
    assert sorted(launcher.submitted) == sorted(here.ids)
    assert list(read_plan(here.suite)) == here.ids


def test_what_is_finished_is_not_submitted(place: Callable[..., Place]) -> None:
    here = place()
    here.finished.update(here.ids[:2])
    launcher = Scripted({here.ids[2]: [[here.done(here.ids[2])]]})
    assert here.drive(launcher) == []
    assert launcher.submitted == [here.ids[2]]


def test_an_engine_that_does_not_answer_has_not_lost_its_tasks(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    steps: list[Step] = [RUNNING, *[UNKNOWN] * 100, RUNNING, here.done(run_id)]
    launcher = Scripted({run_id: [steps]})
    assert here.drive(launcher) == []
    assert launcher.submitted == [run_id]
    assert sum("does not answer since" in line for line in here.lines) == 1
    assert any("answers again" in line for line in here.lines)


def test_a_task_that_the_engine_does_not_name_counts_as_unknown(
    place: Callable[..., Place],
) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    launcher = Scripted({run_id: [[here.done(run_id)]]})
    look = launcher.look
    launcher.look = lambda: {} if launcher.looks < 20 and look() else look()  # type: ignore[method-assign]
    launcher.now = {}
    launcher.turns[run_id][0][:0] = [RUNNING] * 30
    assert here.drive(launcher) == []
    assert launcher.submitted == [run_id]


def test_what_runs_wait_for_is_told_once_and_a_requeue_with_its_run(
    place: Callable[..., Place],
) -> None:
    here = place()
    first, *others = here.ids

    def waits(why: str, task: int) -> Seen:
        return Seen("waiting", f"waits: {why} (job 7_{task})")

    turns: dict[str, list[list[Step]]] = {
        one: [[*[waits("Priority", i)] * 3, RUNNING, here.done(one)]]
        for i, one in enumerate(others)
    }
    requeued = [RUNNING, waits("BeginTime", 2), RUNNING, here.done(first)]
    assert here.drive(Scripted({first: [requeued], **turns})) == []
    told = [line for line in here.lines if "waits" in line]
    assert told == [
        "2 runs: waits: Priority",
        f"{first}: waits: BeginTime (job 7_2), for another turn",
    ]


def test_a_failed_run_stops_no_other_and_is_not_tried_again(place: Callable[..., Place]) -> None:
    here = place()
    bad, *good = here.ids
    turns: dict[str, list[list[Step]]] = {one: [[RUNNING, here.done(one)]] for one in good}
    launcher = Scripted({bad: [[here.failed(bad, "the loss is nan")]], **turns})
    assert here.drive(launcher) == [Failure(bad, "the loss is nan")]
    assert launcher.submitted.count(bad) == 1
    assert here.finished == set(good)


def test_an_earlier_failure_is_not_taken_for_a_new_one(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    here.suite.run(run_id).fail("the disk was full")
    launcher = Scripted({run_id: [[here.killed(run_id, 2)], [here.done(run_id)]]})
    assert here.drive(launcher) == []
    assert launcher.submitted == [run_id, run_id]


def test_a_lost_run_that_gets_no_further_is_tried_three_times(place: Callable[..., Place]) -> None:
    here = place()
    bad, *good = here.ids
    for one in good:
        here.finished.add(one)
    launcher = Scripted({bad: [[RUNNING, here.killed(bad, 0, 137)] for _ in range(9)]})
    (failure,) = here.drive(launcher)
    assert launcher.submitted == [bad] * 3
    assert failure.reason.startswith("no progress in 3 turns, the last on n1 (signal 9)")
    assert any("again (2 of 3, no progress)" in line for line in here.lines)


def test_a_lost_run_goes_on_as_long_as_it_gets_further(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    turns: list[list[Step]] = [[here.killed(run_id, epochs)] for epochs in range(1, 8)]
    launcher = Scripted({run_id: [*turns, [here.done(run_id)]]})
    assert here.drive(launcher) == []
    assert len(launcher.submitted) == 8
    assert any("lost at epoch 3/9 on n1 (signal 9), again" in line for line in here.lines)


def test_epochs_that_are_only_done_again_are_no_progress(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    launcher = Scripted({run_id: [[here.killed(run_id, 4)] for _ in range(9)]})
    (failure,) = here.drive(launcher)
    assert "no progress" in failure.reason
    assert len(launcher.submitted) == 4  # the first of them got further than nothing


def test_a_place_without_its_device_is_no_failure_of_the_run(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    launcher = Scripted({run_id: [[ended(NO_DEVICE)], [here.done(run_id)]]})
    assert here.drive(launcher) == []
    assert launcher.submitted == [run_id, run_id]


@pytest.mark.parametrize("code", [2, 127])
def test_a_worker_that_refuses_is_a_failure_with_its_own_words(
    place: Callable[..., Place], code: int
) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    log = log_of(here.suite.path, run_id)
    log.parent.mkdir()
    log.write_text("begun\nerror: device cuda is not there\n\n")
    launcher = Scripted({run_id: [[ended(code)]]})
    (failure,) = here.drive(launcher)
    assert failure.reason.startswith("error: device cuda is not there")
    assert launcher.submitted == [run_id]


def test_what_the_engine_calls_final_is_not_tried_again(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    launcher = Scripted({run_id: [[Seen("ended", "n1", final="refused")]]})
    assert here.drive(launcher) == [Failure(run_id, "refused")]
    assert launcher.submitted == [run_id]


def test_runs_that_an_earlier_driver_submitted_are_not_submitted_again(
    place: Callable[..., Place],
) -> None:
    here = place()
    turns: dict[str, list[list[Step]]] = {one: [[RUNNING, here.done(one)]] for one in here.ids}
    launcher = Scripted(turns, had=set(here.ids[:2]))
    assert here.drive(launcher) == []
    assert launcher.submitted == here.ids[2:]
    assert any("attached to 2 runs" in line for line in here.lines)


def test_nothing_is_cleared_where_the_engine_still_has_some_of_it(
    place: Callable[..., Place],
) -> None:
    here = place("pgd-at,at-bsl", overwrite="all")
    attached, since = here.ids
    for one in here.ids:
        here.suite.run(one).write_history([{"epoch": 1.0, "train_loss": 1.0}])
    here.finished.add(since)
    here.drive(Scripted({attached: [[here.done(attached)]]}, had={attached}))
    assert [len(here.suite.run(one).history()) for one in here.ids] == [1, 1]
    assert any(line.endswith("submitted before; no run is cleared") for line in here.lines)


def test_runs_that_are_to_be_done_anew_are_cleared_by_the_driver_alone(
    place: Callable[..., Place],
) -> None:
    here = place("pgd-at", overwrite="all")
    (run_id,) = here.ids
    here.suite.run(run_id).write_history([{"epoch": 1.0, "train_loss": 1.0}])
    here.drive(Scripted({run_id: [[here.done(run_id)]]}))
    assert here.suite.run(run_id).history().empty
    assert {plan.settings.overwrite for plan in read_plan(here.suite).values()} == {"failed"}


@pytest.mark.parametrize("detach", [False, True])
def test_failed_runs_are_kept_where_that_is_wanted(
    place: Callable[..., Place], detach: bool
) -> None:
    here = place("pgd-at", overwrite="never", detach=detach, launcher="slurm")
    (run_id,) = here.ids
    here.suite.run(run_id).fail("no memory")
    launcher = Scripted({}, survives=True)
    (failure,) = here.drive(launcher, detach=detach)
    assert failure.reason == "no memory (kept; --overwrite failed tries again)"
    assert launcher.submitted == []


@pytest.mark.parametrize("ago", [0, 1e6, -1e6])  # the clocks of two machines may differ
@pytest.mark.parametrize("when", ["before it was submitted", "since"])
def test_a_run_that_another_does_is_waited_for(
    place: Callable[..., Place], when: str, ago: float
) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    launcher = Scripted({run_id: [[here.claimed_first(run_id, ended(75), ago=ago), ended(75)]]})
    if when != "since":
        here.claim(run_id, ago=ago)
    plain = launcher.look

    def look() -> Mapping[str, Seen]:
        here.claim(run_id, beats=launcher.looks, ago=ago)
        if launcher.looks > 300:  # longer than it takes to be silent
            here.finished.add(run_id)
        return plain()

    launcher.look = look  # type: ignore[method-assign]
    assert here.drive(launcher) == []
    assert launcher.submitted == ([run_id] if when == "since" else [])
    assert any("another ltrobust on n7 (process 1) is doing it" in line for line in here.lines)


@pytest.mark.parametrize("how", ["gone", "silent", "silent and ahead", "dead"])
def test_a_run_whose_other_worker_is_gone_is_submitted_again(
    place: Callable[..., Place], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    nobody = 2**22 + 1  # above the highest process number
    who: dict[str, Any] = {"host": socket.gethostname(), "pid": nobody} if how == "dead" else {}
    if how == "silent and ahead":
        who = {"ago": -1e6}
    first = here.claimed_first(run_id, ended(75), **who)
    launcher = Scripted({run_id: [[first, ended(75)], [here.done(run_id)]]})
    plain = launcher.look

    def look() -> Mapping[str, Seen]:
        if how == "gone" and launcher.looks == 5:
            here.unclaim(run_id)
        return plain()

    launcher.look = look  # type: ignore[method-assign]
    assert here.drive(launcher) == []
    assert launcher.submitted == [run_id, run_id]
    assert (launcher.looks > 60) == how.startswith("silent")


def test_the_claim_that_a_killed_turn_left_is_not_waited_for(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    killed = here.claimed_first(run_id, ended(137), host="n1")
    launcher = Scripted({run_id: [[RUNNING, killed], [here.done(run_id)]]})
    assert here.drive(launcher) == []
    assert launcher.submitted == [run_id, run_id]
    assert launcher.looks < 10


def test_what_another_was_doing_is_submitted_when_that_is_gone(place: Callable[..., Place]) -> None:
    here = place("pgd-at,at-bsl")
    theirs, other = here.ids
    here.claim(theirs)

    def gone() -> Seen:
        assert launcher.submitted == [other]
        here.unclaim(theirs)
        return here.done(other)()

    launcher = Scripted(
        {other: [[RUNNING, gone, ended(0)]], theirs: [[RUNNING, here.done(theirs)]]}
    )
    assert here.drive(launcher) == []
    assert launcher.submitted == [other, theirs]


def test_a_task_that_ended_while_its_worker_lives_on_elsewhere_is_not_doubled(
    place: Callable[..., Place],
) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    launcher = Scripted({run_id: [[here.claimed_first(run_id, RUNNING), ended()]]})
    plain = launcher.look

    def look() -> Mapping[str, Seen]:
        if launcher.looks == 10:
            here.finished.add(run_id)
        return plain()

    launcher.look = look  # type: ignore[method-assign]
    assert here.drive(launcher) == []
    assert launcher.submitted == [run_id]


def test_a_post_hoc_run_waits_for_its_base(place: Callable[..., Place]) -> None:
    here = place("pgd-at+tau-norm")
    base, after = here.ids

    def base_done() -> Seen:
        assert after not in here.finished
        assert (launcher.submitted == [base]) == (base not in here.finished)
        return here.done(base)()

    turns: dict[str, list[list[Step]]] = {base: [[RUNNING, RUNNING, base_done]]}
    launcher = Scripted({**turns, after: [[here.done(after)]]})
    assert here.drive(launcher) == []
    assert launcher.submitted == [base, after]


def test_a_post_hoc_run_fails_with_its_base(place: Callable[..., Place]) -> None:
    here = place("pgd-at+tau-norm")
    base, after = here.ids
    launcher = Scripted({base: [[here.failed(base, "the loss is nan")]]})
    failures = here.drive(launcher)
    assert [one.run_id for one in failures] == [base, after]
    assert "the loss is nan" in failures[1].reason
    assert launcher.submitted == [base]


def test_detached_everything_that_can_begin_is_submitted_and_nothing_is_looked_at(
    place: Callable[..., Place],
) -> None:
    here = place("pgd-at+tau-norm,at-bsl", detach=True, overwrite="all", launcher="slurm")
    launcher = Scripted({one: [[RUNNING]] for one in here.ids}, survives=True)
    assert here.drive(launcher, detach=True) == []
    assert set(launcher.submitted) == {p.run.run_id for p in here.plan.runs if p.base is None}
    assert launcher.looks == launcher.cancelled == 0
    assert any("1 more act on these" in line for line in here.lines)
    assert any("same command without --detach and --overwrite all" in one for one in here.lines)


@pytest.mark.parametrize("alive", [True, False])
def test_detached_it_stays_until_it_knows_whether_another_does_a_run(
    place: Callable[..., Place], alive: bool
) -> None:
    here = place("pgd-at,at-bsl", detach=True, launcher="slurm")
    theirs, other = here.ids
    here.claim(theirs)
    launcher = Scripted({one: [[RUNNING]] for one in here.ids}, survives=True)
    plain = launcher.look

    def look() -> Mapping[str, Seen]:
        if alive and launcher.looks == 5:
            here.claim(theirs, beats=2)
        return plain()

    launcher.look = look  # type: ignore[method-assign]
    assert here.drive(launcher, detach=True) == []
    assert launcher.submitted == ([other] if alive else [other, theirs])
    assert (launcher.looks > 60) == (not alive)
    assert any("another does them, and are" in line for line in here.lines) == alive


def test_files_that_are_damaged_while_another_does_the_run_fail_it_alone(
    place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltrobust.bench import standing

    here = place("pgd-at,at-bsl")
    monkeypatch.setattr("ltrobust.bench.launch.drive.finished", standing.finished)
    bad, good = here.ids
    here.claim(bad)

    def damage() -> Seen:
        here.suite.run(bad).fail("x")
        (here.suite.run(bad).path / "failed.json").write_text("{")
        return here.failed(good, "a reason")()

    launcher = Scripted({good: [[RUNNING, damage, RUNNING]]})
    failures = {one.run_id: one.reason for one in here.drive(launcher)}
    assert "failed.json is damaged" in failures[bad]
    assert failures[good] == "a reason"


@pytest.fixture
def heeded() -> Iterator[None]:
    """Signals are heeded, though what a shell or nohup starts may be told to ignore them."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {kind: signal.signal(kind, handler) for kind, handler in usual.items()}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


def stop_with(kind: signal.Signals) -> Callable[[], Seen]:
    def step() -> Seen:
        os.kill(os.getpid(), kind)
        return RUNNING

    return step


@pytest.mark.parametrize(
    ("kind", "survives", "cancelled"),
    [
        (signal.SIGINT, False, 1),
        (signal.SIGINT, True, 1),
        (signal.SIGTERM, False, 1),
        (signal.SIGTERM, True, 0),
        (signal.SIGHUP, True, 0),
    ],
)
def test_what_was_submitted_ends_with_the_driver_unless_it_is_to_go_on(
    place: Callable[..., Place],
    heeded: None,
    kind: signal.Signals,
    survives: bool,
    cancelled: int,
) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    before = signal.getsignal(kind)
    launcher = Scripted({run_id: [[RUNNING, stop_with(kind), RUNNING]]}, survives=survives)
    with pytest.raises(KeyboardInterrupt):
        here.drive(launcher)
    assert launcher.cancelled == cancelled
    assert any("go on without this command" in line for line in here.lines) == (not cancelled)
    assert signal.getsignal(kind) is before


def test_a_hangup_that_nohup_ignores_ends_nothing(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids
    launcher = Scripted({run_id: [[RUNNING, stop_with(signal.SIGHUP), here.done(run_id)]]})
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert here.drive(launcher) == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert launcher.cancelled == 0


def test_what_the_engine_refuses_is_told_in_its_own_words(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    launcher = Scripted({}, refuses="sbatch: invalid account")
    with pytest.raises(UserError, match="invalid account"):
        here.drive(launcher)


def test_a_damaged_run_is_a_failure_of_its_own(
    place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ltrobust.bench import standing

    here = place("pgd-at,at-bsl")
    monkeypatch.setattr("ltrobust.bench.launch.drive.finished", standing.finished)
    bad, good = here.ids
    here.suite.run(bad).fail("x")
    (here.suite.run(bad).path / "failed.json").write_text("{")
    launcher = Scripted({good: [[here.failed(good, "a reason")]]})
    failures = {one.run_id: one.reason for one in here.drive(launcher)}
    assert "failed.json is damaged" in failures[bad]
    assert failures[good] == "a reason"


def test_a_second_plan_adds_to_the_first(place: Callable[..., Place]) -> None:
    first = place("pgd-at")
    first.drive(Scripted({one: [[first.done(one)]] for one in first.ids}))
    second = place("at-bsl", threads=3)
    second.drive(Scripted({one: [[second.done(one)]] for one in second.ids}))
    plans = read_plan(second.suite)
    assert list(plans) == [*first.ids, *second.ids]
    assert [plan.settings.threads for plan in plans.values()] == [None, 3]


def test_the_workers_of_a_driver_are_given_its_own_plan(place: Callable[..., Place]) -> None:
    commands: list[tuple[str, ...]] = []

    class Noted(Scripted):
        def submit(self, tasks: Sequence[Task]) -> None:
            commands.extend(task.command for task in tasks)
            super().submit(tasks)

    for attacks in ("clean", "pgd2"):
        here = place("pgd-at", attacks=attacks)
        here.drive(Noted({one: [[here.done(one)]] for one in here.ids}))
        here.finished.clear()
    files = [Path(words[words.index("--plan") + 1]) for words in commands]
    read = [read_plan(here.suite, file)[here.ids[0]].runs[0].attacks for file in files]
    assert [[spec.title for spec in attacks] for attacks in read] == [["clean"], ["pgd2"]]


def test_the_plan_of_a_driver_is_in_use_while_it_lives(place: Callable[..., Place]) -> None:
    here = place("pgd-at")
    (run_id,) = here.ids

    def done() -> Seen:
        assert runs_in_use(here.suite) == {run_id}
        return here.done(run_id)()

    assert here.drive(Scripted({run_id: [[RUNNING, done]]})) == []
    assert runs_in_use(here.suite) == set()


def test_a_plan_is_read_as_it_was_written(place: Callable[..., Place], tmp_path: Path) -> None:
    here = place("pgd-at+tau-norm,taet", option="taet.alpha=0.3", eps="8/255", threads=2)
    plan = replace(here.plan, threads=5)
    here = Place(plan, here.suite, here.finished)
    here.drive(Scripted({one: [[here.done(one)]] for one in here.ids}))
    plans = read_plan(here.suite)
    for planned in plan.runs:
        (read,) = plans[planned.run.run_id].runs
        assert (read.run, read.test, read.base) == (planned.run, planned.test, planned.base)
        assert list(read.attack_ids()) == list(planned.attack_ids())
        assert plans[planned.run.run_id].threads == 5
        assert plans[planned.run.run_id].device == "cpu"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema": 1}'])
def test_a_damaged_plan_is_one_line_and_the_next_bench_writes_it_anew(
    place: Callable[..., Place], content: str
) -> None:
    here = place("pgd-at")
    here.suite.prepare()
    here.suite.plan_file.write_text(content)
    with pytest.raises(UserError, match=r"plan\.json is damaged.*the same bench writes it again"):
        read_plan(here.suite)
    here.drive(Scripted({one: [[here.done(one)]] for one in here.ids}))
    assert list(read_plan(here.suite)) == here.ids
