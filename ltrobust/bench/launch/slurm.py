"""Runs on a SLURM cluster: job arrays by sbatch, watched by squeue, ended by scancel.

SLURM queues, limits, requeues and preempts. Whether a run is done is no question for it: that is
in the run's own files. What was submitted stands in a file of `jobs` before it is submitted, so
that another driver finds the jobs of one that is gone.
"""

from __future__ import annotations

import json
import os
import shlex
import time
import uuid
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from ltrobust.bench.launch import Seen, Site, Task, log_of
from ltrobust.bench.launch.sbatch import (
    NAME,
    Queued,
    SilentError,
    ask,
    check_installed,
    check_option,
    job_script,
    limit_on_jobs,
    max_array_size,
    queue,
    sbatch_words,
)
from ltrobust.errors import Notice, RunError, UserError
from ltrobust.results.files import read_object, write_atomic

JOBS = "jobs"
REMEDY = "delete it; runs that still have a job are left to it"
ENDING = 120.0
"""Seconds that cancelled jobs may take to end; SLURM kills them after 30 or so."""
REFUSALS = 30
"""Tries, one a look, after which a refusal of sbatch is final: its controller may be busy or just
being started."""


@dataclass
class Submission:
    """One job array.

    Attributes:
        name: the job's name, ours alone: it finds the job even where sbatch did not answer.
        runs: the runs by their index in the array.
        job: its id; "" where that is not known.
        user: the number of who submitted it.
        at_once: runs of it at once; 0: any number.
    """

    name: str
    runs: list[str]
    job: str = ""
    user: int = field(default_factory=os.getuid)
    at_once: int = 0

    @property
    def ours(self) -> bool:
        """Whether this user may end it, and sees it whatever the site hides."""
        return self.user == os.getuid()


