"""What another process on the same cores costs a training, by how its threads wait.

The command trains PGD-AT on digits-lt with two threads, alone and beside a process that computes
without end; its threads wait for each other by spinning shortly before they give their core away,
as the command line has it, by giving it away at once (OMP_WAIT_POLICY=passive), or by spinning for
long, as PyTorch's OpenMP does by itself. All six take turns; figures are medians over the epochs
but the first of each.

    python benchmarks/studies/busy.py --json results/studies/busy.json

About six minutes on two cores on which nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from ltrobust.results.files import write_atomic

WAITS = {
    "shortly": {},
    "not at all": {"OMP_WAIT_POLICY": "passive"},
    "for long": {"GOMP_SPINCOUNT": "300000"},
}
"""How a thread spins, and the environment that asks for it."""
THREADS = 2


def seconds_an_epoch(wait: str, epochs: int) -> list[float]:
    """Train in a process of its own; seconds of each epoch but the first."""
    with tempfile.TemporaryDirectory() as folder:
        words = ["--methods", "pgd-at", "--dataset", "digits-lt", "--epochs", str(epochs)]
        words += ["--attacks", "clean", "--limit-test", "20", "--threads", str(THREADS)]
        words += ["--device", "cpu", "--no-checks", "--no-report", "--output", folder]
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
        subprocess.run(
            [sys.executable, "-m", "ltrobust", "bench", *words],
            env={**environment, **WAITS[wait]},
            check=True,
            capture_output=True,
        )
        (history,) = Path(folder).glob("runs/*/history.csv")
        return [float(s) for s in pd.read_csv(history)["seconds"][1:]]


@contextmanager
def company(wanted: bool) -> Iterator[None]:
    """A process beside that computes without end."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (%(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of a training (%(default)s)")
    parser.add_argument("--json", type=Path, help="where the figures go")
    asked = parser.parse_args()
    cases = [(busy, wait) for busy in (False, True) for wait in WAITS]
    found: dict[tuple[bool, str], list[float]] = {case: [] for case in cases}
    for turn in range(asked.rounds):
        for busy, wait in cases[:: 1 if turn % 2 == 0 else -1]:
            with company(busy):
                found[busy, wait] += seconds_an_epoch(wait, asked.epochs)
    report: dict[str, dict[str, float]] = {}
    for busy in (False, True):
        name = "beside another process" if busy else "alone"
        seconds = {wait: statistics.median(found[busy, wait]) for wait in WAITS}
        ratios = {f"{wait} / shortly": one / seconds["shortly"] for wait, one in seconds.items()}
        report[name] = {**seconds, **ratios, "n": len(found[busy, "shortly"])}
        print(f"{name}:", ", ".join(f"{what} {value:.2f}" for what, value in report[name].items()))
    if asked.json:
        write_atomic(asked.json, (json.dumps(report, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
