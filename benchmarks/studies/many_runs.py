"""What a launcher costs: many small runs over a few slots, against the same work in one process.

Hundreds of runs of one epoch on digits-lt, each a second or less of work, so that what is paid for
every run shows: starting a process, claims, records, the loop. Told are the ratio to the serial
time shared out over the slots, and to the serial CPU time; whether every run was done, once; and
what was lost. The serial time is measured on fewer runs and scaled, without the start of its one
process.

    python benchmarks/studies/many_runs.py --runs 300 --jobs 2
    python benchmarks/studies/many_runs.py --runs 300 --launcher slurm --at-once 2 --slurm gres=gpu:1
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

FLAGS = (
    *("--methods", "pgd-at", "--dataset", "digits-lt", "--limit-train", "200", "--epochs", "1"),
    *("--limit-test", "50", "--attacks", "clean,pgd2", "--device", "cpu", "--threads", "1"),
    *("--no-checks", "--no-report", "--no-estimate"),
)


@dataclass(frozen=True)
class Took:
    """What a bench took: seconds on the clock, and CPU seconds of all its processes."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Cost:
    """What came of it.

    Attributes:
        runs: number of runs.
        slots: runs at once.
        serial: what one process takes for all runs, its start left out.
        launched: what the launcher took, all in.
        done: runs that are trained and attacked.
        once: of these, those that were begun once.
        lost: lines about lost runs.
    """

    runs: int
    slots: int
    serial: Took
    launched: Took
    done: int
    once: int
    lost: int

    @property
    def wall_ratio(self) -> float:
        """Time on the clock against the serial work shared out over the slots without loss."""
        return self.launched.wall / (self.serial.wall / self.slots)

    @property
    def cpu_ratio(self) -> float:
        """CPU time against that of the serial work."""
        return self.launched.cpu / self.serial.cpu


def bench(output: Path, runs: int, more: Sequence[str] = ()) -> tuple[Took, str]:
    """Bench so many runs; return what that took and what was said."""
    words = [sys.executable, "-m", "ltrobust", "bench", *FLAGS, "--output", str(output)]
    for first in range(0, runs, 1000):
        words += ["--seeds", f"{first}-{min(first + 1000, runs) - 1}"]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [*words, *more],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"bench ended with {done.returncode}: {done.stdout}{done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall, cpu), done.stdout


def serial_work(place: Path, runs: int, sample: int) -> Took:
    """What one process takes for all runs, from a short and a longer bench; its start left out."""
    (few, _), (many, _) = (bench(place / f"serial-{n}", n) for n in (1, 1 + sample))
    scale = runs / sample
    return Took((many.wall - few.wall) * scale, (many.cpu - few.cpu) * scale)


def measure(place: Path, runs: int, sample: int, slots: int, how: Sequence[str]) -> Cost:
    """Do the runs by a launcher and in one process."""
    serial = serial_work(place, runs, sample)
    launched, said = bench(place / "launched", runs, how)
    folders = [path for path in (place / "launched" / "runs").iterdir() if path.is_dir()]
    done = [one for one in folders if len(list((one / "attacks").glob("*.json"))) == 2]
    begun = [(one / "log.txt").read_text().count(f"{one.name}: ") for one in done]
    return Cost(
        runs,
        slots,
        serial,
        launched,
        len(done),
        sum(count == 1 for count in begun),
        said.count(": lost "),
    )


def main() -> None:
    """Measure, print, and write JSON where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--sample", type=int, default=20, help="runs to measure the serial work on")
    parser.add_argument("--jobs", type=int, default=2, help="runs at once on this machine")
    parser.add_argument("--launcher", default="local")
    parser.add_argument("--at-once", type=int, default=2, help="runs at once on a cluster")
    parser.add_argument("--slurm", action="append", default=[])
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    slots, how = asked.jobs, ["--launcher", asked.launcher]
    if asked.launcher == "local":
        how += ["--jobs", str(asked.jobs)]
    else:
        slots = asked.at_once
        how += ["--at-once", str(slots)]
    for one in asked.slurm:
        how += ["--slurm", one]
    with tempfile.TemporaryDirectory() as place:
        cost = measure(Path(place), asked.runs, asked.sample, slots, how)
    print(
        f"{cost.runs} runs by {asked.launcher}, {cost.slots} at once: {cost.launched.wall:.0f} s, "
        f"{cost.wall_ratio:.2f} times the serial work shared out ({cost.serial.wall:.0f} s in "
        f"all); CPU {cost.launched.cpu:.0f} s, {cost.cpu_ratio:.2f} times; done {cost.done}, of "
        f"these once {cost.once}, lost {cost.lost}"
    )
    if asked.json is not None:
        ratios = {"wall_ratio": cost.wall_ratio, "cpu_ratio": cost.cpu_ratio}
        asked.json.write_text(json.dumps({**asdict(cost), **ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
