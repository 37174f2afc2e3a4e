"""Whole runs within a deadline, one training at a time and the attacks of one beside the next.

Two recorded trainings at once are slower than one after the other, for each fills the card; attacks
wait for the host and go well beside one. A job begins only if it can end in time. Tables come back
as they are made, of unfinished runs the curves, and weights in parts where they are asked for.
`gpu_day.sh` calls this; it is no part of the package.

    python benchmarks/gpu/gpu_queue.py --device cuda --out out --work work --seconds 440
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

SMALL = (
    *("run.json", "history.csv", "outcomes.parquet", "reliability.json", "examples.parquet"),
    "log.txt",
)
"""What comes back of a run; its weights are too large."""
PART = 15 << 20
"""Bytes of a part of weights."""


@dataclass(frozen=True)
class Job:
    """A run to be trained and attacked.

    Attributes:
        name: of its folder.
        flags: of `ltrobust bench`, beside those of the suite.
        attacks: on all test images; AutoAttack is on as many as the suite says.
        train_seconds: of 100 epochs with nothing beside it, on an H200.
        attack_seconds: of all attacks.
    """

    name: str
    flags: tuple[str, ...]
    train_seconds: float
    attacks: str = "clean,pgd20,cw20"
    attack_seconds: float = 80.0

    def seconds(self, epochs: int | None) -> float:
        """About how long it takes."""
        return self.train_seconds * (epochs or 100) / 100 + self.attack_seconds


def of(method: str, train_seconds: float) -> Job:
    return Job(method, ("--methods", method), train_seconds)


RERUN = (
    *("--methods", "at-bsl", "--recipe", "paper", "--batch-size", "64"),
    *("--watch", "clean,pgd20", "--watch-every", "2"),
)
"""The setting of the published rerun, and its curve on the test set."""
JOBS = (
    Job("at-bsl-64", RERUN, 220.0, "clean,pgd20,cw20,lsa20"),
    of("pgd-at", 180.0),
    of("robal", 234.0),
    of("trades", 234.0),
    of("at-bsl", 180.0),
    of("taet", 120.0),
    Job("at-bsl-ra-64", (*RERUN, "--augment", "randaugment"), 260.0),
)
"""In the order of their worth."""


@dataclass
class Running:
    """A job at work: its commands one after the other, the first of which trains."""

    job: Job
    folder: Path
    commands: list[list[str]]
    since: float
    process: subprocess.Popen[bytes] | None = None
    codes: list[int] = field(default_factory=list)

    def go_on(self) -> bool:
        """Start the next command when one has ended; whether anything is left to do."""
        if self.process is not None:
            if self.process.poll() is None:
                return True
            self.codes.append(self.process.returncode)
            self.process = None
        if not self.commands or any(self.codes):
            return False
        with (self.folder / "log.txt").open("ab") as log:
            command = self.commands.pop(0)
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        return True

    def trained(self) -> bool:
        return any(self.folder.glob("runs/*/model.safetensors"))


class Queue:
    """Runs jobs until they are done or the time is over."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.monotonic()
        wanted = options.only.split(",") if options.only else [job.name for job in JOBS]
        unknown = set(wanted) - {job.name for job in JOBS}
        if unknown:
            known = ", ".join(job.name for job in JOBS)
            raise SystemExit(f"error: unknown job '{min(unknown)}'; known: {known}")
        self.waiting = [job for job in JOBS if job.name in wanted]
        self.running: list[Running] = []
        self.failed = 0

    @property
    def left(self) -> float:
        return float(self.options.seconds) - (time.monotonic() - self.began)

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self.began:4.0f} s] {text}", flush=True)

    def run(self) -> None:
        collected = 0.0
        while (self.waiting or self.running) and self.left > 0:
            free = all(one.trained() for one in self.running)
            if free and not self.begin_next() and not self.running:
                break
            for one in list(self.running):
                if not one.go_on():
                    self.end(one)
            if time.monotonic() - collected > 10:
                self.collect()
                collected = time.monotonic()
            time.sleep(0.2)
        for one in self.running:
            self.stop(one)
        self.say(f"not begun: {', '.join(job.name for job in self.waiting) or 'none'}")
        self.collect()

    def begin_next(self) -> bool:
        """Begin the first job that can end in time."""
        for job in self.waiting:
            if job.seconds(self.options.epochs) <= self.left:
                self.waiting.remove(job)
                self.running.append(self.begin(job))
                return True
        return False

    def begin(self, job: Job) -> Running:
        folder = Path(self.options.work) / job.name
        folder.mkdir(parents=True, exist_ok=True)
        epochs = () if self.options.epochs is None else ("--epochs", str(self.options.epochs))
        common = [
            *(sys.executable, "-m", "ltrobust", "bench", "--suite", "cifar10-lt"),
            *("--output", str(folder), "--device", self.options.device),
            *("--no-report", "--no-estimate", *job.flags, *epochs),
        ]
        # all test images first; AutoAttack on fewer of them
        attacks = self.options.attacks or job.attacks
        everything = [*common, "--attacks", attacks, "--limit-test", "10000", "--no-checks"]
        last = [*common, "--attacks", self.options.last]
        self.say(f"begun: {job.name}, about {job.seconds(self.options.epochs):.0f} s")
        commands = [[*one, *self.options.flags] for one in (everything, last)]
        return Running(job, folder, commands, time.monotonic())

    def end(self, one: Running) -> None:
        self.running.remove(one)
        bad = any(one.codes)
        self.failed += bad
        took = time.monotonic() - one.since
        self.say(f"{'failed' if bad else 'ended'}: {one.job.name} after {took:.0f} s")
        lines = (one.folder / "log.txt").read_text(errors="replace").splitlines()
        told = lines[-8:] if bad else [line for line in lines if ": accuracy" in line]
        print(*told, sep="\n", flush=True)
        if one.job.name == self.options.weights:
            self.bring_weights(one)
        self.collect()

    def stop(self, one: Running) -> None:
        if one.process is not None:
            one.process.terminate()
            one.process.wait()
        self.say(f"stopped: {one.job.name} after {time.monotonic() - one.since:.0f} s")

    def bring_weights(self, one: Running) -> None:
        """In parts: `cat weights.* > model.safetensors`."""
        for model in sorted(one.folder.glob("runs/*/model.safetensors"))[:1]:
            content = model.read_bytes()
            for number, first in enumerate(range(0, len(content), PART)):
                part = Path(self.options.out) / f"weights.{number:02}"
                part.write_bytes(content[first : first + PART])

    def collect(self) -> None:
        """All small files in one archive; a reader meets the old one or the new one."""
        target = Path(self.options.out) / "runs.tar.gz"
        fresh = target.with_name(".runs.tmp")
        with tarfile.open(fresh, "w:gz", compresslevel=1) as tar:
            for log in sorted(Path(self.options.work).glob("*/log.txt")):
                tar.add(log, f"logs/{log.parent.name}.txt")
            for record in sorted(Path(self.options.work).glob("*/runs/*/run.json")):
                folder = "runs" if _status(record) == "done" else "unfinished"
                for name in SMALL:
                    if (record.parent / name).is_file():
                        tar.add(record.parent / name, f"{folder}/{record.parent.name}/{name}")
        os.replace(fresh, target)


def _status(record: Path) -> str:
    try:
        return str(json.loads(record.read_text()).get("status"))
    except ValueError:
        return "damaged"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--seconds", type=float, default=440)
    parser.add_argument("--only", help="names of jobs, with commas")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--weights", help="the job whose weights come back")
    parser.add_argument("--attacks", help="on all test images, in place of a job's own")
    parser.add_argument("--last", default="autoattack", help="on as many as the suite says")
    parser.add_argument("flags", nargs="*", help="further flags of bench, after --")
    queue = Queue(parser.parse_args())
    queue.run()
    raise SystemExit(queue.failed > 0)


if __name__ == "__main__":
    main()
