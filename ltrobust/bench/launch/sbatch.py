"""What is asked of SLURM's own programs, and the job script; what is asked when, `slurm` decides.

No accounting database is asked: sites do without, and those that have one wait for it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from ltrobust.bench.launch import Seen, Task
from ltrobust.errors import UserError

NAME = "ltrobust-"
"""How names of our jobs begin."""
PATIENCE = 60.0
"""Seconds that a program may take to answer."""
DEFAULT_MAX_ARRAY_SIZE = 1001
REASON = re.compile(r"\b(?:QOS|Assoc)\w*Limit\b")
"""How sbatch names the limit that a job is beyond; it may say only what `POLICY` finds."""
POLICY = "submit limit"
"""In its general words for any limit, that on the number of jobs among them."""
WARNING = 120
"""Seconds before the time limit at which SLURM is to tell a job."""
LEAVE = 20
"""Seconds of these that ending and asking for another turn may take."""
OPTION = re.compile(r"[a-z][a-z0-9-]*(=.*)?", re.DOTALL)
OURS = ("array", "clusters", "job-name", "parsable", "test-only", "wait", "wrap")
"""Options of sbatch that decide how jobs are found again."""
ON_A_NODE = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
OVER = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
OVER |= {"PREEMPTED", "REVOKED", "TIMEOUT"}

SCRIPT = """\
#!/bin/bash
# One run of {suite} in each task of the array, longest first.
runs=(
{runs}
)
run=${{runs[$SLURM_ARRAY_TASK_ID]}}
exec >> {log} 2>&1
task=${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID
echo "turn ${{SLURM_RESTART_COUNT:-0}} of job $task on $SLURMD_NODENAME"

# what changes when something of the run is saved
standing() {{
    (cd {run} 2> /dev/null &&
        stat -c "%n %y" state.pt trained.json attacks probes ./*.part.safetensors 2> /dev/null)
}}
# a signal wakes the shell; the run, which saves what it can, is waited for again
stop() {{ echo "$2"; asked=1; woken=1; kill -"$1" "$child" 2> /dev/null; }}
trap 'stop TERM "told to stop"' TERM INT
trap 'stop USR2 "time limit near"' USR1 USR2

export {grace_in}={grace}
before=$(standing) asked=0 woken=1
{command} &
child=$!
while [ $woken = 1 ]; do woken=0; wait "$child"; code=$?; done
# done (0), failed (1) and held by another (75) need no other turn, and who is cancelled gets none
if [ $asked = 1 ] && [ $code -ge 128 ]; then
    if [ "$(standing)" = "$before" ]; then
        echo "this turn got no further, so no other one is asked for; a longer time limit may help"
    elif scontrol show job "$task" | grep -q JobState=RUNNING; then
        echo "another turn"
        scontrol requeue "$task" ||
            echo "no other turn from SLURM; the same bench command goes on from here"
    fi
fi
exit $code
"""


class SilentError(Exception):
    """SLURM did not answer, or refused; the message is its own words."""


@dataclass(frozen=True)
class Queued:
    """A task of an array as squeue shows it."""

    name: str
    index: int
    job: str
    state: str
    status: str
    nodes: str
    reason: str

    @property
    def task(self) -> tuple[str, int]:
        """Name and index, which make a task known."""
        return self.name, self.index

    def seen(self) -> Seen:
        """The same in a launcher's words."""
        task = f"job {self.job}_{self.index}"
        if self.state in OVER:
            where = f"{self.nodes} ({task}, {self.state.lower()})" if self.nodes else task
            cancelled = f"{task} was cancelled; the same command submits it again"
            return Seen("ended", where, self.code, cancelled if self.state == "CANCELLED" else "")
        if self.state in ON_A_NODE:
            doing = "" if self.state == "RUNNING" else f", {self.state.lower()}"
            return Seen("running", f"{self.nodes} ({task}{doing})")
        known = self.reason not in ("", "None")
        return Seen("waiting", f"waits: {self.reason} ({task})" if known else "")

    @property
    def code(self) -> int | None:
        """The exit code, where it is certain: a small number is a signal for some versions."""
        if ":" in self.status:
            return int(self.status.partition(":")[0])
        status = int(self.status) if self.status.isdigit() else 0
        return status >> 8 if status > 255 else 0 if self.state == "COMPLETED" else None


def ask(*words: str, script: str = "") -> str:
    """What one of SLURM's programs prints.

    Raises:
        SilentError: it failed or took too long; with its own words.
    """
    try:
        done = subprocess.run(
            words, input=script, capture_output=True, text=True, timeout=PATIENCE, errors="replace"
        )
    except subprocess.TimeoutExpired:
        raise SilentError(f"no answer from {words[0]} in {PATIENCE:g} s") from None
    except OSError as error:
        raise SilentError(f"{words[0]}: {error.strerror or error}") from None
    if done.returncode != 0:
        raise SilentError(
            " ".join(done.stderr.split()) or f"{words[0]} ended with {done.returncode}"
        )
    return done.stdout.strip()


FIELDS = ("Name", "ArrayTaskID", "ArrayJobID", "State", "exit_code", "NodeList", "Reason")


def queue(users: Collection[int]) -> list[Queued]:
    """Tasks of some users' arrays that SLURM knows; for some minutes also those that have ended.

    Args:
        users: their numbers; a site may hide the jobs of others.

    Raises:
        SilentError: it does not answer, which says nothing about them.
    """
    form = "--Format=" + ",".join(f"{field}:|" for field in FIELDS)
    user = "--user=" + ",".join(map(str, sorted(users)))
    text = ask("squeue", "--noheader", "--array", "--states=all", user, form)
    found = []
    for line in text.splitlines():
        name, index, *rest = line.split("|")
        if name.startswith(NAME) and index.isdigit() and len(rest) >= len(FIELDS) - 2:
            found.append(Queued(name, int(index), *rest[: len(FIELDS) - 2]))
    return found


def limit_on_jobs(words: str, queued: int) -> bool:
    """Whether sbatch refuses only while this user has so many jobs.

    Args:
        words: what it says.
        queued: jobs that would make room; general words are not taken for this limit without any.
    """
    named = REASON.findall(words)
    return any("Submit" in one for one in named) if named else POLICY in words and queued > 0


def max_array_size() -> int:
    """The largest number of tasks in an array."""
    try:
        config = ask("scontrol", "show", "config")
    except SilentError:
        return DEFAULT_MAX_ARRAY_SIZE
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", config, re.MULTILINE)
    return max(1, int(found[1])) if found else DEFAULT_MAX_ARRAY_SIZE


def check_installed() -> None:
    """Raise UserError where no jobs can be submitted from."""
    for program in ("sbatch", "squeue", "scancel", "scontrol"):
        if shutil.which(program) is None:
            raise UserError(
                f"--launcher slurm: {program} is not here; give the command where jobs are "
                "submitted from (a login node), or choose --launcher local"
            )


def check_option(option: str) -> None:
    """Raise UserError for what sbatch cannot be given."""
    if not OPTION.fullmatch(option):
        raise UserError(
            f"--slurm '{option}': give key=value with an option of sbatch, such as partition=gpu "
            "or gres=gpu:1"
        )
    name = option.partition("=")[0]
    if name in OURS:
        raise UserError(f"--slurm {name}: this one is ltrobust's own; --at-once limits the array")


def sbatch_words(
    name: str,
    tasks: Sequence[Task],
    at_once: int | None,
    cores: int | None,
    options: Sequence[str],
) -> list[str]:
    """The call of sbatch for one array; what the user gave comes last and wins."""
    array = f"0-{len(tasks) - 1}" + (f"%{at_once}" if at_once else "")
    output = str(tasks[0].log.parent / "slurm-").replace("%", "%%") + "%A.log"
    words = ["sbatch", "--parsable", f"--job-name={name}", f"--array={array}"]
    words += ["--requeue", "--open-mode=append", f"--output={output}", f"--signal=B:USR2@{WARNING}"]
    if cores is not None:
        words.append(f"--cpus-per-task={cores}")
    return [*words, *(f"--{option}" for option in options)]


def job_script(suite: Path, tasks: Sequence[Task], options: Sequence[str] = ()) -> str:
    """The job script of an array. Commands and logs of its tasks differ by the run's id.

    Args:
        suite: the suite's directory.
        tasks: of the array.
        options: what the user gave for sbatch, which may ask for another signal.
    """
    from ltrobust.bench.work import LIMIT_GRACE_IN  # imports torch, which looking does not need

    first = tasks[0]
    signals = [re.search(r"@(\d+)$", one) for one in options if one.startswith("signal=")]
    warning = int(signals[-1][1]) if signals and signals[-1] else WARNING
    command = ('"$run"' if w == first.run_id else shlex.quote(w) for w in first.command)
    return SCRIPT.format(
        suite=" ".join(str(suite).split()),
        runs="\n".join(f"    {shlex.quote(task.run_id)}" for task in tasks),
        log=f'{shlex.quote(str(first.log.parent))}/"$run".log',
        run=f'{shlex.quote(str(suite / "runs"))}/"$run"',
        command=" ".join(command),
        grace_in=LIMIT_GRACE_IN,
        grace=max(0, warning - LEAVE),
    )
