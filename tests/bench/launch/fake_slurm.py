"""A SLURM of files, for tests: sbatch, squeue, scancel and scontrol by their names.

Nothing runs. The folder in $FAKE_SLURM holds `state.json`, which tests write and read:

    jobs    by id: name, script, words of sbatch, and the state of each task: "PENDING (Priority)",
            "RUNNING n1", "FAILED n1 256"
    calls   every call
    refuse  what sbatch says instead of submitting; `most`: tasks that a user may have
    silent  what every program says instead of answering
    shown   the state that `scontrol show job` tells; `disabled`: what requeues are refused with
    lost    sbatch submits, and says this as if it had not
    empty   so many answers of squeue are empty; `hidden`: users whose jobs it never shows
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

POLICY = (
    "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Batch job submission failed: Job "
    "violates accounting/QOS policy (job submit limit, user's size and/or time limits)"
)


def main() -> None:
    file = Path(os.environ["FAKE_SLURM"], "state.json")
    state = json.loads(file.read_text())
    program, words = Path(sys.argv[0]).name, sys.argv[1:]
    state["calls"].append([program, *words])
    try:
        print({"sbatch": sbatch, "squeue": squeue}.get(program, other)(state, program, words))
    finally:
        file.write_text(json.dumps(state))


def sbatch(state: dict[str, Any], program: str, words: list[str]) -> str:
    fail(state.get("silent") or state.get("refuse"))
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words)
    first, _, last = given["array"].partition("%")[0].partition("-")
    tasks = int(last) - int(first) + 1
    if tasks + sum(len(job["tasks"]) for job in state["jobs"].values()) > state.get("most", 1e9):
        fail(POLICY)
    job = str(4711 + len(state["calls"]))
    state["jobs"][job] = {
        "name": given["job-name"],
        "script": sys.stdin.read(),
        "words": words,
        "user": os.getuid(),
        "tasks": {str(index): "PENDING (Priority)" for index in range(tasks)},
    }
    fail(state.pop("lost", None))
    return f"{job};cluster"


def squeue(state: dict[str, Any], program: str, words: list[str]) -> str:
    fail(state.get("silent"))
    if state.get("empty"):
        state["empty"] -= 1
        return ""
    (users,) = (word.removeprefix("--user=") for word in words if word.startswith("--user="))
    shown = set(map(int, users.split(","))) - set(state.get("hidden", []))
    lines = []
    for number, job in state["jobs"].items():
        for index, task in job["tasks"].items() if job["user"] in shown else ():
            now, _, more = task.partition(" ")
            node, _, status = ("", "", "0") if more.startswith("(") else more.partition(" ")
            reason = more.strip("()") if more.startswith("(") else "None"
            lines.append("|".join([job["name"], index, number, now, status or "0", node, reason]))
    return "\n".join(f"{line}|" for line in lines)


def other(state: dict[str, Any], program: str, words: list[str]) -> str:
    fail(state.get("silent"))
    if program == "scancel":
        for job in words:
            state["jobs"].pop(job, None)
    if words[0] == "requeue":
        fail(state.get("disabled"))
    if words[:2] == ["show", "job"]:
        return f"   JobState={state.get('shown', 'RUNNING')} Reason=None"
    return f"MaxArraySize            = {state.get('largest', 1001)}"


def fail(said: str | None) -> None:
    if said:
        print(said, file=sys.stderr)
        sys.exit(1)


main()