@dataclass
class Slurm:
    """Runs as tasks of job arrays.

    Args:
        site: what to submit with.

    Raises:
        UserError: there is no SLURM here, or an option that sbatch cannot be given.
    """

    pause = 10.0
    survives = True

    site: Site
    _submitted: list[Submission] = field(default_factory=list)
    _tasks: dict[str, tuple[str, int]] = field(default_factory=dict)
    _last: dict[str, Seen] = field(default_factory=dict)
    _missed: set[str] = field(default_factory=set)
    _over: set[str] = field(default_factory=set)
    _held: list[Task] = field(default_factory=list)
    _given_up: dict[str, Seen] = field(default_factory=dict)
    _begun: bool = False
    _queued: int = 0
    _room: int = 0
    _refusal: str = ""
    _refusals: int = 0

    def __post_init__(self) -> None:
        for option in self.site.slurm:
            check_option(option)
        check_installed()

    @property
    def at_once(self) -> int | None:
        """Runs at once, where a number was asked for."""
        return self.site.at_once

    def attach(self) -> set[str]:
        """Runs of earlier submissions that SLURM still has; of other users where it shows them.

        What one look does not find is looked for again: an empty answer is no news.

        Raises:
            UserError: SLURM does not answer, so that nobody knows; or a file of jobs is damaged.
        """
        self._tasks.clear()
        self._missed.clear()
        self._over.clear()
        earlier = self._read_jobs()
        if not earlier:
            return set()
        self._submitted = earlier
        try:
            there = self._alive()
            if any(one.ours and one.name not in {name for name, _ in there} for one in earlier):
                time.sleep(self.pause)
                there |= self._alive()
        except SilentError as error:
            raise UserError(
                f"SLURM does not answer ({error}), so which jobs of {self._jobs} still run is not "
                "known; give the command again later"
            ) from None
        for submission in earlier:
            for index, run_id in enumerate(submission.runs):
                task = submission.name, index
                if task in there:
                    self._tasks[run_id], self._last[run_id] = task, there[task]
        names = {name for name, _ in there}
        self._forget([one for one in earlier if one.ours and one.name not in names])
        self._queued = len(self._tasks)
        self._begun = bool(self._tasks)
        return set(self._tasks)

    def submit(self, tasks: Sequence[Task]) -> None:
        """Submit tasks as one array, or as several where SLURM allows none so large.

        Where a user may have only so many jobs, or arrays that are there already do as many runs at
        once as are wanted, the others are held and submitted by later looks. Once something has
        been submitted, so is what sbatch refuses for another reason.

        Raises:
            UserError: sbatch refused the first of all; its own words.
        """
        for task in tasks:
            self._given_up.pop(task.run_id, None)
        for tasks_of_one, at_once in self._arrays(tasks):
            self._submit_what_fits(tasks_of_one, at_once)
        if self._held:
            warnings.warn(
                f"{self._refusal or f'--at-once {self.at_once}'}; {len(self._held)} runs are "
                "submitted later, by this command while it lives or by the same one given again",
                Notice,
                stacklevel=2,
            )

    def look(self) -> Mapping[str, Seen]:
        """The state of every task; one call of squeue.

        A task counts as ended when two looks in a row find it so or do not find it: an empty answer
        of a controller that has just been started has made others submit everything again.
        """
        try:
            there = {one.task: one.seen() for one in self._queue()}
        except SilentError as error:
            silent = Seen("unknown", f"SLURM does not answer ({error})")
            return dict.fromkeys([*self._tasks, *(task.run_id for task in self._held)], silent)
        gone = Seen("ended")
        now = {run_id: there.get(task, gone) for run_id, task in self._tasks.items()}
        found: dict[str, Seen] = {}
        for run_id, seen in now.items():
            before = self._last.get(run_id, gone)
            if seen.state == "ended" and run_id not in self._missed:
                self._missed.add(run_id)
                found[run_id] = before
            elif seen.state == "ended":
                array_there = any(name == self._tasks[run_id][0] for name, _ in there)
                if seen is gone and array_there and self._never_began(run_id):
                    seen = Seen("ended", final="its task was cancelled before it began")
                found[run_id] = replace(seen, where=seen.where or _place(before))
                self._over.add(run_id)
            else:
                self._missed.discard(run_id)
                self._last[run_id] = found[run_id] = seen
        self._submit_held(sum(seen.state != "ended" for seen in found.values()))
        new = {run_id: self._last[run_id] for run_id in self._tasks.keys() - now.keys()}
        held = dict.fromkeys((task.run_id for task in self._held), Seen("waiting", self._why()))
        return {**found, **new, **held, **self._given_up}

    def _why(self) -> str:
        """What held tasks wait for."""
        if not self._refusal:
            return f"waits: --at-once {self.at_once}"
        if limit_on_jobs(self._refusal, self._queued):
            return "waits: no more jobs of this user"
        return "waits: refused by sbatch, which is asked again"

    def cancel(self) -> None:
        """End all jobs of this user, and wait until they are out of the queue.

        Raises:
            RunError: SLURM does not answer.
        """
        ours = [one for one in self._submitted if one.ours]
        names = {one.name for one in ours}
        jobs = [one.job for one in ours if one.job]
        self._held.clear()
        try:
            jobs = sorted({one.job for one in self._queue() if one.name in names}, key=int)
            if jobs:
                ask("scancel", "--quiet", *jobs)
            end = time.monotonic() + ENDING
            while time.monotonic() < end and any(
                one.name in names and one.seen().state != "ended" for one in self._queue()
            ):
                time.sleep(min(1.0, self.pause))
        except SilentError as error:
            raise RunError(
                f"SLURM does not answer ({error}); end the jobs later: scancel {' '.join(jobs)}"
            ) from None
        self._forget(ours)

    def preview(self, tasks: Sequence[Task]) -> str:
        """The calls of sbatch, each with its job script."""
        shown = []
        for tasks_of_one, at_once in self._arrays(tasks):
            words = self._words(f"{NAME}...", tasks_of_one, at_once)
            script = self._script(tasks_of_one)
            shown.append(f"{shlex.join(words)} <<'END'\n{script}END\n")
        return "\n".join(shown)

    def _queue(self) -> list[Queued]:
        """What SLURM knows of all whose submissions are known here."""
        return queue({os.getuid(), *(one.user for one in self._submitted)})

    def _alive(self) -> dict[tuple[str, int], Seen]:
        """Tasks that have not ended."""
        seen = {one.task: one.seen() for one in self._queue()}
        return {task: one for task, one in seen.items() if one.state != "ended"}

    def _arrays(self, tasks: Sequence[Task]) -> list[tuple[Sequence[Task], int | None]]:
        """Tasks dealt out to as few arrays as SLURM allows, with each one's share at once."""
        number = -(-len(tasks) // max_array_size()) if tasks else 0
        at_once = self.site.at_once
        return [
            (tasks[i::number], None if at_once is None else max(1, (at_once + i) // number))
            for i in range(number)
        ]

    def _words(self, name: str, tasks: Sequence[Task], at_once: int | None) -> list[str]:
        cores = None if self.site.threads is None else self.site.threads * self.site.devices
        return sbatch_words(name, tasks, at_once, cores, self.site.slurm)

    def _script(self, tasks: Sequence[Task]) -> str:
        return job_script(self.site.suite, tasks, self.site.slurm)

    def _submit_what_fits(self, tasks: Sequence[Task], at_once: int | None) -> None:
        """Submit as many tasks as SLURM takes, in ever smaller arrays, and hold the others."""
        size = len(tasks)
        while tasks and (free := self._free()) != 0:
            size = min(size, len(tasks))
            try:
                self._submit_array(tasks[:size], min(at_once or 0, free or 0) or None)
            except UserError as error:
                self._refusal = str(error)
                if size > 1 and limit_on_jobs(self._refusal, 1):
                    size //= 2
                    continue
                if not self._begun:
                    raise
                break
            else:
                self._begun = True
                self._queued += size
                self._refusal, self._refusals = "", 0
                tasks = tasks[size:]
        for task in tasks:
            self._tasks.pop(task.run_id, None)
        self._held += tasks

    def _free(self) -> int | None:
        """Runs that new tasks may do at once, beside those that are there; None: any number."""
        if self.at_once is None:
            return None
        there = Counter(name for run, (name, _) in self._tasks.items() if run not in self._over)
        at_once = {one.name: one.at_once for one in self._submitted}
        taken = sum(min(at_once.get(name) or number, number) for name, number in there.items())
        return max(0, self.at_once - taken)

    def _never_began(self, run_id: str) -> bool:
        """Whether a task has written nothing; SLURM drops one that is cancelled while it waits."""
        name, index = self._tasks[run_id]
        job = next(one.job for one in self._submitted if one.name == name)
        try:
            said = log_of(self.site.suite, run_id).read_text(errors="replace")
        except OSError:
            said = ""
        return bool(job) and f"of job {job}_{index} " not in said

    def _submit_held(self, queued: int) -> None:
        """Submit tasks that were held: beyond a limit on jobs as many as have ended, else all."""
        self._room += max(0, self._queued - queued)
        self._queued = queued
        limit = limit_on_jobs(self._refusal, queued)
        if not self._held or self._free() == 0 or (limit and queued and not self._room):
            return
        tasks, before = self._held, len(self._held)
        number = max(1, self._room) if limit else before
        self._held = []
        for tasks_of_one, at_once in self._arrays(tasks[:number]):
            self._submit_what_fits(tasks_of_one, at_once)
        self._held += tasks[number:]
        self._room = min(self._room, 1) if self._held else 0
        if self._refusal and len(self._held) == before and not limit_on_jobs(self._refusal, queued):
            self._refusals += 1
        if self._refusals >= REFUSALS:
            given_up = Seen("ended", final=self._refusal)
            self._given_up.update(dict.fromkeys((task.run_id for task in self._held), given_up))
            self._held, self._refusals = [], 0

    def _submit_array(self, tasks: Sequence[Task], at_once: int | None) -> None:
        name, runs = f"{NAME}{uuid.uuid4().hex[:12]}", [task.run_id for task in tasks]
        submission = Submission(name, runs, at_once=at_once or 0)
        for folder in {task.log.parent for task in tasks}:
            folder.mkdir(parents=True, exist_ok=True)
        self._submitted.append(submission)
        self._write(submission)
        words = self._words(submission.name, tasks, at_once)
        try:
            said = ask(*words, script=self._script(tasks))
            submission.job = said.partition(";")[0]
        except SilentError as error:
            self._look_for(submission, str(error))
        self._write(submission)
        for index, task in enumerate(tasks):
            self._tasks[task.run_id] = submission.name, index
            self._last[task.run_id] = Seen("waiting")
            self._missed.discard(task.run_id)
            self._over.discard(task.run_id)

    def _look_for(self, submission: Submission, words: str) -> None:
        """Whether SLURM took a job after all, whose sbatch ended badly; UserError where not.

        Where it cannot say, it counts as taken once others are: when SLURM answers again, the next
        looks find the tasks, or find them ended and they are submitted again.
        """
        try:
            there = any(one.name == submission.name for one in self._queue())
        except SilentError as error:
            if self._begun:
                return
            raise UserError(
                f"sbatch: {words}, and squeue: {error}; give the same command again later, which "
                "finds out whether the jobs were submitted"
            ) from None
        if not there:
            self._forget([submission])
            raise UserError(f"sbatch refused: {words}")

    @property
    def _jobs(self) -> Path:
        return self.site.suite / JOBS

    def _read_jobs(self) -> list[Submission]:
        """Earlier submissions, of whoever made them; a file each, so that no drivers share one."""
        found = []
        for file in sorted(self._jobs.glob("*.json")):
            one = read_object(file, REMEDY)
            try:
                runs, numbers = [str(run) for run in one["runs"]], (one["user"], one["at_once"])
                found.append(
                    Submission(str(one["name"]), runs, str(one["job"]), *map(int, numbers))
                )
            except (KeyError, TypeError, ValueError) as error:
                raise UserError(f"{file} is damaged ({error!r}); {REMEDY}") from None
        return found

    def _write(self, submission: Submission) -> None:
        self._jobs.mkdir(parents=True, exist_ok=True)
        content = json.dumps(asdict(submission), indent=1) + "\n"
        write_atomic(self._file(submission), content.encode())

    def _forget(self, submissions: Sequence[Submission]) -> None:
        for one in submissions:
            self._submitted.remove(one)
            self._file(one).unlink(missing_ok=True)

    def _file(self, submission: Submission) -> Path:
        return self._jobs / f"{submission.name}.json"


def _place(seen: Seen) -> str:
    return seen.where if seen.state == "running" else ""


def queued_runs(suite: Path) -> dict[str, str]:
    """Runs of a suite that jobs still have, each with why that is thought; jobs that are over are
    forgotten. Where SLURM cannot be asked, all runs of all jobs count.
    """
    files = sorted((suite / JOBS).glob("*.json"))
    if not files:
        return {}
    try:
        return dict.fromkeys(Slurm(Site(suite, "cpu")).attach(), "a job of SLURM is to do it")
    except UserError as error:
        runs = [run for file in files for run in read_object(file, REMEDY).get("runs", [])]
        return dict.fromkeys(map(str, runs), f"a job of SLURM may be to do it ({error})")
