"""What a launcher costs where runs are tiny: many digits runs of one epoch, serial and launched.

Each run is one epoch on 60 images, so nearly all that is measured is the start of a process for
each and what an engine needs to begin it. Weights and outcomes must be those of the serial plan,
and each run must have been trained once.

    OMP_NUM_THREADS=1 python benchmarks/studies/launcher_load.py local --runs 300 --slots 2

and with `slurm` or `ray` on a cluster, for which tests/bench/launch has one on this machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SETTINGS = ("--methods", "pgd-at", "--dataset", "digits-lt", "--epochs", "1", "--attacks", "clean")
SETTINGS += ("--limit-train", "60", "--limit-test", "20", "--device", "cpu", "--threads", "1")
SETTINGS += ("--no-checks", "--no-report", "--no-estimate")


START = """
import json, resource, sys
from ltrobust.bench.launch.warm import import_all
import_all()
files = {getattr(module, "__file__", None) for module in list(sys.modules.values())} - {None}
with open("/proc/self/maps") as maps:
    libraries = {line.split()[-1] for line in maps if ".so" in line}
used = resource.getrusage(resource.RUSAGE_SELF)
found = {"files": len(files), "libraries": len(libraries)}
print(json.dumps({**found, "cpu_seconds": used.ru_utime + used.ru_stime}))
"""
"""What a worker does before it begins."""


def start() -> dict[str, float]:
    """What the start of one worker takes: files and libraries that are read, seconds of the CPU."""
    words = [sys.executable, "-c", START]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def bench(suite: Path, runs: int, *words: str) -> dict[str, float]:
    """Do the plan; seconds on the wall, and of the CPU where its processes are ours."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "ltrobust", "bench", *SETTINGS, *words]
    with (suite.parent / f"{suite.name}.out").open("w") as out:
        subprocess.run(
            [*command, "--seeds", f"0-{runs - 1}", "--output", str(suite)],
            stdout=out,
            stderr=out,
            check=True,
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": time.monotonic() - began, "cpu_seconds": cpu}


def facts(suite: Path) -> dict[str, tuple[str, ...]]:
    """Of each run: checksums of weights and outcomes."""
    found = {}
    for run in sorted((suite / "runs").iterdir()):
        weights = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
        records = [json.loads(file.read_text()) for file in (run / "attacks").glob("*.json")]
        found[run.name] = (weights, *sorted(record["outcomes_sha256"] for record in records))
    return found


def trainings(suite: Path) -> list[int]:
    """How often each run was trained."""
    logs = (suite / "runs").glob("*/log.txt")
    return [log.read_text().count("epoch 1/1") for log in logs]


def main() -> None:
    """Measure, compare, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("launcher", choices=("local", "slurm", "ray"))
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--slots", type=int, default=2, help="runs at once")
    parser.add_argument("--folder", type=Path, help="where the suites go; default a temporary one")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="launcher-load-"))
    folder.mkdir(parents=True, exist_ok=True)
    at_once = "--jobs" if given.launcher == "local" else "--at-once"
    serial = bench(folder / "serial", given.runs)
    words = ("--launcher", given.launcher, at_once, str(given.slots))
    launched = bench(folder / given.launcher, given.runs, *words)
    assert facts(folder / given.launcher) == facts(folder / "serial")
    assert trainings(folder / given.launcher) == [1] * given.runs
    taken = given.slots * launched["seconds"]
    print(f"{given.runs} runs, each trained once, weights and outcomes as in one process")
    print(f"serial: {serial['seconds']:.0f} s, {serial['seconds'] / given.runs:.2f} s a run")
    print(
        f"{given.launcher}, {given.slots} at once: {launched['seconds']:.0f} s, "
        f"{taken / given.runs:.2f} s of a slot for a run, "
        f"{taken / serial['seconds']:.2f} times the serial work"
    )
    begins = start()
    print(
        f"a worker reads {begins['files']:.0f} files and {begins['libraries']:.0f} libraries and "
        f"takes {begins['cpu_seconds']:.1f} s of CPU before it begins"
    )
    if given.json is not None:
        content = {"runs": given.runs, "slots": given.slots, "serial": serial, "launched": launched}
        content["start"] = begins
        given.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
